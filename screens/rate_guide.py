"""The guide: what a person who rates looks at, in words of their own; kept with the session."""

from __future__ import annotations

from screens.safe import visible
from sessions.errors import WorkbenchError
from sessions.folders import SessionFolder, replace_file
from sessions.private import read_file

DEFAULT = (
    "1. Is the final answer right?   2. Is each step valid?\n"
    "3. Would you want the model to write like this again?\n"
    "Unsure after 30 s: x skip, it costs nothing."
)
FILE = "guide.txt"
MOST = 20_000
"""Bytes of a guide."""


def read_guide(folder: SessionFolder | None) -> str:
    """The session's guide; the default where it has none, or none that can be read."""
    if folder is None:
        return DEFAULT
    try:
        text = read_file(folder.path / FILE, MOST).decode("utf-8", errors="replace")
    except (OSError, WorkbenchError):
        return DEFAULT
    return visible(text, newlines=True).strip("\n") or DEFAULT


def write_guide(folder: SessionFolder, text: str) -> None:
    """Keep a guide with the session; an empty one brings the default back.

    :raises OSError: if it cannot be written.
    """
    kept = text.strip().encode("utf-8", errors="replace")[: MOST - 1].decode("utf-8", errors="ignore")
    replace_file(folder.path / FILE, kept + "\n" if kept else "")
