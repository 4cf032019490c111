"""``list`` and ``status``: what sessions there are, and how one is doing."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from typing import Any

import msgspec

from sessions.client import attached
from sessions.commands import QueryStatus
from sessions.errors import WorkbenchError
from sessions.folders import SessionFolder, all_sessions, session_folder
from sessions.task_kinds import listed_task
from workbench.daemon import last_step
from workbench.output import emit, say, show, size, table
from workbench.show import readable

PATIENCE_SECONDS = 3.0
"""An engine that answers nothing for so long, though it beats every second, counts as stale."""


def list_sessions(arguments: argparse.Namespace) -> int:
    """``workbench list``: every session, newest first."""
    rows = asyncio.run(_summaries(all_sessions()))
    if arguments.json:
        for row in rows:
            emit(json.dumps(row))
    elif rows:
        heading = ["session", "state", "step", "reward", "model", "task", "size"]
        lines = [
            [
                row["session"],
                row["state"],
                str(row["finished_steps"]) + (f"/{row['steps']}" if row["steps"] else ""),
                "" if row["reward"] is None else f"{row['reward']:.3f}",
                row["model"].rpartition("/")[2],
                listed_task(row["task"]),
                size(row["bytes"]),
            ]
            for row in rows
        ]
        emit(show(table([heading, *lines], frozenset({2, 3, 6}))))
    else:
        say("no sessions yet; `workbench run` starts one")
    return 0


async def _summaries(folders: list[SessionFolder]) -> list[dict[str, Any]]:
    return list(await asyncio.gather(*(_summary(folder) for folder in folders)))


async def _summary(folder: SessionFolder) -> dict[str, Any]:
    status = await _status(folder)
    row: dict[str, Any] = {
        "session": folder.name,
        "state": status["state"],
        "finished_steps": status.get("finished_steps", 0),
        "steps": 0,
        "reward": None,
        "model": "",
        "task": "",
        "bytes": folder.size(),
        "path": str(folder.path),
    }
    with contextlib.suppress(WorkbenchError):  # an unreadable session is still listed
        settings = folder.settings()
        row |= {"steps": settings.steps, "model": settings.model, "task": settings.task}
        if (last := last_step(folder)) is not None:
            row |= {"finished_steps": last.step, "reward": last.metrics.get("reward/mean")}
    return row


async def _status(folder: SessionFolder) -> dict[str, Any]:
    """The engine's status; without an engine, what its files say: DONE, FAILED or NEW."""
    if folder.running():
        engine = folder.engine()
        base: dict[str, Any] = {"session": folder.name}
        if engine is None:
            return base | {"state": "LOADING", "note": "the engine is starting"}
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), attached(engine.socket, "status", read_only=True) as client:
                status: dict[str, Any] = await client.query_json(QueryStatus())
                return base | {"state": "RUN", "phase": "idle", "step": 0, "finished_steps": 0, "steps": 0} | status
        except (TimeoutError, WorkbenchError) as error:
            why = str(error) or f"no answer within {PATIENCE_SECONDS:g} s"
            return base | {"state": "STALE", "pid": engine.pid, "note": f"{why}; its log: {folder.log}"}
    info = folder.exit()
    row: dict[str, Any] = {"session": folder.name, "state": "NEW", "finished_steps": 0}
    with contextlib.suppress(WorkbenchError):
        if (last := last_step(folder)) is not None:
            row["finished_steps"] = last.step
    if info is not None:
        row |= {"state": "DONE" if info.code == 0 else "FAILED", "cause": info.cause, "exit": msgspec.to_builtins(info)}
    elif folder.database.exists() and folder.engine() is None:  # it left in order; who watched it had died before
        row |= {"state": "DONE", "cause": "ended in order"}
    elif folder.database.exists():
        row |= {"state": "FAILED", "cause": "the engine left no word"}
    return row


def status(arguments: argparse.Namespace) -> int:
    """``workbench status``: state, phase and progress of one session."""
    found = asyncio.run(_status(session_folder(arguments.session)))
    emit(json.dumps(found) if arguments.json else show(readable(QueryStatus(), found)))
    return 0
