"""Sessions from a script or a notebook: read what was recorded, and speak to an engine that runs.

Nothing here needs torch; records are read as they are, whether the session trains or has ended.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from sessions.client import attached
from sessions.commands import Command, parse_words
from sessions.errors import Refused, SessionError
from sessions.evaluations import HeldOut
from sessions.folders import SessionFolder, all_sessions, session_folder
from sessions.people import whoami
from sessions.records import Group, Rating, StepRecord, parse_response_name
from sessions.store import Store
from sessions.wire import Answer

_T = TypeVar("_T")


def session_names() -> list[str]:
    """Every session, the newest first."""
    return [folder.name for folder in all_sessions()]


def open_session(name: str) -> Session:
    """A session by name.

    :raises NoSuchSession: offering the nearest name.
    """
    return Session(session_folder(name))


class Session:
    """What a session has recorded, and its engine where one runs.

    A context manager; left open it holds the database open for reading, which disturbs nobody.
    """

    def __init__(self, folder: SessionFolder) -> None:
        self.folder = folder
        self._store = Store(folder.database, read_only=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    @property
    def running(self) -> bool:
        """Whether an engine trains it now."""
        return self.folder.running()

    @property
    def branch(self) -> str:
        """The branch that is trained."""
        return self._store.active

    def steps(self, branch: str = "") -> list[StepRecord]:
        """The steps of a branch, those of its ancestors before them: metrics, hyperparameters, when.

        :param branch: empty: the active one.
        """
        return self._store.steps(branch or self.branch)

    def metrics(self, branch: str = "") -> list[str]:
        """The names of everything that was measured."""
        return sorted(self._store.series(branch or self.branch))

    def metric(self, name: str, branch: str = "") -> dict[int, float]:
        """A metric by step; steps where it was not finite are left out.

        :raises SessionError: if nothing of that name was measured.
        """
        series = self._store.series(branch or self.branch).get(name)
        if series is None:
            raise SessionError(f"session {self.folder.name!r} has measured no {name!r}; metrics() lists what it has")
        return {step: value for step, value in zip(series.steps, series.values, strict=True) if value is not None}

    def groups(self, first: int = 1, last: int = 2**62, branch: str = "", *, tokens: bool = False) -> Iterator[Group]:
        """The groups of some steps, both ends included: prompts, responses, rewards, advantages.

        :param tokens: with what is kept for each token.
        """
        for part in self._store.line(branch or self.branch):
            cut = part._replace(after=max(part.after, first - 1), last=min(part.last, last))
            if cut.after < cut.last:
                yield from self._store.each_group(cut, tokens=tokens)

    def group(self, name: str) -> Group:
        """One group by name, such as ``812.3``, with its tokens."""
        return self._store.group(parse_response_name(name), self.branch)

    def ratings(self, limit: int = 100_000) -> list[Rating]:
        """The newest ratings, oldest first."""
        return self._store.recent_ratings(limit)

    def evaluation(self, step: int) -> HeldOut | None:
        """What was answered to the held-out prompts after a step; None: it was not evaluated."""
        return self._store.held_out(self.branch, step)

    def send(self, words: str) -> Answer:
        """Send a command to the engine, in the words of ``workbench send``; returns its last answer.

        ``answer.text`` says what became of it, ``answer.data`` is the JSON that a query is answered with.

        :raises SessionError: if there is no engine.
        :raises Refused: if it rejects the command.
        """
        engine = self.folder.engine()
        if engine is None or not self.running:
            name = self.folder.name
            raise SessionError(f"session {name!r} has no engine; `workbench run --name {name}` starts one")
        answer = _in_a_loop(_send(engine.socket, parse_words(words)))
        if answer.status == "rejected":
            raise Refused(answer.text)
        return answer

    def query(self, words: str) -> Any:
        """What a query of ``workbench send`` is answered, as plain objects."""
        return msgspec.json.decode(self.send(words).data or "null")


async def _send(socket: str, command: Command) -> Answer:
    async with attached(socket, "script", who=whoami()) as client:
        return await client.send_and_wait(command)


def _in_a_loop(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end; on a thread of its own, for a notebook has a loop that runs already."""
    found: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            failed.append(error)

    thread = threading.Thread(target=run, name="session")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
