"""One SQLite file a session: every step, group, response, rating, change, alarm and event, for ever.

Used from one thread (the engine's writer). Two connections: one with synchronous NORMAL for what the engine can
compute again, one with FULL for what a person said; :meth:`Store.add_rating` returns only when it is on disk.
Token arrays are kept for the newest steps and for rated responses; scalars and text for ever.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from sessions import branch_rows, pages, private, schema, wire
from sessions.branches import END, Branch, BranchInfo, Dropped, Probe, Segment, aside_name, owner_of
from sessions.database import Transaction, connect, keep_log
from sessions.errors import InvalidValue, SessionError
from sessions.evaluations import HeldOut
from sessions.group_rows import pack_body, pack_measured, pack_sampled, unpack
from sessions.judging import standing
from sessions.lineage import Lineage
from sessions.modes import MODES
from sessions.orderings import Ordering, ordering_id
from sessions.prompt_rows import PromptIndex
from sessions.records import (
    MAIN,
    WARM_UP,
    Alarm,
    Change,
    Checkpoint,
    Group,
    GroupHead,
    Rating,
    RatingUse,
    ResponseName,
    SeriesData,
    SkipRecord,
    StepRecord,
    head_of,
)
from sessions.series import Series

_json = msgspec.json


class _Measured(msgspec.Struct):
    """What a series needs of a step."""

    step: int
    metrics: dict[str, float | None]


_measured = _json.Decoder(_Measured)


class Store:
    """One session's database.

    :param path: of ``session.db``; made if it is missing.
    :param read_only: open an existing one for reading only, as the session list does.
    :raises SessionError: if the file is not a session's database, or of a newer version.
    :ivar prompts: when each prompt was asked.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._open: list[sqlite3.Connection] = []
        try:
            if read_only:
                with contextlib.suppress(FileNotFoundError):  # SQLite says so
                    private.own_file(path)
                self._db = self._strict = self._connect(f"{path.absolute().as_uri()}?mode=ro")
            else:
                self._db = self._connect(path)
                self._create()
                self._strict = self._connect(path)
                keep_log(self._db, "NORMAL")
                keep_log(self._strict, "FULL")
            self.database_id = self.meta("database_id") or ""
            self._bring_up(int(self.meta("schema") or 0), read_only=read_only)
            self._lineage = Lineage(self._db)
            self.prompts = PromptIndex(self._db)
            self._settled: dict[str, int] = {}
            self._settled_in = 0
        except sqlite3.Error as error:
            self.close()
            raise SessionError(f"{path}: not a session's database ({error})") from None
        except SessionError:
            self.close()
            raise

    def _connect(self, path: Path | str) -> sqlite3.Connection:
        db = connect(path)
        self._open.append(db)
        return db

    def _create(self) -> None:
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if "meta" in tables:
            return
        if tables:
            raise SessionError(f"{self.path}: not a session's database (it holds {', '.join(sorted(tables)[:3])})")
        schema.create(self._db)

    def _bring_up(self, version: int, *, read_only: bool) -> None:
        """Read and write a database of an earlier version as one of this."""
        if version > schema.SCHEMA_VERSION:
            raise SessionError(f"{self.path}: written by a newer workbench (schema {version}); upgrade rl-workbench")
        if version == schema.SCHEMA_VERSION:
            return
        if read_only:
            schema.show_as_present(self._db, version)
            return
        try:
            schema.upgrade(self._db, version)
        except sqlite3.Error as error:
            raise SessionError(
                f"{self.path}: could not be brought from schema {version} to {schema.SCHEMA_VERSION} and is as it was "
                f"({error}); free some disk and try again"
            ) from None

    def close(self) -> None:
        """Close the file; the log is folded into it."""
        for db in reversed(self._open):
            db.close()

    # ------------------------------------------------------------------------------------------------ meta

    def meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return row[0] if row else None

    def set_meta(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # ---------------------------------------------------------------------------------------------- events

    def add_event(self, event: wire.AnyEvent, db: sqlite3.Connection | None = None) -> wire.AnyEvent:
        """Number an event and keep it; the body of a step is kept once, in the table of steps."""
        kind, _ = wire.describe(event)
        body = "" if isinstance(event, wire.StepDone) else wire.encode_event(event)
        cursor = (db or self._db).execute(
            "INSERT INTO events (time, step, kind, body) VALUES (?, ?, ?, ?)",
            (event.time, event.step, kind, body),
        )
        return msgspec.structs.replace(event, seq=cursor.lastrowid or 0)

    def last_seq(self) -> int:
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name='events'").fetchone()
        return row[0] if row else 0

    def events(self, before: int = 0, limit: int = 200) -> list[wire.AnyEvent]:
        """Events, newest first, before ``before`` (0: from the newest)."""
        rows = self._db.execute(
            "SELECT seq, time, step, body FROM events WHERE seq < ? ORDER BY seq DESC LIMIT ?",
            (before or 2**62, min(limit, 5000)),
        ).fetchall()
        return [self._event(*row) for row in rows]

    def events_of(self, kinds: Sequence[str]) -> list[wire.AnyEvent]:
        """Every event of some kinds (:func:`~sessions.wire.describe`) other than steps, oldest first."""
        rows = self._db.execute(
            f"SELECT seq, time, step, body FROM events WHERE kind IN ({','.join('?' * len(kinds))}) AND body<>'' "
            "ORDER BY seq",
            tuple(kinds),
        ).fetchall()
        return [self._event(*row) for row in rows]

    def ends_of_steps(self) -> list[tuple[int, int, float]]:
        """(number of its event, step, time) of every step that ended, on whatever branch, oldest first."""
        return self._db.execute("SELECT seq, step, time FROM events WHERE body='' ORDER BY seq").fetchall()

    def _event(self, seq: int, when: float, step: int, body: str) -> wire.AnyEvent:
        if body:
            return msgspec.structs.replace(wire.decode_event(body), seq=seq)
        row = self._db.execute("SELECT body FROM steps WHERE step=? AND time=?", (step, when)).fetchone()
        if row is None:
            row = self._db.execute(
                "SELECT body FROM steps WHERE step=? AND branch<>? ORDER BY time LIMIT 1", (step, WARM_UP)
            ).fetchone()
        if row is None:
            return wire.Noted(time=when, step=step, seq=seq, kind="step", text=f"step {step} done")
        return wire.StepDone(time=when, step=step, seq=seq, record=_json.decode(row[0], type=StepRecord))

    # ----------------------------------------------------------------------------------------------- steps

    def add_step(self, record: StepRecord, groups: Iterable[Group], keep_token_steps: int) -> wire.AnyEvent:
        """Commit a step: its metrics, and what its update did to the groups it learned from, late ones too."""
        # JSON has no NaN: it would come back as null, and the record could not be read again.
        record = msgspec.structs.replace(record, advantages=[a for a in record.advantages if math.isfinite(a)])
        with Transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?)",
                (record.branch, record.step, record.time, _json.encode(record), record.metrics.get(schema.ACCURACY)),
            )
            self._update_groups(list(groups))
            self._drop_old_tokens(record.branch, record.step - keep_token_steps)
            return self.add_event(wire.StepDone(time=record.time, step=record.step, record=record))

    def _drop_old_tokens(self, branch: str, step: int) -> None:
        """Forget the token arrays of one step that has become old, except where a person rated."""
        if step < 1:
            return
        self._db.execute(
            "UPDATE groups SET sampled=NULL, measured=NULL WHERE branch=? AND step=? "
            "AND NOT EXISTS (SELECT 1 FROM ratings r "
            "WHERE r.branch=groups.branch AND r.step=groups.step AND r.number=groups.number)",
            (branch, step),
        )

    def steps(self, branch: str, after: int = -1) -> list[StepRecord]:
        """The steps of a branch's line that come after ``after``, in order."""
        return [
            msgspec.structs.replace(_json.decode(body, type=StepRecord), branch=name)
            for name, body in self._step_rows(branch, after)
        ]

    def _step_rows(self, branch: str, after: int = -1) -> Iterator[tuple[str, bytes]]:
        """Owner and body of a line's steps, in order."""
        for segment in self.line(branch):
            rows = self._db.execute(
                "SELECT body FROM steps WHERE branch=? AND step>? AND step<=? ORDER BY step",
                (segment.branch, max(segment.after, after), segment.last),
            )
            for (body,) in rows:
                yield segment.branch, body

    def step(self, branch: str, step: int) -> StepRecord | None:
        """One step of a branch's line."""
        name = owner_of(self.line(branch), step)
        row = self._db.execute("SELECT body FROM steps WHERE branch=? AND step=?", (name, step)).fetchone()
        return msgspec.structs.replace(_json.decode(row[0], type=StepRecord), branch=name) if row else None

    def saved_accuracies(self) -> dict[tuple[str, int], float]:
        """(branch, step) -> the held-out accuracy measured after it, where it was and there is a checkpoint."""
        return branch_rows.saved_accuracies(self._db)

    def step_times(self, branch: str) -> list[tuple[int, float]]:
        """(step, when it ended) of every step of a branch's line, in order."""
        found: list[tuple[int, float]] = []
        for segment in self.line(branch):
            found += self._db.execute(
                "SELECT step, time FROM steps WHERE branch=? AND step>? AND step<=? ORDER BY step", tuple(segment)
            )
        return found

    def last_step(self, branch: str) -> StepRecord | None:
        """The newest step of a branch's line."""
        for segment in reversed(self.line(branch)):
            row = self._db.execute(
                "SELECT body FROM steps WHERE branch=? AND step>? AND step<=? ORDER BY step DESC LIMIT 1",
                tuple(segment),
            ).fetchone()
            if row:
                return msgspec.structs.replace(_json.decode(row[0], type=StepRecord), branch=segment.branch)
        return None

    def series(self, branch: str) -> dict[str, Series]:
        """Every metric of a branch over the steps of its line; those of the warm-up before it are over its own."""
        points: dict[str, tuple[list[int], list[float | None]]] = {}
        for part in dict.fromkeys((WARM_UP, branch)):
            for _, body in self._step_rows(part):
                record = _measured.decode(body)
                for name, value in record.metrics.items():
                    found = points.get(name)
                    if found is None:
                        found = points[name] = ([], [])
                    found[0].append(record.step)
                    found[1].append(value)
        series = {name: Series(name) for name in points}
        for name, (steps, values) in points.items():
            series[name].load(SeriesData(name=name, steps=steps, values=values))
        return series

    def series_data(self, branch: str, limit: int = 2000) -> list[SeriesData]:
        return [s.data(limit) for s in self.series(branch).values()]

    # -------------------------------------------------------------------------------------------- branches

    @property
    def active(self) -> str:
        """The branch that the session trains."""
        return branch_rows.active_branch(self._db)

    def branches(self) -> dict[str, Branch]:
        """Every branch by name, deleted ones too."""
        return self._lineage.branches()

    def branch_infos(self) -> list[BranchInfo]:
        """Every branch that is not deleted, and what became of it."""
        return branch_rows.branch_infos(self._db, self.active)

    def line(self, branch: str) -> list[Segment]:
        """The segments of a branch's line, oldest first."""
        return self._lineage.line(branch)

    @contextlib.contextmanager
    def _changing_branches(self) -> Iterator[None]:
        """A transaction in which branches change."""
        try:
            with Transaction(self._db):
                yield
        finally:
            self._lineage.changed()

    def set_aside(self, branch: str, after: int, why: str, *, name: str = "") -> tuple[str, int]:
        """Move the steps after ``after`` to a branch of their own; their records and ratings go along.

        :param name: of that branch; empty: the first that is free.
        :returns: its name, and how many steps moved.
        """
        with self._changing_branches():
            known = self.branches()
            parent = "" if branch == WARM_UP else branch
            name = name or aside_name(branch, known)
            to = Branch(name=name, parent=parent, step=after, time=time.time(), why=why, abandoned=True)
            return name, branch_rows.move_steps(self._db, branch, after, to)

    def rewind(self, branch: str, step: int, why: str) -> tuple[str, int]:
        """Let a branch end at a step of its line; what came after it moves to a branch of its own.

        :returns: that branch's name, empty where nothing came after, and how many steps moved.
        """
        with self._changing_branches():
            return branch_rows.rewind(self._db, branch, step, why)

    def end_race(self, home: str) -> None:
        """There is no race any more, and ``home`` is trained."""
        with Transaction(self._db):
            self._db.execute("DELETE FROM meta WHERE key='race'")
            self.set_meta("branch", home)

    def add_branch(self, branch: Branch, changes: Iterable[Change] = (), meta: Mapping[str, str] = {}) -> None:
        """Keep a new branch, make it the one that is trained, and keep what is to change at its start; or nothing.

        :param meta: kept with it.
        """
        with self._changing_branches():
            branch_rows.put_branch(self._db, branch)
            self.set_meta("branch", branch.name)
            for key, value in meta.items():
                self.set_meta(key, value)
            for change in changes:
                self._put_change(change)

    def put_branch(self, branch: Branch) -> None:
        """Keep a branch as it is now."""
        with self._changing_branches():
            branch_rows.put_branch(self._db, branch)

    def use_branch(self, name: str) -> None:
        """Train that one from here on."""
        self.set_meta("branch", name)

    def rename_branch(self, old: str, new: str) -> None:
        """Give a branch another name, everywhere."""
        with self._changing_branches():
            branch_rows.rename(self._db, old, new)
            if self.active == old:
                self.set_meta("branch", new)

    def delete_branch(self, name: str) -> list[Checkpoint]:
        """Forget what a branch learned; what people rated on it is kept.

        :returns: the checkpoints whose folders belong to nobody now.
        """
        saved = self.checkpoints_of(name)
        with self._changing_branches():
            branch_rows.forget(self._db, name)
        return saved

    def add_probes(self, probes: Iterable[Probe]) -> None:
        """Keep what a branch answered to the probe prompts, with the step that it was: as an evaluation is."""
        owned = [msgspec.structs.replace(p, branch=owner_of(self.line(p.branch), p.step)) for p in probes]
        with Transaction(self._db):
            branch_rows.put_probes(self._db, owned)

    def probes(self, branch: str) -> list[Probe]:
        """The newest answers of a branch's line to the probe prompts."""
        return branch_rows.newest_probes(self._db, self.line(branch))

    def add_held_out(self, evaluation: HeldOut, *, measured: bool = False) -> wire.AnyEvent:
        """Keep an evaluation, with the step that it is of: that where a branch begins is another's.

        :param measured: whether its figures are to be added to those of its step, which is on record.
        """
        owner = owner_of(self.line(evaluation.branch), evaluation.step)
        with Transaction(self._db):
            kept = msgspec.structs.replace(evaluation, branch=owner)
            branch_rows.put_held_out(self._db, kept)
            if measured:
                self._measure(kept)
            said = wire.Evaluated(
                time=evaluation.time, step=evaluation.step, branch=evaluation.branch, who=evaluation.who,
                metrics=dict(evaluation.metrics), prompts=len(evaluation.answers),
            )  # fmt: skip
            return self.add_event(said)

    def _measure(self, evaluation: HeldOut) -> None:
        at = (evaluation.branch, evaluation.step)
        row = self._db.execute("SELECT body FROM steps WHERE branch=? AND step=?", at).fetchone()
        if row is None:
            return
        record = _json.decode(row[0], type=StepRecord)
        record.metrics |= evaluation.metrics
        self._db.execute(
            "UPDATE steps SET body=?, accuracy=? WHERE branch=? AND step=?",
            (_json.encode(record), record.metrics.get(schema.ACCURACY), *at),
        )

    def held_out(self, branch: str, step: int) -> HeldOut | None:
        """The evaluation of a step of a branch's line; None: there was none."""
        return branch_rows.held_out(self._db, self.line(branch), step)

    def each_held_out(self, part: Segment) -> Iterator[HeldOut]:
        """The evaluations of a part of a line, one in memory at a time."""
        for step in branch_rows.held_out_steps(self._db, [part]):
            found = branch_rows.held_out(self._db, [part], step)
            if found is not None:
                yield found

    def held_out_steps(self, branch: str) -> list[int]:
        """Steps of a branch's line that were evaluated, in order."""
        return branch_rows.held_out_steps(self._db, self.line(branch))

    # ---------------------------------------------------------------------------------------------- groups

    def add_groups(self, groups: Iterable[Group]) -> None:
        """Commit scored groups: from here on they can be rated."""
        rows = [
            (g.branch, g.step, g.number, g.status, pack_body(g), pack_sampled(g.responses), pack_measured(g.responses))
            for g in groups
        ]
        with Transaction(self._db):
            self._db.executemany("INSERT OR REPLACE INTO groups VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def _update_groups(self, groups: Sequence[Group]) -> None:
        """Keep what an update did to groups; what sampling made of them stays."""
        measured: dict[tuple[str, int, int], bytes] = {}
        for branch, step in {(g.branch, g.step) for g in groups}:
            found = self._db.execute(
                "SELECT number, measured FROM groups WHERE branch=? AND step=? AND measured NOT NULL", (branch, step)
            )
            measured |= {(branch, step, number): blob for number, blob in found}
        names = [(g.branch, g.step, g.number) for g in groups]
        self._db.executemany(
            "UPDATE groups SET status=?, body=?, measured=? WHERE branch=? AND step=? AND number=?",
            [
                (g.status, pack_body(g), pack_measured(g.responses, measured.get(name)), *name)
                for g, name in zip(groups, names, strict=True)
            ],
        )

    def set_group_status(self, branch: str, step: int, status: str) -> None:
        """Mark the groups of a step that are still waiting for their update."""
        self._db.execute(
            "UPDATE groups SET status=? WHERE branch=? AND step=? AND status='scored'", (status, branch, step)
        )

    def drop_try(self, branch: str, dropped: Dropped) -> None:
        """Discard the groups of the step in progress, and keep what its tries have used up."""
        with Transaction(self._db):
            self.set_group_status(branch, dropped.step, "discarded")
            branch_rows.put_dropped(self._db, branch, dropped)

    def dropped(self, branch: str, step: int) -> Dropped:
        """What dropped tries at the step in progress have used up."""
        known = branch_rows.read_dropped(self._db, branch)
        if known is not None and known.step == step:
            return known
        # an earlier version kept only their groups; the last one of a try is none whose place another took
        row = self._db.execute(
            "SELECT max(number) FROM groups WHERE branch=? AND step=? AND status='discarded'", (branch, step)
        ).fetchone()
        return Dropped(step=step, prompts=row[0] or 0)

    def group(self, name: ResponseName, branch: str, *, tokens: bool = True) -> Group:
        """A group, whole, or without what is kept for each token.

        :param branch: whose line has it, unless the name says so.
        :raises InvalidValue: if there is none of that name.
        """
        branch = self.owner(name, branch)
        row = self._db.execute(
            f"SELECT status, body{', sampled, measured' if tokens else ''} FROM groups "
            "WHERE branch=? AND step=? AND number=?",
            (branch, name.step, name.group),
        ).fetchone()
        if row is None:
            raise InvalidValue(f"no group {name.step}.{name.group} on branch {branch}")
        return unpack(branch, name.step, name.group, *row)

    def heads(
        self, branch: str, before: int = 0, limit: int = 200, *, unrated: bool = False, after: int = -1
    ) -> list[GroupHead]:
        """Heads of groups, newest step first, in the order of their numbers within a step reversed.

        :param before: only of earlier steps than this one; 0: of all.
        :param after: only of later steps than this one.
        """
        clause = (
            "AND NOT EXISTS (SELECT 1 FROM ratings r WHERE r.branch=g.branch AND r.step=g.step "
            "AND r.number=g.number AND r.retracted=0)"
            if unrated
            else ""
        )
        return self.heads_of(self._newest_groups(branch, before, min(limit, 5000), after, clause))

    def newest_groups(self, branch: str, before: int = 0, limit: int = 200) -> list[Group]:
        """The newest groups of a line that were not discarded, as :meth:`heads` orders them; without their tokens.

        :param before: only of earlier steps than this one; 0: of all.
        """
        return self._newest_groups(branch, before, limit, -1, "AND status!='discarded'")

    def _newest_groups(self, branch: str, before: int, limit: int, after: int, clause: str) -> list[Group]:
        last = before - 1 if before else END
        found: list[Group] = []
        for segment in reversed(self.line(branch)):
            rows = self._db.execute(
                f"SELECT step, number, status, body FROM groups g WHERE branch=? AND step>? AND step<=? {clause} "
                "ORDER BY step DESC, number DESC LIMIT ?",
                # One bound on either side: SQLite searches by one and goes through the rest row by row.
                (segment.branch, max(segment.after, after), min(segment.last, last), limit - len(found)),
            )
            found += [unpack(segment.branch, step, number, status, body) for step, number, status, body in rows]
            if len(found) >= limit:
                break
        return found

    def groups_of_prompt(self, branch: str, prompt: str, last: int, limit: int) -> list[Group]:
        """The newest groups of a line that asked a prompt by a step, the newest first; without their tokens."""
        return self.prompts.groups(self.line(branch), prompt, last, limit)

    def mean_rewards(self, branch: str, last: int, limit: int) -> list[float]:
        """The mean automatic reward of a line's newest steps up to one, the newest first, where it was measured."""
        found: list[float] = []
        for segment in reversed(self.line(branch)):
            rows = self._db.execute(
                "SELECT body FROM steps WHERE branch=? AND step>? AND step<=? ORDER BY step DESC LIMIT ?",
                (segment.branch, segment.after, min(segment.last, last), limit - len(found)),
            )
            means = [_measured.decode(body).metrics.get("reward/automatic") for (body,) in rows]
            found += [mean for mean in means if mean is not None]
        return found[:limit]

    def owner(self, name: ResponseName, branch: str) -> str:
        """The branch that a group belongs to.

        :param branch: whose line has it, unless the name says so.
        """
        return owner_of(self.line(name.branch or branch), name.step)

    def unlearned(self, branch: str, step: int) -> list[Group]:
        """The scored groups of a step of a branch that no update has learned from, in the order of their numbers."""
        return self.groups_with(branch, step, "scored")

    def groups_with(self, branch: str, step: int, status: str, first: int = 0) -> list[Group]:
        """The groups of a step of a branch that have a status, in the order of their numbers, from ``first`` on."""
        rows = self._db.execute(
            "SELECT number, status, body, sampled, measured FROM groups "
            "WHERE branch=? AND step=? AND status=? AND number>=? ORDER BY number",
            (branch, step, status, first),
        )
        return [unpack(branch, step, *row) for row in rows]

    def heads_of(self, groups: Iterable[Group]) -> list[GroupHead]:
        """The heads of groups in hand, with their standing ratings."""
        rated: dict[tuple[str, int], dict[int, list[Rating]]] = {}
        heads = []
        for group in groups:
            at = (group.branch, group.step)
            if at not in rated:
                rated[at] = self.standing_of_step(*at)
            heads.append(head_of(group, _shown(rated[at].get(group.number, ()))))
        return heads

    def head(self, name: ResponseName, branch: str) -> GroupHead:
        """The head of one group, with its standing ratings."""
        return self.heads_of([self.group(name, branch, tokens=False)])[0]

    # --------------------------------------------------------------------------------------------- ratings

    def add_rating(self, rating: Rating) -> wire.AnyEvent:
        """Commit a rating; on disk when this returns."""
        with Transaction(self._strict):
            self._strict.execute(
                "INSERT OR IGNORE INTO ratings (id, branch, step, number, time, body) VALUES (?, ?, ?, ?, ?, ?)",
                (rating.id, rating.branch, rating.step, rating.group, rating.time, _json.encode(rating)),
            )
            event = wire.RatingSaved(time=rating.time, step=rating.step, rating=rating)
            return self.add_event(event, self._strict)

    def retract(self, rating_id: str, who: str, when: float) -> wire.AnyEvent:
        """Take a rating or a skip back; on disk when this returns.

        :raises InvalidValue: if there is no such rating, or it was taken back before.
        """
        row = self._db.execute("SELECT retracted, step, body FROM ratings WHERE id=?", (rating_id,)).fetchone()
        if row is None:
            return self._retract_skip(rating_id, when)
        if row[0]:
            raise InvalidValue(f"rating {rating_id[:8]} was taken back before")
        use = self.rating_use(rating_id)
        with Transaction(self._strict):
            self._strict.execute("UPDATE ratings SET retracted=? WHERE id=?", (when, rating_id))
            of = _json.decode(row[2], type=Rating).who
            event = wire.RatingRetracted(
                time=when, step=row[1], rating=rating_id, who=who, of=of, used_in=use.step if use else 0
            )
            return self.add_event(event, self._strict)

    def add_skip(self, skip: SkipRecord) -> wire.AnyEvent:
        """Commit that somebody chose not to rate."""
        with Transaction(self._strict):
            self._strict.execute(
                "INSERT OR IGNORE INTO skips VALUES (?, ?, ?, ?, ?, ?)",
                (skip.id, skip.branch, skip.step, skip.group, skip.time, _json.encode(skip)),
            )
            return self.add_event(wire.Skipped(time=skip.time, step=skip.step, skip=skip), self._strict)

    def _retract_skip(self, skip_id: str, when: float) -> wire.AnyEvent:
        row = self._db.execute("SELECT branch, body FROM skips WHERE id=?", (skip_id,)).fetchone()
        if row is None:
            raise InvalidValue(f"no rating with the id {skip_id!r}")
        skip = msgspec.structs.replace(_json.decode(row[1], type=SkipRecord), branch=row[0])
        if skip.retracted:
            raise InvalidValue(f"skip {skip_id[:8]} was taken back before")
        skip.retracted = when
        with Transaction(self._strict):
            self._strict.execute("UPDATE skips SET body=? WHERE id=?", (_json.encode(skip), skip_id))
            return self.add_event(wire.Skipped(time=when, step=skip.step, skip=skip), self._strict)

    def rating(self, rating_id: str) -> Rating | None:
        row = self._db.execute("SELECT body, retracted, branch FROM ratings WHERE id=?", (rating_id,)).fetchone()
        return self._rating(*row) if row else None

    def _rating(self, body: bytes, retracted: float, branch: str) -> Rating:
        return msgspec.structs.replace(_json.decode(body, type=Rating), retracted=retracted, branch=branch)

    def ratings_of(self, name: ResponseName, branch: str) -> list[Rating]:
        """Every rating of a group, oldest first, retracted ones too."""
        rows = self._db.execute(
            "SELECT body, retracted, branch FROM ratings WHERE branch=? AND step=? AND number=? ORDER BY rowid",
            (self.owner(name, branch), name.step, name.group),
        )
        return [self._rating(*row) for row in rows]

    def standing_ratings(self, name: ResponseName, branch: str) -> list[Rating]:
        """Ratings of a group that count: not taken back, not superseded by one that stands, and no silent repeats."""
        return standing(self.ratings_of(name, branch))

    def standing_of_step(self, branch: str, step: int) -> dict[int, list[Rating]]:
        """Group number -> the ratings of it that count, for the groups of a step that have any."""
        rows = self._db.execute(
            "SELECT body, retracted, branch FROM ratings WHERE branch=? AND step=? ORDER BY rowid", (branch, step)
        )
        given: dict[int, list[Rating]] = {}
        for row in rows:
            rating = self._rating(*row)
            given.setdefault(rating.group, []).append(rating)
        counted = {number: standing(ratings) for number, ratings in given.items()}
        return {number: ratings for number, ratings in counted.items() if ratings}

    def judged(self, branch: str, step: int) -> dict[str, set[str]]:
        """Group -> letters of its responses that somebody has rated or skipped, of a step; no letter: all."""
        found: dict[str, set[str]] = {}
        for number, ratings in self.standing_of_step(branch, step).items():
            moving = [rating for rating in ratings if rating.mode in MODES and MODES[rating.mode].moves_rewards]
            if moving:
                found[f"{step}.{number}"] = {letter for rating in moving for letter in rating.values}
        rows = self._db.execute("SELECT body FROM skips WHERE branch=? AND step=? ORDER BY rowid", (branch, step))
        for (body,) in rows:
            skip = _json.decode(body, type=SkipRecord)
            if skip.retracted:
                continue
            letters = {skip.letter} if skip.letter else set()
            name = f"{step}.{skip.group}"
            found[name] = (found.get(name, set()) | letters) if letters else set()
        return found

    def recent_ratings(self, limit: int = 200, before: str = "") -> list[Rating]:
        """The newest ratings, oldest first, retracted ones too.

        :param before: id of a rating: only those that came before it.
        """
        rows = self._db.execute(
            "SELECT body, retracted, branch FROM ratings WHERE ?='' OR rowid<(SELECT rowid FROM ratings WHERE id=?) "
            "ORDER BY rowid DESC LIMIT ?",
            (before, before, limit),
        ).fetchall()
        return [self._rating(*row) for row in reversed(rows)]

    def count_ratings(self) -> int:
        """How many ratings were ever given; it never falls."""
        return int(self._db.execute("SELECT count(*) FROM ratings").fetchone()[0])

    def rated_groups(self) -> list[tuple[ResponseName, str]]:
        """The groups of every branch that anybody has rated, and their branches, in the order of their steps."""
        rows = self._db.execute("SELECT DISTINCT step, number, branch FROM ratings ORDER BY step, number, branch")
        return [(ResponseName(step, number), branch) for step, number, branch in rows]

    def first_groups(self, count: int) -> list[Group]:
        """The first groups of the session, without their tokens."""
        rows = self._db.execute(
            "SELECT branch, step, number, status, body FROM groups ORDER BY step, number, branch LIMIT ?", (count,)
        )
        return [unpack(*row) for row in rows]

    def unsettled_ratings(self, branch: str) -> list[Rating]:
        """Ratings of a line's groups that stand and whose fate on that line is open: they wait for its next update."""
        line = self.line(branch)
        after = self._settled_up_to(branch)
        newest = self._db.execute("SELECT coalesce(max(rowid), 0) FROM ratings").fetchone()[0]
        if newest <= after:
            return []
        rated, of_rated = branch_rows.on_line(line, "r.step", "r.branch")
        used, of_used = branch_rows.on_line(line, "u.step", "u.branch")
        rows = self._db.execute(
            f"SELECT rowid, body, retracted, branch FROM ratings r NOT INDEXED WHERE rowid>? AND {rated} "
            f"AND retracted=0 AND NOT EXISTS (SELECT 1 FROM rating_uses u WHERE u.rating=r.id AND {used}) "
            "ORDER BY rowid",
            (after, *of_rated, *of_used),
        ).fetchall()
        self._settled[branch] = rows[0][0] - 1 if rows else newest
        return [self._rating(*row) for _, *row in rows]

    def _settled_up_to(self, branch: str) -> int:
        """The newest row of the ratings such that neither it nor one before it waits for an update of a line.

        What is settled stays so, until a rewind takes what had become of it to another branch.
        """
        if self._settled_in != self._lineage.generation:
            self._settled, self._settled_in = {}, self._lineage.generation
        return self._settled.get(branch, 0)

    def add_rating_uses(self, uses: Iterable[RatingUse], step: int) -> list[wire.AnyEvent]:
        """Record what became of ratings."""
        with Transaction(self._strict):
            events: list[wire.AnyEvent] = []
            for use in uses:
                self._strict.execute(
                    "INSERT OR REPLACE INTO rating_uses VALUES (?, ?, ?, ?)",
                    (use.rating, use.branch, step, _json.encode(use)),
                )
                events.append(self.add_event(wire.RatingUsed(time=time.time(), step=step, use=use), self._strict))
            return events

    def forget_uses(self, branch: str, after: int) -> None:
        """What updates of a branch after ``after`` did with ratings is undone: they have to be made again."""
        self._strict.execute("DELETE FROM rating_uses WHERE branch=? AND step>?", (branch, after))

    def rating_use(self, rating_id: str, branch: str = MAIN) -> RatingUse | None:
        """What became of a rating on a branch's line."""
        return next(iter(self._uses([rating_id], branch)), None)

    def uses_of(self, ratings: Iterable[Rating], branch: str = MAIN) -> list[RatingUse]:
        """What became of ratings on a branch's line, those of open fate left out."""
        return self._uses([rating.id for rating in ratings], branch)

    def _uses(self, ratings: Iterable[str], branch: str) -> list[RatingUse]:
        used, of_used = branch_rows.on_line(self.line(branch))
        uses = []
        for rating in ratings:
            row = self._db.execute(
                f"SELECT body, branch FROM rating_uses WHERE rating=? AND {used} ORDER BY rowid DESC LIMIT 1",
                (rating, *of_used),
            ).fetchone()
            if row:
                uses.append(msgspec.structs.replace(_json.decode(row[0], type=RatingUse), branch=row[1]))
        return uses

    # ------------------------------------------------------------------------------------------- orderings

    def add_orderings(
        self, orderings: Iterable[Ordering], source: str, who: str, when: float, step: int = 0
    ) -> tuple[int, wire.AnyEvent | None]:
        """Commit what somebody prefers about responses that no group of the session has; on disk when this returns.

        :param source: where they are from, for people.
        :returns: how many were not known before, and the event that tells of them; None if all were.
        """
        with Transaction(self._strict):
            added = 0
            for ordering in orderings:
                row = (ordering_id(ordering), when, ordering.source, _json.encode(ordering))
                added += self._strict.execute("INSERT OR IGNORE INTO orderings VALUES (?, ?, ?, ?)", row).rowcount
            if not added:
                return 0, None
            event = wire.Imported(time=when, step=step, who=who, source=source, orderings=added)
            return added, self.add_event(event, self._strict)

    def orderings(self, after: int = 0, limit: int = 1000) -> list[tuple[int, Ordering]]:
        """(number, ordering) of what was imported, in the order in which it came.

        :param after: only those with a greater number: the last one's of a page begins the next page.
        """
        rows = self._db.execute(
            "SELECT rowid, body FROM orderings WHERE rowid>? ORDER BY rowid LIMIT ?", (after, limit)
        ).fetchall()
        return [(number, _json.decode(body, type=Ordering)) for number, body in rows]

    def known_orderings(self, ids: Iterable[str]) -> set[str]:
        """Those of some ids that are there already."""
        found = (self._db.execute("SELECT id FROM orderings WHERE id=?", (known,)).fetchone() for known in ids)
        return {row[0] for row in found if row}

    # -------------------------------------------------------------------- changes, alarms, checkpoints, answers

    def put_change(self, change: Change) -> wire.AnyEvent:
        """Keep a change, new or in its new status."""
        return self.put_changes([change])[0]

    def put_changes(self, changes: Iterable[Change]) -> list[wire.AnyEvent]:
        """Keep changes, new or in their new status: all of them, or none, as they may only go together."""
        with Transaction(self._db):
            return [self._put_change(change) for change in changes]

    def _put_change(self, change: Change) -> wire.AnyEvent:
        self._db.execute(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
            "SET status=excluded.status, body=excluded.body, branch=excluded.branch, step=excluded.step",
            (change.id, change.time, change.status, _json.encode(change), change.branch, change.step),
        )
        return self.add_event(wire.Changed(time=time.time(), step=change.step, change=change))

    def changes(self, branch: str = MAIN, limit: int = 1000) -> list[Change]:
        """The newest changes of a branch's line, in the order in which they were accepted."""
        rows = self._newest("changes", branch, limit)
        return [msgspec.structs.replace(_json.decode(body, type=Change), branch=name) for body, name in rows]

    def change_ids(self) -> set[str]:
        """Of every change, on whichever branch."""
        return {row[0] for row in self._db.execute("SELECT id FROM changes")}

    def put_alarm(self, alarm: Alarm) -> wire.AnyEvent:
        """Keep an alarm, new or acknowledged."""
        with Transaction(self._db):
            self._db.execute(
                "INSERT INTO alarms VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE "
                "SET acknowledged=excluded.acknowledged, body=excluded.body, step=excluded.step",
                (alarm.id, alarm.time, alarm.acknowledged, _json.encode(alarm), alarm.branch, alarm.step),
            )
            return self.add_event(wire.AlarmRaised(time=time.time(), step=alarm.step, alarm=alarm))

    def alarms(self, branch: str = MAIN, limit: int = 100) -> list[Alarm]:
        """The newest alarms of a branch's line, oldest first."""
        rows = self._newest("alarms", branch, limit)
        return [msgspec.structs.replace(_json.decode(body, type=Alarm), branch=name) for body, name in rows]

    def _newest(self, table: str, branch: str, limit: int) -> list[tuple[bytes, str]]:
        """Bodies and branches of the newest rows of a line, oldest first; each branch's up to where the line leaves it.

        What was asked for while the step that a branch begins at was the newest is that branch's own.
        """
        mine, of_mine = branch_rows.on_line([Segment(s.branch, -1, s.last) for s in self.line(branch)])
        rows = self._db.execute(
            f"SELECT body, branch FROM {table} WHERE {mine} ORDER BY rowid DESC LIMIT ?", (*of_mine, limit)
        ).fetchall()
        return rows[::-1]

    def put_checkpoint(self, checkpoint: Checkpoint) -> wire.AnyEvent:
        """Keep that there is a checkpoint; another one of the same step is replaced."""
        with Transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?)",
                (checkpoint.branch, checkpoint.step, checkpoint.time, _json.encode(checkpoint)),
            )
            event = wire.CheckpointSaved(time=checkpoint.time, step=checkpoint.step, checkpoint=checkpoint)
            return self.add_event(event)

    def forget_checkpoints(self, paths: Iterable[str]) -> None:
        """Their folders are gone."""
        gone = set(paths)
        with Transaction(self._db):
            for found in self.all_checkpoints():
                if found.path in gone:
                    self._db.execute(
                        "DELETE FROM checkpoints WHERE branch=? AND step=?", (found.branch, found.step)
                    )  # fmt: skip

    def checkpoints(self, branch: str) -> list[Checkpoint]:
        """The checkpoints of a branch's line, in the order of their steps."""
        return [
            found
            for segment in self.line(branch)
            for found in self.checkpoints_of(segment.branch)
            if segment.after <= found.step <= segment.last  # the step it begins at may be one of its own too
        ]

    def checkpoints_of(self, branch: str) -> list[Checkpoint]:
        """The checkpoints of a branch's own, in the order of their steps."""
        return self._saved("WHERE branch=?", branch)

    def all_checkpoints(self) -> list[Checkpoint]:
        """The checkpoints of every branch, in the order of their steps."""
        return self._saved()

    def _saved(self, where: str = "", *parameters: str) -> list[Checkpoint]:
        rows = self._db.execute(f"SELECT body, branch FROM checkpoints {where} ORDER BY step, branch", parameters)
        return [
            msgspec.structs.replace(_json.decode(body, type=Checkpoint), branch=branch) for body, branch in rows
        ]  # fmt: skip

    def put_answer(self, answer: wire.Answer) -> None:
        """Keep the answer to a command, so that a repeat gets the same one."""
        self._db.execute(
            "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (answer.id, time.time(), _json.encode(answer))
        )

    def answer(self, command_id: str) -> wire.Answer | None:
        row = self._db.execute("SELECT body FROM answers WHERE command=?", (command_id,)).fetchone()
        return _json.decode(row[0], type=wire.Answer) if row else None

    # ----------------------------------------------------------------------------------------------- pages

    def newest_step(self, branch: str) -> int:
        """The last step that a branch has records of, the one in progress included; -1 without any."""
        row = self._db.execute(
            "SELECT max(coalesce((SELECT max(step) FROM steps WHERE branch=?1), -1), "
            "coalesce((SELECT max(step) FROM groups WHERE branch=?1), -1))",
            (branch,),
        ).fetchone()
        return int(row[0])

    def each_step(self, segment: Segment) -> Iterator[StepRecord]:
        """The steps of a segment in order, however many there are."""
        return pages.each_step(self._db, segment)

    def each_group(self, segment: Segment, *, tokens: bool = False) -> Iterator[Group]:
        """The groups of a segment in order, with or without what is kept for each token."""
        return pages.each_group(self._db, segment, tokens=tokens)

    def each_rated(self, segment: Segment) -> Iterator[ResponseName]:
        """The names of those groups that anybody has rated, in order."""
        return pages.each_rated(self._db, segment)

    def each_skip(self, segment: Segment) -> Iterator[SkipRecord]:
        """What people chose not to rate of those groups, in order; also what was taken back."""
        return pages.each_skip(self._db, segment)


def shown_ratings(ratings: Iterable[Rating]) -> dict[str, str]:
    """What a head shows of a group's ratings, oldest first: letter -> the newest that counts, as its mode shows it."""
    return _shown(standing(ratings))


def _shown(standing: Iterable[Rating]) -> dict[str, str]:
    """Letter -> the newest answer, as its mode shows it."""
    shown = {}
    for rating in standing:
        for letter, value in rating.values.items():
            mode = MODES.get(rating.mode)
            shown[letter] = mode.show(value) if mode else f"{value:g}"
    return shown
