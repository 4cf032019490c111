"""A metric as it was at an earlier step, cut from its whole past without reading all of that again.

Of a long past the older part is told by the extremes of equal buckets of steps, which are found once for all the
moments that share a bucket's size; the newest :data:`TAIL` points are whole, so that what lies in a window of the
last steps is exact at every moment.
"""

from __future__ import annotations

import bisect
from typing import Any

from sessions.series import Series

TAIL = 1000
"""The newest points of a moment, which are kept whole."""
BUCKETS = 480
"""Most buckets before them; each gives two points at most."""


class _Buckets:
    """The extremes of a series' buckets of one size, as far as they were asked for."""

    def __init__(self, whole: Series, size: int) -> None:
        self._whole, self._size = whole, size
        self._steps: list[int] = []
        self._values: list[float | None] = []
        self._ends = [0]

    def first(self, buckets: int) -> tuple[list[int], list[float | None]]:
        """The points of the first so many."""
        for bucket in range(len(self._ends) - 1, buckets):
            low = bucket * self._size
            part = self._whole.values[low : low + self._size]
            finite = [value for value in part if value is not None]
            places = {part.index(min(finite)), part.index(max(finite))} if finite else {0}
            for place in sorted(places if bucket else places | {0}):  # a line begins where the whole one does
                self._steps.append(self._whole.steps[low + place])
                self._values.append(part[place])
            self._ends.append(len(self._steps))
        end = self._ends[buckets]
        return self._steps[:end], self._values[:end]


class Past:
    """One metric's whole past.

    :param whole: every point of it.
    """

    def __init__(self, whole: Series) -> None:
        self.whole = whole
        self._buckets: dict[int, _Buckets] = {}

    def cut(self, count: int) -> tuple[list[int], list[float | None]]:
        """Steps and values of the first ``count`` points, the older ones reduced to extremes."""
        steps, values = self.whole.steps, self.whole.values
        older = count - TAIL
        if older <= 2 * BUCKETS:
            return steps[:count], values[:count]
        size = 1 << ((older - 1) // BUCKETS).bit_length()  # the same for many moments
        buckets = older // size
        if size not in self._buckets:
            self._buckets[size] = _Buckets(self.whole, size)
        first_steps, first_values = self._buckets[size].first(buckets)
        return first_steps + steps[buckets * size : count], first_values + values[buckets * size : count]


class PastSeries(Series):
    """A metric as it was when it had ``count`` points; its points are made when somebody first looks at them.

    :param count: at least 1.
    """

    def __init__(self, past: Past, count: int) -> None:
        # Not Series.__init__: that would make the points.
        self.name, self.capacity, self.version = past.whole.name, 0, 1
        self._past, self._count = past, count

    def __getattr__(self, name: str) -> Any:
        """Called for what is not there yet, and never again once it is."""
        if name not in ("steps", "values"):
            raise AttributeError(name)
        self.steps, self.values = self._past.cut(self._count)
        return self.__dict__[name]

    def __len__(self) -> int:
        return self._count

    @property
    def first_step(self) -> int | None:
        return self._past.whole.steps[0]

    @property
    def last(self) -> float | None:
        return self._past.whole.values[self._count - 1]


def at_step(pasts: dict[str, Past], step: int, always: str) -> dict[str, Series]:
    """Every metric that had a point by then.

    :param always: how the names of metrics begin that are over other steps and stay whole.
    """
    found: dict[str, Series] = {}
    for name, past in pasts.items():
        steps = past.whole.steps
        if always and name.startswith(always):
            found[name] = past.whole
        elif count := bisect.bisect_right(steps, step):
            found[name] = PastSeries(past, count)
    return found
