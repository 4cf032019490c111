"""The first line of the screens that are not the dashboard: the state in brief, and the screen's own words."""

from __future__ import annotations

from textual.content import Content

from screens.live import Live
from screens.topline import phase_text, state_content

WIDE = 100


def heading(live: Live, width: int, title: str, parts: list[tuple[int, str]] | None = None) -> Content:
    """State word, a few facts, and ``title`` at the right.

    :param parts: (rank, text) facts of the screen instead of the usual ones. While something is wrong with the engine
        that is said instead, whatever the screen.
    """
    if live.state_word() not in ("RUN", "PAUSED", "WAIT", "REPLAY"):
        return state_content(live, width, right=title)
    status = live.status
    if parts is None and width < WIDE and status is not None:
        phase = "" if live.connection == "replay" else status.phase
        parts = [(0, phase_text(live))] if live.warming else [(0, f"step {status.step}"), (2, phase)]
        if status.note and live.state_word() in ("RUN", "PAUSED") and not live.warming:
            parts.append((1, status.note.partition("; ")[0]))  # who paused it, or what it is about
    return state_content(live, width, parts, title)
