"""A long answer over the whole screen, to read: lines made for the width there is, in parts that one goes through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from screens.widgets.line_view import LineView, Span

Pieces = list[tuple[str, str]]
"""Text and its tone, of one line."""
Build = Callable[[int], tuple[list[Pieces], list[int]]]
"""width -> the lines, and the index of the first line of each part."""


class _Lines(LineView):
    """The lines, wrapped to the width there is."""

    def __init__(self, build: Build) -> None:
        super().__init__(id="reading")
        self._build = build
        self.lines: list[Pieces] = []
        self.starts: list[int] = []
        self.at = -1
        self._width = 0

    def on_resize(self) -> None:
        width = self.size.width
        if width and width != self._width:
            self._width = width
            self.lines, self.starts = self._build(width)
            self.show_from(self._marked if self._marked >= 0 else self.top)
        self.refresh()

    def line_count(self) -> int:
        return len(self.lines)

    def line_key(self, index: int) -> object:
        return index == self._marked, tuple(self.lines[index])

    @property
    def _marked(self) -> int:
        """The line of the part that one has gone to."""
        return self.starts[self.at] if 0 <= self.at < len(self.starts) else -1

    def spans(self, index: int, width: int) -> Sequence[Span]:
        spans = [Span(text, tone) for text, tone in self.lines[index]]
        if index == self._marked and spans:
            spans[0] = Span(f">{spans[0].text[1:]}", "accent")
        return spans

    def match(self, direction: int) -> None:
        """The next or previous part, round the end."""
        if self.starts:
            # by its number and not by what is seen: the last ones are all seen from the end of the text
            self.at = (self.at + direction if self.at >= 0 else 0 if direction > 0 else -1) % len(self.starts)
            self.show_from(self.starts[self.at])
            self.redraw_changed()

    def on_scrolled(self) -> None:
        last = min(len(self.lines), self.top + self.window)
        screen = self.screen
        if isinstance(screen, ReadingDialog):
            screen.say_position(100 * last // max(1, len(self.lines)))


class ReadingDialog(ModalScreen[None]):
    """The answer to a question; esc leaves.

    :param part: what ``n`` and ``N`` go to.
    :param words: all of it as plain lines, for the clipboard.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "back"),
        Binding("y", "copy", "copy", show=False),
    ]
    DEFAULT_CSS = """
    ReadingDialog { align: center middle; }
    ReadingDialog > Vertical { width: 100%; height: 100%; padding: 0; }
    """

    def __init__(self, title: str, build: Build, part: str, words: Callable[[], list[str]]) -> None:
        super().__init__()
        self._title, self._build, self._part, self._words = title, build, part, words

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(self._title)
            yield _Lines(self._build)

    def on_mount(self) -> None:
        self.query_one(_Lines).focus()
        self.call_after_refresh(self.query_one(_Lines).on_scrolled)

    def say_position(self, percent: int) -> None:
        """How much of it has been shown, on the lower edge."""
        text = f"{percent}%   n N the next {self._part}   y copy   esc back"
        self.query_one(Vertical).border_subtitle = Content(text)

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_filter(self) -> None:
        """Nothing is filtered here."""

    def action_copy(self) -> None:
        self.app.copy_to_clipboard("\n".join(self._words()))
