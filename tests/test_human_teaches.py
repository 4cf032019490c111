"""Somebody with a liking sits at the rating desk, and the policy comes to satisfy it.

The hidden preference is for short answers; nothing else teaches. The desk is the one behind the rating screen: it is
asked what is on it, keys are answered as a person would, and the commands that it makes go to an engine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.pilot import Pilot

from engine.control import Control
from engine.knobs import Knobs
from engine.learner import Learner
from engine.rewards import Component
from engine.tasks import Prompt, Task
from screens.app import WorkbenchApp
from screens.rating_desk import Desk
from screens.rating_visit import Visit
from sessions import wire
from sessions.commands import QueryGroup, Rate, Skip, TrainRewardModel
from sessions.folders import SessionFolder
from sessions.modes import LEFT, RANK_TIE, RIGHT, TIE
from sessions.records import SessionSettings
from tests.engine.live import Live, live, session
from tests.engine.small import make_knobs, random_policy, same_weights

SHORT = 2
"""Characters up to which somebody calls an answer short."""
WANTED = 2
"""Groups of a step that they rate."""
ONCE = [("likert", 0), ("pair", 1), ("rank", 2)]
"""Every mode, and every seed; the other seeds of each are for ``make test-learning``."""
OTHER_SEEDS = [
    pytest.param(mode, seed, marks=pytest.mark.learning)
    for mode in ("likert", "pair", "rank")
    for seed in (0, 1, 2)
    if (mode, seed) not in ONCE
]


def task(seconds: float = 0.0) -> Task:
    """Questions whose answers earn nothing: the one component is measured and does not teach.

    :param seconds: that it takes for a group.
    """
    every = [Prompt(id=f"p{i}", text=f"{i * 7 % 97}+{i}=", answer=str(i)) for i in range(120)]

    def kinds(prompts: Any, completions: Any, **_: Any) -> list[float]:
        time.sleep(seconds)
        return [float(len(set(text))) for text in completions]

    return Task(
        name="silent",
        prompts=every[:80],
        evaluation=every[80:],
        components={"kinds": Component(kinds, weight=0.0)},
        reward_range=(0.0, 1.0),
        judge=lambda prompt, text: len(text) <= SHORT,
    )


@asynccontextmanager
async def training(seed: int, name: str = "s", seconds: float = 0.0, **values: Any) -> AsyncIterator[Live]:
    """A session of a small random policy; ``eval/accuracy`` is the share of short answers to held-out prompts."""
    settings = {
        "prompts_per_step": 8, "group_size": 4, "learning_rate": 3e-3, "kl_coefficient": 0.0, "rating_repeats": 0.0,
        "evaluate_every": 5, "checkpoint_steps": 0, **values,
    }  # fmt: skip

    def build(given: SessionSettings, control: Control, folder: SessionFolder) -> tuple[Learner, Knobs]:
        knobs = make_knobs(**settings)
        return Learner(given, task(seconds), random_policy(seed), knobs, control, folder.checkpoints), knobs

    async with live(session(name, steps=0, seed=seed), build=build) as tested:
        yield tested


class Rater:
    """Somebody at the desk."""

    def __init__(self, tested: Live, mode: str) -> None:
        self.tested, self.desk = tested, Desk("ann", mode=mode)
        self.given = 0

    async def sit(self, steps: int) -> None:
        """Rate at the gate until so many steps are learned."""
        engine, seen = self.tested.engine, 0
        while engine.learner.step < steps:
            status = engine.service.status()
            if status.state == "WAIT" and status.step != seen:
                seen = status.step
                await self._rate(status.branch, status.step)
            await asyncio.sleep(0.001)

    async def _rate(self, branch: str, step: int) -> None:
        heads = self.tested.engine.board.heads.values()
        self.desk.heads = {(h.branch, h.step, h.number): h for h in heads if h.step == step}
        self.desk.awaited = branch, step
        self.desk.next_group()
        done: set[int] = set()
        while len(done) < WANTED:
            visit = self.desk.current
            assert visit is not None
            if visit.detail is None:
                name = self.desk.book.name(visit.key)
                detail = await self.tested.client.query_json(QueryGroup(group=name))
                self.desk.loaded(wire.msgspec.convert(detail, wire.GroupDetail))
            commands = self._answers(visit)
            if not commands and (skip := self.desk.skip("all alike")):  # nothing there is to be compared
                commands = [skip]
            for command in commands:
                answer = await self.tested.first(command)
                assert answer.status == "applied", answer
                self.desk.confirmed(command, failed=False)
                self.given += 1
            done.add(visit.key[2])
            if self.desk.current is visit:
                self.desk.next_group()

    def _answers(self, visit: Visit) -> list[Rate | Skip]:
        """Keys, one after the other, until every question of the group is answered."""
        length = {letter: len(visit.response_text(letter)) for letter in visit.order}
        match self.desk.mode.name:
            case "likert":
                found = [self.desk.answer(max(1, 5 - length[visit.letter])) for _ in visit.order]
            case "pair":
                found = []
                while self.desk.current is visit and visit.pair is not None:
                    left, right = (length[letter] for letter in visit.pair)
                    found.append(self.desk.answer(LEFT if left < right else RIGHT if right < left else TIE))
            case _:
                found, before = [], -1
                here = list(visit.here)
                for letter in sorted(here, key=length.__getitem__):
                    if length[letter] == before:
                        found.append(self.desk.answer(RANK_TIE))
                    before = length[letter]
                    found.append(self.desk.answer(float(1 + here.index(letter))))
        return [command for command in found if command is not None]


def short_share(tested: Live) -> list[float]:
    """Of the answers to held-out prompts, at every evaluation so far."""
    found = tested.engine.board.series["eval/accuracy"].window(0, 10**9, 1000).values
    return [share for share in found if share is not None]


@pytest.mark.parametrize(("mode", "seed"), ONCE + OTHER_SEEDS)
async def test_the_policy_comes_to_satisfy_whoever_rates_it(mode: str, seed: int) -> None:
    async with training(seed, rating_gate=f"wait {WANTED}") as tested:
        await tested.first("resume")
        rater = Rater(tested, mode)
        await rater.sit(40)
        share = short_share(tested)
    assert rater.given >= 40 * WANTED
    assert share[0] < 0.3
    assert share[-1] > share[0] + 0.3


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.learning) for seed in (1, 2))])
async def test_the_reward_model_alone_carries_on_after_the_rater_has_left(seed: int) -> None:
    async with training(seed, rating_gate=f"wait {WANTED}", learning_rate=1.5e-3) as tested:
        await tested.first("resume")
        await Rater(tested, "rank").sit(20)
        left = short_share(tested)[-1]
        await tested.first(TrainRewardModel())
        await tested.until(lambda: any("is trained" in text for text in tested.notes("reward model")))
        await tested.first("set rating_gate=async reward_model_weight=1")
        there = tested.engine.learner.step
        await tested.until(lambda: tested.engine.learner.step >= there + 40)
        used = [use for use in tested.uses if use.step > there]
        share = short_share(tested)[-1]
    assert not used
    assert left < 0.6
    assert share > left + 0.2


# ----------------------------------------------------------------------- the whole screen, at its keys


@asynccontextmanager
async def at_the_screen(tested: Live) -> AsyncIterator[tuple[WorkbenchApp, Pilot[str]]]:
    """The app, attached to the engine, on its rating screen."""
    app = WorkbenchApp(tested.engine.folder)
    async with app.run_test(size=(100, 30)) as pilot:
        await tested.until(lambda: app.live.status is not None)
        await pilot.press("r")
        yield app, pilot


def groups_rated(tested: Live) -> set[str]:
    return {use.group for use in tested.uses if use.step}


async def test_a_rating_at_the_screen_before_the_update_is_in_it_and_changes_the_policy() -> None:
    weights = {}
    for rated in (False, True):
        async with training(0, f"rated-{rated}", evaluate_every=0) as tested:
            await tested.do("pause update")
            if rated:
                async with at_the_screen(tested) as (app, pilot):
                    await tested.until(lambda: app.screen.desk.current and app.screen.desk.current.detail)
                    for key in ("5", "1", "3", "1"):
                        await pilot.press(key)
                    await tested.until(lambda: len(tested.of(wire.RatingSaved)) == 4)
            await tested.step()
            weights[rated] = tested.weights
            if rated:
                await tested.until(lambda: len(tested.uses) == 4)
                assert {(use.fate, use.step) for use in tested.uses} == {("on_time", 1)}
    assert not same_weights(weights[False], weights[True])


async def test_a_rating_at_the_screen_after_the_update_joins_the_next_and_changes_the_policy() -> None:
    weights = {}
    for rated in (False, True):
        async with training(0, f"rated-{rated}", evaluate_every=0) as tested:
            await tested.step()
            if rated:
                async with at_the_screen(tested) as (app, pilot):
                    await tested.until(lambda: app.screen.desk.current and app.screen.desk.current.detail)
                    for key in ("5", "1", "3", "1"):
                        await pilot.press(key)
                    await tested.until(lambda: len(tested.of(wire.RatingSaved)) == 4)
            await tested.step()
            weights[rated] = tested.weights
            if rated:
                await tested.until(lambda: len(tested.uses) == 4)
                assert {(use.fate, use.step) for use in tested.uses} == {("late", 2)}
                assert tested.engine.board.last_step.metrics["groups/late"] == 1
    assert not same_weights(weights[False], weights[True])


async def test_ratings_at_the_screen_while_it_trains_are_all_used_and_none_is_lost() -> None:
    """The gate is async: the training does not wait, and whatever is rated is used on time or late."""
    values = {"evaluate_every": 0, "rating_max_kl": 100.0}
    async with training(1, seconds=0.02, **values) as tested, at_the_screen(tested) as (app, pilot):
        await tested.first("resume")
        await tested.until(lambda: app.screen.desk.current and app.screen.desk.current.detail)
        begun = tested.engine.learner.step
        for _ in range(12):
            await tested.until(lambda: app.screen.desk.current and app.screen.desk.current.detail)
            for key in "5151":
                await pilot.press(key)
            await pilot.press("enter")
            seen = tested.engine.learner.step
            await tested.until(lambda seen=seen: tested.engine.learner.step > seen)
        saved = tested.of(wire.RatingSaved)
        assert len(saved) >= 40
        await tested.until(lambda: len(tested.uses) == len(tested.of(wire.RatingSaved)))
        assert {use.fate for use in tested.uses} <= {"on_time", "late"}
        assert tested.engine.learner.step > begun


async def test_twenty_ratings_a_second_for_a_minute_lose_nothing() -> None:
    """1,200 of them, as fast as they go, while it trains: every one that was acknowledged is on disk, once."""
    async with training(2, rating_max_kl=100.0, evaluate_every=0) as tested:
        await tested.step(4)
        await tested.first("resume")
        names = [h.name for h in tested.engine.board.heads.values()]
        sent: list[Rate] = []

        async def give(number: int) -> None:
            name = names[number % len(names)]
            command = Rate(
                group=name, mode="likert", values={"ABCD"[number % 4]: float(1 + number % 5)}, who=f"p{number % 3}"
            )
            answer = await tested.first(command)
            assert answer.status == "applied", answer
            sent.append(command)

        for first in range(0, 1200, 20):
            await asyncio.gather(*(give(first + i) for i in range(20)))
        kept = await tested.engine.write(tested.engine.store.recent_ratings, 5000)
        assert sorted(r.id for r in kept) == sorted(c.id for c in sent)
        assert {r.id: r.values for r in kept} == {c.id: c.values for c in sent}
        standing = await tested.engine.write(tested.engine.store.count_ratings)
        assert standing == 1200
        await tested.until(lambda: len({use.rating for use in tested.uses}) == 1200)
