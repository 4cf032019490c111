"""What the rating screen shows, from what is on the desk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content

from screens.live import Live
from screens.rate_view import GUIDE, effect_lines, facts, header, keys_line, last_ratings, strip
from screens.rating_desk import Desk
from screens.safe import fit, wrap
from screens.widgets.lines import Line
from screens.widgets.text_view import TextView
from sessions.records import Response


def response_shown(desk: Desk) -> Response | None:
    """The response on the desk, once its group is here."""
    visit = desk.current
    if visit is None or visit.detail is None:
        return None
    return next((r for r in visit.detail.group.responses if r.letter == visit.letter), None)


class RateBody(Vertical):
    """The prompt, one response, the keys, and what became of the last ratings.

    :ivar folded: whether only the first lines of the prompt are shown.
    """

    DEFAULT_CSS = """
    RateBody #header, RateBody #keys, RateBody #said { height: 1; }
    RateBody #prompt { height: 4; }
    RateBody #response { height: 1fr; }
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
        self.last = TextView(id="last", classes="pane")
        self.guide = TextView(id="guide", classes="pane")
        for still in (self.prompt, self.last, self.guide):
            still.can_focus = still.says_position = False
        self.folded = True

    def compose(self) -> ComposeResult:
        yield Line("header")
        yield self.prompt
        yield self.response
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
        self._line("header", header(desk))
        self._draw_prompt(desk)
        self._draw_response(desk, response, nothing)
        self._line("keys", keys_line(desk.mode) + "     x skip   u undo   c comment   enter next group")
        hint = ""
        if visit is not None:
            hint = facts(response) if visit.revealed else "reward and step hidden: v reveals"
        self._line("said", f" {fit(said, max(0, self.size.width - len(hint) - 3))} {hint} ")
        self._draw_effect(effect_lines(desk, live.uses, live.values, live.task, self.size.width))
        if self.has_class("-tall"):
            self.last.border_title = "your last ratings   u undo"
            self.last.set_text("\n".join(last_ratings(desk, live.uses, 7)) or " none yet in this session")
            self.guide.border_title = "guide"
            self.guide.set_text("\n".join(GUIDE))

    def _line(self, name: str, text: str) -> None:
        self.query_one(f"#{name}", Line).show(Content(text))

    def _draw_prompt(self, desk: Desk) -> None:
        visit = desk.current
        text = visit.detail.group.prompt if visit is not None and visit.detail is not None else ""
        lines = len(wrap(text, max(10, self.size.width - 2)))
        most = max(2, self.size.height // 2 - 4)
        height = min(2 if self.size.height >= 16 else 1, lines) if self.folded else min(lines, most)
        self.prompt.styles.height = height + 2
        more = lines - height
        hidden = f"   +{more} lines" if more > 0 else ""
        self.prompt.border_title = Content(f"prompt   P {'expand' if self.folded else 'fold'}{hidden}")
        self.prompt.set_text(text)

    def _draw_response(self, desk: Desk, response: Response | None, nothing: Iterable[str]) -> None:
        visit = desk.current
        if visit is None or response is None:
            self.response.border_title = Content("response")
            self.response.set_text([(line, "dim") for line in nothing])
            return
        short_title = strip(desk)
        title = f"response {visit.letter} of {len(visit.order)}   {short_title}"
        self.response.border_title = Content(title if len(title) <= self.size.width - 6 else short_title)
        ended = "" if response.ended else " TRUNCATED"
        lines = [(response.text or "(an empty response)", "" if response.text else "dim")]
        comment = visit.comments.get(visit.letter, "")
        if comment:
            lines.append((f"your comment: {comment}", "accent"))
        self.response.set_text(lines, label=f"{response.length} tok{ended}")

    def _draw_effect(self, lines: Sequence[str]) -> None:
        folded = [piece for line in lines for piece in wrap(line, max(20, self.size.width - 1))][:6]
        effect = self.query_one("#effect", Line)
        effect.display = bool(folded)
        effect.styles.height = len(folded)
        effect.show(Content("\n".join(folded)))
