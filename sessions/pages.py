"""Long tables of a session's database, a page at a time.

A reader that stays inside one statement keeps the log of a live session from being folded into its file. Here each
page is a statement of its own, read to its end before anything is done with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import msgspec

from sessions.branches import Segment
from sessions.group_rows import unpack
from sessions.records import Group, ResponseName, SkipRecord, StepRecord

STEPS, GROUPS, GROUPS_WITH_TOKENS, RATED = 100, 32, 4, 500
"""Rows of a page: of steps, of groups, and of the names of groups."""
_step = msgspec.json.Decoder(StepRecord)
_skip = msgspec.json.Decoder(SkipRecord)


def each_step(db: sqlite3.Connection, segment: Segment) -> Iterator[StepRecord]:
    """The steps of a segment, in order."""
    branch, after, last = segment
    while True:
        rows = db.execute(
            "SELECT step, body FROM steps WHERE branch=? AND step>? AND step<=? ORDER BY step LIMIT ?",
            (branch, after, last, STEPS),
        ).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        for _, body in rows:
            yield msgspec.structs.replace(_step.decode(body), branch=branch)


def each_group(db: sqlite3.Connection, segment: Segment, *, tokens: bool) -> Iterator[Group]:
    """The groups of a segment, in order.

    :param tokens: with what is kept for each token.
    """
    columns = "step, number, status, body" + (", sampled, measured" if tokens else "")
    size = GROUPS_WITH_TOKENS if tokens else GROUPS
    branch, after, last = segment
    at = (after, 2**62)
    while True:
        rows = db.execute(
            f"SELECT {columns} FROM groups WHERE branch=? AND (step, number)>(?, ?) AND step<=? "
            "ORDER BY step, number LIMIT ?",
            (branch, *at, last, size),
        ).fetchall()
        if not rows:
            return
        at = rows[-1][:2]
        for step, number, *blobs in rows:
            yield unpack(branch, step, number, *blobs)


def each_rated(db: sqlite3.Connection, segment: Segment) -> Iterator[ResponseName]:
    """The names of those groups that anybody has rated, in order; also where every rating was taken back."""
    branch, after, last = segment
    at = (after, 2**62)
    while True:
        rows = db.execute(
            "SELECT DISTINCT step, number FROM ratings WHERE branch=? AND (step, number)>(?, ?) AND step<=? "
            "ORDER BY step, number LIMIT ?",
            (branch, *at, last, RATED),
        ).fetchall()
        if not rows:
            return
        at = rows[-1]
        for step, number in rows:
            yield ResponseName(step, number, branch=branch)


def each_skip(db: sqlite3.Connection, segment: Segment) -> Iterator[SkipRecord]:
    """What people chose not to rate of the groups of a segment: in the order of groups, then as it came."""
    branch, after, last = segment
    at = (after, 2**62, 2**62)
    while True:
        rows = db.execute(
            "SELECT step, number, rowid, body FROM skips WHERE branch=? AND (step, number, rowid)>(?, ?, ?) "
            "AND step<=? ORDER BY step, number, rowid LIMIT ?",
            (branch, *at, last, RATED),
        ).fetchall()
        if not rows:
            return
        at = rows[-1][:3]
        for *_, body in rows:
            yield msgspec.structs.replace(_skip.decode(body), branch=branch)
