"""What the engine's process uses of the machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

DISK_SECONDS = 10.0


class Machine:
    """Processor time, resident memory and free disk, measured between calls of :meth:`measure`.

    :ivar cpu_percent: of one core, since the last measurement; None at first.
    :ivar memory_bytes: resident; 0 where the system does not tell.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: tuple[float, float] | None = None
        self._disk_due = 0.0
        self.cpu_percent: float | None = None
        self.memory_bytes = 0
        self.memory_total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.disk_free = 0

    def measure(self) -> None:
        now, used = time.monotonic(), time.process_time()
        if self._last is not None and now > self._last[0]:
            self.cpu_percent = 100 * (used - self._last[1]) / (now - self._last[0])
        self._last = (now, used)
        self.memory_bytes = _resident()
        if now >= self._disk_due:
            self._disk_due = now + DISK_SECONDS
            with contextlib.suppress(OSError):  # the folder may have been removed
                self.disk_free = shutil.disk_usage(self._folder).free


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
