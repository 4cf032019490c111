"""``python -m engine SESSION_FOLDER``: the engine process of one session.

It takes the session's lock, opens its socket and only then loads torch, so that people can watch it load.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.hub import stay_offline
from engine.log import keep_log
from engine.words import one_line
from sessions.errors import SessionError, WorkbenchError
from sessions.folders import SessionFolder
from sessions.records import SessionSettings

if TYPE_CHECKING:
    from engine.control import Control
    from engine.knobs import Knobs
    from engine.learner import Learner

NICENESS = 10


def main(arguments: list[str]) -> int:
    """Train the session in that folder until it ends.

    :returns: the exit code: 0 ended in order, 1 failed, 2 it was asked for something that cannot be.
    """
    os.umask(0o077)  # what libraries write into checkpoints is nobody else's either
    folder = SessionFolder(Path(arguments[0]))
    try:
        settings = folder.settings()
        folder.secure()
        lock = folder.lock()
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    try:
        folder.tidy()
        _check_whole(folder)
        _prepare(settings)
        return asyncio.run(_serve(folder, settings))
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    finally:
        os.close(lock)


async def _serve(folder: SessionFolder, settings: SessionSettings) -> int:
    from engine.engine import Engine

    try:
        engine = Engine(folder, settings, build)
    except (sqlite3.Error, msgspec.MsgspecError, ValueError, LookupError) as error:
        raise SessionError(
            f"{folder.database}: is damaged, a record of it cannot be read ({one_line(error)}); "
            "put a whole copy of it in its place"
        ) from None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: engine.stop(now=False))
    await engine.serve()
    if engine.mirror.left_behind:  # what it registered for the end of the interpreter may never return either
        sys.stdout.flush()
        os._exit(engine.exit_code)
    return engine.exit_code


def build(settings: SessionSettings, control: Control, folder: SessionFolder) -> tuple[Learner, Knobs]:
    """Load torch, the task and the model, and go on from the newest checkpoint if there is one.

    What the libraries bring stays to the end, so no search for unreachable objects walks through it: that would take a
    fifth of the loading, and would hold every thread for a good part of a second now and then.
    """
    gc.disable()
    try:
        from engine.start import start
    finally:
        gc.freeze()
        gc.enable()
    return start(settings, control, folder)


def _check_whole(folder: SessionFolder) -> None:
    """Refuse a session whose records are gone: a new database would hide that its ratings are, too.

    :raises SessionError: if so.
    """
    if not folder.database.exists() and any(folder.checkpoints.glob("[0-9]*")):
        raise SessionError(
            f"{folder.database}: is missing, and with it every rating and record of this session; put it back, or give "
            f"a folder `policy` of {folder.checkpoints} to `workbench run --model` to start another from its weights"
        )


def _prepare(settings: SessionSettings) -> None:
    """What must be settled before torch is imported."""
    cores = os.cpu_count() or 1
    threads = settings.threads or max(1, cores // 2 if cores > 4 else cores - 1)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    stay_offline()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if settings.nice and cores <= 2:
        os.nice(NICENESS)
        # a session of its own is scheduled as one group, whose weight is set here and not by nice
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(NICENESS))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("error: usage: python -m engine SESSION_FOLDER", file=sys.stderr)
        sys.exit(2)
    keep_log()
    sys.exit(main(sys.argv[1:]))
