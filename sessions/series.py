"""A metric over steps that stays small: whole while short, then the extremes of equal buckets of steps."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from sessions.records import SeriesData


def reduce_points(
    steps: Sequence[int], values: Sequence[float | None], limit: int
) -> tuple[list[int], list[float | None]]:
    """Reduce a series to at most ``limit`` points that keep every bucket's minimum and maximum.

    Buckets are equal in points, and each gives its extremes in their order, so spikes survive and a line drawn
    through the result covers the same rows as one drawn through the whole. First and last points are kept.
    A bucket with a gap (None) and nothing else stays a gap.

    :param limit: at least 4.
    :returns: steps ascending, with their values.
    """
    n = len(steps)
    if n <= limit:
        return list(steps), list(values)
    buckets = (limit - 2) // 2
    kept: list[int] = [0]
    for bucket in range(buckets):
        low = 1 + bucket * (n - 2) // buckets
        high = 1 + (bucket + 1) * (n - 2) // buckets
        part = values[low:high]
        finite = [v for v in part if v is not None]
        if not finite:
            kept.append(low)
            continue
        # list.index and not a search by key: a snapshot reduces a whole history on the event loop of the engine
        kept.extend(sorted({low + part.index(min(finite)), low + part.index(max(finite))}))
    kept.append(n - 1)
    return [steps[i] for i in kept], [values[i] for i in kept]


class Series:
    """The points of one metric, at most ``capacity`` of them in memory (0: all).

    :ivar version: grows with every change, for caches.
    """

    def __init__(self, name: str, capacity: int = 0) -> None:
        self.name = name
        self.capacity = capacity
        self.steps: list[int] = []
        self.values: list[float | None] = []
        self.version = 0

    def __len__(self) -> int:
        return len(self.steps)

    def append(self, step: int, value: float | None) -> None:
        """Add the value of a step; a step at or before the last one replaces from there on (a rewind)."""
        if value is not None and not math.isfinite(value):
            value = None
        if self.steps and step <= self.steps[-1]:
            at = bisect.bisect_left(self.steps, step)
            del self.steps[at:], self.values[at:]
        self.steps.append(step)
        self.values.append(value)
        self.version += 1
        if self.capacity and len(self.steps) > 2 * self.capacity:
            self.steps, self.values = reduce_points(self.steps, self.values, self.capacity)

    def load(self, data: SeriesData) -> None:
        """Replace the points."""
        self.steps, self.values = list(data.steps), list(data.values)
        self.version += 1

    @property
    def first_step(self) -> int | None:
        """The step of the oldest point."""
        return self.steps[0] if self.steps else None

    @property
    def last(self) -> float | None:
        """The newest value."""
        return self.values[-1] if self.values else None

    def window(self, first: int, last: int, limit: int = 2000) -> SeriesData:
        """The points of steps ``first`` to ``last``, both included, reduced to at most ``limit``."""
        low, high = bisect.bisect_left(self.steps, first), bisect.bisect_right(self.steps, last)
        steps, values = reduce_points(self.steps[low:high], self.values[low:high], limit)
        return SeriesData(name=self.name, steps=steps, values=values)

    def data(self, limit: int = 2000) -> SeriesData:
        """The whole series, reduced to at most ``limit`` points."""
        steps, values = reduce_points(self.steps, self.values, limit)
        return SeriesData(name=self.name, steps=steps, values=values)
