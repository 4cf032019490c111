"""What ratings would do to the advantages of a group, before an update has used them.

The formulas are learning.md's, on plain numbers: with w the human weight, h in [0, 1] the rating and [lo, hi] the
task's reward range,

    r <- (1 - w) r + w (lo + h (hi - lo)),    A = (r - mean) / (std + 1e-4),  std with n - 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sessions.modes import rating_mode
from sessions.records import Rating

EPSILON = 1e-4
"""Keeps the division defined where all rewards are equal."""


def scores(ratings: Iterable[Rating]) -> dict[str, float]:
    """Letter -> h in [0, 1]: the newest answer of each person, and the mean of theirs where several judged one."""
    said: dict[tuple[str, str], float] = {}
    for rating in sorted(ratings, key=lambda rating: rating.time):
        for letter, answer in rating.values.items():
            said[letter, rating.who] = rating_mode(rating.mode).score(answer)
    by_letter: dict[str, list[float]] = {}
    for (letter, _), h in said.items():
        by_letter.setdefault(letter, []).append(h)
    return {letter: sum(heights) / len(heights) for letter, heights in by_letter.items()}


def rated_rewards(
    rewards: Mapping[str, float | None],
    said: Mapping[str, float],
    weight: float,
    reward_range: tuple[float, float],
) -> dict[str, float | None]:
    """The rewards with ratings laid over.

    :param rewards: letter -> automatic reward; None where there is none: then the rating stands in for it.
    :param said: letter -> h.
    :param weight: w; 1 replaces the automatic reward.
    """
    low, high = reward_range
    out = dict(rewards)
    for letter, h in said.items():
        if letter in rewards:
            level = low + h * (high - low)
            automatic = rewards[letter]
            out[letter] = level if automatic is None else (1 - weight) * automatic + weight * level
    return out


def advantages(rewards: Mapping[str, float | None], scale: str = "group") -> dict[str, float]:
    """Group-relative advantages; 0 for a response without a reward.

    :param scale: ``group`` divides by the group's standard deviation, ``none`` does not. ``batch`` needs the whole
        step, which a preview has not: the group's stands in for it.
    """
    scored = [reward for reward in rewards.values() if reward is not None]
    if len(scored) < 2:
        return dict.fromkeys(rewards, 0.0)
    mean = sum(scored) / len(scored)
    std = (sum((reward - mean) ** 2 for reward in scored) / (len(scored) - 1)) ** 0.5
    divisor = 1.0 if scale == "none" else std + EPSILON
    return {letter: 0.0 if reward is None else (reward - mean) / divisor for letter, reward in rewards.items()}


def show_advantages(values: Mapping[str, float]) -> str:
    """``A+.94 B-.94 C 0``."""
    return " ".join(f"{letter}{short(value):>2}" for letter, value in values.items())


def short(value: float) -> str:
    """A signed number in four or five cells: ``+.94``, ``-1.25``, ``0``."""
    text = f"{value:+.2f}"
    if text in ("+0.00", "-0.00"):
        return "0"
    return text.replace("+0.", "+.").replace("-0.", "-.")
