"""What a check of ``workbench doctor`` says."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Literal

import msgspec

Result = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct):
    """What one check found.

    :ivar result: ``fail`` is in the way of a session, ``warn`` may be one day.
    :ivar what: one line.
    :ivar remedy: one line with something to type; empty where nothing needs to be done.
    :ivar check: its name.
    """

    result: Result
    what: str
    remedy: str = ""
    check: str = ""


def output_of(words: Sequence[str], seconds: float = 3.0) -> str | None:
    """What a program prints; None if it is not there, fails, or takes longer."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None
