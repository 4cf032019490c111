"""A live engine that warms its model up before RL: what people see of it, and what stops and starts do to it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import checkpointing
from sessions import wire
from sessions.folders import SessionFolder, session_folder
from sessions.records import WARM_UP, StepRecord
from sessions.store import Store
from tests.engine.live import Live, live, session
from tests.engine.small import same_weights

STEPS = 6


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """24 sums, none of them a question of the small task."""
    path = tmp_path / "sums.jsonl"
    rows = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(4) for b in range(50, 56)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def warmed(path: Path, name: str = "s", **settings: Any) -> SessionFolder:
    """A session with a warm-up of six steps."""
    given = {"warm_up": str(path), "warm_up_epochs": 2, "warm_up_batch": 8, "warm_up_learning_rate": 1e-2}
    return session(name, **{**given, **settings})


def first_weights(folder: SessionFolder) -> dict[str, torch.Tensor]:
    return checkpointing.policy_weights(folder.checkpoints / "0")


def steps_of(folder: SessionFolder, branch: str = WARM_UP) -> list[StepRecord]:
    store = Store(folder.database, read_only=True)
    try:
        return store.steps(branch)
    finally:
        store.close()


async def into_rl(tested: Live) -> None:
    """Until the first step of RL is about to begin, paused there."""
    while tested.engine.warming is not None:
        await tested.do("step")
    await tested.paused()


async def undisturbed(path: Path) -> dict[str, torch.Tensor]:
    """The weights of checkpoint 0 of a session that nobody touches."""
    folder = warmed(path, "undisturbed", paused=False, steps=1)
    async with live(folder) as tested:
        await tested.ended()
    return first_weights(folder)


async def test_it_comes_before_rl_and_is_on_record(sums: Path) -> None:
    folder = warmed(sums)
    async with live(folder, evaluate_every=10) as tested:
        status = tested.snapshots[-1].status
        assert (status.branch, status.phase, status.done, status.total) == (WARM_UP, "warming up", 0, STEPS)
        assert tested.snapshots[-1].checkpoints == []
        await tested.do("resume")
        await tested.until(lambda: tested.engine.learner.step >= 1)
        await tested.until(
            lambda: any(e.record.step == 1 and e.record.branch == "main" for e in tested.of(wire.StepDone))
        )
        records = [e.record for e in tested.of(wire.StepDone)]
        own = [r for r in records if r.branch == WARM_UP]
        assert [r.step for r in own] == list(range(STEPS + 1))
        losses = [r.metrics["warmup/loss"] for r in own[1:]]
        assert losses[-1] < losses[0]
        assert "warmup/accuracy" in own[0].metrics
        assert "warmup/accuracy" in own[-1].metrics
        after = next(r for r in records if r.branch == "main")
        assert (after.step, after.metrics["eval/accuracy"]) == (0, own[-1].metrics["warmup/accuracy"])
        (series,) = await tested.query("series warmup/loss")
        assert (series["steps"], series["values"]) == (list(range(1, STEPS + 1)), losses)
        kept = [e for e in await tested.query("events 100") if e.get("kind") == "warm-up"]
        done, begins = (e["text"] for e in kept)  # newest first; the first one may have come before this client
        assert begins == "begins: sums.jsonl, 24 examples, 6 steps"
        end = sum(losses[-5:]) / 5
        assert f"done: loss {losses[0]:.3f} -> {end:.3f} (mean of the last 5 steps), held-out accuracy" in done
        order = [type(e).__name__ for e in tested.events if isinstance(e, wire.StepDone | wire.CheckpointSaved)]
        assert order[: STEPS + 2] == [*["StepDone"] * STEPS, "CheckpointSaved", "StepDone"]
        assert tested.beats[-1].branch == "main"
    assert steps_of(folder) == own


async def test_the_reference_is_the_warmed_model(sums: Path) -> None:
    folder = warmed(sums)
    async with live(folder) as tested:
        unwarmed = tested.weights
        await into_rl(tested)
        weights = tested.weights
        assert not same_weights(weights, unwarmed)
        kept = first_weights(folder)
        for name, parameter in tested.engine.learner.policy.model.named_parameters():
            assert torch.equal(parameter.detach(), kept[name])
        await tested.step()
        await tested.until(lambda: any(e.record.branch == "main" for e in tested.of(wire.StepDone)))
        record = tested.of(wire.StepDone)[-1].record
        assert record.metrics["kl/k3"] == pytest.approx(0.0, abs=1e-6)  # measured before the first update
        frozen = dict(tested.engine.learner.reference._loaded().model.named_parameters())
        assert all(torch.equal(frozen[name].detach(), kept[name]) for name in frozen)


async def test_a_pause_between_micro_batches_changes_nothing(sums: Path) -> None:
    expected = await undisturbed(sums)
    folder = warmed(sums, micro_tokens=24)
    async with live(folder) as tested:
        tested.hold.at("warming up", 6)
        await tested.do("resume")
        await tested.held()
        waiting = asyncio.create_task(tested.do("pause"))
        await tested.until(lambda: tested.engine.control.pausing)
        tested.hold.release()
        answer = await waiting
        assert "in step 2, warming up 1/6" in answer.text
        assert tested.engine.warming.done == 1
        await into_rl(tested)
    several = first_weights(folder)
    assert all(float((several[name] - expected[name]).abs().max()) < 1e-4 for name in expected)
    folder = warmed(sums, "t")
    async with live(folder) as tested:
        await into_rl(tested)  # a pause before every step
    assert all(torch.equal(weight, expected[name]) for name, weight in first_weights(folder).items())


@pytest.mark.parametrize("words", ["stop", "stop now"])
async def test_a_stop_inside_leaves_no_checkpoint_and_it_starts_again(sums: Path, words: str) -> None:
    expected = await undisturbed(sums)
    folder = warmed(sums)
    async with live(folder) as tested:
        await tested.step(3)
        answer = await tested.do(words)
        assert "starts again from its beginning" in answer.text
        await tested.ended()
        assert tested.engine.exit_code == 0
    assert list(folder.checkpoints.glob("*")) == []
    first = steps_of(folder)
    assert [r.step for r in first] == [1, 2, 3]

    async with live(session_folder("s")) as tested:
        assert tested.snapshots[-1].series == []
        await into_rl(tested)
    assert all(torch.equal(weight, expected[name]) for name, weight in first_weights(folder).items())
    second = steps_of(folder)
    assert [r.step for r in second] == list(range(1, STEPS + 1))
    assert [r.metrics["warmup/loss"] for r in second[:3]] == [r.metrics["warmup/loss"] for r in first]
    assert [r.step for r in steps_of(folder, "warm-up~1")] == [1, 2, 3]


async def test_it_is_done_once(sums: Path) -> None:
    folder = warmed(sums)
    async with live(folder) as tested:
        await into_rl(tested)
        assert (await tested.do("stop")).status == "applied"
    sums.unlink()
    before = first_weights(folder)
    async with live(session_folder("s")) as tested:
        assert tested.snapshots[-1].status.branch == "main"
        assert [s.name for s in tested.snapshots[-1].series if s.name == "warmup/loss"] == ["warmup/loss"]
        await tested.step()
    assert all(torch.equal(weight, before[name]) for name, weight in first_weights(folder).items())
    assert len(steps_of(folder)) == STEPS


async def test_a_stop_in_the_last_evaluation_keeps_what_was_learned(sums: Path) -> None:
    folder = warmed(sums)
    async with live(folder, evaluate_every=10) as tested:
        learner, calls = tested.engine.learner, []
        evaluate = learner.evaluate

        def stopped_in_the_last() -> Any:  # there is one before, and one after each of the six steps
            calls.append(None)
            if len(calls) == STEPS + 1:
                tested.engine.stop(now=False)
            return evaluate()

        learner.evaluate = stopped_in_the_last  # type: ignore[method-assign]
        await tested.do("resume")
        await tested.ended()
        assert "done: loss" in tested.notes("warm-up")[-1]
        assert "held-out" not in tested.notes("warm-up")[-1]
    assert [p.name for p in folder.checkpoints.glob("*")] == ["0"]
    assert "warmup/accuracy" not in steps_of(folder)[-1].metrics
    assert steps_of(folder)[-1].step == STEPS


async def test_a_step_wanted_after_the_last_one_is_the_first_of_rl(sums: Path) -> None:
    async with live(warmed(sums)) as tested:
        await tested.step(STEPS)
        await tested.paused()
        assert (tested.engine.warming, tested.engine.step, tested.engine.learner.step) == (None, 1, 0)


async def test_what_belongs_to_steps_of_rl_is_refused(sums: Path) -> None:
    async with live(warmed(sums)) as tested:
        await tested.step()
        for words in ("discard", "checkpoint"):
            answer = await tested.do(words)
            assert answer.status == "rejected"
            assert "not inside the warm-up" in answer.text
        assert (await tested.first("set learning_rate=1e-5")).status == "accepted"


async def test_a_loss_that_is_not_finite_ends_the_session(sums: Path) -> None:
    folder = warmed(sums)
    async with live(folder) as tested:
        await tested.step()
        with torch.no_grad():
            tested.engine.learner.policy.parameters[0].fill_(float("nan"))
        await tested.first("resume")
        await tested.ended()
        assert tested.engine.exit_code == 1
        assert "the warm-up's loss is not finite at step 2 of 6" in tested.engine.failure
    assert list(folder.checkpoints.glob("*")) == []


async def test_a_conversation_for_a_model_without_a_template_ends_the_engine_while_it_loads(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    said = {"prompt": [{"role": "user", "content": "1+1="}], "completion": [{"role": "assistant", "content": "2"}]}
    path.write_text(json.dumps(said))
    with pytest.raises(AssertionError, match=r"talk\.jsonl, line 1: a conversation, and there is no chat template"):
        async with live(warmed(path, paused=False)):
            pass
