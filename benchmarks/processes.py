"""Engines and screens in processes of their own, and the processor time that they take. Linux only.

Processor time is read from the clocks that the kernel keeps for each process and thread, to the nanosecond; those of
an engine's threads by the engine's own process (:mod:`benchmarks.timed_engine`), which alone may read them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from benchmarks.measure import ONE_THREAD, ROOT
from sessions.folders import SessionFolder, new_session
from sessions.records import SessionSettings
from sessions.store import Store
from workbench.daemon import until_ready

WORKBENCH = [sys.executable, "-m", "workbench"]
UNANSWERED = 2000.0
"""Milliseconds after which a key counts as unanswered."""
START_SECONDS = 120.0
"""For torch and a model to load, on a busy machine."""


def environment() -> dict[str, str]:
    """Of a measured process: one thread of torch, and this checkout's packages."""
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, **ONE_THREAD, "PYTHONPATH": path}


def process_seconds(pid: int) -> float:
    """Processor time of all threads of a process so far.

    :raises ProcessLookupError: if it has gone.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid(3) gives
    except OSError:
        raise ProcessLookupError(f"no process {pid}") from None


def resident_bytes(pid: int) -> int:
    """Memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Look ten times a second.

    :raises TimeoutError: naming ``what`` did not come.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)


@contextlib.contextmanager
def own_home() -> Iterator[Path]:
    """A ``WORKBENCH_HOME`` that is removed again, also when the benchmark is told to end."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = os.environ.get("WORKBENCH_HOME")
    handlers = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    home = Path(tempfile.mkdtemp(prefix="workbench-benchmark-"))
    os.environ["WORKBENCH_HOME"] = str(home)
    try:
        yield home
    finally:
        if before is None:
            del os.environ["WORKBENCH_HOME"]
        else:
            os.environ["WORKBENCH_HOME"] = before
        shutil.rmtree(home, ignore_errors=True)
        for number, handler in handlers.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------------------------------------------- engines


class EngineProcess:
    """An engine that trains until it is left, as a context manager.

    :param settings: of a session that is made for it; or the folder of one that it goes on with.
    :raises TimeoutError: on entering, if it does not come up; its log is then in the message.
    """

    def __init__(self, settings: SessionSettings | SessionFolder) -> None:
        self.folder = settings if isinstance(settings, SessionFolder) else new_session(settings.name, settings)
        ours, theirs = socket.socketpair()
        with theirs, self.folder.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.timed_engine", str(self.folder.path), str(theirs.fileno())],
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._lines = ours.makefile("rwb")
        ours.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._lines.close()

    def until_ended(self, seconds: float) -> None:
        """Wait for a session that has its number of steps.

        :raises RuntimeError: with the end of its log, if it fails.
        """
        if self._process.wait(seconds):
            raise RuntimeError("\n".join(["the engine has failed:", *self.folder.log_tail(15)]))

    def until_step(self, step: int, seconds: float = START_SECONDS) -> None:
        """Wait until a step is recorded.

        :raises TimeoutError: with the end of its log, if it is not.
        """
        self._until(lambda: self.last_step() >= step, f"step {step}", seconds)

    def until_ready(self) -> None:
        """Wait until it has loaded its model.

        :raises EngineEnded: if it fails before.
        """
        asyncio.run(until_ready(self.folder, self._process, lambda _: None))

    def _until(self, condition: Callable[[], object], what: str, seconds: float) -> None:
        def ready() -> object:
            if self._process.poll() is not None:
                raise RuntimeError("\n".join(["the engine has ended:", *self.folder.log_tail(15)]))
            return condition()

        wait_until(ready, seconds, f"{what} of {self.folder.name}")

    def last_step(self) -> int:
        """The newest recorded step; 0 if there is none."""
        times = self.step_times()
        return max(times, default=0)

    def step_times(self) -> dict[int, float]:
        """When each recorded step was done, seconds since the epoch."""
        if not self.folder.database.exists():
            return {}
        try:
            store = Store(self.folder.database, read_only=True)
        except Exception:  # noqa: BLE001 - it is just being made
            return {}
        try:
            return {record.step: record.time for record in store.steps("main")}
        finally:
            store.close()

    def thread_seconds(self) -> dict[str, float]:
        """Processor time of each thread so far, by its name; of those that are not Python's together, as ``native``."""
        self._lines.write(b"\n")
        self._lines.flush()
        answer: dict[str, float] = json.loads(self._lines.readline())
        return answer


# ---------------------------------------------------------------------------------------------------- screens


class Terminal:
    """A command behind a pseudo-terminal of some size."""

    def __init__(self, command: Sequence[str], columns: int, rows: int) -> None:
        self.began = time.monotonic()
        surroundings = environment() | {"TERM": "xterm-256color", "LANG": "C.UTF-8", "COLORTERM": "truecolor"}
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], list(command), surroundings)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def read(self, timeout: float) -> bytes:
        """What the command has written; empty when nothing came in time."""
        ready, _, _ = select.select([self.fd], [], [], timeout)
        try:
            return os.read(self.fd, 1 << 16) if ready else b""
        except OSError:
            return b""

    def until(self, *texts: bytes, any_of: Sequence[str] = (), seconds: float = 30.0) -> float:
        """Read until the output holds all of the texts, and one of ``any_of``; the seconds since the start.

        :raises TimeoutError: naming those that did not come.
        """
        seen = b""
        either = [text.encode() for text in any_of] or [b""]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            seen += self.read(0.1)
            if all(text in seen for text in texts) and any(text in seen for text in either):
                return time.monotonic() - self.began
        missing = [text for text in texts if text not in seen] or either
        raise TimeoutError(f"{missing!r} did not appear within {seconds} s; last output: {seen[-300:]!r}")

    def drain(self, seconds: float) -> int:
        """Read for so long; the bytes that came."""
        total, deadline = 0, time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            total += len(self.read(left))
        return total

    def key(self, key: bytes, expected: bytes) -> float:
        """Milliseconds from a key to output that holds ``expected``; :data:`UNANSWERED` where none came."""
        began = time.perf_counter()
        os.write(self.fd, key)
        seen = b""
        while time.perf_counter() - began < UNANSWERED / 1000:
            seen += self.read(0.05)
            if expected in seen:
                return 1000 * (time.perf_counter() - began)
        return UNANSWERED

    def close(self) -> None:
        """Leave the app, or hang up on it."""
        with contextlib.suppress(OSError):
            os.write(self.fd, b"q")
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            self.read(0.05)
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                break
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


class Screens:
    """Any number of attached screens, whose terminals a thread reads, as a context manager.

    :param session: what they attach to.
    """

    def __init__(self, session: str, columns: int, rows: int) -> None:
        self._session, self._columns, self._rows = session, columns, rows
        self.attached: list[Terminal] = []
        self._reading = threading.Lock()
        self._stopped = threading.Event()
        self._reader = threading.Thread(target=self._read, name="terminals", daemon=True)

    def __enter__(self) -> Screens:
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stopped.set()
        self._reader.join()
        for terminal in self.attached:
            terminal.close()

    def show(self, count: int) -> None:
        """Attach screens, or leave some, until there are so many, each with a painted dashboard."""
        while len(self.attached) > count:
            with self._reading:
                left = self.attached.pop()
            left.close()
        while len(self.attached) < count:
            terminal = Terminal([*WORKBENCH, "attach", self._session], self._columns, self._rows)
            try:
                terminal.until(b"reward", seconds=60)
            except BaseException:
                terminal.close()
                raise
            self.attached.append(terminal)

    def press(self, key: bytes) -> None:
        """Press a key on every screen."""
        for terminal in self.attached:
            os.write(terminal.fd, key)

    def seconds(self) -> float:
        """Processor time of the attached screens so far, all together."""
        return sum(process_seconds(terminal.pid) for terminal in self.attached)

    def _read(self) -> None:
        while not self._stopped.wait(0.05):
            with self._reading:
                for terminal in self.attached:
                    terminal.read(0.0)
