"""What the runs learn from, the same function on every side, in TRL's signature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.rewards.functions import exact_match, last_number_reward

Reward = Callable[..., Sequence["float | None"]]


def brief(prompts: Sequence[str], completions: Sequence[str], answer: Sequence[str], **_: Any) -> list[float | None]:
    """1 for a right last number, less 0.01 a character.

    So that few groups are dead with a model that is nearly always wrong: nobody may win by leaving groups out.
    """
    right = last_number_reward(prompts, completions, answer)
    return [(found or 0.0) - 0.01 * len(text) for found, text in zip(right, completions, strict=True)]


REWARDS: dict[str, Reward] = {"exact": exact_match, "brief": brief}
