"""Databases as earlier versions wrote them: their SQL and their packing, on their own."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from sessions.group_rows import pack_body, pack_measured, pack_sampled
from sessions.records import Group, Rating, StepRecord

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE steps (branch TEXT, step INTEGER, time REAL, body BLOB, PRIMARY KEY (branch, step));
CREATE TABLE groups (
  branch TEXT, step INTEGER, number INTEGER, prompt_id TEXT, prompt TEXT, answer TEXT, temperature REAL,
  status TEXT, prompt_tokens BLOB, PRIMARY KEY (branch, step, number));
CREATE TABLE responses (
  branch TEXT, step INTEGER, number INTEGER, place INTEGER, letter TEXT, text TEXT, length INTEGER, ended INTEGER,
  components TEXT, failed TEXT, reward REAL, rated_reward REAL, advantage REAL, automatic_advantage REAL, kl REAL,
  tokens BLOB, ends BLOB, logprobs BLOB, reference_logprobs BLOB, entropies BLOB,
  PRIMARY KEY (branch, step, number, place));
CREATE TABLE ratings (
  id TEXT PRIMARY KEY, branch TEXT, step INTEGER, number INTEGER, time REAL, retracted REAL DEFAULT 0, body BLOB);
CREATE INDEX ratings_of_group ON ratings (branch, step, number);
CREATE TABLE rating_uses (rating TEXT PRIMARY KEY, step INTEGER, body BLOB);
CREATE TABLE skips (id TEXT PRIMARY KEY, branch TEXT, step INTEGER, number INTEGER, time REAL, body BLOB);
CREATE TABLE changes (id TEXT PRIMARY KEY, time REAL, status TEXT, body BLOB);
CREATE TABLE alarms (id TEXT PRIMARY KEY, time REAL, acknowledged REAL, body BLOB);
CREATE TABLE checkpoints (branch TEXT, step INTEGER, time REAL, body BLOB, PRIMARY KEY (branch, step));
CREATE TABLE answers (command TEXT PRIMARY KEY, time REAL, body BLOB);
CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL, step INTEGER, kind TEXT, body TEXT);
"""
GROUPS_OF_3 = """
CREATE TABLE groups (
  branch TEXT, step INTEGER, number INTEGER, status TEXT, body BLOB, sampled BLOB, measured BLOB,
  PRIMARY KEY (branch, step, number))
"""
OTHERS_OF_4 = """
CREATE TABLE branches (name TEXT PRIMARY KEY, parent TEXT, step INTEGER, body BLOB);
CREATE TABLE probes (branch TEXT, step INTEGER, place INTEGER, body BLOB, PRIMARY KEY (branch, step, place));
CREATE INDEX evaluations ON steps (branch, step, accuracy) WHERE accuracy NOT NULL;
DROP TABLE rating_uses;
CREATE TABLE rating_uses (rating TEXT, branch TEXT, step INTEGER, body BLOB, PRIMARY KEY (rating, branch))
"""
NEW_IN_5 = "CREATE TABLE orderings (id TEXT PRIMARY KEY, time REAL, source TEXT, body BLOB)"
_OWNED = ("branch TEXT DEFAULT 'main'", "step INTEGER")
ADDED_BY_2 = "value_estimates", "value_returns", "token_advantages"


def write_old(
    path: Path,
    version: int,
    groups: Iterable[Group],
    steps: Iterable[StepRecord] = (),
    ratings: Iterable[Rating] = (),
) -> None:
    """A database of schema 1, 2, 3, 4 or 5, with a change, an alarm and the use of every rating."""
    db = sqlite3.connect(path)
    for statement in TABLES.split(";"):
        db.execute(statement)
    if version >= 3:
        db.execute("DROP TABLE groups")
        db.execute("DROP TABLE responses")
        db.execute(GROUPS_OF_3)
        db.execute("CREATE INDEX steps_by_number ON steps (step)")
    if version >= 4:
        for table, columns in {"changes": _OWNED, "alarms": _OWNED, "steps": ("accuracy REAL",)}.items():
            for column in columns:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
        for statement in OTHERS_OF_4.split(";"):
            db.execute(statement)
        for name, parent, step in (("main", "", -1), ("main~1", "main", 0)):
            body = msgspec.json.encode({"name": name, "parent": parent, "step": max(step, 0), "time": 5.0})
            db.execute(f"INSERT INTO branches VALUES ({_marks(4)})", (name, parent, max(step, 0), body))
    if version >= 5:
        db.execute(NEW_IN_5)
    if version == 2:
        for column in ADDED_BY_2:
            db.execute(f"ALTER TABLE responses ADD COLUMN {column} BLOB")
    db.executemany("INSERT INTO meta VALUES (?, ?)", [("schema", str(version)), ("database_id", "old")])
    for group in groups:
        at = (group.branch, group.step, group.number)
        if version >= 3:
            blobs = pack_body(group), pack_sampled(group.responses), pack_measured(group.responses)
            db.execute(f"INSERT INTO groups VALUES ({_marks(7)})", (*at, group.status, *blobs))
            continue
        asked = (group.prompt_id, group.prompt, group.answer, group.temperature, group.status)
        db.execute(f"INSERT INTO groups VALUES ({_marks(9)})", (*at, *asked, _blob("I", group.prompt_tokens)))
        for place, r in enumerate(group.responses):
            integers = [_blob("I", values) for values in (r.tokens, r.ends)]
            floats = [r.logprobs, r.reference_logprobs, r.entropies]
            floats += [r.values, r.returns, r.advantages] if version == 2 else []
            row = (
                *at, place, r.letter, r.text, r.length, r.ended, msgspec.json.encode(r.components).decode(), r.failed,
                r.reward, r.rated_reward, r.advantage, r.automatic_advantage, r.kl, *integers,
                *[_blob("f", values) for values in floats],
            )  # fmt: skip
            db.execute(f"INSERT INTO responses VALUES ({_marks(len(row))})", row)
    for record in steps:
        body = msgspec.json.encode(record)
        row = [record.branch, record.step, record.time, body]
        row += [record.metrics.get("eval/accuracy")] if version >= 4 else []
        db.execute(f"INSERT INTO steps VALUES ({_marks(len(row))})", row)
    for r in ratings:
        body = msgspec.json.encode(r)
        db.execute(f"INSERT INTO ratings VALUES ({_marks(7)})", (r.id, r.branch, r.step, r.group, r.time, 0, body))
        use = {"rating": r.id, "group": "2.1", "fate": "on_time", "step": r.step}
        row = [r.id, *(["main"] if version >= 4 else []), r.step, msgspec.json.encode(use)]
        db.execute(f"INSERT INTO rating_uses VALUES ({_marks(len(row))})", row)
    change = {"id": "c1", "time": 5.0, "who": "ann", "name": "learning_rate", "old": 1e-4, "new": 1e-5}
    change |= {"boundary": "minibatch", "status": "applied", "applied_step": 2}
    owned = ["main", 2] if version >= 4 else []
    row = ["c1", 5.0, "applied", msgspec.json.encode(change), *owned]
    db.execute(f"INSERT INTO changes VALUES ({_marks(len(row))})", row)
    alarm = {"id": "a1", "time": 5.0, "step": 2, "rule": "kl", "message": "high"}
    row = ["a1", 5.0, 0, msgspec.json.encode(alarm), *owned]
    db.execute(f"INSERT INTO alarms VALUES ({_marks(len(row))})", row)
    db.commit()
    db.close()


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _blob(code: str, values: Sequence[float]) -> bytes | None:
    return struct.pack(f"{len(values)}{code}", *values) if values else None
