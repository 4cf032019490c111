"""``follow``, ``send`` and ``stop``: what scripts and people without screens use."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from typing import Any

from sessions.client import Client
from sessions.commands import QUERIES, Command, Set, Stop, TakeCheckpoint, parse_words
from sessions.errors import EngineUnreachable, Refused, SessionError, VersionMismatch, WorkbenchError
from sessions.folders import SessionFolder, session_folder
from sessions.records import Status
from sessions.wire import Answer, Beat, Snapshot, StepDone, describe, encode_event, encode_json
from workbench.daemon import until_ended
from workbench.output import emit, say, show
from workbench.settings import person
from workbench.show import readable
from workbench.watch import Watch

HANG_SECONDS = 15.0
"""How long an engine that does not answer may take to end by itself before it is said to hang."""
PATIENCE_SECONDS = 15.0
"""How long an engine that is starting may take until it listens."""


def engine_socket(folder: SessionFolder) -> str:
    """Where a session's engine listens; waits a moment for one that is starting.

    :raises SessionError: if it has none.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while folder.running():
        engine = folder.engine()
        if engine is not None:
            return engine.socket
        if time.monotonic() >= until:
            raise EngineUnreachable(f"the engine of {folder.name!r} is starting and does not listen yet; try again")
        time.sleep(0.02)
    raise SessionError(f"session {folder.name!r} has no engine; `workbench run --name {folder.name}` starts one")


# ------------------------------------------------------------------------------------------------- follow


def follow(arguments: argparse.Namespace) -> int:
    """``workbench follow``: events as they come, until the session ends."""
    folder, who = session_folder(arguments.session), person(arguments)
    engine_socket(folder)
    try:
        return asyncio.run(_follow(folder, who, as_json=arguments.json))
    except KeyboardInterrupt:
        return 0  # the way to leave a session that goes on


async def _follow(folder: SessionFolder, who: str, *, as_json: bool) -> int:
    async with contextlib.aclosing(Watch(folder, "follow", who=who).events()) as events:
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
    if words[:1] == ["--as"] and len(words) > 1:  # between the session and the words
        arguments.person, words = words[1], words[2:]
    while words:  # after the words as well as before them
        if words[-1] in ("--json", "--no-wait"):
            setattr(arguments, words.pop()[2:].replace("-", "_"), True)
        elif words[-1].startswith("--as="):
            arguments.person = words.pop().removeprefix("--as=")
        elif words[-2:-1] == ["--as"]:
            arguments.person = words.pop()
            words.pop()
        else:
            break
    command = parse_words(words)
    folder, who = session_folder(arguments.session), person(arguments)
    asyncio.run(_send(engine_socket(folder), command, who, wait=not arguments.no_wait, as_json=arguments.json))
    return 0


def plan(arguments: argparse.Namespace) -> int:
    """``workbench plan``: what a step takes, and would take with some hyperparameters set."""
    command = parse_words(["plan", *arguments.values])
    folder = session_folder(arguments.session)
    asyncio.run(_send(engine_socket(folder), command, "", wait=True, as_json=arguments.json))
    return 0


async def _send(socket: str, command: Command, who: str, *, wait: bool, as_json: bool) -> None:
    """Send and print.

    :raises Refused: if the engine rejects it.
    """
    async with Client(socket, "send", who=who, rate=4.0, read_only=isinstance(command, QUERIES)) as client:
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
                if isinstance(message, Beat | Snapshot):
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
        emit(answer.data or encode_json(answer))
    if answer.status == "rejected":
        raise Refused(f"rejected: {answer.text}")
    if answer.status != "data" and not as_json:
        at = f" at step {answer.step}" if answer.status == "applied" and answer.step else ""
        said = f"{answer.status}{at}"
        emit(show(said if answer.text in ("", said) else f"{said}: {answer.text}"))


def stop(arguments: argparse.Namespace) -> int:
    """``workbench stop``: end a session after a checkpoint, or at once; returns when its engine has left."""
    folder = session_folder(arguments.session)
    if not folder.running():
        say(f"{folder.name} has no engine; there is nothing to stop")
        return 0
    asyncio.run(_stop(folder, person(arguments), now=arguments.now, as_json=arguments.json))
    return 0


async def _stop(folder: SessionFolder, who: str, *, now: bool, as_json: bool) -> None:
    try:
        socket = await asyncio.to_thread(engine_socket, folder)
        await _send(socket, Stop(now=now), who, wait=True, as_json=as_json)
    except EngineUnreachable as error:
        # It may have closed the connection before the answer was read, and has stopped all the same.
        engine = folder.engine()
        try:
            async with asyncio.timeout(HANG_SECONDS):
                await until_ended(folder)
        except TimeoutError:
            kill = f"`kill {engine.pid}`" if engine else "a kill"
            raise EngineUnreachable(f"{error}; it may hang: {kill} ends it, the records stay") from None
    info = await until_ended(folder)
    if info is not None and info.code != 0:
        raise SessionError(f"the engine of {folder.name!r} ended badly: {info.cause}; its log: {folder.log}")
    say(f"{folder.name} has stopped; `workbench run --name {folder.name}` continues it")
