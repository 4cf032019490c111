"""Evaluation: greedy and sampled answers to held-out prompts, on schedule and on command, beside the training."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.control import Control, Stopping
from engine.randomness import stream
from sessions import wire
from sessions.commands import Evaluate, QueryEvaluation, Step, new_id
from sessions.evaluations import EvaluationView, HeldOut
from tests.engine.live import live, session
from tests.engine.small import make_learner, random_policy, small_task


def test_samples_are_drawn_from_streams_of_their_own(tmp_path: Path) -> None:
    """Against one row at a time without a cache, with the numbers of (seed, "held-out sample", prompt, index)."""
    policy, task = random_policy(), small_task()
    learner = make_learner(tmp_path, policy=policy, task=task, save=False, seed=3, temperature=0.7)
    found = learner.evaluate(samples=3)
    assert [a.prompt_id for a in found.answers] == [p.id for p in task.evaluation]
    for prompt, answered in zip(task.evaluation, found.answers, strict=True):
        for index, sample in enumerate(answered.samples):
            ids, tokens = policy.encode_prompt(prompt.text), []
            for u in stream("held-out sample", 3, prompt.id, index).random(6):
                with torch.no_grad():
                    logits = policy.model(torch.tensor([ids + tokens])).logits[0, -1].double() / 0.7
                tokens.append(int((logits.softmax(-1).cumsum(0) <= u).sum()))
                if tokens[-1] in policy.end_tokens:
                    break
            assert (sample.text, sample.length) == (policy.decode(tokens), len(tokens))
            assert sample.ended == (tokens[-1] in policy.end_tokens)
            assert sample.right == (sample.text.strip() == prompt.answer)
            (value,) = task.components["early"].function([prompt.text], [sample.text])
            assert sample.reward == pytest.approx(value)


def test_the_greedy_answers_do_not_depend_on_the_samples(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, save=False)
    alone, beside = learner.evaluate(), learner.evaluate(samples=2)
    assert [a.greedy for a in alone.answers] == [a.greedy for a in beside.answers]
    assert all(not a.samples for a in alone.answers)
    first = [[s.text for s in a.samples] for a in beside.answers]
    more = [[s.text for s in a.samples[:2]] for a in learner.evaluate(samples=5).answers]
    assert first == more


def test_eval_samples_says_how_many(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, save=False, eval_samples=2)
    assert {len(a.samples) for a in learner.evaluate().answers} == {2}
    assert {len(a.samples) for a in learner.evaluate(samples=0).answers} == {0}
    assert "eval/pass@2" in learner.evaluate().metrics


def test_an_evaluation_changes_nothing_of_the_training(tmp_path: Path) -> None:
    plain, evaluated = make_learner(tmp_path / "a"), make_learner(tmp_path / "b")
    for _ in range(2):
        plain.run_step()
        evaluated.evaluate(samples=3)
        evaluated.run_step()
    evaluated.evaluate(beside=True)
    for one, other in zip(plain.policy.parameters, evaluated.policy.parameters, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("samples", [0, 2])
def test_the_prompts_that_are_answered_are_counted_while_others_still_are(tmp_path: Path, samples: int) -> None:
    """A real model answers held-out prompts for minutes: nobody should look at 0 of 32 for as long."""
    learner, told = make_learner(tmp_path, save=False, max_new_tokens=12), []
    advance = learner.control.advance
    learner.control.advance = lambda done, total: (told.append((done, total)), advance(done, total))  # type: ignore
    found = learner.evaluate(samples=samples)
    of = len(found.answers)
    assert {total for _, total in told} == {of}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    between = {done for done, _ in told} - {0, of}
    if samples:  # one answer of three has come when the greedy ones are there
        assert of // 3 in between
    else:
        lengths = sorted(a.greedy.length for a in found.answers)
        assert between == {sum(n <= i for n in lengths) for i in range(1, lengths[-1])} - {0}
    learner.control.advance = lambda done, total: told.append("beside")  # type: ignore
    learner.evaluate(samples=samples, beside=True)
    assert told[-1] == (of, of)


def test_an_errand_waits_out_the_phases_that_it_must_not_be_in() -> None:
    control, done = Control(), []
    control.ask(lambda: done.append("evaluation"), not_while=("sampling",))
    control.ask(lambda: done.append("checkpoint"))
    control.begin("sampling")
    assert done == ["checkpoint"]
    control.advance(1, 2)
    assert done == ["checkpoint"]
    control.begin("scoring")
    assert done == ["checkpoint", "evaluation"]


def test_an_errand_that_waits_does_not_wake_a_pause_for_ever() -> None:
    control, done = Control(), threading.Event()
    control.begin("sampling")
    control.ask(done.set, not_while=("sampling",))
    control.pause("ann")
    thread = threading.Thread(target=control.safe_point)
    thread.start()
    assert not done.wait(0.05)
    control.resume()
    thread.join(10)
    assert not thread.is_alive()
    assert not done.is_set()


@pytest.mark.parametrize("of", ["reward", "judge"])
def test_made_beside_a_step_it_can_be_left_while_something_slow_is_awaited(tmp_path: Path, of: str) -> None:
    begun, done = threading.Event(), threading.Event()

    def slow(completions: list[str], **_: object) -> list[float]:
        begun.set()
        done.wait(60)
        return [0.0] * len(completions)

    task = small_task(function=slow) if of == "reward" else replace(small_task(), judge=lambda *_: bool(slow([])))
    learner = make_learner(tmp_path, task=task, save=False)
    learner.control.pause("ann")  # which it does not look at
    left = threading.Event()

    def evaluate() -> None:
        with pytest.raises(Stopping):
            learner.evaluate(beside=True)
        left.set()

    thread = threading.Thread(target=evaluate, daemon=True)
    thread.start()
    assert begun.wait(60)
    learner.control.stop(now=True)
    assert left.wait(20)
    done.set()
    thread.join(10)


async def test_on_command_it_is_kept_charted_and_told() -> None:
    async with live() as tested:
        await tested.step(2)
        await tested.until(lambda: len(tested.of(wire.StepDone)) == 2)
        answer = await tested.do(Evaluate(samples=2, who="ann", id=new_id()))
        assert answer.status == "applied"
        assert answer.text.startswith("after step 2: held-out ")
        await tested.until(lambda: tested.of(wire.Evaluated))
        (event,) = tested.of(wire.Evaluated)
        assert (event.step, event.who, event.prompts) == (2, "ann", 4)
        assert {"eval/accuracy", "eval/reward", "eval/pass@1", "eval/pass@2"} <= event.metrics.keys()
        store = tested.engine.store
        kept = await tested.engine.write(store.held_out, "main", 2)
        assert isinstance(kept, HeldOut)
        assert {len(a.samples) for a in kept.answers} == {2}
        record = await tested.engine.write(store.step, "main", 2)
        assert record is not None
        assert record.metrics["eval/pass@2"] == event.metrics["eval/pass@2"]
        assert tested.engine.board.series["eval/pass@2"].steps == [2]
        shown = await tested.client.query(QueryEvaluation(), EvaluationView)
        assert (shown.now.step, shown.earlier, len(shown.now.answers)) == (2, -1, 4)


async def test_on_command_the_state_counts_its_prompts_running_and_paused() -> None:
    async with live() as tested:
        told: list[tuple[str, str]] = []
        look = tested.engine.control.raise_wishes

        def looks() -> None:
            status = tested.engine.service.status()
            told.append((status.state, status.note))
            look()

        tested.engine.control.raise_wishes = looks  # type: ignore[method-assign]
        await tested.do(Evaluate(who="ann", id=new_id()))
        assert told[0] == ("PAUSED", "paused by --paused, evaluating 0/4; space goes on, . runs one step")
        tested.hold.at("updating", 0)
        await tested.client.send(Step(who="ann", id=new_id()))
        await tested.held()
        answers = tested.client.answers(Evaluate(who="ann", id=new_id()))
        assert (await anext(answers)).status == "accepted"
        told.clear()
        tested.hold.release()
        assert (await anext(answers)).status == "applied"
        assert told[0][0] == "RUN"
        assert told[0][1].startswith("evaluating 0/4")
        assert tested.engine.control.aside == ""


async def test_asked_for_while_sampling_it_comes_after_the_sampling_and_the_step_goes_on() -> None:
    async with live() as tested:
        tested.hold.at("sampling", 1)
        await tested.client.send(Step(who="ann", id=new_id()))
        await tested.held()
        answers = tested.client.answers(Evaluate(who="ann", id=new_id()))
        accepted = await anext(answers)
        assert "once the responses of this step are sampled" in accepted.text
        tested.hold.release()
        applied = await anext(answers)
        assert (applied.status, applied.step) == ("applied", 0)
        await tested.until(lambda: tested.of(wire.StepDone) and tested.of(wire.StepDone)[-1].record.step == 1)


async def test_paused_inside_the_sampling_it_is_refused_with_the_way_out() -> None:
    async with live() as tested:
        tested.hold.at("sampling", 1)
        await tested.client.send(Step(who="ann", id=new_id()))
        await tested.held()
        pause = asyncio.create_task(tested.do("pause"))
        await tested.until(lambda: tested.engine.control.pausing)
        tested.hold.release()
        await pause
        assert tested.engine.control.phase == "sampling"
        answer = await tested.do(Evaluate(who="ann", id=new_id()))
        assert answer.status == "rejected"
        assert "`pause update` pauses after the sampling" in answer.text


async def test_what_cannot_be_evaluated_is_refused() -> None:
    async with live(task=replace(small_task(), evaluation=[])) as tested:
        answer = await tested.do(Evaluate(who="ann", id=new_id()))
        assert (answer.status, answer.text) == (
            "rejected",
            "the task holds no prompts out; nothing can be evaluated",
        )
    async with live(session("other")) as tested:
        answer = await tested.do(Evaluate(samples=10_000, who="ann", id=new_id()))
        assert answer.status == "rejected"
        assert "eval_samples" in answer.text


async def test_a_judge_that_fails_is_told_and_the_training_goes_on() -> None:
    def judge(prompt: object, text: str) -> bool:
        raise RuntimeError("no idea")

    async with live(task=replace(small_task(), judge=judge)) as tested:
        answer = await tested.do(Evaluate(who="ann", id=new_id()))
        assert answer.status == "rejected"
        assert "the evaluation failed" in answer.text
        assert "no idea" in answer.text
        await tested.step()
        await tested.until(lambda: tested.of(wire.StepDone))


async def test_paused_inside_a_step_it_is_made_at_once_and_the_pause_stays() -> None:
    async with live() as tested:
        await tested.do("pause update")
        answer = await tested.do(Evaluate(who="ann", id=new_id()))
        assert answer.status == "applied"
        assert tested.engine.control.paused
        assert tested.engine.control.phase == "updating"


async def test_where_a_branch_begins_an_evaluation_is_that_of_the_step_there() -> None:
    async with live() as tested:
        await tested.step(3)
        assert (await tested.do("fork side --at 2")).status == "applied"
        await tested.until(lambda: tested.engine.branch == "side" and tested.engine.control.paused)
        answer = await tested.do(Evaluate(samples=1, who="ann", id=new_id()))
        assert (answer.status, answer.step) == ("applied", 2)
        shown = await tested.client.query(QueryEvaluation(), EvaluationView)
        assert (shown.now.step, shown.now.branch) == (2, "main")
        (record,) = [r for r in tested.engine.store.steps("side") if r.step == 2]
        assert record.metrics["eval/pass@1"] == shown.now.metrics["eval/pass@1"]
        await tested.until(lambda: tested.engine.board.series["eval/pass@1"].steps == [2])
        assert (await tested.do("switch main")).status == "applied"  # probed before it is left
        await tested.until(lambda: tested.engine.branch == "main")
        assert {(p.branch, p.step) for p in tested.engine.store.probes("side")} == {("main", 2)}


async def test_paused_before_its_first_step_a_session_is_evaluated_once_on_command() -> None:
    async with live(evaluate_every=10) as tested:
        assert (tested.engine.control.phase, tested.engine.step) == ("idle", 1)
        answer = await tested.do(Evaluate(samples=1, who="ann", id=new_id()))
        assert (answer.status, answer.step) == ("applied", 0)
        await tested.step()
        await tested.until(lambda: [e.record.step for e in tested.of(wire.StepDone)] == [0, 1])
        assert [(e.step, e.who) for e in tested.of(wire.Evaluated)] == [(0, "ann")]
        assert "eval/pass@1" in tested.of(wire.StepDone)[0].record.metrics


async def test_paused_before_its_first_step_a_session_makes_that_step_and_is_evaluated_before_it() -> None:
    async with live(evaluate_every=10) as tested:
        assert tested.of(wire.Evaluated) == []
        await tested.step()
        await tested.until(lambda: [e.record.step for e in tested.of(wire.StepDone)] == [0, 1])
        assert [e.step for e in tested.of(wire.Evaluated)] == [0]


async def test_paused_inside_an_evaluation_another_is_refused() -> None:
    async with live(evaluate_every=1) as tested:
        tested.hold.at("evaluating", 1)
        await tested.client.send(Step(who="ann", id=new_id()))
        await tested.held()
        pause = asyncio.create_task(tested.do("pause"))
        await tested.until(lambda: tested.engine.control.pausing)
        tested.hold.release()
        await pause
        assert tested.engine.control.phase == "evaluating"
        answer = await tested.do(Evaluate(who="ann", id=new_id()))
        assert answer.status == "rejected"
        assert "inside an evaluation" in answer.text
