"""Asking for the name of a new branch, and sending the fork; with what is staged, where something is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from screens.staging import Staging
from screens.widgets.ask import Ask
from sessions.commands import Fork, parse_words
from sessions.errors import UsageError, WorkbenchError
from sessions.hyperparameters import check_together

if TYPE_CHECKING:
    from screens.base import WorkbenchScreen

FORK = "fork"
"""Purpose of the line in which the name is typed."""


def ask_for_name(ask: Ask, source: str, step: int, staging: Staging) -> None:
    """Ask what a branch should be called.

    :param step: where it begins; -1: at the newest of ``source``.
    """
    where = f"{source} at step {step}" if step >= 0 else f"the newest step of {source}"
    staged = f" with {_count(staging)}" if staging.staged else ""
    ask.ask(FORK, f"fork {where}{staged}, named", hint="NAME [NAME=VALUE ...] [--at STEP] [--seed N]")


def _count(staging: Staging) -> str:
    count = len(staging.staged)
    return f"{count} staged change{'s' if count != 1 else ''}"


def fork_command(text: str, source: str, step: int, staging: Staging) -> Fork:
    """The command that was asked for: the words of ``fork``, at a place unless they name another.

    :raises UsageError: if they cannot be read, or the values do not go together.
    """
    command = parse_words(f"fork {text}")
    assert isinstance(command, Fork)
    if staging.staged:
        check_together(staging.ahead())
    staged = {name: value.value for name, value in staging.staged.items()}
    given_source = command.source or source
    return msgspec.structs.replace(
        command,
        source=given_source,
        step=command.step if command.step >= 0 or given_source != source else step,
        values={**staged, **command.values},
    )


def send_fork(screen: WorkbenchScreen, text: str, source: str, step: int, staging: Staging) -> None:
    """Send what was typed; what is wrong with it is said, and can be typed again."""
    if not text.strip():
        screen.say("a branch needs a name", "warning")
        return
    try:
        command = fork_command(text, source, step, staging)
    except UsageError as error:
        ask_for_name(screen.query_one(Ask), source, step, staging)
        screen.say(str(error), "error")
        return
    except WorkbenchError as error:
        screen.say(str(error), "error")
        return
    screen.send(command)
