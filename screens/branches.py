"""The branches of a session: the tree, what differs, the curves, and the keys that go from one to another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget

from screens.base import WorkbenchScreen
from screens.branch_data import BranchData
from screens.branch_rows import COLUMNS, SLIM, Place, tree_rows
from screens.branch_words import about_branch, difference_words, rewind_words, standing_words, switch_words
from screens.choose import ChooseDialog
from screens.dialogs import ConfirmDialog, ProceedDialog
from screens.forking import FORK, ask_for_name, send_fork
from screens.headings import heading
from screens.keys import bindings
from screens.live import Live
from screens.overlay import LETTERS
from screens.probe_lines import verdict
from screens.read_only import REFUSAL
from screens.safe import visible
from screens.states import failed_lines, loading_lines, pane_state
from screens.widgets.ask import Ask
from screens.widgets.branch_curves import BranchCurves
from screens.widgets.branch_table import BranchTable
from screens.widgets.line_table import LineTable, Row
from screens.widgets.text_view import TextView
from sessions.branches import Branch, BranchInfo
from sessions.commands import (
    Command,
    DeleteBranch,
    Fork,
    Race,
    RenameBranch,
    Rewind,
    Switch,
    parse_words,
)
from sessions.errors import UsageError, WorkbenchError
from sessions.wire import Answer

WIDE = 120
PACE_STEPS = 50
"""Newest steps whose mean time says how long computing others again takes."""
CHANGING = (Rewind, Fork, Switch, RenameBranch, DeleteBranch, Race)
_PAGES = ("curves", "details", "")
"""What stands under the tree of a small terminal; ``w`` goes through them."""


class BranchesScreen(WorkbenchScreen):
    """The tree; beside or under it the curves, the differences and the answers to the probe prompts."""

    MODE = "branches"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("branches")]
    AUTO_FOCUS = "#tree"
    DEFAULT_CSS = """
    BranchesScreen #panes { height: 1fr; layout: vertical; }
    BranchesScreen #left { height: 1fr; width: 1fr; }
    BranchesScreen #right { height: 10; width: 1fr; }
    BranchesScreen #details { height: 9; }
    BranchesScreen #probes { height: 14; }
    BranchesScreen.-short #right, BranchesScreen.-short #details { height: 6; }
    BranchesScreen.-wide #panes { layout: horizontal; }
    BranchesScreen.-wide #left { width: 3fr; }
    BranchesScreen.-wide #right { height: 1fr; width: 2fr; }
    BranchesScreen.-wide #details { height: 14; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.tree_table = BranchTable(COLUMNS, empty="reading the branches ...", id="tree")
        self.tree_table.add_class("pane")
        self.details = TextView(id="details", classes="pane")
        self.probes = TextView(id="probes", classes="pane")
        self.data = BranchData(self)
        self.page = 0
        self.filter_text = ""
        self.metric = ""
        self.marked: list[str] = []
        self.opened: set[str] = set()
        self._places: dict[str, Place] = {}
        self._asked_about: tuple[str, str, int] = ("", "", -1)
        self._live: Live | None = None

    def compose_body(self) -> Iterable[Widget]:
        self.curves = BranchCurves(self.workbench.marks)
        with Horizontal(id="panes"):
            with Vertical(id="left"):
                yield self.tree_table
                yield self.details
            with Vertical(id="right"):
                yield self.curves
                yield self.probes
        yield Ask(id="ask")

    # ---- what is under the cursor

    @property
    def place(self) -> Place | None:
        """What the row under the cursor stands for."""
        return self._places.get(self.tree_table.key)

    @property
    def chosen(self) -> BranchInfo | None:
        """The branch under the cursor, or the one whose checkpoint is."""
        place = self.place
        return self.data.infos.get(place.branch) if place is not None else None

    @property
    def active(self) -> str:
        """The branch that is trained."""
        return self.live.branch

    def letters(self) -> dict[str, str]:
        """Branch -> letter, of those whose curves are drawn: the marked ones, else the active one and the chosen."""
        names = [name for name in self.marked if name in self.data.infos]
        if not names:
            chosen = self.chosen
            names = [self.active, *([chosen.branch.name] if chosen is not None else [])]
        return dict(zip(dict.fromkeys(n for n in names if n in self.data.infos), LETTERS, strict=False))

    # ---- drawing

    def state_line(self, width: int) -> Content:
        infos = self.data.infos
        left = sum(info.branch.abandoned for info in infos.values())
        count = f"{len(infos)} branch{'es' if len(infos) != 1 else ''}" if infos else ""
        aside = f", {left} abandoned" if left else ""
        return heading(self.live, width, f"BRANCHES  {count}{aside}".rstrip())

    def announcement(self) -> str:
        if self.has_class("-wide"):
            return ""
        return {
            "curves": "w shows the differences instead of the curves",
            "details": "w hides the differences",
            "": "curves and differences hidden: w shows them",
        }[_PAGES[self.page]]

    def refresh_from_live(self, force: bool) -> None:
        if self._live is not self.live:
            self._live = self.live
            self.data.forget()
            self.marked, self.opened, self.metric = [], set(), ""
        self.set_class(self.size.width >= WIDE, "-wide")
        self.set_class(self.size.height < 20, "-short")
        self.tree_table.columns = list(SLIM if self.size.width < 72 else COLUMNS)
        self._arrange()
        self.data.follow()
        self._draw()

    def _arrange(self) -> None:
        wide, page = self.has_class("-wide"), _PAGES[self.page]
        self.details.display = wide or page == "details"
        self.query_one("#right").display = wide or page == "curves"
        self.probes.display = wide

    def news(self) -> None:
        """Something that was asked for is here."""
        self.refresh_now()

    def _draw(self) -> None:
        infos = list(self.data.shown())
        self.tree_table.empty = self._nothing()
        now = self.live.clock()
        rows, self._places = tree_rows(infos, self.opened, self.letters(), now, self.workbench.marks)
        self.tree_table.set_rows(rows)
        words = f"branches  /{self.filter_text}" if self.filter_text else "branches"
        hint = "no forks yet: B starts one here, W rewinds" if len(infos) == 1 else "* is trained"
        self.tree_table.entitle(f"{words}   h l checkpoints", hint if infos else "")
        self._draw_panes()

    def _nothing(self) -> str:
        state = pane_state(self.live)
        if self.data.problem:
            return f"the branches cannot be read: {self.data.problem}"
        if state == "loading":
            return loading_lines(self.live)[0]
        if self.live.warming:
            return "no branch yet: the model is warming up; main begins with RL"
        if state == "failed" and self.data.answered:
            return failed_lines(self.live)[0]
        return "no step has been recorded yet" if self.data.answered else "reading the branches ..."

    def _draw_panes(self) -> None:
        if self.query_one("#right").display:
            self._draw_curves()
        if self.details.display:
            self._draw_details()
        if self.probes.display:
            self._draw_probes()

    def _draw_curves(self) -> None:
        letters = self.letters()
        name = self.metric or "reward/mean"
        lines = {branch: self.data.points(branch, name) for branch in letters}
        branches: dict[str, Branch] = {key: info.branch for key, info in self.data.infos.items()}
        nothing = self._nothing() if not self.data.infos else ""
        self.curves.show(name, branches, lines, letters, nothing)

    def _draw_details(self) -> None:
        place, info = self.place, self.chosen
        if place is None or info is None:
            self.details.entitle("differences")
            self.details.set_text("")
            return
        lines = about_branch(info, self.live.clock())
        if place.checkpoint is not None:
            what = "enter rewinds to it" if info.active else "enter starts a fork here"
            lines.insert(
                0, (f"checkpoint of step {place.checkpoint.step}: {place.checkpoint.reason}.   {what}", "accent")
            )
        elif not info.active:
            other = self.data.infos.get(self.active)
            if other is not None and other.branch.name != info.branch.parent:
                changed = difference_words(other.values, info.values)
                lines.append((f"beside {self.active} now: {', '.join(changed) or 'the same hyperparameters'}", "dim"))
            lines.append(("enter trains it", "dim"))
        self.details.entitle(f"differences: {place.branch}")
        self.details.set_text(lines)

    def _draw_probes(self) -> None:
        info = self.chosen
        title = "probe prompts"
        lines: list[tuple[str, str]] = []
        if info is not None:
            name = info.branch.name
            found = self.data.probes(info)
            if found is None:
                lines = [(self.data.probe_problem or f"reading what {name} answered ...", "dim")]
            elif not found:
                why = "evaluate_every is 0" if not self.live.values.get("evaluate_every") else "no evaluation yet"
                lines = [(f"{name} has not been asked the probe prompts: {why}", "dim")]
            else:
                right = sum(probe.right for probe in found)
                title = f"probe prompts: {name} @{found[0].step}, {right} of {len(found)} right   D compares"
                for probe in found:
                    said = " ".join(probe.text.split())
                    text = f"{verdict(probe)}  {' '.join(probe.prompt.split())}  {said}"
                    lines.append((text, "" if probe.right else "warn"))
        self.probes.entitle(title)
        self.probes.set_text(lines)

    # ---- events

    @on(LineTable.Moved)
    def _moved(self) -> None:
        self._draw()

    @on(LineTable.Opened)
    def _row_opened(self) -> None:
        self.action_go()

    @on(BranchTable.Folded)
    def _folded(self, event: BranchTable.Folded) -> None:
        place = self._places.get(event.key)
        if place is None:
            return
        if event.opened:
            info = self.data.infos.get(place.branch)
            if info is not None and not info.checkpoints:
                self.say(f"{place.branch} has no checkpoint of its own")
                return
            self.opened.add(place.branch)
        else:
            self.opened.discard(place.branch)
            self.tree_table.move_to(
                next((i for i, row in enumerate(self.tree_table.shown) if row.key == place.branch), 0)
            )
        self._draw()

    def on_answer(self, command: Command, answer: Answer) -> None:
        if isinstance(command, Fork) and answer.status != "rejected":
            self.workbench.staging.accepted(command)
        if isinstance(command, RenameBranch) and answer.status == "applied":
            self.marked = [command.name if name == command.branch else name for name in self.marked]
        if isinstance(command, CHANGING) and answer.status != "accepted":
            self.data.hurry()

    # ---- actions

    def _in_order(self) -> BranchInfo | None:
        """The branch under the cursor, if there is one and an engine to change something."""
        info = self.chosen
        if self.workbench.read_only:
            self.say(REFUSAL, "warning")
            return None
        if info is None:
            self.say("no branch is under the cursor")
        elif self.replaying is not None:
            self.say(self.replaying.refusal(), "warning")
            return None
        elif self.live.connection == "ended":
            start = (
                "d, then R, starts an engine" if self.workbench.restart_session is not None else "it can only be read"
            )
            self.say(f"the session has ended: {start}", "error")
            return None
        return info

    def _proceed(self, title: str, lines: list[str], command: Command) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self.send(command)

        self.app.push_screen(ProceedDialog(title, lines), answered)

    def action_go(self) -> None:
        """enter: rewind to a checkpoint of the active branch, fork at another's, switch to another branch."""
        place, info = self.place, self._in_order()
        if place is None or info is None:
            return
        if place.checkpoint is not None and info.active:
            self._rewind(info, place.checkpoint.step)
        elif place.checkpoint is not None:
            self.action_fork()
        elif info.active:
            if not info.checkpoints:
                self.say(f"{place.branch} is the one that is trained; W rewinds it, B forks it")
            else:
                self.opened ^= {place.branch}
                self._draw()
        else:
            command = Switch(branch=place.branch, expect=self.active)
            self._proceed(f"Train {place.branch}?", switch_words(info, self.active), command)

    def _rewind(self, info: BranchInfo, step: int) -> None:
        if not 0 <= step < max(info.tip, 1):
            self.say(
                f"{info.branch.name} is at step {info.tip}: it can go back to 0 to {max(0, info.tip - 1)}", "error"
            )
            return
        command = Rewind(step=step, expect=self.active)
        pace = self.live.series.get("time/step")
        recent = [value for value in list(pace.values)[-PACE_STEPS:] if value is not None] if pace else []
        lines = rewind_words(info, step, self.data.infos, sum(recent) / len(recent) if recent else None)
        self._proceed(f"Rewind {info.branch.name} to step {step}?", lines, command)

    def action_rewind(self) -> None:
        info = self.data.infos.get(self.active)
        if self._in_order() is not None and info is not None:
            self.query_one(Ask).ask("rewind", f"rewind {self.active} to step", hint=f"0 to {max(0, info.tip - 1)}")

    def action_fork(self) -> None:
        if self._in_order() is not None and (place := self.place) is not None:
            ask_for_name(self.query_one(Ask), *self._fork_place(place), self.workbench.staging)

    def _fork_place(self, place: Place) -> tuple[str, int]:
        return place.branch, place.checkpoint.step if place.checkpoint is not None else -1

    def action_rename(self) -> None:
        info = self._in_order()
        if info is not None:
            name = info.branch.name
            self.query_one(Ask).ask("rename", f"rename {name} to", name, replace=True)

    def action_delete(self) -> None:
        info = self._in_order()
        if info is None:
            return
        name = info.branch.name
        if info.active:
            self.say(f"{name} is the one that is trained: switch to another first", "error")
            return
        steps, saved = info.steps, len(info.checkpoints)
        lines = [
            f"Its {steps} step{'' if steps == 1 else 's'} and {saved} checkpoint{'' if saved == 1 else 's'} are gone "
            "for good.",
            "What people rated on it is kept.",
        ]

        def answered(yes: bool | None) -> None:
            if yes:
                self.send(DeleteBranch(branch=name))

        self.app.push_screen(ConfirmDialog(f"Delete the branch {name}?", lines, name), answered)

    def action_mark(self) -> None:
        info = self.chosen
        if info is None:
            return
        name = info.branch.name
        self.marked = [known for known in self.marked if known in self.data.infos]
        if name in self.marked:
            self.marked.remove(name)
        elif len(self.marked) == len(LETTERS):
            self.say(f"{len(LETTERS)} curves are as many as can be told apart: v takes one away", "warning")
        else:
            self.marked.append(name)
        self._draw()

    def action_choose(self) -> None:
        def chosen(names: list[str] | None) -> None:
            if names:
                self.metric = names[0]
                self.refresh_now()

        names = sorted(name for name in self.live.series if not name.startswith("warmup/"))
        self.app.push_screen(ChooseDialog(names, [self.metric or "reward/mean"], most=1), chosen)

    def action_compare(self) -> None:
        """The two marked branches, or the one under the cursor and the active one."""
        names = [name for name in self.marked if name in self.data.infos]
        if len(names) != 2:
            chosen = self.chosen
            if chosen is None or chosen.branch.name == self.active:
                self.say("put the cursor on another branch, or mark two with v: D compares them")
                return
            names = [self.active, chosen.branch.name]
        self.run_worker(self._compare(names), group="compare", exclusive=True, exit_on_error=False)

    async def _compare(self, names: list[str]) -> None:
        from screens.branch_compare import CompareDialog

        infos = [self.data.infos[name] for name in names]
        try:
            pairs = await self.data.pairs(infos)
        except WorkbenchError as error:
            self.say(f"the answers cannot be read: {error}", "error")
            return
        if not pairs:
            self.say("neither has been asked the probe prompts: set evaluate_every to have them asked", "warning")
            return
        changed = difference_words(infos[0].values, infos[1].values)
        head = [f"{info.branch.name}: {standing_words(info)}" for info in infos]
        head.append(f"hyperparameters: {', '.join(changed)}" if changed else "the same hyperparameters")
        if self.is_current:
            self.app.push_screen(CompareDialog(names, head, pairs))

    def action_arrange(self) -> None:
        if self.has_class("-wide"):
            self.say("everything is shown")
            return
        self.page = (self.page + 1) % len(_PAGES)
        self._arrange()
        self.refresh_now()

    # ---- the line to type into

    @on(Ask.Edited)
    def _edited(self, event: Ask.Edited) -> None:
        if event.purpose == "filter":
            self._filter(event.text)

    @on(Ask.Answered)
    def _answered(self, event: Ask.Answered) -> None:
        place, info = self.place, self.chosen
        if event.purpose == "filter":
            self._filter(event.text)
        elif place is None or info is None:
            return
        elif event.purpose == FORK:
            send_fork(self, event.text, *self._fork_place(place), self.workbench.staging)
        elif event.purpose == "rewind":
            self._typed_rewind(event.text.strip())
        elif event.purpose == "rename" and event.text.strip() != info.branch.name:
            try:
                self.send(parse_words(["rename", info.branch.name, event.text.strip()]))
            except UsageError as error:
                self.say(str(error), "error")

    def _typed_rewind(self, text: str) -> None:
        info = self.data.infos.get(self.active)
        if info is None:
            return
        try:
            command = parse_words(["rewind", text])
        except UsageError as error:
            self.say(str(error), "error")
            return
        assert isinstance(command, Rewind)
        self._rewind(info, command.step)

    @on(Ask.Cancelled)
    def _cancelled(self, event: Ask.Cancelled) -> None:
        if event.purpose == "filter":
            self._filter("")

    def _filter(self, text: str) -> None:
        self.filter_text = text.strip()
        words = self.filter_text.casefold().split()

        def keep(row: Row) -> bool:
            return all(word in " ".join(row.cells).casefold() for word in words)

        self.tree_table.set_filter(keep if words else None)
        self._draw()

    def action_filter(self) -> None:
        self.query_one(Ask).ask("filter", "filter /", self.filter_text, "part of a name, or abandoned")

    def topic(self) -> list[str]:
        """What the marks of the tree mean."""
        return [
            "steps = of its own; tip = its newest step; held-out and best = eval/accuracy; size = of its checkpoints.",
            "* is the branch that is trained. abandoned = a rewind left these steps behind; nothing is lost.",
            "A rewind goes back on the same branch, a fork starts another, a switch trains another from its tip.",
            "Letters are the branches drawn on the chart: those marked with v, else the active one and this one.",
        ]

    def text_to_copy(self) -> str:
        info = self.chosen
        return info.branch.name if info is not None else ""

    def text_to_open(self) -> str:
        return "\n".join(visible("  ".join(row.cells).rstrip()) for row in self.tree_table.shown)
