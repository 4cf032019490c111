"""Branches kept in memory: never older than the database, and read no more often than needed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions import branch_rows
from sessions.branches import Branch
from sessions.errors import InvalidValue
from sessions.records import RatingUse
from sessions.store import Store
from tests.sessions.samples import rating, step_record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    made = Store(path)
    yield made
    made.close()


@pytest.fixture
def reader(store: Store, path: Path) -> Iterator[Store]:
    opened = Store(path, read_only=True)
    yield opened
    opened.close()


def asked(store: Store) -> list[str]:
    """The statements that a store makes from here on."""
    statements: list[str] = []
    store._db.set_trace_callback(statements.append)
    return statements


def learn(store: Store, branch: str, *steps: int) -> None:
    for step in steps:
        store.add_step(msgspec.structs.replace(step_record(step), branch=branch), [], 500)


def names(store: Store) -> set[str]:
    return set(store.branches())


def test_branches_are_read_once_however_many_questions_and_steps_there_are(store: Store) -> None:
    store.add_branch(Branch(name="try", parent="main", step=1))
    store.line("try")
    statements = asked(store)
    for step in range(2, 12):
        learn(store, "try", step)
        store.unsettled_ratings("try")
        store.last_step("try")
        store.changes("try")
    assert [s for s in statements if "FROM branches" in s] == []


def test_every_way_to_change_branches_is_seen_at_once_here_and_elsewhere(store: Store, reader: Store) -> None:
    def both(expected: set[str]) -> None:
        assert names(store) == names(reader) == expected

    both({"main"})
    learn(store, "main", 1, 2, 3)
    store.add_branch(Branch(name="try", parent="main", step=1))
    both({"main", "try"})
    store.put_branch(Branch(name="put", parent="main", step=1))
    both({"main", "try", "put"})
    store.rename_branch("try", "best")
    both({"main", "best", "put"})
    store.set_aside("main", 2, "rewound")
    both({"main", "best", "put", "main~1"})
    store.rewind("main", 1, "rewound")
    both({"main", "best", "put", "main~1", "main~2"})
    store.delete_branch("put")
    assert [bool(s.branches()["put"].deleted) for s in (store, reader)] == [True, True]
    for opened in (store, reader):
        assert opened.line("best")[0] == ("main", -1, 1)


def test_what_was_not_committed_is_not_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put = branch_rows.put_branch

    def fail(db: sqlite3.Connection, branch: Branch) -> None:
        put(db, branch)
        assert "half" in {name for (name,) in db.execute("SELECT name FROM branches")}
        store._lineage.changed()
        store.branches()  # whoever looks while it is under way
        raise sqlite3.OperationalError("no room")

    monkeypatch.setattr(branch_rows, "put_branch", fail)
    with pytest.raises(sqlite3.OperationalError):
        store.add_branch(Branch(name="half", parent="main", step=1))
    assert names(store) == {"main"}
    assert store.line("half") == [("half", -1, 2**62)]


def test_who_asks_may_change_what_they_get(store: Store) -> None:
    store.add_branch(Branch(name="try", parent="main", step=1))
    store.branches().clear()
    store.line("try").clear()
    assert names(store) == {"main", "try"}
    assert [segment.branch for segment in store.line("try")] == ["main", "try"]


def test_a_line_that_goes_round_is_refused_every_time(store: Store) -> None:
    store.put_branch(Branch(name="a", parent="b", step=1))
    store.put_branch(Branch(name="b", parent="a", step=1))
    for _ in range(2):
        with pytest.raises(InvalidValue, match="its own ancestor"):
            store.line("a")


# ------------------------------------------------------------------------------------------------ open ratings


def test_ratings_that_are_settled_are_not_looked_at_again(store: Store) -> None:
    for number in range(20):
        store.add_rating(rating(1, id=f"r{number}"))
    uses = [RatingUse(rating=f"r{number}", group="1.1", fate="on_time", step=1) for number in range(20)]
    store.add_rating_uses(uses, 1)
    assert store.unsettled_ratings("main") == []
    statements = asked(store)
    assert store.unsettled_ratings("main") == []
    assert not any("FROM rating_uses" in s for s in statements)
    store.add_rating(rating(1, id="new"))
    assert [r.id for r in store.unsettled_ratings("main")] == ["new"]
    assert [s.split("rowid>")[1].split()[0] for s in statements if "rowid>" in s] == ["20"]


_MOST = 6


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_what_waits_is_what_a_store_says_that_has_just_been_opened(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """One store is asked after every change; whatever it has remembered, it says what one without a memory does."""
    path = tmp_path_factory.mktemp("waits") / "session.db"
    store = Store(path)
    other = Store(path, read_only=True)
    newest, given_ratings = {"main": 1}, 0
    learn(store, "main", 1)
    for _ in range(data.draw(st.integers(3, 14))):
        branch = data.draw(st.sampled_from(sorted(newest)))
        match data.draw(st.sampled_from(["rate", "rate", "learn", "learn", "retract", "fork", "rewind", "rename"])):
            case "rate":
                given_ratings += 1
                step = data.draw(st.integers(1, newest[branch]))
                store.add_rating(rating(step, branch=store.step(branch, step).branch, id=f"r{given_ratings}"))  # type: ignore[union-attr]
            case "learn":
                newest[branch] += 1
                learn(store, branch, newest[branch])
                waiting = store.unsettled_ratings(branch)
                settled = waiting[: data.draw(st.integers(0, len(waiting)))]
                uses = [RatingUse(rating=r.id, group="1.1", fate="unused", branch=branch) for r in settled]
                store.add_rating_uses(uses, newest[branch])
            case "retract" if standing := [r for r in store.recent_ratings() if not r.retracted]:
                store.retract(data.draw(st.sampled_from(standing)).id, "ann", 5.0)
            case "fork" if len(newest) < _MOST:
                at, name = data.draw(st.integers(1, newest[branch])), f"b{len(newest)}"
                store.add_branch(Branch(name=name, parent=branch, step=at))
                newest[name] = at
            case "rewind":
                at = data.draw(st.integers(1, newest[branch]))
                aside, _ = store.rewind(branch, at, "rewound")
                if aside:
                    newest[aside] = newest[branch]
                newest[branch] = at
            case "rename" if branch != "main":
                store.rename_branch(branch, f"{branch}x")
                newest[f"{branch}x"] = newest.pop(branch)
        fresh = Store(path, read_only=True)
        for name in newest:
            expected = [r.id for r in fresh.unsettled_ratings(name)]
            assert [r.id for r in store.unsettled_ratings(name)] == expected
            assert [r.id for r in other.unsettled_ratings(name)] == expected
        fresh.close()
    other.close()
    store.close()
