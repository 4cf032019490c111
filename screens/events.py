"""Everything that happened, the newest at the bottom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on, work
from textual.binding import BindingType
from textual.content import Content
from textual.widget import Widget

from screens.base import WorkbenchScreen
from screens.dialogs import TextDialog
from screens.errands import pretty
from screens.event_rows import COLUMNS, event_filter, event_key, event_row, is_listed
from screens.headings import heading
from screens.keys import bindings
from screens.live import Live
from screens.safe import visible
from screens.states import failed_lines, loading_lines, pane_state
from screens.widgets.ask import Ask
from screens.widgets.line_table import LineTable, Row
from sessions.commands import QueryEvents
from sessions.errors import UsageError, WorkbenchError
from sessions.wire import AnyEvent, encode_event

PAGE = 200


class EventsScreen(WorkbenchScreen):
    """One list; older pages come from the engine when the cursor reaches the top."""

    MODE = "events"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("events")]
    AUTO_FOCUS = "#events"

    def __init__(self) -> None:
        super().__init__()
        self.table = LineTable(COLUMNS, empty="nothing has happened yet", id="events")
        self.table.add_class("pane")
        self.table.follow = "last"
        self.filter_text = ""
        self._live: Live | None = None
        self._drawn = -1
        self._rows: dict[str, Row] = {}
        self._events: dict[str, AnyEvent] = {}
        self._older: list[AnyEvent] = []
        self._asking = False
        self._at_start = False

    def compose_body(self) -> Iterable[Widget]:
        yield self.table
        yield Ask(id="ask")

    # ---- drawing

    def state_line(self, width: int) -> Content:
        follow = "following" if self.table.follow else "holding still (G: follow)"
        return heading(self.live, width, f"EVENTS  {follow}")

    def refresh_from_live(self, force: bool) -> None:
        if self._live is not self.live:
            self._live = self.live
            self._older, self._drawn, self._at_start = [], -1, False
            self._rows, self._events = {}, {}
        if self._drawn != self.live.version["events"] or force:
            self._drawn = self.live.version["events"]
            self._draw()
        self.table.border_title = Content(visible(f"events  /{self.filter_text}" if self.filter_text else "events"))
        place = f"{self.table.cursor + 1} of {len(self.table.shown)}" if self.table.shown else ""
        start = "" if self._at_start else "+" if self.table.shown else ""
        self.table.border_subtitle = Content(place + start)

    def _draw(self) -> None:
        state = pane_state(self.live)
        if state == "loading":
            self.table.empty = loading_lines(self.live)[0]
        elif state == "failed":
            self.table.empty = failed_lines(self.live)[0]
        else:
            self.table.empty = "nothing has happened yet"
        rows: dict[str, Row] = {}
        events: dict[str, AnyEvent] = {}
        for event in (*self._older, *self.live.events):
            key = event_key(event)
            if key not in rows and is_listed(event):
                rows[key] = self._rows.get(key) or event_row(event)
                events[key] = event
        self._rows, self._events = rows, events
        self.table.set_rows(list(rows.values()))

    # ---- older pages

    @on(LineTable.Moved)
    def _moved(self, event: LineTable.Moved) -> None:
        if event.by_hand and self.table.cursor == len(self.table.shown) - 1:
            self.table.follow = "last"
        if event.by_hand and self.table.cursor == 0:
            self._ask_for_older()
        self.refresh_now()

    def _ask_for_older(self) -> None:
        oldest = min((event.seq for event in self._events.values() if event.seq), default=0)
        if self._asking or self._at_start or oldest == 0:
            return
        if oldest == 1:
            self._at_start = True
            return
        self._asking = True
        self.say("reading older events ...")
        self._page(oldest)

    @work(group="page", exit_on_error=False)
    async def _page(self, before: int) -> None:
        try:
            page = await self.query_engine(QueryEvents(before=before, limit=PAGE), list[AnyEvent])
        except WorkbenchError as error:
            self.say(f"older events cannot be read: {error}", "error")
            return
        finally:
            self._asking = False
        self._at_start = len(page) < PAGE
        self._older = [*reversed(page), *self._older]
        self.say(f"{len(page)} older events" if page else "this is the first event")
        self._drawn = -1
        self.refresh_now()

    # ---- one event

    @on(LineTable.Opened)
    def _opened(self) -> None:
        self.action_open_event()

    def action_open_event(self) -> None:
        event = self._events.get(self.table.key)
        if event is not None:
            self._show(event)

    @work(group="show", exclusive=True, exit_on_error=False)
    async def _show(self, event: AnyEvent) -> None:
        """The whole record: what is kept here may be without its bulk."""
        whole = event
        if event.seq:
            try:
                found = await self.query_engine(QueryEvents(before=event.seq + 1, limit=1), list[AnyEvent])
            except WorkbenchError:
                found = []  # what is here is better than nothing
            if found and found[0].seq == event.seq:
                whole = found[0]
        self.app.push_screen(TextDialog(f"event {event.seq or ''}", pretty(encode_event(whole))))

    # ---- filter

    @on(Ask.Edited)
    @on(Ask.Answered)
    def _typed(self, event: Ask.Edited | Ask.Answered) -> None:
        self._filter(event.text)

    @on(Ask.Cancelled)
    def _cancelled(self) -> None:
        self._filter("")

    def _filter(self, text: str) -> None:
        try:
            keep = event_filter(text)
        except UsageError as error:
            self.say(str(error), "warning")
            return
        self.filter_text = text.strip()
        self.table.set_filter(keep if self.filter_text else None)
        self.refresh_now()

    def action_filter(self) -> None:
        self.query_one(Ask).ask("filter", "filter /", self.filter_text, "kind:alarm step:800.. words of the line")

    def text_to_copy(self) -> str:
        row = self._rows.get(self.table.key)
        return visible("  ".join(row.cells)) if row else ""

    def text_to_open(self) -> str:
        return "\n".join(visible("  ".join(row.cells)) for row in self.table.shown)
