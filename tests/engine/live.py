"""A live engine in this process: a small learner behind a real socket, driven by a client."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import torch

from engine.control import Control
from engine.engine import Engine
from engine.knobs import Knobs
from engine.learner import Learner
from engine.policy import Policy
from engine.tasks import Task
from sessions import wire
from sessions.client import Client
from sessions.commands import Command, parse_words
from sessions.errors import EngineUnreachable
from sessions.folders import SessionFolder, new_session
from sessions.records import RatingUse, SessionSettings, Status
from tests.engine.small import make_knobs, random_policy, small_task, weights_of

_E = TypeVar("_E")
SECONDS = 60.0


class Hold:
    """Stops the compute thread just before a safe point of a test's choice, until it is let go.

    The safe points of a phase are numbered: 0 is its beginning, n its n-th progress.
    """

    def __init__(self, control: Control) -> None:
        self.reached = threading.Event()
        self._go = threading.Event()
        self._at: tuple[str, int] | None = None
        self._seen = 0
        self._begin, self._advance = control.begin, control.advance
        control.begin, control.advance = self._begins, self._advances  # type: ignore[method-assign]

    def at(self, phase: str, number: int) -> None:
        """Hold there the next time."""
        self.reached.clear()
        self._go.clear()
        self._at = (phase, number)

    def release(self) -> None:
        self._at = None
        self._go.set()

    def _begins(self, phase: Any, total: int = 0) -> None:
        self._phase, self._seen = phase, 0
        self._stop_here()
        self._begin(phase, total)

    def _advances(self, done: int, total: int) -> None:
        self._seen += 1
        self._stop_here()
        self._advance(done, total)

    def _stop_here(self) -> None:
        if self._at == (self._phase, self._seen):
            self._at = None
            self.reached.set()
            if not self._go.wait(SECONDS):
                raise TimeoutError("the test never let go")


class Live:
    """An engine, and one client whose messages are kept."""

    def __init__(self, engine: Engine, client: Client) -> None:
        self.engine, self.client = engine, client
        self.hold: Hold
        self.serving: asyncio.Task[None]
        self.snapshots: list[wire.Snapshot] = []
        self.events: list[wire.AnyEvent] = []
        self.beats: list[Status] = []
        self.growing: list[wire.Growing] = []
        self.hung_up = False

    async def read(self) -> None:
        """Keep what comes, until the engine hangs up."""
        with contextlib.suppress(EngineUnreachable):
            async for message in self.client.messages():
                match message:
                    case wire.Snapshot():
                        self.snapshots.append(message)
                    case wire.Delta(events=events):
                        self.events += events
                    case wire.Beat(status=status):
                        self.beats.append(status)
                    case wire.Growing():
                        self.growing.append(message)
        self.hung_up = True

    async def until(self, condition: Callable[[], object]) -> None:
        """Poll until it holds."""
        async with asyncio.timeout(SECONDS):
            while not condition():
                if self.serving.done() and not condition():
                    self.serving.result()
                    raise AssertionError(f"the engine has ended: {self.engine.failure}")
                await asyncio.sleep(0.003)

    async def held(self) -> None:
        await self.until(self.hold.reached.is_set)

    async def paused(self) -> None:
        await self.until(lambda: self.engine.control.paused)

    async def paused_again(self) -> None:
        """Wait for the pause after an alarm."""
        await self.until(lambda: self.of(wire.AlarmRaised))
        await self.paused()

    async def first(self, command: Command | str) -> wire.Answer:
        """Send a command, or words; its first answer."""
        command = parse_words(command) if isinstance(command, str) else command
        return await asyncio.wait_for(self.client.send(command), SECONDS)

    async def do(self, command: Command | str) -> wire.Answer:
        """Send a command, or words; its last answer."""
        command = parse_words(command) if isinstance(command, str) else command
        return await asyncio.wait_for(self.client.send_and_wait(command), SECONDS)

    async def query(self, words: str) -> Any:
        return await asyncio.wait_for(self.client.query_json(parse_words(words)), SECONDS)

    async def step(self, count: int = 1) -> None:
        """Run steps from a pause before one, to a pause before one."""
        for _ in range(count):
            answer = await self.do("step")
            assert answer.status == "applied", answer

    async def ended(self) -> None:
        await asyncio.wait_for(self.serving, SECONDS)

    def of(self, kind: type[_E]) -> list[_E]:
        """The events of that kind so far."""
        return [e for e in self.events if isinstance(e, kind)]

    def notes(self, kind: str) -> list[str]:
        return [e.text for e in self.of(wire.Noted) if e.kind == kind]

    @property
    def uses(self) -> list[RatingUse]:
        return [e.use for e in self.of(wire.RatingUsed)]

    @property
    def weights(self) -> list[torch.Tensor]:
        return weights_of(self.engine.learner.policy)


def session(name: str = "s", **settings: Any) -> SessionFolder:
    return new_session(name, SessionSettings(**{"name": name, "paused": True, "device": "cpu", **settings}))


@contextlib.asynccontextmanager
async def live(
    folder: SessionFolder | None = None,
    *,
    task: Task | None = None,
    build: Any = None,
    policy: Callable[[], Policy] = random_policy,
    **values: Any,
) -> AsyncIterator[Live]:
    """A session paused before its first step, unless the settings say otherwise; it goes on from its checkpoints."""
    folder = folder or session()
    made: dict[str, Hold] = {}

    def small(settings: SessionSettings, control: Control, where: SessionFolder) -> tuple[Learner, Knobs]:
        made["hold"] = Hold(control)
        knobs = make_knobs(*settings.sets, **values)
        return Learner(settings, task or small_task(), policy(), knobs, control, where.checkpoints), knobs

    engine = Engine(folder, folder.settings(), build or small)
    serving = asyncio.create_task(engine.serve())
    try:
        async with asyncio.timeout(SECONDS):
            while folder.engine() is None:
                await asyncio.sleep(0.003)
        async with Client(folder.engine().socket, "test", rate=50) as client:
            tested = Live(engine, client)
            tested.serving = serving
            reading = asyncio.create_task(tested.read())
            # the one after loading: what happened before it comes in it and not as an event
            await tested.until(lambda: tested.snapshots and tested.snapshots[-1].status.state != "LOADING")
            tested.hold = made.get("hold")
            if engine.settings.paused:
                await tested.paused()
            try:
                yield tested
            finally:
                engine.stop(now=True)
                if tested.hold:
                    tested.hold.release()
                await asyncio.wait([serving], timeout=SECONDS)
                await asyncio.wait_for(reading, SECONDS)
    finally:
        if not serving.done():
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
