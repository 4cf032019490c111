"""``race``: a branch for each algorithm from one step, trained in turn by the engine; followed, then compared."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence

import msgspec

from sessions.branches import BranchInfo
from sessions.client import attached
from sessions.commands import Command, QueryBranches, Race, Stop, new_id, parse_words
from sessions.errors import EngineUnreachable, Refused, SessionError
from sessions.folders import SessionFolder, session_folder
from sessions.records import Status, StepRecord
from sessions.wire import AlarmRaised, Answer, AnyEvent, Noted, StepDone
from workbench.commands_compare import print_comparison, read_comparison
from workbench.commands_run import start_paused
from workbench.daemon import last_seq, until_ended
from workbench.headless import progress_text, step_json
from workbench.output import ProgressLine, emit, say
from workbench.settings import person
from workbench.watch import Watch

READY_SECONDS = 30.0
"""How long an engine that was started for the race may say that it has not begun."""
NOT_READY = "not before the first step"


def race(arguments: argparse.Namespace) -> int:
    """``workbench race``: run it, follow it, compare its branches."""
    command, who = race_command(arguments), person(arguments)
    folder = session_folder(arguments.session)
    started = not folder.running()
    if started:
        start_paused(folder)
    following = _Following(folder, command, who, started=started, as_json=arguments.json)
    return asyncio.run(_race(following, arguments.metrics or (), started=started, as_json=arguments.json))


def race_command(arguments: argparse.Namespace) -> Race:
    """What the engine is asked for; the words are read as those of ``send S race``.

    :raises UsageError: if they are wrong.
    """
    at = [] if arguments.at is None else ["--at", str(arguments.at)]
    command: Command = parse_words(["race", arguments.algorithms, str(arguments.steps), *at, *(arguments.sets or ())])
    assert isinstance(command, Race)
    return command


async def _race(following: _Following, metrics: Sequence[str], *, started: bool, as_json: bool) -> int:
    folder = following.folder
    with following.interruptible():
        task = asyncio.create_task(following.run())
        leaving = asyncio.create_task(following.left.wait())
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        following.progress.end()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            say(_goodbye(folder, following))
            return 0
        leaving.cancel()
        over = False
        try:
            over = task.result()
        finally:
            if started:
                await stop_engine(folder, following.who)
    if len(following.racers) > 1:
        comparison, branches = read_comparison(folder, following.racers, metrics)
        print_comparison(comparison, branches, as_json=as_json, charts=metrics)
    if not over:
        say("the race was given up")
    return 0 if over else 1


def _goodbye(folder: SessionFolder, following: _Following) -> str:
    """How to come back to a race that goes on."""
    name = folder.name
    if not following.accepted:
        return f"the race was not accepted yet; `workbench status {name}` tells whether it has begun"
    return (
        f"the race goes on in {name}: `workbench attach {name}` (b) or `workbench follow {name}` shows it, "
        f"`workbench compare {name} {' '.join(following.racers) or 'BRANCH ...'}` its branches, "
        f"`workbench send {name} race stop` gives it up, `workbench stop {name}` stops the engine"
    )


async def stop_engine(folder: SessionFolder, who: str) -> None:
    """Stop an engine that was started for one command."""
    engine = folder.engine()
    if engine is None:
        return
    with contextlib.suppress(EngineUnreachable):  # it has ended by itself
        async with attached(engine.socket, "race", who=who) as client:
            await client.send(Stop())
    await until_ended(folder)


class _Following:
    """One race as it goes.

    :ivar racers: its branches so far.
    :ivar left: set by ctrl+c.
    """

    def __init__(self, folder: SessionFolder, command: Race, who: str, *, started: bool, as_json: bool) -> None:
        self.folder, self.command, self.who, self._started = folder, command, who, started
        self.racers: list[str] = []
        self.accepted = False
        self.left = asyncio.Event()
        self.progress = ProgressLine()
        self._watch = Watch(folder, "race", who=who, since=last_seq(folder), read_only=False)
        self._json = as_json
        self._connected = asyncio.Event()
        self._known: set[str] = set()
        self._status: Status | None = None
        self._step: StepRecord | None = None

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl+c leaves, inside."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.left.set)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    async def run(self) -> bool:
        """Ask for the race and follow it to its end.

        :returns: whether it came to its end; False: somebody gave it up.
        :raises Refused: if the engine does not race.
        :raises SessionError: if the engine ends before the race does.
        """
        following, asking = asyncio.create_task(self._follow()), asyncio.create_task(self._ask())
        try:
            await asyncio.wait({following, asking}, return_when=asyncio.FIRST_EXCEPTION)
            if asking.done():
                asking.result()
            return await following
        finally:
            for task in (following, asking):
                task.cancel()
            await asyncio.gather(following, asking, return_exceptions=True)

    async def _follow(self) -> bool:
        async with contextlib.aclosing(self._watch.events()) as events:
            async for event in events:
                if isinstance(event, Status):
                    self._connected.set()
                over = self._take(event)
                if over is not None:
                    return over
        info = await until_ended(self.folder)
        cause = info.cause if info is not None else "it left no word"
        name = self.folder.name
        raise SessionError(f"the engine of {name!r} ended in the race: {cause}; `workbench run --name {name}` goes on")

    async def _ask(self) -> None:
        await self._connected.wait()
        client = self._watch.client
        with contextlib.suppress(EngineUnreachable):  # it has ended, as whoever follows is told
            infos = await client.query(QueryBranches(), list[BranchInfo])
            self._known = {info.branch.name for info in infos}
            async for answer in self._answers():
                if answer.status == "rejected":
                    raise Refused(f"rejected: {answer.text}")
                self.accepted = True
                self.progress.say(answer.text or answer.status)

    async def _answers(self) -> AsyncIterator[Answer]:
        """The answers to the command; asked again for a while where an engine that was just started is not ready."""
        until = time.monotonic() + (READY_SECONDS if self._started else 0.0)
        while True:
            async for answer in self._watch.client.answers(self.command):
                early = answer.status == "rejected" and answer.text.startswith(NOT_READY)
                if early and time.monotonic() < until:
                    break
                yield answer
            else:
                return
            await asyncio.sleep(0.2)
            self.command = msgspec.structs.replace(self.command, id=new_id())  # the same one gets the same answer

    def _take(self, event: AnyEvent | Status) -> bool | None:
        """Show what happens; whether the race has come to its end, None while it goes on."""
        over: bool | None = None
        match event:
            case Status():
                self._status = event
            case StepDone(record=record) if self.accepted and record.branch not in self._known:
                if record.branch not in self.racers:
                    self.racers.append(record.branch)
                self._step = record
                if self._json:
                    emit(step_json(self.folder.name, record))
            case AlarmRaised(alarm=alarm) if not alarm.acknowledged:
                self.progress.say(f"step {alarm.step}: {alarm.message}")
            case Noted(kind="race", text=text) if self.accepted:
                self.progress.say(text)
                over = True if " is over" in text else None
            case Noted(kind="branch", text=text) if self.accepted and self.racers:
                over = False if "gave race" in text else None
        self.progress.update(self._line())
        return over

    def _line(self) -> str:
        if self._step is None:
            return self._status.note if self._status is not None else ""
        racing = self._status is not None and self._status.state == "RUN" and bool(self._status.note)
        note = f"   {self._status.note}" if racing and self._status is not None else ""
        return f"{self._step.branch}  {progress_text(self._step, self._status)}{note}"
