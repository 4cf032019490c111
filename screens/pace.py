"""How much may be drawn without a key: a bucket of bytes that fills at the link's rate, and a share of a core."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LONGEST_SILENCE = 5.0
"""Seconds."""

SHARE = 0.04
"""Of a core, for making frames; sending them takes about as much again. The training needs the rest."""
LONGEST_REST = 2.0


class Pace:
    """Counts what is written to the terminal; what a key causes is never held back, but is counted.

    :param rate: bytes a second.
    :ivar written: bytes so far.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.written = 0
        self._clock = clock
        self._left = rate
        self._then = clock()
        self._rested = 0.0
        self._driver: Any = None

    def count(self, driver: Any) -> None:
        """Count what this driver writes from now on."""
        if driver is None:
            return
        write = driver.write

        def counted(data: str) -> None:
            self.spend(len(data) if data.isascii() else len(data.encode()))
            write(data)

        driver.write = counted
        self._driver = driver

    def spend(self, count: int) -> None:
        """Bytes were written."""
        self.written += count
        self._fill()
        # A burst, such as a resize, silences the screen for no longer than this.
        self._left = max(self._left - count, -LONGEST_SILENCE * self.rate)

    def worked(self, seconds: float) -> None:
        """Drawing took so much of the processor: the next may begin when that is a small share of the time."""
        self._rested = self._clock() + min(seconds / SHARE, LONGEST_REST)

    def may_draw(self) -> bool:
        """Whether the bucket has anything left, the terminal reads what it gets, and the processor had its rest."""
        self._fill()
        return self._left > 0 and self._clock() >= self._rested and not self._stalled()

    def may_play(self) -> bool:
        """The same for the frames of a replay, beside which nothing trains: the processor needs no rest."""
        self._fill()
        return self._left > 0 and not self._stalled()

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(self.rate, self._left + (now - self._then) * self.rate)
        self._then = now

    def _stalled(self) -> bool:
        """Whether earlier frames still wait to be written: a terminal that stops reading would block the loop."""
        thread = getattr(self._driver, "_writer_thread", None)
        queue = getattr(thread, "_queue", None)
        return queue is not None and queue.qsize() > 8
