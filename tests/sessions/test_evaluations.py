"""Evaluations: pass@k, what is charted of one, what has turned since another, and how they are kept."""

from __future__ import annotations

import itertools
import zlib
from pathlib import Path

import msgspec
import pytest

from sessions import branch_rows, wire
from sessions.errors import InvalidValue, SessionError
from sessions.evaluations import (
    HeldOut,
    HeldOutAnswer,
    Sample,
    ks,
    metrics_of,
    pack,
    pass_at_k,
    turned,
    unpack,
    view,
    words_of,
)
from sessions.past_evaluations import evaluation_view
from sessions.store import Store
from tests.sessions.samples import step_record


def answer(
    name: str, right: bool | None, *samples: bool, reward: float | None = None, length: int = 2
) -> HeldOutAnswer:
    return HeldOutAnswer(
        prompt_id=name,
        prompt=f"{name}?",
        reference="1",
        greedy=Sample(text=f"{name} {right}", length=length, right=right, reward=reward),
        samples=[Sample(text=str(s), length=1, right=s) for s in samples],
    )


def held_out(step: int, *answers: HeldOutAnswer, branch: str = "main") -> HeldOut:
    given = list(answers)
    return HeldOut(branch=branch, step=step, time=float(step), answers=given, metrics=metrics_of(given))


@pytest.mark.parametrize("n", range(1, 7))
def test_pass_at_k_is_the_share_of_all_choices_of_k_that_hold_a_right_one(n: int) -> None:
    for right, k in itertools.product(range(n + 1), range(1, n + 1)):
        choices = list(itertools.combinations([i < right for i in range(n)], k))
        assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, choices)) / len(choices))


@pytest.mark.parametrize(("n", "right", "k"), [(4, 2, 0), (4, 2, 5), (4, 5, 2), (4, -1, 2)])
def test_pass_at_k_of_what_cannot_be_is_refused(n: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(n, right, k)


def test_k_goes_by_powers_of_two_to_the_number_of_samples() -> None:
    assert [ks(n) for n in (0, 1, 2, 3, 8, 12)] == [[], [1], [1, 2], [1, 2, 3], [1, 2, 4, 8], [1, 2, 4, 8, 12]]


def test_the_figures_of_an_evaluation() -> None:
    found = metrics_of(
        [
            answer("a", True, True, False, reward=1.0, length=2),
            answer("b", False, False, False, reward=0.25, length=4),
            answer("c", False, True, True, length=6),
        ]
    )
    assert found == {
        "eval/length": 4.0,
        "eval/accuracy": pytest.approx(1 / 3),
        "eval/reward": 0.625,
        "eval/pass@1": pytest.approx((0.5 + 0 + 1) / 3),
        "eval/pass@2": pytest.approx(2 / 3),
    }
    assert words_of(found) == "held-out 33.3%, pass@1 50.0%, pass@2 66.7%, reward 0.625, 4.0 tokens"


def test_what_nobody_judges_has_no_accuracy() -> None:
    assert metrics_of([answer("a", None, reward=0.5)]) == {"eval/length": 2.0, "eval/reward": 0.5}
    assert metrics_of([]) == {}


def test_what_has_turned_right_and_wrong_is_found_by_the_prompt() -> None:
    before = held_out(1, answer("a", True), answer("b", False), answer("c", True), answer("d", None))
    now = held_out(2, answer("c", False), answer("b", True), answer("a", True), answer("e", True), answer("d", True))
    better, worse = turned(now, before)
    assert [t.now.prompt_id for t in better] == ["b"]
    assert [(t.now.prompt_id, t.before.greedy.right) for t in worse] == [("c", True)]


def test_a_view_holds_at_most_so_many_answers_and_counts_all() -> None:
    shown = view(held_out(2, *(answer(str(i), True) for i in range(9))), None, [2], limit=4)
    assert (len(shown.now.answers), shown.now.total, shown.earlier) == (4, 9, -1)


def test_an_evaluation_is_kept_whole() -> None:
    made = held_out(3, answer("ünï\x1b[31m", None, True), answer("", False))
    assert unpack(pack(made), "main") == made
    assert unpack(pack(made), "other").branch == "other"


@pytest.mark.parametrize("body", [b"", b"x", zlib.compress(b"\xc1"), zlib.compress(msgspec.msgpack.encode({"a": 1}))])
def test_a_damaged_evaluation_is_one_line(body: bytes) -> None:
    with pytest.raises(SessionError, match=r"^an evaluation of main cannot be read \("):
        unpack(body, "main")


def test_an_evaluation_that_would_fill_the_memory_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessions.evaluations.MOST_BYTES", 10_000)
    with pytest.raises(SessionError, match="more than 10,000 bytes"):
        unpack(zlib.compress(b"\0" * 1_000_000), "main")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "session.db")


def test_a_step_has_one_evaluation_the_newest(store: Store) -> None:
    store.add_held_out(held_out(5, answer("a", False)))
    event = store.add_held_out(held_out(5, answer("a", True)))
    assert isinstance(event, wire.Evaluated)
    assert (event.seq, event.step, event.prompts, event.metrics["eval/accuracy"]) == (2, 5, 1, 1.0)
    found = store.held_out("main", 5)
    assert found is not None
    assert found.answers[0].greedy.right is True
    assert store.held_out("main", 4) is None


def test_one_that_was_asked_for_becomes_a_measurement_of_its_step(store: Store) -> None:
    for step in (1, 2):
        store.add_step(step_record(step=step), [], 10)
    store.add_held_out(held_out(2, answer("a", True, True)), measured=True)
    store.add_held_out(held_out(1, answer("a", False)))
    first, second = store.steps("main")
    assert first.metrics == {"reward/mean": 0.501}
    assert second.metrics == {"reward/mean": 0.502, "eval/accuracy": 1.0, "eval/length": 2.0, "eval/pass@1": 1.0}
    assert store.branch_infos()[0].best == (2, 1.0)
    assert (store.series("main")["eval/pass@1"].steps, store.last_step("main")) == ([2], second)


def test_evaluations_go_where_their_steps_go(store: Store) -> None:
    for step in (1, 2, 3):
        store.add_step(step_record(step=step), [], 10)
        store.add_held_out(held_out(step, answer("a", step > 1)))
    aside, _ = store.rewind("main", 1, "tried again")
    assert (store.held_out_steps("main"), store.held_out_steps(aside)) == ([1], [1, 2, 3])
    moved = store.held_out(aside, 3)
    assert moved is not None
    assert (moved.branch, moved.answers[0].greedy.right) == (aside, True)
    store.delete_branch(aside)
    assert store._db.execute("SELECT count(*) FROM held_out").fetchone() == (1,)
    assert "held_out" in branch_rows.OWNED


def test_which_evaluations_are_shown_beside_each_other(store: Store) -> None:
    with pytest.raises(InvalidValue, match="no evaluation is on record yet"):
        evaluation_view(store, "main")
    for step in (10, 20, 30):
        store.add_held_out(held_out(step, answer("a", step == 20)))

    def shown(*asked: int, **more: int) -> tuple[int, int]:
        found = evaluation_view(store, "main", *asked, **more)
        assert found.steps == [s for s in (10, 20, 30) if s <= more.get("upto", 99)]
        return found.now.step, found.earlier

    assert [shown(), shown(30), shown(29), shown(10)] == [(30, 20), (30, 20), (20, 10), (10, -1)]
    assert [shown(30, 10), shown(30, 19), shown(upto=25)] == [(30, 10), (30, 10), (20, 10)]
    for wrong in ((5,), (30, 5), (20, 20), (20, 30)):
        with pytest.raises(InvalidValue, match="no evaluation up to step"):
            evaluation_view(store, "main", *wrong)
    found = evaluation_view(store, "main", 30)
    assert (len(found.better), len(found.worse)) == (0, 1)
