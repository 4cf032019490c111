"""The dialog that chooses the metrics of a chart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from screens.widgets.line_table import Column, LineTable, Row
from sessions.metrics import metric

MOST = 2
"""Curves on one chart: more cannot be told apart without colour."""


class ChooseDialog(ModalScreen[list[str]]):
    """A list to tick: space ticks, enter takes what is ticked, or the one under the cursor if nothing was changed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "back"),
        Binding("enter", "take", "take"),
        Binding("space", "tick", "tick"),
    ]
    DEFAULT_CSS = """
    ChooseDialog { align: center middle; }
    ChooseDialog > Vertical { width: 72; max-width: 95%; height: 80%; }
    """

    def __init__(self, names: Sequence[str], chosen: Sequence[str], most: int = MOST) -> None:
        super().__init__()
        self.most = most
        self.names = list(dict.fromkeys([*chosen, *names]))
        self.before = list(chosen)
        self.chosen = list(chosen)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = f"metrics of this chart, at most {self.most}"
            box.border_subtitle = Content("space tick   enter take   esc back")
            yield LineTable([Column("", 3), Column("metric", 30), Column("", 0)], titles=False)

    def on_mount(self) -> None:
        self.query_one(LineTable).focus()
        self._show()

    def _show(self) -> None:
        ticked = {name: "[x]" if name in self.chosen else "[ ]" for name in self.names}
        rows = [Row(name, (ticked[name], name, metric(name).title)) for name in self.names]
        self.query_one(LineTable).set_rows(rows)

    def action_tick(self) -> None:
        name = self.query_one(LineTable).key
        if name in self.chosen:
            self.chosen.remove(name)
        elif name:
            self.chosen = [*self.chosen, name][-self.most :]
        self._show()

    @on(LineTable.Opened)
    def action_take(self) -> None:
        name = self.query_one(LineTable).key
        if (self.chosen == self.before or not self.chosen) and name:
            self.chosen = [name]
        self.dismiss(self.chosen)

    def action_leave(self) -> None:
        self.dismiss(None)
