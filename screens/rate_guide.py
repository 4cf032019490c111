"""The guide: what a person who rates looks at, in words of their own; kept with the session, or beside the ratings."""

from __future__ import annotations

from pathlib import Path

from screens.safe import visible
from sessions.errors import WorkbenchError
from sessions.folders import replace_file
from sessions.private import read_file

DEFAULT = (
    "1. Is the final answer right?   2. Is each step valid?\n"
    "3. Would you want the model to write like this again?\n"
    "Unsure after 30 s: x skip, it costs nothing."
)
NAME = "guide.txt"
"""Of the file in a session's folder."""
MOST = 20_000
"""Bytes of a guide."""


def read_guide(path: Path | None) -> str:
    """The guide in a file; the default where there is none, or none that can be read."""
    if path is None:
        return DEFAULT
    try:
        text = read_file(path, MOST).decode("utf-8", errors="replace")
    except (OSError, WorkbenchError):
        return DEFAULT
    return visible(text, newlines=True).strip("\n") or DEFAULT


def write_guide(path: Path, text: str) -> None:
    """Keep a guide in its file; an empty one brings the default back.

    :raises OSError: if it cannot be written.
    """
    kept = text.strip().encode("utf-8", errors="replace")[: MOST - 1].decode("utf-8", errors="ignore")
    replace_file(path, kept + "\n" if kept else "")
