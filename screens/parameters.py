"""Every hyperparameter: what it is, what it is about to be, and what became of a change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import BindingType
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget

from screens.base import WorkbenchScreen
from screens.forecast import Forecast
from screens.forking import FORK, ask_for_name, send_fork
from screens.headings import heading
from screens.keys import bindings
from screens.knob_words import knob_lines
from screens.live import Live
from screens.safe import visible
from screens.staging_rows import COLUMNS, RANGE, describe_change, effect_lines, knob_rows
from screens.states import failed_lines, loading_lines, pane_state
from screens.widgets.ask import Ask
from screens.widgets.line_table import LineTable, Row
from screens.widgets.text_view import TextView
from sessions.commands import Command, Fork, QueryPlan, Set
from sessions.errors import UsageError, WorkbenchError
from sessions.hyperparameters import Value, hyperparameter, knobs_of
from sessions.plans import Plan
from sessions.wire import Answer

QUIET = 0.15
"""Seconds without another change after which the engine is asked what the staged ones would take."""


class ParametersScreen(WorkbenchScreen):
    """The table, and under it the effect of what is staged, the history of a value, or what it means."""

    MODE = "parameters"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("parameters")]
    AUTO_FOCUS = "#table"
    DEFAULT_CSS = """
    ParametersScreen #table { height: 1fr; }
    ParametersScreen #effect { height: 7; }
    ParametersScreen.-tall #effect { height: 12; }
    ParametersScreen.-switching #effect { height: 11; }
    ParametersScreen.-tall.-switching #effect { height: 12; }
    ParametersScreen.-short #effect { height: 4; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.table = LineTable(COLUMNS, empty="no values yet", id="table")
        self.table.add_class("pane")
        self.effect = TextView(id="effect", classes="pane")
        self.filter_text = ""
        self.fates: list[tuple[str, str]] = []
        self.forecast = Forecast()
        self._asking: Timer | None = None
        self._history = False
        self._all = True
        self._live: Live | None = None
        self._line = -1

    def compose_body(self) -> Iterable[Widget]:
        yield self.table
        yield self.effect
        yield Ask(id="ask")

    @property
    def knob(self) -> str:
        """The hyperparameter under the cursor."""
        return self.table.key

    # ---- drawing

    def state_line(self, width: int) -> Content:
        count = len(self.staging.staged) if self._live is not None else 0
        staged = f"{count} staged, not applied yet" if count else "nothing staged"
        return heading(self.live, width, f"PARAMETERS  {staged}")

    def refresh_from_live(self, force: bool) -> None:
        live = self.live
        if self._live is not live:
            self._live = live
            self.staging = self.workbench.staging
            self._line = live.version["line"]
            self.fates.clear()
            self.forecast.forget()
        if self._line != live.version["line"]:
            self._line = live.version["line"]
            self.staging.on_another_branch()
            self.fates.clear()
        self.set_class(self.size.height >= 36, "-tall")
        self.set_class(self.size.height < 20, "-short")
        self._draw()

    def _draw(self) -> None:
        state = pane_state(self.live)
        reads = self.staging.reads(self.algorithm)
        if self.live.values:
            widths = self.table.widths(max(40, self.size.width - 2))
            rows = knob_rows(self.staging, self.algorithm, widths[RANGE], widths[-1], all_of_them=self._all)
            self.table.set_rows(rows)
        else:
            words = loading_lines(self.live) if state == "loading" else failed_lines(self.live)
            self.table.empty = words[0]
            self.table.set_rows([])
        filtered = f"/{self.filter_text}" if self.filter_text else "/ filter"
        keys = "enter edit  + - nudge  R revert  A apply  H history"
        keys += "  ? explains  u undo" if self.size.width >= 100 else ""
        self.table.border_title = Content(visible(f"params  {filtered}  {keys}"))
        self.table.border_subtitle = Content(self._count(len(knobs_of(self.live.values)) - len(reads)))
        self._draw_effect()

    def _count(self, unused: int) -> str:
        """``51 of 51, 22 not used by grpo at the end (w hides them)``."""
        algorithm = str(self.staging.ahead()["algorithm"]) if "algorithm" in self.staging.staged else self.algorithm
        where = "at the end: w hides them" if self._all else "hidden: w shows them"
        rest = f", {unused} not used by {algorithm} {where}" if unused else ""
        return f"{len(self.table.shown)} of {len(knobs_of(self.live.values))}{rest}"

    @property
    def algorithm(self) -> str:
        """The running one."""
        status = self.live.status
        return (status.algorithm if status else "") or str(self.live.values.get("algorithm", ""))

    def _draw_effect(self) -> None:
        lines: list[tuple[str, str]]
        if self._history and self.knob:
            title = f"history of {self.knob}   H back"
            changes = [c for c in self.live.changes.values() if c.name == self.knob]
            start = self.live.start_values.get(self.knob)
            known = hyperparameter(self.knob)
            lines = [(describe_change(c), "dim" if c.status == "superseded" else "") for c in reversed(changes)]
            lines.append((f"started with {known.show(start)}" if start is not None else "no start value known", "dim"))
        elif self.staging.staged:
            title = "effect of what is staged   A apply  U discard"
            self._foresee()
            lines = self.forecast.lines()
            lines += [
                (line, "dim" if line.startswith(("kept", "not used")) else "accent")
                for line in effect_lines(self.staging)
            ]
            checked = "checked against the values shown, marked on every chart, undone with u"
            if any(hyperparameter(name).risky for name in self.staging.staged):
                checked = "checked, marked on every chart, undone with u; a checkpoint is written first"
            lines.append((checked, "dim"))
            lines += self.forecast.basis()
        else:
            self.forecast.forget()
            title = self.knob or "nothing selected"
            lines = [(line, "") for line in self.topic()]
        switching = self.staging.used_otherwise() and not self._history
        self.set_class(switching, "-switching")
        self.effect.border_title = Content(visible(title))
        self.effect.set_text([*self.fates[:2], *lines])

    def _foresee(self) -> None:
        """Have the engine asked what the staged values would take, once no other change has come for a moment."""
        wanted = {name: staged.value for name, staged in self.staging.staged.items()}
        status = self.live.status
        if not self.forecast.begin(wanted, status.finished_steps if status else 0):
            return
        if self._asking is not None:
            self._asking.stop()

        def ask() -> None:
            self.run_worker(self._ask(wanted), group="plan", exclusive=True, exit_on_error=False)

        self._asking = self.set_timer(QUIET, ask)

    async def _ask(self, wanted: dict[str, Value]) -> None:
        try:
            self.forecast.told(wanted, await self.query_engine(QueryPlan(values=wanted), Plan))
        except WorkbenchError as error:
            self.forecast.failed(wanted, str(error))
        if self.staging.staged:
            self._draw_effect()

    def topic(self) -> list[str]:
        """What the knob under the cursor means."""
        if not self.knob:
            return []
        knob = hyperparameter(self.knob)
        return knob_lines(knob, self.live.values, self.live.start_values.get(knob.name), self.algorithm)

    def action_arrange(self) -> None:
        self._all = not self._all
        self.say("every hyperparameter" if self._all else "only what the algorithm uses, and what is staged")
        self.refresh_now()

    # ---- staging

    @on(LineTable.Moved)
    def _moved(self) -> None:
        self._draw_effect()

    @on(LineTable.Opened)
    def _opened(self) -> None:
        self.action_edit()

    def action_edit(self) -> None:
        if self.knob and self.live.values:
            knob = hyperparameter(self.knob)
            value = knob.show(self.staging.candidate(self.knob))
            self.query_one(Ask).ask("value", f"{knob.name} =", value, knob.range_text, replace=True)
            self.say(f"allowed: {knob.range_text}")

    def _stage(self, name: str, text: str) -> None:
        try:
            self.staging.stage(name, text)
        except UsageError as error:
            self.query_one(Ask).ask("value", f"{name} =", text)
            self.say(str(error), "error")
            return
        self._draw()

    def action_nudge(self, direction: int) -> None:
        if not self.knob or not self.live.values:
            return
        before = self.staging.candidate(self.knob)
        try:
            after = self.staging.nudge(self.knob, direction)
        except UsageError as error:
            self.say(str(error), "error")
            return
        if after == before:
            knob = hyperparameter(self.knob)
            number = knob.kind in ("float", "int")
            why = f"it is at the end of {knob.range_text}" if number else f"enter edits it ({knob.range_text})"
            self.say(f"{self.knob} stays {knob.show(before)}: {why}")
        self.refresh_now()

    def action_revert(self) -> None:
        start = self.live.start_values.get(self.knob)
        if start is None:
            self.say("no start value is known")
            return
        if self.staging.candidate(self.knob) == start and self.knob not in self.staging.staged:
            self.say(f"{self.knob} is what the session started with")
            return
        self.staging.stage(self.knob, start)
        self.refresh_now()

    def action_discard(self) -> None:
        count = self.staging.discard()
        self.say(f"{count} staged change{'s' if count != 1 else ''} forgotten" if count else "nothing is staged")
        self.refresh_now()

    def action_history(self) -> None:
        self._history = not self._history
        self._draw_effect()

    # ---- applying

    def action_apply(self) -> None:
        try:
            command = self.staging.apply()
        except UsageError as error:
            self.say(str(error), "error")
            return
        if command is None:
            self.say("nothing is staged: enter or + - stages a value")
        else:
            self._set(command, "sent")

    def action_fork(self) -> None:
        if not self.staging.staged:
            self.say("nothing is staged: enter or + - stages what the branch is to begin with")
            return
        ask_for_name(self.query_one(Ask), self.live.branch, -1, self.staging)

    def action_undo(self) -> None:
        if self.says_nothing_to_undo():
            return
        command = self.staging.undo()
        if command is None:
            self.say("nothing to undo: no change has been made in this session")
        else:
            self._set(command, "undoing")

    def action_redo(self) -> None:
        if self.says_nothing_to_undo():
            return
        command = self.staging.redo()
        if command is None:
            self.say("nothing to redo")
        else:
            self._set(command, "setting again")

    def _set(self, command: Set, word: str) -> None:
        self.send(command)
        self._fate(command, f"{word}: {self._words(command)}", "dim")

    def _words(self, command: Set) -> str:
        """What a command sets, and what follows from it."""
        told = self.follows.get(command.id, "")
        if command.preset:
            return f"preset {command.preset}: {told or 'as it is already'}"
        return _words(command) + (f"; with it {told}" if told else "")

    def _fate(self, command: Set, text: str, tone: str) -> None:
        self.fates = [(text, tone)]
        self._draw_effect()

    def answer_text(self, command: Command, answer: Answer) -> str:
        if isinstance(command, Set) and answer.status != "rejected":
            return ""  # what became of it stands below the table
        return answer.text

    def on_answer(self, command: Command, answer: Answer) -> None:
        if isinstance(command, Fork) and answer.status != "rejected":
            self.staging.accepted(command)
        if not isinstance(command, Set) or self._live is None:
            return
        words = self._words(command)
        if answer.status == "rejected":
            self.staging.rejected(command)
            self._fate(command, f"rejected: {words}, because {answer.text}", "bad")
            return
        self.staging.accepted(command)
        if answer.status == "accepted":
            self._fate(command, f"accepted: {words}   {answer.text or self._due(command)}", "warn")
        elif answer.text.endswith("already"):  # nothing changed: what was undone had not been applied yet
            self._fate(command, f"{', '.join(command.values)}: taken back before it applied", "good")
        else:
            self._fate(command, f"applied at step {answer.step}: {words or answer.text}", "good")
        self.refresh_now()

    def _due(self, command: Set) -> str:
        due = self.staging.due()
        boundaries = dict.fromkeys(hyperparameter(name).boundary_under(due) for name in command.values)
        return "applies at the next " + ", ".join(boundaries)

    # ---- the line to type into

    @on(Ask.Edited)
    def _edited(self, event: Ask.Edited) -> None:
        if event.purpose == "filter":
            self._filter(event.text)
            return
        if event.purpose == FORK:
            return
        try:
            hyperparameter(self.knob).parse(event.text.strip())
        except UsageError as error:
            self.say(str(error), "warning")
        else:
            self.say("enter stages it")

    @on(Ask.Answered)
    def _answered(self, event: Ask.Answered) -> None:
        if event.purpose == "filter":
            self._filter(event.text)
        elif event.purpose == FORK:
            send_fork(self, event.text, self.live.branch, -1, self.staging)
        elif event.text.strip():
            self._stage(self.knob, event.text.strip())

    @on(Ask.Cancelled)
    def _cancelled(self, event: Ask.Cancelled) -> None:
        if event.purpose == "filter":
            self._filter("")

    def _filter(self, text: str) -> None:
        self.filter_text = text.strip()
        words = self.filter_text.casefold().split()

        def keep(row: Row) -> bool:
            return all(word in " ".join(row.cells).casefold() for word in words)

        self.table.set_filter(keep if words else None)
        self._draw()

    def action_filter(self) -> None:
        self.query_one(Ask).ask("filter", "filter /", self.filter_text, "part of a name, a boundary, a person")

    def text_to_copy(self) -> str:
        return f"{self.knob}={self.live.values.get(self.knob, '')}" if self.knob else ""

    def text_to_open(self) -> str:
        values = self.live.values
        return "\n".join(f"{name}={values[name]}" for name in knobs_of(values) if name in values)


def _words(command: Set) -> str:
    return ", ".join(
        f"{name} {hyperparameter(name).show(command.expect[name])} -> {hyperparameter(name).show(value)}"
        if name in command.expect
        else f"{name} = {hyperparameter(name).show(value)}"
        for name, value in command.values.items()
    )
