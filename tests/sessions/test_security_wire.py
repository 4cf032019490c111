"""What may come over the socket, on both sides of it: who, how deep, how long, how large."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from sessions import client as client_module
from sessions import limits, peer, wire
from sessions.client import Client, attached
from sessions.commands import COMMANDS, QueryResponse, QueryStatus
from sessions.errors import EngineUnreachable, MalformedFrame
from sessions.folders import socket_folder
from sessions.wire import BadCommand, decode_command, decode_hello, decode_to_client
from tests.sessions.fake_engine import serving, until
from tests.sessions.test_server import Raw

DEEP = 100_000


def line(**fields: object) -> bytes:
    return json.dumps({"id": "1", "who": "ann", **fields}).encode()


def rate(**fields: object) -> bytes:
    return line(command="rate", **{"group": "1.1", "mode": "likert", "values": {"A": 4}, **fields})


# ------------------------------------------------------------------------------------------------- the peer


class Mac:
    """A socket as macOS has it: one option, whose answer is ``struct xucred``."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (0, 1, 76)  # SOL_LOCAL, LOCAL_PEERCRED, sizeof(struct xucred)
        return self.answer


def test_the_peer_of_a_socket_is_known() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer.peer_uid(one) == os.getuid()
        assert peer.is_own(one)


@pytest.mark.parametrize("uid", [0, 501, 2**32 - 2])
def test_only_this_user_is_ours_not_even_root(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(peer, "peer_uid", lambda _: uid)
    monkeypatch.setattr(os, "getuid", lambda: 501)
    assert peer.is_own(Mac(b"")) == (uid == 501)


def test_who_cannot_be_told_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> int:
        raise OSError("no")

    monkeypatch.setattr(peer, "peer_uid", fails)
    assert not peer.is_own(Mac(b""))


def test_macos_names_the_peer_in_a_struct_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    groups = struct.pack("=h2x16I", 2, 20, 12, *[0] * 14)
    assert peer.peer_uid(Mac(struct.pack("=II", 0, 501) + groups)) == 501
    assert peer.peer_uid(Mac(struct.pack("=II", 0, 2**31 + 5) + groups)) == 2**31 + 5
    for wrong in (struct.pack("=II", 1, 501) + groups, b"", b"\0\0\0\0"):
        with pytest.raises(OSError, match="the system named the socket's peer"):
            peer.peer_uid(Mac(wrong))
        assert not peer.is_own(Mac(wrong))


def test_another_system_leaves_it_to_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    monkeypatch.setattr(sys, "platform", "sunos")
    assert peer.peer_uid(Mac(b"")) is None
    assert peer.is_own(Mac(b""))


async def test_a_client_tells_and_believes_nothing_where_another_user_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that somebody else has put there: not even the hello reaches it."""
    heard = []

    async def squat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.read()
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        heard.append(said)

    path = str(socket_folder() / "s")
    listener = await asyncio.start_unix_server(squat, path)
    monkeypatch.setattr(client_module, "is_own", lambda _: False)
    with pytest.raises(EngineUnreachable, match="another user listens there; nothing was told or believed"):
        async with Client(path, "x"):
            pass
    await until(lambda: heard)
    assert heard == [b""]
    listener.close()


async def test_a_client_follows_no_link(tmp_path: Path) -> None:
    async with serving() as (_, server):
        link = socket_folder() / "link"
        link.symlink_to(server.path)
        with pytest.raises(EngineUnreachable, match="is a link and not an engine's socket"):
            async with Client(str(link), "x"):
                pass


@pytest.mark.parametrize("path", ["", "\0abstract", "/tmp/a\0b", "/tmp/" + "x" * 200, "relative/nowhere"])
async def test_a_client_takes_any_path_for_what_it_is(path: str) -> None:
    with pytest.raises(EngineUnreachable, match="no engine answers on"):
        async with Client(path, "x"):
            pass


# ------------------------------------------------------------------------------------------------ depth, length


@pytest.mark.parametrize("depth", [limits.DEPTH, 400, DEEP])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_is_bounded(depth: int, opening: str) -> None:
    """In a field that nobody reads too: it has to be skipped, which is work on the stack."""
    closing = "]" if opening == "[" else "}"
    nested = opening * depth + "1" + closing * depth
    for text in (f'{{"command":"pause","id":"1","other":{nested}}}', f'{{"command":"set","id":"1","values":{nested}}}'):
        with pytest.raises(MalformedFrame) as caught:
            decode_command(text.encode())
        assert len(str(caught.value)) < 300
        with pytest.raises(MalformedFrame):
            decode_command(text[: len(text) // 2].encode())
    with pytest.raises(MalformedFrame, match="expected hello: nested deeper than 16"):
        decode_hello(f'{{"type":"hello","protocol":1,"client":"x","other":{nested}}}'.encode())
    with pytest.raises(MalformedFrame, match="the engine sent a line that is not a message"):
        decode_to_client(f'{{"type":"answer","id":"1","status":"data","step":{nested}}}'.encode())


def test_an_engine_that_nests_is_a_malformed_frame_in_a_field_that_nobody_reads() -> None:
    nested = "[" * DEEP + "]" * DEEP
    with pytest.raises(MalformedFrame, match="the engine sent a line that is not a message"):
        decode_to_client(f'{{"type":"answer","id":"1","status":"data","other":{nested}}}'.encode())


@pytest.mark.parametrize(
    "comment", ["[" * 100, "{" * 100, '"' + "[" * 100, "\\" + "[{" * 50, '\\"' + "[" * 100, "\n[" * 50]
)
def test_brackets_in_a_text_are_no_depth(comment: str) -> None:
    assert decode_command(rate(comment=comment)).comment == comment


def test_many_shallow_lists_are_no_depth() -> None:
    assert decode_command(line(command="pause", other=[[1], [2]] * 100)) == COMMANDS["pause"](id="1", who="ann")


def test_a_quote_cannot_hide_depth() -> None:
    """The depth is counted as JSON is read: what stands after a text's end counts again."""
    nested = "[" * 20 + "]" * 20
    text = f'{{"command":"pause","id":"1","a":"\\\\","b":{nested}}}'
    json.loads(text)
    with pytest.raises(BadCommand, match="pause: nested deeper than 16 lists and objects"):
        decode_command(text.encode())


def test_a_line_is_bounded_and_answered() -> None:
    with pytest.raises(BadCommand, match=r"rate: 1,048,7.. bytes are more than a command's 1,048,576") as caught:
        decode_command(rate(comment="x" * (limits.COMMAND + 100)))
    assert caught.value.id == "1"
    with pytest.raises(MalformedFrame, match="more than a command's"):
        decode_hello(json.dumps({"type": "hello", "protocol": 1, "client": "x" * limits.COMMAND}).encode())


# ------------------------------------------------------------------------------------------------------ fields


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (rate(comment="x" * 4001), "rate: comment: 4,001 characters; at most 4,000 are taken"),
        (rate(group="x" * 201), "rate: group: 201 characters; at most 200"),
        (rate(mode="x" * 201), "rate: mode: 201 characters"),
        (rate(who="x" * 201), "rate: who: 201 characters"),
        (rate(values={"x" * 201: 1.0}), "rate: a name in values: 201 characters"),
        (rate(values={f"A{i}": 1.0 for i in range(1001)}), "rate: values: 1,001 values; at most 1,000"),
        (rate(order=["A"] * 1001), "rate: order: 1,001 values"),
        (rate(order=["x" * 201]), "rate: order: 201 characters"),
        (line(command="skip", response="1.1A", reason="x" * 1001), "skip: reason: 1,001 characters; at most 1,000"),
        (line(command="watch", rule="x" * 501), "watch: rule: 501 characters; at most 500"),
        (line(command="unwatch", name="x" * 201), "unwatch: name: 201 characters"),
        (line(command="set", values={"x": "y" * 1001}), "set: values: 1,001 characters; at most 1,000"),
        (line(command="set", expect={"x": "y" * 1001}), "set: expect: 1,001 characters"),
        (line(command="set", values={f"x{i}": i for i in range(1001)}), "set: values: 1,001 values"),
        (line(command="set", values={"x": 10**30}), "set: values: a number of more than 20 digits is out of bounds"),
        (line(command="set", values={"x": -(10**19)}), "set: values: -10000000000000000000 is out of bounds"),
        (line(command="series", names=["x"] * 1001), "series: names: 1,001 values"),
        (line(command="series", names=["x" * 201]), "series: names: 201 characters"),
        (line(command="events", before=2**63), "events: before: 9223372036854775808 is out of bounds; allowed: -1"),
        (line(command="groups", limit=-2), "groups: limit: -2 is out of bounds"),
        (line(command="subscribe", growing=10**40), "subscribe: growing: a number of more than 20 digits"),
    ],
)
def test_every_field_is_bounded_by_name(text: bytes, field: str) -> None:
    with pytest.raises(BadCommand) as caught:
        decode_command(text)
    assert str(caught.value).startswith(field)
    assert caught.value.id == "1"


def test_what_is_just_within_is_taken() -> None:
    decode_command(rate(comment="ä" * 4000, group="x" * 200, order=["x" * 200] * 1000))
    decode_command(line(command="set", values={f"{i:0200}": "y" * 1000 for i in range(100)}))
    decode_command(line(command="set", values={"x": -(2**63), "y": 2**63 - 1}))
    decode_command(line(command="events", before=2**63 - 1))


def test_every_command_has_only_fields_that_are_bounded() -> None:
    """A new kind of field is refused as long as nobody has said how large it may be."""

    class New(msgspec.Struct):
        payload: object

    for payload in (b"x", (1, 2), {1, 2}, New(1)):
        with pytest.raises(limits.InvalidValue, match=r"payload: .* is not taken here"):
            limits.check_fields(New(payload))
    for payload in (None, True, 1, 1.5, "x", ["x"], {"x": 1}):
        limits.check_fields(New(payload))
    for payload in (float("nan"), float("inf")):
        with pytest.raises(limits.InvalidValue, match=r"payload: (nan|inf) is not a number that can be taken"):
            limits.check_fields(New(payload))


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "9" * 6000, "1" + "0" * 400 + ".5"]
)
@pytest.mark.parametrize("command", ['"rate","group":"1.1","mode":"likert","values":{"A":%s}', '"events","before":%s'])
def test_no_number_is_too_strange(number: str, command: str) -> None:
    with pytest.raises(MalformedFrame) as caught:
        decode_command(('{"id":"1","command":' + command % number + "}").encode())
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("field", ["id", "command"])
def test_what_an_answer_would_repeat_is_short(field: str) -> None:
    """The id and the name of a command stand in its answer."""
    text = {"id": "1", "command": "pause", field: "x" * 201}
    with pytest.raises(MalformedFrame, match="its name or its id has more than 200 characters"):
        decode_command(json.dumps(text).encode())


@pytest.mark.parametrize("text", [b'{"command":"pause","id":"1","who":"\xff"}', b'{"command":"\xff","id":"1"}'])
def test_text_that_is_not_utf8_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode_command(text)
    for decode in (decode_hello, decode_to_client):
        with pytest.raises(MalformedFrame):
            decode(b'{"type":"hello","protocol":1,"client":"\xff"}')


def test_a_hello_is_fit_to_be_shown() -> None:
    text = json.dumps({"type": "hello", "protocol": 1, "client": "a\x1b[2J\u202eb\n" + "x" * 99, "terminal": "\x9b3"})
    hello = decode_hello(text.encode())
    assert hello.client == "a\\x1b[2J\\u202eb\\n" + "x" * 54 + ".."
    assert hello.terminal == "\\x9b3"
    assert decode_hello(b'{"type":"hello","protocol":1,"client":"screen"}').client == "screen"


@pytest.mark.parametrize("protocol", ["-1", "9" * 30, "9" * 6000, "1.5", "null"])
def test_a_version_is_a_number(protocol: str) -> None:
    with pytest.raises(MalformedFrame, match="expected hello") as caught:
        decode_hello(f'{{"type":"hello","protocol":{protocol},"client":"x"}}'.encode())
    assert len(str(caught.value)) < 200


async def test_hostile_lines_hurt_nobody_else() -> None:
    """All of them on one connection, which goes on; another one does not notice."""
    async with serving() as (backend, server), attached(server.path, "other") as other:
        raw = await Raw(server.path).open()
        nested = b"[" * DEEP + b"]" * DEEP
        for hostile in (
            b'{"command":"pause","id":"1","x":' + nested + b"}\n",
            nested + b"\n",
            b'{"command":"pause","id":"1","who":"\xff"}\n',
            b'{"command":"events","id":"1","before":' + b"9" * 9000 + b"}\n",
            rate(comment="x" * 5000) + b"\n",
            b"\0" * 1000 + b"\n",
        ):
            await raw.send(hostile)
            message = await raw.line()
            while message is not None and message["type"] not in ("complaint", "answer"):
                message = await raw.line()
            assert message is not None
            assert not message.get("fatal")
        await raw.send({"command": "status", "id": "2"})
        assert (await raw.until_type("answer"))["id"] == "2"
        raw.close()
        assert (await other.send_and_wait(QueryStatus())).status == "data"
        assert all(isinstance(command, QueryStatus) for command in backend.commands)


# ----------------------------------------------------------------------------------------- what an engine sends


@contextlib.asynccontextmanager
async def lying(*lines: bytes) -> AsyncIterator[Client]:
    """A client of an engine that welcomes it and answers the first command with these lines."""

    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(wire.encode(wire.Welcome(protocol=1, version="", session="s", database="", seq=0, pid=1)))
        command = json.loads(await reader.readline())
        for text in lines:
            writer.write(text.replace(b"ID", command["id"].encode()) + b"\n")
        await writer.drain()
        await reader.read()
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        served.set()

    path = str(socket_folder() / "s")
    listener = await asyncio.start_unix_server(serve, path)
    try:
        async with Client(path, "x") as client:
            yield client
        await served.wait()
    finally:
        listener.close()


async def read(client: Client) -> None:
    async for _ in client.messages():
        pass


def page(number: int, pages: int, data: str = "x") -> bytes:
    return json.dumps(
        {"type": "answer", "id": "ID", "status": "data", "data": data, "page": number, "pages": pages}
    ).encode()


@pytest.mark.parametrize("order", [(0, 0, 1), (1, 0), (0, 2), (0, 1, 1), (2**40,)])
async def test_pages_out_of_order_are_no_answer(order: tuple[int, ...]) -> None:
    async with lying(*(page(number, 3) for number in order)) as client:
        reading = asyncio.create_task(read(client))
        with pytest.raises(EngineUnreachable, match="in pages out of order"):
            await client.send(QueryResponse(response="1.1A"))
        with pytest.raises(MalformedFrame, match="in pages out of order"):
            await reading


async def test_an_answer_is_bounded_in_all_its_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ANSWER", 1000)
    async with lying(*(page(number, 10**9, "x" * 300) for number in range(5))) as client:
        reading = asyncio.create_task(read(client))
        with pytest.raises(EngineUnreachable, match="or of over 1000 characters"):
            await client.send(QueryResponse(response="1.1A"))
        with pytest.raises(MalformedFrame):
            await reading


@pytest.mark.parametrize("data", ["[" * DEEP + "]" * DEEP, "not json", '{"a": 1}', "9" * 6000])
async def test_data_that_is_something_else_is_malformed(data: str) -> None:
    async with lying(page(0, 1, data)) as client:
        reading = asyncio.create_task(read(client))
        with pytest.raises(MalformedFrame, match="the engine's answer cannot be read"):
            await client.query(QueryResponse(response="1.1A"), list[str])
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
