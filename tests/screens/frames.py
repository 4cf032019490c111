"""What is on the screen, as text; and waiting for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.app import App

GOLDEN = Path(__file__).parent / "golden"
UPDATE = "WORKBENCH_UPDATE_GOLDEN"
"""Set this variable to write the golden frames again."""
PATIENCE = 120.0
"""Seconds before a wait is given up; only a broken test waits so long."""


def frame(app: App[Any]) -> str:
    """The whole screen as lines of text, spaces at their ends left out."""
    # The one place that reads what Textual keeps to itself.
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


async def until(what: Callable[[], object], why: str = "it") -> None:
    """Wait until ``what`` holds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while not what():
        assert loop.time() < end, f"waited {PATIENCE:g} s for {why}"
        await asyncio.sleep(0.01)


async def until_shown(app: App[Any], *texts: str) -> str:
    """Wait until all the texts are on the screen.

    :returns: the frame.
    """
    try:
        await until(lambda: all(text in frame(app) for text in texts))
    except AssertionError:
        missing = [text for text in texts if text not in frame(app)]
        raise AssertionError(f"not on the screen: {missing}\n{frame(app)}") from None
    return frame(app)


def check_golden(name: str, text: str) -> None:
    """Compare a frame with the one kept under ``golden/``."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get(UPDATE):
        path.write_text(text + "\n", encoding="utf-8")
    assert path.exists(), f"no golden frame {name}; make it with {UPDATE}=1"
    assert text + "\n" == path.read_text(encoding="utf-8"), f"{name} differs; look at it, then {UPDATE}=1"
