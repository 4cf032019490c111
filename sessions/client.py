"""Attaching to an engine: a stream of messages in, commands with awaited answers out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from sessions.commands import Command
from sessions.errors import EngineUnreachable, MalformedFrame, Refused, VersionMismatch
from sessions.limits import ANSWER
from sessions.peer import is_own
from sessions.wire import (
    LINE_LIMIT,
    PROTOCOL,
    Answer,
    Complaint,
    Hello,
    ToClient,
    Welcome,
    decode_to_client,
    encode,
)

_T = TypeVar("_T")
WELCOME_SECONDS = 10.0


@dataclass
class _Waiting:
    """A command whose answers are still coming."""

    first: asyncio.Future[Answer]
    final: asyncio.Future[Answer]
    pages: list[str] = field(default_factory=list)
    characters: int = 0


class Client:
    """A connection to one engine.

    Use it as a context manager and iterate over :meth:`messages`, from one task; :meth:`send` may be awaited from
    others meanwhile.

    :param path: of the engine's socket.
    :param name: what this client is: ``screen``, ``send``, ...
    :param who: whose it is; every command that is sent carries that name. Empty: commands say so themselves.
    :raises EngineUnreachable: on entering, if nobody answers there, or somebody else than this user.
    """

    def __init__(
        self,
        path: str,
        name: str,
        *,
        who: str = "",
        rate: float = 4.0,
        read_only: bool = False,
        protocol: int = PROTOCOL,
    ) -> None:
        self.path = path
        self._hello = Hello(
            protocol=protocol, client=name, rate=rate, read_only=read_only, terminal=_terminal(), who=who
        )
        self._waiting: dict[str, _Waiting] = {}
        self._closed = ""
        self.welcome: Welcome | None = None

    @property
    def title(self) -> str:
        """As the engine shows this client to others."""
        return self._hello.title

    async def __aenter__(self) -> Client:
        try:
            if stat.S_ISLNK(os.lstat(self.path).st_mode):
                raise EngineUnreachable(f"{self.path}: is a link and not an engine's socket; remove it")
            self._reader, self._writer = await asyncio.open_unix_connection(self.path, limit=LINE_LIMIT)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise EngineUnreachable(f"no engine answers on {self.path} ({why})") from None
        try:
            if not is_own(self._writer.get_extra_info("socket")):
                raise EngineUnreachable(f"{self.path}: another user listens there; nothing was told or believed")
            self.welcome = await self._greet()
        except BaseException:
            self._writer.close()
            raise
        return self

    async def _greet(self) -> Welcome:
        try:
            self._writer.write(encode(self._hello))
            async with asyncio.timeout(WELCOME_SECONDS):
                first = await self._receive()
        except TimeoutError:
            why = f"no welcome within {WELCOME_SECONDS:g} s"
        except (OSError, EngineUnreachable) as error:
            why = str(error)
        else:
            if isinstance(first, Complaint):
                raise EngineUnreachable(first.text)
            if not isinstance(first, Welcome):
                raise EngineUnreachable(f"{self.path}: something else than an engine answers there")
            return first
        raise EngineUnreachable(f"no engine answers on {self.path} ({why})")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandon("the connection was closed")
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def messages(self) -> AsyncIterator[ToClient]:
        """Everything the engine sends, answers included, until it closes the connection.

        :raises EngineUnreachable: when it does.
        :raises VersionMismatch: if it speaks another version; ``status`` and ``stop`` still work.
        """
        while True:
            try:
                message = await self._receive()
            except (OSError, EngineUnreachable) as error:
                self._abandon("the engine closed the connection")
                raise EngineUnreachable(f"the engine closed the connection ({error})") from None
            except MalformedFrame as error:
                self._abandon(str(error))
                raise
            if isinstance(message, Answer):
                try:
                    self._settle(message)
                except MalformedFrame as error:
                    self._abandon(str(error))
                    raise
            yield message
            if isinstance(message, Complaint) and message.code == "version":
                raise VersionMismatch(message.text)

    async def _receive(self) -> ToClient:
        try:
            line = await self._reader.readline()
        except ValueError:
            raise MalformedFrame(f"the engine sent a line over {LINE_LIMIT} bytes") from None
        if not line.endswith(b"\n"):
            raise EngineUnreachable("end of stream")
        return decode_to_client(line)

    def _settle(self, answer: Answer) -> None:
        waiting = self._waiting.get(answer.id)
        if waiting is None:
            return
        if answer.pages > 1:
            waiting.characters += len(answer.data)
            if answer.page != len(waiting.pages) or waiting.characters > ANSWER:
                raise MalformedFrame(f"the engine sent an answer in pages out of order, or of over {ANSWER} characters")
            waiting.pages.append(answer.data)
            if answer.page + 1 < answer.pages:
                return
            answer = msgspec.structs.replace(answer, data="".join(waiting.pages), page=0, pages=1)
        if not waiting.first.done():
            waiting.first.set_result(answer)
        if answer.status != "accepted":
            del self._waiting[answer.id]
            if not waiting.final.done():
                waiting.final.set_result(answer)

    def _abandon(self, why: str) -> None:
        self._closed = why
        waiting, self._waiting = self._waiting, {}
        for entry in waiting.values():
            for future in (entry.first, entry.final):
                if not future.done():
                    future.set_exception(EngineUnreachable(why))
                    future.exception()  # marked as seen: whoever awaits it still gets it

    def _post(self, command: Command) -> _Waiting:
        if self._closed:
            raise EngineUnreachable(self._closed)
        if self._hello.who:
            command = msgspec.structs.replace(command, who=self._hello.who)
        loop = asyncio.get_running_loop()
        waiting = self._waiting[command.id] = _Waiting(loop.create_future(), loop.create_future())
        self._writer.write(encode(command))
        return waiting

    async def send(self, command: Command) -> Answer:
        """Send a command and return its first answer: accepted, applied, rejected or data.

        :raises EngineUnreachable: if the connection ends before the answer.
        """
        return await asyncio.shield(self._post(command).first)

    async def send_and_wait(self, command: Command) -> Answer:
        """Send a command and return its last answer: applied, rejected or data."""
        return await asyncio.shield(self._post(command).final)

    async def answers(self, command: Command) -> AsyncIterator[Answer]:
        """Send a command and give its answers as they come: the final one, or accepted and then the final one."""
        waiting = self._post(command)
        first = await asyncio.shield(waiting.first)
        yield first
        if first.status == "accepted":
            yield await asyncio.shield(waiting.final)

    async def query(self, command: Command, kind: type[_T]) -> _T:
        """The data of a query, decoded.

        :raises Refused: if the engine rejected it.
        :raises MalformedFrame: if what it sent is something else.
        """
        answer = await self.send_and_wait(command)
        if answer.status == "rejected":
            raise Refused(answer.text)
        try:
            return msgspec.json.decode(answer.data, type=kind)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise MalformedFrame(f"the engine's answer cannot be read: {error}") from None

    async def query_json(self, command: Command) -> Any:
        """The data of a query as plain objects."""
        return await self.query(command, object)


@contextlib.asynccontextmanager
async def attached(path: str, name: str, **options: Any) -> AsyncIterator[Client]:
    """A client whose messages are read and dropped in the background: for scripts that only send."""
    async with Client(path, name, **options) as client:

        async def drain() -> None:
            with contextlib.suppress(EngineUnreachable, VersionMismatch):
                async for _ in client.messages():
                    pass
                return
            if client.welcome is not None and client.welcome.protocol != client._hello.protocol:
                with contextlib.suppress(EngineUnreachable):
                    async for _ in client.messages():
                        pass

        task = asyncio.create_task(drain())
        try:
            yield client
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _terminal() -> str:
    try:
        return os.ttyname(sys.stdin.fileno()).removeprefix("/dev/")
    except (OSError, ValueError):
        return ""
