"""What reward functions print, for the engine's log: bounded, whatever they print."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

LINES, BYTES, SECONDS = 200, 32 * 1024, 10.0
"""At most so many lines and bytes in so many seconds; the rest is counted and left out."""
LONGEST_LINE = 1000
"""Characters of a line."""


class Allowance:
    """How much may still be said.

    :param clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._lines = self._bytes = 0
        self.left_out = 0

    def take(self, size: int) -> bool:
        """Whether a line of ``size`` bytes may be said; else it is counted as left out."""
        self._lines += 1
        self._bytes += size
        if self._lines <= LINES and self._bytes <= BYTES:
            return True
        self.left_out += size
        return False

    def begin_again(self) -> int:
        """After :data:`SECONDS` there is room again.

        :returns: the bytes that were left out meanwhile.
        """
        if self._clock() - self._since < SECONDS:
            return 0
        left, self.left_out = self.left_out, 0
        self._since, self._lines, self._bytes = self._clock(), 0, 0
        return left


def copy_output(source: int, say: Callable[[str], None], allowance: Allowance | None = None) -> None:
    """Say what comes from a pipe, line by line, until its other ends are closed; on a thread of its own.

    It is read as fast as it comes, so that whoever prints is never held up.

    :param source: file descriptor; it is closed at the end.
    """
    allowance = allowance or Allowance()
    rest, inside = b"", False  # of a line that has not ended, and whether its beginning has been said
    with os.fdopen(source, "rb", buffering=0) as pipe:
        while part := pipe.read(2**16):
            _tell_left_out(allowance.begin_again(), say)
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                _say(line, say, allowance, inside=inside)
                inside = False
            if len(rest) > LONGEST_LINE:
                _say(rest, say, allowance, inside=inside)
                rest, inside = b"", True
    if rest:
        _say(rest, say, allowance, inside=inside)
    _tell_left_out(allowance.left_out, say)


def _say(line: bytes, say: Callable[[str], None], allowance: Allowance, *, inside: bool) -> None:
    """Say the beginning of a line.

    :param inside: what comes belongs to a line whose beginning has been said.
    """
    shown = b"" if inside else line[:LONGEST_LINE]
    allowance.left_out += len(line) - len(shown)
    if not inside and allowance.take(len(shown)):
        text = shown.decode("utf-8", "backslashreplace").replace("\t", "    ").rstrip("\r")
        say("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))


def _tell_left_out(count: int, say: Callable[[str], None]) -> None:
    if count:
        say(f"({count:,} bytes that were printed are left out)")
