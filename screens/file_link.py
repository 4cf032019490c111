"""In the place of the line to an engine: a plain file that is rated. No engine, no model, no training."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from screens.live import Live
from sessions.commands import Command
from sessions.errors import Refused
from sessions.records import Status
from sessions.wire import Answer, AnyEvent, Beat, Delta, Snapshot

if TYPE_CHECKING:
    from sessions.rating_file import RatingFile

_T = TypeVar("_T")
LOW = 100
"""With fewer groups in the queue than this, more are brought from the file."""
NOT_FOR_FILES = frozenset({"pause", "step", "checkpoint", "acknowledge", "stop_session", "arrange"})
"""What makes no sense without training; neither does any other screen."""


class FileLink:
    """Feeds the model of the screens from a file, and takes what is said of it there.

    One thread serves the commands, in the order in which they were sent.
    """

    def __init__(self, file: RatingFile, live: Live) -> None:
        self.file, self.live = file, live
        self._thread = ThreadPoolExecutor(1, "rating-file")
        self._closed = False
        live.connected("file")
        live.feed(file.snapshot())

    async def run(self) -> None:
        """Nothing comes by itself."""
        await asyncio.Event().wait()

    def close_records(self) -> None:
        """Finish what was sent, and let go of the file."""
        if not self._closed:
            self._closed = True
            self._thread.shutdown(wait=True)
            self.file.close()

    @property
    def refusal(self) -> str:
        """Why a key of the training does nothing here."""
        return f"a file is rated here, without a session: nothing trains; {self.file.output.name} has the ratings"

    @property
    def guide(self) -> Path:
        """Where the guide of this file is kept: beside the ratings."""
        return self.file.output.with_suffix(".guide.txt")

    @property
    def farewell(self) -> str:
        """The line to leave in the terminal."""
        return (
            f"{self.file.count:,} of {len(self.file.rated.file.groups):,} groups are rated; the ratings are in "
            f"{self.file.output}. Go on with: {self.file.again}"
        )

    async def send(self, command: Command) -> AsyncIterator[Answer]:
        """The answer to a command; what it did is in the model before."""
        answer, events, status, snapshot = await self._served(command)
        if snapshot is not None:
            self.live.feed(snapshot)
        elif events:
            self.live.feed(Delta(events=events))
            self.live.feed(Beat(status=status))
        yield answer

    async def query(self, command: Command, kind: type[_T]) -> _T:
        """The data of a query, decoded.

        :raises Refused: if there is nothing of that name.
        """
        answer, *_ = await self._served(command)
        if answer.status == "rejected":
            raise Refused(answer.text)
        return msgspec.json.decode(answer.data, type=kind)

    async def _served(self, command: Command) -> tuple[Answer, list[AnyEvent], Status, Snapshot | None]:
        # Shielded: whoever leaves the screen right after a key has said what he said.
        return await asyncio.shield(asyncio.wrap_future(self._thread.submit(self._serve, command)))

    def _serve(self, command: Command) -> tuple[Answer, list[AnyEvent], Status, Snapshot | None]:
        """On the thread."""
        answer, events = self.file.command(command)
        shown = sum(not head.ratings for head in self.live.heads.values())
        more = bool(events) and shown < LOW and self.file.waiting() > shown
        return answer, events, self.file.status(), self.file.snapshot() if more else None
