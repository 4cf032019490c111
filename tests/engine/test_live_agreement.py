"""In a live engine: what people say of responses as metrics and alarms, and the responses whose reward rose."""

from __future__ import annotations

from typing import Any

import pytest

from engine.rewards import Component
from engine.statistics import repetition
from sessions import wire
from sessions.commands import AddWatch, QueryRose, Rate, new_id
from sessions.rose import Roses
from tests.engine.live import live
from tests.engine.small import early_letters, small_task


def late_letters(prompts: Any, completions: Any, **_: Any) -> list[float | None]:
    """The opposite of what is rewarded."""
    return [1 - (value or 0) for value in early_letters(prompts, completions)]


def pair(group: str, better: str, worse: str, **more: Any) -> Rate:
    return Rate(group=group, mode="pair", values={better: 1.0, worse: 0.0}, who="ann", id=new_id(), **more)


async def test_agreement_is_a_metric_of_the_step_after_the_ratings_and_of_those_that_follow() -> None:
    async with live(human_weight=0.0) as tested:
        await tested.step()
        await tested.until(lambda: tested.of(wire.StepDone))
        assert not [
            n for n in tested.of(wire.StepDone)[-1].record.metrics if n.startswith("ratings/") and "used" not in n
        ]
        against: list[str] = []
        for number in (1, 2, 3, 4):  # as the reward orders them, but for the last group
            group = await tested.client.query(wire_group(f"1.{number}"), wire.GroupDetail)
            ordered = sorted((r for r in group.group.responses), key=lambda r: -(r.reward or 0))
            for worse in ordered[1:]:
                if worse.reward != ordered[0].reward:
                    liked, disliked = (ordered[0], worse) if number < 4 else (worse, ordered[0])
                    against += [f"1.4{disliked.letter}"] if number == 4 else []
                    assert (await tested.do(pair(f"1.{number}", liked.letter, disliked.letter))).status == "applied"
        said = len(tested.engine.board.ratings)
        assert said >= 10
        await tested.do(AddWatch(rule="unloved: ratings/reward_agreement < 0.99"))
        await tested.step(2)
        await tested.until(lambda: len(tested.of(wire.StepDone)) == 3)
        for event in tested.of(wire.StepDone)[1:]:
            metrics = event.record.metrics
            assert metrics["ratings/raters"] == 1
            assert metrics["ratings/reward_agreement"] == pytest.approx(1 - len(against) / said)
            assert not {"ratings/self_agreement", "ratings/alpha", "ratings/reward_model_agreement"} & metrics.keys()
        (alarm,) = [e.alarm for e in tested.of(wire.AlarmRaised) if e.alarm.rule == "unloved"]
        assert alarm.responses == list(dict.fromkeys(against))


def wire_group(name: str) -> Any:
    from sessions.commands import QueryGroup

    return QueryGroup(group=name)


async def test_rose_answers_from_the_records_with_the_checks_of_the_task() -> None:
    task = small_task(prompts=4, late=Component(late_letters, weight=0.0))
    async with live(task=task) as tested:
        refused = await tested.do(QueryRose())
        assert (refused.status, refused.text) == ("rejected", "no response has been scored yet, so none has risen")
        await tested.step(3)
        await tested.until(lambda: len(tested.of(wire.StepDone)) == 3)
        found = await tested.client.query(QueryRose(step=1, limit=5), Roses)
        assert (found.since, found.first, found.newest, found.checks) == (1, 2, 3, ["late"])
        assert 0 < len(found.rows) <= 5
        for row in found.rows:
            assert row.over == "prompt"  # of four prompts, each is asked in every step
            before = await tested.client.query(wire_group(row.best.name[:-1] if row.best else ""), wire.GroupDetail)
            earned = [r.reward for r in before.group.responses if r.reward is not None]
            assert row.before == pytest.approx(sum(earned) / len(earned))
            assert row.response.reward == pytest.approx(row.before + row.rise)
            group = await tested.client.query(wire_group(row.response.name[:-1]), wire.GroupDetail)
            tokens = next(r.tokens for r in group.group.responses if r.letter == row.response.name[-1])
            assert row.response.repetition == repetition(tokens)
            assert row.response.components["late"] == pytest.approx(1 - (row.response.components["early"] or 0))


async def test_each_held_out_check_is_watched() -> None:
    task = small_task(late=Component(late_letters, weight=0.0))
    async with live(task=task) as tested:
        watched = {state.name: state.rule for state in tested.engine.watching.states([])}
        assert watched["check late"] == "reward/automatic rises while reward/late falls over 20 by 0.02"
        assert "check early" not in watched
