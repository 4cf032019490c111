"""Databases of earlier versions: read as they are, brought to this version whole or not at all."""

from __future__ import annotations

import sqlite3
import tracemalloc
from pathlib import Path

import pytest

from sessions import schema
from sessions.errors import SessionError
from sessions.orderings import Ordering
from sessions.records import Group, ResponseName, StepRecord
from sessions.store import Store
from tests.sessions.old_databases import write_old
from tests.sessions.samples import group, rating, step_record

versions = pytest.mark.parametrize("version", [1, 2, 3, 4, 5])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.db"


def some_groups() -> list[Group]:
    made = [group(step, number, branch=branch) for branch in ("main", "main~1") for step in (1, 2) for number in (1, 2)]
    made[0].responses[1].failed = "accuracy: ValueError"
    made[0].responses[1].reward = None
    made[0].responses[2].tokens = []
    made[1].status = "updated"
    made[2].responses = made[2].responses[:1]
    return made


def write_some(path: Path, version: int) -> None:
    steps = [step_record(1), step_record(2)]
    write_old(path, version, some_groups(), steps, [rating(2, 1, values={"A": 4.0}), rating(2, 1, time=101.0)])


def judged_steps() -> list[StepRecord]:
    return [step_record(1, **{"eval/accuracy": 0.25}), step_record(2), step_record(3, **{"eval/accuracy": 0.0})]


@versions
def test_what_had_no_column_before_is_found_in_the_bodies(path: Path, version: int) -> None:
    write_old(path, version, some_groups(), judged_steps(), [])
    for read_only in (True, False):
        store = Store(path, read_only=read_only)
        info = store.branch_infos()[0]
        assert (info.branch.name, info.best, info.evaluated) == ("main", (1, 0.25), (3, 0.0))
        assert [c.step for c in store.changes()] == [2]
        if not read_only:
            assert store.rewind("main", 1, "rewound") == ("main~2", 2)
            assert [(c.id, a.id) for c, a in zip(store.changes("main~2"), store.alarms("main~2"), strict=True)] == [
                ("c1", "a1")
            ]
            assert store.changes() == store.alarms() == []
        store.close()


def all_groups(store: Store) -> list[Group]:
    return [store.group(ResponseName(g.step, g.number), g.branch) for g in some_groups()]


@versions
def test_an_earlier_database_is_read_without_a_change_to_it(path: Path, version: int) -> None:
    write_some(path, version)
    before = path.read_bytes()
    store = Store(path, read_only=True)
    assert all_groups(store) == some_groups()
    assert [h.name for h in store.heads("main")] == ["2.2", "2.1", "1.2", "1.1"]
    assert store.heads("main", limit=2)[1].ratings == {"A": "4"}
    assert {b.name: (b.parent, b.step) for b in store.branches().values()} == {"main": ("", 0), "main~1": ("main", 0)}
    assert [c.id for c in store.changes()] == [c.id for c in store.changes("main~1")] + ["c1"] == ["c1"]
    assert [a.id for a in store.alarms()] == ["a1"]
    assert [(u.step, u.branch) for u in store.uses_of(store.recent_ratings())] == [(2, "main")] * 2
    assert store.steps("main") == [step_record(1), step_record(2)]
    assert len(store.recent_ratings()) == 2
    assert store.orderings() == []
    assert store.known_orderings(["x"]) == set()
    assert store.held_out_steps("main") == []
    store.close()
    assert path.read_bytes() == before


@versions
def test_an_earlier_database_is_brought_to_this_version(path: Path, version: int) -> None:
    write_some(path, version)
    reader = Store(path, read_only=True)
    heads = reader.heads("main")
    reader.close()
    for turn in range(2):  # opened again, it is one of this version
        store = Store(path)
        assert store.meta("schema") == str(schema.SCHEMA_VERSION)
        assert store.database_id == "old"
        assert all_groups(store) == some_groups()
        assert store.heads("main") == heads
        assert store.steps("main") == [step_record(1), step_record(2)]
        assert len(store.recent_ratings()) == 2
        added, _ = store.add_orderings([Ordering(prompt="p", tiers=[["a"], ["b"]])], "x.jsonl", "ann", 5.0)
        assert added == (not turn)
        assert [ordering.prompt for _, ordering in store.orderings()] == ["p"]
        store.close()


@versions
def test_what_is_brought_up_has_the_tables_of_what_is_made(path: Path, version: int) -> None:
    write_some(path, version)
    Store(path).close()
    fresh = path.with_name("fresh.db")
    Store(fresh).close()

    def shape(file: Path) -> tuple[list[tuple[str, ...]], list[tuple[object, ...]]]:
        db = sqlite3.connect(file)
        kinds = db.execute("SELECT type, name, tbl_name FROM sqlite_master ORDER BY name").fetchall()
        columns = [column for _, table, _ in kinds for column in db.execute(f"PRAGMA table_info({table})").fetchall()]
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        db.close()
        return kinds, columns

    assert shape(path) == shape(fresh)


@versions
def test_an_engine_goes_on_with_an_earlier_database(path: Path, version: int) -> None:
    write_some(path, version)
    store = Store(path)
    made = group(3)
    store.add_groups([made])
    store.add_step(step_record(3), [made], keep_token_steps=2)
    assert store.group(ResponseName(3, 1), "main") == made
    assert store.group(ResponseName(1, 1), "main").responses[0].tokens == []
    assert store.set_aside("main", 1, "rewound")[1] == 2
    assert [h.name for h in store.heads("main~2")] == ["3.1", "2.2", "2.1", "1.2", "1.1"]
    assert store.standing_ratings(ResponseName(2, 1), "main~2")
    store.close()


@pytest.mark.parametrize("version", [1, 2])
def test_a_database_that_cannot_be_brought_up_is_left_as_it_was(
    path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_some(path, version)
    good, calls = schema.pack_body, 0

    def fail_in_the_middle(made: Group) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise OSError("no room")
        return good(made)

    monkeypatch.setattr(schema, "pack_body", fail_in_the_middle)
    with pytest.raises(SessionError, match=f"could not be brought from schema {version} to 6 and is as it was"):
        Store(path)
    monkeypatch.undo()
    reader = Store(path, read_only=True)
    assert reader.meta("schema") == str(version)
    assert all_groups(reader) == some_groups()
    reader.close()
    store = Store(path)
    assert all_groups(store) == some_groups()
    store.close()


def test_a_large_database_is_moved_in_bounded_memory_and_does_not_grow(path: Path) -> None:
    """300 groups of 32 KB of tokens and text each would be near 10 MB at once."""
    many = (group(step, rewards=[1.0]) for step in range(1, 301))

    def long(made: Group) -> Group:
        made.responses[0].text = "x" * 16_000
        made.responses[0].logprobs = [0.5] * 4000
        return made

    write_old(path, 2, map(long, many))
    before = path.stat().st_size
    assert before > 300 * 32_000
    tracemalloc.start()
    Store(path).close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6
    assert path.stat().st_size < 1.05 * before


def test_heads_do_not_read_the_tokens(path: Path) -> None:
    """A page of the tokens is overwritten: whoever reads them meets the damage."""
    store = Store(path)
    made = group(rewards=[1.0])
    made.responses[0].logprobs = [0.5] * 50_000
    store.add_groups([made])
    store.close()
    whole = path.read_bytes()
    page = (whole.rindex(b"\x00\x00\x00\x3f" * 900) // 4096 - 5) * 4096
    path.write_bytes(whole[:page] + b"\xff" * 4096 + whole[page + 4096 :])
    reader = Store(path, read_only=True)
    assert [h.name for h in reader.heads("main")] == ["3.1"]
    assert reader.group(ResponseName(3, 1), "main", tokens=False).responses[0].text == "12\n"
    with pytest.raises(sqlite3.DatabaseError):
        reader.group(ResponseName(3, 1), "main")
    reader.close()
