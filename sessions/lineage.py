"""The branches of a database, kept in memory: nearly every question to it begins with the line of one."""

from __future__ import annotations

import sqlite3

import msgspec

from sessions.branches import Branch, Segment, line_of

_branch = msgspec.json.Decoder(Branch)


class Lineage:
    """The branches and their lines as one connection sees them, read again only where they may have changed.

    What other connections have committed SQLite tells of itself; what this one changes it must be told of
    (:meth:`changed`).

    :ivar generation: how often the branches were found to be others than before.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._version: int | None = None
        self._rows: list[tuple[bytes]] = []
        self._branches: dict[str, Branch] = {}
        self._lines: dict[str, list[Segment]] = {}
        self.generation = 0

    def changed(self) -> None:
        """This connection has changed branches, or tried to."""
        self._version = None

    def branches(self) -> dict[str, Branch]:
        """Every branch by name, the oldest first; deleted ones too."""
        self._look()
        return dict(self._branches)

    def line(self, branch: str) -> list[Segment]:
        """The segments of a branch's line, oldest first."""
        self._look()
        if branch not in self._lines:
            self._lines[branch] = line_of(self._branches, branch)
        return list(self._lines[branch])

    def _look(self) -> None:
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        rows = self._db.execute("SELECT body FROM branches ORDER BY rowid").fetchall()
        if rows != self._rows:
            found = [_branch.decode(body) for (body,) in rows]
            self._rows, self._branches, self._lines = rows, {branch.name: branch for branch in found}, {}
            self.generation += 1
        self._version = version
