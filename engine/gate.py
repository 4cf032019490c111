"""The rating gate: whether a step waits for people before it learns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from sessions.hyperparameters import gate_parts

QUIET_SECONDS = 5.0
"""A group rated in part counts once its rater has been quiet for so long, or has gone on to another group."""


class RatingGate:
    """Counts the rated groups of the step in progress.

    ``async`` never waits; ``wait n`` until n groups are rated; ``timeout s`` until all are, at most s seconds. A group
    counts as rated when each of its responses, or another with the same text, is rated or skipped, or when some are and
    the rater has moved on: nobody is asked to compare two equal texts.
    """

    def __init__(self) -> None:
        self._kind, self._amount = "async", 0.0
        self._alike: dict[str, dict[str, set[str]]] = {}
        self._judged: dict[str, set[str]] = {}
        self._touched: dict[str, float] = {}
        self._began = 0.0
        self._news = asyncio.Event()
        self._opened = False

    def open_for(self, gate: str, texts: Mapping[str, Mapping[str, str]]) -> None:
        """A step's groups have been scored.

        :param gate: the hyperparameter ``rating_gate``.
        :param texts: group name -> its responses, letter -> text.
        """
        self._kind, self._amount = gate_parts(gate)
        self._alike = {
            group: {letter: {other for other, its in of.items() if its == text} for letter, text in of.items()}
            for group, of in texts.items()
        }
        self._judged, self._touched = {}, {}
        self._began = time.monotonic()
        self._opened = False

    def leave(self) -> None:
        """The step goes on; what is rated from here on is late."""
        self._alike = {}

    def open(self) -> None:
        """Let the step through, whatever is rated."""
        self._opened = True
        self._news.set()

    @property
    def closed(self) -> bool:
        return bool(self._alike) and self._kind != "async" and not self._opened

    @property
    def wanted(self) -> int:
        """Groups that must be rated."""
        return min(int(self._amount), len(self._alike)) if self._kind == "wait" else len(self._alike)

    def judged(self, group: str, letters: set[str]) -> None:
        """A person rated or skipped responses of a group; no letters: the whole group."""
        if group in self._alike:
            alike = self._alike[group]
            self._judged.setdefault(group, set()).update(*(alike[one] for one in letters or alike if one in alike))
            self._touched = {group: time.monotonic()}
            self._news.set()

    def taken_back(self, group: str, letters: set[str] | None) -> None:
        """A person took a rating or a skip back.

        :param letters: responses of the group that are judged still, as for :meth:`judged`; None: none are.
        """
        self._judged.pop(group, None)
        if letters is not None:
            touched = dict(self._touched)
            self.judged(group, letters)
            self._touched = touched

    def rated(self) -> int:
        """Groups that count as rated now."""
        now = time.monotonic()
        return sum(
            len(letters) >= len(self._alike[group])
            or now - self._touched.get(group, -QUIET_SECONDS) >= QUIET_SECONDS
            for group, letters in self._judged.items()
        )  # fmt: skip

    @property
    def seconds_left(self) -> float | None:
        """Until a timeout lets the step through; None if there is none."""
        return max(0.0, self._began + self._amount - time.monotonic()) if self._kind == "timeout" else None

    @property
    def satisfied(self) -> bool:
        left = self.seconds_left
        return self._opened or self.rated() >= self.wanted or (left is not None and left <= 0)

    async def news(self, timeout: float) -> None:
        """Wait until something is rated, or for ``timeout`` seconds."""
        self._news.clear()
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError:
            return
