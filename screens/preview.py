"""What ratings would do to the advantages of a group, before an update has used them.

Rewards are moved by :mod:`sessions.judging`, as the engine moves them; the advantages are group-relative,

    A = (r - mean) / (std + 1e-4),  std with n - 1.
"""

from __future__ import annotations

from collections.abc import Mapping

EPSILON = 1e-4
"""Keeps the division defined where all rewards are equal."""


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
