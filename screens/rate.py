"""Rating by hand: one response at a time, one key a decision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on, work
from textual.binding import BindingType
from textual.content import Content
from textual.widget import Widget

from screens.base import WorkbenchScreen
from screens.group_details import GroupDetails
from screens.headings import heading
from screens.keys import bindings
from screens.live import Live
from screens.rate_body import RateBody, response_shown
from screens.rate_view import gate_words, keys_line, rating_text, skips_of
from screens.rating_desk import Desk
from screens.safe import visible
from screens.states import failed_lines, loading_lines, pane_state
from screens.topline import phase_text
from screens.widgets.ask import Ask
from sessions.commands import Command, QueryGroups, Rate, Retract, Skip
from sessions.errors import WorkbenchError
from sessions.records import GroupHead, parse_response_name
from sessions.wire import Answer

PREFETCH = 2
"""Groups fetched ahead, so that ``enter`` paints at once."""
TALL = 36


class RateScreen(WorkbenchScreen):
    """The group on the desk: its prompt, one response, the keys, and what became of the last ratings."""

    MODE = "rate"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("rate")]
    AUTO_FOCUS = "#response"

    def __init__(self) -> None:
        super().__init__()
        self.body = RateBody()
        self.status_text = ""
        self._live: Live | None = None
        self._queue_at = self._link_at = self._line_at = -1
        self._older: dict[tuple[str, int, int], GroupHead] = {}
        self._chosen: tuple[str, int, int] | None = None

    def compose_body(self) -> Iterable[Widget]:
        yield self.body
        yield Ask(id="ask")

    # ---- the desk

    def _sit_down(self) -> None:
        """A desk for the session that is shown; another session gets another one."""
        live = self.live
        if self._live is live:
            return
        self._live = live
        self.desk = Desk(self.workbench.who, live.ratings, live.clock, lambda: live.version["ratings"])
        self.details = GroupDetails(self, self._came)
        self._older.clear()
        self._queue_at = self._link_at = -1
        self._line_at = live.version["line"]

    def on_screen_resume(self) -> None:
        self._sit_down()
        self.desk.resume()
        self._ask_for_older()
        self.call_later(self._go_where_it_waits)

    def _awaited(self) -> tuple[str, int] | None:
        """The branch and the step that stands at the gate, if one does."""
        status = self.live.status
        return (status.branch, status.step) if status is not None and self.live.state_word() == "WAIT" else None

    def _elsewhere(self) -> bool:
        """Whether the training waits for a group of its step, and one of another step is on the desk."""
        awaited, visit = self._awaited(), self.desk.current
        return awaited is not None and visit is not None and visit.key[:2] != awaited

    def _go_where_it_waits(self) -> None:
        """Whoever comes here while a step waits at the gate comes to rate it, not what was left here before."""
        visit = self.desk.current
        if visit is not None and self._elsewhere() and visit.key != self._chosen:
            self._update_queue()
            self.desk.next_group(self._awaited())
            self.refresh_now()

    def on_screen_suspend(self) -> None:
        self._chosen = None
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
        link, version = self.live.version["link"], self.live.version["heads"]
        if link != self._link_at:
            # Another connection, perhaps to an engine that went back to a checkpoint: what waited before may be gone.
            if self._link_at >= 0:
                self._older.clear()
                self._ask_for_older()
            self._link_at, self._queue_at = link, -1
            self.details.retry()
        line = self.live.version["line"]
        if line != self._line_at:  # what was shown may be on a branch that was left
            self._line_at, self._queue_at = line, -1
            self.desk.keep_only(lambda key: self.live.on_line(key[0], key[1]))
            self._older.clear()
            self._ask_for_older()
        if version == self._queue_at:
            return
        self._queue_at = version
        desk = self.desk
        desk.book.follow(self.live.ratings)
        desk.book.branch = self.live.status.branch if self.live.status else "main"
        desk.heads = {**self._older, **self.live.heads}
        desk.skips = skips_of(desk.who, self.live.events)

    def _came(self, name: str) -> None:
        detail = self.details.get(name)
        if detail is not None:
            self.desk.loaded(detail)
        self.refresh_now()

    def _open_next(self) -> None:
        visit = self.desk.next_group(self._awaited())
        if visit is None:
            self.say("no other group waits for a rating")

    def rate_response(self, head: GroupHead, letter: str) -> None:
        """Show a response chosen on another screen, where its reward was seen."""
        self._sit_down()
        self._update_queue()
        self._chosen = head.branch, head.step, head.number
        self.desk.open(self._chosen, len(head.rewards), letter, revealed=True)
        self.refresh_now()

    # ---- drawing

    def state_line(self, width: int) -> Content:
        title = f"RATE  {self.desk.mode.title}" if self._live is not None else "RATE"
        parts = [(0, phase_text(self.live))]
        if self.live.state_word() != "WAIT":
            parts.append((1, f"({gate_words(self.live.values)})"))
        return heading(self.live, width, title, parts)

    def announcement(self) -> str:
        if self._live is not None and self._elsewhere():
            return f"step {self.live.status.step if self.live.status else ''} waits for you: enter opens a group of it"
        return "J K response   j k scroll   tab next unrated   enter next group   m mode"

    def refresh_from_live(self, force: bool) -> None:
        self._sit_down()
        self.body.set_class(self.size.width >= 100, "-wide")
        self.body.set_class(self.size.height >= TALL, "-tall")
        self._update_queue()
        shown = self.desk.current
        if shown is not None and self.desk.book.name(shown.key) in self.details.failed:
            self.desk.forget_gone()
        if self.desk.current is None and self.desk.upcoming():
            self.desk.next_group(self._awaited())
        self._draw()

    def _draw(self) -> None:
        desk = self.desk
        visit = desk.current
        if visit is not None:
            if visit.detail is None and (detail := self.details.get(desk.book.name(visit.key))) is not None:
                desk.loaded(detail)
            for head in desk.upcoming()[:PREFETCH]:
                self.details.get(desk.book.name((head.branch, head.step, head.number)))
        self.body.draw(desk, self.live, self.status_text, self._nothing())

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
        if self.live.warming and not self.desk.heads:
            return [f"nothing waits: the model is warming up ({phase_text(self.live)}); groups come with RL"]
        if not self.desk.heads:
            return ["nothing waits: no group has been sampled and scored yet; the first comes with the first step"]
        return ["nothing waits: you have rated every group there is.", "New ones come with every step.   d dashboard"]

    # ---- answers of the engine

    def answer_text(self, command: Command, answer: Answer) -> str:
        # The status line says what is saved; the id is for scripts.
        return answer.text.replace(f" (rating {command.id})", "")

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
        if response_shown(self.desk) is None:
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
        if self.says_nothing_to_undo():
            return
        command = self.desk.undo()
        if command is None:
            self.say("nothing to undo: you have no rating in this session")
            return
        undone = self.desk.book.undone[-1]
        self.status_text = f"undoing {rating_text(undone)} ..."
        self.send(command)
        self._draw()

    def action_redo(self) -> None:
        if self.says_nothing_to_undo():
            return
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
        self.body.folded = not self.body.folded
        self._draw()

    def action_next_rating_mode(self) -> None:
        self.desk.next_mode()
        self.refresh_now()

    def action_skip(self) -> None:
        if response_shown(self.desk) is not None:
            self.query_one(Ask).ask("skip", "skip, because", hint="enter alone skips without a reason, esc goes back")

    def action_unskip(self) -> None:
        taken = self.desk.unskip()
        self.say("the response waits for a rating again" if taken else "this response was not skipped")
        self._draw()

    def action_comment(self) -> None:
        visit = self.desk.current
        if visit is not None and response_shown(self.desk) is not None:
            self.query_one(Ask).ask(
                "comment", "comment", visit.comments.get(visit.letter, ""), "one line, kept with it"
            )

    def action_filter(self) -> None:
        self.query_one(Ask).ask("search", "search /", hint="text in this response")

    @on(Ask.Answered)
    def _answered(self, event: Ask.Answered) -> None:
        if event.purpose == "search":
            if not self.body.response.search(event.text):
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
        response = response_shown(self.desk)
        return visible(response.text, newlines=True) if response else ""

    def text_to_open(self) -> str:
        visit = self.desk.current
        if visit is None or visit.detail is None:
            return ""
        texts = {r.letter: r.text for r in visit.detail.group.responses}
        parts = [visit.detail.group.prompt] + [f"---- {letter} ----\n{texts.get(letter, '')}" for letter in visit.order]
        return visible("\n\n".join(parts), newlines=True)
