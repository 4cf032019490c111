"""What two branches answer to the probe prompts: a text over the whole screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from screens.probe_lines import Pieces, probe_lines, score_words
from screens.safe import visible, wrap
from screens.widgets.line_view import LineView, Span
from sessions.comparison import ProbePair


class _Answers(LineView):
    """The lines, wrapped to the width there is."""

    def __init__(self, head: Sequence[str], pairs: Sequence[ProbePair], names: Sequence[str]) -> None:
        super().__init__(id="answers")
        self.above, self.pairs, self.names = list(head), list(pairs), list(names)
        self.lines: list[Pieces] = []
        self.starts: list[int] = []
        self._width = 0
        self._at = -1

    def on_resize(self) -> None:
        width = self.size.width
        if width and width != self._width:
            self._width = width
            head: list[Pieces] = [[(line, "")] for text in self.above for line in wrap(text, width)]
            lines, starts = probe_lines(self.pairs, self.names, width)
            self.lines = [*head, [], *lines]
            self.starts = [len(head) + 1 + start for start in starts]
            self.show_from(self.top)
        self.refresh()

    def line_count(self) -> int:
        return len(self.lines)

    def line_key(self, index: int) -> object:
        return tuple(self.lines[index])

    def spans(self, index: int, width: int) -> Sequence[Span]:
        return [Span(text, tone) for text, tone in self.lines[index]]

    def match(self, direction: int) -> None:
        """The next or previous prompt on which one branch is right and the other wrong, round the end."""
        unequal = [start for pair, start in zip(self.pairs, self.starts, strict=True) if not pair.agree]
        if unequal:
            # By its number and not by what is seen: the last ones are all seen from the end of the text.
            self._at = (self._at + direction) % len(unequal) if self._at >= 0 else 0 if direction > 0 else -1
            self.show_from(unequal[self._at])

    def on_scrolled(self) -> None:
        last = min(len(self.lines), self.top + self.window)
        screen = self.screen
        if isinstance(screen, CompareDialog):
            screen.say_position(100 * last // max(1, len(self.lines)))


class CompareDialog(ModalScreen[None]):
    """Two branches side by side; esc leaves.

    :param head: lines above the answers: how they stand, what differs.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,D", "leave", "back"),
        Binding("y", "copy", "copy", show=False),
    ]
    DEFAULT_CSS = """
    CompareDialog { align: center middle; }
    CompareDialog > Vertical { width: 100%; height: 100%; padding: 0; }
    """

    def __init__(self, names: Sequence[str], head: Sequence[str], pairs: Sequence[ProbePair]) -> None:
        super().__init__()
        self.names, self.head, self.pairs = list(names), list(head), list(pairs)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(visible("  and  ".join(self.names)))
            yield _Answers([*self.head, score_words(self.pairs, self.names)], self.pairs, self.names)

    def on_mount(self) -> None:
        self.query_one(_Answers).focus()
        self.call_after_refresh(self.query_one(_Answers).on_scrolled)

    def say_position(self, percent: int) -> None:
        """How much of it has been shown, on the lower edge."""
        text = f"{percent}%   n N where one is right and the other wrong   y copy   esc back"
        self.query_one(Vertical).border_subtitle = Content(text)

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_filter(self) -> None:
        """Nothing is filtered here."""

    def action_copy(self) -> None:
        lines = self.query_one(_Answers).lines
        self.app.copy_to_clipboard("\n".join("".join(text for text, _ in line).rstrip() for line in lines))
