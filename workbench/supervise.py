"""The engine's small parent: ``python -m workbench.supervise SESSION_DIR``.

It starts the engine, hands SIGTERM on to it, outlives the terminal, and writes ``exit.json`` when the engine has
ended, however it ended. It never imports torch, so it costs a few megabytes.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from sessions.folders import ExitInfo, SessionFolder

LAST_LINES = 10


def engine_command(folder: SessionFolder) -> list[str]:
    """What starts the engine. ``-P``: a file called ``engine.py`` where the person stands is not the engine."""
    return [sys.executable, "-P", "-m", "engine", str(folder.path)]


def supervise(folder: SessionFolder, command: Sequence[str]) -> ExitInfo:
    """Run the engine to its end and write down how it ended."""
    started = time.time()
    log_start = folder.log.stat().st_size if folder.log.exists() else 0
    kills = _Kills()
    engine: subprocess.Popen[bytes] | None = None
    asked_to_end = False

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal asked_to_end
        asked_to_end = True
        if engine is not None:
            with contextlib.suppress(ProcessLookupError):
                engine.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited: neither goes when a terminal does
    folder.forget_exit()
    engine = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    if asked_to_end:  # while it was being started
        engine.terminate()
    code = engine.wait()

    name = signal.Signals(-code).name if code < 0 else ""
    out_of_memory = name == "SIGKILL" and kills.happened()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    info = ExitInfo(
        pid=engine.pid,
        code=code if code >= 0 else None,
        signal=name,
        out_of_memory=out_of_memory,
        peak_memory_bytes=peak,
        started=started,
        ended=time.time(),
        cause=cause_of(code, name, out_of_memory, peak, _last_lines(folder.log, log_start)),
    )
    _clean_up(folder)
    folder.write_exit(info)
    return info


def cause_of(code: int, name: str, out_of_memory: bool, peak: int, last_lines: Sequence[str]) -> str:
    """How an engine ended, in one line for people.

    :param code: as :class:`subprocess.Popen` has it: negative for a signal.
    :param name: of that signal.
    :param peak: most memory it held, in bytes.
    :param last_lines: of its log; one that begins with ``error: `` is the engine's own word. It need not be the very
        last: an interpreter that is torn down may have complaints of its own.
    """
    words = [line for line in last_lines if line.startswith("error: ")]
    if words and code > 0:
        return words[-1].removeprefix("error: ")
    if out_of_memory:
        return (
            f"the system ran out of memory and killed the engine, which held {peak / 1e9:.1f} GB; "
            "lower max_new_tokens, group_size or prompts_per_step"
        )
    if name:
        return f"killed by {name}"
    if code == 0:
        return "ended in order"
    return f"exit code {code}" + (f": {last_lines[-1]}" if last_lines else "")


def _last_lines(log: Path, start: int) -> list[str]:
    """The last lines that this engine wrote to its log, empty ones left out."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip()[:1000] for line in text.splitlines() if line.strip()][-LAST_LINES:]


def _clean_up(folder: SessionFolder) -> None:
    """Remove what a killed engine could not, unless another one serves the session by now."""
    engine = folder.engine()
    if engine is not None and not folder.running():
        folder.forget_engine()
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.lstat(engine.socket).st_mode):  # engine.json is only a file: never remove another one
                os.unlink(engine.socket)


class _Kills:
    """Whether the system has killed a process for memory since this object was made.

    The control group's own counter where there is one, else the machine's.
    """

    def __init__(self) -> None:
        self._sources = [path for path in (_control_group(), Path("/proc/vmstat")) if path is not None]
        self._before = [_counter(path) for path in self._sources]

    def happened(self) -> bool:
        return any(_counter(path) > before for path, before in zip(self._sources, self._before, strict=True))


def _control_group() -> Path | None:
    try:
        line = Path("/proc/self/cgroup").read_text().strip().splitlines()[-1]
    except (OSError, IndexError):
        return None
    path = Path("/sys/fs/cgroup") / line.split(":")[-1].lstrip("/") / "memory.events"
    return path if path.exists() else None


def _counter(path: Path) -> int:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return 0


def main() -> int:
    """Supervise the session named on the command line."""
    os.umask(0o077)
    folder = SessionFolder(Path(sys.argv[1]).absolute())
    if folder.running():
        print(f"error: session {folder.name!r} already has an engine", file=sys.stderr, flush=True)
        return 1
    info = supervise(folder, engine_command(folder))
    return 1 if info.code is None else info.code


if __name__ == "__main__":
    sys.exit(main())
