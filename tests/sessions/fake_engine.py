"""A backend with nothing behind it: it numbers events, answers commands and tells what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from sessions import wire
from sessions.commands import Command, Pause, QueryResponse, QueryStatus, Set, Stop
from sessions.server import Server
from tests.sessions.samples import status


class FakeBackend:
    """Keeps every event; ``pause`` is applied, ``set`` accepted and later applied, ``response`` is large."""

    def __init__(self) -> None:
        self.events: list[wire.AnyEvent] = []
        self.commands: list[Command] = []
        self.pending: list[tuple[Command, Callable[[wire.Answer], None]]] = []
        self.snapshots = 0
        self.changes = 0
        self.large = "x" * (3 * wire.PAGE)
        self.server: Server | None = None

    def welcome(self) -> wire.Welcome:
        return wire.Welcome(protocol=1, version="test", session="s", database="d", seq=len(self.events), pid=1)

    def snapshot(self) -> wire.Snapshot:
        self.snapshots += 1
        return wire.Snapshot(seq=len(self.events), status=status())

    async def command(self, command: Command, reply: Callable[[wire.Answer], None]) -> None:
        self.commands.append(command)
        match command:
            case Pause() | Stop():
                reply(wire.Answer(id=command.id, status="applied", step=3, text="done"))
            case Set():
                reply(wire.Answer(id=command.id, status="accepted", text="due at the next rollout"))
                self.pending.append((command, reply))
            case QueryStatus():
                reply(wire.Answer(id=command.id, status="data", data=wire.encode_json(status())))
            case QueryResponse():
                reply(wire.Answer(id=command.id, status="data", data=wire.encode_json(self.large)))
            case _:
                reply(wire.Answer(id=command.id, status="rejected", text="not here"))

    def clients_changed(self) -> None:
        self.changes += 1

    def emit(self, text: str = "x") -> None:
        """One more event, to everybody."""
        event = wire.Noted(time=1.0, step=1, seq=len(self.events) + 1, kind="note", text=text)
        self.events.append(event)
        assert self.server is not None
        self.server.send_event(event)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[FakeBackend, Server]]:
    """A backend behind a real socket with a short path."""
    with tempfile.TemporaryDirectory(prefix="wb", dir="/tmp") as folder:
        backend = FakeBackend()
        server = backend.server = Server(str(Path(folder) / "s"), backend)
        await server.start()
        try:
            yield backend, server
        finally:
            await server.close()


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until it holds.

    :raises TimeoutError: if it does not within ``seconds``.
    """
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
