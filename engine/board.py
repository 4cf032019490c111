"""What the engine keeps in memory for new clients: the session as of now, from the store and then from events."""

from __future__ import annotations

from collections import deque

from sessions.asking import waits
from sessions.branches import Branch
from sessions.hyperparameters import Value
from sessions.records import (
    WARM_UP,
    Alarm,
    Change,
    Checkpoint,
    GroupHead,
    Rating,
    RatingUse,
    Status,
    StepRecord,
    TaskInfo,
)
from sessions.series import Series
from sessions.store import Store
from sessions.wire import (
    AlarmRaised,
    AnyEvent,
    Changed,
    CheckpointSaved,
    Evaluated,
    GroupsChanged,
    GroupsScored,
    RatingRetracted,
    RatingSaved,
    RatingUsed,
    Snapshot,
    StepDone,
)

HEADS, EVENTS, RATINGS = 200, 200, 500
SERIES_LIMIT = 2000


class Board:
    """The newest of everything, and every metric's whole series."""

    def __init__(self, store: Store, branch: str) -> None:
        self.branch = branch
        self.seq = store.last_seq()
        self.series: dict[str, Series] = store.series(branch)
        self.heads: dict[tuple[int, int], GroupHead] = {
            (h.step, h.number): h for h in reversed(store.heads(branch, limit=HEADS))
        }
        self.ratings: dict[str, Rating] = {r.id: r for r in store.recent_ratings(RATINGS)}
        self.uses: dict[str, RatingUse] = {u.rating: u for u in store.uses_of(self.ratings.values(), branch)}
        self.changes: dict[str, Change] = {c.id: c for c in store.changes(branch)}
        self.alarms: dict[str, Alarm] = {a.id: a for a in store.alarms(branch)}
        self.checkpoints: dict[int, Checkpoint] = {c.step: c for c in store.checkpoints(branch)}
        self.events: deque[AnyEvent] = deque(reversed(store.events(limit=EVENTS)), maxlen=EVENTS)
        self.last_step: StepRecord | None = store.last_step(branch)
        self.branches: list[Branch] = [b for b in store.branches().values() if not b.deleted]
        self.start_values: dict[str, Value] = {}
        self.task: TaskInfo | None = None

    def note(self, event: AnyEvent) -> None:
        """Take in an event, as every client does."""
        if event.seq:
            self.seq = event.seq
            self.events.append(event)
        match event:
            case StepDone(record=record):
                if record.branch != WARM_UP:
                    self.last_step = record
                for name, value in record.metrics.items():
                    if name not in self.series:
                        self.series[name] = Series(name)
                    self.series[name].append(record.step, value)
            case Evaluated(branch=branch, step=step, metrics=metrics) if branch == self.branch:
                for name, value in metrics.items():
                    self.series.setdefault(name, Series(name)).append(step, value)
            case GroupsScored(heads=heads) | GroupsChanged(heads=heads):
                for head in heads:
                    self.heads[head.step, head.number] = head
                while len(self.heads) > HEADS:
                    del self.heads[next(iter(self.heads))]
            case RatingSaved(rating=rating):
                self.ratings[rating.id] = rating
                while len(self.ratings) > RATINGS:
                    old = next(iter(self.ratings))
                    del self.ratings[old]
                    self.uses.pop(old, None)
            case RatingRetracted(rating=rating_id, time=when):
                if rating_id in self.ratings:
                    self.ratings[rating_id].retracted = when
            case RatingUsed(use=use):
                if use.rating in self.ratings:
                    self.uses[use.rating] = use
            case Changed(change=change):
                self.changes[change.id] = change
            case AlarmRaised(alarm=alarm):
                self.alarms[alarm.id] = alarm
                while len(self.alarms) > HEADS:
                    del self.alarms[next(iter(self.alarms))]
            case CheckpointSaved(checkpoint=checkpoint):
                self.checkpoints[checkpoint.step] = checkpoint
            case _:
                pass  # the other kinds are only lines in the list of events

    def last(self, name: str) -> float | None:
        """The newest value of a metric."""
        return self.series[name].last if name in self.series else None

    def first_values(self) -> dict[str, float]:
        """The first value that was measured of every metric."""
        measured = {name: (v for v in series.values if v is not None) for name, series in self.series.items()}
        return {name: value for name, values in measured.items() if (value := next(values, None)) is not None}

    @property
    def waiting_groups(self) -> int:
        """Groups in memory that wait for a rating."""
        return sum(waits(head) for head in self.heads.values())

    def snapshot(self, status: Status, values: dict[str, Value]) -> Snapshot:
        """All of it for a client."""
        return Snapshot(
            seq=self.seq,
            status=status,
            task=self.task,
            values=values,
            start_values=self.start_values,
            series=[series.data(SERIES_LIMIT) for series in self.series.values()],
            heads=list(self.heads.values()),
            ratings=list(self.ratings.values()),
            uses=list(self.uses.values()),
            changes=list(self.changes.values())[-500:],
            alarms=list(self.alarms.values()),
            checkpoints=list(self.checkpoints.values()),
            events=list(self.events),
            last_step=self.last_step,
            branches=self.branches,
        )
