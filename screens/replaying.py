"""Replaying a recorded session: where one is on its time line, how fast it plays, and the line itself. No Textual."""

from __future__ import annotations

import asyncio
import bisect
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import msgspec

from screens.charts import Row
from screens.live import Live
from screens.safe import fit, visible
from screens.terminal import Marks
from sessions.commands import Command
from sessions.errors import SessionError
from sessions.replay import Marks as Happened
from sessions.replay import Replay
from sessions.server import is_query
from sessions.wire import Answer

_T = TypeVar("_T")
STEPS_A_SECOND = 5.0
PACES = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Times :data:`STEPS_A_SECOND`."""
FRAME = 0.1
"""Seconds between two looks at the player's clock."""
SIGNS = {"alarm": "!", "change": ":", "rating": "r", "checkpoint": "C"}
"""What a mark looks like; where several meet, the first is drawn."""
_ROLES = {"alarm": "alarm", "change": "change", "rating": "good", "checkpoint": "dim"}
_DRAWN = {"ascii": ("=", "-", "|"), "block": ("█", "░", "┃"), "braille": ("━", "─", "┃")}
"""Of the line: what is past, what is to come, where one is."""
LEAST_BAR = 16


class Player:
    """Says how many steps are due since it was asked last.

    :ivar playing: whether any are.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pace = PACES.index(1.0)
        self._since = 0.0
        self._owed = 0.0
        self.playing = False

    @property
    def pace(self) -> float:
        """Times the usual one."""
        return PACES[self._pace]

    def play(self) -> None:
        self.playing, self._since, self._owed = True, self._clock(), 0.0

    def hold(self) -> None:
        self.playing = False

    def change_pace(self, by: int) -> None:
        """The next faster pace, or the next slower one."""
        self._settle()
        self._pace = min(max(self._pace + by, 0), len(PACES) - 1)

    def due(self) -> int:
        """Whole steps to go on now."""
        self._settle()
        steps = int(self._owed)
        self._owed -= steps
        return steps

    def _settle(self) -> None:
        now = self._clock()
        if self.playing:
            self._owed += (now - self._since) * STEPS_A_SECOND * self.pace
        self._since = now


class ReplayLink:
    """In the place of the line to an engine: moves the model along the time line, and answers queries from the records.

    :param on_frame: called when the model has moved by itself, as far as the terminal follows.
    """

    def __init__(self, replay: Replay, live: Live, *, step: int | None = None, on_frame: Callable[[], None]) -> None:
        self.replay, self.live = replay, live
        self.player = Player()
        self._frame = on_frame
        self.at = -1
        live.clock = lambda: live.status.time if live.status is not None else 0.0  # ages are those of then
        live.connected("replay")
        self.goto(replay.steps[-1] if step is None else step)

    async def run(self) -> None:
        """Play while it plays, until cancelled."""
        while True:
            await asyncio.sleep(FRAME)
            self.go_on()

    def go_on(self) -> None:
        """Take the steps that are due; at the end of the record, hold."""
        due = self.player.due()
        if not due:
            return
        self._show(self.at + due)
        if self.at == len(self.replay.steps) - 1:
            self.player.hold()
        self._frame()

    # ------------------------------------------------------------------------------------------- moving

    @property
    def step(self) -> int:
        return self.replay.steps[self.at]

    @property
    def last(self) -> int:
        return self.replay.steps[-1]

    def move(self, by: int) -> bool:
        """So many steps on, or back; whoever moves by hand holds the player.

        :returns: whether there were any.
        """
        self.player.hold()
        before = self.at
        self._show(self.at + by)
        return self.at != before

    def goto(self, step: int) -> None:
        """The newest recorded step that is not after ``step``; the first one before all of them."""
        self.player.hold()
        self._show(bisect.bisect_right(self.replay.steps, step) - 1)

    def next_mark(self, direction: int) -> bool:
        """The next step at which something happened, or the one before.

        :returns: whether there is one.
        """
        steps = [step for found in self.replay.marks.values() for step in found]
        ahead = [step for step in steps if (step - self.step) * direction > 0]
        if ahead:
            self.goto(min(ahead) if direction > 0 else max(ahead))
        return bool(ahead)

    def play(self) -> None:
        """Play or hold; at the end of the record, from its beginning."""
        if self.player.playing:
            self.player.hold()
            return
        if self.at == len(self.replay.steps) - 1:
            self._show(0)
        self.player.play()

    def _show(self, at: int) -> None:
        at = min(max(at, 0), len(self.replay.steps) - 1)
        if at != self.at:
            self.at = at
            self.live.show_moment(*self.replay.moment(self.step))

    # ---------------------------------------------------------------------------------------- commands

    def close_records(self) -> None:
        """Another session is shown: let go of the database."""
        self.player.hold()
        self.replay.close()

    def refusal(self) -> str:
        """Why nothing can be done here, and where it can."""
        name = self.replay.folder.name
        if self.replay.folder.running():
            return f"this is a replay; `workbench attach {name}` shows the session that runs"
        return f"this is a replay; `workbench run --name {name}` continues the session"

    async def send(self, command: Command) -> AsyncIterator[Answer]:
        """The answer to a query, as of the moment.

        :raises SessionError: for anything that would change the session.
        """
        if not is_query(command):
            raise SessionError(self.refusal())
        yield Answer(id=command.id, status="data", data=await self._answer(command))

    async def query(self, command: Command, kind: type[_T]) -> _T:
        """The data of a query, decoded.

        :raises WorkbenchError: if nothing of that name was recorded, or only an engine knows.
        """
        return msgspec.json.decode(await self._answer(command), type=kind)

    async def _answer(self, command: Command) -> str:
        return await asyncio.to_thread(self.replay.answer, command, self.step)

    # ------------------------------------------------------------------------------------------ the line

    def time_line(self, width: int, marks: Marks) -> Row:
        """``REPLAY gsm8k/main  step 412/812  [=====|-----:---!---]  || x1``, in exactly so many cells."""
        first = self.replay.steps[0]
        place = f"step {self.step}/{self.last}"
        state = f"{'>' if self.player.playing else '||'} x{self.player.pace:g}".ljust(7)
        name = visible(f"REPLAY {self.replay.folder.name}/{self.replay.branch}")
        left = f" {name}  {place}  "
        if width - len(left) - len(state) - 5 < LEAST_BAR:
            left = f" {place}  "
        inner = max(1, width - len(left) - len(state) - 5)
        row: Row = [(left, "strong"), ("[", "axis")]
        row += bar(self.replay.marks, first, self.last, self.step, inner, marks)
        row += [("]", "axis"), (f"  {state} ", "")]
        text = sum(len(part) for part, _ in row)
        return row if text <= width else [(fit("".join(part for part, _ in row), width), "")]


def bar(happened: Happened, first: int, last: int, now: int, width: int, marks: Marks) -> Row:
    """The line from the first step to the last: what is past, where one is, and what happened when.

    What has happened in more than half of the columns is left out: a mark everywhere says nothing.
    """
    span = max(1, last - first)

    def column(step: int) -> int:
        return round((step - first) / span * (width - 1))

    past, ahead, here = _DRAWN[marks]
    cells = [(past, "bar") if x < column(now) else (ahead, "axis") for x in range(width)]
    for kind in reversed(SIGNS):
        columns = {column(step) for step in happened.get(kind, ())}
        if len(columns) <= width // 2:
            for x in columns:
                cells[x] = (SIGNS[kind], _ROLES[kind])
    cells[column(now)] = (here, "cross")
    return cells
