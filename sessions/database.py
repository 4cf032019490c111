"""Connections and transactions of SQLite."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sessions import private


def connect(path: Path | str) -> sqlite3.Connection:
    """Open a database that any thread may use, one at a time; every statement outside a transaction is its own.

    SQLite gives its log the mode of the database, which is made here so that it never has another.

    :param path: a URI if it is text; a path is made if it is missing.
    :raises SessionError: if a link or somebody else's file lies there.
    """
    if isinstance(path, Path):
        private.own_file(path, make=True)
    return sqlite3.connect(path, uri=isinstance(path, str), isolation_level=None, check_same_thread=False, timeout=10)


def keep_log(db: sqlite3.Connection, synchronous: str) -> None:
    """Write ahead to a log where the file system has shared memory for one.

    :param synchronous: SQLite's pragma: NORMAL or FULL.
    """
    mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":  # a network file system has no shared memory for the log
        db.execute("PRAGMA journal_mode=TRUNCATE")
    db.execute(f"PRAGMA synchronous={synchronous}")


class Transaction:
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
