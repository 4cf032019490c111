"""What every screen shares: the two lines at the top, the message and command line, the keys, and sending commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

import msgspec
from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget

from screens.errands import ask_to_stop, open_in_pager, show_long_answer
from screens.file_link import NOT_FOR_FILES
from screens.keys import ACTIONS, NOT_IN_REPLAY, REPLAY_ACTIONS, bindings, named
from screens.live import Live
from screens.read_only import REFUSAL, marked, room
from screens.reloading import ask_to_use
from screens.switching import told_with
from screens.topline import alarm_content, state_content
from screens.widgets.command_line import CommandLine
from screens.widgets.lines import FooterLine, Line, MessageLine, Severity, TimeLine
from sessions.commands import (
    Acknowledge,
    Command,
    Fork,
    Pause,
    Race,
    Reload,
    Resume,
    Rewind,
    Set,
    Step,
    Switch,
    TakeCheckpoint,
)
from sessions.errors import WorkbenchError
from sessions.server import is_query
from sessions.wire import Answer

if TYPE_CHECKING:
    from screens.app import WorkbenchApp
    from screens.replaying import ReplayLink

_T = TypeVar("_T")
LEAST_WIDTH, LEAST_HEIGHT = 60, 16
_OF_TRAINING = frozenset(
    named(key)
    for action in ACTIONS.values()
    if action.scope == "global" and (action.action in NOT_FOR_FILES or action.action.startswith("mode("))
    for key in action.keys
)
"""Keys that do nothing where a file is rated."""
SOON = 0.02
"""Seconds after a key that moves along a replay until the rest of the screen follows."""
PATIENCE = 1.5
"""Seconds without an answer before a screen says that it waits for one."""


class WorkbenchScreen(Screen[None]):
    """Base of the screens.

    A screen composes its body, draws it in :meth:`refresh_from_live`, and says in ``SCOPES`` which keys of the
    registry it has beside the global ones: ``BINDINGS = bindings("samples")`` adds them.

    :cvar MODE: the name of its mode.
    :ivar follows: id of a command that is under way -> what follows from it by itself, in words.
    """

    MODE: ClassVar[str] = ""
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("global", "replay")]
    DEFAULT_CSS = """
    WorkbenchScreen { layout: vertical; }
    WorkbenchScreen #body { height: 1fr; }
    WorkbenchScreen.-small #body, WorkbenchScreen.-small #message, WorkbenchScreen.-small #footer,
    WorkbenchScreen.-small #time-line { display: none; }
    WorkbenchScreen #bottom { height: 1; }
    """

    def compose(self) -> ComposeResult:
        yield Line("state")
        yield Line("alarms")
        with Vertical(id="body"):
            yield from self.compose_body()
        yield MessageLine("message")
        yield CommandLine("command-line")
        yield TimeLine("time-line")
        yield FooterLine("footer")

    def __init__(self) -> None:
        super().__init__()
        self.follows: dict[str, str] = {}
        self._link_version = -1
        self._latest = ""
        self._keys = 0
        self._place_drawn = (0, 0)
        self._drawing = False

    # ------------------------------------------------------------------------------- what a screen defines

    def compose_body(self) -> Iterable[Widget]:
        """The widgets between the top lines and the message line; their container is ``#body``, a vertical layout."""
        return ()

    def refresh_from_live(self, force: bool) -> None:
        """Draw what is new; called twice a second while this screen is visible, and after keys.

        :param force: draw everything: the screen has just come up, or the size changed.
        """

    def on_answer(self, command: Command, answer: Answer) -> None:
        """An answer to a command sent from this screen came; also ``accepted`` ones, before the final."""

    def answer_text(self, command: Command, answer: Answer) -> str:
        """What is said of an answer, in one line; nothing if the screen shows it elsewhere."""
        return answer.text

    def state_line(self, width: int) -> Content:
        """The first line of the screen."""
        return state_content(self.live, width)

    def alarm_line(self, width: int) -> Content:
        """The second line of the screen."""
        return alarm_content(self.live, width)

    def announcement(self) -> str:
        """What the message line says while there is no message, such as that something is hidden."""
        return ""

    def topic(self) -> list[str]:
        """Lines about what is under the cursor, for the top of the help: a formula, a knob's meaning."""
        return []

    def text_to_copy(self) -> str:
        """What ``y`` copies."""
        return ""

    def text_to_open(self) -> str:
        """What ``o`` opens in the pager; what ``y`` copies unless a screen says otherwise."""
        return self.text_to_copy()

    def unused_key(self, key: str) -> None:
        """A key came that does nothing here: say why, if there is something to say.

        :param key: as Textual names it.
        """
        filed = self.workbench.rating_file
        if filed is not None and key in _OF_TRAINING:
            self.say(filed.refusal)

    # -------------------------------------------------------------------------------------- what it offers

    @property
    def workbench(self) -> WorkbenchApp:
        """The app, with its type."""
        return cast("WorkbenchApp", self.app)

    @property
    def live(self) -> Live:
        """The session."""
        return self.workbench.live

    @property
    def replaying(self) -> ReplayLink | None:
        """The time line, where a recorded session is shown."""
        return self.workbench.replaying

    @property
    def too_small(self) -> bool:
        return self.size.width < LEAST_WIDTH or self.size.height < LEAST_HEIGHT

    def say(self, text: str, severity: Severity = "information") -> None:
        """One line above the keys; the next key takes it away."""
        self.query_one(MessageLine).say(text, severity)

    def send(self, command: Command) -> None:
        """Send a command; its answers are shown in one line and handed to :meth:`on_answer`.

        What goes to another step or branch says from which one this screen has seen it go.
        """
        if self.workbench.read_only and not is_query(command):
            self.say(REFUSAL, "warning")
            self.on_answer(command, Answer(id=command.id, status="rejected", text="attached read-only"))
            return
        if self.replaying is not None and not is_query(command):
            self.say(self.replaying.refusal(), "warning")
            self.on_answer(command, Answer(id=command.id, status="rejected", text="this is a replay"))
            return
        if isinstance(command, Rewind | Fork | Switch | Race) and not command.expect:
            stopping = isinstance(command, Race) and not command.algorithms  # by now another racer may be trained
            command = msgspec.structs.replace(command, expect="" if stopping else self.live.branch)
        told = told_with(self.live.values, command)
        if told:
            self.follows[command.id] = told
        self.run_worker(self._send(command, self._keys), group="send", exit_on_error=False)

    async def _send(self, command: Command, keys: int) -> None:
        self._latest = command.id
        unanswered = self.set_timer(PATIENCE, lambda: self.say("sent; the engine has not answered yet", "warning"))
        try:
            async for answer in self.workbench.send(command):
                unanswered.stop()
                text = self.answer_text(command, answer)
                if answer.status == "rejected":
                    earlier = "" if command.id == self._latest else "the command before was "
                    self.say(f"{earlier}rejected: {text}", "error")
                elif text:
                    self._say_answer(command, text, keys)
                self.on_answer(command, answer)
        except WorkbenchError as error:
            hint = ""
            if self.live.restarting:
                hint = ": it is being started"
            elif self.live.connection == "ended" and self.workbench.restart_session is not None:
                hint = "; d, then R, starts one"
            self.say(f"not sent: {error}{hint}", "error")
            self.on_answer(command, Answer(id=command.id, status="rejected", text=str(error)))
        finally:
            unanswered.stop()
            self.follows.pop(command.id, None)
        self.refresh_now()

    def _say_answer(self, command: Command, text: str, keys: int) -> None:
        """Say an answer; one of many lines is shown if nobody has pressed a key since, and kept for ``:answer``."""
        told = self.follows.get(command.id, "")
        if told and told.split()[0] not in text:
            preset = isinstance(command, Set) and command.preset
            text += f", preset {preset}: {told}" if preset else f"; with it {told}"
        if "\n" not in text.strip():
            self.say(text)
            return
        if isinstance(command, Reload) and self.is_current and keys == self._keys:
            self.query_one(MessageLine).clear()
            ask_to_use(self, text.rstrip().split("\n"))
            return
        title = str(command.__struct_config__.tag)
        self.workbench.long_answer = title, text.rstrip().split("\n")
        if self.is_current and keys == self._keys:
            self.query_one(MessageLine).clear()
            show_long_answer(self)
        else:
            self.say(f"{text.strip().splitlines()[0]} ..   (:answer shows all of it)")

    async def query_engine(self, command: Command, kind: type[_T]) -> _T:
        """The data of a query, decoded; await it in a worker.

        :raises WorkbenchError: if the engine refuses, or is gone.
        """
        return await self.workbench.query_engine(command, kind)

    def refresh_now(self) -> None:
        """Draw what is new at once, without waiting for the next beat.

        Of another moment of a replay, where that is: a held key repeats faster than charts are drawn, which follow.
        """
        if not self.is_current or not self.is_mounted:
            return
        if self._place == self._place_drawn:
            self.tick()
        elif not self._drawing:
            self._drawing = True
            self.draw_top()
            self.set_timer(SOON, self._draw_moment)
        else:
            self.draw_top()

    @property
    def _place(self) -> tuple[int, int]:
        """Where one is in which replay."""
        link = self.replaying
        return (id(link), link.at) if link is not None else (0, 0)

    def _draw_moment(self) -> None:
        self._drawing = False
        if self.is_current:
            self.tick()

    def tick(self, force: bool = False) -> None:
        """Draw the lines and what is new in the body."""
        if not self.query("#footer"):
            return  # not composed yet, or being taken apart
        self.set_class(self.too_small, "-small")
        self._place_drawn = self._place
        self.draw_top()
        if self.too_small:
            return
        self.refresh_from_live(force)
        if self._link_version != self.live.version["link"]:
            self._link_version = self.live.version["link"]
            self.query_one(FooterLine).update_keys()  # some keys need an engine, some need that there is none
        self.query_one(MessageLine).announce(self.announcement())

    def draw_top(self) -> None:
        """The two lines at the top, and where one is in a replay."""
        width, height = self.size
        if self.workbench.read_only:
            self.query_one("#state", Line).show(marked(self.state_line(room(width)), width))
        else:
            self.query_one("#state", Line).show(self.state_line(width))
        if self.too_small:
            small = f" terminal too small: {width}x{height}, needs {LEAST_WIDTH}x{LEAST_HEIGHT}"
            self.query_one("#alarms", Line).show(Content(small))
            return
        self.query_one("#alarms", Line).show(self.alarm_line(width))
        self.query_one(TimeLine).update_place(self.replaying if self.MODE != "sessions" else None)

    # --------------------------------------------------------------------------------------------- events

    def on_mount(self) -> None:
        self.call_after_refresh(self.tick, True)

    def on_screen_resume(self) -> None:
        self.call_after_refresh(self.tick, True)
        self.call_after_refresh(self.query_one(FooterLine).update_keys)

    def on_resize(self) -> None:
        self.call_after_refresh(self.tick, True)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self.query_one(FooterLine).update_keys()

    def on_key(self, event: events.Key) -> None:
        self._keys += 1
        self.query_one(MessageLine).clear()
        if event.key not in self.active_bindings:
            self.unused_key(event.key)
        self.call_later(self.refresh_now)

    # -------------------------------------------------------------------------------------------- actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A replay has keys of its own, in the place of some; a file that is rated has none of the training's."""
        if self.workbench.rating_file is not None and (action in NOT_FOR_FILES or action == "mode"):
            return False
        if action in REPLAY_ACTIONS or action in NOT_IN_REPLAY:
            return (action in REPLAY_ACTIONS) == (self.replaying is not None)
        return True

    def action_play(self) -> None:
        if self.replaying is not None:
            self.replaying.play()
            self.refresh_now()

    def action_along(self, by: int) -> None:
        if self.replaying is not None and not self.replaying.move(by):
            self.say("this is the last step that was recorded" if by > 0 else "this is the first step")
        self.refresh_now()

    def action_change_pace(self, by: int) -> None:
        if self.replaying is not None:
            self.replaying.player.change_pace(by)
            self.refresh_now()

    def action_to_mark(self, direction: int) -> None:
        if self.replaying is not None and not self.replaying.next_mark(direction):
            self.say(f"nothing is marked {'after' if direction > 0 else 'before'} this step")
        self.refresh_now()

    def action_mode(self, name: str) -> None:
        self.workbench.show_mode(name)

    def action_pause(self) -> None:
        status = self.live.status
        self.send(Resume() if status is not None and status.state == "PAUSED" else Pause())

    def action_step(self) -> None:
        self.send(Step())

    def action_checkpoint(self) -> None:
        self.send(TakeCheckpoint())

    def action_acknowledge(self) -> None:
        if self.live.standing_alarms():
            self.send(Acknowledge())
        else:
            self.say("no alarm to acknowledge")

    def action_undo(self) -> None:
        if self.says_nothing_to_undo():
            return
        self.say("nothing to undo on this screen: r undoes ratings, p undoes changes")

    def says_nothing_to_undo(self) -> bool:
        """Whether it is a replay, in which nothing was done; then it says so."""
        if self.replaying is not None:
            self.say("nothing to undo: this is a replay")
        return self.replaying is not None

    def action_redo(self) -> None:
        self.say("nothing to redo on this screen")

    def action_arrange(self) -> None:
        self.say("nothing to arrange on this screen")

    def action_next_pane(self) -> None:
        self.focus_next()

    def action_previous_pane(self) -> None:
        self.focus_previous()

    def action_back(self) -> None:
        """esc: to the dashboard, from wherever one is."""
        if self.workbench.rating_file is None and self.MODE not in ("dashboard", "sessions"):
            self.workbench.show_mode("dashboard")

    def action_command(self) -> None:
        self.query_one(CommandLine).open()

    def action_palette(self) -> None:
        from screens.palette import Palette

        self.app.push_screen(Palette(id="--command-palette"))

    def action_help(self) -> None:
        from screens.help import HelpDialog

        self.app.push_screen(HelpDialog(self))

    def action_copy(self) -> None:
        text = self.text_to_copy()
        if not text:
            self.say("nothing to copy here")
            return
        self.app.copy_to_clipboard(text)
        self.say(f"copied {len(text)} characters, where the terminal allows it (OSC 52)")

    def action_pager(self) -> None:
        text = self.text_to_open()
        if text:
            open_in_pager(self, text)
        else:
            self.say("nothing to open here")

    def action_detach(self) -> None:
        self.workbench.detach()

    def action_stop_session(self) -> None:
        if self.replaying is not None:
            self.say(self.replaying.refusal(), "warning")
            return
        ask_to_stop(self)

    def action_interrupt(self) -> None:
        if self.replaying is not None:
            self.say("q leaves the replay", "warning")
            return
        if self.workbench.rating_file is not None:
            self.say("q leaves; what is rated is saved", "warning")
            return
        self.say("q detaches: the training goes on.   Q stops the session, after a question", "warning")
