"""A widget of many lines of which only the visible ones are drawn, and only those that changed drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from screens.keys import bindings
from screens.safe import cut, fit, visible

TONES = ("", "dim", "good", "warn", "bad", "accent", "head", "found", "differs")
"""The ways a line can look; a word says the same, so that nothing is lost without colour."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line in one tone."""

    text: str
    tone: str = ""


class LineView(Widget, can_focus=True):
    """Lines, of which a window is seen. Subclasses give :meth:`line_count` and :meth:`spans`.

    :ivar top: index of the first line seen.
    :ivar head: lines above the window that do not scroll.
    """

    COMPONENT_CLASSES = {f"lines--{tone}" for tone in TONES if tone} | {"lines--cursor", "lines--cursor-blurred"}

    DEFAULT_CSS = """
    LineView {
        height: 1fr; width: 1fr; background: $background; color: $foreground;
        & > .lines--dim { color: $text-muted; }
        & > .lines--good { color: $text-success; }
        & > .lines--warn { color: $text-warning; }
        & > .lines--bad { color: $text-error; }
        & > .lines--accent { color: $text-accent; text-style: bold; }
        & > .lines--head { color: $text-muted; text-style: bold; }
        & > .lines--found { text-style: reverse; }
        & > .lines--differs { color: $text-warning; text-style: bold underline; }
        & > .lines--cursor { background: $block-cursor-background; color: $block-cursor-foreground; text-style: bold; }
        & > .lines--cursor-blurred { text-style: bold; }
        &:ansi > .lines--dim { text-style: dim; }
        &:ansi > .lines--cursor { text-style: reverse; }
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [*bindings("list")]
    head = 0

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self.top = 0
        self._drawn: dict[int, object] = {}
        self._titles = "", ""

    # ---- what subclasses say

    def line_count(self) -> int:
        """How many lines there are."""
        raise NotImplementedError

    def spans(self, index: int, width: int) -> Sequence[Span]:
        """One line; it is cut or filled to the width."""
        raise NotImplementedError

    def head_spans(self, y: int, width: int) -> Sequence[Span]:
        """A line above the window."""
        return ()

    def line_style(self, index: int) -> str:
        """Component class laid under the whole line, if any."""
        return ""

    def line_key(self, index: int) -> object:
        """Equal keys are drawn alike; tells which lines have to be drawn again."""
        return None

    # ---- drawing

    def entitle(self, title: str, below: str | None = None) -> None:
        """Put words on the upper edge, and on the lower one if given; drawn only where they are new.

        Textual draws a whole widget again whenever its title is set, to the same one too.
        """
        if title != self._titles[0]:
            self.border_title = Content(visible(title))
        if below is not None and below != self._titles[1]:
            self.border_subtitle = Content(visible(below))
        self._titles = title, self._titles[1] if below is None else below

    @property
    def window(self) -> int:
        """Lines seen at once."""
        return max(0, self.size.height - self.head)

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        width = self.size.width
        if y < self.head:
            return self._strip(self.head_spans(y, width), width, "")
        index = self.top + y - self.head
        if index >= self.line_count():
            self._drawn[y] = None
            return Strip.blank(width, self.rich_style)
        self._drawn[y] = (self.line_key(index), self.line_style(index))
        return self._strip(self.spans(index, width), width, self.line_style(index))

    def _strip(self, spans: Sequence[Span], width: int, under: str) -> Strip:
        base = self.rich_style
        if under:
            base = base + self.get_component_rich_style(under, partial=True)
        segments: list[Segment] = []
        left = width
        for span in spans:
            segment = Segment(cut(span.text, left), base + self.tone_style(span.tone) if span.tone else base)
            segments.append(segment)
            left -= segment.cell_length
        if left > 0:
            segments.append(Segment(" " * left, base))
        return Strip(segments, width)

    def tone_style(self, tone: str) -> Style:
        """The look of a tone in this theme."""
        # Whole, so that a colour that depends on what is behind it is blended; the line has its own background.
        look = self.get_component_rich_style(f"lines--{tone}")
        return Style(color=look.color, bold=look.bold, dim=look.dim, reverse=look.reverse, underline=look.underline)

    def redraw_changed(self) -> None:
        """Draw again the lines seen whose key is another than when they were drawn."""
        count = self.line_count()
        for y in range(self.head, self.size.height):
            index = self.top + y - self.head
            now = (self.line_key(index), self.line_style(index)) if index < count else None
            if self._drawn.get(y, self) != now:
                self.refresh(Region(0, y, self.size.width, 1))

    # ---- moving

    def move(self, direction: str) -> None:
        """Down, up, page_down, page_up, top or bottom: here, the window."""
        page = max(1, self.window - 1)
        steps = {"down": 1, "up": -1, "page_down": page, "page_up": -page}
        if direction in steps:
            self.show_from(self.top + steps[direction])
        elif direction in ("top", "bottom"):
            self.show_from(0 if direction == "top" else self.line_count())

    def match(self, direction: int) -> None:
        """The next (1) or previous (-1) match of the filter or search."""

    def action_move(self, direction: str) -> None:
        self.move(direction)

    def action_match(self, direction: int) -> None:
        self.match(direction)

    async def action_filter(self) -> None:
        # What is filtered, and where the words are typed, is the screen's to say.
        await self.run_action("screen.filter")

    def show_from(self, top: int) -> None:
        """Scroll so that line ``top`` is the first one seen, as far as there are lines."""
        top = max(0, min(top, self.line_count() - self.window))
        if top != self.top:
            self.top = top
            self.redraw_changed()
            self.on_scrolled()

    def on_scrolled(self) -> None:
        """Called after the window moved."""

    def turn_wheel(self, lines: int) -> None:
        """The mouse wheel was turned here."""
        self.show_from(self.top + lines)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.turn_wheel(3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.turn_wheel(-3)

    def on_focus(self) -> None:
        self.redraw_changed()

    def on_blur(self) -> None:
        self.redraw_changed()


def columns_of(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    """Cells side by side with a space between, each exactly as wide as its column."""
    return " ".join(fit(cell, width, right=r) for cell, width, r in zip(cells, widths, right) if width > 0)
