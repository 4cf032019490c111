"""The model that the widgets draw."""

from __future__ import annotations

import tracemalloc

import msgspec

from screens.live import EVENTS, HEADS, Live
from sessions.branches import Branch
from sessions.folders import ExitInfo
from sessions.records import (
    Alarm,
    Change,
    Checkpoint,
    GroupHead,
    Rating,
    RatingUse,
    SeriesData,
    SkipRecord,
    Status,
    StepRecord,
)
from sessions.wire import (
    AlarmRaised,
    AnyEvent,
    Beat,
    Changed,
    CheckpointSaved,
    Delta,
    GroupsChanged,
    GroupsScored,
    Growing,
    Noted,
    RatingRetracted,
    RatingSaved,
    RatingUsed,
    Skipped,
    Snapshot,
    StepDone,
)


def status(**changes: object) -> Status:
    return Status(time=0.0, session="s", branch="main", state="RUN", phase="sampling", **changes)  # type: ignore[arg-type]


def head(step: int, number: int = 1, **changes: object) -> GroupHead:
    return GroupHead(
        branch="main",
        step=step,
        number=number,
        prompt="p",
        mean=0.5,
        std=0.1,
        rewards=[0.0, 1.0],
        **changes,  # type: ignore[arg-type]
    )


def change(state: str, value: float = 5e-7) -> Change:
    return Change(
        id="c", time=1.0, who="you", name="learning_rate", old=1e-6, new=value, boundary="minibatch", status=state,  # type: ignore[arg-type]
        applied_step=3,
    )  # fmt: skip


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def fresh() -> tuple[Live, Clock]:
    clock = Clock()
    live = Live("s", clock)
    live.connected("live")
    live.feed(Snapshot(seq=0, status=status(), values={"learning_rate": 1e-6}))
    return live, clock


def events(live: Live, *some: AnyEvent) -> None:
    live.feed(Delta(events=list(some)))


def test_a_snapshot_replaces_everything() -> None:
    live, _ = fresh()
    events(live, GroupsScored(time=1, step=1, heads=[head(1)]))
    rating = Rating(id="r", time=1, who="you", branch="main", step=7, group=1, mode="likert", values={"A": 4})
    live.feed(
        Snapshot(
            seq=9,
            status=status(step=8),
            series=[SeriesData(name="entropy", steps=[1, 2], values=[1.0, None])],
            heads=[head(7)],
            ratings=[rating],
            uses=[RatingUse(rating="r", group="7.1", fate="late", step=8)],
            checkpoints=[Checkpoint(step=5, time=1, path="p", bytes=1, reason="x")],
            last_step=StepRecord(branch="main", step=7, time=1, metrics={}),
        )
    )
    assert list(live.heads) == [("main", 7, 1)]
    assert live.series["entropy"].values == [1.0, None]
    assert live.ratings == {"r": rating}
    assert live.uses["r"].step == 8
    assert live.status is not None
    assert live.status.step == 8
    assert live.last_step is not None
    assert live.last_step.step == 7


def test_a_step_adds_to_its_series_and_only_its_topics() -> None:
    live, _ = fresh()
    before = live.version.copy()
    record = StepRecord(branch="main", step=1, time=1, metrics={"reward/mean": 0.5, "entropy": None}, advantages=[1.0])
    events(live, StepDone(time=1, step=1, record=record))
    assert live.series["reward/mean"].last == 0.5
    assert live.series["entropy"].values == [None]
    assert live.last_step is record
    changed = {topic for topic in live.version if live.version[topic] != before[topic]}
    assert changed == {"series", "last_step", "events"}


def test_values_change_when_the_change_is_applied_not_before() -> None:
    live, _ = fresh()
    events(live, Changed(time=1, step=2, change=change("pending")))
    assert live.values["learning_rate"] == 1e-6
    events(live, Changed(time=2, step=3, change=change("applied")))
    assert live.values["learning_rate"] == 5e-7
    assert [c.applied_step for c in live.applied_changes()] == [3]
    assert len(live.changes) == 1


def test_ratings_uses_and_retractions() -> None:
    live, _ = fresh()
    rating = Rating(id="r", time=1, who="you", branch="main", step=1, group=1, mode="likert", values={"A": 4})
    events(
        live,
        GroupsScored(time=1, step=1, heads=[head(1), head(1, 2)]),
        RatingSaved(time=1, step=1, rating=rating),
        GroupsChanged(time=1, step=1, heads=[head(1, ratings={"A": "4"})]),
        RatingUsed(time=2, step=1, use=RatingUse(rating="r", group="1.1", fate="on_time", step=1)),
    )
    assert [h.number for h in live.waiting()] == [2]
    assert live.uses["r"].fate == "on_time"
    events(live, RatingRetracted(time=5, step=1, rating="r", who="you"))
    assert live.ratings["r"].retracted == 5


def test_groups_that_wait_are_those_that_the_rating_screen_offers() -> None:
    live, _ = fresh()
    live.you = ("this screen", "ann")
    without = {**dict.fromkeys(("mean", "std")), "rewards": [None, None], "flags": ["dead"]}
    heads = [
        head(1), head(1, 2, flags=["dead"]), msgspec.structs.replace(head(1, 3), **without),
        head(1, 4, status="replaced"), head(1, 5, ratings={"A": "4"}),
    ]  # fmt: skip
    events(live, GroupsScored(time=1, step=1, heads=heads))
    assert [h.name for h in live.waiting()] == ["1.1", "1.3"]
    live.older = {("main", 0, n): head(0, n) for n in (7, 8)} | {("main", 1, 5): head(1, 5)}
    assert [h.name for h in live.waiting()] == ["0.7", "0.8", "1.1", "1.3"]


def test_a_group_that_this_person_has_skipped_does_not_wait_until_that_is_taken_back() -> None:
    live, _ = fresh()
    live.you = ("this screen", "ann")

    def skipped(name: str, number: int, letter: str, who: str = "ann", taken_back: float = 0) -> Skipped:
        skip = SkipRecord(
            id=name, time=1, who=who, branch="main", step=1, group=number, letter=letter, retracted=taken_back
        )
        return Skipped(time=1, step=1, skip=skip)

    events(live, GroupsScored(time=1, step=1, heads=[head(1, n) for n in (1, 2, 3)]))
    whole = [skipped("a", 1, ""), skipped("b", 2, "A"), skipped("c", 2, "B"), skipped("d", 3, "A")]
    events(live, *whole, skipped("e", 3, "B", "bob"))
    assert [h.number for h in live.waiting()] == [3]
    before = live.version["heads"]
    events(live, skipped("c", 2, "B", taken_back=2))
    assert [h.number for h in live.waiting()] == [2, 3]
    assert live.version["heads"] > before
    again = Snapshot(seq=9, status=status(), heads=[head(1, n) for n in (1, 2)], events=list(live.events))
    live.feed(again)
    assert [h.number for h in live.waiting()] == [2]


def test_alarms_stand_until_acknowledged() -> None:
    live, _ = fresh()
    first = Alarm(id="a", time=1, step=1, rule="r", message="one")
    second = Alarm(id="b", time=2, step=2, rule="r", message="two")
    events(live, AlarmRaised(time=1, step=1, alarm=first), AlarmRaised(time=2, step=2, alarm=second))
    assert [a.message for a in live.standing_alarms()] == ["two", "one"]
    done = Alarm(id="a", time=1, step=1, rule="r", message="one", acknowledged=3.0)
    events(live, AlarmRaised(time=3, step=2, alarm=done))
    assert [a.message for a in live.standing_alarms()] == ["two"]


def test_growing_text_ends_with_its_phase() -> None:
    live, _ = fresh()
    live.feed(Growing(step=0, group=1, groups=2, prompt="p", texts=["a"], ended=[False]))
    assert live.growing is not None
    live.feed(Beat(status=status(phase="sampling")) if False else Beat(status=status()))
    assert live.growing is not None
    updating = Status(time=0.0, session="s", branch="main", state="RUN", phase="updating")
    live.feed(Beat(status=updating))
    assert live.growing is None


def test_states_by_word() -> None:
    clock = Clock()
    live = Live("s", clock)
    assert live.state_word() == "LOADING"
    live.connected("live")
    live.feed(Snapshot(seq=0, status=status()))
    assert live.state_word() == "RUN"
    clock.now += 3.5
    assert live.state_word() == "STALE"
    live.feed(Beat(status=status()))
    assert live.state_word() == "RUN"
    live.connected("lost")
    assert live.state_word() == "DOWN"
    assert live.attempts == 1
    live.connected("lost")
    assert live.attempts == 2
    cause = ExitInfo(
        pid=1, code=1, signal="", out_of_memory=False, peak_memory_bytes=0, started=0, ended=1, cause="it raised"
    )
    live.ended(cause, ["last line"])
    assert live.state_word() == "FAILED"
    live.ended(ExitInfo(**{**_fields(cause), "code": 0}), [])
    assert live.state_word() == "DONE"
    live.connected("live")
    assert live.exit is None


def test_a_session_that_is_started_again_loads_until_something_is_heard_of_it() -> None:
    live, clock = fresh()
    live.ended(None, [])
    live.restarting = True
    clock.now += 60.0
    live.connected("live")
    assert live.state_word() == "LOADING"  # what is known is still of the engine before
    live.feed(Snapshot(seq=1, status=status()))
    assert live.state_word() == "RUN"
    live.restarting = True
    live.ended(None, [])
    assert live.state_word() == "FAILED"


def test_whoever_has_just_answered_is_not_stale() -> None:
    live, clock = fresh()
    live.connected("lost")
    clock.now += 60.0
    live.connected("live")
    assert live.state_word() == "RUN"


def _fields(record: ExitInfo) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def test_the_best_is_the_last_of_equals() -> None:
    live, _ = fresh()
    for step, value in enumerate([0.1, 0.5, None, 0.5, 0.2], start=1):
        record = StepRecord(branch="main", step=step, time=1, metrics={"reward/mean": value})
        events(live, StepDone(time=1, step=step, record=record))
    assert live.best("reward/mean") == (4, 0.5)
    assert live.best("nothing") is None


def test_an_old_group_does_not_come_back_as_the_newest() -> None:
    live, _ = fresh()
    for step in range(1, HEADS + 11):
        events(live, GroupsScored(time=1, step=step, heads=[head(step)]))
    assert len(live.heads) == HEADS
    events(live, GroupsChanged(time=1, step=3, heads=[head(3)]))
    assert ("main", 3, 1) not in live.heads
    assert next(reversed(live.heads)) == ("main", HEADS + 10, 1)


def test_memory_is_flat_over_two_hundred_thousand_events() -> None:
    live, _ = fresh()

    def feed(first: int, last: int) -> None:
        for step in range(first, last):
            record = StepRecord(
                branch="main", step=step, time=1, metrics={"reward/mean": step * 0.1}, advantages=[0.5] * 32
            )
            events(
                live,
                GroupsScored(time=1, step=step, heads=[head(step)]),
                StepDone(time=1, step=step, record=record),
                CheckpointSaved(
                    time=1, step=step, checkpoint=Checkpoint(step=step, time=1, path="p", bytes=1, reason="x")
                ),
                Noted(time=1, step=step, kind="note", text=f"note {step}"),
            )

    feed(1, 10_000)
    tracemalloc.start()
    try:
        feed(10_000, 30_000)
        tracemalloc.reset_peak()
        middle = tracemalloc.get_traced_memory()[0]
        feed(30_000, 50_000)
        end = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(live.events) == EVENTS
    assert len(live.series["reward/mean"]) <= 8000
    assert end - middle < 1_000_000


def test_the_line_turns_where_it_was_forked_and_where_a_rewind_left_steps_behind() -> None:
    live = Live("s")
    branches = [
        Branch(name="main"),
        Branch(name="main~1", parent="main", step=30, abandoned=True),
        Branch(name="other", parent="main", step=20),
        Branch(name="low", parent="main", step=50),
        Branch(name="low~1", parent="low", step=60, abandoned=True),
        Branch(name="other~1", parent="other", step=25, abandoned=True),
    ]

    def on(branch: str, step: int) -> None:
        status = Status(time=0.0, session="s", branch=branch, state="RUN", phase="sampling", step=step)
        last = StepRecord(branch=branch, step=step, time=0.0, metrics={})
        live.feed(Snapshot(seq=0, status=status, branches=branches, last_step=last))

    on("main", 80)
    assert live.turns() == [30]
    on("low", 70)
    assert live.turns() == [30, 50, 60]
    assert [live.on_line(*place) for place in (("main", 50), ("main", 51), ("low", 51), ("low", 70), ("low", 71))] == [
        True, False, True, True, False,
    ]  # fmt: skip
    assert not live.on_line("main~1", 40)


def test_another_line_is_told_from_the_same_line_sent_again() -> None:
    live = Live("s")

    def load(branch: str, *names: str) -> int:
        status = Status(time=0.0, session="s", branch=branch, state="RUN", phase="sampling", step=3)
        known = [Branch(name="main"), *(Branch(name=n, parent="main", step=2) for n in names)]
        live.feed(Snapshot(seq=0, status=status, branches=known))
        return live.version["line"]

    first = load("main")
    assert load("main") == first
    assert load("main", "main~1") == first + 1  # a rewind
    assert load("main~1", "main~1") == first + 2  # a switch
    assert load("main~1", "main~1") == first + 2
