"""Clients that flood, that never read, that send what is no command: the engine trains on and answers the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sessions import wire
from sessions.client import Client, attached
from sessions.commands import (
    Acknowledge,
    AddWatch,
    Command,
    Discard,
    Pause,
    QueryEvents,
    QueryGroup,
    QueryGroups,
    QueryPlan,
    QueryResponse,
    QuerySeries,
    QueryStatus,
    Rate,
    RemoveWatch,
    Resume,
    Retract,
    Set,
    Skip,
    Step,
    Stop,
    Subscribe,
)
from tests.faults.count import Count
from tests.faults.harness import Rater, answering, do, recovered, rows, small_session, status, until
from tests.faults.nursery import Nursery

pytestmark = pytest.mark.serial  # an engine and its memory under a flood, without others that hold it up
HELLO = wire.encode(wire.Hello(protocol=wire.PROTOCOL, client="broken", rate=50))


async def grows(client: Client) -> None:
    """Steps go on, and this client is answered."""
    before = (await status(client)).finished_steps
    async with asyncio.timeout(120):
        while (await status(client)).finished_steps < before + 2:
            await asyncio.sleep(0.02)


def memory_of(pid: int) -> int:
    """Bytes that a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no such process")


@pytest.mark.parametrize(
    ("asked", "deaf", "frames"), [(2_000, 5, 1_000), pytest.param(20_000, 40, 10_000, marks=pytest.mark.faults)]
)
@pytest.mark.timeout(900)
async def test_broken_clients_reach_nobody_else(
    asked: int, deaf: int, frames: int, count: Count, nursery: Nursery
) -> None:
    folder, rater = small_session(), Rater(1)
    process = nursery.engine(folder.path)
    path = await answering(folder, alive=process.is_alive)
    async with attached(path, "well-behaved") as client:
        await until(lambda: rows(folder, "SELECT count(*) FROM groups")[0][0])
        await grows(client)
        await rater.rate(client, 3)
        before = memory_of(process.pid)

        await flooded(path, asked, client)
        count.injected["a client that floods"] += 1
        await rater.rate(client, 3)

        with never_reading(path, deaf):
            count.injected["a client that never reads"] += deaf
            for _ in range(3):
                await grows(client)
                await rater.rate(client, 3)
        assert memory_of(process.pid) - before < 64e6 + deaf * (8 * 2**20)

        sent = await asyncio.to_thread(mutated, path, frames)
        assert len(sent) > frames // 2
        count.injected["a mutated frame"] += len(sent)
        await grows(client)
        await rater.rate(client, 3)
        assert (await status(client)).clients == ["well-behaved"]
        assert (await do(client, "stop")).status == "applied"
    process.join(60)
    assert process.exitcode == 0, folder.log_tail(30)
    nothing_applied_that_was_no_command(folder, sent, rater)
    count.acknowledged += len(rater.given)
    recovered(folder, count, "a client that floods", rater.given, nursery=nursery)
    count.recovered["a client that never reads"] += deaf
    count.recovered["a mutated frame"] += len(sent)


async def flooded(path: str, asked: int, other: Client) -> None:
    """Somebody asks and asks, and only reads once everything is asked: every answer is there, in order."""
    reader, writer = await asyncio.open_unix_connection(path, limit=wire.LINE_LIMIT)
    writer.write(HELLO)
    asking = [QueryStatus() if k % 3 else QueryEvents(limit=20) for k in range(asked)]
    writer.write(b"".join(map(wire.encode, asking)))
    await grows(other)
    answered = []
    async with asyncio.timeout(300):
        while len(answered) < asked:
            message = wire.decode_to_client(await reader.readline())
            if isinstance(message, wire.Answer):
                answered.append(message.id)
    assert answered == [command.id for command in asking]
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.contextmanager
def never_reading(path: str, many: int) -> Iterator[None]:
    """Clients that ask for more than their sockets hold and never read."""
    deaf = []
    for _ in range(many):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.sendall(HELLO)
        connection.setblocking(False)
        asking = b"".join(wire.encode(QueryEvents(limit=2000)) for _ in range(200))
        with contextlib.suppress(BlockingIOError):
            connection.send(asking)
        deaf.append(connection)
    try:
        yield
    finally:
        for connection in deaf:
            connection.close()


# ------------------------------------------------------------------------------------------------ mutated frames

VALID: list[Command] = [
    Rate(group="1.1", mode="likert", values={"A": 4.0}, comment="why", order=["B", "A"], blind=True, seconds=2.5),
    Rate(group="2.2", mode="thumbs", values={"B": -1.0}),
    Set(values={"learning_rate": 2e-4, "group_size": 4}, expect={"learning_rate": 1e-4}),
    Set(preset="dapo"),
    Retract(rating="0" * 36),
    Skip(response="1.1A", reason="unclear"),
    AddWatch(rule="kl/k3 > 0.2 for 3"),
    RemoveWatch(name="loop lag"),
    Acknowledge(),
    Subscribe(growing=0),
    QuerySeries(names=["reward/mean"], first=1, last=9),
    QueryGroups(limit=3),
    QueryGroup(group="1.1"),
    QueryResponse(response="1.1A"),
    QueryEvents(limit=5),
    QueryStatus(),
    QueryPlan(values={"group_size": 8}),
    Pause(),
    Resume(),
    Step(),
    Discard(),
    Stop(now=True),
]
STEERING = {"pause", "step", "discard", "stop", "resume", "checkpoint"}
"""What would end or hold the training: only sent where it is broken beyond reading."""
ODD: list[Any] = [None, True, -1, 2**64, 10**400, 1e308, -0.0, "", "\0", "a" * 5000, [], {}, [[]], {"a": {"b": 1}}]


@st.composite
def frame(draw: st.DrawFn) -> bytes:
    """A valid frame with some things done to it."""
    line = wire.encode(draw(st.sampled_from(VALID))).rstrip(b"\n")
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["flip", "cut", "nest", "repeat", "huge", "type", "random", "splice"]))
        at = draw(st.integers(0, max(len(line) - 1, 0)))
        match kind:
            case "flip" if line:
                line = line[:at] + bytes([draw(st.integers(0, 255))]) + line[at + 1 :]
            case "cut":
                line = line[at:] if draw(st.booleans()) else line[:at]
            case "nest":
                deep = draw(st.sampled_from([1, 50, 5000]))
                line = b"[" * deep + line + b"]" * deep if draw(st.booleans()) else b'{"a":' * deep + line + b"}" * deep
            case "repeat":
                line = line * draw(st.integers(2, 4))
            case "huge":
                digits = [i for i, c in enumerate(line) if 48 <= c <= 57]
                if digits:
                    i = draw(st.sampled_from(digits))
                    line = (
                        line[:i] + draw(st.sampled_from([b"1e999", b"9" * 400, b"-1", b"NaN", b"0.5"])) + line[i + 1 :]
                    )
            case "type":
                line = _retyped(draw, line)
            case "random":
                line = draw(st.binary(max_size=200))
            case "splice":
                other = wire.encode(draw(st.sampled_from(VALID))).rstrip(b"\n")
                line = line[:at] + other[draw(st.integers(0, len(other) - 1)) :]
    return line


def _retyped(draw: st.DrawFn, line: bytes) -> bytes:
    """One field with a value of another type."""
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if not isinstance(body, dict) or not body:
        return line
    body[draw(st.sampled_from(sorted(body)))] = draw(st.sampled_from(ODD))
    return json.dumps(body).encode()


def read_plainly(line: bytes) -> dict[str, Any] | None:
    """A frame as another reader of JSON has it, if it has a command at all.

    Bytes that are not UTF-8 are no matter in a field that nobody knows, which is skipped unread.
    """
    try:
        body = json.loads(line.decode(errors="replace"), strict=False)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) and isinstance(body.get("command"), str) else None


class Broken:
    """A connection that sends broken frames; what comes back is thrown away. It is made anew when it was closed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def send(self, line: bytes) -> None:
        for _ in range(2):
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.connect(self._path)
                self._socket.sendall(HELLO)
                threading.Thread(target=_drain, args=(self._socket,), daemon=True).start()
            try:
                self._socket.sendall(line + b"\n")
                return
            except OSError:
                self.close()

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._socket = None


def _drain(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(2**16):
            pass


def hostile() -> list[bytes]:
    """Frames that can be read and must not be obeyed."""
    ratings = [
        Rate(group="1.1", mode=mode, values={letter: value}, comment="hostile")
        for mode, letter, value in (
            ("likert", "A", 99.0), ("likert", "A", -1.0), ("likert", "A", 2.5), ("likert", "A", 1e308),
            ("likert", "ZZ", 3.0), ("likert", "", 3.0), ("thumbs", "A", 5.0), ("no mode", "A", 1.0),
        )
    ]  # fmt: skip
    sets: list[Command] = [
        Set(values={"group_size": -1}),
        Set(values={"learning_rate": "\x1b[2J"}),
        Set(values={"no_such_knob": 1}),
        Set(values={"learning_rate": 2e-4}, expect={"learning_rate": 12.0}),
    ]
    return [wire.encode(command).rstrip(b"\n") for command in (*ratings, *sets)]


def mutated(path: str, frames: int) -> list[bytes]:
    """Send so many broken frames; the lines that were sent."""
    sent: list[bytes] = []
    broken, hello = Broken(path), Broken(path)
    chance = random.Random(frames)

    @settings(
        max_examples=frames, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(frame())
    def send(line: bytes) -> None:
        lines = line.split(b"\n")
        if any((body := read_plainly(part)) and body["command"] in STEERING for part in lines):
            return
        sent.extend(lines)
        broken.send(line)
        if chance.random() < 0.01:  # in place of a hello, too
            other = socket.socket(socket.AF_UNIX)
            with contextlib.suppress(OSError):
                other.connect(path)
                other.sendall(line + b"\n")
            other.close()

    send()
    for line in hostile():
        sent.append(line)
        broken.send(line)
    broken.send(b"x" * (wire.LINE_LIMIT + 1))
    broken.close()
    hello.close()
    return sent


def nothing_applied_that_was_no_command(folder: Any, sent: list[bytes], rater: Rater) -> None:
    """The ratings in the database were asked for, in these words, by a frame that can be read; ids may be the engine's
    own, where a frame had none."""
    asked = [body for line in sent if (body := read_plainly(line)) and body["command"] == "rate"]
    said = [(body.get("group"), body.get("values")) for body in asked]
    others = 0
    for rating_id, step, number, body in rows(folder, "SELECT id, step, number, body FROM ratings"):
        if rating_id in rater.given:
            continue
        others += 1
        kept = json.loads(body)
        assert (f"{step}.{number}", kept["values"]) in said
        assert kept.get("comment") != "hostile"
        assert set(kept["values"].values()) <= ({1, 2, 3, 4, 5} if kept["mode"] == "likert" else {-1, 1})
    assert others, "no frame was still a rating: the comparison was of nothing"
