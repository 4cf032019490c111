"""The penalty of saying the same thing again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from engine.rewards.component import RewardFunction, Rewards
from engine.rewards.texts import Completion, texts_of


def repeated_share(items: Sequence[Hashable], n: int) -> float:
    """1 - distinct n-grams / n-grams: the share that has been there before; 0 of fewer than n items."""
    total = len(items) - n + 1
    if total < 1:
        return 0.0
    return 1 - len(set(zip(*(items[i:] for i in range(n)), strict=False))) / total


def repetition(*, n: int = 3, penalty: float = -1.0, unit: str = "tokens") -> RewardFunction:
    """``penalty`` x the share of n-grams that came before in the response.

    Yeo and others (2025), "Demystifying long chain-of-thought reasoning in LLMs", appendix C.2.

    :param unit: of an n-gram: tokens, the end token included, or words (between blanks, in lower case).
    """

    def reward(
        prompts: object,
        completions: Sequence[Completion],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **_: Any,
    ) -> Rewards:
        items: Sequence[Sequence[Hashable]]
        if unit == "words":
            items = [text.lower().split() for text in texts_of(completions)]
        elif completion_ids is None:
            raise ValueError("the responses' tokens were not handed over; compare words: unit=words")
        else:
            items = completion_ids
        return [(penalty * share if (share := repeated_share(one, n)) else 0.0) for one in items]

    return reward
