"""The right side of the samples screen: a group's prompt, its responses, and one of them in full."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content

from screens.maze_lines import picture
from screens.safe import fit, visible
from screens.sample_rows import (
    GROWING_COLUMNS,
    RESPONSE_COLUMNS,
    growing_rows,
    response_rows,
    response_side,
    response_text,
)
from screens.widgets.line_table import Column, LineTable, Row
from screens.widgets.lines import Line
from screens.widgets.maze_view import MazeView
from screens.widgets.side_by_side import SideBySide
from screens.widgets.text_view import TextView
from sessions.wire import GroupDetail, Growing


class SamplePane(Vertical):
    """A group that was scored, one that grows, or some lines about why there is none.

    :ivar other: the response that the one under the cursor is read against; empty: it is read alone.
    """

    DEFAULT_CSS = """
    SamplePane #prompt, SamplePane #rule { height: 1; color: $text-muted; }
    SamplePane #responses { height: 6; }
    SamplePane.-zoomed #responses { display: none; }
    SamplePane.-empty #responses, SamplePane.-empty #rule { display: none; }
    SamplePane > SideBySide { display: none; }
    SamplePane.-comparing > SideBySide { display: block; }
    SamplePane #reading { height: 1fr; }
    SamplePane.-comparing #responses, SamplePane.-comparing #rule, SamplePane.-comparing #reading { display: none; }
    """

    def __init__(self, name: str) -> None:
        super().__init__(id=name, classes="pane")
        self.responses = LineTable(RESPONSE_COLUMNS, id="responses")
        self.text = TextView(id="text")
        self.maze = MazeView(id="maze")
        self.sides = SideBySide(always_marked=True, id="sides")
        self.other = ""
        self._held: tuple[int, int] = (0, 0)
        self._grown = ""

    def compose(self) -> ComposeResult:
        yield Line("prompt")
        yield self.responses
        yield Line("rule")
        with Horizontal(id="reading"):
            yield self.maze
            yield self.text
        yield self.sides

    @property
    def letter(self) -> str:
        """The response under the cursor."""
        return self.responses.key

    # ---- what it shows

    def show_group(self, name: str, detail: GroupDetail) -> None:
        """A group whose rewards are known."""
        group = detail.group
        rows = response_rows(group, detail.head.ratings)
        self._frame(f"{name}   {len(rows)} responses", group.prompt, rows, RESPONSE_COLUMNS)
        if self.other:
            self._compare(name, detail)
            return
        response = next((r for r in group.responses if r.letter == self.letter), None)
        self._rule(f"{self.letter}  {response.length} tok" if response else "")
        width = self.content_size.width or 100
        drawn = picture(group, response) if response else None
        self.maze.show(drawn, width)
        paragraphs = response_text(detail, self.letter, width)
        if drawn is not None:
            paragraphs.insert(1, (drawn.words, "good" if drawn.good else "warn"))
        self.text.set_text(paragraphs, label=f"{group.name}{self.letter}")
        self.say_position()

    def _compare(self, name: str, detail: GroupDetail) -> None:
        """The response under the cursor on the left, the other one on the right."""
        left, right = response_side(detail, self.letter), response_side(detail, self.other)
        if left is None or right is None:
            return
        self.sides.show(left, right)
        alike = "   the two are the same" if self.sides.alike else ""
        words = f" {name}  {self.letter} and {self.other} of {len(detail.group.responses)}{alike}   "
        prompt = words + " ".join(detail.group.prompt.split())
        self.query_one("#prompt", Line).show(Content(fit(prompt, max(4, self.content_size.width))))

    def show_growing(self, growing: Growing, follow: bool) -> None:
        """A group that is being sampled.

        :param follow: go on to a response that still grows when the one shown has ended, unless one was chosen.
        """
        title = f"sampling {growing.step}.{growing.group} (of {growing.groups} groups)"
        rows = growing_rows(growing, max(8, self.content_size.width - 10))
        self._frame(title, growing.prompt, rows, GROWING_COLUMNS)
        at = self.responses.cursor
        if follow and self._held != (growing.step, growing.group) and at < len(rows) and growing.ended[at]:
            at = next((i for i, ended in enumerate(growing.ended) if not ended), at)
            with self.prevent(LineTable.Moved):
                self.responses.move_to(at)
        self.maze.show(None, 0)
        text = growing.texts[at] if at < len(growing.texts) else ""
        ended = at < len(growing.ended) and growing.ended[at]
        self._rule(f"{self.letter}  {'ended, not scored yet' if ended else 'growing'}")
        now = f"{growing.step}.{growing.group}{self.letter}"
        self.text.set_text(text, label=self.letter, keep=self._grown == now)
        self._grown = now
        self.say_position()

    def show_lines(self, lines: Sequence[str]) -> None:
        """Why there is no group."""
        self._frame("", "", [], RESPONSE_COLUMNS)
        self.maze.show(None, 0)
        self.text.set_text([(line, "dim") for line in lines])
        self.say_position()

    def _frame(self, title: str, prompt: str, rows: list[Row], columns: Sequence[Column]) -> None:
        self.border_title = Content(visible(title))
        self.query_one("#prompt", Line).show(Content(fit(" ".join(prompt.split()), max(4, self.content_size.width))))
        self.set_class(not rows, "-empty")
        # As many responses as leave half of the pane, or at least seven lines, to the text of one.
        tall = self.content_size.height
        room = 1 + max(4, min(len(rows), max(tall // 2 - 2, tall - 10)))
        height = self.responses.styles.height
        if rows and (height is None or height.value != room):
            self.responses.styles.height = room
        self.responses.columns = list(columns)
        self.responses.set_rows(rows)

    def _rule(self, text: str) -> None:
        width = max(0, self.content_size.width)
        middle = f"---- {text} " if text else ""
        self.query_one("#rule", Line).show(Content(middle + "-" * max(0, width - len(middle))))

    def say_position(self) -> None:
        """Place and share in the border."""
        count = len(self.responses.shown)
        place = f"{self.responses.cursor + 1}/{count}" if count else ""
        self.border_subtitle = Content("  ".join(filter(None, (place, self.text.position))))

    # ---- moving

    def move(self, direction: int, growing: Growing | None) -> None:
        """To another response; while it grows it stays there."""
        if growing is not None:
            self._held = (growing.step, growing.group)
        self.responses.move_to(self.responses.cursor + direction)

    def read_against(self, other: str) -> None:
        """Show another response beside the one under the cursor, or none."""
        self.other = other
        self.set_class(bool(other), "-comparing")
        self.set_class(not other, "pane")  # the two have frames of their own

    def next_other(self, direction: int) -> str:
        """The response after, or before, the one on the right, round the end; never the one on the left."""
        letters = [row.key for row in self.responses.shown]
        others = [letter for letter in letters if letter != self.letter]
        if not others or self.letter not in letters:
            return ""
        if self.other in others:
            return others[(others.index(self.other) + direction) % len(others)]
        return others[letters.index(self.letter) % len(others)]  # the next one

    def zoom(self, on: bool) -> None:
        """The text alone, or with the list."""
        self.set_class(on, "-zoomed")
        self.screen.set_focus(self.text if on else self.responses)
