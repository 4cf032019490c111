"""What a reward component is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

RewardFunction = Callable[..., Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class Component:
    """One part of the automatic reward; with weight 0 it is measured and does not teach.

    :ivar weight: at the start; the hyperparameter ``reward_weight.NAME`` is what it is now.
    """

    function: RewardFunction
    weight: float = 1.0
