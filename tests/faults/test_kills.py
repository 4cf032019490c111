"""kill -9 of the engine: at any moment, between any two statements of its writer, between any two changes of a
checkpoint's files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sessions.client import attached
from sessions.commands import parse_words
from sessions.errors import EngineUnreachable, Refused
from sessions.folders import SessionFolder
from tests.faults.count import Count
from tests.faults.harness import (
    SECONDS,
    Rater,
    answering,
    checkpoints_whole,
    database_whole,
    do,
    ratings_kept,
    recovered,
    small_session,
    status,
    until,
)
from tests.faults.nursery import ROOT, Fault, Nursery
from workbench.daemon import start_engine


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=[pytest.mark.faults, pytest.mark.timeout(1800)])])
async def test_an_engine_that_is_killed_again_and_again_loses_no_rating(
    kills: int, count: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder, rater, chance = small_session(), Rater(kills), random.Random(kills)
    for number in range(kills):
        supervisor = start_engine(folder)
        engine = await until(folder.engine)
        rating = asyncio.create_task(rater.rate_on(folder))
        if number % 3 != 1:  # else at any moment of loading
            await answering(folder)
        await asyncio.sleep(chance.uniform(0, 2))
        count.injected["kill -9 of the engine"] += 1
        os.kill(engine.pid, signal.SIGKILL)
        await asyncio.wait_for(rating, SECONDS)
        await until(lambda supervisor=supervisor: supervisor.poll() is not None)
        assert folder.exit().cause == "killed by SIGKILL"  # what the list of sessions shows
        ratings_kept(folder, rater.given, count)
        database_whole(folder)
        checkpoints_whole(folder)
    assert rater.given
    count.acknowledged += len(rater.given)
    recovered(folder, count, "kill -9 of the engine", rater.given, times=kills)


# --------------------------------------------------------------------------------------- chosen points of the engine

WAY = ("step", "rate", "set learning_rate={}e-5", "step", "rate", "checkpoint", "skip", "step", "rate", "stop")


async def live_through(folder: SessionFolder, rater: Rater, number: int) -> None:
    """Lead an engine that starts paused through whatever its writer does; returns when the engine is gone."""
    engine = await until(folder.engine)
    with contextlib.suppress(EngineUnreachable, Refused, asyncio.IncompleteReadError):
        async with attached(engine.socket, "test") as client:
            for command in list(rater.open.values()):  # one that was cut off is given again, with its id
                with contextlib.suppress(Refused):
                    await rater.send(client, command)
            while (await status(client)).state != "PAUSED":
                await asyncio.sleep(0.005)
            for words in WAY:
                if words == "rate":
                    await rater.rate(client, 2)
                elif words == "skip":
                    heads = await client.query_json(parse_words("groups 1"))
                    await do(client, f"skip {heads[0]['step']}.{heads[0]['number']}A unclear")
                elif words.startswith("set"):  # it is applied in the next step
                    await client.send(parse_words(words.format(1 + number % 9)))
                else:
                    await do(client, words)


async def life(folder: SessionFolder, nursery: Nursery, rater: Rater, number: int, fault: Fault) -> int:
    """One engine with a fault in it; its exit code."""
    folder.forget_engine()
    process = nursery.engine(folder.path, fault)
    living = asyncio.create_task(live_through(folder, rater, number))
    await until(lambda: process.exitcode is not None)
    if folder.engine() is None:
        living.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(living, SECONDS)
    assert process.exitcode is not None
    return process.exitcode


def chosen(kind: str, point: int, checkpoints: Path, counted: Path | None = None) -> Fault:
    where = {"folder": str(checkpoints)} if kind == "file change" else {}
    at = {"file_change" if kind == "file change" else "statement": point} if point else {}
    return Fault(**where, **at, counted=str(counted) if counted else "")


@pytest.mark.parametrize("kind", ["statement", "file change"])
@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=[pytest.mark.faults, pytest.mark.timeout(1800)])])
async def test_an_engine_that_is_killed_at_a_chosen_point_loses_no_rating(
    kind: str, kills: int, count: Count, nursery: Nursery, tmp_path: Path
) -> None:
    folder, rater = small_session(paused=True), Rater(kills)
    counted = tmp_path / "counted"
    assert await life(folder, nursery, rater, 0, chosen(kind, 0, folder.checkpoints, counted)) == 0
    points = int(counted.read_text())
    assert points > 50
    name, killed = f"kill -9 at a chosen {kind} of the engine", 0
    for number, point in enumerate(random.Random(kills).sample(range(1, points), min(kills, points - 1)), start=1):
        folder.write_settings(msgspec.structs.replace(folder.settings(), paused=True, steps=0))
        code = await life(folder, nursery, rater, number, chosen(kind, point, folder.checkpoints))
        if code == 0:  # this life had fewer of them
            continue
        assert code == -signal.SIGKILL, folder.log_tail(30)
        count.injected[name] += 1
        killed += 1
        ratings_kept(folder, rater.given, count)
        database_whole(folder)
        checkpoints_whole(folder)
    assert killed
    assert rater.given
    count.acknowledged += len(rater.given)
    recovered(folder, count, name, rater.given, nursery=nursery, times=killed)


# ------------------------------------------------------------------------------------------- every point of the store


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=[pytest.mark.faults, pytest.mark.timeout(1200)])])
def test_a_store_that_is_killed_between_any_two_statements_is_whole(every: int, count: Count, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.store_life", str(tmp_path), str(every)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["killed"] == len(range(1, told["points"] + 1, every)) > 10
    count.injected["kill -9 at a statement of the store"] += told["killed"]
    count.acknowledged += told["acknowledged"]
    count.lost += told["lost"]
    assert told["lost"] == 0
    assert told["broken"] == []
    count.recovered["kill -9 at a statement of the store"] += told["killed"]
