"""One SQLite file a session: every step, group, response, rating, change, alarm and event, for ever.

Used from one thread (the engine's writer). Two connections: one with synchronous NORMAL for what the engine can
compute again, one with FULL for what a person said; :meth:`Store.add_rating` returns only when it is on disk.
Token arrays are kept for the newest steps and for rated responses; scalars and text for ever.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from sessions import schema, wire
from sessions.database import Transaction, connect, keep_log
from sessions.errors import InvalidValue, SessionError
from sessions.group_rows import pack_body, pack_measured, pack_sampled, unpack
from sessions.modes import MODES
from sessions.records import (
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
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._open: list[sqlite3.Connection] = []
        try:
            if read_only:
                self._db = self._strict = self._connect(f"{path.absolute().as_uri()}?mode=ro")
            else:
                self._db = self._connect(path)
                self._create()
                self._strict = self._connect(path)
                keep_log(self._db, "NORMAL")
                keep_log(self._strict, "FULL")
            self.database_id = self.meta("database_id") or ""
            self._bring_up(int(self.meta("schema") or 0), read_only=read_only)
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
                "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?)",
                (record.branch, record.step, record.time, _json.encode(record)),
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

    def steps(self, branch: str) -> list[StepRecord]:
        """Every step of a branch, in order."""
        rows = self._db.execute("SELECT body FROM steps WHERE branch=? ORDER BY step", (branch,))
        return [msgspec.structs.replace(_json.decode(body, type=StepRecord), branch=branch) for (body,) in rows]

    def last_step(self, branch: str) -> StepRecord | None:
        row = self._db.execute("SELECT body FROM steps WHERE branch=? ORDER BY step DESC LIMIT 1", (branch,)).fetchone()
        return _json.decode(row[0], type=StepRecord) if row else None

    def series(self, branch: str) -> dict[str, Series]:
        """Every metric of a branch over its steps; those of the warm-up before it are over its own."""
        points: dict[str, tuple[list[int], list[float | None]]] = {}
        for part in dict.fromkeys((WARM_UP, branch)):
            for (body,) in self._db.execute("SELECT body FROM steps WHERE branch=? ORDER BY step", (part,)):
                record = _measured.decode(body)
                for name, value in record.metrics.items():
                    steps, values = points.setdefault(name, ([], []))
                    steps.append(record.step)
                    values.append(value)
        series = {name: Series(name) for name in points}
        for name, (steps, values) in points.items():
            series[name].load(SeriesData(name=name, steps=steps, values=values))
        return series

    def series_data(self, branch: str, limit: int = 2000) -> list[SeriesData]:
        return [s.data(limit) for s in self.series(branch).values()]

    def set_aside(self, branch: str, after: int, name: str) -> int:
        """Move the steps after ``after`` to a branch of their own; their records and ratings go along.

        :returns: how many steps moved.
        """
        with Transaction(self._db):
            moved = self._db.execute(
                "UPDATE steps SET branch=? WHERE branch=? AND step>?", (name, branch, after)
            ).rowcount
            for table in ("groups", "ratings", "skips", "checkpoints"):
                self._db.execute(f"UPDATE {table} SET branch=? WHERE branch=? AND step>?", (name, branch, after))
            # Late ratings that only those steps had used wait for an update again.
            self._db.execute(
                "DELETE FROM rating_uses WHERE step>? AND rating IN (SELECT id FROM ratings WHERE branch=?)",
                (after, branch),
            )
        return moved

    def branches(self) -> list[str]:
        rows = self._db.execute("SELECT DISTINCT branch FROM groups UNION SELECT DISTINCT branch FROM steps")
        return sorted(branch for (branch,) in rows)

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

    def last_group_number(self, branch: str, step: int) -> int:
        """The highest group number of a step; 0 when it has none."""
        row = self._db.execute("SELECT max(number) FROM groups WHERE branch=? AND step=?", (branch, step)).fetchone()
        return row[0] or 0

    def group(self, name: ResponseName, branch: str, *, tokens: bool = True) -> Group:
        """A group, whole, or without what is kept for each token.

        :raises InvalidValue: if there is none of that name.
        """
        branch = name.branch or branch
        row = self._db.execute(
            f"SELECT status, body{', sampled, measured' if tokens else ''} FROM groups "
            "WHERE branch=? AND step=? AND number=?",
            (branch, name.step, name.group),
        ).fetchone()
        if row is None:
            raise InvalidValue(f"no group {name.step}.{name.group} on branch {branch}")
        return unpack(branch, name.step, name.group, *row)

    def heads(self, branch: str, before: int = 0, limit: int = 200, *, unrated: bool = False) -> list[GroupHead]:
        """Heads of groups, newest step first, in the order of their numbers within a step reversed."""
        clause = (
            "AND NOT EXISTS (SELECT 1 FROM ratings r WHERE r.branch=g.branch AND r.step=g.step "
            "AND r.number=g.number AND r.retracted=0)"
            if unrated
            else ""
        )
        rows = self._db.execute(
            f"SELECT step, number, status, body FROM groups g WHERE branch=? AND step<? {clause} "
            "ORDER BY step DESC, number DESC LIMIT ?",
            (branch, before or 2**62, min(limit, 5000)),
        )
        return self.heads_of(unpack(branch, step, number, status, body) for step, number, status, body in rows)

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
        """Take a rating back; on disk when this returns.

        :raises InvalidValue: if there is no such rating, or it was taken back before.
        """
        row = self._db.execute("SELECT retracted, step FROM ratings WHERE id=?", (rating_id,)).fetchone()
        if row is None:
            raise InvalidValue(f"no rating with the id {rating_id!r}")
        if row[0]:
            raise InvalidValue(f"rating {rating_id[:8]} was taken back before")
        use = self.rating_use(rating_id)
        with Transaction(self._strict):
            self._strict.execute("UPDATE ratings SET retracted=? WHERE id=?", (when, rating_id))
            event = wire.RatingRetracted(
                time=when, step=row[1], rating=rating_id, who=who, used_in=use.step if use else 0
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

    def rating(self, rating_id: str) -> Rating | None:
        row = self._db.execute("SELECT body, retracted, branch FROM ratings WHERE id=?", (rating_id,)).fetchone()
        return self._rating(*row) if row else None

    def _rating(self, body: bytes, retracted: float, branch: str) -> Rating:
        return msgspec.structs.replace(_json.decode(body, type=Rating), retracted=retracted, branch=branch)

    def ratings_of(self, name: ResponseName, branch: str) -> list[Rating]:
        """Every rating of a group, oldest first, retracted ones too."""
        rows = self._db.execute(
            "SELECT body, retracted, branch FROM ratings WHERE branch=? AND step=? AND number=? ORDER BY time, rowid",
            (name.branch or branch, name.step, name.group),
        )
        return [self._rating(*row) for row in rows]

    def standing_ratings(self, name: ResponseName, branch: str) -> list[Rating]:
        """Ratings of a group that count: not taken back, and not superseded by one that stands."""
        return _standing(self.ratings_of(name, branch))

    def standing_of_step(self, branch: str, step: int) -> dict[int, list[Rating]]:
        """Group number -> the ratings of it that count, for the groups of a step that have any."""
        rows = self._db.execute(
            "SELECT body, retracted, branch FROM ratings WHERE branch=? AND step=? ORDER BY time, rowid", (branch, step)
        )
        given: dict[int, list[Rating]] = {}
        for row in rows:
            rating = self._rating(*row)
            given.setdefault(rating.group, []).append(rating)
        standing = {number: _standing(ratings) for number, ratings in given.items()}
        return {number: ratings for number, ratings in standing.items() if ratings}

    def recent_ratings(self, limit: int = 200) -> list[Rating]:
        """The newest ratings, oldest first."""
        rows = self._db.execute(
            "SELECT body, retracted, branch FROM ratings ORDER BY rowid DESC LIMIT ?", (limit,)
        ).fetchall()
        return [self._rating(*row) for row in reversed(rows)]

    def unsettled_ratings(self, branch: str) -> list[Rating]:
        """Ratings that stand and whose fate is open: they wait for the next update."""
        rows = self._db.execute(
            "SELECT body, retracted, branch FROM ratings r WHERE branch=? AND retracted=0 "
            "AND NOT EXISTS (SELECT 1 FROM rating_uses u WHERE u.rating=r.id) ORDER BY rowid",
            (branch,),
        )
        return [self._rating(*row) for row in rows]

    def add_rating_uses(self, uses: Iterable[RatingUse], step: int) -> list[wire.AnyEvent]:
        """Record what became of ratings."""
        with Transaction(self._strict):
            events: list[wire.AnyEvent] = []
            for use in uses:
                self._strict.execute(
                    "INSERT OR REPLACE INTO rating_uses VALUES (?, ?, ?)",
                    (use.rating, use.step, _json.encode(use)),
                )
                events.append(self.add_event(wire.RatingUsed(time=time.time(), step=step, use=use), self._strict))
            return events

    def rating_use(self, rating_id: str) -> RatingUse | None:
        row = self._db.execute("SELECT body FROM rating_uses WHERE rating=?", (rating_id,)).fetchone()
        return _json.decode(row[0], type=RatingUse) if row else None

    def uses_of(self, ratings: Iterable[Rating]) -> list[RatingUse]:
        uses = (self.rating_use(rating.id) for rating in ratings)
        return [use for use in uses if use is not None]

    # -------------------------------------------------------------------- changes, alarms, checkpoints, answers

    def put_change(self, change: Change) -> wire.AnyEvent:
        """Keep a change, new or in its new status."""
        with Transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?)",
                (change.id, change.time, change.status, _json.encode(change)),
            )
            step = change.applied_step or change.accepted_step
            return self.add_event(wire.Changed(time=time.time(), step=step, change=change))

    def changes(self, limit: int = 1000) -> list[Change]:
        """The newest changes, oldest first."""
        rows = self._db.execute("SELECT body FROM changes ORDER BY time DESC LIMIT ?", (limit,)).fetchall()
        return [_json.decode(body, type=Change) for (body,) in reversed(rows)]

    def put_alarm(self, alarm: Alarm) -> wire.AnyEvent:
        """Keep an alarm, new or acknowledged."""
        with Transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO alarms VALUES (?, ?, ?, ?)",
                (alarm.id, alarm.time, alarm.acknowledged, _json.encode(alarm)),
            )
            return self.add_event(wire.AlarmRaised(time=time.time(), step=alarm.step, alarm=alarm))

    def alarms(self, limit: int = 100) -> list[Alarm]:
        """The newest alarms, oldest first."""
        rows = self._db.execute("SELECT body FROM alarms ORDER BY time DESC LIMIT ?", (limit,)).fetchall()
        return [_json.decode(body, type=Alarm) for (body,) in reversed(rows)]

    def put_checkpoint(self, checkpoint: Checkpoint, branch: str) -> wire.AnyEvent:
        with Transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?)",
                (branch, checkpoint.step, checkpoint.time, _json.encode(checkpoint)),
            )
            event = wire.CheckpointSaved(time=checkpoint.time, step=checkpoint.step, checkpoint=checkpoint)
            return self.add_event(event)

    def checkpoints(self, branch: str) -> list[Checkpoint]:
        rows = self._db.execute("SELECT body FROM checkpoints WHERE branch=? ORDER BY step", (branch,))
        return [_json.decode(body, type=Checkpoint) for (body,) in rows]

    def put_answer(self, answer: wire.Answer) -> None:
        """Keep the answer to a command, so that a repeat gets the same one."""
        self._db.execute(
            "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (answer.id, time.time(), _json.encode(answer))
        )

    def answer(self, command_id: str) -> wire.Answer | None:
        row = self._db.execute("SELECT body FROM answers WHERE command=?", (command_id,)).fetchone()
        return _json.decode(row[0], type=wire.Answer) if row else None


def _standing(ratings: Iterable[Rating]) -> list[Rating]:
    """Those of a group's ratings that count."""
    kept = [r for r in ratings if not r.retracted]
    superseded = {r.supersedes for r in kept}
    return [r for r in kept if r.id not in superseded]


def _shown(standing: Iterable[Rating]) -> dict[str, str]:
    """Letter -> the newest answer, as its mode shows it."""
    shown = {}
    for rating in standing:
        for letter, value in rating.values.items():
            mode = MODES.get(rating.mode)
            shown[letter] = mode.show(value) if mode else f"{value:g}"
    return shown
