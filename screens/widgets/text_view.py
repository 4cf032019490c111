"""Long text to read: wrapped by cells, with the share that was seen, a search, and what differs marked."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from textual.content import Content
from textual.message import Message

from screens.difference import Piece
from screens.safe import clusters, visible, visible_places, wrap_places
from screens.widgets.line_view import LineView, Span

Paragraph = tuple[str | Sequence[Piece], str]
"""A text, or a text in pieces of which those that differ are marked; and its tone."""
Range = tuple[int, int]
"""From a character of a line up to another."""


class _Line(NamedTuple):
    """A line as it is drawn.

    :ivar place: the paragraph, and the character of it that the line begins with.
    :ivar marks: what of it differs.
    """

    text: str
    tone: str
    place: tuple[int, int]
    marks: tuple[Range, ...]


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
        self._marked = True
        self._paragraphs: tuple[Paragraph, ...] = ()
        self._text: tuple[tuple[str, str], ...] = ()
        self._lines: list[_Line] = []
        self._wrapped_at = 0
        self._needle = ""
        self._match = -1
        self._seen = 0
        self._said = ""

    # ---- the text

    def set_text(self, text: str | Sequence[Paragraph], *, label: str = "", keep: bool = False) -> None:
        """Show text, or (paragraph, tone) pairs; a paragraph in pieces has those marked that are ``only`` here.

        The same text in other pieces stays where it is.

        :param keep: the same text with more at its end: the window stays, or stays at the end if it was there.
        """
        paragraphs: tuple[Paragraph, ...] = ((text, ""),) if isinstance(text, str) else tuple(text)
        self.label = label
        if paragraphs != self._paragraphs:
            at_end = keep and self.at_end and self._lines != []
            self._paragraphs = paragraphs
            plain = tuple(
                (said if isinstance(said, str) else "".join(p.text for p in said), t) for said, t in paragraphs
            )
            same, self._text = plain == self._text, plain
            self._wrapped_at = 0
            self._wrap(keep_place=False)
            if not keep and not same:
                self.top, self._match, self._seen = 0, -1, 0
            self.top = max(0, min(self.top, len(self._lines) - self.window))
            if at_end:
                self.top = max(0, len(self._lines) - self.window)
            self.redraw_changed()
        self.on_scrolled()

    @property
    def marked(self) -> bool:
        """Whether the pieces that differ are shown so."""
        return self._marked

    @marked.setter
    def marked(self, on: bool) -> None:
        if on != self._marked:
            self._marked = on
            self.redraw_changed()

    def _wrap(self, *, keep_place: bool = True) -> None:
        """Cut the text to lines of the width there is; what was read, and where one was, stays.

        :param keep_place: the text is the same as that of the lines now.
        """
        width = self.size.width
        if width <= 0 or width == self._wrapped_at or not self.is_arranged:
            if not keep_place:
                self._lines = []
            return
        self._wrapped_at = width
        before = self._lines
        self._lines = [line for number, said in enumerate(self._paragraphs) for line in _wrapped(number, said, width)]
        if not keep_place or not before:
            return
        places = [line.place for line in self._lines]

        def now(index: int) -> int:
            return max(0, bisect_right(places, before[index].place) - 1)

        read_all = self._seen >= len(before)
        self._seen = len(places) if read_all else now(self._seen - 1) + 1 if self._seen else 0
        self.top = now(min(self.top, len(before) - 1))
        self._match = now(self._match) if 0 <= self._match < len(before) else -1

    @property
    def is_arranged(self) -> bool:
        """Whether it has the size in which it will be seen."""
        return True

    @property
    def is_wrapped(self) -> bool:
        """Whether the lines are those of the width there is."""
        return self._wrapped_at == self.size.width

    @property
    def at_end(self) -> bool:
        """Whether the last line is seen."""
        return self.top + self.window >= len(self._lines)

    @property
    def percent(self) -> int:
        """How much has been on the screen, in percent."""
        return min(100, 100 * self._seen // len(self._lines)) if self._lines else 100

    def on_scrolled(self) -> None:
        if not self.is_arranged:
            return
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
        if not self.is_arranged:
            return
        self._wrap()
        self.top = max(0, min(self.top, len(self._lines) - self.window))
        self.refresh()
        self.on_scrolled()
        self.resized()

    def resized(self) -> None:
        """Called after the lines were wrapped to another width, or the window is another."""

    # ---- search

    def seek(self, needle: str) -> list[int]:
        """Mark every place of a text (case does not matter) without going there; the lines that have it."""
        self._needle = visible(needle).casefold()
        self._match = -1
        self.refresh()
        return self.matches

    @property
    def matches(self) -> list[int]:
        """The lines that have what is searched for."""
        return [i for i, line in enumerate(self._lines) if self._needle and self._needle in line.text.casefold()]

    @property
    def changes(self) -> list[int]:
        """The lines at which something marked begins after a line without, if marks are shown."""
        marks = [bool(line.marks) and self._marked for line in self._lines]
        return [i for i, on in enumerate(marks) if on and not (i and marks[i - 1])]

    def at_match(self, index: int) -> None:
        """The line one is at of those that match; -1: at none."""
        self._match = index
        self.on_scrolled()

    def search(self, needle: str) -> bool:
        """Mark every place of a text (case does not matter) and go to the first from here on; False if none."""
        self.seek(needle)
        return self._go(self.top, 1) if self._needle else True

    def _go(self, start: int, direction: int) -> bool:
        count = len(self._lines)
        for offset in range(count):
            index = (start + direction * offset) % count
            if self._needle and self._needle in self._lines[index].text.casefold():
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
        line = self._lines[index]
        return (line.text, line.tone, line.marks if self._marked else (), self._needle)

    def spans(self, index: int, width: int) -> Sequence[Span]:
        line = self._lines[index]
        marks = line.marks if self._marked else ()
        if not self._needle:
            return _toned(line, 0, len(line.text), marks)
        out: list[Span] = []
        folded, at = line.text.casefold(), 0
        # Folding may change the length of a text; then its places are not those of the text drawn.
        while len(folded) == len(line.text) and (place := folded.find(self._needle, at)) >= 0:
            end = place + len(self._needle)
            out += [*_toned(line, at, place, marks), Span(line.text[place:end], "found")]
            at = end
        return [*out, *_toned(line, at, len(line.text), marks)]


def _toned(line: _Line, start: int, end: int, marks: Sequence[Range]) -> list[Span]:
    """A part of a line, what differs in its own tone."""
    out: list[Span] = []
    for first, last in marks:
        if last > start and first < end:
            first, last = max(first, start), min(last, end)
            out += [Span(line.text[start:first], line.tone), Span(line.text[first:last], "differs")]
            start = last
    return [*out, Span(line.text[start:end], line.tone)]


def _wrapped(number: int, paragraph: Paragraph, width: int) -> Iterator[_Line]:
    """The lines of a paragraph."""
    said, tone = paragraph
    pieces = [Piece(said, False)] if isinstance(said, str) else said
    edges: list[int] = []
    at = 0
    for piece in pieces:
        if piece.only:
            edges += [at, at + len(piece.text)]
        at += len(piece.text)
    text, edges = visible_places("".join(piece.text for piece in pieces), edges, newlines=True)
    marks = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]
    begin = next_mark = 0
    for line in text.split("\n"):
        for first, last in wrap_places(line, width):
            start, end = begin + first, begin + last
            while next_mark < len(marks) and marks[next_mark][1] <= start:
                next_mark += 1
            inside: list[Range] = []
            at = next_mark
            while at < len(marks) and marks[at][0] < end:
                inside.append((max(marks[at][0], start) - start, min(marks[at][1], end) - start))
                at += 1
            shown = line[first:last]
            yield _Line(shown, tone, (number, start), tuple(_whole(shown, inside)))
        begin += len(line) + 1


def _whole(line: str, marks: Sequence[Range]) -> Iterator[Range]:
    """The marks widened to what is drawn together, so that no character is torn from its accent."""
    if line.isascii() or not marks:
        yield from marks
        return
    starts = [0]
    for cluster in clusters(line):
        starts.append(starts[-1] + len(cluster))
    done = 0
    for a, b in marks:
        first = max(done, starts[bisect_right(starts, a) - 1])
        done = max(first, starts[bisect_right(starts, b - 1)])
        if first < done:
            yield first, done
