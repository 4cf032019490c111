"""Starting engines and waiting for them: each lives in a process of its own, under a small supervisor."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sessions import private
from sessions.client import Client
from sessions.errors import EngineEnded, EngineUnreachable, SessionRunning
from sessions.folders import ExitInfo, SessionFolder, home, new_session
from sessions.records import SessionSettings, Status, StepRecord
from sessions.starts import Source, note_start
from sessions.store import Store
from sessions.wire import Beat, Snapshot
from workbench.settings import check_settings

LAST_WORDS_SECONDS = 10.0
"""How long a supervisor may take to write how its engine ended."""
_supervisors: list[subprocess.Popen[bytes]] = []


def start_engine(folder: SessionFolder, source: Source | None = None) -> subprocess.Popen[bytes]:
    """Start a session's engine, in a session of its own so that no terminal can end it.

    :param source: where its settings came from, for the record.
    :returns: its supervisor, which ends when the engine has ended.
    :raises SessionRunning: if it has one.
    :raises SessionError: if something in its folder is not this user's alone.
    """
    if folder.running():
        raise SessionRunning(f"session {folder.name!r} is running; `workbench attach {folder.name}` shows it")
    folder.secure()
    folder.forget_exit()
    folder.forget_engine()
    note_start(folder, source)
    _supervisors[:] = [process for process in _supervisors if process.poll() is None]  # reaps those that have ended
    with open(private.open_file(folder.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-P", "-m", "workbench.supervise", str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _supervisors.append(supervisor)
    return supervisor


async def start_session(settings: SessionSettings) -> SessionFolder:
    """Make a session and start its engine, for the session list; without a name it is numbered.

    :raises WorkbenchError: if the settings are wrong or the name is taken.
    """
    folder = new_session(settings.name or None, check_settings(settings))
    start_engine(folder)
    return folder


async def restart_session(folder: SessionFolder) -> None:
    """Start an engine for a session that has none: it goes on from its last checkpoint."""
    start_engine(folder)


async def until_ready(
    folder: SessionFolder, supervisor: subprocess.Popen[bytes], report: Callable[[Status | None], None]
) -> None:
    """Wait until the engine has loaded its model.

    :param report: called now and then: with None until the engine answers, then with its status.
    :raises EngineEnded: if it fails before. One that had nothing left to do has ended in order.
    """
    while supervisor.poll() is None:
        report(None)
        engine = folder.engine()
        if engine is not None:
            try:
                if await _loaded(engine.socket, report):
                    return
            except EngineUnreachable:
                pass  # between engine.json and its socket, or it has ended: the supervisor tells
        await asyncio.sleep(0.05)
    info = folder.exit()
    if info is None or info.code != 0:
        raise died(folder)


async def _loaded(socket: str, report: Callable[[Status | None], None]) -> bool:
    async with Client(socket, "front door", read_only=True) as client:
        async for message in client.messages():
            if isinstance(message, Snapshot | Beat):
                report(message.status)
                if message.status.state not in ("LOADING", "FAILED"):  # one that failed is about to end
                    return True
    return False


def died(folder: SessionFolder) -> EngineEnded:
    """The error that says how a session's engine ended."""
    info = folder.exit()
    if info is None:
        return EngineEnded(f"the engine of {folder.name!r} ended and left no word; its log: {folder.log}", None)
    return EngineEnded(info.cause, info.code)


async def until_ended(folder: SessionFolder) -> ExitInfo | None:
    """Wait until no engine holds the session; how it ended, if that can be known.

    An engine that left in order takes its address with it, and on a busy machine its process may then need longer
    to be torn down than anybody should wait.
    """
    while folder.running():
        await asyncio.sleep(0.05)
    until = time.monotonic() + LAST_WORDS_SECONDS
    while (info := folder.exit()) is None and time.monotonic() < until:
        await asyncio.sleep(0.05)
    if info is None and folder.database.exists() and folder.engine() is None:
        now = time.time()
        return ExitInfo(
            pid=0, code=0, signal="", out_of_memory=False, peak_memory_bytes=0, started=now, ended=now,
            cause="ended in order",
        )  # fmt: skip
    return info


def last_step(folder: SessionFolder) -> StepRecord | None:
    """The last recorded step of the branch that the session trains."""
    if not folder.database.exists():
        return None
    store = Store(folder.database, read_only=True)
    try:
        return store.last_step(store.active)
    finally:
        store.close()


def last_seq(folder: SessionFolder) -> int:
    """Number of the session's last recorded event; 0 for a new session."""
    if not folder.database.exists():
        return 0
    store = Store(folder.database, read_only=True)
    try:
        return store.last_seq()
    finally:
        store.close()


def discard(folder: SessionFolder) -> Path | None:
    """Remove a new session whose engine never ran a step; its log stays in the home as ``failed-start.log``.

    :returns: where the log is; None if there is none to keep, or the session has something worth keeping.
    """
    if folder.running() or last_step(folder) is not None:
        return None
    kept = None
    if folder.log_tail(1):
        kept = home() / "failed-start.log"
        kept.unlink(missing_ok=True)  # a link by that name is replaced, not written through
        with (
            open(private.open_file(folder.log), "rb") as log,
            open(private.open_file(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as copy,
        ):
            shutil.copyfileobj(log, copy)
    shutil.rmtree(folder.path, ignore_errors=True)
    return kept
