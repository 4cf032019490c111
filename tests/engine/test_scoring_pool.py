"""Reward functions beside sampling: on a thread of their own, with the results of scoring in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.control import Discarded
from engine.policy import Policy
from engine.scoring import score_group
from engine.scoring_pool import Round, ScoringPool
from sessions import wire
from tests.engine.live import Live, live, session
from tests.engine.small import early_letters, make_learner, random_policy, same_weights, small_task, wait_for

SECONDS = 60.0


def scoring_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "scoring"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    wait_for(lambda: not scoring_threads())


class Held:
    """A reward function that does not return before it is let go."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.calls = self.inside = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, prompts: Any, completions: Any, **_: Any) -> list[float | None]:
        with self._lock:
            self.calls += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.entered.set()
        assert self.go.wait(SECONDS)
        with self._lock:
            self.inside -= 1
        return early_letters(prompts, completions)


# ------------------------------------------------------------------------------------------------- one round


def test_results_belong_to_their_places() -> None:
    with ScoringPool().round(lambda place, tokens: (place, len(tokens)), lambda: None) as scoring:
        for place in (2, 0, 1):
            scoring.submit(place, [[1]] * place)
        assert [scoring.result(place) for place in range(3)] == [(0, 0), (1, 1), (2, 2)]


def test_whoever_waits_is_told_after_each_group() -> None:
    news = threading.Semaphore(0)
    with ScoringPool().round(lambda place, tokens: place, news.release) as scoring:
        for place in range(3):
            scoring.submit(place, [])
            assert news.acquire(timeout=SECONDS)
            assert scoring.done(place)


def test_what_its_work_raises_comes_out_with_the_result() -> None:
    def broken(place: int, tokens: object) -> None:
        raise ZeroDivisionError("by nothing")

    with ScoringPool().round(broken, lambda: None) as scoring:
        scoring.submit(0, [])
        with pytest.raises(ZeroDivisionError, match="by nothing"):
            scoring.result(0)


def test_a_round_that_is_left_drops_what_has_not_begun_and_holds_up_the_next() -> None:
    pool, entered, go, seen = ScoringPool(), threading.Event(), threading.Event(), []

    def slow(place: int, tokens: object) -> None:
        entered.set()
        assert go.wait(SECONDS)
        seen.append(("dropped", place))

    with pool.round(slow, lambda: None) as dropped:
        dropped.submit(0, [])
        dropped.submit(1, [])
        assert entered.wait(SECONDS)
    with pool.round(lambda place, tokens: seen.append(("next", place)), lambda: None) as following:
        following.submit(0, [])
        assert not following.done(0)
        go.set()
        following.result(0)
    wait_for(lambda: not scoring_threads())
    assert seen == [("dropped", 0), ("next", 0)]
    assert not dropped.done(1)


# ------------------------------------------------------------------------------------------------- a sampler


def test_rewards_run_while_others_sample_and_never_on_the_compute_thread(tmp_path: Path) -> None:
    """The compute thread stops after the first group is finished until its reward function has been called."""
    called, threads = threading.Event(), set()

    def watched(prompts: Any, completions: Any, **_: Any) -> list[float | None]:
        threads.add(threading.get_ident())
        called.set()
        return early_letters(prompts, completions)

    learner = make_learner(tmp_path, task=small_task(function=watched), max_new_tokens=12, group_size=2)
    control, submit, handed = learner.control, Round.submit, []
    advance, phases = control.advance, []

    def hand(self: Round[Any], place: int, tokens: list[list[int]]) -> None:
        handed.append(place)
        submit(self, place, tokens)

    def at(done: int, total: int) -> None:
        if handed and control.phase == "sampling" and done < total and not phases:
            phases.append((done, total))
            assert called.wait(SECONDS), "the reward function waits for sampling to end"
        advance(done, total)

    control.advance = at  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Round, "submit", hand)
        groups = learner.sample(1)
    assert phases, "no group was finished before the last"
    assert handed != sorted(handed), "the groups finished in their order, so their order shows nothing"
    assert threading.get_ident() not in threads
    for group, prompt in zip(groups, learner.task.take(0, 0, 4), strict=True):
        record = group.record
        expected = score_group(learner.task.components, prompt, [r.text for r in record.responses])
        assert (record.prompt_id, record.number) == (prompt.id, groups.index(group) + 1)
        assert [(r.reward, r.components) for r in record.responses] == [(e.reward, e.components) for e in expected]
        for r in record.responses:
            assert (r.text, r.ends) == learner.policy.token_ends(r.tokens)


def test_a_dropped_step_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    """Its function is still busy when the next step scores; what it returns then is seen by nobody."""
    held = Held()
    learner = make_learner(tmp_path, task=small_task(function=held))
    begin, control = learner.control.begin, learner.control

    def drop(phase: Any, total: int = 0) -> None:
        if phase == "scoring":
            control.begin = begin  # type: ignore[method-assign]
            assert held.entered.wait(SECONDS)
            raise Discarded
        begin(phase, total)

    control.begin = drop  # type: ignore[method-assign]
    with pytest.raises(Discarded):
        learner.sample(1)
    learner.take_on()
    after = threading.Thread(target=lambda: wait_for(lambda: control.phase == "scoring") or held.go.set())
    after.start()
    groups = learner.sample(1)
    after.join()
    assert held.most == 1
    assert held.calls == 5  # one of the dropped step, whose other three never began
    assert [g.record.prompt for g in groups] == [p.text for p in learner.task.take(0, 4, 4)]
    for group in groups:
        texts = [r.text for r in group.record.responses]
        assert [r.reward for r in group.record.responses] == early_letters([""], texts)


def test_an_error_outside_reward_functions_ends_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner(tmp_path)

    def broken(*_: Any) -> None:
        raise MemoryError("no room for text")

    monkeypatch.setattr(learner.policy, "token_ends", broken)
    with pytest.raises(MemoryError, match="no room"):
        learner.sample(1)


class Guarded:
    """A tokenizer that looks whether it is used under its policy's lock."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.used = 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [len(self.decode([]))]}

    def decode(self, tokens: list[int], **_: Any) -> str:
        assert self._policy._tokenizing.locked()
        self.used += 1
        return "text"


def test_the_tokenizer_is_used_by_one_thread_at_a_time() -> None:
    policy = random_policy()
    policy.tokenizer = tokenizer = Guarded(policy)
    policy.encode_prompt("1+1=")
    policy.decode([1, 2])
    before = tokenizer.used
    assert before >= 2
    policy.token_ends([1, 2, 3])
    assert tokenizer.used > before
    assert not policy._tokenizing.locked()


# -------------------------------------------------------------------------------------------------- an engine


async def waiting_for_scores(tested: Live, held: Held) -> None:
    await tested.do("resume")
    await tested.until(lambda: held.entered.is_set() and tested.engine.control.phase == "scoring")


async def test_pausing_and_discarding_while_a_reward_function_runs() -> None:
    held = Held()
    async with live(task=small_task(function=held)) as tested:
        await waiting_for_scores(tested, held)
        answer = await tested.do("pause")
        assert answer.text == "paused in step 1, scoring 0/4"
        assert (await tested.do("discard")).text == "step 1 is dropped and starts again"
        await tested.until(lambda: tested.engine.control.phase == "idle" and tested.engine.control.paused)
        assert tested.engine.learner.cursor == 4
        await tested.do("resume")
        await tested.until(lambda: tested.engine.control.phase == "scoring")
        assert (await tested.do("pause")).status == "applied"
        held.go.set()  # the dropped one too
        assert (await tested.do("step")).status == "applied"
        assert held.most == 1
        (scored,) = tested.of(wire.GroupsScored)
        assert [h.prompt for h in scored.heads] == [p.text for p in tested.engine.learner.task.take(0, 4, 4)]


@pytest.mark.parametrize("now", [False, True])
async def test_stopping_while_a_reward_function_never_returns(now: bool) -> None:
    held = Held()
    async with live(task=small_task(function=held)) as tested:
        await waiting_for_scores(tested, held)
        assert (await tested.do("stop --now" if now else "stop")).text == "stopped after step 0"
        await tested.ended()
        assert tested.engine.exit_code == 0
        assert not held.go.is_set()
    held.go.set()


async def test_a_pause_inside_scoring_changes_no_bit_and_costs_no_time_of_it() -> None:
    async with live(session("undisturbed")) as undisturbed:
        await undisturbed.step()
        expected = undisturbed.weights
    held = Held()
    async with live(task=small_task(function=held)) as tested:
        await waiting_for_scores(tested, held)
        await tested.do("pause")
        held.go.set()
        await tested.do("step")
        assert same_weights(expected, tested.weights)
        await tested.until(lambda: tested.of(wire.StepDone))
        metrics = tested.of(wire.StepDone)[0].record.metrics
        assert 0 < metrics["time/scoring"] < metrics["time/step"]
