"""Errors in words."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """An error as its kind and the first line of its message."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
