"""The panes of the dashboard that are text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from screens.charts import Row
from screens.live import Live
from screens.panels import last_group_line, values_line, waiting_line
from screens.safe import wrap
from screens.widgets.framed import Framed, fitted


class Panel(Framed):
    """A pane of text, drawn when one of its topics has changed."""

    def __init__(
        self, name: str, title: str, hint: str, rows: Callable[[Live, int, int], list[Row]], topics: Sequence[str]
    ) -> None:
        super().__init__(id=name)
        self._title, self._hint, self._make, self._topics = title, hint, rows, topics
        self._drawn: object = None
        self.live: Live | None = None

    def update(self, live: Live, force: bool) -> None:
        """Draw if anything it shows has changed."""
        self.live = live
        state = ([live.version[topic] for topic in self._topics], self.size, id(live))
        if force or state != self._drawn:
            self._drawn = state
            self.redraw()

    def title_pieces(self, width: int) -> Row:
        return [(self._title, "title"), (f"   {self._hint}" if self._hint else "", "label")]

    def inner_rows(self, width: int, height: int) -> list[Row]:
        return self._make(self.live, width, height) if self.live is not None else []


class ThreeLines(Framed):
    """Under the charts of a small terminal: the last group, the values, what waits. No frame."""

    DEFAULT_CSS = "ThreeLines { height: 3; }"
    live: Live | None = None

    def update(self, live: Live) -> None:
        """Draw what has changed."""
        self.live = live
        self.redraw()

    def _framed(self, width: int, height: int) -> list[Row]:
        if self.live is None:
            return []
        # To the last cell: what is not drawn keeps what another screen left there.
        return [fitted(line(self.live, width), width) for line in (last_group_line, values_line, waiting_line)]

    def on_resize(self) -> None:
        self._rows = []


class StatePane(Framed):
    """In the place of everything else: loading, or failed."""

    lines: Sequence[str] = ()
    heading = ""

    def title_pieces(self, width: int) -> Row:
        return [(self.heading, "title")]

    def inner_rows(self, width: int, height: int) -> list[Row]:
        lines = [part for line in self.lines for part in wrap(line, width - 2)]
        if len(lines) > height:  # the newest lines of the log matter most
            lines = [*lines[:3], *lines[len(lines) - height + 3 :]]
        return [[(f" {line}", "")] for line in lines]
