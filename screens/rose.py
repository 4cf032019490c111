"""The responses whose reward rose most since a step: a text over the whole screen, to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from screens.rose_lines import Pieces, rose_lines, rose_words
from screens.widgets.line_view import LineView, Span
from sessions.rose import Roses


class _Lines(LineView):
    """The rows, wrapped to the width there is."""

    def __init__(self, roses: Roses) -> None:
        super().__init__(id="roses")
        self.roses = roses
        self.lines: list[Pieces] = []
        self.starts: list[int] = []
        self.at = -1
        self._width = 0

    def on_resize(self) -> None:
        width = self.size.width
        if width and width != self._width:
            self._width = width
            self.lines, self.starts = rose_lines(self.roses, width)
            self.show_from(self._marked if self._marked >= 0 else self.top)
        self.refresh()

    def line_count(self) -> int:
        return len(self.lines)

    def line_key(self, index: int) -> object:
        return index == self._marked, tuple(self.lines[index])

    @property
    def _marked(self) -> int:
        """The line of the response that one has gone to."""
        return self.starts[self.at] if 0 <= self.at < len(self.starts) else -1

    def spans(self, index: int, width: int) -> Sequence[Span]:
        spans = [Span(text, tone) for text, tone in self.lines[index]]
        if index == self._marked:
            spans[0] = Span(f">{spans[0].text[1:]}", "accent")
        return spans

    def match(self, direction: int) -> None:
        """The next or previous response, round the end."""
        if self.starts:
            # by its number and not by what is seen: the last ones are all seen from the end of the text
            self.at = (self.at + direction if self.at >= 0 else 0 if direction > 0 else -1) % len(self.starts)
            self.show_from(self.starts[self.at])
            self.redraw_changed()

    def on_scrolled(self) -> None:
        last = min(len(self.lines), self.top + self.window)
        screen = self.screen
        if isinstance(screen, RoseDialog):
            screen.say_position(100 * last // max(1, len(self.lines)))


class RoseDialog(ModalScreen[None]):
    """The answer to ``rose``; esc leaves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "back"),
        Binding("y", "copy", "copy", show=False),
    ]
    DEFAULT_CSS = """
    RoseDialog { align: center middle; }
    RoseDialog > Vertical { width: 100%; height: 100%; padding: 0; }
    """

    def __init__(self, roses: Roses) -> None:
        super().__init__()
        self.roses = roses

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(f"reward rose most since step {self.roses.since}")
            yield _Lines(self.roses)

    def on_mount(self) -> None:
        self.query_one(_Lines).focus()
        self.call_after_refresh(self.query_one(_Lines).on_scrolled)

    def say_position(self, percent: int) -> None:
        """How much of it has been shown, on the lower edge."""
        text = f"{percent}%   n N the next response   y copy   esc back"
        self.query_one(Vertical).border_subtitle = Content(text)

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_filter(self) -> None:
        """Nothing is filtered here."""

    def action_copy(self) -> None:
        self.app.copy_to_clipboard("\n".join(rose_words(self.roses)))
