"""The vertical axis: where a value stands, and at which round numbers the ticks are."""

from __future__ import annotations

import math
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_LARGEST = 1e300
"""Values beyond are drawn at this: differences of larger ones are infinite."""


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places between 0 (bottom) and 1 (top).

    :ivar ticks: in the scale's own terms: values, or their decimal logarithms.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value stands; inside the axis whatever it is."""
        if self.log:
            value = math.log10(value) if value > 0 else self.low
        value = min(max(value, -_LARGEST), _LARGEST)
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def row(self, tick: float, height: int) -> int:
        """The row, from the top, of a tick on a canvas of so many rows."""
        return round((self.high - tick) / (self.high - self.low) * (height - 1))


def linear_scale(low: float, high: float, intervals: int) -> Scale:
    """An axis around ``low`` to ``high`` with at most ``intervals`` equal parts between round numbers."""
    low, high = max(low, -_LARGEST), min(high, _LARGEST)
    size = max(abs(low), abs(high))
    if high - low <= max(size * 1e-9, 1e-300):  # constant: what differs less is rounding
        middle = (low + high) / 2
        low, high = (0.0, 1.0) if size < 1e-290 else (middle - size / 2, middle + size / 2)
    elif 0 < low < 0.4 * high:
        low = 0.0
    elif low < high < 0 and high > 0.4 * low:
        high = 0.0
    step = (high - low) / intervals
    exponent = math.floor(math.log10(step))
    for more in range(3):
        for factor in _STEPS:
            nice = factor * 10.0 ** (exponent + more)
            if nice < step * 0.999999:
                continue
            bottom, top = math.floor(low / nice + 1e-9), math.ceil(high / nice - 1e-9)
            if top - bottom <= intervals and top > bottom:
                return Scale(bottom * nice, top * nice, tuple(n * nice for n in range(bottom, top + 1)))
    return Scale(low, high, (low, high))


def log_scale(low: float, high: float, intervals: int) -> Scale:
    """A logarithmic axis between powers of ten; both values are above 0."""
    bottom, top = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    if top <= bottom:
        top = bottom + 1
    step = max(1, math.ceil((top - bottom) / intervals))
    return Scale(bottom, top, tuple(float(n) for n in range(bottom, top + 1, step)), log=True)
