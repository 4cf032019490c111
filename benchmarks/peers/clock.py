"""Seconds of steps and of their phases, on either side: wall and of the processor."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.peers.job import Step

REST = "rest"
"""What no phase claims."""
COLLECTING = "garbage collection"
"""Python's own, asked for by a trainer: a constant that small models make look large."""


class Clock:
    """Charges time to the innermost open phase, so that the phases of a step add up to it.

    :ivar steps: finished ones.
    """

    def __init__(
        self, now: Callable[[], tuple[float, float]] = lambda: (time.perf_counter(), time.process_time())
    ) -> None:
        self._now = now
        self.steps: list[Step] = []
        self._open = [REST]
        self.begin()

    def begin(self) -> None:
        """The first step begins here; what came before does not count."""
        self._last = self._now()
        self._charged: dict[str, tuple[float, float]] = {}

    def lap(self, tokens: int) -> None:
        """A step ends here, and the next begins."""
        self._charge()
        wall, cpu = (sum(spent) for spent in zip(*self._charged.values(), strict=True))
        self.steps.append(Step(wall, cpu, self._charged, tokens))
        self._charged = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs inside belongs to the phase, but for the phases inside it."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def enter(self, name: str) -> None:
        self._charge()
        self._open.append(name)

    def leave(self) -> None:
        self._charge()
        self._open.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its calls charged to a phase."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        return call

    def wrap(self, owner: Any, method: str, name: str) -> None:
        """Charge every call of a method, or of a module's function, to a phase."""
        setattr(owner, method, self.timed(name, getattr(owner, method)))

    def _charge(self) -> None:
        now = self._now()
        wall, cpu = self._charged.get(self._open[-1], (0.0, 0.0))
        self._charged[self._open[-1]] = (wall + now[0] - self._last[0], cpu + now[1] - self._last[1])
        self._last = now
