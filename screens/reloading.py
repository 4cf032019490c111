"""Asking whether reloaded reward code should be used, once the screen has shown what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from screens.dialogs import ProceedDialog
from sessions.commands import Reload

if TYPE_CHECKING:
    from screens.base import WorkbenchScreen

ROWS, WIDTH = 15, 66
"""Rows of a difference that a small terminal has room for, and the cells of a row."""


def ask_to_use(screen: WorkbenchScreen, lines: Sequence[str]) -> None:
    """Show the difference; ``y`` uses the code."""
    shown = [*fitting(lines), "", "Use it from now on?"]

    def answered(yes: bool | None) -> None:
        if yes:
            screen.send(Reload(use=True))
        else:
            screen.say("the code in use stays; :reload use takes the new one")

    screen.app.push_screen(ProceedDialog("reloaded reward code", shown), answered)


def fitting(lines: Sequence[str]) -> list[str]:
    """The lines, or as many of the first as there is room for, and the last two, which say what using it means."""
    body, ending = list(lines[:-2]), list(lines[-2:])
    room = ROWS - _rows(ending)
    if _rows(body) <= room:
        return [*body, *ending]
    kept: list[str] = []
    while _rows([*kept, body[len(kept)]]) < room:
        kept.append(body[len(kept)])
    return [*kept, f"({len(body) - len(kept)} lines more: `workbench send S reload` prints all)", *ending]


def _rows(lines: Sequence[str]) -> int:
    return sum(max(1, -(-len(line) // WIDTH)) for line in lines)
