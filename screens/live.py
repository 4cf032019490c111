"""The session as the screens know it: fed by messages, read by widgets. No Textual in it, no input or output.

Every part has a version that grows when it changes, so that a widget draws again only when what it shows is new.
Everything that could grow without end is bounded, so memory stays flat however long the training goes on.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

import msgspec

from sessions.asking import waits
from sessions.branches import Branch, line_of, owner_of
from sessions.errors import InvalidValue
from sessions.folders import ExitInfo
from sessions.hyperparameters import Value
from sessions.records import (
    MAIN,
    WARM_UP,
    Alarm,
    Change,
    Checkpoint,
    GroupHead,
    Rating,
    RatingUse,
    SkipRecord,
    Status,
    StepRecord,
    TaskInfo,
)
from sessions.series import Series
from sessions.wire import (
    AlarmRaised,
    AnyEvent,
    Beat,
    Changed,
    CheckpointSaved,
    Complaint,
    Delta,
    Evaluated,
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
    ToClient,
    describe,
)

_T = TypeVar("_T")
Connection = Literal["connecting", "live", "lost", "ended", "replay", "file"]
HeadKey = tuple[str, int, int]

SERIES_CAPACITY = 4000
HEADS = 2000
EVENTS = 5000
RATINGS = 5000
SMALL = 1000
"""Changes, alarms and checkpoints kept in memory."""
TOPICS = (
    "status", "series", "heads", "ratings", "changes", "alarms", "checkpoints", "events", "last_step", "growing",
    "values", "link", "line",
)  # fmt: skip
MISSED_BEATS = 3.0
"""Seconds without the one-second heartbeat before the engine counts as stale."""


def head_key(head: GroupHead) -> HeadKey:
    """What names a group: branch, step, number."""
    return head.branch, head.step, head.number


class Live:
    """One session, as of the newest message.

    :ivar version: topic -> how often it changed: status, series, heads, ratings, changes, alarms, checkpoints, events,
        growing, last_step, values, link, and line: another branch is trained, or the same from an earlier step.
    :ivar you: title and name of this screen, as the engine shows them; empty without an engine.
    :ivar heads: the newest groups, oldest first, by (branch, step, number).
    :ivar ratings: by id, oldest first, retracted ones too.
    :ivar older: groups from before those that wait too, once the rating screen has asked for them.
    :ivar skips: those that stand, by id, oldest first.
    :ivar uses: what became of a rating, by its id.
    :ivar events: the newest, oldest first. Those about groups keep only their line, and steps only their metrics, so
        that five thousand of them stay small; ``QueryEvents`` has them whole.
    :ivar branches: those that are not deleted, by name, as of the newest snapshot.
    :ivar exit: how the engine ended, once it has.
    :ivar attempts: failed connections since the last good one.
    :ivar restarting: an engine is being started for a session that had none; until it answers or has ended.
    """

    def __init__(self, name: str = "", clock: Callable[[], float] = time.time) -> None:
        self.name = name
        self.clock = clock
        self.version: Counter[str] = Counter()
        self.connection: Connection = "connecting"
        self.attempts = 0
        self.restarting = False
        self.exit: ExitInfo | None = None
        self.log_tail: list[str] = []
        self.complaint = ""
        self.last_beat = clock()
        self.status: Status | None = None
        self.you = ("", "")
        self.task: TaskInfo | None = None
        self.values: dict[str, Value] = {}
        self.start_values: dict[str, Value] = {}
        self.series: dict[str, Series] = {}
        self.heads: dict[HeadKey, GroupHead] = {}
        self.older: dict[HeadKey, GroupHead] = {}
        self.skips: dict[str, SkipRecord] = {}
        self.ratings: dict[str, Rating] = {}
        self.uses: dict[str, RatingUse] = {}
        self.changes: dict[str, Change] = {}
        self.alarms: dict[str, Alarm] = {}
        self.checkpoints: deque[Checkpoint] = deque(maxlen=SMALL)
        self.events: deque[AnyEvent] = deque(maxlen=EVENTS)
        self.last_step: StepRecord | None = None
        self.growing: Growing | None = None
        self.branches: dict[str, Branch] = {}

    # ---------------------------------------------------------------------------------------------- reading

    def state_word(self, now: float | None = None) -> str:
        """LOADING, RUN, PAUSED, WAIT, STALE, DOWN, DONE or FAILED; REPLAY or FILE where no engine is looked at."""
        if self.restarting:
            return "LOADING"
        if self.connection in ("replay", "file"):
            return self.connection.upper()
        if self.connection == "ended":
            done = self.exit.code == 0 if self.exit else self.status is not None and self.status.state == "DONE"
            return "DONE" if done else "FAILED"
        if self.connection == "lost":
            return "DOWN"
        if self.status is None:
            return "LOADING"
        if self.status.state not in ("DONE", "FAILED") and self.silence(now) > MISSED_BEATS:
            return "STALE"
        return self.status.state

    def silence(self, now: float | None = None) -> float:
        """Seconds since the last sign of life."""
        return max(0.0, (self.clock() if now is None else now) - self.last_beat)

    def standing_alarms(self) -> list[Alarm]:
        """Alarms that nobody has acknowledged, newest first."""
        return [a for a in reversed(self.alarms.values()) if not a.acknowledged]

    def waiting(self) -> list[GroupHead]:
        """Groups that wait for this person's rating, oldest first: those that the rating screen offers."""
        known = {**self.older, **self.heads}
        skipped: dict[HeadKey, set[str]] = {}
        for skip in self.skips.values():
            if skip.who == self.you[1]:
                skipped.setdefault((skip.branch, skip.step, skip.group), set()).add(skip.letter)
        return [head for key, head in known.items() if waits(head) and not _whole(skipped.get(key, set()), head)]

    def applied_changes(self) -> list[Change]:
        """Changes that have taken effect, newest first."""
        return [c for c in reversed(self.changes.values()) if c.status == "applied"]

    @property
    def warming(self) -> bool:
        """Whether the model is warmed up now, before RL."""
        here = self.status is not None and self.status.branch == WARM_UP
        return here and self.connection not in ("ended", "replay")

    @property
    def in_warm_up(self) -> bool:
        """Whether the newest that there is to show is of the warm-up: RL has no record yet."""
        return self.last_step is None and (self.warming or "warmup/loss" in self.series)

    def first_step(self) -> int:
        """The first step that any metric has a point of; 0 without any."""
        return min((first for series in self.series.values() if (first := series.first_step) is not None), default=0)

    @property
    def branch(self) -> str:
        """The branch that is trained."""
        return self.status.branch if self.status is not None else MAIN

    def on_line(self, branch: str, step: int) -> bool:
        """Whether a step of a branch is one that the branch that is trained has behind it."""
        try:
            return step <= self.newest_step() and owner_of(line_of(self.branches, self.branch), step) == branch
        except InvalidValue:
            return False

    def turns(self) -> list[int]:
        """The steps at which the line that is trained was forked, or went back and left others behind."""
        try:
            line = line_of(self.branches, self.branch)
        except InvalidValue:
            return []
        forks = [segment.after for segment in line if segment.after >= 0]
        left = [
            branch.step
            for branch in self.branches.values()
            if branch.abandoned and branch.parent and owner_of(line, branch.step) == branch.parent
        ]
        return sorted({*forks, *left})

    def newest_step(self, warm_up: bool = False) -> int:
        """The last recorded step, of RL or of the warm-up; 0 if there is none."""
        if warm_up:
            series = self.series.get("warmup/loss")
            return series.steps[-1] if series and series.steps else 0
        return self.last_step.step if self.last_step else 0

    def best(self, name: str) -> tuple[int, float] | None:
        """Step and value of the best point of a metric, the last one where several are equal."""
        series = self.series.get(name)
        if series is None:
            return None
        best: tuple[int, float] | None = None
        for step, value in zip(series.steps, series.values, strict=True):
            if value is not None and (best is None or value >= best[1]):
                best = step, value
        return best

    # ---------------------------------------------------------------------------------------------- feeding

    def feed(self, message: ToClient) -> None:
        """Take in one message of the engine."""
        self.last_beat = self.clock()
        self.restarting = False
        match message:
            case Snapshot():
                self._load(message)
            case Delta(events=events):
                for event in events:
                    self._event(event)
            case Beat(status=status):
                self._set_status(status)
            case Growing():
                self.growing = message
                self.version["growing"] += 1
            case Complaint(text=text):
                self.complaint = text
                self.version["link"] += 1
            case _:
                pass

    def show_moment(self, snapshot: Snapshot, series: dict[str, Series]) -> None:
        """Show a moment of a recorded session.

        :param series: instead of the snapshot's.
        """
        self._load(snapshot)
        self.series = series

    def connected(self, state: Connection) -> None:
        """The link says how it stands; anything but ``live`` after a failure counts as one more attempt."""
        self.attempts = 0 if state in ("live", "ended", "replay", "file") else self.attempts + 1
        self.connection = state
        if state == "live":
            self.last_beat = self.clock()  # who has just answered has not been silent
            self.exit, self.log_tail, self.complaint = None, [], ""
        self.version["link"] += 1
        self.version["status"] += 1

    def ended(self, cause: ExitInfo | None, log_tail: list[str]) -> None:
        """The engine has gone for good."""
        self.restarting = False
        self.exit, self.log_tail = cause, log_tail
        self.growing = None
        self.version["growing"] += 1
        self.connected("ended")

    def _load(self, snapshot: Snapshot) -> None:
        self.task = snapshot.task
        self.values, self.start_values = dict(snapshot.values), dict(snapshot.start_values)
        self.series = {}
        for data in snapshot.series:
            self._series(data.name).load(data)
        self.heads = {head_key(head): head for head in snapshot.heads[-HEADS:]}
        self.ratings = {rating.id: rating for rating in snapshot.ratings[-RATINGS:]}
        self.uses = {use.rating: use for use in snapshot.uses}
        self.changes = {change.id: change for change in snapshot.changes[-SMALL:]}
        self.alarms = {alarm.id: alarm for alarm in snapshot.alarms[-SMALL:]}
        self.checkpoints = deque(snapshot.checkpoints, maxlen=SMALL)
        events = sorted(snapshot.events, key=lambda event: event.seq)
        self.events = deque((small(event) for event in events), maxlen=EVENTS)
        self.skips = standing_skips(events)
        before = (self.branches, self.branch)
        self.branches = {branch.name: branch for branch in snapshot.branches}
        self.last_step = snapshot.last_step
        self.growing = None
        for topic in TOPICS:
            if topic != "line":
                self.version[topic] += 1
        if before != (self.branches, snapshot.status.branch):
            self.version["line"] += 1
        self._set_status(snapshot.status)

    def _set_status(self, status: Status) -> None:
        self.status = status
        if not self.name:
            self.name = status.session
        self.version["status"] += 1
        if self.growing is not None and (status.phase != "sampling" or status.step != self.growing.step):
            self.growing = None
            self.version["growing"] += 1

    def _series(self, name: str) -> Series:
        if name not in self.series:
            self.series[name] = Series(name, SERIES_CAPACITY)
        return self.series[name]

    def _event(self, event: AnyEvent) -> None:
        self.events.append(small(event))
        self.version["events"] += 1
        match event:
            case StepDone(record=record):
                self._step(record)
            case Evaluated(step=step, metrics=metrics):
                for name, value in metrics.items():
                    self._series(name).append(step, value)
                self.version["series"] += 1
            case GroupsScored(heads=heads) | GroupsChanged(heads=heads):
                self._take_heads(heads)
            case RatingSaved(rating=rating):
                self._keep(self.ratings, rating.id, rating, RATINGS, "ratings")
            case Skipped(skip=skip) if skip.retracted:
                self.skips.pop(skip.id, None)
                self.version["heads"] += 1
            case Skipped(skip=skip):
                self._keep(self.skips, skip.id, skip, RATINGS, "heads")
            case RatingRetracted(rating=rating_id, time=when):
                if rating_id in self.ratings:
                    retracted = msgspec.structs.replace(self.ratings[rating_id], retracted=when)
                    self._keep(self.ratings, rating_id, retracted, RATINGS, "ratings")
            case RatingUsed(use=use):
                self._keep(self.uses, use.rating, use, RATINGS, "ratings")
            case Changed(change=change):
                if change.status == "applied":
                    self.values[change.name] = change.new
                    self.version["values"] += 1
                self._keep(self.changes, change.id, change, SMALL, "changes")
            case AlarmRaised(alarm=alarm):
                self._keep(self.alarms, alarm.id, alarm, SMALL, "alarms")
            case CheckpointSaved(checkpoint=checkpoint):
                self.checkpoints.append(checkpoint)
                self.version["checkpoints"] += 1
            case _:
                pass

    def _step(self, record: StepRecord) -> None:
        for name, value in record.metrics.items():
            self._series(name).append(record.step, value)
        self.version["series"] += 1
        if record.branch == WARM_UP:
            return
        self.last_step = record
        if record.values:
            self.values = {**self.values, **record.values}
            self.version["values"] += 1
        self.version["last_step"] += 1

    def _take_heads(self, heads: list[GroupHead]) -> None:
        for head in heads:
            key = head_key(head)
            # A group older than all that are kept has been forgotten here; putting it back would make it the newest.
            if key in self.heads or not self.heads or head.step >= next(reversed(self.heads.values())).step:
                self.heads[key] = head
        while len(self.heads) > HEADS:
            del self.heads[next(iter(self.heads))]
        self.version["heads"] += 1

    def _keep(self, table: dict[str, _T], key: str, value: _T, limit: int, topic: str) -> None:
        table[key] = value
        if len(table) > limit:
            del table[next(iter(table))]
        self.version[topic] += 1


def standing_skips(events: Iterable[AnyEvent]) -> dict[str, SkipRecord]:
    """The skips that events tell of and that were not taken back, by id.

    :param events: oldest first.
    """
    found: dict[str, SkipRecord] = {}
    for event in events:
        if isinstance(event, Skipped):
            found[event.skip.id] = event.skip
    return {name: skip for name, skip in found.items() if not skip.retracted}


def _whole(letters: set[str], head: GroupHead) -> bool:
    """Whether these skips, by letter or of the group, leave nothing to rate."""
    return "" in letters or len(letters) >= max(1, len(head.rewards))


def small(event: AnyEvent) -> AnyEvent:
    """The event without its bulk."""
    match event:
        case StepDone(record=record):
            slim = msgspec.structs.replace(record, advantages=[], values={}, trust_region=None)
            return msgspec.structs.replace(event, record=slim)
        case GroupsScored() | GroupsChanged():
            kind, text = describe(event)
            return Noted(time=event.time, step=event.step, seq=event.seq, kind=kind, text=text)
        case _:
            return event
