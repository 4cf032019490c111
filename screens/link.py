"""The line to the engine: connects, feeds the live model, reconnects, and finds out how an engine ended."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from screens.live import Live
from sessions.client import Client
from sessions.commands import Command, Subscribe
from sessions.errors import EngineUnreachable, VersionMismatch, WireError, WorkbenchError
from sessions.folders import SessionFolder
from sessions.server import is_query
from sessions.wire import Answer

if TYPE_CHECKING:
    from sessions.replay import Replay

_T = TypeVar("_T")
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
LOG_LINES = 15
START_SECONDS = 60.0
"""How long an engine that was started may take to answer or to say how it ended; its supervisor outlives it."""


class Link:
    """One screen's connection to one session's engine; :meth:`run` is a worker for the life of the screen.

    :param who: whose screen it is.
    :param on_news: called after the model changed in a way that should be seen at once: connected, lost, ended.
    """

    def __init__(
        self,
        folder: SessionFolder,
        live: Live,
        *,
        rate: float = 4.0,
        read_only: bool = False,
        who: str = "",
        on_news: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.live = live
        self._rate = rate
        self._read_only = read_only
        self._who = who
        self._news = on_news
        self._client: Client | None = None
        self._hurry = asyncio.Event()
        self._growing = -1
        self._replay: Replay | None = None
        self._opening = threading.Lock()
        self._given_up_at: float | None = None

    async def run(self) -> None:
        """Keep the model fed until cancelled."""
        wait = FIRST_WAIT
        while True:
            try:
                await self._attached()
            except (EngineUnreachable, WireError, OSError) as error:
                self.live.complaint = str(error)
            if self._client is not None:
                self._client, wait = None, FIRST_WAIT
            if self.live.restarting:  # whoever pressed the key looks on, so the tries do not become rarer
                await self._starting()
                wait = FIRST_WAIT / 2
            elif await asyncio.to_thread(self.folder.running):
                self.live.connected("lost" if self.live.status is not None else "connecting")
            else:
                await self._ended()
            self._news()
            await self._pause(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    async def _attached(self) -> None:
        """One connection, from hello to its end."""
        engine = await asyncio.to_thread(self.folder.engine)
        if engine is None:
            raise EngineUnreachable("no engine has said where it listens")
        async with Client(engine.socket, "screen", who=self._who, rate=self._rate, read_only=self._read_only) as client:
            self._client, self._given_up_at = client, None
            self.live.you = client.title, self._who
            self.close_records()
            self.live.connected("live")
            self._news()
            resubscribed = asyncio.create_task(self._subscribe_again(client))
            try:
                await self._feed(client)
            except VersionMismatch as mismatch:
                self.live.complaint = str(mismatch)
                self._news()
                await self._feed(client)  # status and stop are still served
            finally:
                resubscribed.cancel()

    async def _feed(self, client: Client) -> None:
        """Everything that one connection sends; the first status is drawn at once."""
        first = True
        async for message in client.messages():
            self.live.feed(message)
            if first and self.live.status is not None:
                first = False
                self._news()

    async def _subscribe_again(self, client: Client) -> None:
        """A new connection does not know what the one before had subscribed to."""
        if self._growing >= 0:
            with contextlib.suppress(EngineUnreachable):
                await client.send(Subscribe(growing=self._growing))

    async def _starting(self) -> None:
        """An engine was started and does not answer yet: wait on, unless it has ended again."""
        if self._given_up_at is None:
            return  # what is in the folder is still the word of the engine before
        ended = await asyncio.to_thread(self.folder.exit) is not None
        if ended or time.monotonic() > self._given_up_at:
            self._given_up_at = None
            await self._ended()

    async def _ended(self) -> None:
        """No engine holds the session: say how it ended, and show what is recorded."""
        # The supervisor writes how an engine ended a moment after its socket closes.
        for _ in range(20):
            cause = await asyncio.to_thread(self.folder.exit)
            if cause is not None or self.live.status is None or await asyncio.to_thread(self.folder.running):
                break
            await asyncio.sleep(0.1)
        tail = await asyncio.to_thread(self.folder.log_tail, LOG_LINES)
        if self.live.status is None:
            with contextlib.suppress(WorkbenchError):  # nothing was recorded, or nothing that can be read
                records = await asyncio.to_thread(self._records)
                # Unless exit.json says otherwise, it has failed.
                self.live.show_moment(*await asyncio.to_thread(records.moment, records.steps[-1], "FAILED"))
        if self.live.connection != "ended" or self.live.exit != cause or self.live.log_tail != tail:
            self.live.ended(cause, tail)

    async def _pause(self, wait: float) -> None:
        """Wait before the next try, a little more or less so that many screens do not come at once."""
        try:
            async with asyncio.timeout(wait * random.uniform(0.8, 1.2)):
                await self._hurry.wait()
        except TimeoutError:
            return
        finally:
            self._hurry.clear()

    def hurry(self) -> None:
        """Try to connect now."""
        self._hurry.set()

    def expect(self) -> None:
        """An engine was just started: try to connect, and take the session for starting until it answers."""
        self._given_up_at = time.monotonic() + START_SECONDS
        self.hurry()

    # ---------------------------------------------------------------------------------------- commands

    def _connected(self) -> Client:
        if self._client is None:
            raise EngineUnreachable("no engine is connected")
        return self._client

    async def send(self, command: Command) -> AsyncIterator[Answer]:
        """The answers to a command: one, or accepted and then the final one.

        :raises EngineUnreachable: if the connection is down, or ends before the last answer.
        """
        if isinstance(command, Subscribe):
            self._growing = command.growing
        elif self._is_recorded() and is_query(command):
            yield Answer(id=command.id, status="data", data=await self._recorded(command))
            return
        async for answer in self._connected().answers(command):
            yield answer

    async def query(self, command: Command, kind: type[_T]) -> _T:
        """The data of a query, decoded.

        :raises EngineUnreachable: if the connection is down.
        :raises Refused: if the engine rejected it.
        """
        if self._is_recorded():
            return msgspec.json.decode(await self._recorded(command), type=kind)
        return await self._connected().query(command, kind)

    def _is_recorded(self) -> bool:
        """Whether the engine has ended, so that its database answers."""
        return self._client is None and self.live.connection == "ended"

    async def _recorded(self, command: Command) -> str:
        return await asyncio.to_thread(self._recorded_answer, command)

    def _records(self) -> Replay:
        """The ended session's database, opened once.

        :raises WorkbenchError: if it cannot be read.
        """
        with self._opening:
            if self._replay is None:
                from sessions.replay import Replay

                self._replay = Replay(self.folder)
            return self._replay

    def _recorded_answer(self, command: Command) -> str:
        return self._records().answer(command)

    def close_records(self) -> None:
        """Let go of the database: an engine has it now, or another session is shown."""
        if self._replay is not None:
            self._replay.close()
            self._replay = None
