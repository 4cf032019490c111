"""``import``: ratings and preferences from files, into a session that runs or not."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator

import msgspec

from sessions.client import attached
from sessions.commands import ImportOrderings, ImportRatings
from sessions.errors import InputFileError, Refused, SessionError
from sessions.folders import SessionFolder, session_folder
from sessions.importing import ImportFile, Received, foresee, pages, receive
from sessions.paths import expanded
from sessions.store import Store
from workbench.commands_session import engine_socket
from workbench.output import emit, say, show
from workbench.settings import person

Page = ImportRatings | ImportOrderings


def import_file(arguments: argparse.Namespace) -> int:
    """``workbench import``: what was taken is said on stderr, with ``--json`` as a line of data."""
    folder, who, path = session_folder(arguments.session), person(arguments), expanded(arguments.file)
    if not folder.database.is_file():
        raise SessionError(f"session {folder.name!r} has no records yet; `workbench run --name {folder.name}`")
    store = Store(folder.database, read_only=True)
    try:
        file = ImportFile(path, store)
        found = pages(file.each(), path.name[:150], who)
        ratings, preferences = Received(), Received()
        for page, got in _taken(folder, store, found, who, dry_run=arguments.dry_run):
            (ratings if isinstance(page, ImportRatings) else preferences).add(got)
    finally:
        store.close()
    unusable = Received()
    for part in (file.unusable, ratings, preferences):
        unusable.add(Received(unusable=part.unusable, why=part.why))
    if not ratings.new + ratings.known + preferences.new + preferences.known:
        why = f"nothing in it can be used: {unusable.why}" if unusable.why else "there is nothing in it to import"
        raise InputFileError(f"{path}: {why}")
    for what, part in (("ratings of this session's groups", ratings), ("preferences for a reward model", preferences)):
        if part.new + part.known:
            say(show(f"{what}: {msgspec.structs.replace(part, unusable=0).describe()}"))
    if unusable.unusable:
        say(show(f"not usable: {unusable.unusable:,} ({unusable.why})"))
    if arguments.dry_run:
        say("nothing was imported: --dry-run")
    if arguments.json:
        counts = {
            name: {"new": part.new, "known": part.known}
            for name, part in (("ratings", ratings), ("preferences", preferences))
        }
        told = {"unusable": unusable.unusable, "why": unusable.why, "dry_run": arguments.dry_run}
        emit(json.dumps({"session": folder.name, "file": str(path), "lines": file.lines, **counts, **told}))
    return 0


def _taken(
    folder: SessionFolder, store: Store, found: Iterator[Page], who: str, *, dry_run: bool
) -> Iterator[tuple[Page, Received]]:
    """What became of every page."""
    if dry_run:
        for page in found:
            yield page, foresee(store, page)
        return
    if folder.running():
        yield from asyncio.run(_sent(engine_socket(folder), found, who))
        return
    lock = folder.lock()
    try:
        own = Store(folder.database)
        try:
            for page in found:
                yield page, receive(own, page, time.time())
        finally:
            own.close()
    finally:
        os.close(lock)


async def _sent(socket: str, found: Iterator[Page], who: str) -> list[tuple[Page, Received]]:
    """The same through the engine that has the session.

    :raises Refused: if it rejects a page; those before it are kept.
    """
    done: list[tuple[Page, Received]] = []
    async with attached(socket, "import", who=who) as client:
        with contextlib.closing(found) as pages_left:  # type: ignore[type-var]
            for page in pages_left:
                answer = await client.send_and_wait(page)
                if answer.status == "rejected":
                    raise Refused(f"rejected: {answer.text}")
                outline = msgspec.structs.replace(page, **_EMPTY[type(page)])
                done.append((outline, msgspec.json.decode(answer.data, type=Received)))
    return done


_EMPTY: dict[type, dict[str, list[object]]] = {ImportRatings: {"ratings": []}, ImportOrderings: {"orderings": []}}
"""What is not held once it was sent."""
