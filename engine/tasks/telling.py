"""What takes long at the start says so, while it takes long."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar

TELL: ContextVar[Callable[[str], None]] = ContextVar("TELL", default=lambda text: None)
"""Takes a line for people; whoever loads a task sets it. What it raises ends the loading."""
SECONDS = 5.0
"""Between two lines."""


class Progress:
    """Tells how far a file is read.

    :param total: that there is to read, in the unit of :meth:`at`.
    """

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self._tell = name, total, TELL.get()
        self._next = time.monotonic() + SECONDS

    def at(self, done: int, rows: int) -> None:
        """So much of the total, which are so many rows."""
        if rows % 4096 == 0 and time.monotonic() > self._next:
            self._next = time.monotonic() + SECONDS
            self._tell(f"{self._name}: {rows:,} rows read, {done / max(1, self._total):.0%}")
