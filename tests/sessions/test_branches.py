"""Branches as lines of steps, by the pure functions and in the store, beside what brute force says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.branches import (
    Branch,
    Probe,
    aside_name,
    check_branch_name,
    differences,
    find_branch,
    in_tree_order,
    line_of,
    owner_of,
)
from sessions.errors import InvalidValue, UnknownName
from sessions.records import RatingUse, ResponseName
from sessions.store import Store
from tests.sessions.samples import alarm, change, checkpoint, group, rating, step_record


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "session.db")
    yield made
    made.close()


def learn(store: Store, branch: str, *steps: int) -> None:
    """Steps of a branch, each with two groups."""
    for step in steps:
        store.add_groups([group(step, 1, branch=branch), group(step, 2, branch=branch)])
        record = msgspec.structs.replace(step_record(step), branch=branch, metrics={"reward/mean": step / 10})
        store.add_step(record, [], 500)


def test_a_line_is_what_its_ancestors_share_and_its_own() -> None:
    known = {b.name: b for b in (Branch(name="main"), Branch(name="a", parent="main", step=6))}
    known["b"] = Branch(name="b", parent="a", step=9)
    known["early"] = Branch(name="early", parent="a", step=4)  # at a step that a shares with main
    owners = {name: [owner_of(line_of(known, name), step) for step in (0, 4, 5, 6, 7, 9, 10)] for name in known}
    assert owners["main"] == ["main"] * 7
    assert owners["a"] == ["main"] * 4 + ["a"] * 3
    assert owners["b"] == ["main"] * 4 + ["a", "a", "b"]
    assert owners["early"] == ["main", "main"] + ["early"] * 5


@given(st.data())
def test_the_owner_of_a_step_is_found_as_by_walking_up(data: st.DataObject) -> None:
    known = {"main": Branch(name="main")}
    for k in range(data.draw(st.integers(0, 6))):
        parent = data.draw(st.sampled_from(sorted(known)))
        known[f"b{k}"] = Branch(name=f"b{k}", parent=parent, step=data.draw(st.integers(0, 12)))
    name = data.draw(st.sampled_from(sorted(known)))
    step = data.draw(st.integers(0, 20))
    walked = known[name]
    while walked.parent and step <= walked.step:
        walked = known[walked.parent]
    assert owner_of(line_of(known, name), step) == walked.name


def test_a_branch_is_not_its_own_ancestor() -> None:
    known = {"a": Branch(name="a", parent="b"), "b": Branch(name="b", parent="a")}
    with pytest.raises(InvalidValue, match="its own ancestor"):
        line_of(known, "a")


@pytest.mark.parametrize(
    "name", ["", "main", "warm-up", "../x", "a/b", "main~1", ".hidden", "x" * 49, "a b", "é", "a\n"]
)
def test_names_that_no_branch_may_have(name: str) -> None:
    with pytest.raises(InvalidValue, match="cannot name a branch"):
        check_branch_name(name)


def test_names() -> None:
    assert check_branch_name("ppo-try.2_x") == "ppo-try.2_x"
    assert aside_name("main", {"main", "main~1", "main~3"}) == "main~2"
    known = {b.name: b for b in (Branch(name="main"), Branch(name="gone", deleted=5.0))}
    assert find_branch("main", known).name == "main"
    for missing in ("mian", "gone"):
        with pytest.raises(UnknownName, match="unknown branch"):
            find_branch(missing, known)
    assert differences({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 4}) == {"b": (2, 4), "c": (3, None)}


def test_the_tree_has_children_after_their_parents_in_the_order_of_their_steps() -> None:
    made = [
        Branch(name="late", parent="main", step=9),
        Branch(name="main"),
        Branch(name="early", parent="main", step=2),
        Branch(name="of-early", parent="early", step=5),
        Branch(name="orphan", parent="deleted"),
    ]
    assert [(d, b.name) for d, b in in_tree_order(made)] == [
        (0, "main"), (1, "early"), (2, "of-early"), (1, "late"), (0, "orphan"),
    ]  # fmt: skip


def test_a_fork_has_the_steps_groups_and_points_of_its_parent_up_to_where_it_begins(store: Store) -> None:
    learn(store, "main", 0, 1, 2, 3)
    store.add_branch(Branch(name="try", parent="main", step=2))
    learn(store, "try", 3, 4)
    assert store.active == "try"
    assert [(s.branch, s.step) for s in store.steps("try")] == [
        ("main", 0), ("main", 1), ("main", 2), ("try", 3), ("try", 4),
    ]  # fmt: skip
    assert [s.step for s in store.steps("try", after=2)] == [3, 4]
    assert store.series("try")["reward/mean"].values == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert [(h.branch, h.name) for h in store.heads("try", limit=5)] == [
        ("try", "4.2"), ("try", "4.1"), ("try", "3.2"), ("try", "3.1"), ("main", "2.2"),
    ]  # fmt: skip
    assert [h.name for h in store.heads("try", before=2, limit=9)] == ["1.2", "1.1", "0.2", "0.1"]
    assert store.group(ResponseName(1, 1), "try").branch == "main"
    assert store.group(ResponseName(3, 1), "try").branch == "try"
    assert store.group(ResponseName(3, 1, "", "main"), "try").branch == "main"
    last = store.last_step("try")
    assert last is not None
    assert (last.branch, last.step) == ("try", 4)
    at = store.step("try", 2)
    assert at is not None
    assert at.branch == "main"
    assert store.step("try", 9) is None


def test_a_new_branch_ends_where_its_parent_did(store: Store) -> None:
    learn(store, "main", 1, 2, 3)
    store.add_branch(Branch(name="try", parent="main", step=2), [change("c9", branch="try", accepted_step=3)])
    last = store.last_step("try")
    assert last is not None
    assert last.step == 2
    assert [c.id for c in store.changes("try")] == ["c9"]


def test_what_is_set_aside_goes_with_its_branches_changes_and_alarms(store: Store) -> None:
    learn(store, "main", 1, 2, 3, 4)
    store.add_branch(Branch(name="low", parent="main", step=2))
    store.add_branch(Branch(name="high", parent="main", step=4))
    store.use_branch("main")
    for name, step in (("early", 2), ("late", 3)):
        store.put_change(change(name, status="applied", applied_step=step))
        store.put_alarm(alarm(name, step=step))
        store.put_checkpoint(checkpoint(step))
        store.add_probes([Probe(branch="main", step=step, place=0, prompt="?", answer="!", text=name, right=False)])
    assert store.set_aside("main", 2, "rewound") == ("main~1", 2)
    parents = {b.name: (b.parent, b.step) for b in store.branches().values()}
    assert parents == {"main": ("", 0), "low": ("main", 2), "high": ("main~1", 4), "main~1": ("main", 2)}
    assert [s.step for s in store.steps("high")] == [1, 2, 3, 4]
    for name, branch in (("main", ["early"]), ("main~1", ["early", "late"]), ("low", ["early"])):
        assert [c.id for c in store.changes(name)] == branch
        assert [a.id for a in store.alarms(name)] == branch
        assert [c.step for c in store.checkpoints(name)] == [2, 3][: len(branch)]
        assert [p.text for p in store.probes(name)] == branch[-1:]


def test_a_rating_waits_on_every_line_that_has_not_used_it(store: Store) -> None:
    learn(store, "main", 1, 2, 3)
    on_time, late = rating(step=2, id="on-time"), rating(step=2, id="late")
    for given_rating in (on_time, late):
        store.add_rating(given_rating)
    store.add_rating_uses([RatingUse(rating="on-time", group="2.1", fate="on_time", step=2)], 2)
    store.add_rating_uses([RatingUse(rating="late", group="2.1", fate="late", step=3)], 3)
    store.add_branch(Branch(name="try", parent="main", step=2))
    assert store.unsettled_ratings("main") == []
    assert [r.id for r in store.unsettled_ratings("try")] == ["late"]
    assert [u.rating for u in store.uses_of([on_time, late], "try")] == ["on-time"]
    store.add_rating_uses([RatingUse(rating="late", group="2.1", fate="late", step=4, branch="try")], 4)
    assert store.unsettled_ratings("try") == []
    uses = {branch: store.rating_use("late", branch) for branch in ("main", "try")}
    assert {branch: (use.step, use.branch) for branch, use in uses.items() if use} == {
        "main": (3, "main"),
        "try": (4, "try"),
    }
    store.add_branch(Branch(name="before", parent="main", step=1))
    assert store.unsettled_ratings("before") == []  # the group is not on its line


def test_a_rewound_branch_uses_again_what_only_the_abandoned_steps_had(store: Store) -> None:
    learn(store, "main", 1, 2, 3)
    store.add_rating(rating(step=2, id="late"))
    store.add_rating_uses([RatingUse(rating="late", group="2.1", fate="unused", why="moved")], 3)
    store.set_aside("main", 2, "rewound")
    assert [r.id for r in store.unsettled_ratings("main")] == ["late"]
    assert store.unsettled_ratings("main~1") == []


def test_a_renamed_branch_is_another_in_name_only(store: Store) -> None:
    learn(store, "main", 1)
    store.add_branch(Branch(name="try", parent="main", step=1))
    learn(store, "try", 2)
    store.add_branch(Branch(name="child", parent="try", step=2))
    store.use_branch("try")
    store.put_checkpoint(checkpoint(2, branch="try"))
    store.rename_branch("try", "better")
    assert store.active == "better"
    assert [s.branch for s in store.steps("child")] == ["main", "better"]
    assert [c.branch for c in store.checkpoints("better")] == ["better"]
    assert "try" not in store.branches()


def test_what_people_rated_on_a_deleted_branch_is_kept(store: Store) -> None:
    learn(store, "main", 1)
    store.add_branch(Branch(name="try", parent="main", step=1))
    learn(store, "try", 2)
    store.add_rating(rating(step=2, branch="try", id="kept"))
    store.put_checkpoint(checkpoint(2, branch="try"))
    assert [c.step for c in store.delete_branch("try")] == [2]
    assert [r.id for r in store.recent_ratings()] == ["kept"]
    assert store.group(ResponseName(2, 1, "", "try"), "main").responses
    with pytest.raises(InvalidValue, match=r"no group 2\.2"):
        store.group(ResponseName(2, 2, "", "try"), "main")
    assert [i.branch.name for i in store.branch_infos()] == ["main"]


def test_what_became_of_a_branch(store: Store) -> None:
    learn(store, "main", 1, 2)
    for branch, step, accuracy, rate in (("main", 2, 0.5, 1e-4), ("try", 3, 0.7, 1e-5), ("try", 4, 0.6, 1e-5)):
        if branch not in store.branches():
            store.add_branch(Branch(name=branch, parent="main", step=2))
        metrics = {"eval/accuracy": accuracy}
        values = {"learning_rate": rate}
        record = msgspec.structs.replace(step_record(step), branch=branch, metrics=metrics, values=values)
        store.add_step(record, [], 500)
    store.put_checkpoint(checkpoint(4, branch="try"))
    first, second = store.branch_infos()
    assert (first.branch.name, first.active, first.tip, first.steps, first.best) == ("main", False, 2, 2, (2, 0.5))
    assert (second.branch.name, second.active, second.tip, second.steps) == ("try", True, 4, 2)
    assert (second.evaluated, second.best) == ((4, 0.6), (3, 0.7))
    assert differences(second.begun_with, second.values) == {"learning_rate": (1e-4, 1e-5)}
    assert [c.step for c in second.checkpoints] == [4]


def test_a_branch_without_a_step_of_its_own_shows_where_it_begins(store: Store) -> None:
    learn(store, "main", 1, 2)
    store.add_branch(Branch(name="try", parent="main", step=1))
    info = store.branch_infos()[1]
    assert (info.tip, info.steps, info.metrics) == (1, 0, {"reward/mean": 0.1})
    assert info.evaluated is None


def test_many_rows_of_other_branches_leave_room_for_those_of_a_line(store: Store) -> None:
    learn(store, "main", 1, 2, 3)
    store.add_branch(Branch(name="try", parent="main", step=2))
    for step in (1, 2, 3):
        store.put_change(change(f"mine-{step}", accepted_step=step))
        store.put_alarm(alarm(f"mine-{step}", step=step))
    for number in range(20):
        store.put_change(change(f"other-{number}", branch="try", accepted_step=9))
        store.put_alarm(alarm(f"other-{number}", branch="try", step=9))
    assert [c.id for c in store.changes("main", limit=2)] == ["mine-2", "mine-3"]
    assert [a.id for a in store.alarms("main", limit=2)] == ["mine-2", "mine-3"]
    assert [c.id for c in store.changes("try", limit=21)] == ["mine-2", *(f"other-{n}" for n in range(20))]


def test_a_change_belongs_to_the_step_that_it_touched_and_an_alarm_to_the_one_that_told_it_last(store: Store) -> None:
    learn(store, "main", 1, 2, 3)
    store.put_change(change("c", accepted_step=1))
    store.put_alarm(alarm("a", step=1))
    store.put_change(change("c", accepted_step=1, applied_step=3, status="applied"))
    store.put_alarm(alarm("a", step=3))
    store.add_branch(Branch(name="try", parent="main", step=2))
    assert store.changes("try") == []
    assert store.alarms("try") == []
    store.rewind("main", 2, "rewound")
    assert [c.id for c in store.changes("main~1")] == ["c"]
    assert [a.id for a in store.alarms("main~1")] == ["a"]
    assert store.changes("main") == []


def test_the_accuracies_of_saved_steps_are_those_of_their_branches_bad_ones_too(store: Store) -> None:
    store.add_branch(Branch(name="try", parent="main", step=1))
    judged = {("main", 1): 0.5, ("main", 2): 0.0, ("try", 2): 0.7, ("try", 3): 0.9, ("try", 4): None}
    for (branch, step), accuracy in judged.items():
        record = msgspec.structs.replace(step_record(step), branch=branch, metrics={"eval/accuracy": accuracy})
        store.add_step(record, [], 500)
        if (branch, step) != ("try", 3):
            store.put_checkpoint(checkpoint(step, branch=branch))
    learn(store, "try", 5)
    store.put_checkpoint(checkpoint(5, branch="try"))
    assert store.saved_accuracies() == {("main", 1): 0.5, ("main", 2): 0.0, ("try", 2): 0.7}
    store.rewind("main", 1, "rewound")
    assert store.saved_accuracies() == {("main", 1): 0.5, ("main~1", 2): 0.0, ("try", 2): 0.7}
