"""A replay against what an engine's own board said after every step, and against the store's rows."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.board import Board
from sessions import commands as c
from sessions import wire
from sessions.branches import Branch
from sessions.errors import EngineUnreachable, InvalidValue, SessionError, UnknownName
from sessions.folders import SessionFolder
from sessions.past_series import TAIL, Past, PastSeries
from sessions.records import WARM_UP, Group, GroupHead, ResponseName, SeriesData, SessionSettings, Status, head_of
from sessions.replay import BLOCK, Replay
from sessions.rose import Roses
from sessions.series import Series
from sessions.store import Store
from tests.sessions.samples import alarm, change, checkpoint, group, rating, skip, status, step_record, use

GROUPS = 3


class Recorded:
    """A session written as an engine writes it, with the board that the engine would have kept.

    :ivar snapshots: step -> what the board told its clients when the step was done.
    """

    def __init__(self, path: Path) -> None:
        self.folder = SessionFolder(path)
        self.folder.path.mkdir(parents=True)
        self.folder.write_settings(SessionSettings(name=path.name, steps=500))
        self.store = Store(self.folder.database)
        self.board = Board(self.store, "main")
        self.step, self.number, self.now = 0, 0, 1000.0
        self.groups: dict[tuple[int, int], Group] = {}
        self.snapshots: dict[int, wire.Snapshot] = {}

    def close(self) -> None:
        self.store.close()

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def name(self, kind: str) -> str:
        self.number += 1
        self.now += 0.5
        return f"{kind}{self.number}"

    def told(self, *events: wire.AnyEvent) -> None:
        for event in events:
            self.board.note(event)

    def finish_step(self, dice: random.Random, late: bool = False, **metrics: float | None) -> None:
        """Sample, score, learn; ``late`` rated groups of earlier steps join the update."""
        self.step += 1
        new = [group(self.step, n, [float(dice.random() < 0.5) for _ in range(4)]) for n in range(1, GROUPS + 1)]
        self.store.add_groups(new)
        self.told(wire.GroupsScored(time=self.now, step=self.step, heads=self.store.heads_of(new)))
        learned = [self.learn(one, 0.5) for one in new]
        if late:
            for waiting in self.store.unsettled_ratings("main"):
                if (waiting.step, waiting.group) in self.groups and waiting.step < self.step:
                    old = self.groups[waiting.step, waiting.group]
                    again = self.learn(old, float(self.step), rated=0.75)
                    learned.append(again)
                    fate = use(waiting.id, self.step)
                    self.told(*self.store.add_rating_uses([msgspec.structs.replace(fate, group=old.name)], self.step))
        for one in learned:
            self.groups[one.step, one.number] = one
        record = msgspec.structs.replace(step_record(self.step, **metrics), time=self.now + 0.1)
        done = self.store.add_step(record, learned, 500)
        self.told(done, wire.GroupsChanged(time=self.now, step=self.step, heads=self.store.heads_of(learned)))
        self.snapshots[self.step] = frozen(self.board.snapshot(status(), record.values))
        self.now += 1.0

    def learn(self, one: Group, advantage: float, rated: float | None = None) -> Group:
        responses = [
            msgspec.structs.replace(
                r, advantage=advantage, automatic_advantage=0.5, rated_reward=rated if rated is not None else None
            )
            for r in one.responses
        ]
        return msgspec.structs.replace(one, status="updated", responses=responses)

    def do(self, what: str, dice: random.Random) -> None:
        """Something that people and rules do."""
        store, now = self.store, self.now
        match what:
            case "step":
                self.finish_step(dice)
            case "late step":
                self.finish_step(dice, late=True)
            case "rate" if self.step:
                of = dice.randint(1, self.step)
                given = rating(
                    of, dice.randint(1, GROUPS), {"A": float(dice.randint(1, 5))}, id=self.name("r"), time=now
                )
                self.told(store.add_rating(given))
                head = store.heads_of([self.groups[of, given.group]])
                self.told(wire.GroupsChanged(time=now, step=of, heads=head))
            case "retract":
                standing = [r for r in store.recent_ratings() if not r.retracted]
                if standing:
                    which = dice.choice(standing)
                    self.told(store.retract(which.id, "ann", self.now))
                    head = store.heads_of([self.groups[which.step, which.group]])
                    self.told(wire.GroupsChanged(time=now, step=which.step, heads=head))
            case "change":
                made = change(self.name("c"), time=now, accepted_step=self.step + 1)
                self.told(store.put_change(made))
            case "apply":
                for waiting in store.changes():
                    if waiting.status == "pending":
                        applied = msgspec.structs.replace(waiting, status="applied", applied_step=self.step + 1)
                        self.told(store.put_change(applied))
            case "alarm":
                self.told(store.put_alarm(alarm(self.name("a"), time=now, step=self.step)))
            case "acknowledge":
                for standing_alarm in store.alarms():
                    self.told(store.put_alarm(msgspec.structs.replace(standing_alarm, acknowledged=now)))
            case "checkpoint":
                self.told(store.put_checkpoint(msgspec.structs.replace(checkpoint(self.step), time=now)))
            case "note":
                self.told(store.add_event(wire.Noted(time=now, step=self.step, kind="paused", text="by ann")))
            case "skip":
                self.told(store.add_skip(msgspec.structs.replace(skip(), id=self.name("s"), time=now)))


THINGS = (
    "step",
    "late step",
    "rate",
    "retract",
    "change",
    "apply",
    "alarm",
    "acknowledge",
    "checkpoint",
    "note",
    "skip",
)


_open: list[Replay] = []


def opened(folder: SessionFolder, branch: str = "") -> Replay:
    """A replay that is closed when the test is over."""
    _open.append(Replay(folder, branch))
    return _open[-1]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


def frozen(snapshot: wire.Snapshot) -> wire.Snapshot:
    """As it goes over the wire; what happens later does not reach it."""
    found = wire.decode_to_client(wire.encode(snapshot))
    assert isinstance(found, wire.Snapshot)
    return found


def plain(events: list[wire.AnyEvent]) -> list[Any]:
    """Without what a later retraction writes into the board's own copy of a rating's event."""
    return [
        msgspec.structs.replace(e, rating=msgspec.structs.replace(e.rating, retracted=0.0))
        if isinstance(e, wire.RatingSaved)
        else e
        for e in events
    ]


def by_name(series: list[SeriesData]) -> dict[str, SeriesData]:
    return {one.name: one for one in series}


@settings(max_examples=60, deadline=None)
@given(things=st.lists(st.sampled_from(THINGS), min_size=1, max_size=40), seed=st.integers(0, 2**16))
def test_every_moment_is_what_the_engines_board_said_then(
    tmp_path_factory: pytest.TempPathFactory, things: list[str], seed: int
) -> None:
    dice = random.Random(seed)
    with Recorded(tmp_path_factory.mktemp("home") / "s") as recorded:
        for thing in ("step", *things, "step"):
            recorded.do(thing, dice)
        replay = opened(recorded.folder)
        order = list(recorded.snapshots)
        dice.shuffle(order)  # what was looked at before must not matter
        for step in order:
            then, now = recorded.snapshots[step], frozen(replay.snapshot(step))
            assert replay.nearest(step) == step
            for part in ("heads", "ratings", "uses", "changes", "alarms", "checkpoints", "last_step", "values"):
                assert getattr(now, part) == getattr(then, part), (step, part)
            assert by_name(now.series) == by_name(then.series)
            assert plain(now.events) == plain(then.events)
            assert (now.status.step, now.status.finished_steps) == (step, step)
        replay.close()


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.one_of(st.none(), st.floats(-10, 10)), min_size=1, max_size=200),
    repeat=st.integers(1, 60),
    at=st.data(),
)
def test_a_cut_keeps_the_extremes_the_ends_and_the_newest_points_whole(
    values: list[float | None], repeat: int, at: st.DataObject
) -> None:
    whole = Series("x")
    whole.steps = list(range(5, 5 + len(values) * repeat))
    whole.values = values * repeat
    past = Past(whole)
    for _ in range(3):
        count = at.draw(st.integers(1, len(whole.steps)))
        cut = PastSeries(past, count)
        steps, kept = whole.steps[:count], whole.values[:count]
        assert (len(cut), cut.first_step, cut.last) == (count, steps[0], kept[-1])
        pairs = dict(zip(steps, kept, strict=True))
        assert cut.steps == sorted(set(cut.steps))
        assert all(pairs[step] == value for step, value in zip(cut.steps, cut.values, strict=True))
        assert (cut.steps[0], cut.steps[-1]) == (steps[0], steps[-1])
        assert cut.steps[-TAIL:] == steps[-TAIL:]
        finite = [value for value in kept if value is not None]
        if finite:
            assert min(v for v in cut.values if v is not None) == min(finite)
            assert max(v for v in cut.values if v is not None) == max(finite)


def test_a_long_cut_is_small_and_each_bucket_keeps_its_spikes() -> None:
    whole = Series("x")
    dice = random.Random(1)
    whole.steps = list(range(1, 50_001))
    whole.values = [dice.random() for _ in whole.steps]
    spikes = {3: 9.0, 7777: -9.0, 31_000: 9.5}
    for step, value in spikes.items():
        whole.values[step - 1] = value
    past = Past(whole)
    for count in (2500, 9999, 10_000, 40_000, 50_000):
        cut = PastSeries(past, count)
        assert len(cut.steps) <= 2100
        shown = dict(zip(cut.steps, cut.values, strict=True))
        assert {step: shown.get(step) for step in spikes if step <= count} == {
            s: v for s, v in spikes.items() if s <= count
        }


@pytest.fixture
def recorded(tmp_path: Path) -> Any:
    """Six steps; a rating of 2.1 after step 3 that update 5 learned from, taken back after that."""
    dice = random.Random(3)
    with Recorded(tmp_path / "sessions" / "s") as made:
        for _ in range(3):
            made.finish_step(dice)
        made.do("checkpoint", dice)
        made.told(made.store.add_rating(rating(2, 1, {"A": 5.0}, id="late", time=made.now)))
        made.told(made.store.put_change(change("c1", time=made.now, status="applied", applied_step=4)))
        made.finish_step(dice)
        made.finish_step(dice, late=True, extra=1.0)
        made.told(made.store.put_alarm(alarm("a1", time=made.now, step=5)))
        made.told(made.store.retract("late", "ann", made.now))
        made.finish_step(dice)
        yield made


def ask(replay: Replay, query: c.Command, step: int | None, kind: Any) -> Any:
    return msgspec.json.decode(replay.answer(query, step), type=kind)


def test_queries_are_answered_as_of_the_moment(recorded: Recorded) -> None:
    replay = opened(recorded.folder)
    whole = recorded.store.group(ResponseName(2, 1), "main")
    for step, ratings, rated in (
        (2, [], {}),
        (3, [], {}),
        (4, ["late"], {"A": "5"}),
        (5, ["late"], {"A": "5"}),
        (6, ["late"], {}),
    ):
        detail = ask(replay, c.QueryGroup(group="2.1"), step, wire.GroupDetail)
        assert [r.id for r in detail.ratings] == ratings
        assert detail.head.ratings == rated
        learned = step >= 5
        assert [u.step for u in detail.uses] == ([5] if learned else [])
        assert {r.advantage for r in detail.group.responses} == {5.0 if learned else 0.5}
        assert {r.rated_reward for r in detail.group.responses} == {0.75 if learned else None}
        assert [r.tokens for r in detail.group.responses] == [r.tokens for r in whole.responses]
        assert bool(detail.ratings and detail.ratings[0].retracted) == (step == 6)
        response = ask(replay, c.QueryResponse(response="2.1B"), step, type(whole.responses[0]))
        assert response == detail.group.responses[1]
        heads = ask(replay, c.QueryGroups(limit=500), step, list[GroupHead])
        assert [h.name for h in heads] == [f"{s}.{n}" for s in range(step, 0, -1) for n in range(GROUPS, 0, -1)]
        waiting = ask(replay, c.QueryGroups(unrated=True), step, list[GroupHead])
        assert [h.name for h in waiting] == [h.name for h in heads if not (rated and h.name == "2.1")]
        assert (
            ask(replay, c.QueryGroups(limit=2, before=2), step, list[GroupHead]) == [h for h in heads if h.step < 2][:2]
        )
        series = by_name(
            ask(replay, c.QuerySeries(names=["reward/mean", "extra", "none"], first=2, last=99), step, list[SeriesData])
        )
        assert series["reward/mean"].steps == list(range(2, step + 1))
        assert ("extra" in series) == (step >= 5)
        events = ask(replay, c.QueryEvents(limit=500), step, list[wire.AnyEvent])
        done = [e.step for e in events if isinstance(e, wire.StepDone)]
        assert done == list(range(step, 0, -1))
        assert ask(replay, c.QueryStatus(), step, Status).step == step
    assert ask(replay, c.QueryEvents(limit=1, before=2), 6, list[wire.AnyEvent])[0].seq == 1
    replay.close()


def test_what_is_not_there_yet_or_needs_an_engine_is_refused(recorded: Recorded) -> None:
    replay = opened(recorded.folder)
    with pytest.raises(InvalidValue, match=r"there is no 5\.1 yet at step 4"):
        replay.answer(c.QueryGroup(group="5.1"), 4)
    with pytest.raises(InvalidValue, match=r"there is no 5\.1A yet at step 4"):
        replay.answer(c.QueryResponse(response="5.1A"), 4)
    with pytest.raises(InvalidValue, match="no response"):
        replay.answer(c.QueryResponse(response="2.1Z"), 4)
    with pytest.raises(InvalidValue):
        replay.answer(c.QueryGroup(group="9.1"))
    with pytest.raises(EngineUnreachable):
        replay.answer(c.QueryPlan())
    replay.close()


def test_the_marks_say_what_happened_when(recorded: Recorded) -> None:
    replay = opened(recorded.folder)
    assert replay.marks == {"change": [4], "alarm": [5], "rating": [4], "checkpoint": [3]}
    assert (replay.nearest(-5), replay.nearest(99), replay.steps) == (1, 6, [1, 2, 3, 4, 5, 6])


def test_the_last_moment_has_what_came_after_the_last_step(recorded: Recorded) -> None:
    recorded.store.add_groups([group(7, 1)])
    recorded.store.add_event(wire.Noted(time=recorded.now, step=6, kind="ended", text="after step 6"))
    replay = opened(recorded.folder)
    last = replay.snapshot()
    assert (last.heads[-1].name, last.events[-1].step, last.status.finished_steps) == ("7.1", 6, 6)
    assert isinstance(last.events[-1], wire.Noted)
    assert replay.snapshot(5).heads[-1].name == f"5.{GROUPS}"
    assert ask(replay, c.QueryGroup(group="7.1"), None, wire.GroupDetail).group.step == 7


def test_what_an_engine_keeps_after_opening_is_not_there(recorded: Recorded) -> None:
    replay = opened(recorded.folder)
    before = frozen(replay.snapshot())
    dice = random.Random(9)
    for thing in ("rate", "alarm", "step", "change"):
        recorded.do(thing, dice)
    assert replay.steps[-1] == 6
    assert frozen(replay.snapshot()) == before
    replay.close()
    fresh = opened(recorded.folder)
    assert fresh.steps[-1] == 7


def test_nothing_is_written_and_no_lock_is_taken(recorded: Recorded) -> None:
    recorded.close()
    lock = recorded.folder.lock()  # as an engine holds it
    files = {path: path.stat().st_mtime_ns for path in recorded.folder.path.rglob("*.toml")}
    before = recorded.folder.database.read_bytes()
    replay = opened(recorded.folder)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        replay._store.set_meta("x", "y")
    replay.snapshot(2)
    replay.answer(c.QueryGroups())
    replay.close()
    assert recorded.folder.database.read_bytes() == before
    assert files == {path: path.stat().st_mtime_ns for path in files}
    os.close(lock)


def test_the_steps_that_a_crash_lost_are_a_line_of_their_own(recorded: Recorded) -> None:
    """Steps 5 and 6 were lost: they, with what they had learned from, are on main~1; main runs them again."""
    recorded.store.set_aside("main", 4, "a crash")
    recorded.board = Board(recorded.store, "main")
    recorded.step = 4
    dice = random.Random(11)
    for _ in range(4):
        recorded.finish_step(dice)
    main, lost = opened(recorded.folder), opened(recorded.folder, "main~1")
    assert main.steps == [1, 2, 3, 4, 5, 6, 7, 8]
    assert lost.steps == [1, 2, 3, 4, 5, 6]
    assert lost.snapshot(5).status.branch == "main~1"
    assert [(u.step, u.branch) for u in lost.snapshot(6).uses] == [(5, "main~1")]
    assert [u.step for u in main.snapshot(6).uses] == [], "the update that had used the rating is not on this line"
    for step in (7, 8):
        now, then = frozen(main.snapshot(step)), recorded.snapshots[step]
        assert (now.heads, now.last_step, now.ratings) == (then.heads, then.last_step, then.ratings)
        assert by_name(now.series) == by_name(then.series)
    assert main.snapshot(4).last_step == recorded.snapshots[4].last_step


def test_a_line_is_the_active_branch_or_the_one_named(recorded: Recorded) -> None:
    recorded.store.add_branch(Branch(name="other", parent="main", step=4, time=recorded.now))
    recorded.store.add_step(msgspec.structs.replace(step_record(5, "other", mine=1.0), time=recorded.now + 1), [], 500)
    recorded.store.put_alarm(alarm("a2", time=recorded.now + 1, step=5, branch="other"))
    fork, main = opened(recorded.folder), opened(recorded.folder, "main")
    assert (fork.branch, fork.steps, main.steps[-1]) == ("other", [1, 2, 3, 4, 5], 6)
    assert [a.id for a in fork.snapshot().alarms] == ["a2"]
    assert [a.id for a in main.snapshot().alarms] == ["a1"]
    assert fork.snapshot(4).last_step == recorded.snapshots[4].last_step
    last = fork.snapshot().last_step
    assert last is not None
    assert last.metrics["mine"] == 1.0
    assert fork.snapshot().heads[-1].name == f"4.{GROUPS}"
    assert [u.rating for u in main.snapshot().uses] == ["late"]
    assert fork.snapshot().uses == [], "main's update 5 learned from it, not this branch's"
    assert [b.name for b in fork.snapshot().branches] == ["main", "other"]
    assert [b.name for b in main.snapshot(5).branches] == ["main"]
    with pytest.raises(UnknownName, match="did you mean main"):
        opened(recorded.folder, "mian")


def test_a_warm_up_has_a_line_and_stays_whole_in_the_others(recorded: Recorded) -> None:
    for step in (1, 2, 3):
        warm = msgspec.structs.replace(step_record(step, WARM_UP), metrics={"warmup/loss": 1.0 / step})
        recorded.store.add_step(warm, [], 500)
    main, warm_up = opened(recorded.folder), opened(recorded.folder, WARM_UP)
    assert by_name(main.snapshot(1).series)["warmup/loss"].steps == [1, 2, 3]
    assert main.moment(1)[1]["warmup/loss"].steps == [1, 2, 3]
    then = warm_up.snapshot(2)
    assert by_name(then.series)["warmup/loss"].steps == [1, 2]
    assert then.last_step is None
    assert warm_up.moment(2)[1]["warmup/loss"].steps == [1, 2]


def test_a_session_without_steps_has_one_moment(tmp_path: Path) -> None:
    with Recorded(tmp_path / "s") as empty:
        empty.store.set_meta("start_values", '{"learning_rate":0.5}')
        empty.store.add_event(wire.Noted(time=1.0, step=0, kind="started", text="hello"))
        replay = opened(empty.folder)
        snapshot = replay.snapshot()
        assert (replay.steps, snapshot.last_step, len(snapshot.events)) == ([0], None, 1)
        assert snapshot.values == snapshot.start_values == {"learning_rate": 0.5}


def test_a_session_without_records_says_so(tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path / "new")
    with pytest.raises(SessionError, match="no records yet"):
        opened(folder)
    folder.path.mkdir()
    folder.database.write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(SessionError):
        opened(folder)


def test_many_groups_and_events_come_in_blocks_without_gaps(tmp_path: Path) -> None:
    dice = random.Random(5)
    with Recorded(tmp_path / "s") as long:
        for _ in range(90):
            long.finish_step(dice)
            for _ in range(dice.randint(0, 8)):
                long.do("note", dice)
        assert long.store.last_seq() > 3 * BLOCK
        replay = opened(long.folder)
        for step in [*range(1, 91, 7), 90, *range(89, 0, -5)]:
            now, then = replay.snapshot(step), long.snapshots[step]
            assert [h.name for h in now.heads] == [h.name for h in then.heads]
            assert [e.seq for e in now.events] == [e.seq for e in then.events] if step < 90 else now.events
        heads = ask(replay, c.QueryGroups(limit=5000), 90, list[GroupHead])
        assert len(heads) == 90 * GROUPS
        assert heads[0] == head_of(long.groups[90, GROUPS])


def test_a_step_that_ends_while_the_records_are_opened_is_not_there_in_part(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = Store.last_seq

    def meanwhile(store: Store) -> int:
        end = looked(store)
        monkeypatch.setattr(Store, "last_seq", looked)
        recorded.do("step", random.Random(2))
        return end

    monkeypatch.setattr(Store, "last_seq", meanwhile)
    replay = opened(recorded.folder)
    assert recorded.step == 7
    last = replay.snapshot()
    assert (replay.steps[-1], last.status.step) == (6, 6)
    assert max(by_name(last.series)["reward/mean"].steps) == 6
    assert max(e.step for e in last.events) == 6


def test_events_come_once_where_numbers_are_missing(tmp_path: Path) -> None:
    with Recorded(tmp_path / "s") as gaps:
        for _ in range(3 * BLOCK):
            gaps.store.add_event(wire.Noted(time=1.0, step=0, kind="paused", text="by ann"))
    with sqlite3.connect(gaps.folder.database) as db:
        db.execute("DELETE FROM events WHERE seq > ? AND seq % 3", (BLOCK,))
    db.close()
    seqs = [e.seq for e in opened(gaps.folder).snapshot().events]
    assert seqs == sorted(set(seqs))
    assert len(seqs) == 200


def test_rose_looks_at_the_records_as_they_stood(tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path / "s")
    folder.path.mkdir(parents=True)
    store = Store(folder.database)
    for step, reward in ((1, 0.0), (2, 0.5), (3, 1.0)):
        store.add_groups([group(step, 1, [reward])])
        if step == 2:
            store.add_rating(rating(2, id="first", values={"A": 2.0}))
        store.add_step(step_record(step, **{"reward/automatic": reward}), [], 5)
    store.add_rating(rating(2, id="second", values={"A": 5.0}, supersedes="first"))
    store.close()
    replay = Replay(folder)
    try:
        for at, rating_then, newest in ((2, "2", 2), (3, "5", 3)):
            found = msgspec.json.decode(replay.answer(c.QueryRose(step=1), at), type=Roses)
            assert found.newest == newest
            assert {row.response.name: row.response.rating for row in found.rows}["2.1A"] == rating_then
        with pytest.raises(InvalidValue, match="step 2 is not before"):
            replay.answer(c.QueryRose(step=2), 2)
    finally:
        replay.close()
