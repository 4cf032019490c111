"""``list``, ``status``, ``follow``, ``send`` and ``stop``: what scripts and people without screens use."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from typing import Any

import msgspec

from sessions.client import Client, attached
from sessions.commands import QUERIES, Command, QueryStatus, Set, Stop, TakeCheckpoint, parse_words
from sessions.errors import EngineUnreachable, Refused, SessionError, VersionMismatch, WorkbenchError
from sessions.folders import SessionFolder, all_sessions, session_folder
from sessions.records import Status
from sessions.store import Store
from sessions.wire import Answer, Beat, StepDone, describe, encode_event, encode_json
from workbench.daemon import until_ended
from workbench.output import emit, say, show, size, table
from workbench.show import readable
from workbench.watch import Watch

PATIENCE_SECONDS = 3.0
"""An engine that answers nothing for so long, though it beats every second, counts as stale."""


def engine_socket(folder: SessionFolder) -> str:
    """Where a session's engine listens.

    :raises SessionError: if it has none.
    """
    engine = folder.engine()
    if engine is not None and folder.running():
        return engine.socket
    if folder.running():
        raise EngineUnreachable(f"the engine of {folder.name!r} is starting and does not listen yet; try again")
    raise SessionError(f"session {folder.name!r} has no engine; `workbench run --name {folder.name}` starts one")


# ------------------------------------------------------------------------------------------- list and status


def list_sessions(arguments: argparse.Namespace) -> int:
    """``workbench list``: every session, newest first."""
    rows = asyncio.run(_summaries(all_sessions()))
    if arguments.json:
        for row in rows:
            emit(json.dumps(row))
    elif rows:
        heading = ["session", "state", "step", "reward", "model", "task", "size"]
        lines = [
            [
                row["session"],
                row["state"],
                str(row["finished_steps"]) + (f"/{row['steps']}" if row["steps"] else ""),
                "" if row["reward"] is None else f"{row['reward']:.3f}",
                row["model"].rpartition("/")[2],
                row["task"].rpartition("/")[2],
                size(row["bytes"]),
            ]
            for row in rows
        ]
        emit(table([heading, *lines], frozenset({2, 3, 6})))
    else:
        say("no sessions yet; `workbench run` starts one")
    return 0


async def _summaries(folders: list[SessionFolder]) -> list[dict[str, Any]]:
    return list(await asyncio.gather(*(_summary(folder) for folder in folders)))


async def _summary(folder: SessionFolder) -> dict[str, Any]:
    status = await _status(folder)
    row: dict[str, Any] = {
        "session": folder.name,
        "state": status["state"],
        "finished_steps": status.get("finished_steps", 0),
        "steps": 0,
        "reward": None,
        "model": "",
        "task": "",
        "bytes": folder.size(),
        "path": str(folder.path),
    }
    with contextlib.suppress(WorkbenchError):  # an unreadable session is still listed
        settings = folder.settings()
        row |= {"steps": settings.steps, "model": settings.model, "task": settings.task}
        step, row["reward"] = _last_step(folder, status.get("branch", "main"))
        row["finished_steps"] = max(step, row["finished_steps"])
    return row


def _last_step(folder: SessionFolder, branch: str) -> tuple[int, float | None]:
    """The last recorded step and its mean reward."""
    if not folder.database.exists():
        return 0, None
    store = Store(folder.database, read_only=True)
    try:
        last = store.last_step(branch)
    finally:
        store.close()
    return (last.step, last.metrics.get("reward/mean")) if last is not None else (0, None)


async def _status(folder: SessionFolder) -> dict[str, Any]:
    """The engine's status; without an engine, what its files say: DONE, FAILED or NEW."""
    if folder.running():
        engine = folder.engine()
        base: dict[str, Any] = {"session": folder.name}
        if engine is None:
            return base | {"state": "LOADING", "note": "the engine is starting"}
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), attached(engine.socket, "status", read_only=True) as client:
                status: dict[str, Any] = await client.query_json(QueryStatus())
                return base | {"state": "RUN", "phase": "idle", "step": 0, "finished_steps": 0, "steps": 0} | status
        except (TimeoutError, WorkbenchError) as error:
            why = str(error) or f"no answer within {PATIENCE_SECONDS:g} s"
            return base | {"state": "STALE", "pid": engine.pid, "note": f"{why}; its log: {folder.log}"}
    info = folder.exit()
    row: dict[str, Any] = {"session": folder.name, "state": "NEW", "finished_steps": 0}
    with contextlib.suppress(WorkbenchError):
        row["finished_steps"] = _last_step(folder, "main")[0]
    if info is not None:
        row |= {"state": "DONE" if info.code == 0 else "FAILED", "cause": info.cause, "exit": msgspec.to_builtins(info)}
    elif folder.database.exists():
        row |= {"state": "FAILED", "cause": "the engine left no word"}
    return row


def status(arguments: argparse.Namespace) -> int:
    """``workbench status``: state, phase and progress of one session."""
    found = asyncio.run(_status(session_folder(arguments.session)))
    emit(json.dumps(found) if arguments.json else show(readable(QueryStatus(), found)))
    return 0


# ------------------------------------------------------------------------------------------------- follow


def follow(arguments: argparse.Namespace) -> int:
    """``workbench follow``: events as they come, until the session ends."""
    folder = session_folder(arguments.session)
    engine_socket(folder)
    return asyncio.run(_follow(folder, as_json=arguments.json))


async def _follow(folder: SessionFolder, *, as_json: bool) -> int:
    async with contextlib.aclosing(Watch(folder, "follow").events()) as events:
        async for event in events:
            if isinstance(event, Status):
                continue
            if as_json:
                emit(encode_event(event))
            else:
                kind, line = describe(event)
                at = time.strftime("%H:%M:%S", time.localtime(event.time))
                step = "" if isinstance(event, StepDone) else f"step {event.step}: "
                emit(show(f"{at}  {kind:<10}  {step}{line}"))
    info = await until_ended(folder)
    if info is not None and info.code == 0:
        say(f"{folder.name} has ended")
        return 0
    raise SessionError(f"the engine of {folder.name!r} ended: {info.cause if info else 'it left no word'}")


# ------------------------------------------------------------------------------------------- send and stop


def send(arguments: argparse.Namespace) -> int:
    """``workbench send``: one command, its answers printed as they come."""
    words = list(arguments.words)
    while words and words[-1] in ("--json", "--no-wait"):  # after the words as well as before them
        setattr(arguments, words.pop()[2:].replace("-", "_"), True)
    command = parse_words(words)
    folder = session_folder(arguments.session)
    asyncio.run(_send(engine_socket(folder), command, wait=not arguments.no_wait, as_json=arguments.json))
    return 0


async def _send(socket: str, command: Command, *, wait: bool, as_json: bool) -> None:
    """Send and print.

    :raises Refused: if the engine rejects it.
    """
    async with Client(socket, "send", rate=4.0, read_only=isinstance(command, QUERIES)) as client:
        paused = asyncio.Event()
        reader = asyncio.create_task(_read(client, paused))
        try:
            async with contextlib.aclosing(_answers(client, command, paused, wait=wait)) as answers:
                async for answer in answers:
                    _print(command, answer, as_json=as_json)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)


async def _read(client: Client, paused: asyncio.Event) -> None:
    """Settle answers, and keep ``paused`` as the heartbeat says."""
    while True:
        try:
            async for message in client.messages():
                if isinstance(message, Beat):
                    (paused.set if message.status.state == "PAUSED" else paused.clear)()
            return
        except VersionMismatch:
            continue  # status and stop are served all the same
        except WorkbenchError:
            return  # whoever waits for an answer is told


async def _answers(client: Client, command: Command, paused: asyncio.Event, *, wait: bool) -> Any:
    """The answers worth waiting for.

    What a paused session has accepted for later would wait until somebody resumes it: a script that pauses and then
    sets a value must not.
    """
    answers = client.answers(command)
    async for answer in answers:
        yield answer
        if answer.status != "accepted":
            return
        break
    if not wait:
        return
    final = asyncio.ensure_future(anext(answers))
    pausing = asyncio.create_task(paused.wait())
    kinds = {final, pausing} if isinstance(command, Set | TakeCheckpoint) else {final}
    try:
        await asyncio.wait(kinds, return_when=asyncio.FIRST_COMPLETED)
        if final.done():
            yield final.result()
        else:
            say("the session is paused: it applies when it goes on")
    finally:
        pausing.cancel()
        final.cancel()
        await asyncio.gather(pausing, final, return_exceptions=True)


def _print(command: Command, answer: Answer, *, as_json: bool) -> None:
    if answer.status == "data":
        emit(answer.data if as_json else show(readable(command, json.loads(answer.data or "null"))))
    elif as_json:
        emit(encode_json(answer))
    if answer.status == "rejected":
        raise Refused(f"rejected: {answer.text}")
    if answer.status != "data" and not as_json:
        at = f" at step {answer.step}" if answer.status == "applied" and answer.step else ""
        emit(show(f"{answer.status}{at}" + (f": {answer.text}" if answer.text else "")))


def stop(arguments: argparse.Namespace) -> int:
    """``workbench stop``: end a session after a checkpoint, or at once; returns when its engine has left."""
    folder = session_folder(arguments.session)
    if not folder.running():
        say(f"{folder.name} has no engine; there is nothing to stop")
        return 0
    asyncio.run(_stop(folder, now=arguments.now))
    return 0


async def _stop(folder: SessionFolder, *, now: bool) -> None:
    # The engine may close the connection before the answer has been read: it has stopped all the same.
    with contextlib.suppress(EngineUnreachable):
        await _send(engine_socket(folder), Stop(now=now), wait=True, as_json=False)
    info = await until_ended(folder)
    if info is not None and info.code != 0:
        raise SessionError(f"the engine of {folder.name!r} ended badly: {info.cause}; its log: {folder.log}")
    say(f"{folder.name} has stopped; `workbench run --name {folder.name}` continues it")
