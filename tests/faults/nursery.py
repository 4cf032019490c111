"""Engines in processes of their own, forked from one that has imported torch already.

What runs in them is :func:`engine.__main__.main`, as in the product; only the second of importing is saved. A fault may
be laid into such a process before it begins: death at a chosen statement of SQLite, or at a chosen change of a file.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[2]
PRELOADED = [
    "engine.start",
    "engine.engine",
    "engine.plan",
    "torch._inductor.config",
    "transformers.models.llama.modeling_llama",
    "transformers.convert_slow_tokenizer",
    "tests.faults.nursery",
]


class Fault(msgspec.Struct, frozen=True):
    """Where a process kills itself.

    :ivar statement: before the n-th point of SQLite: two a statement, before it runs and after it has returned.
    :ivar file_change: before the n-th change of a file under ``folder``.
    :ivar counted: a file that gets the number of points passed, for a life without a death.
    """

    statement: int = 0
    file_change: int = 0
    folder: str = ""
    counted: str = ""


UNHURT = Fault()


def die() -> None:
    """As kill -9 does: nothing is flushed, nobody is told."""
    os.kill(os.getpid(), signal.SIGKILL)


class Points:
    """Counts, and dies at a chosen number."""

    def __init__(self, last: int, counted: str = "") -> None:
        self._last, self._counted, self.passed = last, counted, 0

    def reach(self) -> None:
        self.passed += 1
        if self.passed == self._last:
            die()
        if self._counted:
            Path(self._counted).write_text(str(self.passed))


def die_at_a_statement(points: Points) -> None:
    """Have every connection that the store opens count its statements, reading ones left out."""

    class Counted(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            return self._counted(sql, super().execute, sql, *arguments)

        def executemany(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            return self._counted(sql, super().executemany, sql, *arguments)

        def _counted(self, sql: str, run: Callable[..., sqlite3.Cursor], *arguments: Any) -> sqlite3.Cursor:
            if sql.lstrip()[:6].upper() == "SELECT":
                return run(*arguments)
            points.reach()
            cursor = run(*arguments)
            points.reach()  # after COMMIT: it is on disk, and nobody has been told
            return cursor

    plain = sqlite3.connect

    def connect(*arguments: Any, **named: Any) -> sqlite3.Connection:
        return plain(*arguments, **{"factory": Counted, **named})

    sqlite3.connect = connect  # type: ignore[assignment]


CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "shutil.rmtree"}
"""Audit events that change files; ``open`` is one too where it is for writing."""


def die_at_a_file_change(folder: str, points: Points) -> None:
    """Count everything Python does to files under a folder, and every sync."""
    plain = os.fsync

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _mode, flags = arguments
            if isinstance(path, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in CHANGES:
            return
        if os.fsdecode(arguments[0]).startswith(folder):
            points.reach()

    def fsync(descriptor: Any) -> None:
        points.reach()
        plain(descriptor)

    sys.addaudithook(hook)
    os.fsync = fsync


def lay(fault: Fault) -> None:
    """Lay a fault into this process."""
    if fault.file_change or (fault.counted and fault.folder):
        die_at_a_file_change(fault.folder, Points(fault.file_change, fault.counted))
    elif fault.statement or fault.counted:
        die_at_a_statement(Points(fault.statement, fault.counted))


def _engine(folder: str, environment: dict[str, str], fault: Fault) -> None:
    """In the new process."""
    os.chdir(ROOT)
    os.environ.update(environment)
    log = os.open(Path(folder) / "engine.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.setsid()
    lay(fault)
    from engine.__main__ import main
    from engine.log import keep_log

    keep_log()
    code = main([folder])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Nursery:
    """Starts and ends such processes."""

    def __init__(self) -> None:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._started: list[ForkServerProcess] = []

    def engine(self, folder: Path, fault: Fault = UNHURT) -> ForkServerProcess:
        """Start the engine of a session."""
        return self.start(_engine, str(folder), dict(os.environ), fault)

    def start(self, target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
        process = self._context.Process(target=target, args=arguments)
        process.start()
        self._started.append(process)
        return process

    def end_all(self) -> None:
        """Kill what still runs."""
        for process in self._started:
            if process.exitcode is None:
                process.kill()
            process.join(30)
            process.close()
        self._started.clear()

    def close(self) -> None:
        """End the process they are forked from."""
        self.end_all()
        multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]
