"""Rating by hand: one key a decision, in six modes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.binding import BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input

from screens.base import WorkbenchScreen
from screens.group_details import GroupDetails
from screens.headings import heading
from screens.keys import bindings, named
from screens.live import Live
from screens.rate_body import RateBody, response_shown
from screens.rate_editing import edit_outside
from screens.rate_guide import NAME, read_guide, write_guide
from screens.rate_records import Records
from screens.rate_view import act_text, gate_words, mode_hint
from screens.rating_desk import Desk
from screens.read_only import REFUSAL
from screens.safe import visible
from screens.states import failed_lines, loading_lines, pane_state
from screens.topline import phase_text
from screens.widgets.ask import Ask
from screens.widgets.lines import FooterLine
from screens.widgets.rank_list import RankList
from screens.widgets.text_editor import TextEditor
from sessions.commands import Command, Picked, QueryGroups, Rate, Retract, Skip
from sessions.errors import WorkbenchError
from sessions.modes import CRITIQUE, EDIT, MODES, PAIR, RANK
from sessions.records import GroupHead, parse_response_name
from sessions.wire import Answer

PREFETCH = 2
"""Groups fetched ahead, so that ``enter`` paints at once."""
TALL = 36
NOT_RATED = "nothing can be rated in a replay: it shows what was"
RATING_KEYS = frozenset(named(key) for mode in MODES.values() for key in mode.keys)
"""The keys of all modes, as Textual names them."""
COUNT_HIDDEN = 2.0
"""Seconds between two counts of the groups that are not offered."""


class RateScreen(WorkbenchScreen):
    """The group on the desk: its prompt, what is judged, the keys, and what became of the last ratings."""

    MODE = "rate"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("rate")]
    AUTO_FOCUS = "#response"

    def __init__(self) -> None:
        super().__init__()
        self.body = RateBody()
        self.status_text = ""
        self._live: Live | None = None
        self._queue_at = self._link_at = self._line_at = -1
        self._chosen: tuple[str, int, int] | None = None
        self._mode = ""
        self._shown_keys: tuple[str, bool] = ("", False)
        self._hidden = (0.0, (0, 0))
        self._waiting_for_older = ""

    def compose_body(self) -> Iterable[Widget]:
        yield self.body
        yield Ask(id="ask")

    # ---- the desk

    @property
    def _guide(self) -> Path | None:
        """Where the guide is kept: with the session, or beside the ratings of a file."""
        filed, folder = self.workbench.rating_file, self.workbench.folder
        return filed.guide if filed is not None else folder.path / NAME if folder is not None else None

    def _sit_down(self) -> None:
        """A desk for the session that is shown; another session gets another one."""
        live = self.live
        if self._live is live:
            return
        self._live = live
        self.desk = Desk(self.workbench.who, live.clock, self._mode or self.workbench.rating_mode)
        self.records = Records(live, self.desk.book)
        self.details = GroupDetails(self, self._came)
        self.body.guide_text = read_guide(self._guide)
        self.live.older.clear()
        self._queue_at = self._link_at = -1
        self._line_at = live.version["line"]
        self._waiting_for_older = ""

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
        # A question that is asked again looks like any other.
        return awaited is not None and visit is not None and not visit.repeats and visit.key[:2] != awaited

    def _go_where_it_waits(self) -> None:
        """Whoever comes here while a step waits at the gate comes to rate it, not what was left here before."""
        visit = self.desk.current
        if visit is not None and self._elsewhere() and visit.key != self._chosen:
            self._update_queue()
            self.desk.next_group()
            self.refresh_now()

    def on_screen_suspend(self) -> None:
        self._chosen = None
        self.body.forget_focus()
        if self._live is not None:
            self.desk.pause()

    @work(group="queue", exclusive=True, exit_on_error=False)
    async def _ask_for_older(self) -> None:
        """Groups that wait from before what the model of the session holds."""
        try:
            heads = await self.query_engine(QueryGroups(unrated=True), list[GroupHead])
        except WorkbenchError:
            return  # the state of the link is on the first line
        self.live.older = {(h.branch, h.step, h.number): h for h in heads}
        self._queue_at = -1
        self.refresh_now()

    @work(group="records", exclusive=True, exit_on_error=False)
    async def _read_older_records(self, then: str = "") -> None:
        """Ratings and skips from before what the model of the session holds.

        :param then: ``undo`` or ``redo`` waits for them.
        """
        self._waiting_for_older = then
        try:
            await self.records.read_older(self.query_engine, wanted=bool(then))
        except WorkbenchError as error:
            if then:
                self.say(f"older ratings cannot be read: {error}", "error")
            return
        finally:
            self._waiting_for_older = ""
        if then == "undo":
            self._undo()
        elif then == "redo":
            self._redo()
        self.refresh_now()

    def _update_queue(self) -> None:
        link, version = self.live.version["link"], self.live.version["heads"]
        if link != self._link_at:
            # Another connection, perhaps to an engine that went back to a checkpoint: what waited before may be gone.
            if self._link_at >= 0:
                self.live.older.clear()
                self._ask_for_older()
            self._link_at, self._queue_at = link, -1
            self.details.retry()
        line = self.live.version["line"]
        if line != self._line_at:  # what was shown may be on a branch that was left
            self._line_at, self._queue_at = line, -1
            self.desk.keep_only(lambda key: self.live.on_line(key[0], key[1]))
            self.live.older.clear()
            self._ask_for_older()
        desk = self.desk
        desk.book.branch = self.live.status.branch if self.live.status else "main"
        desk.awaited = self._awaited()
        desk.queue.use(str(self.live.values.get("rating_rule", "newest")))
        desk.share = float(self.live.values.get("rating_repeats", 0.0))
        whole = self.records.follow()
        if whole and desk.current is None and not (self._mode or self.workbench.rating_mode) and desk.book.last_mode:
            desk.use(MODES[desk.book.last_mode])  # whoever comes back goes on as they left
        if whole and desk.book.needs_older:
            self._read_older_records()
        if version != self._queue_at:
            self._queue_at = version
            desk.heads = {**self.live.older, **self.live.heads}

    def _came(self, name: str) -> None:
        detail = self.details.get(name)
        if detail is not None:
            self.desk.loaded(detail)
        self.refresh_now()

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
        if self._live is None:
            return ""
        if self._elsewhere():
            return f"step {self.live.status.step if self.live.status else ''} waits for you: enter opens a group of it"
        hidden = self._hidden_words()
        short = "J K response   tab next unrated   m mode"
        move = "J K response   j k scroll   tab next unrated   D differences   m mode"
        if self.desk.mode is PAIR:
            short = "J K the side in hand   D differences   m mode"
            move = "j k scroll both   [ ] one   D differences   w stack   J K the side in hand   m mode"
        elif self.desk.mode is RANK:
            move = "J K response   z reads one   tab next unrated   D differences   m mode"
        room = self.size.width - (len(hidden) + 5 if hidden else 2)
        return "   ".join(text for text in (move if len(move) <= room else short, hidden) if text)

    def _hidden_words(self) -> str:
        now = time.monotonic()
        if now - self._hidden[0] > COUNT_HIDDEN:
            self._hidden = now, self.desk.queue.hidden()
        dead, others = self._hidden[1]
        words = ([f"{dead} dead"] if dead else []) + ([f"{others} rated by others"] if others else [])
        return f"not offered: {', '.join(words)} (a)" if words else ""

    def refresh_from_live(self, force: bool) -> None:
        self._sit_down()
        self.body.set_class(self.size.width >= 100, "-wide")
        self.body.set_class(self.size.height >= TALL, "-tall")
        self._update_queue()
        shown = self.desk.current
        if shown is not None and self.desk.book.name(shown.key) in self.details.failed:
            self.desk.forget_gone()
        if self.desk.current is None and self.desk.upcoming(1):
            self.desk.next_group()
        self._draw()

    def _draw(self) -> None:
        desk = self.desk
        visit = desk.current
        if visit is not None and visit.detail is None:
            self._read(visit.key)
            if desk.mode is PAIR and visit.pairs == [] and visit.rule and desk.upcoming(1):
                desk.next_group()  # every response says the same: there is nothing to compare
                self._read(desk.current.key if desk.current is not None else visit.key)
        if visit is not None:
            for head in desk.upcoming(PREFETCH):
                self.details.get(desk.book.name((head.branch, head.step, head.number)))
        keys = desk.keys_of.name, desk.flagging or self.body.editor.is_open
        if keys != self._shown_keys:
            self._shown_keys = keys
            if visit is not None:
                self._mode = desk.mode.name
            self.query_one(FooterLine).update_keys()
        self.body.draw(desk, self.live, self.status_text, self._nothing())
        picked, desk.picked = desk.picked, []
        if not self.workbench.read_only and self.replaying is None:
            for command in picked:
                self.send(command)

    def _read(self, key: tuple[str, int, int]) -> None:
        detail = self.details.get(self.desk.book.name(key))
        if detail is not None:
            self.desk.loaded(detail)

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
        hidden = self._hidden_words()
        filed = self.workbench.rating_file
        then = "New ones come with every step.   d dashboard"
        if filed is not None:
            then = f"The ratings are in {visible(filed.file.output.name)}.   q leaves"
        lines = ["nothing waits: you have rated every group there is.", then]
        if hidden:
            lines[0] = f"nothing waits.   {hidden.removesuffix(' (a)')}: a offers them"
        return lines

    # ---- answers of the engine

    def answer_text(self, command: Command, answer: Answer) -> str:
        if isinstance(command, Picked):
            return ""
        if isinstance(command, Rate) and command.repeats and answer.status == "applied":
            return "saved"  # a question that is asked again looks like any other
        # The status line says what is saved; the id is for scripts.
        return answer.text.replace(f" (rating {command.id})", "")

    def on_answer(self, command: Command, answer: Answer) -> None:
        if answer.status == "accepted" or self._live is None:
            return
        failed = answer.status == "rejected"
        match command:
            case Rate() | Retract() | Skip():
                self.desk.confirmed(command, failed=failed)
        match command:
            case Rate():
                what = self._words(command)
                self.status_text = f"not saved: {what}: {answer.text}" if failed else f"saved: {what}"
            case Retract():
                self.status_text = f"not undone: {answer.text}" if failed else "undone; ctrl+r gives it again"
            case Skip() if failed:
                self.status_text = f"not skipped: {answer.text}"
            case _:
                pass

    def _words(self, command: Rate) -> str:
        act = self.desk.book.act(command.id)
        return act_text(act) if act is not None else ", ".join(f"{k}={v:g}" for k, v in command.values.items())

    # ---- actions

    def _only_shown(self) -> bool:
        """Whether nothing can be rated here, because it is a replay; then it says so."""
        if self.replaying is not None:
            self.say(NOT_RATED, "warning")
        return self.replaying is not None

    def unused_key(self, key: str) -> None:
        if key not in RATING_KEYS or self.body.editor.is_open or isinstance(self.focused, Input):
            super().unused_key(key)
        elif self.workbench.read_only:
            self.say(REFUSAL, "warning")
        elif not self._only_shown():
            self.say(mode_hint(self.desk))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A key that several modes share belongs to the mode in use."""
        if action == "rate" and parameters:
            return parameters[0] == (self.desk.keys_of.name if self._live is not None else "likert")
        if action in ("next_group", "next_unrated", "previous_unrated") and self.body.editor.is_open:
            return False  # they are keys of the text
        if action == "zoom":
            return self._live is not None and self.desk.mode is RANK
        return super().check_action(action, parameters)

    def _done(self, command: Rate | Skip | None, word: str = "saving") -> None:
        """Show what a key did, in the same frame, and tell the engine."""
        desk = self.desk
        if isinstance(command, Rate):
            self.status_text = f"{word}: {self._words(command)} ..."
        elif isinstance(command, Skip):
            letter = parse_response_name(command.response).letter or "the group"
            self.status_text = f"skipped {letter}; u takes that back"
        if desk.said:
            self.say(desk.said)
            desk.said = ""
        self._draw()
        if command is not None:
            self.send(command)

    def action_rate(self, mode: str, value: float) -> None:
        if self._only_shown():
            return
        if response_shown(self.desk) is None:
            self.say("there is no response to rate yet")
            return
        self._done(self.desk.answer(float(value)))

    def action_next_group(self) -> None:
        self._done(self.desk.enter())

    def action_next_unrated(self) -> None:
        self._go_unrated(1)

    def action_previous_unrated(self) -> None:
        self._go_unrated(-1)

    def _go_unrated(self, direction: int) -> None:
        if not self.desk.next_unrated(direction):
            self.say("every question here is answered or skipped: enter opens the next group")
        self._draw()

    def action_response(self, direction: int) -> None:
        self.desk.response(direction)
        self._draw()

    @on(RankList.Moved)
    def _moved(self, event: RankList.Moved) -> None:
        self.action_response(event.direction)

    def action_undo(self) -> None:
        if self.says_nothing_to_undo():
            return
        if self.desk.book.at_horizon:
            self.say("reading older ratings ...")
            self._read_older_records("undo")
            return
        self._undo()

    def _undo(self) -> None:
        command = self.desk.undo()
        if command is None:
            self.say("nothing to undo: you have no rating in this session")
            return
        undone = self.desk.book.undone
        self.status_text = f"undoing {act_text(undone)} ..." if undone is not None else "undoing ..."
        self._draw()
        self.send(command)
        if self.desk.book.needs_older:
            self._read_older_records()

    def action_redo(self) -> None:
        if self.says_nothing_to_undo():
            return
        if self.desk.book.at_horizon:
            self.say("reading older ratings ...")
            self._read_older_records("redo")
            return
        self._redo()

    def _redo(self) -> None:
        command = self.desk.redo()
        if command is None:
            self.say("nothing to redo")
            return
        self._done(command, "giving again")

    def action_reveal(self) -> None:
        visit = self.desk.current
        if visit is not None:
            visit.revealed = True
            self._draw()

    def action_fold(self) -> None:
        self.body.folded = not self.body.folded
        self._draw()

    def action_zoom(self) -> None:
        self.body.zoomed = not self.body.zoomed
        self._draw()

    def action_beside(self) -> None:
        visit = self.desk.current
        if not self.body.comparing and (visit is None or not visit.before or visit.before == visit.letter):
            self.say("D compares with the response shown before this one: J shows another")
            return
        self.body.comparing = not self.body.comparing
        self._draw()

    def action_everything(self) -> None:
        queue = self.desk.queue
        queue.everything = not queue.everything
        self._hidden = (0.0, (0, 0))
        self.say("dead groups, and those that others have rated, are offered too" if queue.everything else
                 "dead groups, and those that others have rated, are not offered")  # fmt: skip
        self.refresh_now()

    def action_next_rating_mode(self) -> None:
        self.desk.next_mode()
        self.body.comparing = self.body.zoomed = False
        self.refresh_now()

    def action_back(self) -> None:
        """esc: out of what is open here; else to the dashboard."""
        if self.desk.flagging:
            self.desk.close_flags()
        elif self.body.zoomed or self.body.comparing:
            self.body.zoomed = self.body.comparing = False
        else:
            super().action_back()
            return
        self._draw()

    def action_skip(self) -> None:
        if not self._only_shown() and response_shown(self.desk) is not None:
            what = "skip" if self.desk.mode.responses_shown == 1 else "skip the group"
            self.query_one(Ask).ask(
                "skip", f"{what}, because", hint="enter alone skips without a reason, esc goes back"
            )

    def action_unskip(self) -> None:
        if self._only_shown():
            return
        command = self.desk.unskip()
        self.say("it waits for a rating again" if command is not None else "this response was not skipped")
        self._draw()
        if command is not None:
            self.send(command)

    def action_comment(self) -> None:
        desk, visit = self.desk, self.desk.current
        if not self._only_shown() and visit is not None and response_shown(desk) is not None:
            given = desk.critique(visit, desk.letter)
            before = given.comment if given is not None else ""
            self.query_one(Ask).ask("comment", f"comment on {desk.letter}", before, "one line, kept with it")

    def action_flags(self) -> None:
        desk = self.desk
        if self._only_shown() or response_shown(desk) is None:
            return
        if desk.mode is CRITIQUE:
            self.say("digits switch the flags, enter saves")
        elif desk.flagging:
            desk.close_flags()
        else:
            desk.flagging = True
        self._draw()

    def action_filter(self) -> None:
        if self.desk.mode is RANK and not self.body.zoomed:
            self.action_zoom()  # what is searched is read
        self.query_one(Ask).ask("search", "search /", hint="text in this response")

    @on(Ask.Answered)
    def _answered(self, event: Ask.Answered) -> None:
        if event.purpose == "search":
            if not self.body.reading.search(event.text):
                self.say(f"{event.text!r} is not here")
        elif event.purpose == "skip":
            self._done(self.desk.skip(event.text.strip()))
        elif event.purpose == "comment":
            self._done(self.desk.comment(event.text.strip()))
        self._draw()

    # ---- writing

    def action_improve(self) -> None:
        desk, response = self.desk, response_shown(self.desk)
        if self._only_shown() or response is None:
            return
        title = f"a better {desk.letter} for this prompt"
        self.body.editor.open(f"edit {desk.letter}", title, desk.text_to_edit(), response.text)
        self._draw()

    def action_pager(self) -> None:
        desk, response = self.desk, response_shown(self.desk)
        if self._live is None or desk.mode is not EDIT or response is None:
            super().action_pager()
            return
        if self.workbench.read_only or self.replaying is not None:
            super().action_pager()
            return
        text = edit_outside(self, desk.text_to_edit(), response.text)
        if text is not None:
            self._edited(desk.letter, text)

    def edit_guide(self) -> None:
        """Write on the guide, here."""
        if self._guide is None or self.workbench.read_only or self.replaying is not None:
            self.say("the guide can be read here, and not changed")
            return
        self.body.editor.open("guide", "the guide for whoever rates here; empty: the usual one", self.body.guide_text)
        self._draw()

    @on(TextEditor.Done)
    def _written(self, event: TextEditor.Done) -> None:
        self.body.forget_focus()
        if event.purpose == "guide":
            if event.text is not None:
                self._keep_guide(event.text)
        elif self.desk.current is not None:
            letter = event.purpose.removeprefix("edit ")
            if event.draft and event.text is not None:
                self.desk.current.edits[letter] = event.text
                self.say(f"kept as a draft: i on {letter} goes on with it")
            elif event.text is not None:
                self._edited(letter, event.text)
            else:
                self.desk.current.edits.pop(letter, None)
        self._draw()

    def _edited(self, letter: str, text: str) -> None:
        command = self.desk.edit(letter, text)
        if command is None:
            self.say("the text is as it was, or empty: that is no edit")
        self._done(command)

    def _keep_guide(self, text: str) -> None:
        path = self._guide
        if path is None:
            return
        try:
            write_guide(path, text)
        except (OSError, WorkbenchError) as error:
            self.say(f"the guide cannot be kept: {error}", "error")
            return
        self.body.guide_text = read_guide(path)
        filed = self.workbench.rating_file is not None
        self.say(f"the guide is kept in {path.name}" if filed else "the guide is kept with the session")

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
