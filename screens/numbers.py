"""Numbers and times as the screens write them: short, and of the same width from one moment to the next."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence


def short(value: float | None) -> str:
    """A number in about four characters: ``.412``, ``1.31``, ``212``, ``1.9k``, ``1e-6``; ``-`` for none."""
    if value is None or not math.isfinite(value):
        return "-"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 0.001:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if size < 0.9995:
        return f"{value:.3f}".replace("0.", ".", 1)
    if size < 99.95:
        return f"{value:.2f}"
    if size < 999.5:
        return f"{value:.0f}"
    for limit, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")):
        if size < limit * 999.5:
            return f"{value / limit:.1f}{unit}" if size < limit * 9.95 else f"{value / limit:.0f}{unit}"
    return f"{value:.0e}".replace("e+", "e")


def percent(value: float | None) -> str:
    """A share as ``38%``."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.0f}%"


def span(seconds: float | None) -> str:
    """A length of time: ``4 s``, ``12 min``, ``3h12m``, ``2d03h``."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 86_400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 86_400}d{seconds % 86_400 // 3600:02d}h"


def clock_time(when: float) -> str:
    """The time of day of a moment."""
    return time.strftime("%H:%M:%S", time.localtime(when))


def size(count: float) -> str:
    """Bytes: ``41 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def bar(part: float, width: int, full: str = "#", empty: str = ".") -> str:
    """A share of a width: ``[####....]`` without the brackets."""
    filled = round(min(max(part, 0.0), 1.0) * width) if math.isfinite(part) else 0
    return full * filled + empty * (width - filled)


def axis_label(value: float) -> str:
    """A tick's number in few characters: ``0.50``, ``400``, ``2e-12``, ``1.2M``."""
    size = abs(value)
    if size < 1e-300:
        return "0"
    if size < 0.001 or size >= 1e15:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if size < 1000:
        return f"{value:.3f}".rstrip("0").removesuffix(".")[:6]
    return short(value)


def axis_labels(values: Sequence[float]) -> list[str]:
    """The numbers of equally spaced ticks, with the same number of decimals where that is short enough."""
    largest = max((abs(value) for value in values), default=0.0)
    step = abs(values[1] - values[0]) if len(values) > 1 else largest
    if step and step >= 0.0001 and largest < 1000:
        decimals = next(d for d in range(5) if d == 4 or abs(step * 10**d - round(step * 10**d)) < 1e-6 * step * 10**d)
        labels = [f"{value:.{decimals}f}" for value in values]
        if max(map(len, labels)) <= 6:
            return ["0" if float(label) == 0 else label for label in labels]
    return [axis_label(0.0 if abs(value) < step * 1e-6 else value) for value in values]


def reward_text(value: float | None) -> str:
    """A reward in a row of them: ``1``, ``0``, ``.5``, ``-.25``."""
    if value is None:
        return "-"
    text = f"{value:.2f}".rstrip("0").removesuffix(".")
    return "0" if text in ("-0", "0", "") else text.replace("0.", ".", 1) if abs(value) < 1 else text
