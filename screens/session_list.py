"""What bare ``workbench`` opens: every session on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import BindingType
from textual.content import Content
from textual.widget import Widget

from screens.base import WorkbenchScreen
from screens.dialogs import ConfirmDialog
from screens.keys import REPLAY_ACTIONS, bindings
from screens.session_form import SessionForm
from screens.session_rows import SessionLine, session_lines
from screens.widgets.ask import Ask
from screens.widgets.line_table import Column, LineTable, Row
from sessions.errors import WorkbenchError
from sessions.folders import SessionFolder, sessions_home
from sessions.records import SessionSettings
from sessions.replay import Replay

EVERY = 5.0
"""Seconds between looks at the disk."""
_NEEDS_SESSION = frozenset(
    ["pause", "step", "checkpoint", "mode", "acknowledge", "stop_session", "undo", "redo", "copy", "pager", "arrange"]
)


class SessionListScreen(WorkbenchScreen):
    """A table of sessions."""

    MODE = "sessions"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("sessions")]

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, SessionLine] | None = None
        self._filter = ""

    def compose_body(self) -> Iterable[Widget]:
        columns = [
            Column("session", 0),
            Column("state", 7),
            Column("step", 7, right=True),
            Column("best", 12, right=True),
            Column("model", 18, narrow=0),
            Column("task", 16, narrow=12),
            Column("age", 7, right=True),
            Column("size", 8, right=True),
        ]
        yield LineTable(columns, empty="reading the sessions ...", id="sessions")
        yield Ask()

    def on_mount(self) -> None:
        self.query_one(LineTable).focus()
        self.look()
        self.set_interval(EVERY, self.look)

    def look(self) -> None:
        """Read the disk again."""
        if self.is_current:
            self.run_worker(self._look(), group="look", exclusive=True, exit_on_error=False)

    async def _look(self) -> None:
        lines = await session_lines()
        self.lines = {line.name: line for line in lines}
        self.refresh_now()

    # ------------------------------------------------------------------------------------------ drawing

    def state_line(self, width: int) -> Content:
        if self.lines is None:
            return Content(" SESSIONS")
        running = sum(line.state not in ("DONE", "FAILED", "new", "?") for line in self.lines.values())
        count = len(self.lines)
        text = f"  {count} session{'s' if count != 1 else ''}, {running} running   in {sessions_home()}"
        return Content.assemble(" ", ("SESSIONS", "bold"), text[: max(0, width - 10)])

    def alarm_line(self, width: int) -> Content:
        line = (self.lines or {}).get(self.query_one(LineTable).key)
        return Content.styled(f" {line.problem}"[:width], "$text-error") if line and line.problem else Content("")

    def refresh_from_live(self, force: bool) -> None:
        table = self.query_one(LineTable)
        if self.lines is None:
            return
        start = "a starts one" if self.workbench.start_session else "workbench run starts one"
        table.empty = f"no session on this machine yet: {start}"
        now = time.time()
        table.set_rows([line.row(now) for line in self.lines.values()])

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in _NEEDS_SESSION:
            return False
        if action == "new_session":
            return self.workbench.start_session is not None
        return action not in REPLAY_ACTIONS

    # ------------------------------------------------------------------------------------------ actions

    def _chosen(self) -> SessionFolder | None:
        name = self.query_one(LineTable).key
        return SessionFolder(sessions_home() / name) if name else None

    @on(LineTable.Opened)
    def action_open_session(self) -> None:
        """Attach to what runs or has failed; what ended in order is replayed, at its end."""
        folder = self._chosen()
        if folder is None:
            return
        line = (self.lines or {}).get(folder.name)
        if line is not None and line.state == "DONE" and not folder.running():
            self.run_worker(self._replay(folder), group="replay", exclusive=True, exit_on_error=False)
        else:
            self.workbench.attach(folder)

    async def _replay(self, folder: SessionFolder) -> None:
        try:
            replay = await asyncio.to_thread(Replay, folder)
        except WorkbenchError:
            self.workbench.attach(folder)  # which says what is wrong with it
            return
        if self.is_current:
            self.workbench.replay(replay)
        else:
            replay.close()

    def action_new_session(self) -> None:
        self._open_form()

    def _open_form(self, tried: SessionSettings | None = None, problem: str = "") -> None:
        def filled(settings: SessionSettings | None) -> None:
            if settings is not None:
                self.run_worker(self._start(settings), group="start", exclusive=True, exit_on_error=False)

        self.app.push_screen(SessionForm(tried, problem), filled)

    async def _start(self, settings: SessionSettings) -> None:
        start = self.workbench.start_session
        if start is None:
            return
        self.say("starting the engine ...")
        try:
            folder = await start(settings)
        except WorkbenchError as error:
            self.say("no session was started", "error")
            if self.is_current:  # what was typed is not lost
                self._open_form(settings, str(error))
            return
        self.workbench.attach(folder)

    def action_filter(self) -> None:
        self.query_one(Ask).ask("filter", "filter /", self._filter, "words of the row")

    @on(Ask.Edited)
    @on(Ask.Answered)
    def _typed(self, event: Ask.Edited | Ask.Answered) -> None:
        self._show_only(event.text)

    @on(Ask.Cancelled)
    def _cancelled(self) -> None:
        self._show_only("")

    def _show_only(self, text: str) -> None:
        self._filter = text
        words = text.lower().split()

        def keep(row: Row) -> bool:
            return all(any(word in cell.lower() for cell in row.cells) for word in words)

        self.query_one(LineTable).set_filter(keep if words else None)

    def action_delete_session(self) -> None:
        folder = self._chosen()
        if folder is None:
            return
        if folder.running():
            self.say(f"{folder.name} is running; stop it first (enter, then Q)", "error")
            return
        lines = ["Its records, ratings and checkpoints are gone for good."]

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(self._delete(folder), group="delete", exit_on_error=False)

        self.app.push_screen(ConfirmDialog(f"Delete {folder.name}?", lines, folder.name), answered)

    async def _delete(self, folder: SessionFolder) -> None:
        """Under the session's lock, so that no engine starts on what is being removed."""
        try:
            lock = await asyncio.to_thread(folder.lock)
        except (WorkbenchError, OSError) as error:
            self.say(f"{folder.name} cannot be deleted: {error}", "error")
            return
        try:
            await asyncio.to_thread(shutil.rmtree, folder.path)
            self.say(f"deleted {folder.name}")
        except OSError as error:
            self.say(f"{folder.name} is deleted only in part: {error}", "error")
        finally:
            os.close(lock)
        await self._look()
