r"""Rewards of how long a response is.

With n the length, a the ``target`` and b the ``limit``:

========  ==================================================================================  ========
linear    :math:`0` up to a, :math:`-(n - a)/(b - a)` between, :math:`-1` beyond b            DAPO (2025), eq. 13
cosine    :math:`(\cos(\pi x) - 1)/2` with :math:`x = (n - a)/(b - a)` clipped to [0, 1]      smooth at both ends
distance  :math:`-\min(1, |n - a| / a)`                                                       as in L1 (2025), eq. 2
========  ==================================================================================  ========
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from engine.rewards.component import Failed, RewardFunction, Rewards
from engine.rewards.texts import Completion, texts_of


def sizes(unit: str, completions: Sequence[Completion], ids: Sequence[Sequence[int]] | None) -> list[int]:
    """How long each response is, in tokens (its end token counts), words (between blanks) or characters.

    :raises ValueError: if tokens are wanted and were not handed over.
    """
    if unit == "tokens":
        if ids is None:
            raise ValueError("the responses' tokens were not handed over; count words or characters: unit=words")
        return [len(tokens) for tokens in ids]
    if unit == "words":
        return [len(text.split()) for text in texts_of(completions)]
    return [len(text) for text in texts_of(completions)]


def linear(n: int, target: int, limit: int) -> float:
    """0 up to the target, falling in a line to -1 at the limit."""
    if n <= target:
        return 0.0
    return -1.0 if n > limit else (target - n) / (limit - target)


def cosine(n: int, target: int, limit: int) -> float:
    """The same along half a cosine."""
    if limit == target:
        return linear(n, target, limit)
    return (math.cos(math.pi * min(max((n - target) / (limit - target), 0.0), 1.0)) - 1) / 2


def distance(n: int, target: int, limit: int) -> float:
    """0 at the target, falling in a line on both sides to -1 at nothing and at twice the target."""
    return -min(1.0, abs(n - target) / target) if target else -float(n > 0)


SHAPES = {"linear": linear, "cosine": cosine, "distance": distance}


def length(*, target: int, limit: int, unit: str = "tokens", shape: str = "linear") -> RewardFunction:
    """A penalty from -1 to 0 for a length, by one of :data:`SHAPES`."""
    curve = SHAPES[shape]

    def reward(
        prompts: object,
        completions: Sequence[Completion],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **_: Any,
    ) -> Rewards:
        return [curve(n, target, limit) for n in sizes(unit, completions, completion_ids)]

    return reward


def scaled_by_length(
    correct: RewardFunction,
    *,
    limit: int,
    unit: str = "tokens",
    right: tuple[float, float] = (1.0, 0.5),
    wrong: tuple[float, float] = (-1.0, -0.5),
) -> RewardFunction:
    r"""Right or wrong, scaled by length along half a cosine: right answers early, wrong ones late.

    .. math:: R = v_l + \tfrac{1}{2} (v_s - v_l) (1 + \cos(\pi \min(n / L, 1)))

    Yeo and others (2025), "Demystifying long chain-of-thought reasoning in LLMs", appendix C.1.

    :param correct: says which are right: any reward of 1 or more; None: the response is left out.
    :param limit: L.
    :param right: of a right answer (:math:`v_s` of no length, :math:`v_l` at the limit and beyond).
    :param wrong: of a wrong answer.
    """

    def value(told: float | Failed | None, n: int) -> float | Failed | None:
        if told is None or isinstance(told, Failed):
            return told
        short, long = right if told >= 1 else wrong
        return long + 0.5 * (short - long) * (1 + math.cos(math.pi * min(n / limit, 1.0)))

    def reward(
        prompts: object,
        completions: Sequence[Completion],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> Rewards:
        lengths = sizes(unit, completions, completion_ids)
        told = correct(prompts=prompts, completions=completions, **columns)
        return [value(t, n) for t, n in zip(told, lengths, strict=True)]

    return reward
