"""A session's events, each once and in order, from one point to the session's end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

from sessions.client import Client
from sessions.commands import QueryEvents
from sessions.errors import EngineUnreachable, WorkbenchError
from sessions.folders import SessionFolder
from sessions.records import Status
from sessions.store import Store
from sessions.wire import AnyEvent, Beat, Delta, Snapshot, ToClient

PAGE = 1000
CONNECT_SECONDS = 3.0


class Watch:
    """Follows a session: what the engine sends, and from its records what it had to leave out.

    An engine drops events for a client that falls behind, and may end before it has sent the last ones; both are
    made up for, so nothing is missed however slowly the caller takes them.

    :param since: number of the last event that is known already; None: only what happens from now on.
    """

    def __init__(
        self, folder: SessionFolder, name: str, *, who: str, since: int | None = None, read_only: bool = True
    ) -> None:
        engine = folder.engine()
        self.folder = folder
        self.client = Client(engine.socket if engine else folder.socket_path(), name, who=who, read_only=read_only)
        self._seq = since
        self._connected = False
        self._messages: asyncio.Queue[ToClient | WorkbenchError] = asyncio.Queue()

    async def events(self) -> AsyncGenerator[AnyEvent | Status, None]:
        """Events and, between them, the newest status; ends when the engine closes the connection.

        :raises EngineUnreachable: if there is an engine, but it does not answer.
        :raises VersionMismatch: if it speaks another version.
        """
        until = time.monotonic() + CONNECT_SECONDS
        while not self._connected:
            try:
                async with contextlib.aclosing(self._sent()) as sent:
                    async for event in sent:
                        yield event
            except EngineUnreachable:
                if self._connected or not self.folder.running():
                    break
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.05)  # it is about to listen, or about to have ended
        for event in await asyncio.to_thread(self._recorded):
            yield event

    async def _sent(self) -> AsyncGenerator[AnyEvent | Status, None]:
        async with self.client:
            self._connected = True
            reader = asyncio.create_task(self._read())
            try:
                while True:
                    message = await self._messages.get()
                    if isinstance(message, WorkbenchError):
                        raise message
                    if isinstance(message, Snapshot):
                        async for event in self._missed(message.seq):
                            yield event
                        yield message.status
                    elif isinstance(message, Delta):
                        for event in message.events:
                            if self._is_new(event):
                                yield event
                    elif isinstance(message, Beat):
                        yield message.status
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    async def _read(self) -> None:
        """Take messages as they come, so that answers are settled while events wait."""
        try:
            async for message in self.client.messages():
                self._messages.put_nowait(message)
        except WorkbenchError as error:
            self._messages.put_nowait(error)

    def _is_new(self, event: AnyEvent) -> bool:
        """Whether it comes after all that were seen; events without a number are not kept and always new."""
        if event.seq == 0:
            return True
        if self._seq is not None and event.seq <= self._seq:
            return False
        self._seq = event.seq
        return True

    async def _missed(self, last: int) -> AsyncGenerator[AnyEvent, None]:
        """The events up to ``last`` that have not been seen."""
        if self._seq is None:
            self._seq = last
        missed: list[AnyEvent] = []
        before = last + 1
        while before > self._seq + 1:
            limit = min(PAGE, before - self._seq - 1)
            page = await self.client.query(QueryEvents(before=before, limit=limit), list[AnyEvent])
            missed += page
            if not page:
                break
            before = page[-1].seq
        for event in reversed(missed):
            if self._is_new(event):
                yield event
        self._seq = max(self._seq, last)

    def _recorded(self) -> list[AnyEvent]:
        """What is in the database and has not been seen, oldest first."""
        if not self.folder.database.exists():
            return []
        seen = self._seq
        store = Store(self.folder.database, read_only=True)
        try:
            before = store.last_seq() + 1
            events: list[AnyEvent] = []
            while seen is not None and before > seen + 1:
                page = store.events(before, limit=min(PAGE, before - seen - 1))
                if not page:
                    break
                events += page
                before = page[-1].seq
        finally:
            store.close()
        return [event for event in reversed(events) if self._is_new(event)]
