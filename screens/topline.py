"""The two lines at the top of every screen: the state of the run, and its alarms."""

from __future__ import annotations

import time

from textual.content import Content

from screens.live import Live
from screens.numbers import bar, short, span
from screens.safe import fit, visible

STATE_STYLE = {
    "LOADING": "bold $text-accent",
    "RUN": "bold $text-success",
    "PAUSED": "bold $text-warning",
    "WAIT": "bold $text-warning",
    "STALE": "bold reverse $text-warning",
    "DOWN": "bold reverse $text-error",
    "DONE": "bold $text-primary",
    "FAILED": "bold reverse $text-error",
    "REPLAY": "bold reverse $text-primary",
    "FILE": "bold $text-primary",
}
"""Theme variables only; the word itself says the state where there is no colour."""


def join_parts(parts: list[tuple[int, str]], width: int) -> str:
    """Parts in their order, as many as fit; those with the largest number are left out first."""
    kept = [part for part in parts if part[1]]
    for gap in ("   ", "  "):
        if len(gap.join(text for _, text in kept)) <= width:
            return gap.join(text for _, text in kept)
    while kept and len("  ".join(text for _, text in kept)) > width:
        last = max(range(len(kept)), key=lambda i: (kept[i][0], i))
        del kept[last]
    return "  ".join(text for _, text in kept)


def state_content(live: Live, width: int, middle: list[tuple[int, str]] | None = None, right: str = "") -> Content:
    """The state word, then what fits of the parts, then ``right`` at the right edge.

    :param middle: (rank, text) parts instead of the usual ones; parts with the largest rank are left out first.
    """
    word = live.state_word()
    room = width - len(word) - 3 - (len(right) + 3 if right else 1)
    text = visible(join_parts(state_parts(live, width) if middle is None else middle, room))
    if right:
        text = fit(text, room) + "  " + right
    return Content.assemble(" ", (word, STATE_STYLE[word]), "  ", text)


def state_parts(live: Live, width: int) -> list[tuple[int, str]]:
    """What the dashboard's first line says after the state word."""
    status = live.status
    if status is None:
        return [(0, live.name), (1, "no engine answers yet" if live.connection == "connecting" else "")]
    if live.connection == "file":
        return [(0, live.name), (1, f"{status.done} of {status.total} group{'s' * (status.total != 1)} rated")]
    name = f"{live.name or status.session}/{status.branch}"
    step = f"step {status.step}" + (f"/{status.steps}" if status.steps else "")
    parts = [(0, name), (4, status.algorithm.upper()), (1, step)]
    word = live.state_word()
    if live.warming:  # a step of the warm-up is told by its progress
        parts = [(0, name), (1, phase_text(live))] if word == "PAUSED" else [(0, name)]
    if word == "STALE":
        progress = f", last phase {status.phase} {status.done}/{status.total}" if status.total else ""
        return [*parts, (0, f"no heartbeat for {span(live.silence())}{progress}")]
    if word == "DOWN":
        return [*parts, (0, f"connection lost, trying again (attempt {live.attempts})")]
    if word == "LOADING" and live.restarting:
        return [*parts, (0, "starting the engine again")]
    if word == "LOADING" and status.note:
        if not status.algorithm:  # the model is not there yet, and neither is a step
            parts = parts[:1]
        return [*parts, (2, visible(status.note)), (6, f"elapsed {span(status.elapsed)}")]
    if word in ("DONE", "FAILED"):
        cause = visible(live.exit.cause) if live.exit else "the engine has ended"
        return [*parts, (0, cause)]
    if word == "REPLAY":
        rate = f"{short(status.tokens_per_second)} tok/s" if status.tokens_per_second else ""
        return [*parts, (2, moment_text(status.time)), (3, rate), (5, f"elapsed {span(status.elapsed)}")]
    if word == "PAUSED" and status.note:
        who, _, keys = status.note.partition("; ")  # who is said even where there is no room for the keys
        return [*parts, (2, who), (3, keys)]
    if word == "WAIT":
        return [*parts, (0, phase_text(live))]
    parts.append((2, phase_text(live, with_bar=width >= 140)))
    if status.note:
        parts.append((2 if live.warming else 0, status.note))  # what the engine is about explains all the rest
    if status.tokens_per_second:
        parts.append((3, f"{short(status.tokens_per_second)} tok/s"))
    wide = width >= 140
    if wide:
        parts.append((7, f"elapsed {span(status.elapsed)}"))
    if status.left is not None:
        parts.append((5, f"left {span(status.left)}" if wide else span(status.left)))
    if wide:
        parts.append((8, f"engine pid {status.pid} ok"))
    return parts


def moment_text(when: float) -> str:
    """``2026-11-22 17:46:24``, in the time zone of the terminal; nothing for a moment that was not recorded."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when)) if when else ""


def phase_text(live: Live, *, with_bar: bool = False) -> str:
    """``sampling 41/64``, with a bar where there is room; at the rating gate, what it waits for."""
    status = live.status
    if status is None:
        return ""
    if live.connection == "replay":
        return f"step {status.step}"
    if status.state == "WAIT" and status.note:
        return status.note.partition(";")[0]
    if not status.total or status.phase == "idle":
        return status.phase
    text = f"{status.phase} {status.done}/{status.total}"
    if with_bar:
        text += f" [{bar(status.done / status.total, 20)}]"
    return text


def alarm_content(live: Live, width: int) -> Content:
    """The standing alarms, newest first, as many as fit; blank when there are none. Of a file that is rated: where the
    ratings go."""
    alarms = live.standing_alarms()
    if live.connection == "file" and live.status is not None:
        text = visible(live.status.note)
        room = max(0, width - 2)
        if len(text) > room:  # the end of a path says more than its beginning
            start = text.index("/") if "/" in text else 0
            text = f"{text[:start]}..{text[len(text) - max(0, room - start - 2) :]}"
        return Content.styled(f" {text[:room]}", "$text-muted")
    if not alarms:
        return Content("")
    hint = "! ack  e events"
    room = width - len(hint) - 3
    content = Content(" ")
    used = 0
    for count, alarm in enumerate(alarms):
        left = len(alarms) - count
        text = f"! {visible(alarm.message)}"
        reserve = len(f"  +{left - 1} more") if left > 1 else 0
        if used and used + 3 + len(text) + reserve > room:
            more = f"  +{left} more"
            content = content.append(more)
            used += len(more)
            break
        if used:
            content = content.append("   ")
            used += 3
        text = fit(text, min(len(text), max(10, room - used - reserve)))
        content = content.append(Content.styled(text, "$text-error" if alarm.level == "error" else "$text-warning"))
        used += len(text)
    return Content.assemble(content, " " * max(1, width - used - len(hint) - 2), (hint, "$foreground-muted"))
