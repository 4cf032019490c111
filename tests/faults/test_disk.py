"""A full disk while a step, a rating and a checkpoint are written: the run pauses, people are told, and it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from sessions import wire
from sessions.client import Client, attached
from sessions.commands import QueryGroups
from sessions.folders import SessionFolder
from sessions.records import GroupHead
from tests.faults.count import Count
from tests.faults.harness import (
    Rater,
    answering,
    do,
    ratings_kept,
    recovered,
    rows,
    small_session,
    status,
)
from tests.faults.nursery import Nursery

pytestmark = pytest.mark.timeout(300)


class Disk(Protocol):
    """Something that can be full."""

    def fill(self, pid: int, folder: SessionFolder) -> None: ...

    def free(self, pid: int, folder: SessionFolder) -> None: ...


class SmallDisk:
    """A file system in memory, filled with a file of zeros."""

    def __init__(self, path: Path) -> None:
        self._ballast = path / "ballast"

    def fill(self, pid: int, folder: SessionFolder) -> None:
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free(self, pid: int, folder: SessionFolder) -> None:
        self._ballast.unlink()


class SmallFiles:
    """No file of the engine may grow beyond what its files have."""

    def fill(self, pid: int, folder: SessionFolder) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    def free(self, pid: int, folder: SessionFolder) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.fixture(params=["tmpfs", "file size"])
def disk(request: pytest.FixtureRequest, home: Path) -> Iterator[Disk]:
    """The disk that the home of this test lies on."""
    if request.param == "file size":
        if not hasattr(resource, "prlimit"):
            pytest.skip("another process's limits cannot be set here")
        yield SmallFiles()
        return
    home.mkdir(parents=True, exist_ok=True)
    mounting = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(home)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield SmallDisk(home)
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)


async def heads(client: Client) -> list[GroupHead]:
    return await client.query(QueryGroups(limit=6), list[GroupHead])


async def snapshot(path: str) -> wire.Snapshot:
    """What whoever attaches now sees."""
    async with Client(path, "test") as client:
        async for message in client.messages():
            if isinstance(message, wire.Snapshot):
                return message
    raise AssertionError("no snapshot came")


async def paused_by_an_error(client: Client) -> None:
    """Wait until the run has paused, and says why."""
    async with asyncio.timeout(120):
        while (now := await status(client)).state != "PAUSED" or "an error" not in now.note:
            await asyncio.sleep(0.02)


async def test_a_full_disk_loses_nothing_that_was_acknowledged(disk: Disk, count: Count, nursery: Nursery) -> None:
    kind = f"a full disk ({'tmpfs' if isinstance(disk, SmallDisk) else 'file size'})"
    folder, rater = small_session(paused=True, sets=["checkpoint_steps=0"]), Rater(3)
    process = nursery.engine(folder.path)
    path = await answering(folder, alive=process.is_alive)
    pid = process.pid
    assert pid is not None
    async with attached(path, "test") as client:
        await do(client, "step")
        await rater.rate(client, 3)

        disk.fill(pid, folder)
        count.injected[f"{kind} during a rating"] += 1
        refused = 0
        while not refused:  # there may be room left in the log
            asked = rater.one_of(await heads(client))
            answer = await rater.send(client, asked)
            refused += answer.status == "rejected"
        assert "disk" in answer.text  # full, or an error of it

        count.injected[f"{kind} during a checkpoint"] += 1
        answer = await do(client, "checkpoint")
        assert (answer.status, "could not be written" in answer.text) == ("rejected", True)

        count.injected[f"{kind} during a step"] += 1
        await do(client, "resume")
        await paused_by_an_error(client)
        assert (await status(client)).finished_steps <= 2
        told = [alarm for alarm in (await snapshot(path)).alarms if alarm.rule == "disk"]
        assert told, "nobody was told"
        assert "could not be written" in told[0].message
        assert "free some disk" in told[0].remedy
        ratings_kept(folder, rater.given, count)

        disk.free(pid, folder)
        await do(client, "step")  # finishes what could not be written
        await rater.rate(client, 3)
        answer = await do(client, "checkpoint")
        assert answer.status == "applied", answer
        await do(client, "step")
        assert (await status(client)).finished_steps >= 2
        await do(client, "stop")
    process.join(60)
    assert process.exitcode == 0, folder.log_tail(30)
    assert rows(folder, "SELECT count(*) FROM steps WHERE branch='main' AND step > 0")[0][0] >= 2
    count.acknowledged += len(rater.given)
    recovered(folder, count, f"{kind} during a step", rater.given, nursery=nursery)
    count.recovered[f"{kind} during a rating"] += 1
    count.recovered[f"{kind} during a checkpoint"] += 1
