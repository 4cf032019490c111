"""What the terminal can do and what the link can carry. Imported before Textual, whose settings it makes."""

from __future__ import annotations

import locale
import os
import select
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from textual.app import App

# Textual reads these when it is imported. Animations and smooth scrolling cost bytes and time on a slow link; a paint
# waits for the next frame, and a held key fills every one.
os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
os.environ.setdefault("TEXTUAL_FPS", "30")

Marks = Literal["braille", "block", "ascii"]
BYTES, SLOW_BYTES = 40_000, 8_000
"""Ceilings on what is drawn without a key, in bytes a second."""


def choose_marks(wish: str) -> Marks:
    """The marks to draw with: ascii by itself where the terminal is not UTF-8 or has no braille."""
    if wish == "block":
        return "block"
    if wish == "braille":
        return "braille"
    if wish == "ascii":
        return "ascii"
    encoding = (sys.stdout.encoding or locale.getpreferredencoding(False)).lower().replace("-", "")
    return "braille" if encoding == "utf8" and os.environ.get("TERM") != "linux" else "ascii"


def watch_for_hangup(app: App[Any]) -> None:
    """Leave when the terminal goes away.

    A thread of its own, because the loop of the app may be blocked writing to a terminal that nobody reads; one that
    ignores the hang-up would spin on a dead terminal for ever.
    """
    try:
        descriptor = sys.stdin.fileno()
    except (OSError, ValueError):
        return
    if not os.isatty(descriptor):
        return
    threading.Thread(target=_watch, args=(app, descriptor), name="hangup", daemon=True).start()


def _watch(app: App[Any], descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)
    while True:
        # poll may return at once, again and again, with events that are no hang-up.
        if any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0)):
            break
        time.sleep(1.0)
    loop = app._loop
    if loop is not None and not loop.is_closed():
        loop.call_soon_threadsafe(app.exit, "")
    time.sleep(1.0)
    os._exit(1)  # there is no terminal to restore
