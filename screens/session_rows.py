"""What the list of sessions knows of each: read from its folder and database, and asked of its engine if it has one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from screens.numbers import short, size, span
from screens.widgets.line_table import Row
from sessions.client import attached
from sessions.commands import QueryStatus
from sessions.errors import WorkbenchError
from sessions.folders import SessionFolder, all_sessions
from sessions.records import WARM_UP, Status
from sessions.store import Store
from sessions.task_kinds import listed_task

ANSWER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SessionLine:
    """One session.

    :ivar best: (step, mean reward) of its best step.
    :ivar changed: when it last did something.
    """

    name: str
    state: str
    step: int
    best: tuple[int, float] | None
    model: str
    task: str
    changed: float
    bytes: int
    problem: str = ""

    def row(self, now: float) -> Row:
        """As a row of the table."""
        best = f"{short(self.best[1])} @{self.best[0]}" if self.best else "-"
        cells = (
            self.name, self.state, str(self.step), best, self.model, self.task, span(now - self.changed),
            size(self.bytes),
        )  # fmt: skip
        tone = {"RUN": "good", "PAUSED": "warn", "WAIT": "warn", "FAILED": "bad", "?": "bad"}.get(self.state, "")
        return Row(self.name, cells, tone)


def read_session(folder: SessionFolder) -> SessionLine:
    """What the disk knows; blocking."""
    problem, model, task = "", "?", "?"
    try:
        settings = folder.settings()
        model, task = settings.model, listed_task(settings.task)
    except WorkbenchError as error:
        problem = str(error)
    step, best, changed = 0, None, folder.changed() or time.time()
    if folder.database.exists():
        try:
            store = Store(folder.database, read_only=True)
            try:
                last = store.last_step(store.active)
                if last is not None:
                    step, changed = last.step, max(changed, last.time)
                best = _best(store)
            finally:
                store.close()
        except WorkbenchError as error:
            problem = str(error)
    if folder.running():
        state = "RUN"
    else:
        ended = folder.exit()
        if ended is not None:
            changed = max(changed, ended.ended)
        code = ended.code if ended else 0 if folder.engine() is None else None  # it left in order, or without a word
        state = "?" if problem else "new" if ended is None and not step else _ended(code)
    return SessionLine(folder.name, state, step, best, model, task, changed, folder.size(), problem)


def _ended(code: int | None) -> str:
    return "DONE" if code == 0 else "FAILED"


def _best(store: Store) -> tuple[int, float] | None:
    rewards = store.series(store.active).get("reward/mean")
    if rewards is None:
        return None
    known = [(v, s) for s, v in zip(rewards.steps, rewards.values, strict=True) if v is not None]
    return max(known)[::-1] if known else None


async def engine_status(folder: SessionFolder) -> Status | None:
    """What a running engine says of itself; None if it does not say so soon."""
    engine = await asyncio.to_thread(folder.engine)
    if engine is None:
        return None
    try:
        async with asyncio.timeout(ANSWER_SECONDS), attached(engine.socket, "list", read_only=True) as client:
            return await client.query(QueryStatus(), Status)
    except (WorkbenchError, TimeoutError):
        return None


async def session_lines() -> list[SessionLine]:
    """Every session on this machine: the running ones first, then the newest."""
    folders = await asyncio.to_thread(all_sessions)
    lines = []
    for folder in folders:
        line = await asyncio.to_thread(read_session, folder)
        if line.state == "RUN":
            status = await engine_status(folder)
            if status is not None:
                line = _with(line, status)
        lines.append(line)
    return sorted(lines, key=lambda line: (line.state in ("DONE", "FAILED", "new", "?"), -line.changed))


def _with(line: SessionLine, status: Status) -> SessionLine:
    step = 0 if status.branch == WARM_UP else status.step  # that has steps of its own
    return SessionLine(
        line.name, status.state, step, line.best, line.model, line.task, status.time, line.bytes, line.problem
    )
