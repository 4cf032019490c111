"""Reward components: what is measured of a response, and how much of it teaches.

A component has TRL's signature: ``reward(prompts, completions, **columns) -> list[float | None]``. A returned None
means that it does not apply and is left out of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.rewards.functions import exact_match, last_number, last_number_reward, reference_of

RewardFunction = Callable[..., Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class Component:
    """One part of the automatic reward; with weight 0 it is measured and does not teach."""

    function: RewardFunction
    weight: float = 1.0


__all__ = ["Component", "RewardFunction", "exact_match", "last_number", "last_number_reward", "reference_of"]
