"""Long text to read: wrapped by cells, with the share that was seen and a search."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.message import Message

from screens.safe import visible, wrap
from screens.widgets.line_view import LineView, Span


class TextView(LineView):
    """Text that is read and not edited. Any text: it is made safe when wrapped.

    :ivar says_position: whether the border says how much was seen.
    :ivar label: words before the share in the border, such as ``214 tok``.
    """

    class Scrolled(Message):
        """What the border says has changed."""

        def __init__(self, view: TextView) -> None:
            super().__init__()
            self.view = view

        @property
        def control(self) -> TextView:
            return self.view

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self.label = ""
        self.says_position = True
        self._text: tuple[tuple[str, str], ...] = ()
        self._lines: list[tuple[str, str]] = []
        self._wrapped_at = 0
        self._needle = ""
        self._match = -1
        self._seen = 0
        self._said = ""

    # ---- the text

    def set_text(self, text: str | Sequence[tuple[str, str]], *, label: str = "", keep: bool = False) -> None:
        """Show text, or (paragraph, tone) pairs.

        :param keep: the same text with more at its end: the window stays, or stays at the end if it was there.
        """
        paragraphs = ((text, ""),) if isinstance(text, str) else tuple(text)
        self.label = label
        if paragraphs != self._text:
            at_end = keep and self.at_end and self._lines != []
            self._text = paragraphs
            self._wrapped_at = 0
            self._wrap()
            if not keep:
                self.top, self._match, self._seen = 0, -1, 0
            self.top = max(0, min(self.top, len(self._lines) - self.window))
            if at_end:
                self.top = max(0, len(self._lines) - self.window)
            self.redraw_changed()
        self.on_scrolled()

    def _wrap(self) -> None:
        width = self.size.width
        if width <= 0 or width == self._wrapped_at:
            return
        self._wrapped_at = width
        self._lines = [(line, tone) for text, tone in self._text for line in wrap(text, width)]

    @property
    def at_end(self) -> bool:
        """Whether the last line is seen."""
        return self.top + self.window >= len(self._lines)

    @property
    def percent(self) -> int:
        """How much has been on the screen, in percent."""
        return min(100, 100 * self._seen // len(self._lines)) if self._lines else 100

    def on_scrolled(self) -> None:
        self._seen = max(self._seen, min(len(self._lines), self.top + self.window))
        position = self.position
        if position != self._said:
            self._said = position
            self.border_subtitle = Content(visible(position))
            self.post_message(self.Scrolled(self))

    @property
    def position(self) -> str:
        """What the border says: the label, what is searched for, the share seen."""
        parts = [self.label] if self.label else []
        if not self.says_position:
            return self.label
        if self._match >= 0:
            parts.append(f"/{self._needle}")
        if self._lines and self.window:
            parts.append(f"{self.percent}%")
        return "  ".join(parts)

    def on_resize(self) -> None:
        self._wrap()
        self.top = max(0, min(self.top, len(self._lines) - self.window))
        self.refresh()
        self.on_scrolled()

    # ---- search

    def search(self, needle: str) -> bool:
        """Mark every place of a text (case does not matter) and go to the first from here on; False if none."""
        self._needle = visible(needle).casefold()
        self._match = -1
        self.refresh()
        return self._go(self.top, 1) if self._needle else True

    def _go(self, start: int, direction: int) -> bool:
        count = len(self._lines)
        for offset in range(count):
            index = (start + direction * offset) % count
            if self._needle and self._needle in self._lines[index][0].casefold():
                self._match = index
                if not self.top <= index < self.top + self.window:
                    self.show_from(index - self.window // 3)
                self.redraw_changed()
                self.on_scrolled()
                return True
        return False

    def match(self, direction: int) -> None:
        self._go(self._match + direction, direction)

    # ---- drawing

    def line_count(self) -> int:
        return len(self._lines)

    def line_key(self, index: int) -> object:
        return (self._lines[index], self._needle)

    def spans(self, index: int, width: int) -> Sequence[Span]:
        text, tone = self._lines[index]
        if not self._needle:
            return [Span(text, tone)]
        out: list[Span] = []
        folded, at = text.casefold(), 0
        # Folding may change the length of a text; then its places are not those of the text drawn.
        while len(folded) == len(text) and (place := folded.find(self._needle, at)) >= 0:
            out += [Span(text[at:place], tone), Span(text[place : place + len(self._needle)], "found")]
            at = place + len(self._needle)
        return [*out, Span(text[at:], tone)]
