"""What the commands print: data to stdout, everything else to stderr."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Sequence

from screens.safe import visible
from sessions.errors import UsageError


def say(line: str) -> None:
    """A line for people, on stderr."""
    print(f"workbench: {visible(line)}", file=sys.stderr, flush=True)


def emit(text: str) -> None:
    """Data, on stdout, at once: somebody may be reading line by line. On a terminal it is made visible."""
    print(show(text), flush=True)


def show(text: str) -> str:
    """Text of a model as it may reach stdout: made visible for a terminal, as it is for a file or a pipe."""
    return visible(text, newlines=True) if sys.stdout.isatty() else text


def need_terminal(instead: str) -> None:
    """Refuse to open the app where nobody can see it or press a key.

    :param instead: what to do without a terminal.
    :raises UsageError: if stdin or stdout is no terminal.
    """
    for stream, name in ((sys.stdin, "input"), (sys.stdout, "output")):
        if not stream.isatty():
            raise UsageError(f"the {name} is not a terminal; {instead}")


def table(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    """Rows as aligned columns, the first row as the heading.

    :param right: columns set to the right.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def listing(rows: Sequence[Sequence[str]], columns: int = 0) -> str:
    """Rows as a table; on a terminal too narrow for it each row as a paragraph under its first cell.

    :param columns: of the terminal; 0: those of stdout, and no limit where that is none.
    """
    whole = table(rows)
    if not columns and sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
    if not columns or max(map(len, whole.splitlines())) <= columns:
        return whole
    heading, *others = rows
    lines = []
    for row in others:
        named = [f"{title}: {cell}" for title, cell in zip(heading[1:-1], row[1:-1], strict=True) if cell]
        lines.append(row[0])
        for text in (row[-1], *named):
            lines += textwrap.wrap(text, columns - 1, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """``0:07``, ``12:05`` or ``3:20:00``."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """Bytes for people: ``538 MB``."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"


class ProgressLine:
    """One line on stderr, rewritten in place where stderr is a terminal; elsewhere a line every ``seconds``.

    :param clock: gives the time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, seconds: float = 10.0) -> None:
        self._clock = clock
        self._seconds = seconds
        self._next = 0.0
        self._drawn = False
        self._last = ""
        self.live = sys.stderr.isatty()

    def update(self, text: str) -> None:
        """Show the newest state."""
        text = visible(text)
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            if text != self._last:
                print(f"\r\x1b[2K{text[:width]}", end="", file=sys.stderr, flush=True)
                self._drawn, self._last = True, text
        elif self._clock() >= self._next and text != self._last:
            self._next, self._last = self._clock() + self._seconds, text
            print(text, file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """A line of its own above the progress."""
        if self._drawn:
            print("\r\x1b[2K", end="", file=sys.stderr)
            self._drawn, self._last = False, ""
        say(line)

    def end(self, text: str = "") -> None:
        """Leave the line as it is, or with a last text."""
        if text and text != self._last:
            self._next = 0.0
            self.update(text)
        if self._drawn:
            print(file=sys.stderr, flush=True)
        self._drawn, self._last = False, ""
