"""A text in the person's own editor, outside of the screen."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import SuspendNotSupported

from screens.veil import unveil, veil

if TYPE_CHECKING:
    from screens.base import WorkbenchScreen


def edit_outside(screen: WorkbenchScreen, text: str, original: str) -> str | None:
    """What a text has become in ``$VISUAL`` or ``$EDITOR``; the screen waits meanwhile, the engine does not.

    :param original: what the text was made of.
    :returns: None where it was not edited; then the screen has said why.
    """
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    shown = veil(text)
    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        path = Path(folder) / "response.txt"
        path.write_text(shown, encoding="utf-8")
        try:
            with screen.app.suspend():
                done = subprocess.run([*words, str(path)], check=False)
            if done.returncode:
                screen.say(f"{words[0]} ended with code {done.returncode}: nothing is saved", "error")
                return None
            edited = path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            screen.say(f"{words[0]}: {error}; set EDITOR", "error")
            return None
        except SuspendNotSupported:
            screen.say("this terminal cannot be handed to another program; i edits here", "error")
            return None
        finally:
            screen.app.refresh()
    if edited.endswith("\n") and not shown.endswith("\n"):
        edited = edited[:-1]  # which editors add by themselves
    return unveil(edited, original)
