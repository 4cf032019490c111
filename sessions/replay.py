"""The client's face over a recorded session: what its engine would have said after any step. No model, no engine.

The moment of a step is the one at which its record was kept; the events that are numbered after it have not happened
yet. So ratings, changes and alarms stand as they stood then, and a group that was learned from again later shows what
it showed before. The moment of the last step is now: everything that was recorded as of opening.

Only reads, in short transactions, so it may stand beside a running engine.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

import msgspec

from sessions import commands as c
from sessions.branches import find_branch
from sessions.errors import EngineUnreachable, InvalidValue, SessionError, UnknownName, WorkbenchError
from sessions.folders import SessionFolder
from sessions.hyperparameters import Value
from sessions.metrics import WARM_UP_PREFIX
from sessions.past_evaluations import evaluation_view
from sessions.past_groups import PastGroups, Runs
from sessions.past_series import Past, at_step
from sessions.records import (
    WARM_UP,
    Alarm,
    Change,
    Checkpoint,
    ResponseName,
    State,
    Status,
    StepRecord,
    parse_response_name,
)
from sessions.rose import roses
from sessions.series import Series
from sessions.store import Store
from sessions.wire import AlarmRaised, AnyEvent, Changed, CheckpointSaved, Snapshot, encode_json

_T = TypeVar("_T")
HEADS, EVENTS, RATINGS, CHANGES, ALARMS = 200, 200, 500, 500, 200
"""The newest of each that a snapshot holds, as an engine's; the rest is asked for."""
BLOCK = 128
"""Events that are read at once."""
Marks = dict[str, list[int]]
"""What happened -> the steps at which: ``change``, ``alarm``, ``rating``, ``checkpoint``."""


class Replay:
    """One branch of a recorded session, as of any of its steps.

    :param branch: empty for the one that was active last.
    :ivar steps: those that were recorded, ascending; one step 0 if there is none yet.
    :ivar marks: what happened on the way.
    :raises SessionError: if there are no records, or they cannot be read.
    :raises UnknownName: if there is no such branch.
    """

    def __init__(self, folder: SessionFolder, branch: str = "") -> None:
        self.folder = folder
        if not folder.database.exists():
            raise SessionError(f"session {folder.name!r} has no records yet; `workbench run --name {folder.name}`")
        self._store = Store(folder.database, read_only=True)
        self._lock = threading.RLock()
        self._events: dict[int, list[AnyEvent]] = {}
        try:
            self._read(branch)
        except BaseException:
            self._store.close()
            raise

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._store.close()

    # ------------------------------------------------------------------------------------------- opening

    def _read(self, branch: str) -> None:
        store = self._store
        self._branches = [known for known in store.branches().values() if not known.deleted]
        known_names = [known.name for known in self._branches]
        if branch and branch not in known_names and not (branch == WARM_UP and store.step_times(WARM_UP)):
            raise UnknownName("branch", branch, known_names)
        self.branch = branch or store.active
        self._end = store.last_seq()
        numbers = store.ends_of_steps()
        ended = {(step, time): seq for seq, step, time in numbers}
        self.steps: list[int] = []
        self._seqs: list[int] = []
        self._times: list[float] = []
        for step, time in store.step_times(self.branch):
            seq = max(ended.get((step, time), 0), self._seqs[-1] if self._seqs else 0)
            if seq <= self._end:  # else an engine has kept it since
                self.steps.append(step)
                self._seqs.append(seq)
                self._times.append(time)
        if not self.steps:
            self.steps, self._seqs, self._times = [0], [0], [0.0]
        self._seqs[-1] = self._end
        runs = Runs(numbers, set(zip(self.steps, self._times, strict=True)), store.line(self.branch))
        started = store.meta("start_values")
        self.start_values: dict[str, Value] = msgspec.json.decode(started) if started else {}
        self._pasts = {name: Past(series) for name, series in store.series(self.branch).items()}
        # Events tell how they stood then, the tables which of them are of this line, and under which branch's name.
        changes = {change.id: change.branch for change in store.changes(self.branch, limit=-1)}
        alarms = {alarm.id: alarm.branch for alarm in store.alarms(self.branch, limit=-1)}
        self._changes: list[tuple[int, Change]] = []
        self._alarms: list[tuple[int, Alarm]] = []
        self._checkpoints: list[tuple[int, Checkpoint]] = []
        self._saved = store.checkpoints(self.branch)
        events = [e for e in store.events_of(("rating", "change", "alarm", "checkpoint")) if e.seq <= self._end]
        for event in events:
            match event:
                case Changed(seq=seq, change=change) if change.id in changes:
                    self._changes.append((seq, msgspec.structs.replace(change, branch=changes[change.id])))
                case AlarmRaised(seq=seq, alarm=alarm) if alarm.id in alarms:
                    self._alarms.append((seq, msgspec.structs.replace(alarm, branch=alarms[alarm.id])))
                case CheckpointSaved(seq=seq, checkpoint=point) if owner := runs.owner_before(seq, point.step):
                    self._checkpoints.append((seq, msgspec.structs.replace(point, branch=owner)))
                case _:
                    pass  # of ratings, or another line's
        self._groups = PastGroups(store, self.branch, events, runs)
        try:
            self._wanted_steps = self.folder.settings().steps
        except WorkbenchError:
            self._wanted_steps = 0
        self.marks = self._marks()

    def _marks(self) -> Marks:
        changes = [change.applied_step for _, change in self._changes if change.status == "applied"]
        given = [self.steps[self._place_of(seq)] for seq in self._groups.when_rated()]
        found = {
            "change": changes,
            "alarm": [alarm.step for _, alarm in self._alarms],
            "rating": given,
            "checkpoint": [point.step for point in self._saved],
        }
        first, last = self.steps[0], self.steps[-1]
        return {kind: sorted({step for step in steps if first <= step <= last}) for kind, steps in found.items()}

    # ------------------------------------------------------------------------------------------- moments

    def nearest(self, step: int) -> int:
        """The recorded step at or before ``step``; the first one before all."""
        return self.steps[self._place(step)]

    def _place(self, step: int) -> int:
        return max(0, bisect.bisect_right(self.steps, step) - 1)

    def _place_of(self, seq: int) -> int:
        """The first moment at which an event has happened."""
        return min(bisect.bisect_left(self._seqs, seq), len(self._seqs) - 1)

    def moment(self, step: int, state: State = "RUN") -> tuple[Snapshot, dict[str, Series]]:
        """The snapshot of a step without its series, and those, whose points are made when they are looked at."""
        with self._lock:
            return self._snapshot(self._place(step), state), self._series(self._place(step))

    def snapshot(self, step: int | None = None) -> Snapshot:
        """What a client needs to draw any screen, as of a step; of the last one if none is given."""
        with self._lock:
            place = len(self.steps) - 1 if step is None else self._place(step)
            snapshot = self._snapshot(place)
            return msgspec.structs.replace(snapshot, series=[s.data(2000) for s in self._whole(place, self._pasts)])

    def _series(self, place: int) -> dict[str, Series]:
        return at_step(self._pasts, self.steps[place], "" if self.branch == WARM_UP else WARM_UP_PREFIX)

    def _whole(self, place: int, names: Collection[str]) -> Iterator[Series]:
        """Some metrics as of a moment with all their points."""
        for name in self._series(place):
            if name not in names:
                continue
            whole = self._pasts[name].whole
            if name.startswith(WARM_UP_PREFIX) and self.branch != WARM_UP:
                yield whole
            else:
                cut = Series(name)
                count = bisect.bisect_right(whole.steps, self.steps[place])
                cut.steps, cut.values = whole.steps[:count], whole.values[:count]
                yield cut

    def _snapshot(self, place: int, state: State = "RUN") -> Snapshot:
        seq, step = self._seqs[place], self.steps[place]
        record = self._store.step(self.branch, step)
        ratings = self._groups.ratings(seq, RATINGS)
        now = place == len(self.steps) - 1
        saved = self._saved if now else self._upto(self._checkpoints, seq)
        checkpoints = {point.step: point for point in saved}
        values = dict(record.values) if record and record.values else dict(self.start_values)
        return Snapshot(
            seq=seq,
            status=self._status(place, record, values, list(checkpoints.values()), state),
            values=values,
            start_values=self.start_values,
            heads=list(reversed(self._groups.heads(seq, self._before(place), HEADS))),
            ratings=ratings,
            uses=self._groups.uses(ratings, seq),
            changes=list({change.id: change for change in self._upto(self._changes, seq)}.values())[-CHANGES:],
            alarms=list({alarm.id: alarm for alarm in self._upto(self._alarms, seq)}.values())[-ALARMS:],
            checkpoints=list(checkpoints.values()),
            events=self._newest_events(seq, EVENTS),
            last_step=None if self.branch == WARM_UP else record,
            branches=[b for b in self._branches if now or b.time <= self._times[place] or not b.parent],
        )

    def _upto(self, rows: Sequence[tuple[int, _T]], seq: int) -> list[_T]:
        return [value for _, value in rows[: bisect.bisect_right(rows, seq, key=lambda row: row[0])]]

    def _before(self, place: int) -> int:
        """Groups of earlier steps than this one were there; 0: all of them, an unfinished step's too."""
        return 0 if place == len(self.steps) - 1 else self.steps[place] + 1

    def _status(
        self,
        place: int,
        record: StepRecord | None,
        values: dict[str, Value],
        checkpoints: Sequence[Checkpoint],
        state: State,
    ) -> Status:
        step = self.steps[place]
        saved = checkpoints[-1] if checkpoints else None
        return Status(
            time=self._times[place],
            session=self.folder.name,
            branch=self.branch,
            state=state,
            phase="idle",
            algorithm=str(values.get("algorithm", "")),
            step=step,
            finished_steps=step,
            steps=self._wanted_steps,
            elapsed=self._times[place] - self._times[0],
            tokens_per_second=record.metrics.get("speed/tokens_per_second") if record else None,
            checkpoint_step=saved.step if saved else 0,
            checkpoint_time=saved.time if saved else 0.0,
        )

    def _newest_events(self, seq: int, limit: int) -> list[AnyEvent]:
        """The newest events up to a number, oldest first, from blocks that are read once."""
        found: list[AnyEvent] = []
        block = seq // BLOCK
        while block >= 0 and len(found) < limit:
            if block not in self._events:
                read = self._store.events((block + 1) * BLOCK, BLOCK)
                self._events[block] = [e for e in reversed(read) if block * BLOCK <= e.seq <= self._end]
                if len(self._events) > 64:
                    del self._events[next(iter(self._events))]
            found = [e for e in self._events[block] if e.seq <= seq] + found
            block -= 1
        return found[-limit:]

    # ------------------------------------------------------------------------------------------- queries

    def answer(self, query: c.Command, step: int | None = None) -> str:
        """The data, as JSON, that an engine would have answered a query with at a step; the last one if none is given.

        :raises EngineUnreachable: if only an engine can do what is asked.
        :raises InvalidValue: if nothing of that name was recorded, or not yet.
        """
        with self._lock:
            return self._answer(query, len(self.steps) - 1 if step is None else self._place(step))

    def _answer(self, query: c.Command, place: int) -> str:
        seq, before, step = self._seqs[place], self._before(place), self.steps[place]
        match query:
            case c.QueryBranches():
                return encode_json(self._store.branch_infos())
            case c.QueryProbes(branch=wanted):
                find_branch(wanted, self._store.branches())
                return encode_json(self._store.probes(wanted))
            case c.QuerySeries(names=names, first=first, last=last, limit=limit, branch=wanted) if wanted not in (
                "",
                self.branch,
            ):
                find_branch(wanted, self._store.branches())
                others = self._store.series(wanted)
                return encode_json([others[n].window(first, last, limit) for n in names if n in others])
            case c.QuerySeries(names=names, first=first, last=last, limit=limit):
                series = {s.name: s for s in self._whole(place, names)}
                return encode_json([series[n].window(first, last, limit) for n in names if n in series])
            case c.QueryGroups(before=asked, limit=limit, unrated=unrated):
                upto = min(asked or before, before or asked)
                return encode_json(self._groups.heads(seq, upto, min(limit, 5000), unrated=unrated))
            case c.QueryGroup(group=text):
                name = parse_response_name(text)
                self._check_not_later(name, before, step)
                return encode_json(self._groups.detail(name, seq))
            case c.QueryResponse(response=text):
                name = parse_response_name(text)
                self._check_not_later(name, before, step)
                for response in self._groups.detail(name, seq).group.responses:
                    if response.letter == name.letter:
                        return encode_json(response)
                raise InvalidValue(f"no response {text}")
            case c.QueryRose(step=since, limit=limit):
                groups, limit = self._groups, min(max(limit, 1), 200)
                return encode_json(
                    roses(
                        self._store, self.branch, since, limit, before=before, rated=lambda g: groups.shown(g, seq)
                    )
                )  # fmt: skip
            case c.QueryEvaluation(step=wanted, earlier=earlier):
                upto = before - 1 if before else -1
                if upto >= 0 and wanted > upto:
                    raise InvalidValue(f"step {wanted} is not there yet at step {step}")
                return encode_json(evaluation_view(self._store, self.branch, wanted, earlier, upto))
            case c.QueryEvents(before=asked, limit=limit):
                upto = min(asked or seq + 1, seq + 1)
                return encode_json(self._store.events(upto, limit))
            case c.QueryStatus():
                return encode_json(self._snapshot(place).status)
            case _:
                raise EngineUnreachable("there is no engine; only what was recorded can be shown")

    def _check_not_later(self, name: ResponseName, before: int, now: int) -> None:
        if before and name.step >= before and name.branch in ("", self.branch):
            raise InvalidValue(f"there is no {name} yet at step {now}")
