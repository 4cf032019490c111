"""The app: one screen a mode, one link to the engine, one beat twice a second."""

from __future__ import annotations

# First of all: this sets what Textual reads from the environment when it is imported.
import screens.terminal as terminal  # isort: skip

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual import events
from textual.actions import ActionParseResult
from textual.app import App
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widgets import Input

from screens.base import WorkbenchScreen
from screens.file_link import FileLink
from screens.keys import check_keymap
from screens.link import Link
from screens.live import Live
from screens.pace import Pace
from screens.palette import ActionProvider
from screens.read_only import REFUSAL, refused
from screens.safe import use_escapes
from screens.staging import Staging
from sessions.commands import Command
from sessions.errors import EngineUnreachable, UnknownName
from sessions.folders import SessionFolder
from sessions.people import whoami
from sessions.records import SessionSettings
from sessions.wire import Answer

if TYPE_CHECKING:
    from screens.replaying import ReplayLink
    from sessions.rating_file import RatingFile
    from sessions.replay import Replay

_T = TypeVar("_T")
StartSession = Callable[[SessionSettings], Awaitable[SessionFolder]]
RestartSession = Callable[[SessionFolder], Awaitable[None]]


def _mode(module: str, name: str) -> Callable[[], Screen[None]]:
    """A screen that is imported when it is first shown: the dashboard should not wait for the others."""
    return lambda: cast("Screen[None]", getattr(import_module(module), name)())


class WorkbenchApp(App[str], inherit_bindings=False):
    """Shows one session and sends commands to it.

    :param folder: the session; None opens the list of sessions.
    :param replay: show the session from these records.
    :param step: where the replay begins; at its last step if none is given.
    :param file: rate this file, without a session.
    :param rating_mode: that rating begins with; empty: the one used last.
    :param who: the name of the person; their user's if none is given.
    :param read_only: nothing can be changed from here.
    :param slow: for slow links: fewer bytes, one beat a second.
    :param marks: braille, block, ascii, or auto.
    :param keymap: id of an action -> its keys, from the settings file.
    :param start_session: starts an engine for a new session; the list offers ``a`` when it is given.
    :param restart_session: starts an engine for a session that has none.
    """

    TITLE = "workbench"
    CSS_PATH = "workbench.tcss"
    ENABLE_COMMAND_PALETTE = False  # its key comes from the registry like every other
    COMMANDS: ClassVar = {ActionProvider}
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "interrupt", show=False)]
    MODES: ClassVar = {
        "sessions": _mode("screens.session_list", "SessionListScreen"),
        "dashboard": _mode("screens.dashboard", "DashboardScreen"),
        "samples": _mode("screens.samples", "SamplesScreen"),
        "rate": _mode("screens.rate", "RateScreen"),
        "parameters": _mode("screens.parameters", "ParametersScreen"),
        "branches": _mode("screens.branches", "BranchesScreen"),
        "events": _mode("screens.events", "EventsScreen"),
    }

    def __init__(
        self,
        folder: SessionFolder | None = None,
        *,
        replay: Replay | None = None,
        step: int | None = None,
        file: RatingFile | None = None,
        rating_mode: str = "",
        who: str = "",
        read_only: bool = False,
        slow: bool = False,
        marks: str = "auto",
        theme: str = "",
        keymap: dict[str, str] | None = None,
        start_session: StartSession | None = None,
        restart_session: RestartSession | None = None,
    ) -> None:
        super().__init__()
        self.use_command_palette = True
        self.folder = folder
        self.who = who or whoami()
        self.read_only = read_only
        self.slow = slow
        self.marks = terminal.choose_marks(marks)
        self.start_session, self.restart_session = start_session, restart_session
        self.live = Live(folder.name if folder else "")
        self.link: Link | ReplayLink | FileLink | None = None
        self._begin = (replay, step)
        self._file = file
        self.rating_mode = rating_mode
        self.long_answer: tuple[str, list[str]] | None = None
        self._staged: tuple[Live, Staging] | None = None
        self.pace = Pace(terminal.SLOW_BYTES if slow else terminal.BYTES)
        self.set_class(self.marks == "ascii", "-ascii")
        use_escapes(self.marks == "ascii")
        if theme and theme not in self.available_themes:
            raise UnknownName("theme", theme, self.available_themes)
        if theme:
            self.theme = theme
        if keymap:
            self.set_keymap(check_keymap(keymap))

    # -------------------------------------------------------------------------------------- life

    def on_mount(self) -> None:
        self.pace.count(self._driver)
        terminal.watch_for_hangup(self)
        self.set_interval(1.0 if self.slow else 0.5, self._beat)
        replay, step = self._begin
        if self._file is not None:
            self.rate_file(self._file)
        elif self.folder is None:
            self.switch_mode("sessions")
        elif replay is not None:
            self.replay(replay, step)
        else:
            self.attach(self.folder)

    def attach(self, folder: SessionFolder) -> None:
        """Show a session from now on."""
        live, rate = Live(folder.name), 1.0 if self.slow else 4.0
        link = Link(folder, live, rate=rate, read_only=self.read_only, who=self.who, on_news=self._news)
        self._show(folder, live, link)

    def replay(self, replay: Replay, step: int | None = None) -> None:
        """Show a recorded session from now on, at a step or at its last one."""
        from screens.replaying import ReplayLink  # who attaches to an engine should not wait for it

        live = Live(replay.folder.name)
        self._show(replay.folder, live, ReplayLink(replay, live, step=step, on_frame=self._film))

    def rate_file(self, file: RatingFile) -> None:
        """Show a file of responses to rate from now on; there is no other screen."""
        live = Live(file.path.name)
        self.live, self.link = live, FileLink(file, live)
        self.run_worker(self.link.run(), group="link", exclusive=True, exit_on_error=True)
        self.switch_mode("rate")
        self.call_later(self._tell, "; ".join(file.told))

    def _tell(self, text: str) -> None:
        if text and isinstance(self.screen, WorkbenchScreen):
            self.screen.say(text, "warning")

    def _show(self, folder: SessionFolder, live: Live, link: Link | ReplayLink) -> None:
        if self.link is not None:
            self.link.close_records()
        self.folder, self.live, self.link = folder, live, link
        self.run_worker(link.run(), group="link", exclusive=True, exit_on_error=True)
        self.switch_mode("dashboard")

    @property
    def replaying(self) -> ReplayLink | None:
        """The time line, where a recorded session is shown."""
        return None if isinstance(self.link, Link | FileLink) else self.link

    @property
    def rating_file(self) -> FileLink | None:
        """What takes the ratings, where a file is rated without a session."""
        return self.link if isinstance(self.link, FileLink) else None

    def _beat(self) -> None:
        """Redraw what is new, if the terminal has taken what was drawn before."""
        if self.pace.may_draw():
            self._draw()

    def _film(self) -> None:
        """Draw a frame of what plays: there is no training beside it that needs the processor."""
        if self.pace.may_play():
            self._draw()

    def _draw(self) -> None:
        before = time.thread_time()
        self._news()
        self.pace.worked(time.thread_time() - before)

    def _news(self) -> None:
        for screen in reversed(self.screen_stack):
            if isinstance(screen, WorkbenchScreen):
                if screen.is_mounted:
                    screen.tick()
                return

    def show_mode(self, name: str) -> None:
        """Go to a screen by its mode."""
        if self.rating_file is not None:
            if name != "rate":
                self._tell(self.rating_file.refusal)
        elif self.folder is not None or name == "sessions":
            self.switch_mode(name)
        elif isinstance(self.screen, WorkbenchScreen):
            self.screen.say("attach to a session first: enter")

    def show_guide(self) -> None:
        """The guide for whoever rates."""
        from screens.rate import RateScreen

        self.show_mode("rate")

        def go() -> None:
            if isinstance(self.screen, RateScreen):
                self.screen.edit_guide()

        self.call_after_refresh(go)

    def goto(self, step: int) -> None:
        """The charts around a step; in a replay, the moment of it."""
        if self.rating_file is not None:
            self._tell(self.rating_file.refusal)
            return
        if self.replaying is not None:
            self.replay_to(step)
            return
        from screens.dashboard import DashboardScreen

        self.show_mode("dashboard")

        def go() -> None:
            if isinstance(self.screen, DashboardScreen):
                self.screen.goto(step)

        self.call_later(go)

    def replay_to(self, step: int) -> None:
        """Go to a step on the time line, if it was recorded."""
        link, screen = self.replaying, self.screen
        if link is None or not isinstance(screen, WorkbenchScreen):
            return
        first, last = link.replay.steps[0], link.last
        if first <= step <= last:
            link.goto(step)
            screen.refresh_now()
        else:
            screen.say(f"no step {step}: the record goes from {first} to {last}", "error")

    @property
    def staging(self) -> Staging:
        """What this person has staged, sent and can undo in the session that is shown."""
        live = self.live
        if self._staged is None or self._staged[0] is not live:
            changes = lambda: live.changes.values()  # noqa: E731, PLW0108 - a snapshot brings another dictionary
            self._staged = live, Staging(self.who, lambda: live.values, changes)
        return self._staged[1]

    # ---------------------------------------------------------------------------------- commands

    async def send(self, command: Command) -> AsyncIterator[Answer]:
        """The answers to a command, as they come."""
        if self.link is None:
            raise EngineUnreachable("no session is attached")
        async for answer in self.link.send(command):
            yield answer

    async def query_engine(self, command: Command, kind: type[_T]) -> _T:
        """The data of a query, decoded."""
        if self.link is None:
            raise EngineUnreachable("no session is attached")
        return await self.link.query(command, kind)

    def detach(self) -> None:
        """Leave; the engine does not notice."""
        name = self.folder.name if self.folder else ""
        if self.rating_file is not None:
            self.rating_file.close_records()
            self.exit(self.rating_file.farewell)
        elif not name:
            self.exit("")
        elif self.replaying is not None:
            self.exit(f"left the replay of {name}. See it again with: workbench replay {name}")
        elif self.live.connection == "ended" and not self.live.restarting:
            self.exit(f"left {name}, which has ended. See it again with: workbench attach {name}")
        else:
            self.exit(f"detached from {name}; training goes on. Come back with: workbench attach {name}")

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Do what a key or the palette asks for, unless it would change something and this only watches."""
        screen = self.screen
        if self.read_only and isinstance(action, str) and refused(action, default_namespace or self):
            if isinstance(screen, WorkbenchScreen):
                screen.say(REFUSAL, "warning")
            return True
        return await super().run_action(action, default_namespace, namespaces)

    def on_key(self, event: events.Key) -> None:
        """A printable key that no widget took, for the bindings in force.

        Keys typed fast, or pasted, right after the one that opens a line to type into were given to the widget that
        had the focus before, and arrive here: they are text for the line, not keys of the screen.
        """
        entry = self.focused
        if isinstance(entry, Input) and event.is_printable and event.character:
            entry.insert_text_at_cursor(event.character)
            event.prevent_default()  # Textual's own handler, which looks for bindings, runs after this one

    def action_interrupt(self) -> None:
        if isinstance(self.screen, WorkbenchScreen):
            self.screen.action_interrupt()
        else:
            self.screen.dismiss(None)


def run_app(folder: SessionFolder | None = None, *, mouse: bool = True, **options: object) -> str:
    """Run the app in this terminal until the person leaves.

    :param options: of :class:`WorkbenchApp`.
    :returns: the line to leave in the terminal.
    """
    app = WorkbenchApp(folder, **options)  # type: ignore[arg-type]
    return app.run(mouse=mouse) or ""
