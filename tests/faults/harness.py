"""A session under faults: people who rate it all the time, and what must be true of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sessions import wire
from sessions.checkpoints import DAMAGED
from sessions.client import Client, attached
from sessions.commands import Command, QueryGroups, QueryStatus, Rate, parse_words
from sessions.errors import EngineUnreachable, Refused
from sessions.folders import SessionFolder, new_session, socket_folder
from sessions.records import GroupHead, Rating, SessionSettings, Status, letters
from sessions.store import Store
from tests.faults.count import Count
from tests.faults.nursery import ROOT, Nursery

SECONDS = 120.0
SETS = [
    "prompts_per_step=2",
    "group_size=4",
    "max_new_tokens=8",
    "evaluate_every=0",
    "checkpoint_steps=3",
]
WRITE = (sqlite3.Error, OSError)


def small_session(name: str = "s", *, sets: Iterable[str] = (), **settings: Any) -> SessionFolder:
    """A session of the embedded model with small steps."""
    given = {"name": name, "sets": [*SETS, *sets], "nice": False, "threads": 1, "device": "cpu", **settings}
    return new_session(name, SessionSettings(**given))


async def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """The first true result of a condition."""
    async with asyncio.timeout(seconds):
        while not (result := condition()):
            await asyncio.sleep(0.01)
        return result


async def answering(folder: SessionFolder, pid: int = 0, alive: Callable[[], bool] = lambda: True) -> str:
    """Wait until an engine has loaded; where it listens.

    :param pid: of the engine; 0: any.
    """
    async with asyncio.timeout(SECONDS):
        while True:
            assert alive(), f"the engine ended: {folder.log_tail()}"
            engine = folder.engine()
            if engine is not None and pid in (0, engine.pid):
                with contextlib.suppress(EngineUnreachable, Refused):
                    async with attached(engine.socket, "test", read_only=True) as client:
                        if (await status(client)).state not in ("LOADING", "FAILED"):
                            return engine.socket
            await asyncio.sleep(0.02)


async def do(client: Client, command: Command | str) -> wire.Answer:
    """Send a command, or words; its last answer."""
    command = parse_words(command) if isinstance(command, str) else command
    return await asyncio.wait_for(client.send_and_wait(command), SECONDS)


async def ask(client: Client, words: str) -> Any:
    """The data of a query."""
    return await asyncio.wait_for(client.query_json(parse_words(words)), SECONDS)


async def status(client: Client) -> Status:
    """How the engine stands."""
    return await asyncio.wait_for(client.query(QueryStatus(), Status), SECONDS)


class Given(NamedTuple):
    """What a person said in a rating."""

    group: str
    values: dict[str, float]
    comment: str


class Rater:
    """A person who rates, and remembers what the engine said it had saved.

    Every rating has a comment of its own, so that one that was kept twice under two ids is found as well.

    :ivar given: id -> the rating, for those that were acknowledged.
    :ivar open: those that were asked for and never answered.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.given: dict[str, Given] = {}
        self.open: dict[str, Rate] = {}
        self._said = 0

    def one_of(self, heads: list[GroupHead]) -> Rate:
        """A rating of some responses of these groups, in any mode."""
        head = self._random.choice(heads)
        self._said += 1
        one, other = (letters(place) for place in self._random.sample(range(len(head.rewards)), 2))
        number = float(self._random.randint(1, 5))
        mode, values, more = self._random.choice(
            [
                ("likert", {one: number}, {}),
                ("thumbs", {one: 1.0, other: -1.0}, {}),
                ("pair", {one: 2.0, other: 0.0}, {}),
                ("rank", {one: 2.0, other: 1.0}, {}),
                ("edit", {one: 1.0}, {"text": f"better {self._said}"}),
                ("critique", {one: 1.0}, {"flags": ["wrong"]}),
            ]
        )
        return Rate(group=head.name, mode=mode, values=values, comment=f"n{self._said}", who="ann", **more)

    async def send(self, client: Client, command: Rate) -> wire.Answer:
        """Rate; acknowledged once the answer says that it was applied."""
        self.open[command.id] = command
        answer = await do(client, command)
        del self.open[command.id]
        if answer.status == "applied":
            self.given[command.id] = Given(command.group, dict(command.values), command.comment)
        return answer

    async def rate(self, client: Client, times: int = 1) -> None:
        """Rate some of the newest groups."""
        for _ in range(times):
            heads = await client.query(QueryGroups(limit=6), list[GroupHead])
            if heads:
                await self.send(client, self.one_of(heads))

    async def rate_on(self, folder: SessionFolder, pause: float = 0.01) -> None:
        """Rate without end, until the engine is gone; a rating that was cut off is given again first, with its id."""
        engine = folder.engine()
        while engine is None:
            await asyncio.sleep(0.005)
            engine = folder.engine()
        with contextlib.suppress(EngineUnreachable, Refused):
            async with attached(engine.socket, "rater") as client:
                for command in list(self.open.values()):
                    await self.send(client, command)
                while True:
                    await self.rate(client)
                    await asyncio.sleep(pause)


# -------------------------------------------------------------------------------------------- what must be true


def rows(folder: SessionFolder, sql: str, *arguments: Any) -> list[Any]:
    """Rows of the database, read by other code than the product's."""
    db = sqlite3.connect(f"{folder.database.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return db.execute(sql, arguments).fetchall()
    finally:
        db.close()


def ratings_kept(folder: SessionFolder, given: Mapping[str, Given], count: Count) -> None:
    """Every acknowledged rating is in the database, once, as it was given."""
    found: dict[str, list[tuple[str, Given]]] = {}
    for rating_id, step, number, body in rows(folder, "SELECT id, step, number, body FROM ratings"):
        rating = msgspec.json.decode(body, type=Rating)
        said = Given(f"{step}.{number}", rating.values, rating.comment)
        found.setdefault(rating.comment, []).append((rating_id, said))
    wrong = [
        (rating_id, said, found.get(said.comment))
        for rating_id, said in given.items()
        if found.get(said.comment) != [(rating_id, said)]
    ]
    count.lost += len(wrong)
    assert not wrong, f"{len(wrong)} of {len(given)} acknowledged ratings are lost, such as {wrong[:3]}"


def database_whole(folder: SessionFolder) -> None:
    """It passes its own check, this version opens it, and what belongs together is there together."""
    assert rows(folder, "PRAGMA integrity_check") == [("ok",)]
    store = Store(folder.database)  # for writing, as an engine does
    store.close()
    events = dict(rows(folder, "SELECT kind, count(*) FROM events GROUP BY kind"))
    in_events = [json.loads(body) for (body,) in rows(folder, "SELECT body FROM events WHERE kind='rating'")]
    saved = {event["rating"]["id"] for event in in_events if event["event"] == "rating"}
    assert saved == {rating_id for (rating_id,) in rows(folder, "SELECT id FROM ratings")}
    (steps,) = rows(folder, "SELECT count(*) FROM steps")[0]
    assert events.get("step", 0) >= steps
    learned = {step for (step,) in rows(folder, "SELECT step FROM steps WHERE branch='main' AND step > 0")}
    assert learned == set(range(1, len(learned) + 1))


def checkpoints_whole(folder: SessionFolder) -> None:
    """Whatever has the name of a checkpoint holds every file of its manifest, as it was written."""
    for path in folder.checkpoints.glob("[0-9]*"):
        files = json.loads((path / "manifest.json").read_text())["files"]
        assert "policy/model.safetensors" in files
        for name, digest in files.items():
            assert hashlib.sha256((path / name).read_bytes()).hexdigest() == digest, f"{path}/{name} is damaged"


def nothing_left(folder: SessionFolder) -> None:
    """No process, no socket, no half-written file."""
    assert not folder.running()
    assert processes_of(folder) == []
    assert not Path(folder.socket_path()).exists()
    aside = f".{DAMAGED}"  # what was found damaged is left for people to look at
    left = [p for p in folder.path.rglob(".*") if p.name != ".gitignore" and aside not in p.name]
    assert left == [], "half-written files are left"


def processes_of(folder: SessionFolder) -> list[int]:
    """Processes with the session's folder on their command line, and those that hold its lock."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.fsencode(folder.path) in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def last_step(folder: SessionFolder) -> int:
    """The newest finished step of main."""
    (step,) = rows(folder, "SELECT coalesce(max(step), 0) FROM steps WHERE branch='main'")[0]
    return int(step)


def workbench(*words: str, timeout: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """The command, as people run it."""
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def goes_on(folder: SessionFolder, nursery: Nursery | None = None, steps: int = 2) -> None:
    """The session finishes more steps, and ends in order.

    :param nursery: where to start its engine; None: as people do, with ``workbench run``.
    """
    wanted = last_step(folder) + steps if folder.database.exists() else steps
    if nursery is None:
        done = workbench("run", "--name", folder.name, "--headless", "--json", "--steps", str(wanted))
        assert done.returncode == 0, done.stderr + "\n".join(folder.log_tail(30))
        end = json.loads(done.stdout.splitlines()[-1])
        assert (end["state"], end["step"]) == ("DONE", wanted), end
    else:
        folder.write_settings(msgspec.structs.replace(folder.settings(), steps=wanted, paused=False))
        process = nursery.engine(folder.path)
        process.join(SECONDS)
        assert process.exitcode == 0, folder.log_tail(30)
    assert last_step(folder) == wanted


def recovered(
    folder: SessionFolder,
    count: Count,
    kind: str,
    given: Mapping[str, Given] = {},
    *,
    nursery: Nursery | None = None,
    times: int = 1,
) -> None:
    """After faults of a kind: everything acknowledged is there, the database is whole, the session goes on, nothing is
    left behind.

    What people were told is for the test to say.

    :param given: ratings that were acknowledged.
    :param times: how many faults the session has had.
    """
    if folder.database.exists() and rows(folder, "SELECT 1 FROM sqlite_master WHERE name='meta'"):
        ratings_kept(folder, given, count)
        database_whole(folder)
    goes_on(folder, nursery)
    ratings_kept(folder, given, count)
    database_whole(folder)
    nothing_left(folder)
    count.recovered[kind] += times


def notes(folder: SessionFolder) -> list[str]:
    """Every line that people were told, oldest first."""
    store = Store(folder.database, read_only=True)
    try:
        return [wire.describe(event)[1] for event in reversed(store.events(limit=5000))]
    finally:
        store.close()


def alarms(folder: SessionFolder) -> list[str]:
    """``rule: message`` of every alarm, oldest first."""
    store = Store(folder.database, read_only=True)
    try:
        return [f"{alarm.rule}: {alarm.message}" for alarm in store.alarms()]
    finally:
        store.close()


def close_engines(home: Path) -> None:
    """Kill the engines that a failed test has left under a home."""
    for path in home.glob("sessions/*/engine.json"):
        folder = SessionFolder(path.parent)
        engine = folder.engine()
        if engine is not None and folder.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(engine.pid, signal.SIGKILL)
            deadline = time.monotonic() + 30
            while (folder.running() or processes_of(folder)) and time.monotonic() < deadline:
                time.sleep(0.02)


def sockets() -> list[Path]:
    """What lies in the folder of sockets."""
    return sorted(socket_folder().iterdir())
