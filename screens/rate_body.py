"""What the rating screen shows, from what is on the desk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget

from screens.live import Live
from screens.maze_lines import picture
from screens.rate_view import (
    effect_lines,
    facts,
    header,
    keys_line,
    last_ratings,
    more_keys,
    notes,
    order_text,
    rank_rows,
    strip,
)
from screens.rating_desk import Desk, Visit
from screens.safe import fit, wrap
from screens.sample_rows import number
from screens.widgets.lines import Line
from screens.widgets.maze_view import MazeView
from screens.widgets.rank_list import RankList
from screens.widgets.side_by_side import Side, SideBySide
from screens.widgets.text_editor import TextEditor
from screens.widgets.text_view import TextView
from sessions.modes import PAIR, RANK
from sessions.records import Response

LOW = 16
"""Rows below which what ratings do is cut to two lines."""
BESIDE = 120
"""Cells from which a ranking's list and the response in hand stand beside each other."""


def response_of(desk: Desk, letter: str) -> Response | None:
    """A response of the group on the desk, once it is here."""
    visit = desk.current
    if visit is None or visit.detail is None:
        return None
    return next((r for r in visit.detail.group.responses if r.letter == letter), None)


def response_shown(desk: Desk) -> Response | None:
    """The response in hand, once its group is here."""
    return response_of(desk, desk.letter)


class RateBody(Vertical):
    """The prompt, what is judged, the keys, and what became of the last ratings.

    :ivar folded: whether only the first lines of the prompt are shown.
    :ivar zoomed: whether one response of a ranking is read in full.
    :ivar comparing: whether the response shown is beside the one before it, with what differs marked.
    :ivar guide_text: what the guide says.
    :ivar trains: whether a model is trained on the ratings; a file is only rated.
    """

    DEFAULT_CSS = """
    RateBody #header, RateBody #said { height: 1; }
    RateBody #prompt { height: 4; }
    RateBody #answers { height: 1fr; }
    RateBody #response, RateBody #ranking, RateBody #pair, RateBody #compared { height: 1fr; width: 1fr; }
    RateBody #effect { color: $text-accent; }
    RateBody #below { height: 9; display: none; }
    RateBody.-tall #below { display: block; layout: horizontal; }
    RateBody #last { width: 1fr; }
    RateBody #guide { width: 1fr; display: none; }
    RateBody.-wide #guide { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.prompt = TextView(id="prompt", classes="pane")
        self.response = TextView(id="response", classes="pane")
        self.maze = MazeView(id="maze")
        self.ranking = RankList(id="ranking", classes="pane")
        self.pair = SideBySide(id="pair")
        self.compared = SideBySide(id="compared", always_marked=True)
        self.editor = TextEditor(id="editor")
        self.last = TextView(id="last", classes="pane")
        self.guide = TextView(id="guide", classes="pane")
        for still in (self.prompt, self.last, self.guide):
            still.can_focus = still.says_position = False
        self.folded = True
        self.zoomed = self.comparing = False
        self.guide_text = ""
        self.trains = True
        self._focus: Widget | None = None

    def compose(self) -> ComposeResult:
        yield Line("header")
        yield self.prompt
        with Horizontal(id="answers"):
            yield self.ranking
            yield self.maze
            yield self.response
            yield self.pair
            yield self.compared
            yield self.editor
        yield Line("keys")
        yield Line("said")
        yield Line("effect")
        with Horizontal(id="below"):
            yield self.last
            yield self.guide

    def draw(self, desk: Desk, live: Live, said: str, nothing: Iterable[str]) -> None:
        """Draw what changed.

        :param said: what became of the last key.
        :param nothing: what to say in the place of a response when there is none.
        """
        visit = desk.current
        response = response_shown(desk)
        self.trains = trains = live.connection != "file"
        self._line("header", header(desk, self.size.width))
        self._draw_prompt(desk)
        self._draw_answers(desk, response, nothing)
        self._draw_keys(desk)
        hint = ""
        if visit is not None:
            hint = facts(response) if visit.revealed else "reward and step hidden: v reveals"
            if not trains:
                hint = self._filed_hint(visit, response)
        self._line("said", f" {fit(said, max(0, self.size.width - len(hint) - 3))} {hint} ")
        lines = effect_lines(desk, live.uses, live.values, live.task, self.size.width) if trains else []
        self._draw_effect(lines)
        if self.has_class("-tall"):
            self.last.entitle("your last ratings   u undo")
            width = max(10, self.last.size.width)
            lines = [fit(line, width).rstrip() for line in last_ratings(desk, live.uses, 7, trains=trains)]
            self.last.set_text("\n".join(lines) or " none yet")
            self.guide.entitle("guide   :guide edits it")
            self.guide.set_text(self.guide_text)

    def _filed_hint(self, visit: Visit, response: Response | None) -> str:
        """What a file hides: rewards, where it has any."""
        if response is None or response.reward is None:
            return ""
        return f"reward {number(response.reward)}" if visit.revealed else "reward hidden: v reveals"

    def _line(self, name: str, text: str) -> None:
        self.query_one(f"#{name}", Line).show(Content(text))

    def _draw_keys(self, desk: Desk) -> None:
        width = self.size.width
        lines = keys_line(desk, width).split("\n")
        gap = "     "
        for word in more_keys(desk):
            if len(lines[-1]) + len(gap) + len(word) > width:
                break
            lines[-1] += gap + word
            gap = "   "
        if self.editor.is_open:
            lines = [""]
        keys = self.query_one("#keys", Line)
        if keys.styles.height is None or keys.styles.height.value != len(lines):
            keys.styles.height = len(lines)
        keys.show(Content("\n".join(line[:width] for line in lines)))

    def _draw_prompt(self, desk: Desk) -> None:
        visit = desk.current
        text = visit.detail.group.prompt if visit is not None and visit.detail is not None else ""
        lines = len(wrap(text, max(10, self.size.width - 2)))
        most = max(2, self.size.height // 2 - 4)
        height = min(2 if self.size.height >= 16 else 1, lines) if self.folded else min(lines, most)
        if self.prompt.styles.height is None or self.prompt.styles.height.value != height + 2:
            self.prompt.styles.height = height + 2
        more = lines - height
        hidden = f"   +{more} lines" if more > 0 else ""
        self.prompt.entitle(f"prompt   P {'expand' if self.folded else 'fold'}{hidden}")
        self.prompt.set_text(text)

    # ---- what is judged

    def _draw_answers(self, desk: Desk, response: Response | None, nothing: Iterable[str]) -> None:
        visit = desk.current
        shown: set[Widget] = {self.response}
        if self.editor.is_open:
            shown = {self.editor}
        elif visit is None or response is None:
            self.response.entitle("response")
            self.response.set_text([(line, "dim") for line in nothing])
        elif desk.mode is PAIR and visit.pair is not None:
            shown = {self.pair}
            left, right = visit.pair
            self.pair.show(self._side(desk, visit, left, 0), self._side(desk, visit, right, 1))
        elif self.comparing and visit.before and visit.before != visit.letter:
            shown = {self.compared}
            before, now = visit.before, visit.letter
            self.compared.show(
                self._plain_side(desk, visit, before, f"{before}, shown before"), self._compared(desk, visit, now)
            )
        elif desk.mode is RANK:
            self.ranking.entitle(self._rank_title(visit))
            wide = self.size.width >= BESIDE
            shown = {self.ranking, self.response} if wide else {self.response if self.zoomed else self.ranking}
            self.ranking.show(rank_rows(desk, visit))
            self._draw_response(
                desk, visit, response, f"{visit.here.index(visit.letter) + 1}   response {visit.letter}"
            )
        else:
            short = strip(desk)
            title = f"response {visit.letter} of {len(visit.order)}   {short}"
            self._draw_response(desk, visit, response, title if len(title) <= self.size.width - 6 else short)
        for widget in (self.ranking, self.response, self.pair, self.compared, self.editor):
            if widget.display != (widget in shown):
                widget.display = widget in shown
        detail = visit.detail if visit is not None and self.response in shown else None
        drawn = picture(detail.group, response) if detail is not None and response is not None else None
        self.maze.show(drawn, self.size.width)
        self._focus_on(
            next(w for w in (self.editor, self.pair, self.compared, self.ranking, self.response) if w in shown)
        )

    def _focus_on(self, widget: Widget) -> None:
        """The keys that scroll are those of what is judged."""
        if widget is self._focus or widget is self.editor:
            return
        focused = self.screen.focused
        mine = (self.ranking, self.response, self.pair, self.compared)
        # What is typed into keeps the keys.
        if focused is None or focused in mine or self.editor in focused.ancestors_with_self:
            self._focus = widget
            self.screen.set_focus(widget)

    def forget_focus(self) -> None:
        """Something else has had the keys."""
        self._focus = None

    def _rank_title(self, visit: Visit) -> str:
        order = order_text(visit)
        return f"best first: {order}" if order else "which is the best? its number, then the next best one's"

    def _draw_response(self, desk: Desk, visit: Visit, response: Response, title: str) -> None:
        self.response.entitle(title)
        lines = [(response.text or "(an empty response)", "" if response.text else "dim")]
        lines += notes(desk, visit, response.letter)
        self.response.set_text(lines, label=self._label(response))

    def _side(self, desk: Desk, visit: Visit, letter: str, side: int) -> Side:
        given = desk.answer_to(visit, visit.pair or ())
        said = ""
        if given is not None:
            word = {2: "much better", 1: "better", 0: "worse"}[int(given.values[letter])]
            if len(set(given.values.values())) == 1:
                word = "a tie" if given.values[letter] else "both bad"
            said = f"   {word}{'~' if desk.book.state(given) == 'saving' else ''}"
        hand = "   in hand" if visit.side == side else ""
        return self._plain_side(desk, visit, letter, f"{('left', 'right')[side]} {letter}{said}{hand}")

    def _compared(self, desk: Desk, visit: Visit, letter: str) -> Side:
        return self._plain_side(desk, visit, letter, f"{letter}   {strip(desk)}")

    def _plain_side(self, desk: Desk, visit: Visit, letter: str, title: str) -> Side:
        response = response_of(desk, letter)
        if response is None:
            return Side(title, "")
        label = self._label(response)
        if visit.revealed and self.trains:
            label = f"{facts(response)}   {label}"
        elif visit.revealed:
            label = self._filed_hint(visit, response)
        return Side(title, response.text or "(an empty response)", label, below=tuple(notes(desk, visit, letter)))

    def _draw_effect(self, lines: Sequence[str]) -> None:
        folded = [piece for line in lines for piece in wrap(line, max(20, self.size.width - 1))]
        folded = folded[: 6 if self.size.height >= LOW else 2]
        effect = self.query_one("#effect", Line)
        if effect.display != bool(folded):
            effect.display = bool(folded)
        if effect.styles.height is None or effect.styles.height.value != len(folded):
            effect.styles.height = len(folded)
        effect.show(Content("\n".join(folded)))

    @property
    def reading(self) -> TextView | SideBySide:
        """What is searched, and scrolled."""
        if self.pair.display:
            return self.pair
        return self.compared if self.compared.display else self.response

    def _label(self, response: Response) -> str:
        """Tokens, as the model counts them."""
        return f"{response.length} tok{'' if response.ended else ' TRUNCATED'}" if self.trains else ""
