"""What goes wrong inside a step: weights and rewards that are no numbers, functions that raise, hang or print, memory
that runs out."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from sessions import wire
from sessions.commands import Rate
from sessions.folders import SessionFolder
from tests.engine.live import Live, live, session
from tests.engine.small import early_letters, same_weights, small_task
from tests.faults.count import Count
from tests.faults.harness import Given, database_whole, ratings_kept

Reward = Callable[..., Any]


async def rate(tested: Live, group: str, comment: str, given: dict[str, Given]) -> None:
    """Rate a response; kept once it is acknowledged."""
    command = Rate(group=group, mode="likert", values={"A": 5.0}, comment=comment)
    answer = await tested.do(command)
    assert answer.status == "applied", answer
    given[command.id] = Given(group, {"A": 5.0}, comment)


async def recovered_here(folder: SessionFolder, count: Count, kind: str, given: dict[str, Given]) -> None:
    """The same checks as of a real session, with the small engine of this process."""
    ratings_kept(folder, given, count)
    database_whole(folder)
    async with live(folder) as tested:
        before = tested.engine.learner.step
        await tested.step(2)
        assert tested.engine.learner.step == before + 2
        assert all(p.isfinite().all() for p in tested.engine.learner.policy.parameters)
    ratings_kept(folder, given, count)
    database_whole(folder)
    assert not folder.running()
    assert not list(folder.checkpoints.glob(".*"))
    count.acknowledged += len(given)
    count.recovered[kind] += 1


# ---------------------------------------------------------------------------------------------------- not a number


async def test_weights_that_are_not_finite_pause_the_run_and_are_never_saved(count: Count) -> None:
    folder, given = session(), {}
    async with live(folder) as tested:
        await tested.step(2)
        await rate(tested, "1.1", "before", given)
        assert (await tested.do("checkpoint")).status == "applied"
        good = tested.weights
        with torch.no_grad():
            tested.engine.learner.policy.parameters[1].fill_(math.nan)
        count.injected["weights that are not finite"] += 1
        await tested.do("resume")
        await tested.paused_again()
        raised = [e.alarm for e in tested.of(wire.AlarmRaised)]
        assert any(a.rule == "non-finite" and a.level == "error" for a in raised)
        answer = await tested.do("checkpoint")
        assert (answer.status, "not finite" in answer.text) == ("rejected", True)
        await tested.do("stop")
        await tested.ended()
        assert "not finite" in tested.engine.failure
    folder.forget_engine()  # as its supervisor does after a failure
    async with live(folder) as tested:  # goes back to the weights that were whole
        assert tested.engine.learner.step >= 2
        assert all(p.isfinite().all() for p in tested.engine.learner.policy.parameters)
        assert tested.engine.learner.step > 2 or same_weights(good, tested.weights)
    await recovered_here(folder, count, "weights that are not finite", given)


# ------------------------------------------------------------------------------------------------ reward functions


def sometimes(bad: Callable[[], Any]) -> Reward:
    """A reward function that goes wrong in its second call."""
    calls = iter(range(10**6))

    def function(prompts: Any, completions: Any, **_: Any) -> Any:
        return bad() if next(calls) == 1 else early_letters(prompts, completions)

    return function


def raises() -> Any:
    raise KeyError("no such column")


def leaves() -> Any:
    sys.exit(3)


@pytest.mark.parametrize(
    ("kind", "bad", "reason"),
    [
        ("a reward function that raises", raises, "raised KeyError: 'no such column'"),
        ("a reward function that leaves", leaves, "raised SystemExit: 3"),
        ("a reward function of the wrong length", lambda: [0.5], "returned 1 values for 4 completions"),
        ("a reward function that gives NaN", lambda: [math.nan] * 4, "which is not a finite number"),
        ("a reward function that gives text", lambda: ["right"] * 4, "which is not a finite number"),
        ("a reward function that gives nothing", lambda: None, "raised TypeError"),
    ],
)
async def test_a_reward_function_that_goes_wrong_leaves_its_responses_out(
    kind: str, bad: Callable[[], Any], reason: str, count: Count
) -> None:
    folder, given = session(), {}
    async with live(folder, task=small_task(function=sometimes(bad))) as tested:
        count.injected[kind] += 1
        await tested.step()
        await tested.until(lambda: tested.of(wire.StepDone))
        (head,) = [h for e in tested.of(wire.GroupsScored) for h in e.heads if "failed" in h.flags]
        responses = (await tested.query(f"group {head.name}"))["group"]["responses"]
        assert all(reason in r["failed"] for r in responses)
        await tested.until(lambda: [e for e in tested.of(wire.AlarmRaised) if e.alarm.rule == "reward failed"])
        await rate(tested, head.name, "still rated", given)
        await tested.step(2)
        assert tested.engine.learner.step == 3
    await recovered_here(folder, count, kind, given)


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What a function that hangs waits for; it is let go at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


async def test_a_reward_function_that_hangs_is_seen_and_can_be_left(count: Count, never: threading.Event) -> None:
    kind, folder, given = "a reward function that hangs", session(), {}

    def function(prompts: Any, completions: Any, **_: Any) -> Any:
        if hangs:
            never.wait(60)
        return early_letters(prompts, completions)

    hangs = False
    async with live(folder, task=small_task(function=function)) as tested:
        await tested.step()
        hangs = True
        count.injected[kind] += 1
        await tested.do("resume")
        await tested.until(lambda: tested.engine.control.phase == "scoring")
        await tested.until(lambda: tested.beats and tested.beats[-1].phase == "scoring")
        await rate(tested, "1.1", "while it hangs", given)  # the engine serves people meanwhile
        assert (await tested.do("stop --now")).status == "applied"
        await tested.ended()
        assert (tested.engine.exit_code, never.is_set()) == (0, False)
    hangs = False
    never.set()
    await recovered_here(folder, count, kind, given)


async def test_what_a_reward_function_prints_goes_where_the_engine_prints(
    count: Count, capfd: pytest.CaptureFixture[str]
) -> None:
    kind, folder, given = "a reward function that prints", session(), {}

    def function(prompts: Any, completions: Any, **_: Any) -> Any:
        print("\x1b[2J\x1b]0;mine\x07 cleared")
        os.write(2, b"\x1b[?1049h raw\n")
        return early_letters(prompts, completions)

    async with live(folder, task=small_task(function=function)) as tested:
        count.injected[kind] += 1
        await tested.step()
        await rate(tested, "1.1", "printed", given)
        told = wire.encode_json(tested.events) + wire.encode_json(tested.snapshots)
        assert "cleared" not in told
        assert "1049" not in told
    out, err = capfd.readouterr()
    assert (out.count("cleared"), err.count("raw")) == (4, 4)  # which is the log: the engine has no terminal
    await recovered_here(folder, count, kind, given)


# ---------------------------------------------------------------------------------------------------- out of memory


def too_much(kind: str) -> Exception:
    if kind == "cuda":
        return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory")


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("where", ["sampling", "the update"])
async def test_memory_that_runs_out_once_costs_no_session(where: str, device: str, count: Count) -> None:
    kind, folder, given = f"out of memory in {where}", session(), {}
    async with live(folder) as tested:
        await tested.step(2)
        await rate(tested, "2.1", "before", given)
        failing = iter(range(10**9))

        def check(*_: Any) -> None:
            training = torch.is_grad_enabled()
            if training == (where == "the update") and next(failing) < 1:
                raise too_much(device)

        hook = tested.engine.learner.policy.model.get_decoder().register_forward_pre_hook(check)
        count.injected[kind] += 1
        await tested.do("resume")
        await tested.until(lambda: tested.of(wire.AlarmRaised))
        alarm = tested.of(wire.AlarmRaised)[0].alarm
        assert alarm.rule in ("memory", "step failed")
        assert "memory" in alarm.message
        assert alarm.remedy
        hook.remove()
        await tested.do("pause")
        await tested.paused()
        await tested.step(2)
        assert tested.engine.learner.step >= 4
        await rate(tested, "4.1", "after", given)
    await recovered_here(folder, count, kind, given)


async def test_memory_that_stays_short_pauses_and_loses_no_step(count: Count) -> None:
    kind, folder, given = "out of memory that stays", session(), {}
    async with live(folder) as tested:
        await tested.step(2)
        await rate(tested, "2.1", "before", given)

        def check(*_: Any) -> None:
            if torch.is_grad_enabled():
                raise too_much("cuda")

        hook = tested.engine.learner.policy.model.get_decoder().register_forward_pre_hook(check)
        count.injected[kind] += 1
        before = tested.weights
        await tested.do("resume")
        await tested.until(lambda: [e for e in tested.of(wire.AlarmRaised) if e.alarm.rule == "step failed"])
        await tested.paused()
        alarm = next(e.alarm for e in tested.of(wire.AlarmRaised) if e.alarm.rule == "step failed")
        assert "step 3 failed while updating: OutOfMemoryError" in alarm.message
        assert same_weights(before, tested.weights)
        hook.remove()
        await tested.step(2)
        assert tested.engine.learner.step == 4
    await recovered_here(folder, count, kind, given)
