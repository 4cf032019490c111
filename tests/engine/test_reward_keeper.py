"""A reward model that lives in a session: trained beside the steps, taken up between them, kept, never in the way."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import reward_keeper, reward_training
from engine.control import Control
from engine.knobs import Knobs
from engine.learner import Learner
from engine.policy import make_accelerator
from engine.reward_model import RewardModel, load_reward_model
from engine.reward_scores import COMPONENT
from engine.rewards import Component
from engine.rollout import RolloutGroup
from sessions import wire
from sessions.commands import QueryRewardModel, Rate, TrainRewardModel
from sessions.errors import SessionError
from sessions.folders import SessionFolder
from sessions.orderings import Ordering, held_out
from sessions.records import Group, SessionSettings, parse_response_name
from sessions.reward_models import RewardModelSettings, RewardModelState
from sessions.store import Store
from tests.engine.live import Live, live, session
from tests.engine.small import make_knobs, random_policy, same_weights, small_task
from tests.engine.test_resuming import finish, rows

STEPS = {"checkpoint_steps": 0}


def group_of(tested: Live, name: str) -> Group:
    return tested.engine.store.group(parse_response_name(name), tested.engine.branch)


async def stored(tested: Live, name: str) -> Group:
    return await tested.engine.write(group_of, tested, name)


async def rate_by_length(tested: Live, *steps: int, who: str = "ann", mode: str = "rank") -> int:
    """Somebody who likes the shorter response, asked about every group of some steps."""
    given = 0
    for step in steps:
        for number in range(1, 5):
            group = await stored(tested, f"{step}.{number}")
            lengths = {r.letter: len(r.text) for r in group.responses}
            order = sorted(set(lengths.values()))
            if len(order) > 1:
                places = {letter: float(1 + order.index(length)) for letter, length in lengths.items()}
                answer = await tested.do(Rate(group=group.name, mode=mode, values=places, who=who))
                assert answer.status == "applied", answer
                given += 1
    return given


async def trained(tested: Live, version: int = 1) -> None:
    await tested.until(lambda: any(f"version {version} is trained" in text for text in tested.notes("reward model")))


async def scores(tested: Live, step: int) -> dict[str, float | None]:
    return {
        f"{step}.{n}{r.letter}": r.components.get(COMPONENT)
        for n in range(1, 5)
        for r in (await stored(tested, f"{step}.{n}")).responses
    }


async def state(tested: Live) -> RewardModelState | None:
    found = await tested.client.query_json(QueryRewardModel())
    return wire.msgspec.convert(found, RewardModelState) if found else None


async def test_it_is_trained_on_command_and_scores_the_step_after() -> None:
    async with live(session(steps=0), **STEPS) as tested:
        await tested.step(3)
        await rate_by_length(tested, 1, 2, 3)
        assert await state(tested) is None
        answer = await tested.first(TrainRewardModel())
        assert answer.status == "accepted", answer
        await trained(tested)
        before = tested.engine.board.last_step
        await tested.step()
        made = await state(tested)
        assert made is not None
        assert made.version == 1
        found = await scores(tested, 4)
        assert all(score is not None for score in found.values())
        assert set((await scores(tested, 3)).values()) == {None}
        record = tested.engine.board.last_step
        assert record is not None
        assert before is not None
        assert record.metrics["reward_model/version"] == 1
        assert "reward_model/version" not in before.metrics
        mean = sum(s for s in found.values() if s is not None) / len(found)
        assert record.metrics[f"reward/{COMPONENT}"] == pytest.approx(mean)


async def test_its_weight_is_live_and_at_0_it_does_not_teach() -> None:
    async with live(session(steps=0), **STEPS) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        await tested.first(TrainRewardModel())
        await trained(tested)
        await tested.step()
        for response in (await stored(tested, "3.1")).responses:
            assert response.reward == pytest.approx(response.components["early"])
        await tested.first("set reward_model_weight=0.5")
        await tested.step()
        for response in (await stored(tested, "4.1")).responses:
            expected = response.components["early"] + 0.5 * response.components[COMPONENT]
            assert response.reward == pytest.approx(expected)
            assert len(response.heads) == 4


async def test_it_can_be_all_there_is_of_the_reward() -> None:
    task = small_task(function=lambda prompts, completions, **_: [None] * len(completions))
    async with live(session(steps=0), task=task, reward_model_weight=2.0, **STEPS) as tested:
        await tested.step(2)
        assert {r.reward for r in (await stored(tested, "2.1")).responses} == {None}
        await rate_by_length(tested, 1, 2)
        await tested.first(TrainRewardModel())
        await trained(tested)
        await tested.step()
        for response in (await stored(tested, "3.1")).responses:
            assert response.reward == pytest.approx(2 * response.components[COMPONENT])


async def test_a_response_that_a_reward_function_failed_on_has_no_score() -> None:
    def fails(prompts: Any, completions: Any, **_: Any) -> list[float]:
        return [float("nan") if i == 0 else 1.0 for i in range(len(completions))]

    async with live(session(steps=0), task=small_task(fails=Component(fails)), **STEPS) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        await tested.first(TrainRewardModel())
        await trained(tested)
        await tested.step()
        first, *others = (await stored(tested, "3.1")).responses
        assert first.failed
        assert COMPONENT not in first.components
        assert not first.heads
        assert all(COMPONENT in r.components for r in others)


async def test_the_steps_go_on_while_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    train = reward_training.train

    def slow(*arguments: Any, **more: Any) -> Any:
        begun.set()
        assert go_on.wait(10)
        return train(*arguments, **more)

    monkeypatch.setattr(reward_training, "train", slow)
    async with live(session(steps=0), **STEPS) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        try:
            await tested.first(TrainRewardModel())
            await tested.until(begun.is_set)
            refused = await tested.first(TrainRewardModel())
            assert refused.status == "rejected"
            assert "being trained already" in refused.text
            await tested.step(3)
            assert set((await scores(tested, 5)).values()) == {None}
        finally:
            go_on.set()
        await trained(tested)
        await tested.step()
        assert None not in (await scores(tested, 6)).values()


async def test_it_is_trained_anew_whenever_enough_was_rated() -> None:
    async with live(session(steps=0), reward_model_every=6, **STEPS) as tested:
        await tested.step(3)
        assert await rate_by_length(tested, 1) < 6
        await tested.step()
        assert not tested.notes("reward model")
        await rate_by_length(tested, 2, 3)
        await tested.step()
        await trained(tested)
        await tested.step(2)
        made = await state(tested)
        assert made is not None
        assert made.version == 1
        await rate_by_length(tested, 4, 5)
        await tested.step()
        await trained(tested, 2)
        await tested.step()
        made = await state(tested)
        assert made is not None
        assert made.version == 2
        assert made.reports[-1].drift is not None


async def test_held_out_prompts_are_never_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    encode = reward_training.encode_orderings

    def watch(model: Any, orderings: Any, safe_point: Any) -> Any:
        kept = list(orderings)
        encoded.append(",".join(sorted({o.prompt for o in kept})))
        return encode(model, kept, safe_point)

    monkeypatch.setattr(reward_training, "encode_orderings", watch)
    async with live(session(steps=0), **STEPS) as tested:
        await tested.step(4)
        await rate_by_length(tested, 1, 2, 3, 4)
        await tested.first(TrainRewardModel())
        await trained(tested)
    learned, secret = (set(part.split(",")) - {""} for part in encoded)
    assert learned
    assert not learned & secret
    assert not any(map(held_out, learned))
    assert all(map(held_out, secret))


async def test_too_little_to_learn_from_is_refused() -> None:
    async with live(session(steps=0), **STEPS) as tested:
        await tested.step()
        answer = await tested.first(TrainRewardModel())
        assert answer.status == "rejected"
        assert "there are 0 comparisons to train on" in answer.text
        answer = await tested.first(TrainRewardModel())
        assert "there are 0 comparisons" in answer.text  # and not that one is being trained


async def test_a_training_that_fails_is_told_and_the_steps_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise SessionError("the loss is not finite")

    monkeypatch.setattr(reward_training, "train", broken)
    async with live(session(steps=0), **STEPS) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        answer = await tested.do(TrainRewardModel())
        assert answer.status == "rejected"
        assert "the loss is not finite" in answer.text
        await tested.step()
        assert set((await scores(tested, 3)).values()) == {None}
        assert not tested.engine.reward.busy


async def test_an_end_in_the_middle_of_a_training_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    ended: list[str] = []

    def endless(*_: Any, safe_point: Any, **__: Any) -> Any:
        begun.set()
        while True:
            try:
                safe_point()
            except reward_keeper.Given:
                ended.append("given up")
                raise

    monkeypatch.setattr(reward_training, "train", endless)
    async with live(session(steps=0), **STEPS) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        await tested.first(TrainRewardModel())
        await tested.until(begun.is_set)
        await tested.first("stop")
        await tested.ended()
    assert ended == ["given up"]


async def test_a_checkpoint_keeps_it() -> None:
    folder = session(steps=0)
    async with live(folder, reward_model_weight=1.0, **STEPS) as tested:
        await tested.step(3)
        await rate_by_length(tested, 1, 2, 3)
        await tested.first(TrainRewardModel())
        await trained(tested)
        await tested.step()
        model = tested.engine.learner.reward_model
        assert model is not None
        kept = {name: t.clone() for name, t in model.tensors().items()}
        told = await state(tested)
        await tested.first("stop")
        await tested.ended()
    async with live(folder, reward_model_weight=1.0, **STEPS) as tested:
        again = tested.engine.learner.reward_model
        assert again is not None
        assert again is not model
        assert all(torch.equal(t, kept[name]) for name, t in again.tensors().items())
        assert await state(tested) == told
        assert tested.engine.learner.reward_ratings > 0
        await tested.step()
        assert None not in (await scores(tested, 5)).values()


async def test_it_is_taken_up_at_the_end_too() -> None:
    folder = session(steps=0)
    async with live(folder, **STEPS) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        await tested.first(TrainRewardModel())
        await trained(tested)
        await tested.first("stop")
        await tested.ended()
    async with live(folder, **STEPS) as tested:
        made = await state(tested)
        assert made is not None
        assert made.version == 1


@pytest.mark.parametrize("keep", [500, 1])
async def test_steps_it_scored_are_computed_again_bit_for_bit(keep: int) -> None:
    """As after a kill: the newest checkpoint is from before there was a reward model.

    :param keep: steps whose tokens are kept; the others are sampled again, and take the scores that were recorded.
    """
    folder = session(steps=0, keep_token_steps=keep)
    async with live(folder, reward_model_weight=1.0, **STEPS) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        await tested.first(TrainRewardModel())
        await trained(tested)
        await tested.step(3)
        whole = tested.weights
        recorded = rows(folder)
        await tested.first("stop --now")
        await tested.ended()
    async with live(folder, reward_model_weight=1.0, **STEPS) as tested:
        assert tested.engine.learner.step == 5
        assert tested.engine.branch == "main"
        assert same_weights(tested.weights, whole)
        assert rows(folder) == recorded
        told = next(text for text in tested.snapshots[-1].events if isinstance(text, wire.Noted) and "bit" in text.text)
        assert "bit for bit" in told.text


async def test_a_session_without_one_is_as_it_was() -> None:
    folder = session("plain", steps=4)
    async with live(folder) as tested:
        await finish(tested)
        plain = tested.weights
    other = session("with", steps=4)
    async with live(other, reward_model_every=1000) as tested:
        await finish(tested)
        assert same_weights(tested.weights, plain)
    store = Store(other.database, read_only=True)
    assert not any("reward_model" in r.components for g in store.first_groups(50) for r in g.responses)
    store.close()


async def test_a_session_begins_with_a_reward_model_that_was_given_and_learns_from_what_it_was_made_of(
    tmp_path: Path,
) -> None:
    policy = random_policy()
    orderings = [Ordering(prompt=f"{i}+{i}=", tiers=[["1"], ["11111"]], source="f:1") for i in range(40)]
    given = RewardModel(policy, RewardModelSettings(seed=3))
    reward_training.train(given, orderings)
    given.save(tmp_path / "given", orderings)
    folder = session(steps=0, reward_model=str(tmp_path / "given"))

    def build(settings: SessionSettings, control: Control, where: SessionFolder) -> tuple[Learner, Knobs]:
        knobs = make_knobs(reward_model_weight=1.0, **STEPS)
        before = load_reward_model(Path(settings.reward_model), make_accelerator("cpu", "fp32"))
        return Learner(settings, small_task(), random_policy(), knobs, control, where.checkpoints, given=before), knobs

    for engine in (1, 2):  # the second finds them known
        async with live(folder, build=build) as tested:
            made = await state(tested)
            assert made is not None
            assert made.settings.seed == 3
            assert len(await tested.engine.write(tested.engine.store.orderings)) == 40
            await tested.step()
            found = await stored(tested, f"{engine}.1")
            expected = tested.engine.learner.reward_model.score(RolloutGroup(found).rows()).mean(0)
            scored = [r.components[COMPONENT] for r in found.responses]
            assert scored == pytest.approx(expected.tolist(), abs=1e-5)
    async with live(folder, build=build) as tested:
        answer = await tested.first(TrainRewardModel())
        assert answer.status == "accepted", answer
        await trained(tested, 2)
        await tested.step()
        made = await state(tested)
        assert made is not None
        assert made.version == 2
        assert made.trained == sum(not held_out(o.prompt) for o in orderings)


# ------------------------------------------------------------------------------------------ ends, moves and repeats

FIGURES = "reward_model/version"


async def make_one(tested: Live, version: int = 1) -> None:
    """Have a version trained, which no step has begun to use."""
    assert (await tested.first(TrainRewardModel())).status == "accepted"
    await trained(tested, version)


async def last_metrics(tested: Live) -> dict[str, float | None]:
    record = tested.engine.board.last_step
    assert record is not None
    return record.metrics


async def test_whoever_asked_for_one_that_another_overtook_is_told() -> None:
    async with live(session(steps=0), **STEPS) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        first = asyncio.create_task(tested.do(TrainRewardModel()))
        await trained(tested)
        second = asyncio.create_task(tested.do(TrainRewardModel()))
        answer = await first
        assert answer.status == "rejected"
        assert "another was trained" in answer.text
        await tested.step()
        assert (await second).status == "applied"


async def test_the_step_that_is_learned_has_its_figures_and_not_the_try_that_was_dropped() -> None:
    async with live(session(steps=0), **STEPS) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        await make_one(tested)
        tested.hold.at("sampling", 1)
        await tested.first("step")
        await tested.held()
        await tested.first("pause")
        tested.hold.release()
        await tested.paused()
        assert (await tested.do("discard")).status == "applied"
        await tested.step()
        assert (await last_metrics(tested))[FIGURES] == 1
        await tested.step()
        assert FIGURES not in await last_metrics(tested)


@pytest.mark.parametrize("phase", ["before it", "inside it"])
async def test_one_that_a_step_took_up_is_kept_when_the_session_ends_there(phase: str) -> None:
    folder = session(steps=0)
    async with live(folder, checkpoint_steps=1) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        await make_one(tested)
        if phase == "inside it":
            tested.hold.at("sampling", 1)
            await tested.first("step")
            await tested.held()
            await tested.first("pause")
            tested.hold.release()
            await tested.paused()
        await tested.first("stop")
        await tested.ended()
    async with live(folder, checkpoint_steps=1) as tested:
        await tested.step()
        assert None not in (await scores(tested, 3)).values()
        assert (await last_metrics(tested))[FIGURES] == 1
        await tested.step()
        assert FIGURES not in await last_metrics(tested)


async def test_one_in_use_outlives_a_kill() -> None:
    folder = session(steps=0)
    async with live(folder, checkpoint_steps=50) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        await make_one(tested)
        await tested.step(2)
        await tested.first("stop --now")
        await tested.ended()
    async with live(folder, checkpoint_steps=50) as tested:
        assert tested.engine.learner.step == 4
        await tested.step()
        assert None not in (await scores(tested, 5)).values()
        assert FIGURES not in await last_metrics(tested)


@pytest.mark.parametrize("dynamic_sampling", [0, 2])
async def test_a_step_that_was_killed_before_its_update_learns_from_the_scores_people_saw(
    dynamic_sampling: int,
) -> None:
    """The newest checkpoint is from before the reward model: without it most groups are dead."""
    task = small_task(12, lambda completions, **_: [0.0 for _ in completions])
    values = {"reward_model_weight": 1.0, "dynamic_sampling": dynamic_sampling, **STEPS}
    folder = session(steps=0)
    async with live(folder, task=task, **values) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        await make_one(tested)
        tested.hold.at("updating", 0)
        await tested.first("step")
        await tested.held()
        seen = {h.name: h.rewards for h in tested.engine.board.heads.values() if h.step == 3 and h.status == "scored"}
        await tested.first("stop --now")
        tested.hold.release()
        await tested.ended()
    async with live(folder, task=task, **values) as tested:
        assert tested.engine.learner.reward_model is None
        await tested.step()
        learned = {n: h.rewards for n, h in ((h.name, h) for h in tested.engine.board.heads.values()) if n in seen}
        assert learned == seen
        record = tested.engine.board.last_step
        assert record is not None
        assert [f"3.{number}" for number in record.inputs.groups] == sorted(seen)
        assert any(record.advantages)


async def test_places_that_its_scores_kept_from_being_taken_again_stay_so() -> None:
    """Steps whose tokens are gone are sampled again, and with ``dynamic_sampling`` the scores say which groups stay."""
    task = small_task(12, lambda completions, **_: [0.0 for _ in completions])
    values = {"reward_model_weight": 1.0, "dynamic_sampling": 2, **STEPS}
    folder = session(steps=0, keep_token_steps=1)
    async with live(folder, task=task, **values) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        await make_one(tested)
        await tested.step(3)
        whole = tested.weights
        await tested.first("stop --now")
        await tested.ended()
    async with live(folder, task=task, **values) as tested:
        assert tested.engine.learner.step == 5
        assert same_weights(tested.weights, whole)


async def test_a_rewind_to_before_it_has_it_trained_again() -> None:
    async with live(session(steps=0), reward_model_every=4, checkpoint_steps=1) as tested:
        await tested.step(2)
        await rate_by_length(tested, 1, 2)
        await tested.step()
        await trained(tested)
        await tested.step()
        assert (await tested.do("rewind 1")).status == "applied"
        assert await state(tested) is None
        told = len(tested.notes("reward model"))
        await tested.step()
        await tested.until(lambda: len(tested.notes("reward model")) > told)
        await tested.step()
        assert None not in (await scores(tested, 3)).values()


async def test_what_was_rated_of_a_try_that_is_dropped_is_not_learned_from_after_a_kill() -> None:
    folder = session(steps=0)
    async with live(folder, **STEPS) as tested:
        await tested.step()
        tested.hold.at("updating", 0)
        await tested.first("step")
        await tested.held()
        await rate_by_length(tested, 2)
        await tested.first("stop --now")
        tested.hold.release()
        await tested.ended()
    async with live(folder, **STEPS) as tested:
        tested.hold.at("sampling", 1)
        await tested.first("step")
        await tested.held()
        await tested.first("pause")
        tested.hold.release()
        await tested.paused()
        assert (await tested.do("discard")).status == "applied"
        await tested.step()
        record = tested.engine.board.last_step
        assert record is not None
        assert record.inputs.groups == [5, 6, 7, 8]
