"""The reward of a regular expression.

Patterns that backtrack can take longer than the age of the universe on a text that a policy makes up. So every search
has a time limit, which the ``regex`` package keeps inside its matcher; the standard library's cannot be stopped. (An
engine without backtracking, such as RE2, would need none, and would refuse the look-arounds and back-references that
published format rewards are written with.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import regex

from engine.rewards.component import Failed, RewardFunction, Rewards
from engine.rewards.texts import Completion, texts_of


def pattern_reward(
    pattern: str,
    *,
    match: str = "search",
    case: bool = True,
    value: float = 1.0,
    otherwise: float = 0.0,
    seconds: float = 1.0,
) -> RewardFunction:
    """``value`` where the pattern matches, else ``otherwise``; a failure where that takes too long to say.

    :param pattern: as Python's ``re`` reads it; ``.`` matches a line's end too, ``^`` and ``$`` the ends of the text.
    :param match: ``search``: anywhere; ``full``: all of the text, blanks around it aside.
    :param seconds: that one response may take.
    """
    compiled = regex.compile(pattern, regex.DOTALL | (0 if case else regex.IGNORECASE))

    def one(text: str) -> float | Failed:
        try:
            if match == "full":
                found = compiled.fullmatch(text.strip(), timeout=seconds, concurrent=True)
            else:
                found = compiled.search(text, timeout=seconds, concurrent=True)
        except TimeoutError:
            return Failed(
                f"the pattern was not done with a response of {len(text):,} characters after {seconds:g} s; "
                "repetitions inside repetitions, such as (a+)+, take that long"
            )
        return otherwise if found is None else value

    def reward(prompts: object, completions: Sequence[Completion], **_: Any) -> Rewards:
        return [one(text) for text in texts_of(completions)]

    return reward
