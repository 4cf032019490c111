"""The command line: the words of ``workbench send``, and a few that only a screen knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual import events
from textual.widgets import Input

from screens.words import run_words

if TYPE_CHECKING:
    from screens.base import WorkbenchScreen


class CommandLine(Input):
    """Hidden until ``:`` opens it in the place of the message line."""

    DEFAULT_CSS = """
    CommandLine { display: none; height: 1; border: none; padding: 0 1; }
    CommandLine.-open { display: block; }
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            id=name,
            compact=True,
            select_on_focus=False,
            placeholder="command, such as: set learning_rate 5e-7 (esc leaves)",
        )
        self.can_focus = False
        self._before: object = None
        self._said: list[str] = []
        self._at = 0

    @property
    def _screen(self) -> WorkbenchScreen:
        return cast("WorkbenchScreen", self.screen)

    def open(self, text: str = "") -> None:
        """Show the line, with some words in it."""
        self._before = self.screen.focused
        self.value = text
        self._at = len(self._said)
        self.can_focus = True
        self.add_class("-open")
        self._screen.query_one("#message").display = False
        self.screen.set_focus(self)

    def close(self) -> None:
        """Hide it; the focus goes back."""
        self.remove_class("-open")
        self._screen.query_one("#message").display = True
        self.can_focus = False
        self.screen.set_focus(self._before if hasattr(self._before, "focus") else None)  # type: ignore[arg-type]

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        text = self.value.strip().removeprefix(":")
        self.close()
        if text:
            self._said.append(text)
            run_words(self._screen, text)

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape":
            event.stop()
            self.close()
        elif event.key in ("tab", "shift+tab"):
            event.stop()  # the screen's panes would take the focus from the open line
        elif event.key in ("up", "down") and self._said:
            event.stop()
            self._at = min(max(self._at + (-1 if event.key == "up" else 1), 0), len(self._said))
            self.value = self._said[self._at] if self._at < len(self._said) else ""
            self.cursor_position = len(self.value)
