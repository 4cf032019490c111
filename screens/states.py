"""What a pane says when it has nothing to show yet, or never will: loading and failed, in words."""

from __future__ import annotations

from typing import Literal

from screens.live import Live
from screens.numbers import clock_time, span
from screens.safe import visible

PaneState = Literal["loading", "live", "failed"]


def pane_state(live: Live) -> PaneState:
    """``loading`` until the first snapshot, ``failed`` once the engine died, else ``live``."""
    if live.restarting:
        return "loading"
    if live.state_word() == "FAILED":
        return "failed"
    if live.status is None or (live.status.state == "LOADING" and live.last_step is None):
        return "loading"
    return "live"


def loading_lines(live: Live) -> list[str]:
    """What the engine is doing before there is anything to show."""
    if live.restarting:
        return [f"starting the engine of {live.name} again, from its last checkpoint ..."]
    if live.status is None and live.connection == "live" and live.complaint:
        return [visible(live.complaint), "", "Of the commands only :status and :stop are served (Q asks first)."]
    if live.status is None:
        tries = f" (attempt {live.attempts})" if live.attempts > 1 else ""
        lines = [f"connecting to the engine of {live.name or 'the session'}{tries} ..."]
        if live.complaint:
            lines.append(visible(live.complaint))
        return lines
    status = live.status
    lines = [f"the engine is starting: {visible(status.note) or status.phase}"]
    if status.total:
        lines.append(f"{status.done} of {status.total}")
    lines.append(f"since {span(status.elapsed)}")
    return lines


def failed_lines(live: Live) -> list[str]:
    """Why the engine is gone, the end of its log, what can be saved."""
    lines = []
    if live.exit is not None:
        ended = live.exit
        code = ended.signal or f"exit code {ended.code}"
        aside = "" if code in ended.cause else f" ({code})"
        lines.append(f"the engine failed at {clock_time(ended.ended)}: {visible(ended.cause)}{aside}")
        if ended.out_of_memory:
            lines.append("it ran out of memory: lower max_new_tokens or prompts_per_step, or raise minibatches")
    else:
        lines.append("the engine is gone and left no word of how it ended")
    if live.checkpoints:
        newest = live.checkpoints[-1]
        age = span(live.clock() - newest.time)
        lines.append(f"last checkpoint: step {newest.step}, {age} ago.   R restarts from it, L shows the log")
        after = live.newest_step() - newest.step
        if after > 0:
            steps = f"the {after} steps since are" if after > 1 else "the step since is"
            lines.append(
                f"nothing recorded is lost: {steps} computed again from {'their' if after > 1 else 'its'} records"
            )
    else:
        lines.append("there is no checkpoint yet.   R starts again from the beginning, L shows the log")
    lines.append("")
    lines += [visible(line) for line in live.log_tail[-15:]] or ["(the log is empty)"]
    return lines
