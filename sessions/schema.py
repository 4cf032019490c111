"""The tables of a session's database, and how one of an earlier version is read and brought to this one.

Version 1 and 2 kept a row for every response, in a table of their own (2 had columns for a value model); up to 3 there
was no table of branches, changes, alarms and uses of ratings had no branch, and what was in their bodies only, or in
those of steps, had no column; up to 4 there was no table of orderings, and up to 5 none of evaluations. Temporary views
show such a database in the shape of this version, so that one is read as the other.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from array import array
from typing import Any

import msgspec

from sessions.branches import Branch
from sessions.database import Transaction
from sessions.group_rows import pack_body, pack_measured, pack_sampled
from sessions.records import MAIN, WARM_UP, Alarm, Change, Group, Response

SCHEMA_VERSION = 6
ACCURACY = "eval/accuracy"
"""The metric of a step that has a column."""

_GROUPS = """
CREATE TABLE {name} (
  branch TEXT, step INTEGER, number INTEGER, status TEXT, body BLOB, sampled BLOB, measured BLOB,
  PRIMARY KEY (branch, step, number))
"""
"""Blobs of :mod:`sessions.group_rows`; the body first, so that it is read without what is kept for each token."""

_NEW_IN_4 = """
CREATE TABLE branches (name TEXT PRIMARY KEY, parent TEXT, step INTEGER, body BLOB);
CREATE TABLE probes (branch TEXT, step INTEGER, place INTEGER, body BLOB, PRIMARY KEY (branch, step, place));
"""
_NEW_IN_5 = "CREATE TABLE orderings (id TEXT PRIMARY KEY, time REAL, source TEXT, body BLOB)"
_NEW_IN_6 = "CREATE TABLE held_out (branch TEXT, step INTEGER, time REAL, body BLOB, PRIMARY KEY (branch, step))"
_EVALUATIONS = "CREATE INDEX evaluations ON steps (branch, step, accuracy) WHERE accuracy NOT NULL"
"""What is asked of every branch at once is found without a look at the bodies of its steps."""
_USES = "CREATE TABLE {name} (rating TEXT, branch TEXT, step INTEGER, body BLOB, PRIMARY KEY (rating, branch))"

_OTHERS = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE steps (
  branch TEXT, step INTEGER, time REAL, body BLOB, accuracy REAL, PRIMARY KEY (branch, step));
CREATE TABLE ratings (
  id TEXT PRIMARY KEY, branch TEXT, step INTEGER, number INTEGER, time REAL, retracted REAL DEFAULT 0, body BLOB);
CREATE INDEX steps_by_number ON steps (step);
CREATE INDEX ratings_of_group ON ratings (branch, step, number);
CREATE TABLE skips (id TEXT PRIMARY KEY, branch TEXT, step INTEGER, number INTEGER, time REAL, body BLOB);
CREATE TABLE changes (
  id TEXT PRIMARY KEY, time REAL, status TEXT, body BLOB, branch TEXT DEFAULT 'main', step INTEGER);
CREATE TABLE alarms (
  id TEXT PRIMARY KEY, time REAL, acknowledged REAL, body BLOB, branch TEXT DEFAULT 'main', step INTEGER);
CREATE TABLE checkpoints (branch TEXT, step INTEGER, time REAL, body BLOB, PRIMARY KEY (branch, step));
CREATE TABLE answers (command TEXT PRIMARY KEY, time REAL, body BLOB);
CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL, step INTEGER, kind TEXT, body TEXT);
"""

_SET_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"


def create(db: sqlite3.Connection) -> None:
    """Make the tables; whole or not at all: a database without an id would never get one."""
    with Transaction(db):
        db.execute(_GROUPS.format(name="groups"))
        db.execute(_USES.format(name="rating_uses"))
        for statement in (*(_OTHERS + _NEW_IN_4 + _NEW_IN_5).split(";"), _NEW_IN_6):
            db.execute(statement)
        db.execute(_EVALUATIONS)
        db.execute(_ADD_BRANCH, _first_branch())
        known = {"schema": str(SCHEMA_VERSION), "database_id": str(uuid.uuid4()), "created": repr(time.time())}
        db.executemany(_SET_META, known.items())


def upgrade(db: sqlite3.Connection, version: int) -> None:
    """Bring a database of an earlier version to this one: whole or not at all, a step in memory at a time."""
    with Transaction(db):
        if version < 3:
            _upgrade_groups(db, version)
        if version < 4:
            _upgrade_to_4(db)
        if version < 5:
            db.execute(_NEW_IN_5)
        db.execute(_NEW_IN_6)
        db.execute(_SET_META, ("schema", str(SCHEMA_VERSION)))


def _upgrade_to_4(db: sqlite3.Connection) -> None:
    db.execute(_USES.format(name="moved"))
    db.execute("INSERT INTO moved SELECT rating, 'main', step, body FROM rating_uses")
    db.execute("DROP TABLE rating_uses")
    db.execute("ALTER TABLE moved RENAME TO rating_uses")
    _know_bodies(db)
    for table in ("changes", "alarms"):
        db.execute(f"ALTER TABLE {table} ADD COLUMN branch TEXT DEFAULT 'main'")
        db.execute(f"ALTER TABLE {table} ADD COLUMN step INTEGER")
        db.execute(f"UPDATE {table} SET step=step_of_{table}(body)")
    db.execute("ALTER TABLE steps ADD COLUMN accuracy REAL")
    db.execute(f"UPDATE steps SET accuracy=accuracy_of(body) WHERE CAST(body AS TEXT) LIKE '%{ACCURACY}%'")
    db.execute(_EVALUATIONS)
    for statement in _NEW_IN_4.split(";"):
        db.execute(statement)
    db.executemany(_ADD_BRANCH, [_first_branch(), *_branches_before_4(db)])


def _upgrade_groups(db: sqlite3.Connection, version: int) -> None:
    db.execute("CREATE INDEX IF NOT EXISTS steps_by_number ON steps (step)")
    _show_groups(db, version)
    db.execute(_GROUPS.format(name="moved"))
    for at in db.execute("SELECT DISTINCT branch, step FROM main.groups").fetchall():
        db.execute("INSERT INTO moved SELECT * FROM temp.groups WHERE branch=? AND step=?", at)
        db.execute("DELETE FROM responses WHERE branch=? AND step=?", at)  # its room is used again
    db.execute("DROP VIEW temp.groups")
    db.execute("DROP TABLE groups")
    db.execute("DROP TABLE responses")
    db.execute("ALTER TABLE moved RENAME TO groups")


_ADD_BRANCH = "INSERT INTO branches VALUES (?, ?, ?, ?)"
_Row = tuple[str, str, int, bytes]


def branch_row(branch: Branch) -> _Row:
    """A branch as its row."""
    return branch.name, branch.parent, branch.step, msgspec.json.encode(branch)


def _first_branch() -> _Row:
    return branch_row(Branch(name=MAIN, time=time.time()))


def _branches_before_4(db: sqlite3.Connection) -> list[_Row]:
    """The branches that an engine had set aside, which were known by their steps only."""
    rows = db.execute(
        "SELECT branch, min(step), max(time) FROM (SELECT branch, step, time FROM main.steps "
        "UNION ALL SELECT branch, step, 0 FROM groups) WHERE branch LIKE '%~%' GROUP BY branch ORDER BY branch"
    ).fetchall()
    return [
        branch_row(
            Branch(
                name=name,
                parent="" if name.startswith(WARM_UP) else name.rpartition("~")[0],
                step=first - 1,
                time=when,
                why="its steps came after the checkpoint that an engine went back to",
                abandoned=True,
            )
        )
        for name, first, when in rows
    ]


def show_as_present(db: sqlite3.Connection, version: int) -> None:
    """Lay views over the tables of an earlier version that have the columns of this one's; on this connection only."""
    for statement in (_NEW_IN_5, _NEW_IN_6)[version - 4 if version > 4 else 0 :]:
        db.execute(statement.replace("CREATE TABLE", "CREATE TEMP TABLE"))
    if version > 3:
        return
    if version < 3:
        _show_groups(db, version)
    _know_bodies(db)
    for table in ("changes", "alarms"):
        db.execute(
            f"CREATE TEMP VIEW {table} AS SELECT *, 'main' AS branch, step_of_{table}(body) AS step FROM main.{table}"
        )  # fmt: skip
    db.execute("CREATE TEMP VIEW steps AS SELECT *, accuracy_of(body) AS accuracy FROM main.steps")
    db.execute(
        "CREATE TEMP VIEW rating_uses AS SELECT rating, 'main' AS branch, step, body FROM main.rating_uses"
    )  # fmt: skip
    for statement in _NEW_IN_4.split(";"):
        db.execute(statement.replace("CREATE TABLE", "CREATE TEMP TABLE"))
    db.executemany(_ADD_BRANCH, [_first_branch(), *_branches_before_4(db)])


class _Judged(msgspec.Struct):
    """What an evaluation says, of the body of a step."""

    metrics: dict[str, float | None] = {}


def _know_bodies(db: sqlite3.Connection) -> None:
    """Give a connection functions for what was in bodies only."""
    kinds: dict[str, type[Change | Alarm]] = {"changes": Change, "alarms": Alarm}
    for table, kind in kinds.items():
        decoder = msgspec.json.Decoder(kind)
        db.create_function(f"step_of_{table}", 1, lambda body, decoder=decoder: decoder.decode(body).step)
    judged = msgspec.json.Decoder(_Judged)
    db.create_function("accuracy_of", 1, lambda body: judged.decode(body).metrics.get(ACCURACY))


def _show_groups(db: sqlite3.Connection, version: int) -> None:
    def body(
        branch: str, step: int, number: int, prompt_id: str, prompt: str, answer: str, temperature: float, tokens: bytes
    ) -> bytes:
        group = Group(
            branch=branch,
            step=step,
            number=number,
            prompt_id=prompt_id,
            prompt=prompt,
            answer=answer,
            temperature=temperature,
            responses=responses(branch, step, number, arrays=False),
            prompt_tokens=_list("I", tokens),
        )
        return pack_body(group)

    def sampled(branch: str, step: int, number: int) -> bytes | None:
        return pack_sampled(responses(branch, step, number, arrays=True))

    def measured(branch: str, step: int, number: int) -> bytes | None:
        return pack_measured(responses(branch, step, number, arrays=True))

    def responses(branch: str, step: int, number: int, *, arrays: bool) -> list[Response]:
        return _old_responses(db, version, (branch, step, number), arrays=arrays)

    db.create_function("old_body", 8, body)
    db.create_function("old_sampled", 3, sampled)
    db.create_function("old_measured", 3, measured)
    db.execute(
        "CREATE TEMP VIEW groups AS SELECT branch, step, number, status, "
        "old_body(branch, step, number, prompt_id, prompt, answer, temperature, prompt_tokens) AS body, "
        "old_sampled(branch, step, number) AS sampled, old_measured(branch, step, number) AS measured FROM main.groups"
    )


_OLD_SCALARS = (
    "letter", "text", "length", "ended", "components", "failed", "reward", "rated_reward", "advantage",
    "automatic_advantage", "kl",
)  # fmt: skip
_OLD_ARRAYS = {
    "tokens": ("tokens", "I"),
    "ends": ("ends", "I"),
    "logprobs": ("logprobs", "f"),
    "reference_logprobs": ("reference_logprobs", "f"),
    "entropies": ("entropies", "f"),
}
"""Column -> field of a response, and its code of :mod:`array`."""
_ARRAYS_OF_2 = {
    "value_estimates": ("values", "f"),
    "value_returns": ("returns", "f"),
    "token_advantages": ("advantages", "f"),
}


def _old_responses(
    db: sqlite3.Connection, version: int, group: tuple[str, int, int], *, arrays: bool
) -> list[Response]:
    """The responses of a group as version 1 and 2 kept them."""
    kept = (_OLD_ARRAYS | (_ARRAYS_OF_2 if version >= 2 else {})) if arrays else {}
    rows = db.execute(
        f"SELECT {', '.join((*_OLD_SCALARS, *kept))} FROM main.responses "
        "WHERE branch=? AND step=? AND number=? ORDER BY place",
        group,
    )
    responses = []
    for row in rows:
        fields = dict(zip(_OLD_SCALARS, row, strict=False))
        fields["ended"] = bool(fields["ended"])
        fields["components"] = msgspec.json.decode(fields["components"])
        for (name, code), blob in zip(kept.values(), row[len(_OLD_SCALARS) :], strict=True):
            fields[name] = _list(code, blob)
        responses.append(Response(**fields))
    return responses


def _list(code: str, blob: bytes | None) -> list[Any]:
    values = array(code)
    values.frombytes(blob or b"")
    return values.tolist()
