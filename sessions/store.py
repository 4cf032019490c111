"""One SQLite file a session: every step, group, response, rating, change, alarm and event, for ever.

Used from one thread (the engine's writer). Two connections: one with synchronous NORMAL for what the engine can
compute again, one with FULL for what a person said; :meth:`Store.add_rating` returns only when it is on disk.
Token arrays are kept for the newest steps and for rated responses; scalars and text for ever.
"""

from __future__ import annotations

import math
import sqlite3
import time
import uuid
from array import array
from collections.abc import Iterable
from pathlib import Path

import msgspec

from sessions import wire
from sessions.errors import InvalidValue, SessionError
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
    Response,
    ResponseName,
    SeriesData,
    SkipRecord,
    StepRecord,
    head_of,
)
from sessions.series import Series

SCHEMA_VERSION = 2
_ADDED = {2: ("value_estimates", "value_returns", "token_advantages")}
"""Version -> columns of ``responses`` that it added."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE steps (branch TEXT, step INTEGER, time REAL, body BLOB, PRIMARY KEY (branch, step));
CREATE TABLE groups (
  branch TEXT, step INTEGER, number INTEGER, prompt_id TEXT, prompt TEXT, answer TEXT, temperature REAL,
  status TEXT, prompt_tokens BLOB, PRIMARY KEY (branch, step, number));
CREATE TABLE responses (
  branch TEXT, step INTEGER, number INTEGER, place INTEGER, letter TEXT, text TEXT, length INTEGER, ended INTEGER,
  components TEXT, failed TEXT, reward REAL, rated_reward REAL, advantage REAL, automatic_advantage REAL, kl REAL,
  tokens BLOB, ends BLOB, logprobs BLOB, reference_logprobs BLOB, entropies BLOB,
  value_estimates BLOB, value_returns BLOB, token_advantages BLOB,
  PRIMARY KEY (branch, step, number, place));
CREATE TABLE ratings (
  id TEXT PRIMARY KEY, branch TEXT, step INTEGER, number INTEGER, time REAL, retracted REAL DEFAULT 0, body BLOB);
CREATE INDEX steps_by_number ON steps (step);
CREATE INDEX ratings_of_group ON ratings (branch, step, number);
CREATE TABLE rating_uses (rating TEXT PRIMARY KEY, step INTEGER, body BLOB);
CREATE TABLE skips (id TEXT PRIMARY KEY, branch TEXT, step INTEGER, number INTEGER, time REAL, body BLOB);
CREATE TABLE changes (id TEXT PRIMARY KEY, time REAL, status TEXT, body BLOB);
CREATE TABLE alarms (id TEXT PRIMARY KEY, time REAL, acknowledged REAL, body BLOB);
CREATE TABLE checkpoints (branch TEXT, step INTEGER, time REAL, body BLOB, PRIMARY KEY (branch, step));
CREATE TABLE answers (command TEXT PRIMARY KEY, time REAL, body BLOB);
CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL, step INTEGER, kind TEXT, body TEXT);
"""

_json = msgspec.json


class _Measured(msgspec.Struct):
    """What a series needs of a step."""

    step: int
    metrics: dict[str, float | None]


_measured = _json.Decoder(_Measured)


def _pack(code: str, values: list[int] | list[float]) -> bytes | None:
    return array(code, values).tobytes() if values else None


def _unpack(code: str, blob: bytes | None) -> list[float]:
    if not blob:
        return []
    values = array(code)
    values.frombytes(blob)
    return list(values)


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
                self._journal(self._db, "NORMAL")
                self._journal(self._strict, "FULL")
            self.database_id = self.meta("database_id") or ""
            self._version = int(self.meta("schema") or 0)
            if self._version > SCHEMA_VERSION:
                raise SessionError(
                    f"{path}: written by a newer workbench (schema {self._version}); upgrade rl-workbench"
                )
            if not read_only:
                self._upgrade()
        except sqlite3.Error as error:
            self.close()
            raise SessionError(f"{path}: not a session's database ({error})") from None
        except SessionError:
            self.close()
            raise

    def _connect(self, path: Path | str) -> sqlite3.Connection:
        db = sqlite3.connect(path, uri=isinstance(path, str), isolation_level=None, check_same_thread=False, timeout=10)
        self._open.append(db)
        return db

    @staticmethod
    def _journal(db: sqlite3.Connection, synchronous: str) -> None:
        mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":  # a network file system has no shared memory for the log
            db.execute("PRAGMA journal_mode=TRUNCATE")
        db.execute(f"PRAGMA synchronous={synchronous}")

    def _create(self) -> None:
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if "meta" in tables:
            return
        if tables:
            raise SessionError(f"{self.path}: not a session's database (it holds {', '.join(sorted(tables)[:3])})")
        with _transaction(self._db):  # whole or not at all: a database without an id would never get one
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self.set_meta("schema", str(SCHEMA_VERSION))
            self.set_meta("database_id", str(uuid.uuid4()))
            self.set_meta("created", repr(time.time()))

    def _upgrade(self) -> None:
        """Bring a database of an earlier version to this one."""
        with _transaction(self._db):
            for version in range(self._version + 1, SCHEMA_VERSION + 1):
                for column in _ADDED[version]:
                    self._db.execute(f"ALTER TABLE responses ADD COLUMN {column} BLOB")
                self.set_meta("schema", str(version))
        self._version = SCHEMA_VERSION

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
        with _transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?)",
                (record.branch, record.step, record.time, _json.encode(record)),
            )
            for group in groups:
                self._update_group(group)
            self._drop_old_tokens(record.branch, record.step - keep_token_steps)
            return self.add_event(wire.StepDone(time=record.time, step=record.step, record=record))

    def _drop_old_tokens(self, branch: str, step: int) -> None:
        """Forget the token arrays of one step that has become old, except where a person rated."""
        if step < 1:
            return
        self._db.execute(
            "UPDATE responses SET tokens=NULL, ends=NULL, logprobs=NULL, reference_logprobs=NULL, entropies=NULL, "
            "value_estimates=NULL, value_returns=NULL, token_advantages=NULL "
            "WHERE branch=? AND step=? AND NOT EXISTS (SELECT 1 FROM ratings r WHERE r.branch=responses.branch "
            "AND r.step=responses.step AND r.number=responses.number)",
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
        with _transaction(self._db):
            moved = self._db.execute(
                "UPDATE steps SET branch=? WHERE branch=? AND step>?", (name, branch, after)
            ).rowcount
            for table in ("groups", "responses", "ratings", "skips", "checkpoints"):
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
        with _transaction(self._db):
            for g in groups:
                self._db.execute(
                    "INSERT OR REPLACE INTO groups VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        g.branch, g.step, g.number, g.prompt_id, g.prompt, g.answer, g.temperature, g.status,
                        _pack("I", g.prompt_tokens),
                    ),
                )  # fmt: skip
                # A group sampled again may be smaller than before.
                self._db.execute(
                    "DELETE FROM responses WHERE branch=? AND step=? AND number=?", (g.branch, g.step, g.number)
                )
                self._db.executemany(
                    f"INSERT INTO responses VALUES ({', '.join('?' * 23)})",
                    [
                        (
                            g.branch, g.step, g.number, place, r.letter, r.text, r.length, r.ended,
                            _json.encode(r.components).decode(), r.failed, r.reward, r.rated_reward, r.advantage,
                            r.automatic_advantage, r.kl, _pack("I", r.tokens), _pack("I", r.ends),
                            _pack("f", r.logprobs), _pack("f", r.reference_logprobs), _pack("f", r.entropies),
                            _pack("f", r.values), _pack("f", r.returns), _pack("f", r.advantages),
                        )
                        for place, r in enumerate(g.responses)
                    ],
                )  # fmt: skip

    def _update_group(self, group: Group) -> None:
        at = (group.branch, group.step, group.number)
        self._db.execute("UPDATE groups SET status=? WHERE branch=? AND step=? AND number=?", (group.status, *at))
        self._db.executemany(
            "UPDATE responses SET components=?, reward=?, rated_reward=?, advantage=?, automatic_advantage=?, kl=?, "
            "reference_logprobs=coalesce(?, reference_logprobs), entropies=coalesce(?, entropies), "
            "value_estimates=?, value_returns=?, token_advantages=? "
            "WHERE branch=? AND step=? AND number=? AND place=?",
            [
                (
                    _json.encode(r.components).decode(), r.reward, r.rated_reward, r.advantage,
                    r.automatic_advantage, r.kl, _pack("f", r.reference_logprobs), _pack("f", r.entropies),
                    _pack("f", r.values), _pack("f", r.returns), _pack("f", r.advantages), *at, place,
                )
                for place, r in enumerate(group.responses)
            ],
        )  # fmt: skip

    def _arrays(self) -> list[str]:
        """The columns with one value a token; NULL for those that an older database lacks."""
        added = [column if self._version >= version else "NULL" for version in _ADDED for column in _ADDED[version]]
        return ["tokens", "ends", "logprobs", "reference_logprobs", "entropies", *added]

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
            "SELECT prompt_id, prompt, answer, temperature, status, prompt_tokens FROM groups "
            "WHERE branch=? AND step=? AND number=?",
            (branch, name.step, name.group),
        ).fetchone()
        if row is None:
            raise InvalidValue(f"no group {name.step}.{name.group} on branch {branch}")
        arrays = ", ".join(self._arrays() if tokens else ["NULL"] * 8)
        rows = self._db.execute(
            "SELECT letter, text, length, ended, components, failed, reward, rated_reward, advantage, "
            f"automatic_advantage, kl, {arrays} FROM responses "
            "WHERE branch=? AND step=? AND number=? ORDER BY place",
            (branch, name.step, name.group),
        ).fetchall()
        responses = [
            Response(
                letter=r[0],
                text=r[1],
                length=r[2],
                ended=bool(r[3]),
                components=_json.decode(r[4]),
                failed=r[5],
                reward=r[6],
                rated_reward=r[7],
                advantage=r[8],
                automatic_advantage=r[9],
                kl=r[10],
                tokens=[int(t) for t in _unpack("I", r[11])],
                ends=[int(t) for t in _unpack("I", r[12])],
                logprobs=_unpack("f", r[13]),
                reference_logprobs=_unpack("f", r[14]),
                entropies=_unpack("f", r[15]),
                values=_unpack("f", r[16]),
                returns=_unpack("f", r[17]),
                advantages=_unpack("f", r[18]),
            )
            for r in rows
        ]
        return Group(
            branch=branch,
            step=name.step,
            number=name.group,
            prompt_id=row[0],
            prompt=row[1],
            answer=row[2],
            temperature=row[3],
            responses=responses,
            status=row[4],
            prompt_tokens=[int(t) for t in _unpack("I", row[5])],
        )

    def heads(self, branch: str, before: int = 0, limit: int = 200, *, unrated: bool = False) -> list[GroupHead]:
        """Heads of groups, newest step first, in the order of their numbers within a step reversed."""
        clause = (
            "AND NOT EXISTS (SELECT 1 FROM ratings r WHERE r.branch=g.branch AND r.step=g.step "
            "AND r.number=g.number AND r.retracted=0)"
            if unrated
            else ""
        )
        rows = self._db.execute(
            f"SELECT step, number FROM groups g WHERE branch=? AND step<? {clause} "
            "ORDER BY step DESC, number DESC LIMIT ?",
            (branch, before or 2**62, min(limit, 5000)),
        ).fetchall()
        return [self.head(ResponseName(step, number), branch) for step, number in rows]

    def head(self, name: ResponseName, branch: str) -> GroupHead:
        """The head of one group, with its standing ratings."""
        return head_of(self.group(name, branch, tokens=False), self.shown_ratings(name, branch))

    # --------------------------------------------------------------------------------------------- ratings

    def add_rating(self, rating: Rating) -> wire.AnyEvent:
        """Commit a rating; on disk when this returns."""
        with _transaction(self._strict):
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
        with _transaction(self._strict):
            self._strict.execute("UPDATE ratings SET retracted=? WHERE id=?", (when, rating_id))
            event = wire.RatingRetracted(
                time=when, step=row[1], rating=rating_id, who=who, used_in=use.step if use else 0
            )
            return self.add_event(event, self._strict)

    def add_skip(self, skip: SkipRecord) -> wire.AnyEvent:
        """Commit that somebody chose not to rate."""
        with _transaction(self._strict):
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
        ratings = [r for r in self.ratings_of(name, branch) if not r.retracted]
        superseded = {r.supersedes for r in ratings}
        return [r for r in ratings if r.id not in superseded]

    def shown_ratings(self, name: ResponseName, branch: str) -> dict[str, str]:
        """Letter -> the newest standing answer, as its mode shows it."""
        shown = {}
        for rating in self.standing_ratings(name, branch):
            for letter, value in rating.values.items():
                mode = MODES.get(rating.mode)
                shown[letter] = mode.show(value) if mode else f"{value:g}"
        return shown

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
        with _transaction(self._strict):
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
        with _transaction(self._db):
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
        with _transaction(self._db):
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
        with _transaction(self._db):
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


class _transaction:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK on an error, of COMMIT itself too: a full disk may leave it open."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if not kind:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
