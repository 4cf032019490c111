"""The dialog that chooses the metrics of a chart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import SelectionList
from textual.widgets.selection_list import Selection

from sessions.metrics import metric

MOST = 2
"""Curves on one chart: more cannot be told apart without colour."""


class ChooseDialog(ModalScreen[list[str]]):
    """A list to tick: space ticks, enter takes what is ticked, or the one under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "back"),
        Binding("enter", "take", "take", priority=True),
        Binding("j", "cursor(1)", "down", show=False),
        Binding("k", "cursor(-1)", "up", show=False),
    ]
    DEFAULT_CSS = """
    ChooseDialog { align: center middle; }
    ChooseDialog > Vertical { width: 72; max-width: 95%; height: 80%; }
    ChooseDialog SelectionList { height: 1fr; border: none; }
    """

    def __init__(self, names: Sequence[str], chosen: Sequence[str]) -> None:
        super().__init__()
        self.names = list(dict.fromkeys([*chosen, *names]))
        self.chosen = list(chosen)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = f"metrics of this chart, at most {MOST}"
            box.border_subtitle = "space tick   enter take   esc back"
            yield SelectionList[str](
                *(Selection(Content(f"{n:<28} {metric(n).title}"), n, n in self.chosen) for n in self.names)
            )

    def action_cursor(self, by: int) -> None:
        box = self.query_one(SelectionList)
        if by > 0:
            box.action_cursor_down()
        else:
            box.action_cursor_up()

    def action_take(self) -> None:
        box: SelectionList[str] = self.query_one(SelectionList)
        chosen = [name for name in self.names if name in box.selected]
        if (chosen == self.chosen or not chosen) and box.highlighted is not None:
            chosen = [self.names[box.highlighted]]
        self.dismiss(chosen[-MOST:])

    def action_leave(self) -> None:
        self.dismiss(None)
