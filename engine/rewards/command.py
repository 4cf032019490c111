"""The reward that another program gives, in any language.

It is started once and lives as long as the session. For each group it reads one line of JSON,

    {"prompts": [...], "completions": [...], "answer": [...], ...}

with every column of the task's rows as a list that is as long as ``completions``, and writes one line,

    {"rewards": [1.0, 0.0, null, ...]}

where null means that the reward does not apply. What it writes to its standard error goes into the session's log.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec

from engine.rewards.component import Failed, Rewards
from engine.rewards.lines import NoAnswer, Program


class Command:
    """A program as a reward function; what goes wrong with it fails the group's responses, and it is started again.

    :param run: its words, as a shell splits them; no shell is involved unless asked for.
    :param folder: where it runs.
    :param seconds: that it may take for a group.
    :param through_shell: whether ``/bin/sh`` reads ``run``.
    """

    def __init__(self, run: str, *, folder: str = "", seconds: float = 60.0, through_shell: bool = False) -> None:
        self._program = Program(["/bin/sh", "-c", run] if through_shell else shlex.split(run), folder)
        self._seconds = seconds

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Rewards:
        question = {"prompts": prompts, "completions": completions, **columns}
        try:
            said = self._program.ask(_line(question), self._seconds)
            rewards = _rewards(said, len(completions))
        except NoAnswer as error:
            return [Failed(str(error))] * len(completions)
        except ValueError as error:
            self._program.close(now=True)  # whether its next line would belong to the next group, nobody can say
            return [Failed(str(error))] * len(completions)
        return rewards

    def close(self) -> None:
        """End the program."""
        self._program.close()

    @property
    def pid(self) -> int | None:
        """Of the guard in front of the program; None while nothing runs."""
        return self._program.pid


def _line(question: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(question, enc_hook=_plain)
    except (TypeError, ValueError):  # halves of surrogate pairs, keys that are no text
        return json.dumps(question, default=_plain).encode()


def _plain(value: Any) -> Any:
    """What JSON has no word for: the attributes of a state, else the text of a value."""
    return vars(value) if isinstance(value, SimpleNamespace) else str(value)


def _rewards(said: bytes, count: int) -> Rewards:
    """The rewards in a line; numbers are checked where they are added up.

    :raises ValueError: in one line, if there are none or not as many as there should be.
    """
    shown = repr(said[:80].decode("utf-8", "replace"))
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        raise ValueError(f'it answered {shown}; one line is expected that reads {{"rewards": [...]}}') from None
    rewards = answer.get("rewards") if isinstance(answer, dict) else None
    if not isinstance(rewards, list):
        raise ValueError(f'it answered {shown}; one line is expected that reads {{"rewards": [...]}}')
    if len(rewards) != count:
        raise ValueError(f"it answered {len(rewards)} rewards for {count} completions")
    return rewards
