"""A table whose cursor stays on its row: rows are known by key, not by place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from textual import events
from textual.message import Message

from screens.widgets.line_view import LineView, Span, columns_of

Filter = Callable[["Row"], bool]


@dataclass(frozen=True, slots=True)
class Column:
    """A column; width 0 takes the cells that are left.

    :ivar narrow: width in a terminal of less than :data:`NARROW` cells; None: the same, 0: the column is left out.
    """

    title: str
    width: int
    right: bool = False
    narrow: int | None = None


NARROW = 120
"""A terminal of fewer columns gets the narrow ones."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its key, its cells (any text: they are made safe when drawn) and its tone."""

    key: str
    cells: tuple[str, ...]
    tone: str = ""


class LineTable(LineView):
    """Rows under a line of titles, with a cursor.

    :param empty: what to say when there are no rows.
    :ivar follow: ``first`` or ``last``: the cursor stays on that row as rows come, until it is moved by hand.
    """

    class Moved(Message):
        """The cursor is on another row, by hand or because rows came and went."""

        def __init__(self, table: LineTable, key: str, *, by_hand: bool) -> None:
            super().__init__()
            self.table, self.key, self.by_hand = table, key, by_hand

        @property
        def control(self) -> LineTable:
            return self.table

    class Opened(Message):
        """A row was clicked, or enter pressed on it."""

        def __init__(self, table: LineTable, key: str) -> None:
            super().__init__()
            self.table, self.key = table, key

        @property
        def control(self) -> LineTable:
            return self.table

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        empty: str = "",
        titles: bool = True,
        id: str | None = None,  # noqa: A002
    ) -> None:
        super().__init__(id=id)
        self.columns = list(columns)
        self.head = 1 if titles else 0
        self.empty = empty
        self.follow: Literal["", "first", "last"] = ""
        self.rows: list[Row] = []
        self.shown: list[Row] = []
        self.cursor = 0
        self._filter: Filter | None = None

    # ---- rows

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Replace the rows; the cursor stays on its key, at the same height on the screen."""
        self.rows = list(rows)
        self._show()

    def set_filter(self, keep: Filter | None) -> None:
        """Show only the rows it holds for; None: all."""
        self._filter = keep
        self._show()

    @property
    def key(self) -> str:
        """Key of the row under the cursor; empty when there are no rows."""
        return self.shown[self.cursor].key if self.shown else ""

    def _show(self) -> None:
        before, height = self.key, self.cursor - self.top
        keep = self._filter
        self.shown = [row for row in self.rows if keep(row)] if keep else self.rows
        last = max(0, len(self.shown) - 1)
        if self.follow:
            self.cursor = 0 if self.follow == "first" else last
        else:
            place = next((i for i, row in enumerate(self.shown) if row.key == before), None)
            self.cursor = min(self.cursor, last) if place is None else place
        self.top = self.cursor - height
        self._keep_in_view()
        self.redraw_changed()
        if self.key != before:
            self.post_message(self.Moved(self, self.key, by_hand=False))

    # ---- the cursor

    def move_to(self, index: int) -> None:
        """Put the cursor on a row by hand; following ends unless it is the row followed."""
        if not self.shown:
            return
        index = max(0, min(index, len(self.shown) - 1))
        if self.follow and index != (0 if self.follow == "first" else len(self.shown) - 1):
            self.follow = ""
        if index != self.cursor:
            self.cursor = index
            self._keep_in_view()
            self.redraw_changed()
            self.post_message(self.Moved(self, self.key, by_hand=True))

    def _keep_in_view(self) -> None:
        if self.window:
            self.top = max(self.cursor - self.window + 1, min(self.top, self.cursor))
        self.top = max(0, min(self.top, len(self.shown) - self.window))

    def move(self, direction: str) -> None:
        page = max(1, self.window - 1)
        steps = {"down": 1, "up": -1, "page_down": page, "page_up": -page}
        if direction in steps:
            self.move_to(self.cursor + steps[direction])
        elif direction in ("top", "bottom"):
            self.move_to(0 if direction == "top" else len(self.shown) - 1)

    def match(self, direction: int) -> None:
        """The next or previous row that the filter shows, round the end."""
        self.move_to((self.cursor + direction) % max(1, len(self.shown)))

    def action_open(self) -> None:
        if self.shown:
            self.post_message(self.Opened(self, self.key))

    def on_click(self, event: events.Click) -> None:
        index = self.top + event.y - self.head
        if event.y >= self.head and index < len(self.shown):
            again = index == self.cursor
            self.move_to(index)
            if again:
                self.action_open()

    def on_resize(self) -> None:
        self._keep_in_view()
        self.refresh()

    # ---- drawing

    def widths(self, width: int) -> list[int]:
        """Cells of each column in a table ``width`` wide; the cursor mark takes two of them."""
        narrow = self.app.size.width < NARROW
        chosen = [c.narrow if narrow and c.narrow is not None else c.width for c in self.columns]
        rest = [i for i, c in enumerate(self.columns) if c.width == 0]
        fixed = [w for i, w in enumerate(chosen) if i not in rest]
        free = width - 2 - sum(w + 1 for w in fixed if w) + (0 if rest else 1) - max(0, len(rest) - 1)
        for i in rest:
            chosen[i] = max(0, free // len(rest))
        return chosen

    def line_count(self) -> int:
        return len(self.shown) if self.shown else min(1, len(self._nothing()))

    def _nothing(self) -> str:
        return "nothing matches the filter: / changes it, esc in it ends it" if self.rows else self.empty

    def line_key(self, index: int) -> object:
        return self.shown[index] if index < len(self.shown) else self._nothing()

    def line_style(self, index: int) -> str:
        if index != self.cursor or not self.shown:
            return ""
        return "lines--cursor" if self.has_focus else "lines--cursor-blurred"

    def head_spans(self, y: int, width: int) -> Sequence[Span]:
        titles = [column.title for column in self.columns]
        return [Span("  " + columns_of(titles, self.widths(width), [c.right for c in self.columns]), "head")]

    def spans(self, index: int, width: int) -> Sequence[Span]:
        if not self.shown:
            return [Span(" " + self._nothing(), "dim")]
        row = self.shown[index]
        mark = "> " if index == self.cursor else "  "
        text = mark + columns_of(row.cells, self.widths(width), [c.right for c in self.columns])
        return [Span(text, "" if index == self.cursor and self.has_focus else row.tone)]
