"""Reward components: what is measured of a response, and how much of it teaches.

A component has TRL's signature: ``reward(prompts, completions, **columns) -> list[float | None]``. A returned None
means that it does not apply and is left out of the sum.
"""

from __future__ import annotations

from engine.rewards.component import Component, RewardFunction
from engine.rewards.functions import exact_match, last_number, last_number_reward, reference_of

__all__ = ["Component", "RewardFunction", "exact_match", "last_number", "last_number_reward", "reference_of"]
