"""The engine as a process of its own: killed, resumed, told to leave."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

import pytest

from engine.__main__ import build, main
from engine.checkpointing import policy_weights
from sessions.client import Client, attached
from sessions.commands import Rate, Step, TakeCheckpoint, parse_words
from sessions.folders import SessionFolder
from sessions.store import Store
from tests.engine.live import session

ROOT = Path(__file__).parents[2]
SECONDS = 120.0
SETS = ["prompts_per_step=2", "group_size=3", "max_new_tokens=4", "evaluate_every=0", "checkpoint_steps=2"]


def start(folder: SessionFolder, output: int | IO[bytes], errors: int | IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "engine", str(folder.path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
    )


@contextlib.asynccontextmanager
async def process(folder: SessionFolder) -> AsyncIterator[tuple[subprocess.Popen[bytes], Client]]:
    """The engine of a session, once it has loaded; it is gone afterwards."""
    log = folder.log.open("ab")
    started = start(folder, log, log)
    try:
        async with asyncio.timeout(SECONDS):
            while folder.engine() is None or folder.engine().pid != started.pid:
                assert started.poll() is None, folder.log_tail()
                await asyncio.sleep(0.02)
            async with attached(folder.engine().socket, "test") as client:
                while (await client.query_json(parse_words("status")))["state"] == "LOADING":
                    await asyncio.sleep(0.05)
                yield started, client
    finally:
        log.close()
        if started.poll() is None:
            started.kill()
        started.wait(SECONDS)


async def do(client: Client, command) -> str:
    answer = await asyncio.wait_for(client.send_and_wait(command), SECONDS)
    assert answer.status == "applied", answer
    return answer.text


async def test_a_killed_engine_goes_on_from_its_newest_checkpoint() -> None:
    folder = session(sets=SETS, nice=False)
    async with process(folder) as (engine, client):
        for _ in range(5):
            await do(client, Step())
        await do(client, Rate(group="5.1", mode="likert", values={"A": 5.0}, who="ann"))
        second = start(folder, subprocess.DEVNULL, subprocess.PIPE)
        _, errors = second.communicate(timeout=SECONDS)
        assert second.returncode == 1
        assert b"already has an engine" in errors
        engine.send_signal(signal.SIGKILL)
        assert engine.wait(SECONDS) == -signal.SIGKILL
    store = Store(folder.database)
    killed = {r.step: r for r in store.steps("main")}
    assert list(killed) == [1, 2, 3, 4, 5]
    store.close()

    async with process(folder) as (engine, client):
        async with asyncio.timeout(SECONDS):
            while (status := await client.query_json(parse_words("status")))["state"] != "PAUSED":
                await asyncio.sleep(0.05)
        assert status["finished_steps"] == 5
        notes = [e["text"] for e in await client.query_json(parse_words("events 50")) if e.get("kind") == "resumed"]
        assert notes == ["from checkpoint 4; step 5 was computed again from the records, bit for bit"]
        await do(client, Step())
        await do(client, TakeCheckpoint())
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(SECONDS) == 0
    assert folder.engine() is None
    assert not any("Traceback" in line for line in folder.log_tail(200))

    store = Store(folder.database)
    assert [r.step for r in store.steps("main")] == [1, 2, 3, 4, 5, 6]
    (rated,) = store.recent_ratings()
    use = store.rating_use(rated.id)
    assert use is not None
    assert (use.fate, use.step) == ("late", 6)
    store.close()
    assert policy_weights(folder.checkpoints / "6")


def test_garbage_is_searched_for_again_once_the_libraries_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = session()
    frozen = gc.get_freeze_count()
    kept = [[] for _ in range(1000)]
    monkeypatch.setattr("engine.start.start", lambda *_: (gc.isenabled(), gc.get_freeze_count()))
    enabled, then = build(folder.settings(), None, folder)
    assert enabled
    assert then >= frozen + len(kept)  # what was there before the session is not walked through
    monkeypatch.setitem(sys.modules, "engine.start", None)  # cannot be imported
    with pytest.raises(ImportError):
        build(folder.settings(), None, folder)
    assert gc.isenabled()


def test_what_cannot_be_started_says_why_and_leaves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    folder = session(sets=["group_size=1"], nice=False, threads=1)
    assert main([str(folder.path)]) == 2
    assert "group_size: 1 is out of bounds" in capsys.readouterr().out
    assert not Path(folder.socket_path()).exists()
    assert not folder.running()
    (folder.path / "session.toml").write_text("name = ")
    assert main([str(folder.path)]) == 2
    assert "cannot be read" in capsys.readouterr().err
