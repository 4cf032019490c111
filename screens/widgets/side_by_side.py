"""Two texts read against each other: they scroll together, and the words that differ can be marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container

from screens.base import WorkbenchScreen
from screens.difference import Piece, difference
from screens.keys import bindings
from screens.widgets.text_view import Paragraph, TextView

BESIDE = 100
"""Cells from which two texts stand beside each other unless a person wants them stacked."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two texts.

    :ivar title: on the upper edge.
    :ivar text: what is read, and compared with the other.
    :ivar label: on the lower edge, before the share that was read.
    :ivar above: (paragraph, tone) over the text, such as its rewards; not compared.
    :ivar below: the same, under it.
    """

    title: str
    text: str
    label: str = ""
    above: tuple[tuple[str, str], ...] = ()
    below: tuple[tuple[str, str], ...] = ()


class _View(TextView, can_focus=False):
    """One side; what moves it is the pair."""

    def __init__(self, pair: SideBySide, name: str) -> None:
        super().__init__(id=name, classes="pane")
        self.pair = pair

    def turn_wheel(self, lines: int) -> None:
        self.pair.scroll_lines(lines)

    @property
    def is_arranged(self) -> bool:
        # Between two arrangements a text has a size that nobody will see; nothing is wrapped or read in it.
        return (self.outer_size.width >= self.pair.size.width) == self.pair.stacked

    def resized(self) -> None:
        self.pair.settle()


class SideBySide(Container, can_focus=True, can_focus_children=False):
    """Two texts beside each other, or stacked where that leaves too little width.

    They scroll by the same number of lines, and a short one stops at its end. One that was scrolled alone keeps its
    distance to the other from then on; the first line of both (``g``) puts them level again.

    :param marked: whether what differs is marked at first.
    :param always_marked: it is marked, and no key takes that away: ``D`` is then the screen's.
    :ivar alone: the side that is scrolled alone, 0 or 1; None: both are.
    """

    BINDINGS: ClassVar[list[BindingType]] = [*bindings("list", "sides", without=("move.left", "move.right"))]
    DEFAULT_CSS = """
    SideBySide { height: 1fr; width: 1fr; layout: horizontal; overflow: hidden; }
    SideBySide.-stacked { layout: vertical; }
    """

    def __init__(
        self,
        *,
        marked: bool = False,
        always_marked: bool = False,
        id: str | None = None,  # noqa: A002
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.views = (_View(self, "left-side"), _View(self, "right-side"))
        self.alone: int | None = None
        self._marked = marked or always_marked
        self._always_marked = always_marked
        self._stacked: bool | None = None
        self._sides: tuple[Side, Side] | None = None
        self._at = 0
        self._apart = [0, 0]
        self._needle = ""
        self._place = (0, -1)

    def compose(self) -> ComposeResult:
        yield from self.views

    # ---- what it shows

    def show(self, left: Side, right: Side) -> None:
        """Show two texts; where a text is another than before it begins at its first line, and both are level."""
        before, self._sides = self._sides, (left, right)
        if before == self._sides:
            return
        if before is None or [s.text for s in before] != [s.text for s in self._sides]:
            self._at, self._apart, self._place = 0, [0, 0], (0, -1)
            self.alone = None
            for view in self.views:
                view.show_from(0)
        self._fill()
        self._entitle()

    def _fill(self) -> None:
        if self._sides is None:
            return
        pieces: Sequence[str | Sequence[Piece]] = [side.text for side in self._sides]
        if self._marked:  # what nobody looks at is not computed
            pieces = difference(self._sides[0].text, self._sides[1].text)
        for view, side, said in zip(self.views, self._sides, pieces, strict=True):
            paragraphs: list[Paragraph] = [*side.above, (said, ""), *side.below]
            view.set_text(paragraphs, label=side.label)

    def _entitle(self) -> None:
        for number, (view, side) in enumerate(zip(self.views, self._sides or (), strict=False)):
            word = "   scrolls alone" if self.alone == number else ""
            view.entitle(side.title + word)
            view.set_class(self.alone in (None, number), "-scrolls")

    @property
    def marked(self) -> bool:
        """Whether the words that differ are marked."""
        return self._marked

    @marked.setter
    def marked(self, on: bool) -> None:
        if on == self._marked or self._always_marked:
            return
        self._marked = on
        for view in self.views:
            view.marked = on
        if on:
            self._fill()

    @property
    def alike(self) -> bool:
        """Whether the two texts are the same."""
        return self._sides is not None and self._sides[0].text == self._sides[1].text

    @property
    def stacked(self) -> bool:
        """Whether one text stands under the other."""
        return self.size.width < BESIDE if self._stacked is None else self._stacked

    @stacked.setter
    def stacked(self, on: bool) -> None:
        self._stacked = on
        self.set_class(on, "-stacked")

    @property
    def percents(self) -> tuple[int, int]:
        """How much of each has been on the screen, in percent."""
        return self.views[0].percent, self.views[1].percent

    # ---- scrolling

    def _last(self, number: int) -> int:
        """The greatest first line of a side."""
        view = self.views[number]
        return max(0, view.line_count() - view.window)

    def _both(self) -> Iterable[int]:
        return (0, 1)

    def _put(self, at: int) -> None:
        """Go to a line; a side that is short or stands apart goes as far as it can."""
        ends = [self._last(n) - self._apart[n] for n in self._both()]
        self._at = max(min(-apart for apart in self._apart), min(at, max(ends)))
        for number, view in enumerate(self.views):
            view.show_from(self._at + self._apart[number])

    def scroll_lines(self, lines: int) -> None:
        """Down, or up, by lines: both, or the one that is scrolled alone."""
        if self.alone is None:
            self._put(self._at + lines)
            return
        view = self.views[self.alone]
        view.show_from(view.top + lines)
        self._apart[self.alone] = view.top - self._at

    def settle(self) -> None:
        """The lines are others than before: go where the longer text has gone."""
        if not all(view.is_wrapped for view in self.views):
            return  # the other one comes here too
        longer = max(self._both(), key=self._last)
        self._put(self.views[longer].top - self._apart[longer])

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(self.stacked, "-stacked")

    # ---- search

    def search(self, needle: str) -> bool:
        """Mark every place of a text in both and go to the first from here on; False if there is none."""
        self._needle = needle
        self._place = (self._at - 1, 1)
        found = [place for view in self.views for place in view.seek(needle)]
        if found:
            self.match(1)
        return bool(found) or not needle

    def match(self, direction: int) -> None:
        """To the next place found, or the one before, in either text; without a search, to the next difference.

        Places that stand beside each other come left first; after the last comes the first.
        """
        places = sorted(
            (line - self._apart[n], n)
            for n in self._both()
            for line in (self.views[n].matches if self._needle else self.views[n].changes)
        )
        if not places:
            return
        if direction > 0:
            self._place = next((place for place in places if place > self._place), places[0])
        else:
            self._place = next((place for place in reversed(places) if place < self._place), places[-1])
        line, number = self._place[0] + self._apart[self._place[1]], self._place[1]
        view = self.views[number]
        if not view.top <= line < view.top + view.window:
            self._put(self._place[0] - view.window // 3)
        for n in self._both():
            self.views[n].at_match(line if n == number and self._needle else -1)

    # ---- keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A replay keeps its brackets; what is always marked leaves ``D`` to the screen."""
        if action == "alone":
            return not (isinstance(self.screen, WorkbenchScreen) and self.screen.replaying is not None)
        return not (action == "differences" and self._always_marked)

    def action_move(self, direction: str) -> None:
        page = max(1, min((view.window for view in self._moving()), default=1) - 1)
        steps = {"down": 1, "up": -1, "page_down": page, "page_up": -page}
        if direction in steps:
            self.scroll_lines(steps[direction])
        elif direction == "bottom":
            self.scroll_lines(sum(view.line_count() for view in self.views))
        elif direction == "top":
            if self.alone is None:
                self._apart = [0, 0]
            self.scroll_lines(-sum(view.line_count() for view in self.views))

    def _moving(self) -> Sequence[TextView]:
        return self.views if self.alone is None else (self.views[self.alone],)

    def action_match(self, direction: int) -> None:
        self.match(direction)

    async def action_filter(self) -> None:
        # Where the words are typed is the screen's to say; it calls search().
        await self.run_action("screen.filter")

    def action_differences(self) -> None:
        self.marked = not self.marked
        if self.marked and self.alike and isinstance(self.screen, WorkbenchScreen):
            self.screen.say("the two texts are the same")

    def action_stack(self) -> None:
        self.stacked = not self.stacked

    def action_alone(self, number: int) -> None:
        self.alone = None if self.alone == number else number
        self._entitle()
