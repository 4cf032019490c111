"""One engine's socket and its clients: order without gaps, bounds, and who may do what."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sessions import server as server_module
from sessions import wire
from sessions.client import Client, attached
from sessions.commands import Command, Pause, QueryResponse, QueryStatus, Rate, Set, Stop, Subscribe
from sessions.errors import EngineUnreachable, Refused, VersionMismatch
from sessions.limits import TEXTS
from sessions.records import Status
from sessions.server import Server
from tests.sessions.fake_engine import FakeBackend, serving, until
from tests.sessions.samples import status


@pytest.fixture
async def engine() -> AsyncIterator[tuple[FakeBackend, Server]]:
    async with serving() as pair:
        yield pair


class Reader:
    """A client whose messages are collected by a task."""

    def __init__(self, path: str, **options: Any) -> None:
        self.client = Client(path, "reader", **options)
        self.messages: list[wire.ToClient] = []
        self.error: Exception | None = None

    async def __aenter__(self) -> Reader:
        await self.client.__aenter__()
        self.task = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        try:
            async for message in self.client.messages():
                self.messages.append(message)
        except (EngineUnreachable, VersionMismatch) as error:
            self.error = error

    async def __aexit__(self, *error: Any) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.client.__aexit__(*error)

    def of(self, kind: type) -> list[Any]:
        return [m for m in self.messages if isinstance(m, kind)]

    @property
    def seqs(self) -> list[int]:
        """Sequence numbers of the events, in the order in which they came."""
        return [event.seq for delta in self.of(wire.Delta) for event in delta.events]


class Raw:
    """A client made by hand, which reads only when told to."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.setblocking(False)
        self.path = path
        self.buffer = b""

    async def open(self, **hello: Any) -> Raw:
        self.socket.connect(self.path)
        await self.send({"type": "hello", "protocol": 1, "client": "raw", **hello})
        return self

    async def send(self, message: object) -> None:
        line = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
        await asyncio.get_running_loop().sock_sendall(self.socket, line)

    async def line(self) -> dict[str, Any] | None:
        """The next message; None at the end of the stream."""
        while b"\n" not in self.buffer:
            piece = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 2**20), 60)
            if not piece:
                return None
            self.buffer += piece
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    async def until_type(self, kind: str) -> dict[str, Any]:
        while (message := await self.line()) is not None:
            if message["type"] == kind:
                return message
        raise AssertionError(f"the stream ended without a {kind}")

    def close(self) -> None:
        self.socket.close()


async def test_the_socket_is_ours_alone(engine: tuple[FakeBackend, Server]) -> None:
    _, server = engine
    mode = os.stat(server.path).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_a_dead_engines_socket_is_replaced(engine: tuple[FakeBackend, Server], tmp_path: Path) -> None:
    _, server = engine
    stale = socket.socket(socket.AF_UNIX)
    path = str(Path(server.path).with_name("stale"))
    stale.bind(path)
    stale.close()
    backend = FakeBackend()
    backend.server = Server(path, backend)
    await backend.server.start()
    async with Client(path, "x") as client:
        assert client.welcome is not None
    await backend.server.close()
    assert not os.path.exists(path)


async def test_snapshot_then_deltas_without_a_gap(engine: tuple[FakeBackend, Server]) -> None:
    """Events flow before, while and after the client attaches; it misses none and sees none twice."""
    backend, server = engine
    stop = asyncio.Event()

    async def emit() -> None:
        while not stop.is_set():
            backend.emit()
            await asyncio.sleep(0)

    emitting = asyncio.create_task(emit())
    await until(lambda: len(backend.events) > 50)
    for _ in range(5):
        async with Reader(server.path, rate=50.0) as reader:
            await until(lambda r=reader: len(r.seqs) > 20 or r.of(wire.Snapshot)[1:])
            seen: list[int] = []
            for message in reader.messages:
                if isinstance(message, wire.Snapshot):
                    seen = [message.seq]
                elif isinstance(message, wire.Delta):
                    for event in message.events:
                        assert event.seq == seen[-1] + 1
                        seen.append(event.seq)
            assert seen
    stop.set()
    await emitting


async def test_the_order_of_the_first_messages(engine: tuple[FakeBackend, Server]) -> None:
    backend, server = engine
    backend.emit("before")
    async with Reader(server.path) as reader:
        await until(lambda: reader.messages)
        assert reader.client.welcome is not None
        assert reader.client.welcome.seq == 1
        assert isinstance(reader.messages[0], wire.Snapshot)
        assert reader.messages[0].seq == 1
        backend.emit("after")
        await until(lambda: reader.seqs)
        assert reader.seqs == [2]


async def test_a_client_that_never_reads(engine: tuple[FakeBackend, Server]) -> None:
    """It is bounded, slows nobody, gets a fresh snapshot and, once it reads, every one of its answers."""
    backend, server = engine
    stalled = await Raw(server.path).open(rate=50.0)
    async with Reader(server.path, rate=50.0) as other:
        await until(lambda: len(server.connections) == 2)
        await until(lambda: other.of(wire.Snapshot))
        asked = 300
        for i in range(asked):
            await stalled.send({"command": "response", "id": str(i), "response": "1.1A"} if i < 4 else
                               {"command": "status", "id": str(i)})  # fmt: skip
        connection = next(c for c in server.connections if c.title == "raw")
        text = "y" * 2000
        for i in range(3000):
            backend.emit(text)
            assert len(connection._events) <= server_module.MAX_MESSAGES
            if i % 50 == 0:
                await asyncio.sleep(0)
            if i % 200 == 0:  # the other keeps up all the while
                last = backend.events[-1].seq
                await until(lambda last=last: other.seqs and other.seqs[-1] >= last)
        assert connection._behind
        assert len(connection._answers) <= server_module.MAX_ANSWERS + 4
        assert len(backend.commands) < asked  # it is not read from while it does not read
        last = backend.events[-1].seq
        await until(lambda: other.seqs[-1] == last)
        assert len(other.of(wire.Snapshot)) == 1
        assert other.seqs == list(range(1, last + 1))

        pages: dict[str, int] = {}
        snapshots: list[int] = []
        caught_up = 0
        while sum(pages.values()) < asked - 4 + 4 * 4 or caught_up < last:
            message = await stalled.line()
            assert message is not None
            if message["type"] == "answer":
                pages[message["id"]] = pages.get(message["id"], 0) + 1
            elif message["type"] == "snapshot":
                snapshots.append(message["seq"])
                caught_up = message["seq"]
            elif message["type"] == "delta":
                for event in message["events"]:
                    assert event["seq"] == caught_up + 1
                    caught_up = event["seq"]
        assert len(pages) == asked
        assert len(snapshots) >= 2
        assert connection.resyncs >= 1
    stalled.close()
    await until(lambda: not server.connections)


async def test_large_answers_that_nobody_reads_are_bounded_in_bytes(engine: tuple[FakeBackend, Server]) -> None:
    backend, server = engine
    answer = len(backend.large)
    stalled = await Raw(server.path).open()
    asked = 60
    for i in range(asked):
        await stalled.send({"command": "response", "id": str(i), "response": "1.1A"})
    async with Reader(server.path) as other:
        await until(lambda: len(backend.commands) >= 2)
        for _ in range(3):  # the engine has had time to serve all, if it would
            await asyncio.wait_for(other.client.query_json(QueryStatus()), 60)
        connection = next(c for c in server.connections if c.title == "raw")
        assert sum(map(len, connection._answers)) <= server_module.MAX_BYTES + 2 * answer
        assert len(backend.commands) < asked // 4
    pages = 0
    while pages < asked * 4:  # 3 MiB and two quotation marks
        message = await stalled.line()
        assert message is not None
        pages += message["type"] == "answer"
    stalled.close()


async def test_only_the_newest_status_and_growing_text_are_kept(engine: tuple[FakeBackend, Server]) -> None:
    backend, server = engine
    async with Reader(server.path, rate=2.0) as reader:
        await until(lambda: len(server.connections) == 1)
        connection = server.connections[0]
        for done in range(100):
            server.send_beat(wire.Beat(status=status(done=done)))
            connection.latest(wire.Growing(step=1, group=1, groups=1, prompt="", texts=[str(done)], ended=[False]))
        await until(lambda: reader.of(wire.Growing))
        assert [beat.status.done for beat in reader.of(wire.Beat)] == [99]
        assert [growing.texts for growing in reader.of(wire.Growing)] == [["99"]]
    assert backend.changes >= 1


async def test_an_event_is_encoded_once_and_only_for_somebody(
    engine: tuple[FakeBackend, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, server = engine
    encoded: list[int] = []

    def count(event: wire.AnyEvent) -> bytes:
        encoded.append(event.seq)
        return wire.encode_part(event)

    monkeypatch.setattr(server_module, "encode_part", count)
    backend.emit("nobody is there")
    assert encoded == []
    async with Reader(server.path) as one, Reader(server.path) as two:
        await until(lambda: len(server.connections) == 2)
        backend.emit("both get it")
        await until(lambda: one.seqs and two.seqs)
        assert one.seqs == two.seqs == encoded == [2]


async def test_what_joins_a_batch_that_waits_wakes_nobody(engine: tuple[FakeBackend, Server]) -> None:
    """A client at its slowest rate: its pump knows when the next batch is due, and has nothing to do before."""
    backend, server = engine
    async with Reader(server.path, rate=0.1) as reader:
        await until(lambda: len(server.connections) == 1)
        connection = server.connections[0]
        backend.emit("sent at once, or with the snapshot's beat")
        await until(lambda: reader.seqs)
        backend.emit("the first of the next batch")
        await until(lambda: not connection._wake.is_set())
        for _ in range(3):
            backend.emit("joins it")
            server.send_beat(wire.Beat(status=status()))
            assert not connection._wake.is_set()
        assert reader.seqs == [1]
        await server.close()  # does not wait for the rate
        await until(lambda: reader.seqs == [1, 2, 3, 4, 5])


async def test_what_a_command_did_is_told_before_its_answer(engine: tuple[FakeBackend, Server]) -> None:
    """Whoever reads ``applied`` can undo it: the events are there, however slow a rate the client asked for."""
    backend, server = engine
    async with Reader(server.path, rate=0.1) as reader:
        await until(lambda: reader.of(wire.Snapshot))
        backend.emit("sent at once")
        await until(lambda: reader.seqs == [1])  # the next batch would be due in 10 s
        backend.emit("done by the command")
        await reader.client.send_and_wait(Pause())
        assert reader.seqs == [1, 2]
        assert [type(m) for m in reader.messages[-2:]] == [wire.Delta, wire.Answer]
        backend.emit("waits: a question asks about nothing that was done")
        await reader.client.query(QueryStatus(), Status)
        assert reader.seqs == [1, 2]


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_ends_whatever_its_pump_does(engine: tuple[FakeBackend, Server], turns: int) -> None:
    """A cancellation counts also where it meets, turns of the loop later, what the pump was waiting for."""
    backend, server = engine
    async with Reader(server.path, rate=0.1) as reader:
        await until(lambda: reader.of(wire.Snapshot))
        backend.emit("sent at once")
        await until(lambda: reader.seqs == [1])
        backend.emit("waits for its batch, and the pump with it")
        connection = server.connections[0]
        await until(lambda: not connection._wake.is_set())
        (task,) = server._tasks
        connection.answer(wire.Answer(id="nobody", status="data"))
        for _ in range(turns):
            await asyncio.sleep(0)
        server._closing = True
        task.cancel()
        async with asyncio.timeout(60):
            await asyncio.wait({task})
        assert server.connections == []


async def test_two_clients_get_their_own_answers(engine: tuple[FakeBackend, Server]) -> None:
    backend, server = engine
    async with attached(server.path, "one") as one, attached(server.path, "two") as two:
        await until(lambda: len(server.connections) == 2)
        assert [c.title.split(" ")[0] for c in server.connections] == ["one", "two"]
        answers = await asyncio.gather(*(c.send_and_wait(Pause()) for c in (one, two, one, two)))
        assert {answer.status for answer in answers} == {"applied"}
        assert [answer.id for answer in answers] == [command.id for command in sorted_by(answers, backend)]
    await until(lambda: not server.connections)


def sorted_by(answers: list[wire.Answer], backend: FakeBackend) -> list[Command]:
    by_id = {command.id: command for command in backend.commands}
    return [by_id[answer.id] for answer in answers]


async def test_accepted_then_applied(engine: tuple[FakeBackend, Server]) -> None:
    backend, server = engine
    async with attached(server.path, "x") as client:
        waiting = asyncio.create_task(client.send_and_wait(Set(values={"temperature": 0.9})))
        await until(lambda: backend.pending)
        assert not waiting.done()
        command, reply = backend.pending.pop()
        reply(wire.Answer(id=command.id, status="applied", step=4))
        assert (await waiting).step == 4
        first = await client.send(Set(values={"temperature": 0.8}))
        assert first.status == "accepted"


async def test_queries_are_paged_and_put_together(engine: tuple[FakeBackend, Server]) -> None:
    backend, server = engine
    async with attached(server.path, "x") as client:
        assert await client.query(QueryResponse(response="1.1A"), str) == backend.large
        assert (await client.query(QueryStatus(), Status)).state == "RUN"
        with pytest.raises(Refused, match="not here"):
            await client.query_json(Rate(group="1.1", mode="likert", values={"A": 4}))


async def test_clients_are_shown_by_their_name_and_send_in_it(engine: tuple[FakeBackend, Server]) -> None:
    backend, server = engine
    async with (
        attached(server.path, "screen", who="ann") as ann,
        attached(server.path, "follow", who="bob", read_only=True),
        attached(server.path, "status"),
    ):
        await until(lambda: len(server.connections) == 3)
        titles = [re.sub(r" \(\S+\)", "", c.title) for c in server.connections]
        assert titles == ["ann", "bob follow read-only", "status"]
        assert ann.title == server.connections[0].title
        await ann.send_and_wait(Pause(who="somebody else"))
        assert backend.commands[-1].who == "ann"


@pytest.mark.parametrize("who", ["", "a\x1b[31m", "a\nb", "x" * 33, "--set"])
async def test_a_command_of_nobody_is_refused_by_name(engine: tuple[FakeBackend, Server], who: str) -> None:
    backend, server = engine
    async with attached(server.path, "x") as client:
        answer = await client.send_and_wait(Pause(who=who))
        assert answer.status == "rejected"
        assert answer.text.startswith("pause: ")
        assert "is not a name" in answer.text
        assert answer.text.isprintable()
    assert backend.commands == []


async def test_a_client_whose_name_is_none_is_turned_away(engine: tuple[FakeBackend, Server]) -> None:
    _, server = engine
    with pytest.raises(EngineUnreachable, match=r"who: .* is not a name"):
        async with attached(server.path, "screen", who="ann\x1b[2J"):
            pass
    assert server.connections == []


async def test_read_only_clients_can_only_watch(engine: tuple[FakeBackend, Server]) -> None:
    backend, server = engine
    async with attached(server.path, "x", read_only=True) as client:
        answer = await client.send_and_wait(Pause())
        assert (answer.status, answer.text) == ("rejected", "attached read-only: it can only watch")
        assert (await client.query(QueryStatus(), Status)).state == "RUN"
        assert (await client.send(Subscribe(growing=2))).status == "applied"
        await until(lambda: server.connections[0].growing == 2)
        assert server.connections[0].title.endswith("read-only")
    assert [type(command) for command in backend.commands] == [QueryStatus]


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n", b"{}\n", b'{"command":"pause","id":"1"}\n', b"\n"])
async def test_a_foreign_hello_is_turned_away(engine: tuple[FakeBackend, Server], first: bytes) -> None:
    backend, server = engine
    raw = Raw(server.path)
    raw.socket.connect(server.path)
    await raw.send(first)
    answer = await raw.line()
    assert answer is not None
    assert (answer["type"], answer["code"], answer["fatal"]) == ("complaint", "handshake", True)
    assert await raw.line() is None
    raw.close()
    assert backend.commands == []
    assert not server.connections


async def test_a_silent_client_is_turned_away(
    engine: tuple[FakeBackend, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, server = engine
    monkeypatch.setattr(server_module, "HANDSHAKE_SECONDS", 0.01)
    raw = Raw(server.path)
    raw.socket.connect(server.path)
    answer = await raw.line()
    assert answer is not None
    assert answer["text"] == "no hello came"
    raw.close()


async def test_another_users_client_is_turned_away(
    engine: tuple[FakeBackend, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, server = engine
    monkeypatch.setattr(server_module, "is_own", lambda _: False)
    with pytest.raises(EngineUnreachable, match="belongs to another user"):
        async with Client(server.path, "x"):
            pass


@pytest.mark.parametrize(("protocol", "words"), [(99, "newer"), (0, "older")])
async def test_another_version_can_still_ask_status_and_stop(
    engine: tuple[FakeBackend, Server], protocol: int, words: str
) -> None:
    backend, server = engine
    async with attached(server.path, "x", protocol=protocol) as client:
        assert (await client.query(QueryStatus(), Status)).state == "RUN"
        refused = await client.send_and_wait(Pause())
        assert refused.status == "rejected"
        assert f"{words} than the engine's 1" in refused.text
        assert "only status and stop are served" in refused.text
        assert (await client.send_and_wait(Stop())).status == "applied"
    assert [type(command) for command in backend.commands] == [QueryStatus, Stop]


async def test_another_version_is_told_so(engine: tuple[FakeBackend, Server]) -> None:
    _, server = engine
    async with Reader(server.path, protocol=99) as reader:
        await until(lambda: reader.error)
        assert isinstance(reader.error, VersionMismatch)
        assert "use the workbench that started the session" in str(reader.error)


async def test_malformed_lines_are_answered_and_the_connection_kept(engine: tuple[FakeBackend, Server]) -> None:
    _, server = engine
    raw = await Raw(server.path).open()
    for line in (b"not json\n", b"\xff\xfe\n", b"[1]\n", b"\n"):
        await raw.send(line)
        complaint = await raw.until_type("complaint")
        assert complaint["code"] == "malformed"
        assert not complaint.get("fatal")
    await raw.send({"command": "teleport", "id": "7"})
    answer = await raw.until_type("answer")
    assert (answer["id"], answer["status"]) == ("7", "rejected")
    assert "unknown command 'teleport'" in answer["text"]
    await raw.send({"command": "set", "id": "8", "values": 3})
    assert (await raw.until_type("answer"))["text"].startswith("set: ")
    await raw.send(b'{"command":"pau')
    await raw.send(b'se","id":"9"}\n{"command":"status","id":"10"}\n')
    assert (await raw.until_type("answer"))["id"] == "9"
    assert (await raw.until_type("answer"))["id"] == "10"
    raw.close()


async def test_a_line_over_the_limit_ends_only_its_own_connection(engine: tuple[FakeBackend, Server]) -> None:
    _, server = engine
    raw = await Raw(server.path).open()
    async with attached(server.path, "other") as other:
        sending = asyncio.create_task(raw.send(b"x" * (wire.LINE_LIMIT + 2**20)))
        complaint = await raw.until_type("complaint")
        assert (complaint["code"], complaint["fatal"]) == ("too_large", True)
        assert str(wire.LINE_LIMIT) in complaint["text"]
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        raw.close()
        assert (await other.send_and_wait(Pause())).status == "applied"
        await until(lambda: [c.title.split(" ")[0] for c in server.connections] == ["other"])


async def test_a_line_just_under_the_limit_is_answered_by_name(engine: tuple[FakeBackend, Server]) -> None:
    backend, server = engine
    async with attached(server.path, "x") as client:
        comment = "x" * (wire.LINE_LIMIT - 1000)
        answer = await client.send_and_wait(Rate(group="1.1", mode="likert", values={"A": 4}, comment=comment))
        assert answer.status == "rejected"
        assert "rate: 16," in answer.text
        assert "are more than a command's 1,048,576" in answer.text
        comment = "x" * TEXTS["comment"]
        await client.send_and_wait(Rate(group="1.1", mode="likert", values={"A": 4}, comment=comment))
    (command,) = backend.commands
    assert isinstance(command, Rate)
    assert command.comment == comment


async def test_closing_sends_what_is_queued(engine: tuple[FakeBackend, Server]) -> None:
    """The last events and the last status arrive, however slow a rate the client asked for."""
    backend, server = engine
    async with Reader(server.path, rate=0.1) as reader:
        await until(lambda: reader.of(wire.Snapshot))
        backend.emit("one")
        await until(lambda: reader.seqs == [1])  # the next batch would be due in 10 s
        backend.emit("last")
        server.send_beat(wire.Beat(status=status("DONE")))
        await server.close()
        await until(lambda: reader.error)
        assert reader.seqs == [1, 2]
        assert reader.of(wire.Beat)[-1].status.state == "DONE"
        assert not os.path.exists(server.path)


async def test_closing_says_nothing(engine: tuple[FakeBackend, Server], caplog: pytest.LogCaptureFixture) -> None:
    """The engine's log is for people; its last line may be taken for its cause of death."""
    _, server = engine
    silent = Raw(server.path)
    silent.socket.connect(server.path)
    async with attached(server.path, "one"), attached(server.path, "two", protocol=99):
        await until(lambda: len(server._tasks) == 3)
        await server.close()
        await asyncio.sleep(0)
    silent.close()
    assert caplog.records == []


async def test_closing_does_not_wait_for_a_client_that_never_reads(
    engine: tuple[FakeBackend, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, server = engine
    monkeypatch.setattr(server_module, "FLUSH_SECONDS", 0.1)
    raw = await Raw(server.path).open()
    for i in range(4):
        await raw.send({"command": "response", "id": str(i), "response": "1.1A"})
    await until(lambda: server.connections and server.connections[0]._answers)
    async with asyncio.timeout(60):
        await server.close()
    raw.close()


async def test_nobody_answers(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / ("x" * 200)):
        with pytest.raises(EngineUnreachable, match="no engine answers on"):
            async with Client(str(path), "x"):
                pass


async def test_something_else_answers(home: Path) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(wire.encode(wire.Beat(status=status())))
        await writer.drain()
        writer.close()

    path = str(home.parent / "other")
    other = await asyncio.start_unix_server(greet, path)
    with pytest.raises(EngineUnreachable, match="something else than an engine answers there"):
        async with Client(path, "x"):
            pass
    other.close()
    await other.wait_closed()


async def test_commands_end_with_the_connection(engine: tuple[FakeBackend, Server]) -> None:
    backend, server = engine
    async with attached(server.path, "x") as client:
        waiting = asyncio.create_task(client.send_and_wait(Set(values={"temperature": 0.9})))
        await until(lambda: backend.pending)
        await server.close()
        with pytest.raises(EngineUnreachable, match="closed the connection"):
            await waiting
        with pytest.raises(EngineUnreachable, match="closed the connection"):
            await client.send(Pause())
