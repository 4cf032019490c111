"""Rating by hand: one response at a time, one key a decision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on, work
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget

from screens.base import WorkbenchScreen
from screens.group_details import GroupDetails
from screens.keys import bindings
from screens.live import Live
from screens.rate_view import (
    GUIDE,
    effect_lines,
    facts,
    gate_words,
    header,
    keys_line,
    last_ratings,
    rating_text,
    strip,
)
from screens.rating_desk import Desk
from screens.safe import fit, visible, wrap
from screens.states import failed_lines, loading_lines, pane_state
from screens.topline import phase_text, state_content
from screens.widgets.ask import Ask
from screens.widgets.lines import Line
from screens.widgets.text_view import TextView
from sessions.commands import Command, QueryGroups, Rate, Retract, Skip, whoami
from sessions.errors import WorkbenchError
from sessions.records import GroupHead, Response, parse_response_name
from sessions.wire import Answer

PREFETCH = 2
"""Groups fetched ahead, so that ``enter`` paints at once."""
TALL = 36


class RateScreen(WorkbenchScreen):
    """The group on the desk: its prompt, one response, the keys, and what became of the last ratings."""

    MODE = "rate"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("rate")]
    AUTO_FOCUS = "#response"
    DEFAULT_CSS = """
    RateScreen #header, RateScreen #keys, RateScreen #said { height: 1; }
    RateScreen #prompt { height: 4; }
    RateScreen #response { height: 1fr; }
    RateScreen #effect { color: $text-accent; }
    RateScreen #below { height: 9; display: none; }
    RateScreen.-tall #below { display: block; layout: horizontal; }
    RateScreen #last { width: 1fr; }
    RateScreen #guide { width: 1fr; display: none; }
    RateScreen.-wide #guide { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.prompt = TextView(id="prompt", classes="pane")
        self.prompt.can_focus = False
        self.response = TextView(id="response", classes="pane")
        self.last = TextView(id="last", classes="pane")
        self.guide = TextView(id="guide", classes="pane")
        self.prompt.says_position = self.last.says_position = self.guide.says_position = False
        self.last.can_focus = self.guide.can_focus = False
        self.folded = True
        self.status_text = ""
        self._live: Live | None = None
        self._queue_at = -1
        self._older: dict[tuple[str, int, int], GroupHead] = {}
        self._shown: tuple[object, ...] = ()

    def compose_body(self) -> Iterable[Widget]:
        yield Line("header")
        yield self.prompt
        yield self.response
        yield Line("keys")
        yield Line("said")
        yield Line("effect")
        with Horizontal(id="below"):
            yield self.last
            yield self.guide
        yield Ask(id="ask")

    # ---- the desk

    def _sit_down(self) -> None:
        """A desk for the session that is shown; another session gets another one."""
        live = self.live
        if self._live is live:
            return
        self._live = live
        self.desk = Desk(whoami(), live.ratings, live.clock, lambda: live.version["ratings"])
        self.details = GroupDetails(self, self._came)
        self._older.clear()
        self._queue_at = -1

    def on_screen_resume(self) -> None:
        self._sit_down()
        self.desk.resume()
        self._ask_for_older()

    def on_screen_suspend(self) -> None:
        if self._live is not None:
            self.desk.pause()

    @work(group="queue", exclusive=True, exit_on_error=False)
    async def _ask_for_older(self) -> None:
        """Groups that wait from before what the model of the session holds."""
        try:
            heads = await self.query_engine(QueryGroups(unrated=True), list[GroupHead])
        except WorkbenchError:
            return  # the state of the link is on the first line
        self._older = {(h.branch, h.step, h.number): h for h in heads}
        self._queue_at = -1
        self.refresh_now()

    def _update_queue(self) -> None:
        version = self.live.version["heads"] + self.live.version["link"]
        if version == self._queue_at:
            return
        self._queue_at = version
        self.desk.book.follow(self.live.ratings)
        self.desk.book.branch = self.live.status.branch if self.live.status else "main"
        self.desk.heads = {**self._older, **self.live.heads}
        self.details.retry()

    def _came(self, name: str) -> None:
        detail = self.details.get(name)
        if detail is not None:
            self.desk.loaded(detail)
        self.refresh_now()

    def _open_next(self) -> None:
        visit = self.desk.next_group()
        if visit is None:
            self.say("no other group waits for a rating")

    def rate_response(self, head: GroupHead, letter: str) -> None:
        """Show a response chosen on another screen, where its reward was seen."""
        self._sit_down()
        self._update_queue()
        self.desk.open((head.branch, head.step, head.number), len(head.rewards), letter, revealed=True)
        self.refresh_now()

    # ---- drawing

    def state_line(self, width: int) -> Content:
        title = f"RATE  {self.desk.mode.title}" if self._live is not None else "RATE"
        middle = [(0, phase_text(self.live)), (1, f"({gate_words(self.live.values)})")]
        return state_content(self.live, width, middle, title)

    def announcement(self) -> str:
        return "J K response   j k scroll   tab next unrated   enter next group   m mode"

    def refresh_from_live(self, force: bool) -> None:
        self._sit_down()
        self.set_class(self.size.width >= 100, "-wide")
        self.set_class(self.size.height >= TALL, "-tall")
        self._update_queue()
        if self.desk.current is None and self.desk.upcoming():
            self.desk.next_group()
        self._draw()

    def _draw(self) -> None:
        desk = self.desk
        visit = desk.current
        if visit is not None:
            if visit.detail is None and (detail := self.details.get(desk.book.name(visit.key))) is not None:
                desk.loaded(detail)
            for head in desk.upcoming()[:PREFETCH]:
                self.details.get(desk.book.name((head.branch, head.step, head.number)))
        self.query_one("#header", Line).show(Content(header(desk)))
        self._draw_prompt()
        self._draw_response()
        others = "     x skip   u undo   c comment   enter next group"
        self.query_one("#keys", Line).show(Content(keys_line(desk.mode) + others))
        hint = ""
        if visit is not None:
            hint = facts(self._response()) if visit.revealed else "reward and step hidden: v reveals"
        room = max(0, self.size.width - len(hint) - 3)
        self.query_one("#said", Line).show(Content(f" {fit(self.status_text, room)} {hint} "))
        self._draw_effect()
        if self.has_class("-tall"):
            self.last.border_title = "your last ratings   u undo"
            lines = last_ratings(desk, self.live.uses, 7)
            self.last.set_text("\n".join(lines) or " none yet in this session")
            self.guide.border_title = "guide"
            self.guide.set_text("\n".join(GUIDE))

    def _draw_prompt(self) -> None:
        visit = self.desk.current
        text = visit.detail.group.prompt if visit is not None and visit.detail is not None else ""
        lines = len(wrap(text, max(10, self.size.width - 2)))
        most = max(2, self.size.height // 2 - 6)
        height = min(2, lines) if self.folded else min(lines, most)
        self.prompt.styles.height = height + 2
        more = lines - height
        hidden = f"   +{more} lines" if more > 0 else ""
        self.prompt.border_title = Content(f"prompt   P {'expand' if self.folded else 'fold'}{hidden}")
        self.prompt.set_text(text)

    def _response(self) -> Response | None:
        visit = self.desk.current
        if visit is None or visit.detail is None:
            return None
        return next((r for r in visit.detail.group.responses if r.letter == visit.letter), None)

    def _draw_response(self) -> None:
        visit, response = self.desk.current, self._response()
        if visit is None or response is None:
            self.response.border_title = Content("response")
            self.response.set_text([(line, "dim") for line in self._nothing()])
            return
        comment = visit.comments.get(visit.letter, "")
        title = f"response {visit.letter} of {len(visit.order)}   {strip(self.desk)}"
        short_title = strip(self.desk)
        self.response.border_title = Content(title if len(title) <= self.size.width - 6 else short_title)
        ended = "" if response.ended else " TRUNCATED"
        lines = [(response.text or "(an empty response)", "" if response.text else "dim")]
        if comment:
            lines.append((f"your comment: {comment}", "accent"))
        self.response.set_text(lines, label=f"{response.length} tok{ended}")

    def _nothing(self) -> list[str]:
        state = pane_state(self.live)
        if state == "loading":
            return loading_lines(self.live)
        visit = self.desk.current
        if visit is not None:
            why = self.details.failed.get(self.desk.book.name(visit.key), "")
            return [f"the group could not be read: {why}"] if why else ["reading the group ..."]
        if state == "failed":
            return failed_lines(self.live)
        if not self.desk.heads:
            return ["nothing waits: no group has been sampled and scored yet; the first comes with the first step"]
        return ["nothing waits: you have rated every group there is.", "New ones come with every step.   d dashboard"]

    def _draw_effect(self) -> None:
        lines = effect_lines(self.desk, self.live.uses, self.live.values, self.live.task)
        folded = [piece for line in lines for piece in wrap(line, max(20, self.size.width - 1))][:6]
        effect = self.query_one("#effect", Line)
        effect.display = bool(folded)
        effect.styles.height = len(folded)
        effect.show(Content("\n".join(folded)))

    # ---- answers of the engine

    def on_answer(self, command: Command, answer: Answer) -> None:
        if answer.status == "accepted" or self._live is None:
            return
        failed = answer.status == "rejected"
        match command:
            case Rate() | Retract() | Skip():
                self.desk.book.confirmed(command, failed=failed)
        match command:
            case Rate():
                what = ", ".join(f"{k}={v:g}" for k, v in command.values.items())
                self.status_text = f"not saved: {what}: {answer.text}" if failed else f"saved: {what}"
            case Retract():
                self.status_text = f"not undone: {answer.text}" if failed else "undone; ctrl+r gives it again"
            case _:
                pass

    def _send_rating(self, command: Rate | None, word: str = "saving") -> None:
        if command is None:
            self.say("there is no response to rate yet")
            return
        self.status_text = f"{word}: " + ", ".join(f"{k}={v:g}" for k, v in command.values.items()) + " ..."
        self.send(command)
        self._draw()

    # ---- actions

    def action_rate(self, mode: str, value: float) -> None:
        if mode != self.desk.mode.name:
            self.say(f"the mode is {self.desk.mode.title}: {keys_line(self.desk.mode).strip()}   m changes it")
            return
        if self._response() is None:
            self.say("there is no response to rate yet")
            return
        self._send_rating(self.desk.rate(float(value)))

    def action_next_group(self) -> None:
        self._open_next()
        self._draw()

    def action_next_unrated(self) -> None:
        self._go_unrated(1)

    def action_previous_unrated(self) -> None:
        self._go_unrated(-1)

    def _go_unrated(self, direction: int) -> None:
        if not self.desk.next_unrated(direction):
            self.say("every response here is rated or skipped: enter opens the next group")
        self._draw()

    def action_response(self, direction: int) -> None:
        self.desk.response(direction)
        self._draw()

    def action_undo(self) -> None:
        command = self.desk.undo()
        if command is None:
            self.say("nothing to undo: you have no rating in this session")
            return
        undone = self.desk.book.undone[-1]
        self.status_text = f"undoing {rating_text(undone)} ..."
        self.send(command)
        self._draw()

    def action_redo(self) -> None:
        command = self.desk.redo()
        if command is None:
            self.say("nothing to redo")
            return
        self._send_rating(command, "giving again")

    def action_reveal(self) -> None:
        visit = self.desk.current
        if visit is not None:
            visit.revealed = True
            self._draw()

    def action_fold(self) -> None:
        self.folded = not self.folded
        self._draw()

    def action_next_rating_mode(self) -> None:
        self.desk.next_mode()
        self.refresh_now()

    def action_skip(self) -> None:
        if self._response() is not None:
            self.query_one(Ask).ask("skip", "skip, because", hint="enter alone skips without a reason, esc goes back")

    def action_unskip(self) -> None:
        taken = self.desk.unskip()
        self.say("the response waits for a rating again" if taken else "this response was not skipped")
        self._draw()

    def action_comment(self) -> None:
        visit = self.desk.current
        if visit is not None and self._response() is not None:
            self.query_one(Ask).ask(
                "comment", "comment", visit.comments.get(visit.letter, ""), "one line, kept with it"
            )

    def action_filter(self) -> None:
        self.query_one(Ask).ask("search", "search /", hint="text in this response")

    @on(Ask.Answered)
    def _answered(self, event: Ask.Answered) -> None:
        if event.purpose == "search":
            if not self.response.search(event.text):
                self.say(f"{event.text!r} is not in this response")
        elif event.purpose == "skip":
            command = self.desk.skip(event.text.strip())
            if command is not None:
                self.status_text = f"skipped {parse_response_name(command.response).letter}; X on it takes that back"
                self.send(command)
        elif event.purpose == "comment":
            rating = self.desk.comment(event.text.strip())
            if rating is not None:
                self._send_rating(rating, "saving the comment")
            else:
                self.status_text = "the comment is kept for the rating of this response"
        self._draw()

    # ---- taking along

    def text_to_copy(self) -> str:
        response = self._response()
        return visible(response.text, newlines=True) if response else ""

    def text_to_open(self) -> str:
        visit = self.desk.current
        if visit is None or visit.detail is None:
            return ""
        texts = {r.letter: r.text for r in visit.detail.group.responses}
        parts = [visit.detail.group.prompt] + [f"---- {letter} ----\n{texts.get(letter, '')}" for letter in visit.order]
        return visible("\n\n".join(parts), newlines=True)
