"""The engine's log: what its process prints."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import TextIO


class Log(io.TextIOBase):
    """A stream that never fails.

    On a full disk the log cannot grow either, and whoever tells an error must not be ended by that. What cannot be
    written waits in the stream's buffer as far as it has room, and is left out beyond that.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def keep_log() -> None:
    """Have everything that this process prints go through such a stream."""
    sys.stdout, sys.stderr = Log(sys.stdout), Log(sys.stderr)
