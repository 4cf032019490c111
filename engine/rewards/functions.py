"""Rewards that compare a response with the reference answer. Where there is no reference, they do not apply."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from engine.rewards.component import RewardFunction, Rewards
from engine.rewards.texts import Completion, after, texts_of

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def exact(*, case: bool = True, blanks: str = "ends", mark: str = "") -> RewardFunction:
    """1 when the response is the answer, else 0; None where there is no answer.

    :param case: whether upper and lower case differ.
    :param blanks: that do not count: those at both ``ends``; how long ``runs`` between words are, too; ``all``; or
        ``none``, where every blank counts.
    :param mark: only what follows its last place in the response is compared; without one the reward is 0.
    """

    def plain(text: str) -> str:
        if blanks == "ends":
            text = text.strip()
        elif blanks == "runs":
            text = " ".join(text.split())
        elif blanks == "all":
            text = "".join(text.split())
        return text if case else text.casefold()

    def reward(prompts: object, completions: Sequence[Completion], answer: Sequence[str], **_: Any) -> Rewards:
        values: Rewards = []
        for text, right in zip(texts_of(completions), answer, strict=True):
            given = after(mark, text)
            values.append(None if not right else float(given is not None and plain(given) == plain(right)))
        return values

    return reward


def last_number(text: str) -> Decimal | None:
    """The last number of a text; thousands separators are ignored, ``18.0`` equals ``18``."""
    found = _NUMBER.findall(text[-4000:])
    if not found:
        return None
    try:
        return Decimal(found[-1].replace(",", ""))
    except InvalidOperation:
        return None


def numeric(*, tolerance: float = 0.0) -> RewardFunction:
    """1 when the last number of the response is that of the answer, else 0; None where the answer holds no number.

    :param tolerance: largest difference that still counts as equal.
    """
    margin = Decimal(repr(tolerance))

    def reward(prompts: object, completions: Sequence[Completion], answer: Sequence[str], **_: Any) -> Rewards:
        values: Rewards = []
        for text, right in zip(texts_of(completions), answer, strict=True):
            wanted, found = last_number(right), last_number(text)
            if wanted is None:
                values.append(None)
            else:
                values.append(float(found is not None and _near(found, wanted, margin)))
        return values

    return reward


def _near(a: Decimal, b: Decimal, margin: Decimal) -> bool:
    return a == b or (margin > 0 and abs(a - b) <= margin)


exact_match = exact()
"""``exact`` at its defaults."""

last_number_reward = numeric()
"""``last_number`` at its defaults."""


def reference_of(answer: str) -> str:
    """The part of a worked answer that counts: what follows the last ``####``, else all of it."""
    return answer.rsplit("####", 1)[-1].strip()
