"""The screen of a real engine: killed, hung up on, or in a terminal that stops reading."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Iterator

import pytest

from sessions.client import Client, attached
from sessions.folders import SessionFolder
from tests.faults.count import Count
from tests.faults.harness import Rater, answering, do, recovered, small_session, status, until
from tests.faults.nursery import Nursery
from tests.screens.test_terminal import Terminal

pytestmark = pytest.mark.timeout(600)


@contextlib.contextmanager
def screen(folder: SessionFolder) -> Iterator[Terminal]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a screen of a run under nohup would ignore it
    made = Terminal(folder.path)
    signal.signal(signal.SIGHUP, before)
    try:
        yield made
    finally:
        if not made.gone():
            os.killpg(made.process.pid, signal.SIGKILL)
        made.process.wait()
        if made.master >= 0:
            made.hang_up()


async def steps_made(client: Client, more: int = 2) -> int:
    """Wait for so many more finished steps."""
    before = (await status(client)).finished_steps
    async with asyncio.timeout(120):
        while (now := (await status(client)).finished_steps) < before + more:
            await asyncio.sleep(0.05)
    return int(now)


async def full(shown: Terminal) -> None:
    """Have it draw one screen after another, until its terminal takes no more."""
    async with asyncio.timeout(120):
        for key in itertools.cycle("es"):
            if shown.full():
                return
            shown.press(key)
            await asyncio.sleep(0.1)


async def screens(client: Client) -> list[str]:
    """Who is attached beside this client."""
    return [name for name in (await status(client)).clients if not name.startswith("test")]


@pytest.mark.parametrize("seconds", [2, pytest.param(30, marks=pytest.mark.faults)])
async def test_whatever_becomes_of_a_screen_the_training_goes_on(seconds: int, count: Count, nursery: Nursery) -> None:
    folder, rater = small_session(), Rater(2)
    process = nursery.engine(folder.path)
    path = await answering(folder, alive=process.is_alive)
    async with attached(path, "test") as client:
        for number in (signal.SIGKILL, signal.SIGHUP):
            with screen(folder) as shown:
                await shown.until_shown("reward", "q detach")
                os.kill(shown.process.pid, number)
                await until(shown.gone)
                await steps_made(client)
                await rater.rate(client)
                assert await screens(client) == []
            count.injected[f"{number.name} of the screen"] += 1

        with screen(folder) as shown:
            await shown.until_shown("reward", "q detach")
            shown.hang_up()
            await until(shown.gone)
            await steps_made(client)
            count.injected["the terminal hangs up"] += 1

        with screen(folder) as shown:
            await shown.until_shown("reward", "q detach")
            shown.read(False)
            count.injected["the terminal stops reading"] += 1
            await full(shown)
            before = (await status(client)).finished_steps
            for _ in range(seconds):
                await rater.rate(client)
                await asyncio.sleep(1)
            step = (await status(client)).finished_steps
            assert step > before
            step = await steps_made(client)
            await do(client, "pause")
            shown.read(True)  # it catches up, and can be left
            await shown.until_shown("PAUSED")
            shown.press("q")
            await until(shown.gone)
            assert shown.process.returncode == 0
        assert await screens(client) == []
        await do(client, "stop")
    process.join(60)
    assert process.exitcode == 0
    count.acknowledged += len(rater.given)
    recovered(folder, count, "the terminal stops reading", rater.given, nursery=nursery)
    for kind in ("SIGKILL of the screen", "SIGHUP of the screen", "the terminal hangs up"):
        count.recovered[kind] += 1
