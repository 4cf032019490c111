"""One engine's socket: any number of clients, none of which can slow the engine.

Each client has two lanes. Answers are never dropped: a client with more than 64 or 4 MiB of unread ones is not read
from until it catches up. What a command did is told before its answer, so whoever reads the answer knows it. Everything
else is bounded: the newest status and the newest growing text replace older ones, and when the events waiting for a
client pass 256 messages or 4 MiB they are dropped for a fresh snapshot.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from sessions.commands import QUERIES, Command, QueryStatus, Stop, Subscribe
from sessions.errors import MalformedFrame, SessionError
from sessions.peer import is_own
from sessions.records import Record
from sessions.wire import (
    LINE_LIMIT,
    PROTOCOL,
    Answer,
    AnyEvent,
    BadCommand,
    Beat,
    Complaint,
    Growing,
    Hello,
    Snapshot,
    Welcome,
    decode_command,
    decode_hello,
    encode,
    encode_delta,
    encode_part,
    pages_of,
)

MAX_MESSAGES = 256
MAX_BYTES = 4 * 2**20
MAX_ANSWERS = 64
HANDSHAKE_SECONDS = 10.0
FLUSH_SECONDS = 2.0
"""How long a closing engine waits for clients to read what they were sent."""


class Backend(Protocol):
    """What the server asks of the engine."""

    def welcome(self) -> Welcome: ...

    def snapshot(self) -> Snapshot:
        """The session as of now; must not await, so that no event falls between it and the deltas."""
        ...

    async def command(self, command: Command, reply: Callable[[Answer], None]) -> None:
        """Serve a command; ``reply`` may be called more than once, and later."""
        ...

    def clients_changed(self) -> None:
        """Somebody came or left."""
        ...


class Connection:
    """One client, as the server sees it."""

    def __init__(self, hello: Hello, writer: asyncio.StreamWriter) -> None:
        self.hello = hello
        self.growing = -1
        self.since = time.time()
        self._writer = writer
        self._answers: deque[bytes] = deque()
        self._unread = 0
        self._events: list[bytes] = []
        self._bytes = 0
        self._latest: dict[type[Record], Record] = {}
        self._behind = self._hurried = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = self._gone = False
        self._sent = asyncio.Event()
        self.resyncs = 0

    @property
    def title(self) -> str:
        """Who this is, for the dashboard."""
        return self.hello.title

    def answer(self, answer: Answer) -> None:
        """Queue an answer; never dropped. Before what a command has come to goes what has happened until then."""
        if answer.status in ("accepted", "applied") and (self._events or self._behind):
            self._hurried = True
        for page in pages_of(answer):
            line = encode(page)
            self._answers.append(line)
            self._unread += len(line)
        if len(self._answers) > MAX_ANSWERS or self._unread > MAX_BYTES:
            self._room.clear()
        self._wake.set()

    def event(self, event: bytes) -> None:
        """Queue an event as :func:`~sessions.wire.encode_part` writes it, or fall behind."""
        if self._behind:
            return
        self._wake_for_batch()
        self._events.append(event)
        self._bytes += len(event)
        if len(self._events) > MAX_MESSAGES or self._bytes > MAX_BYTES:
            self.resync()

    def latest(self, message: Beat | Growing) -> None:
        """Queue a message that replaces an unsent one of its kind."""
        self._wake_for_batch()
        self._latest[type(message)] = message

    @property
    def _waiting(self) -> bool:
        """Whether there is anything for a batch."""
        return bool(self._behind or self._events or self._latest)

    def _wake_for_batch(self) -> None:
        """Something joins the next batch; where that has something already, the pump knows when it is due."""
        if not self._waiting:
            self._wake.set()

    async def flush(self) -> None:
        """Send what is queued without waiting for the client's rate; returns when it is written, or nobody reads."""
        self._closing = True
        if not self._gone:
            self._sent.clear()
        self._wake.set()
        await self._sent.wait()

    def gone(self) -> None:
        """Nobody reads any more."""
        self._gone = True
        self._sent.set()

    def resync(self) -> None:
        """Send a fresh snapshot in place of what is queued."""
        self._events.clear()
        self._bytes = 0
        self._behind = True
        self._wake.set()

    async def room(self) -> None:
        """Wait until the client has read enough of its answers."""
        await self._room.wait()

    async def pump(self, snapshot: Callable[[], Snapshot]) -> None:
        """Send what is queued, events in batches at the client's rate, until cancelled."""
        pause = 1.0 / min(max(self.hello.rate, 0.1), 50.0)
        next_batch = 0.0
        loop = asyncio.get_running_loop()
        while True:
            while self._answers and not self._hurried:
                line = self._answers.popleft()
                self._unread -= len(line)
                self._writer.write(line)
                if len(self._answers) <= MAX_ANSWERS // 2 and self._unread <= MAX_BYTES // 2:
                    self._room.set()
                await self._writer.drain()
            if (loop.time() >= next_batch or self._closing or self._hurried) and self._waiting:
                self._hurried = False
                next_batch = loop.time() + pause
                await self._send_batch(snapshot)
                continue
            self._wake.clear()
            if self._answers:
                continue
            self._sent.set()
            timeout = max(0.0, next_batch - loop.time()) if self._waiting else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._wake.wait()

    async def _send_batch(self, snapshot: Callable[[], Snapshot]) -> None:
        latest, self._latest = list(self._latest.values()), {}
        if self._behind:
            self._behind = False
            self.resyncs += 1
            self._events.clear()
            self._bytes = 0
            self._writer.write(encode(snapshot()))
        elif self._events:
            events, self._events, self._bytes = self._events, [], 0
            self._writer.write(encode_delta(events))
        for message in latest:
            self._writer.write(encode(message))
        await self._writer.drain()


class Server:
    """Listens on a Unix socket that only this user can reach.

    :param path: of the socket. The caller holds the session's lock, so any file there is a dead engine's.
    """

    def __init__(self, path: str, backend: Backend) -> None:
        self.path = path
        self._backend = backend
        self._connections: set[Connection] = set()
        self._served: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._closing = False

    @property
    def connections(self) -> list[Connection]:
        return sorted(self._connections, key=lambda c: c.since)

    async def start(self) -> None:
        """Bind and listen.

        :raises SessionError: if it cannot listen there.
        """
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
                raise SessionError(f"{self.path}: is not a socket, and the engine's would be there; remove it")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)  # bind makes the file, and must make it so: a chmod after it would be too late
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            listener.bind(self.path)
        except OSError as error:
            listener.close()
            why = error.strerror or error
            raise SessionError(f"{self.path}: no engine can listen there ({why}); remove it and try again") from None
        finally:
            os.umask(before)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=LINE_LIMIT)

    async def close(self) -> None:
        """Send what is queued to those who read, close every connection, remove the socket."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._flush()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    async def _flush(self) -> None:
        await asyncio.gather(*(connection.flush() for connection in self._served))

    def send_event(self, event: AnyEvent) -> None:
        """Queue an event for every client."""
        if self._connections:
            encoded = encode_part(event)
            for connection in self._connections:
                connection.event(encoded)

    def send_beat(self, beat: Beat) -> None:
        """Queue the status for every client."""
        for connection in self._connections:
            connection.latest(beat)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone; it is removed below
        except asyncio.CancelledError:
            if not self._closing:
                raise  # asyncio would log a cancelled connection as an error of ours
        finally:
            self._tasks.discard(task)
            writer.close()
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    await writer.wait_closed()
            except TimeoutError:
                writer.transport.abort()  # a client that does not read would hold the engine's end for ever
            except ConnectionError:
                pass

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not is_own(writer.get_extra_info("socket")):
            await _complain(writer, Complaint(code="foreign", text="this engine belongs to another user", fatal=True))
            return
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                hello = decode_hello(await _line(reader))
        except (MalformedFrame, TimeoutError) as error:
            await _complain(writer, Complaint(code="handshake", text=str(error) or "no hello came", fatal=True))
            return
        connection = Connection(hello, writer)
        writer.write(encode(self._backend.welcome()))
        if hello.protocol != PROTOCOL:
            await _complain(writer, _mismatch(hello))
            await self._pumped(connection, reader, limited=True)
            return
        writer.write(encode(self._backend.snapshot()))
        self._connections.add(connection)  # no await since the snapshot: nothing is missed
        self._backend.clients_changed()
        try:
            await self._pumped(connection, reader, limited=False)
        finally:
            self._connections.discard(connection)
            self._backend.clients_changed()

    async def _pumped(self, connection: Connection, reader: asyncio.StreamReader, *, limited: bool) -> None:
        """Read commands while a task of its own sends; either side ending ends both."""
        pump = asyncio.create_task(connection.pump(self._backend.snapshot))
        listen = asyncio.create_task(self._listen(connection, reader, limited=limited))
        self._served.add(connection)
        try:
            done, _ = await asyncio.wait({pump, listen}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._served.discard(connection)
            connection.gone()
            for task in (pump, listen):
                task.cancel()
            await asyncio.gather(pump, listen, return_exceptions=True)

    async def _listen(self, connection: Connection, reader: asyncio.StreamReader, *, limited: bool) -> None:
        while True:
            await connection.room()
            try:
                line = await _line(reader)
            except MalformedFrame as error:
                await _complain(connection._writer, Complaint(code="too_large", text=str(error), fatal=True))
                return
            if not line:
                return
            try:
                command = decode_command(line)
            except BadCommand as error:
                connection.answer(Answer(id=error.id, status="rejected", text=str(error)))
                continue
            except MalformedFrame as error:
                await _complain(connection._writer, Complaint(code="malformed", text=str(error)))
                continue
            await self._dispatch(connection, command, limited=limited)

    async def _dispatch(self, connection: Connection, command: Command, *, limited: bool) -> None:
        if limited and not isinstance(command, QueryStatus | Stop):
            text = f"{_mismatch(connection.hello).text}; only status and stop are served"
            connection.answer(Answer(id=command.id, status="rejected", text=text))
        elif connection.hello.read_only and not is_query(command):
            connection.answer(Answer(id=command.id, status="rejected", text="attached read-only: it can only watch"))
        elif isinstance(command, Subscribe):
            connection.growing = command.growing
            connection.answer(Answer(id=command.id, status="applied"))
        else:
            await self._backend.command(command, connection.answer)


def is_query(command: Command) -> bool:
    """Whether a command changes nothing."""
    return isinstance(command, QUERIES)


def _mismatch(hello: Hello) -> Complaint:
    older = "older" if hello.protocol < PROTOCOL else "newer"
    text = (
        f"this client speaks version {hello.protocol} of the protocol, {older} than the engine's {PROTOCOL}; "
        "use the workbench that started the session, or stop it and run it again"
    )
    return Complaint(code="version", text=text)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError:
        raise MalformedFrame(f"a line over the limit of {LINE_LIMIT} bytes") from None


async def _complain(writer: asyncio.StreamWriter, complaint: Complaint) -> None:
    writer.write(encode(complaint))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await writer.drain()
