"""The groups and their responses, live: what the policy writes, what each response earned, what people said of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget

from screens.base import WorkbenchScreen
from screens.group_details import GroupDetails
from screens.headings import heading
from screens.keys import bindings
from screens.safe import visible
from screens.sample_filter import parse_filter
from screens.sample_pane import SamplePane
from screens.sample_rows import GROUP_COLUMNS, SAMPLING, group_key, group_rows, response_text
from screens.states import failed_lines, loading_lines, pane_state
from screens.topline import phase_text
from screens.widgets.ask import Ask
from screens.widgets.line_table import LineTable, Row
from screens.widgets.text_view import TextView
from sessions.commands import Subscribe
from sessions.errors import UsageError
from sessions.records import GroupHead
from sessions.wire import GroupDetail

FRAME = 0.2
"""Seconds between two looks at the growing text: at most five frames a second."""


class SamplesScreen(WorkbenchScreen):
    """Left the groups, the newest first; right the responses of the one under the cursor, and one of them in full."""

    MODE = "samples"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("samples")]
    AUTO_FOCUS = "#groups"
    DEFAULT_CSS = """
    SamplesScreen #panes { height: 1fr; }
    SamplesScreen #groups { width: 32; }
    SamplesScreen #right { width: 1fr; }
    SamplesScreen.-wide #groups { width: 44; }
    SamplesScreen.-slim #groups { width: 28; }
    SamplesScreen.-zoomed #groups, SamplesScreen.-comparing #groups { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.details = GroupDetails(self, self._came)
        self.groups = LineTable(GROUP_COLUMNS, empty="no groups yet", id="groups")
        self.groups.add_class("pane")
        self.groups.follow = "first"
        self.pane = SamplePane("right")
        self.responses, self.text = self.pane.responses, self.pane.text
        self.filter_text = ""
        self._drawn: tuple[int, ...] = ()
        self._heads: dict[str, GroupHead] = {}
        self._subscribed_at = -1
        self._compared = ""
        self._back_to: Widget | None = None

    def compose_body(self) -> Iterable[Widget]:
        with Horizontal(id="panes"):
            yield self.groups
            yield self.pane
        yield Ask(id="ask")

    # ---- the growing text

    def on_mount(self) -> None:
        self.set_interval(FRAME, self._grow)

    def on_screen_resume(self) -> None:
        self._subscribe()

    def on_screen_suspend(self) -> None:
        if self._subscribed_at >= 0:
            self._subscribed_at = -1
            if self.live.connection == "live":
                self.send(Subscribe(growing=-1))

    def _subscribe(self) -> None:
        """Ask for the growing text; again on every new connection, which starts without it."""
        link = self.live.version["link"]
        if self.live.connection == "live" and self._subscribed_at != link:
            if self._subscribed_at >= 0:
                self.details.retry()
            self._subscribed_at = link
            self.send(Subscribe(growing=0))

    def _grow(self) -> None:
        if self.is_current and self.live.version["growing"] != (self._drawn[1] if self._drawn else -1):
            self.refresh_from_live(False)

    # ---- drawing

    def state_line(self, width: int) -> Content:
        follow = "following the newest (f: hold)" if self.groups.follow else "holding still (f: follow)"
        return heading(self.live, width, f"SAMPLES  {follow}")

    def refresh_from_live(self, force: bool) -> None:
        self.set_class(self.size.width >= 100, "-wide")
        self.set_class(self.size.width < 80, "-slim")
        self._subscribe()
        version = self.live.version
        drawn = (version["heads"], version["growing"], version["link"], version["status"])
        if drawn != self._drawn or force:
            self._drawn = drawn
            self._draw_groups()
        self._draw_right()

    def _draw_groups(self) -> None:
        status = self.live.status
        state = pane_state(self.live)
        heads = list(reversed(self.live.heads.values()))
        self._heads = {group_key(head): head for head in heads}
        self.groups.empty = "no groups yet" if state == "live" else {"loading": "starting", "failed": "failed"}[state]
        rows = group_rows(heads, self.live.growing, status.branch if status else "main")
        self.groups.set_rows(rows)
        self.groups.border_title = Content(visible(f"groups  /{self.filter_text}" if self.filter_text else "groups"))
        self._count()

    def _count(self) -> None:
        shown, rows = len(self.groups.shown), len(self.groups.rows)
        above = f"{self.groups.top} above   " if self.groups.top else ""
        self.groups.border_subtitle = Content(above + (f"{shown}" if shown == rows else f"{shown} of {rows}"))

    @property
    def name_selected(self) -> str:
        """The group under the cursor as the engine knows it; empty on the one being sampled, or without groups."""
        head = self._heads.get(self.groups.key)
        if head is None:
            return ""
        status = self.live.status
        return head.name if status is None or head.branch == status.branch else f"{head.branch}/{head.name}"

    def _detail(self) -> GroupDetail | None:
        name = self.name_selected
        return self.details.get(name, self._heads[self.groups.key]) if name else None

    def _draw_right(self) -> None:
        if self.comparing and self._compared != f"{self.groups.key}/{self.responses.key}":
            self._leave_comparison()
        growing = self.live.growing
        if self.groups.key == SAMPLING and growing is not None:
            self.pane.show_growing(growing, bool(self.groups.follow))
            return
        detail = self._detail()
        if detail is not None:
            self.pane.show_group(self.name_selected, detail)
        else:
            self.pane.show_lines(self._nothing())

    def _nothing(self) -> list[str]:
        state = pane_state(self.live)
        if state != "live" and not self._heads:
            return loading_lines(self.live) if state == "loading" else failed_lines(self.live)
        name = self.name_selected
        if name in self.details.failed:
            return [f"{name} could not be read: {self.details.failed[name]}"]
        if name:
            return [f"reading {name} ..."]
        if self.filter_text:
            return ["no group matches the filter"]
        if self.live.warming:
            return [f"no groups yet: the model is warming up ({phase_text(self.live)}); they appear when RL begins"]
        return ["no groups yet: they appear here when the first step has been sampled and scored"]

    def _came(self, name: str) -> None:
        if name == self.name_selected:
            self.refresh_now()

    # ---- events

    @on(LineTable.Moved)
    def _moved(self, event: LineTable.Moved) -> None:
        event.stop()
        self._count()
        self._draw_right()

    @on(TextView.Scrolled)
    def _scrolled(self) -> None:
        self.pane.say_position()

    @on(LineTable.Opened, "#groups")
    def _open_group(self) -> None:
        self.responses.focus()

    @on(LineTable.Opened, "#responses")
    def _open_response(self) -> None:
        self.add_class("-zoomed")
        self.pane.zoom(True)

    @on(Ask.Edited)
    def _filter_edited(self, event: Ask.Edited) -> None:
        if event.purpose == "filter":
            self._filter(event.text)

    @on(Ask.Answered)
    def _answered(self, event: Ask.Answered) -> None:
        if event.purpose == "filter":
            self._filter(event.text)
        elif self.comparing:
            if not self.pane.sides.search(event.text):
                self.say(f"{event.text!r} is in neither response")
        elif not self.text.search(event.text):
            self.say(f"{event.text!r} is not in this response")

    @on(Ask.Cancelled)
    def _cancelled(self, event: Ask.Cancelled) -> None:
        if event.purpose == "filter":
            self._filter("")

    def _filter(self, text: str) -> None:
        try:
            test = parse_filter(text)
        except UsageError as error:
            self.say(str(error), "warning")
            return
        self.filter_text = text.strip()

        def keep(row: Row) -> bool:
            return row.key in self._heads and test(self._heads[row.key])

        self.groups.set_filter(keep if self.filter_text else None)
        self._draw_groups()
        self._draw_right()

    # ---- actions

    def action_filter(self) -> None:
        if self.comparing:
            self.query_one(Ask).ask("search", "search /", hint="text in these two responses")
        elif self.focused is self.text:
            self.query_one(Ask).ask("search", "search /", hint="text in this response")
        else:
            hint = 'flag:dead std<.1 reward>0.8 step:800.. text:"####"'
            self.query_one(Ask).ask("filter", "filter /", self.filter_text, hint)

    def action_follow(self) -> None:
        if self.groups.follow:
            self.groups.follow = ""
        else:
            self.groups.move_to(0)
            self.groups.follow = "first"
        self.refresh_now()

    def action_open(self) -> None:
        """From the groups to the responses, from there to one of them alone."""
        if self.focused is self.groups:
            self._open_group()
        else:
            self._open_response()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Nothing is opened from two responses."""
        return super().check_action(action, parameters) and not (action == "open" and self.comparing)

    @property
    def comparing(self) -> bool:
        """Whether two responses are read against each other."""
        return bool(self.pane.other)

    def action_difference(self) -> None:
        """The response under the cursor against the next one; again: away with it."""
        if self.comparing:
            self._leave_comparison()
            self.refresh_now()
            return
        if self.groups.key == SAMPLING and self.live.growing is not None:
            self.say("D compares responses that have been scored; this group is still being sampled")
            return
        if not self.name_selected or self._detail() is None:
            self.say("no responses to compare")
            return
        other = self.pane.next_other(1)
        if not other:
            self.say("this group has one response: nothing to compare it with")
            return
        self.groups.follow = ""  # a newer group would take these two away
        self._compared = f"{self.groups.key}/{self.responses.key}"
        self._back_to = self.focused
        self.add_class("-comparing")
        self.pane.read_against(other)
        self.set_focus(self.pane.sides)
        self.refresh_now()

    def _leave_comparison(self) -> None:
        self.remove_class("-comparing")
        self.pane.read_against("")
        if self.focused is self.pane.sides:
            self.set_focus(self._back_to or self.groups)

    def action_response(self, direction: int) -> None:
        if self.comparing:
            self.pane.read_against(self.pane.next_other(direction))
            self._draw_right()
            return
        self.pane.move(direction, self.live.growing if self.groups.key == SAMPLING else None)

    def action_back(self) -> None:
        if self.comparing:
            self.action_difference()
        elif self.has_class("-zoomed"):
            self.remove_class("-zoomed")
            self.pane.zoom(False)
        elif self.focused is not self.groups:
            self.groups.focus()
        else:
            super().action_back()

    def action_mode(self, name: str) -> None:
        """``r`` rates the response under the cursor, if a person put the cursor there."""
        chosen = not self.groups.follow or self.focused is not self.groups
        if name == "rate" and chosen and self.name_selected and self._detail() is not None:
            head, letter = self._heads[self.groups.key], self.responses.key
            super().action_mode(name)
            self.call_later(self._rate, head, letter)
        else:
            super().action_mode(name)

    def _rate(self, head: GroupHead, letter: str) -> None:
        from screens.rate import RateScreen

        if isinstance(self.app.screen, RateScreen):
            self.app.screen.rate_response(head, letter)

    def topic(self) -> list[str]:
        """What the short words of the lists mean."""
        return [
            "flags: dead = all rewards equal, it teaches nothing, unless there is a value model; trunc = a response "
            "hit max_new_tokens; failed = one has no reward, because a reward function failed; kl = one is .5 nats "
            "or more from the reference; r3 = three are rated; hi, lo = the best and the worst mean lately; dropped "
            "= discarded before its update; replaced = dead, and another prompt's group took its place "
            "(dynamic_sampling). eos = the model ended by itself.",
            "adv = the advantage, with a value model the mean over the tokens. Under a response then stand the "
            "value that was estimated before each token and the return that it was trained on.",
            'filter: flag:dead  std<.1  reward>0.8  step:800..  text:"####"  -flag:dead; all must hold',
        ]

    def text_to_copy(self) -> str:
        detail = self._detail() if self.name_selected else None
        if detail is None:
            return ""
        texts = {r.letter: visible(r.text, newlines=True) for r in detail.group.responses}
        if self.comparing:
            pair = (self.responses.key, self.pane.other)
            return "\n\n".join(f"---- {letter} ----\n{texts.get(letter, '')}" for letter in pair)
        return texts.get(self.responses.key, "")

    def text_to_open(self) -> str:
        detail = self._detail() if self.name_selected else None
        if detail is None:
            return ""
        parts = [f"group {detail.group.name}", "", detail.group.prompt, ""]
        for response in detail.group.responses:
            parts += [f"---- {response.letter} ----", *(text for text, _ in response_text(detail, response.letter)), ""]
        return visible("\n".join(parts), newlines=True)
