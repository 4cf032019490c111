"""When each prompt was asked, so that the earlier answers to one are found without a search through all groups.

Few sessions ask for it, and keeping it up to date on the disk would cost each step more than reading it all once does.
So it is a temporary table, made when it is first needed and then brought up to date; a part at a time, because the
thread that reads also writes what the training keeps. It says nothing of branches, on which a step of one number may
have asked something else: whoever reads it looks at the group itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from sessions.branches import Segment
from sessions.group_rows import unpack
from sessions.records import Group

PART = 4000
"""Groups that are taken in at once: some 20 ms of work."""


class _Prompt(msgspec.Struct, array_like=True):
    """The first field of a group's body."""

    prompt_id: str


_prompt = msgspec.msgpack.Decoder(_Prompt)


class PromptIndex:
    """When each prompt was asked, of one connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._seen = -1
        self._made = False

    def _make(self) -> None:
        self._db.execute(
            "CREATE TEMP TABLE asked (prompt TEXT, step INTEGER, number INTEGER, PRIMARY KEY (prompt, step, number)) "
            "WITHOUT ROWID"
        )
        self._made = True
        if self._db.execute("SELECT 1 FROM sqlite_temp_master WHERE type='view' AND name='groups'").fetchone():
            # a database of an earlier version, which is only read: its rows have no numbers to go on from
            self._add(self._db.execute("SELECT 0, step, number, body FROM groups").fetchall())
            self._seen = 2**63 - 1

    def catch_up(self, most: int = PART) -> bool:
        """Take in groups that have come.

        :param most: so many of them.
        :returns: whether there are more.
        """
        if not self._made:
            self._make()
        rows = self._db.execute(
            "SELECT rowid, step, number, body FROM main.groups WHERE rowid>? ORDER BY rowid LIMIT ?",
            (self._seen, most),
        ).fetchall() if self._seen < 2**63 - 1 else []  # fmt: skip
        self._add(rows)
        return len(rows) == most

    def _add(self, rows: list[tuple[int, int, int, bytes]]) -> None:
        asked = ((_prompt.decode(body).prompt_id, step, number) for _, step, number, body in rows)
        self._db.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?, ?)", asked)
        if rows:
            self._seen = rows[-1][0]

    def groups(self, line: Iterable[Segment], prompt: str, last: int, limit: int) -> list[Group]:
        """The newest groups of a line that asked a prompt, the newest first; without what is kept for each token.

        :param last: step; none of a later one.
        :param limit: how many at most.
        """
        while self.catch_up():
            pass
        found: list[Group] = []
        for branch, after, end in reversed([*line]):
            rows = self._db.execute(
                "SELECT g.step, g.number, g.status, g.body FROM asked a CROSS JOIN groups g "
                "ON g.branch=? AND g.step=a.step AND g.number=a.number "
                "WHERE a.prompt=? AND a.step>? AND a.step<=? AND g.status!='discarded' "
                "ORDER BY a.step DESC, a.number DESC LIMIT ?",
                (branch, prompt, after, min(end, last), limit - len(found)),
            )
            found += [group for row in rows if (group := unpack(branch, *row)).prompt_id == prompt]
            if len(found) >= limit:
                break
        return found
