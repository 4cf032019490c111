"""The engine's side of the process that runs reward functions (:mod:`engine.rewards.worker`).

It is started when it is needed, ended when it takes too long or too much memory, and started again; after
:data:`MOST_ENDS` ends in a row by one function nothing is asked of it any more until the next step.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.hub import own_environment
from engine.rewards import worker
from engine.rewards.component import Failed
from engine.rewards.output import copy_output

MOST_ENDS = 3
"""Times in a row that the process may end while one function is asked; others may answer in between."""
LONGEST_ANSWER = 16 * 2**20
"""Bytes."""
MEMORY_SHARE = 0.5
"""Of the machine's memory that the process may hold."""
LOOK_SECONDS = 0.2
"""Between two looks at the memory of a process that has not answered yet."""
END_SECONDS = 2.0
"""That the guard may take to end everything."""


@dataclass(frozen=True, slots=True)
class NamedFunction:
    """A reward function to be loaded.

    :ivar name: of the component.
    :ivar where: a module, or the path of a file.
    :ivar source: of the file: what is run, also where the file changes meanwhile; None of a module.
    """

    name: str
    where: str
    function: str
    source: str | None = None


class Ended(Exception):
    """The process is gone; the message says how."""


class RewardProcess:
    """Runs reward functions somewhere else. Calls come one at a time, from any thread.

    :param columns: of the data set: what functions may be given by name.
    :param folder: in which it works and where modules are looked for, after the folders of the functions' files; empty:
        that of the first file.
    :param timeout: seconds for a call, and for loading.
    :param say: takes what functions print, line by line.
    :ivar code: component -> hash of the code that is loaded; empty where it has none.
    :ivar stopped: why nothing is asked any more in this step; empty while things are.
    """

    def __init__(
        self,
        functions: Sequence[NamedFunction],
        columns: Sequence[str] = (),
        folder: str = "",
        timeout: float = 60.0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.functions, self._columns = list(functions), list(columns)
        self._folder, self._timeout = folder or _folder_of(functions), timeout
        self._say = say or _print
        self._places = {function.name: place for place, function in enumerate(self.functions)}
        self._one_at_a_time = threading.Lock()
        self._life = threading.Lock()
        self._running: _Running | None = None
        self._asked = 0
        self._ends: dict[str, int] = {}
        self._left = self._closed = self._retired = False
        self.code: dict[str, str] = {}
        self.stopped = ""

    def start(self) -> None:
        """Start it and load the functions.

        :raises Failed: saying in one line which cannot be used, and why.
        """
        with self._one_at_a_time:
            try:
                self._begin()
            except Ended as error:
                raise Failed(f"{self.functions[0].where}: while it was loaded, {error}") from None

    def call(self, name: str, arguments: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
        """Ask one function.

        :param arguments: keyword arguments, one list each.
        :param state: attributes of ``trainer_state``.
        :returns: a number, None or a :class:`Failed` for each completion; and (name, value) of logged metrics.
        :raises Failed: if it has not answered as it should.
        """
        with self._one_at_a_time:
            self._left = False
            if self.stopped or self._closed:
                raise Failed(f"not asked: {self.stopped or 'the session ends'}")
            try:
                if self._running is None:
                    self._begin()
                request = {"do": "call", "at": self._places[name], "arguments": dict(arguments), "state": dict(state)}
                answer = self._ask(request)
            except Ended as error:
                self._count_end(name, str(error))
                raise Failed(str(error)) from None
            finally:
                if self._retired:
                    self.close()
            self._ends[name] = 0
        if "failed" in answer:
            raise Failed(str(answer["failed"]))
        return self._read(answer, len(arguments["completions"]))

    def _read(self, answer: Mapping[str, Any], count: int) -> tuple[list[Any], list[Any]]:
        values, wrong = answer.get("values"), answer.get("wrong")
        metrics = answer.get("metrics")
        if not (isinstance(values, list) and len(values) == count and isinstance(wrong, dict)):
            raise Failed("its process has answered something else")
        read = [Failed(str(wrong[str(i)])) if str(i) in wrong else value for i, value in enumerate(values)]
        return read, metrics if isinstance(metrics, list) else []

    def begin_step(self) -> None:
        """A step begins: what ended too often may be tried again."""
        self.stopped, self._ends = "", {}

    def leave(self) -> None:
        """Nobody wants the answer that is awaited any more: end the process, so that the next call need not wait."""
        with self._life:
            self._left = True
            if self._running is not None and self._running.busy:
                self._running.end()
                self._running = None  # its answer may just have come, and then nobody else finds out that it ended

    def retire(self) -> None:
        """Another has taken its place: end it, after the call that is under way."""
        self._retired = True
        if self._one_at_a_time.acquire(blocking=False):
            try:
                self.close()
            finally:
                self._one_at_a_time.release()

    def close(self) -> None:
        """End it for ever, also inside a call."""
        self._closed = True
        with self._life:
            if self._running is not None:
                self._running.end()
                self._running = None

    @property
    def pid(self) -> int:
        """Of the process that runs functions; 0 while there is none."""
        running = self._running
        return running.pid if running is not None else 0

    # ------------------------------------------------------------------------------------------- inside

    def _begin(self) -> None:
        """:raises Failed: if a function cannot be loaded; :raises Ended: if the process ends meanwhile."""
        with self._life:
            if self._closed:
                raise Ended("the session ends")
            self._running = running = _Running(self._folder, self._say)
        folders = [str(Path(f.where).parent) for f in self.functions if f.source is not None]
        request = {
            "do": "load",
            "path": list(dict.fromkeys([*folders, self._folder])),
            "columns": self._columns,
            "functions": [
                {"name": f.name, "where": f.where, "function": f.function, "source": f.source} for f in self.functions
            ],
        }
        answer = self._ask(request)
        if "failed" in answer:
            self._end(running)
            raise Failed(str(answer["failed"]))
        self.code = {f.name: str(code) for f, code in zip(self.functions, answer["code"], strict=True)}

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """:raises Ended: after ending the process, if no answer comes."""
        running = self._running
        if running is None:
            raise Ended("nobody waits for the answer any more")
        self._asked += 1
        try:
            line = json.dumps({**request, "id": self._asked}, default=_plain).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise Failed(f"a column of the data set cannot be handed over: {worker.one_line(error)}") from None
        try:
            return running.ask(line, self._asked, self._timeout)
        except Ended:
            self._end(running)
            raise

    def _end(self, running: _Running) -> None:
        with self._life:
            running.end()
            if self._running is running:
                self._running = None

    def _count_end(self, name: str, how: str) -> None:
        """Count for each function: another one that answers in between does not make this one better."""
        if self._left or self._closed:
            return
        self._ends[name] = ends = self._ends.get(name, 0) + 1
        if ends >= MOST_ENDS:
            self.stopped = f"{name} was ended {ends} times in a row; the last time {how}"


class _Running:
    """One life of the process."""

    def __init__(self, folder: str, say: Callable[[str], None]) -> None:
        requests_there, requests = os.pipe()
        answers, answers_there = os.pipe()
        life_there, self._life = os.pipe()
        output, output_there = os.pipe()
        theirs = (requests_there, answers_there, life_there)
        self.busy = False
        self.pid = 0
        self._requests, self._answers, self._buffer = requests, answers, b""
        os.set_blocking(requests, False)
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-P", worker.__file__, *map(str, theirs)],
                stdin=subprocess.DEVNULL,
                stdout=output_there,
                stderr=output_there,
                pass_fds=theirs,
                cwd=folder if os.path.isdir(folder) else None,
                start_new_session=True,
                env=own_environment(),
            )
        finally:
            _close(*theirs, output_there)
        threading.Thread(target=copy_output, args=(output, say), name="reward output", daemon=True).start()
        # an engine that forgets it closes its end of the pipe, and the guard does the rest
        self._hang_up = weakref.finalize(self, _close, self._life)
        weakref.finalize(self, _close, requests, answers)  # not before nobody waits for an answer any more

    def ask(self, line: bytes, number: int, timeout: float) -> dict[str, Any]:
        """Send a line and wait for its answer.

        :raises Ended: saying why there is none; the process may still be there.
        """
        until = time.monotonic() + timeout
        self.busy = True
        try:
            self._send(line, until)
            while True:
                answer = self._line(until, timeout)
                if "pid" in answer:
                    self.pid = int(answer["pid"])
                elif answer.get("id") == number:
                    return answer
        except TimeoutError:
            raise Ended(f"it took longer than {timeout:g} s (--reward-timeout) and was ended") from None
        except (OSError, ValueError, AttributeError) as error:
            how = self._how_it_ended()
            raise Ended(
                how or f"its process was ended: it has answered something else ({type(error).__name__})"
            ) from None
        finally:
            self.busy = False

    def _send(self, line: bytes, until: float) -> None:
        left = memoryview(line)
        while left:
            if not _ready(self._requests, select.POLLOUT, until - time.monotonic()):
                raise TimeoutError
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(self._requests, left[: 2**16]) :]

    def _line(self, until: float, timeout: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if not _ready(self._answers, select.POLLIN, min(left, LOOK_SECONDS)):
                self._look_at_memory()
                if self._guard.poll() is not None:
                    raise ConnectionError
                continue
            part = os.read(self._answers, 2**20)
            if not part:
                raise ConnectionError
            self._buffer += part
            if len(self._buffer) > LONGEST_ANSWER:
                raise ValueError
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError
        return answer

    def _look_at_memory(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        try:
            held = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * page
        except (OSError, IndexError, ValueError):
            return
        if held > MEMORY_SHARE * page * os.sysconf("SC_PHYS_PAGES"):
            raise Ended(f"its process held {held / 1e9:.1f} GB, over half of the machine's memory, and was ended")

    def _how_it_ended(self) -> str:
        """In words; empty while it has not."""
        try:
            code = self._guard.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return ""
        if code == worker.CLOSED:
            return "its process ended: the function has closed files that are not its own"
        number = code - 128 if code > 128 else -code
        with contextlib.suppress(ValueError):
            if number > 0:
                return f"its process was ended by {signal.Signals(number).name}"
        return f"its process ended with exit code {code}"

    def end(self) -> None:
        """End the process and all that it has started."""
        self._hang_up()
        try:
            self._guard.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(self._guard.pid, signal.SIGKILL)
            self._guard.wait()


def _close(*files: int) -> None:
    for file in files:
        os.close(file)


def _ready(file: int, event: int, seconds: float) -> bool:
    """Whether a pipe can be read or written within so many seconds."""
    poll = select.poll()
    poll.register(file, event)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def _folder_of(functions: Sequence[NamedFunction]) -> str:
    return next((str(Path(f.where).parent) for f in functions if f.source is not None), "") or os.getcwd()


def _plain(value: Any) -> Any:
    """What JSON has no word for: arrays and scalars of numpy as lists and numbers, all else as text."""
    for name in ("tolist", "isoformat"):
        if callable(method := getattr(value, name, None)):
            return method()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return list(value)
    return str(value)


def _print(line: str) -> None:
    print(f"reward| {line}", flush=True)
