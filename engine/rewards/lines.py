"""A program that answers lines with lines, held to a time limit and never left behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

from engine.hub import own_environment

GUARD = Path(__file__).with_name("guard.py")
MOST_ANSWER = 2**20
"""Bytes of one answer."""
_PIECE = 2**16


class NoAnswer(Exception):
    """The program gave no answer that can be used; ``str`` is one line that says why. It has been ended."""


class Program:
    """One program, started when it is first asked, and again after it ended or had to be ended.

    Its standard error is that of this process. Safe to use from several threads: one question at a time.

    :param command: the program and its arguments.
    :param folder: where it runs; empty: where this process does.
    """

    def __init__(self, command: Sequence[str], folder: str = "") -> None:
        self._command, self._folder = list(command), folder
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._finalizer: weakref.finalize | None = None  # type: ignore[type-arg]

    def ask(self, line: bytes, seconds: float) -> bytes:
        """One line in, one line out, both without their ends.

        :param seconds: from the question to the whole answer; starting the program is part of it.
        :raises NoAnswer: if it ended, took too long, said too much or said something before it was asked.
        """
        with self._lock:
            if self._running is None:
                self._running = _start(self._command, self._folder)
                self._finalizer = weakref.finalize(self, self._running.end, now=False)
            try:
                return self._running.ask(line + b"\n", time.monotonic() + seconds, seconds)
            except BaseException:
                self._end(now=True)
                raise

    def close(self, *, now: bool = False) -> None:
        """End it, with a moment to leave by itself or at once."""
        with self._lock:
            self._end(now=now)

    def _end(self, *, now: bool) -> None:
        running, self._running = self._running, None
        if running is not None:
            if self._finalizer is not None:
                self._finalizer.detach()
            running.end(now=now)

    @property
    def pid(self) -> int | None:
        """Of the guard in front of it; None while nothing runs."""
        return self._running.guard.pid if self._running else None


class _Running:
    def __init__(self, guard: subprocess.Popen[bytes], life: int) -> None:
        assert guard.stdin is not None
        assert guard.stdout is not None
        self.guard, self._life = guard, life
        self._ending, self._ended = threading.Lock(), False
        self._in, self._out = guard.stdin.fileno(), guard.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)

    def ask(self, question: bytes, end: float, seconds: float) -> bytes:
        left, answer = memoryview(question), bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(self._out, selectors.EVENT_READ)
            if ready.select(0):
                self._more(answer, b"")
                raise NoAnswer(f"it said {_start_of(answer)} before it was asked; print what is for people to stderr")
            ready.register(self._in, selectors.EVENT_WRITE)
            while b"\n" not in answer:
                events = ready.select(max(0.0, end - time.monotonic()))
                if not events:
                    raise NoAnswer(
                        f"it did not answer within {seconds:g} s and was killed; the next group starts it again"
                    )
                for key, _ in events:
                    if key.fd == self._out:
                        self._more(answer, question)
                        continue
                    try:
                        left = left[os.write(self._in, left[:_PIECE]) :]
                    except BrokenPipeError:
                        left = left[len(left) :]  # why it closed its end is seen at the other one
                    if not left:
                        ready.unregister(self._in)
        said, _, rest = bytes(answer).partition(b"\n")
        if rest:
            raise NoAnswer(f"it said {_start_of(rest)} after its answer; one line is expected for one group")
        return said

    def _more(self, answer: bytearray, question: bytes) -> None:
        piece = os.read(self._out, _PIECE)
        if not piece:
            raise NoAnswer(f"it ended ({self._how_it_ended()}) before it answered; it has to go on reading lines")
        answer += piece
        if len(answer) > MOST_ANSWER:
            raise NoAnswer(
                f"it answered with a line of more than {MOST_ANSWER:,} bytes, which starts {_start_of(answer)}"
            )

    def _how_it_ended(self) -> str:
        try:
            code = self.guard.wait(1.0)
        except subprocess.TimeoutExpired:
            return "its output is closed"
        return f"signal {code - 128}" if code > 128 else f"exit code {code}"

    def end(self, *, now: bool) -> None:
        """End it, once: as the interpreter ends, a thread that asks may do so as well."""
        with self._ending:
            if self._ended:
                return
            self._ended = True
            if now:
                with contextlib.suppress(OSError):
                    os.write(self._life, b"!")
            for stream in (self.guard.stdin, self.guard.stdout):
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
            os.close(self._life)
        try:
            self.guard.wait(5.0)
        except subprocess.TimeoutExpired:
            self.guard.kill()
            self.guard.wait()


def _start(command: Sequence[str], folder: str) -> _Running:
    read, write = os.pipe()
    try:
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), str(read), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=(read,),
            start_new_session=True,
            cwd=folder or None,
            env=own_environment(),
        )
    except OSError as error:
        os.close(write)
        raise NoAnswer(f"it cannot be started in {folder or os.getcwd()}: {error.strerror}") from None
    finally:
        os.close(read)
    return _Running(guard, write)


def _start_of(said: bytes | bytearray) -> str:
    text = bytes(said[:80]).decode("utf-8", "replace")
    return repr(text.split("\n")[0]) + ("..." if len(said) > 80 else "")
