"""Numbers and times as the screens write them: short, and of the same width from one moment to the next."""

from __future__ import annotations

import math
import time


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
