"""A framed pane of text pieces with roles, of which only the rows that changed are drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from screens.charts import Piece, Row
from screens.safe import cut, visible

LOOKS = {
    "title": "title", "strong": "strong",
    "label": "muted", "axis": "muted", "raw": "muted", "dim": "muted", "frame": "muted",
    "smooth": "primary-bold", "frame-focus": "primary-bold", "bar": "primary",
    "second": "accent", "cross": "accent-bold",
    "third": "success", "good": "success",
    "fourth": "warning", "change": "warning", "warn": "warning",
    "alarm": "error", "bad": "error",
}  # fmt: skip
"""Role -> what it looks like: what is beside each other looks the same where it can, for fewer escape sequences.

Textual works out every look of every pane each time the focus moves, so there are no more than differ.
"""
NEAR = 16
"""Cells between two differences that are drawn rather than skipped."""
_BOX = {False: "╭─╮│╰─╯", True: "+-+|+-+"}


class Framed(Widget):
    """Draws its own frame: a frame of Textual would be sent whole each time its title changes."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"framed--{look}" for look in LOOKS.values()}
    DEFAULT_CSS = """
    Framed {
        width: 1fr; height: 1fr;
        & > .framed--title { color: $foreground; text-style: bold; }
        & > .framed--strong { text-style: bold; }
        & > .framed--muted { color: $text-muted; }
        & > .framed--primary { color: $text-primary; }
        & > .framed--primary-bold { color: $text-primary; text-style: bold; }
        & > .framed--accent { color: $text-accent; }
        & > .framed--accent-bold { color: $text-accent; text-style: bold; }
        & > .framed--success { color: $text-success; }
        & > .framed--warning { color: $text-warning; }
        & > .framed--error { color: $text-error; }
        &:ansi > .framed--muted { text-style: dim; }
    }
    """

    def __init__(self, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._rows: list[Row] = []
        self._inner: list[Row] = []
        self._styles: dict[str, Style] = {}
        self.ascii = False

    # A subclass gives what stands inside.

    def title_pieces(self, width: int) -> Row:
        """What stands in the upper edge."""
        return []

    def inner_rows(self, width: int, height: int) -> Sequence[Row]:
        """What stands inside of the frame."""
        return []

    def redraw(self, *, frame_only: bool = False) -> None:
        """Make the rows again, and draw those that differ.

        :param frame_only: keep what stands inside: only the focus has changed.
        """
        width, height = self.size
        if width < 4 or height < 3:
            return
        if not frame_only or len(self._inner) != height - 2:
            self._inner = list(self.inner_rows(width - 2, height - 2))[: height - 2]
        rows = self._framed(width, height)
        before, self._rows = self._rows, rows
        if len(before) != len(rows):
            self.refresh()
            return
        changed = [
            Region(start, y, end - start, 1)
            for y, (old, new) in enumerate(zip(before, rows, strict=True))
            if old != new
            for start, end in differences(old, new)
        ]
        if changed:
            self.refresh(*changed)

    def _framed(self, width: int, height: int) -> list[Row]:
        box = _BOX[self.ascii]
        frame = "frame-focus" if self.has_focus else "frame"
        title: Row = [(f"{box[0]}{box[1]} ", frame)]
        used = 3
        for text, role in self.title_pieces(width - 6):
            text = cut(visible(text), width - 3 - used)
            title.append((text, role))
            used += len(text)
        title.append((" " + box[1] * (width - used - 2) + box[2], frame))
        rows = [title]
        for row in self._inner:
            rows.append([(box[3], frame), *fitted(row, width - 2), (box[3], frame)])
        while len(rows) < height - 1:
            rows.append([(box[3], frame), (" " * (width - 2), ""), (box[3], frame)])
        rows.append([(box[4] + box[5] * (width - 2) + box[6], frame)])
        return rows

    def render_line(self, y: int) -> Strip:
        if y >= len(self._rows):
            return Strip.blank(self.size.width, self.rich_style)
        # Each segment costs an escape sequence, so neighbours that look the same are one; spaces look like anything.
        joined: list[tuple[str, Style]] = []
        for text, role in self._rows[y]:
            style = self._style(role)
            if joined and (style == joined[-1][1] or (not role and text.isspace())):
                joined[-1] = (joined[-1][0] + text, joined[-1][1])
            else:
                joined.append((text, style))
        segments = [Segment(text, style) for text, style in joined]
        return Strip(segments, self.size.width)

    def _style(self, role: str) -> Style:
        if role not in self._styles:
            self._styles[role] = self.get_component_rich_style(f"framed--{LOOKS[role]}") if role else self.rich_style
        return self._styles[role]

    def notify_style_update(self) -> None:
        self._styles = {}
        super().notify_style_update()

    def on_resize(self) -> None:
        self._rows = []
        self.redraw()

    def on_focus(self) -> None:
        self.redraw(frame_only=True)

    def on_blur(self) -> None:
        self.redraw(frame_only=True)


def differences(old: Row, new: Row) -> list[tuple[int, int]]:
    """The stretches of cells that differ, (start, end); near ones as one, since each costs a cursor movement."""
    before, after = _cells(old), _cells(new)
    if len(before) != len(after):
        return [(0, max(len(before), len(after)))]
    found: list[tuple[int, int]] = []
    for x in [x for x, (was, now) in enumerate(zip(before, after, strict=True)) if was != now]:
        if found and x - found[-1][1] <= NEAR:
            found[-1] = (found[-1][0], x + 1)
        else:
            found.append((x, x + 1))
    return found


def _cells(row: Row) -> list[Piece]:
    cells: list[Piece] = []
    for text, role in row:
        if cell_len(text) == len(text):
            cells += [(char, role) for char in text]
        else:
            for char in text:
                cells += [(char, role), ("", role)][: cell_len(char)]
    return cells


def fitted(row: Row, width: int) -> list[Piece]:
    """The pieces cut or filled to a width."""
    out: list[Piece] = []
    used = 0
    for text, role in row:
        text = cut(text, width - used)
        if text:
            out.append((text, role))
            used += cell_len(text)
    if used < width:
        out.append((" " * (width - used), ""))
    return out
