"""Responses to put in an order: a number, a place, and the first lines of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from textual.message import Message

from screens.safe import cut, visible, wrap
from screens.widgets.line_view import LineView, Span

MARGIN = 10
"""Cells before the text."""
MOST_LINES = 5
"""Of one response."""


def ends(text: str, width: int, lines: int) -> list[str]:
    """The beginning of a text and, where not all of it can be seen, its end: answers stand there."""
    shown = wrap(text[: 4 * width * lines], width)
    if len(text) <= 4 * width * lines and len(shown) <= lines:
        return shown
    room = width // 2 if lines == 1 else width - 3
    words = visible(" ".join(text[-4 * width :].split()))
    tail = words[-room:]
    if len(words) > room:
        tail = tail.partition(" ")[2] or tail  # from the beginning of a word
    while cell_len(tail) > room:
        tail = tail[1:]
    if lines == 1:
        head = cut(shown[0].rstrip(), width - cell_len(tail) - 4)
        return [f"{head} .. {tail}"]
    return [*shown[: lines - 1], f".. {tail}"]


class RankRow(NamedTuple):
    """One response.

    :ivar place: what the order typed so far, or the one saved, says of it.
    :ivar tone: of the place.
    """

    number: int
    letter: str
    place: str
    tone: str
    text: str
    in_hand: bool


class RankList(LineView):
    """As many lines of each response as there is room for."""

    class Moved(Message):
        """j or k: another response is to be taken in hand."""

        def __init__(self, direction: int) -> None:
            super().__init__()
            self.direction = direction

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self._rows: Sequence[RankRow] = ()
        self._lines: list[list[str]] = []
        self._wrapped: tuple[object, ...] = ()

    def show(self, rows: Sequence[RankRow]) -> None:
        """Draw what changed of these rows."""
        self._rows = rows
        self._wrap()
        self._see_hand()
        self.redraw_changed()

    def _see_hand(self) -> None:
        """Scroll as far as it takes to see the response in hand."""
        first = self._hand * self.each
        if self.window:
            self.top = min(self.top, first, max(0, self.line_count() - self.window))
            self.top = max(self.top, first + self.each - self.window)

    @property
    def _hand(self) -> int:
        return next((i for i, row in enumerate(self._rows) if row.in_hand), 0)

    @property
    def each(self) -> int:
        """Lines of a response."""
        return max(1, min(MOST_LINES, self.window // max(1, len(self._rows))))

    def _wrap(self) -> None:
        width, each = max(1, self.size.width - MARGIN), self.each
        stamp = (width, each, tuple(row.text for row in self._rows))
        if stamp != self._wrapped:
            self._wrapped = stamp
            self._lines = [ends(row.text or "(empty)", width, each) for row in self._rows]

    def on_resize(self) -> None:
        self._wrap()
        self._see_hand()
        self.refresh()

    def line_count(self) -> int:
        return self.each * len(self._rows)

    def _line(self, index: int) -> tuple[RankRow, int, str]:
        row, line = divmod(index, self.each)
        lines = self._lines[row] if row < len(self._lines) else []
        return self._rows[row], line, lines[line] if line < len(lines) else ""

    def line_key(self, index: int) -> object:
        row, line, text = self._line(index)
        return (line, text, row.number, row.letter, row.place, row.tone, row.in_hand)

    def spans(self, index: int, width: int) -> Sequence[Span]:
        row, line, text = self._line(index)
        if line:
            return [Span(" " * MARGIN), Span(text, "dim" if not row.in_hand else "")]
        mark = ">" if row.in_hand else " "
        head = f"{mark}{row.number} {row.letter:<2}"
        return [
            Span(head, "accent" if row.in_hand else ""),
            Span(f"{row.place:<{MARGIN - len(head)}}", row.tone),
            Span(text),
        ]

    def move(self, direction: str) -> None:
        steps = {"down": 1, "up": -1, "page_down": len(self._rows), "page_up": -len(self._rows)}
        if direction in steps:
            self.post_message(self.Moved(steps[direction]))
        else:
            hand = self._hand
            self.post_message(self.Moved(-hand if direction == "top" else len(self._rows) - 1 - hand))
