"""The responses whose reward rose most: what they are compared with, and what is read for it."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions.branches import Branch
from sessions.errors import InvalidValue
from sessions.records import Group
from sessions.rose import EARLIER, MOST_GROUPS, NEWEST, WEIGHTS, Roses, rated_now, roses, weights_in
from sessions.store import Store
from tests.sessions.old_databases import write_old
from tests.sessions.samples import group, rating, step_record


def asked(step: int, prompt: str, rewards: list[float | None], number: int = 1, branch: str = "main", **more) -> Group:
    """A group of a prompt, each response with a text of its own."""
    made = group(step, number, rewards, branch)
    made.prompt_id, made.prompt = prompt, f"{prompt}?"
    for response in made.responses:
        response.text = f"{step}.{number}{response.letter} says {response.reward}"
    return msgspec.structs.replace(made, **more)


@pytest.fixture
def store(tmp_path: Path):
    made = Store(tmp_path / "session.db")
    yield made
    made.close()


def fill(store: Store, *groups: Group) -> None:
    """Steps with these groups, and the mean reward of each."""
    store.add_groups(groups)
    for step in sorted({g.step for g in groups}):
        rewards = [r.reward for g in groups if g.step == step for r in g.responses if r.reward is not None]
        store.add_step(step_record(step, **{"reward/automatic": sum(rewards) / max(len(rewards), 1)}), [], 5)


def rose(store: Store, step: int = 0, branch: str = "main", **more) -> Roses:
    return roses(store, branch, step, rated=rated_now(store), **more)


def names(found: Roses) -> list[str]:
    return [row.response.name for row in found.rows]


def test_a_prompt_is_compared_with_what_it_earned_before(store: Store) -> None:
    fill(
        store,
        asked(1, "p", [0.0, 0.4]), asked(2, "q", [0.0, 0.0]), asked(3, "p", [0.3, 0.5]), asked(4, "p", [1.0, 1.0]),
        asked(5, "p", [0.1, 0.8, 0.5]),
    )  # fmt: skip
    found = rose(store, 3)
    assert (found.since, found.first, found.newest, found.looked) == (3, 4, 5, 5)
    first = found.rows[0]
    assert (first.response.name, first.over, first.groups) == ("4.1A", "prompt", 2)
    assert (first.before, first.rise) == (pytest.approx(0.3), pytest.approx(0.7))
    assert names(found) == ["4.1A", "4.1B", "5.1B", "5.1C"]
    assert first.best is not None
    assert (first.best.name, first.best.reward, first.best.text) == ("3.1B", 0.5, "3.1B says 0.5")


def test_a_prompt_that_is_new_is_compared_with_the_steps_before(store: Store) -> None:
    fill(store, asked(1, "p", [0.0, 0.2]), asked(2, "q", [0.4, 0.6]), asked(3, "new", [0.9, 0.1, None]))
    found = rose(store, 2)
    assert found.mean == pytest.approx(0.3)
    (row,) = found.rows
    assert (row.over, row.groups, row.best, row.rise) == ("steps", 0, None, pytest.approx(0.6))


def test_of_equal_rises_those_of_a_known_prompt_and_then_the_newest_come_first(store: Store) -> None:
    fill(
        store,
        asked(1, "p", [0.5]), asked(2, "p", [1.0], number=2), asked(3, "new", [1.0]), asked(3, "p", [1.0], number=3),
        asked(3, "p", [1.0], number=2),
    )  # fmt: skip
    assert names(rose(store, 1)) == ["3.2A", "3.3A", "2.2A", "3.1A"]


def test_what_was_discarded_or_failed_counts_nowhere(store: Store) -> None:
    failed = asked(4, "p", [1.0, 0.9])
    failed.responses[0].failed = "accuracy: raised"
    fill(
        store,
        asked(1, "p", [0.2, 0.2]), asked(2, "p", [1.0, 1.0], status="discarded"), failed,
        asked(4, "p", [1.0, 1.0], number=2, status="discarded"),
    )  # fmt: skip
    found = rose(store, 2)
    assert names(found) == ["4.1B"]
    assert (found.rows[0].before, found.looked) == (pytest.approx(0.2), 1)


def test_equal_texts_of_a_group_are_one_row(store: Store) -> None:
    again = asked(2, "p", [1.0, 1.0, 1.0])
    again.responses[2].text = again.responses[0].text
    fill(store, asked(1, "p", [0.0, 0.0]), again)
    assert [(row.response.name, row.alike) for row in rose(store, 1).rows] == [("2.1A", 2), ("2.1B", 1)]


def test_ratings_and_checks_are_shown_and_move_nothing(store: Store) -> None:
    later = asked(2, "p", [1.0, 0.5])
    later.responses[0].rated_reward = 0.0
    for response in later.responses:
        response.components = {"accuracy": response.reward, "brevity": 0.1, "silent": None}
        response.repetition = 0.25
    fill(store, asked(1, "p", [0.0, 0.2]), later)
    store.set_meta(WEIGHTS, '{"accuracy": 1.0, "brevity": 0.0, "silent": 0.0, "elsewhere": 0.0}')
    store.add_rating(rating(2, values={"A": 1.0}))
    store.add_rating(rating(1, values={"B": 5.0}))
    store.add_rating(rating(2, values={"B": 5.0}, id="gone"))
    store.retract("gone", "ann", 9.0)
    found = rose(store, 1)
    assert found.checks == ["brevity"]
    row, other = found.rows
    assert (row.response.reward, row.response.rating, row.response.repetition) == (1.0, "1", 0.25)
    assert row.best is not None
    assert (row.best.name, row.best.rating, other.response.rating) == ("1.1B", "5", "")
    assert row.response.components["brevity"] == 0.1


def test_the_reward_model_is_a_check_while_its_weight_is_0(store: Store) -> None:
    assert weights_in(store, "main") == {"reward_model": 0}
    store.add_step(step_record(1), [], 5)
    record = step_record(2)
    record.values["reward_model_weight"] = 0.5
    store.add_step(record, [], 5)
    assert weights_in(store, "main") == {"reward_model": 0.5}


def test_only_the_newest_steps_are_looked_at_and_none_up_to_the_step(store: Store) -> None:
    fill(store, *(asked(step, "p", [step / 100]) for step in range(1, 31)))
    assert (rose(store, 10).first, len(rose(store, 10).rows)) == (30 - NEWEST + 1, NEWEST)
    assert rose(store, 28).first == 29
    assert names(rose(store, 10, limit=2)) == ["30.1A", "29.1A"]
    assert rose(store, 10, before=21).newest == 20


def test_without_a_step_it_is_a_hundred_steps(store: Store) -> None:
    fill(store, *(asked(step, "p", [step / 1000]) for step in range(1, 131)))
    assert rose(store).since == 30
    assert rose(store, before=40).since == 1


def test_nothing_to_compare_is_refused_in_words(store: Store) -> None:
    with pytest.raises(InvalidValue, match="no response has been scored"):
        rose(store)
    fill(store, asked(1, "p", [0.5]), asked(2, "p", [0.6]))
    for step in (2, 3):
        with pytest.raises(InvalidValue, match=f"step {step} is not before the newest one, 2"):
            rose(store, step)


def test_another_branch_with_the_same_steps_is_told_apart(store: Store) -> None:
    fill(store, asked(1, "p", [0.1]), asked(2, "p", [0.2]), asked(3, "q", [0.9]))
    store.add_branch(Branch(name="fork", parent="main", step=1, time=1.0))
    store.add_groups([asked(2, "q", [0.4], branch="fork"), asked(3, "p", [1.0], branch="fork")])
    store.add_step(step_record(2, "fork", **{"reward/automatic": 0.4}), [], 5)
    (row,) = rose(store, 2, "fork").rows
    assert (row.before, row.groups) == (pytest.approx(0.1), 1)
    assert row.best is not None
    assert row.best.name == "1.1A"
    (other,) = rose(store, 2).rows
    assert (other.over, other.before) == ("steps", pytest.approx(0.15))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 14), st.data())
def test_the_same_from_all_records_by_hand(tmp_path_factory, seed: int, steps: int, data: st.DataObject) -> None:
    drawn = random.Random(seed)
    groups = [
        asked(step, drawn.choice("pqrs"), [drawn.choice([0.0, 0.25, 1.0]) for _ in range(3)], number)
        for step in range(1, steps + 1)
        for number in (1, 2)
    ]
    since = data.draw(st.integers(1, steps - 1))
    store = Store(tmp_path_factory.mktemp("rose") / "session.db")
    try:
        fill(store, *groups)
        found = rose(store, since, limit=1000)
    finally:
        store.close()
    means = [sum(r.reward for g in groups if g.step == s for r in g.responses) / 6 for s in range(1, since + 1)]
    expected = {}
    for g in groups:
        if g.step > max(since, steps - NEWEST):
            past = [p for p in groups if p.prompt_id == g.prompt_id and p.step <= since]
            past = sorted(past, key=lambda p: (-p.step, -p.number))[:EARLIER]
            earned = [r.reward for p in past for r in p.responses]
            level = sum(earned) / len(earned) if earned else sum(means) / len(means)
            expected |= {f"{g.name}{r.letter}": r.reward - level for r in g.responses if r.reward > level}
    assert {row.response.name: row.rise for row in found.rows} == pytest.approx(expected)
    assert [row.rise for row in found.rows] == sorted((row.rise for row in found.rows), reverse=True)


def test_how_much_is_read_does_not_grow_with_the_session(store: Store) -> None:
    """Counted in steps of SQLite's machine, not in seconds; each group is taken in once, before."""

    def work() -> int:
        count = [0]
        while store.prompts.catch_up():
            pass

        def tick() -> int:
            count[0] += 1
            return 0

        store._db.set_progress_handler(tick, 100)
        rose(store, store.newest_step("main") - 20)
        store._db.set_progress_handler(None, 0)
        return count[0]

    def grow(first: int, last: int) -> None:
        store.add_groups(
            [asked(s, f"p{(s * 7 + n) % 40}", [0.1, s / 1000], n) for s in range(first, last) for n in (1, 2)]
        )
        for s in range(first, last):
            store.add_step(step_record(s, **{"reward/automatic": 0.1}), [], 5)

    grow(1, 400)
    short = work()
    grow(400, 1600)
    assert work() < 1.3 * short
    assert MOST_GROUPS * EARLIER < 2000


def test_groups_that_come_and_steps_that_are_moved_are_seen_by_the_next_question(store: Store) -> None:
    fill(store, asked(1, "p", [0.1]), asked(2, "q", [0.2]), asked(3, "r", [1.0]))
    assert rose(store, 2).rows[0].over == "steps"
    store.rewind("main", 1, "try again")
    fill(store, asked(2, "r", [0.3]), asked(3, "r", [0.7]))
    (row,) = rose(store, 2).rows
    assert (row.over, row.before, row.best.name if row.best else "") == ("prompt", pytest.approx(0.3), "2.1A")


def test_the_prompts_are_taken_in_a_part_at_a_time(store: Store) -> None:
    fill(store, *(asked(step, "p", [0.1]) for step in range(1, 8)))
    assert [store.prompts.catch_up(3) for _ in range(4)] == [True, True, False, False]
    assert [g.step for g in store.groups_of_prompt("main", "p", 6, 3)] == [6, 5, 4]


def test_a_session_that_is_only_read_answers_too(store: Store) -> None:
    fill(store, asked(1, "p", [0.1]), asked(2, "q", [0.2]), asked(3, "p", [1.0]))
    reader = Store(store.path, read_only=True)
    try:
        for _ in range(2):
            (row,) = rose(reader, 2).rows
            assert (row.over, row.before) == ("prompt", pytest.approx(0.1))
    finally:
        reader.close()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_session_of_an_earlier_version_that_is_only_read_answers_too(tmp_path: Path, version: int) -> None:
    path = tmp_path / "session.db"
    groups = [asked(1, "p", [0.1]), asked(2, "q", [0.2]), asked(3, "p", [1.0])]
    write_old(path, version, groups, [step_record(step) for step in (1, 2, 3)])
    reader = Store(path, read_only=True)
    try:
        for _ in range(2):
            (row,) = rose(reader, 2).rows
            assert (row.over, row.before, row.response.repetition) == ("prompt", pytest.approx(0.1), None)
    finally:
        reader.close()
