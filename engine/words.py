"""Errors in words."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """An error as its kind and the first line of its message, and the next where that only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return f"{type(error).__name__}: {' '.join(lines[:2] if lines[0].endswith(':') else lines[:1])}"
