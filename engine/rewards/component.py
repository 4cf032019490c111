"""What a reward component is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

RewardFunction = Callable[..., Sequence[Any]]
"""TRL's signature; gives a number or None for each completion, or a :class:`Failed` in its place. It may be async."""


class Failed(Exception):
    """A reward function has not done its work; the message is the reason, one line."""


Rewards = list[float | Failed | None]
"""What a built-in function gives: one a response."""


@dataclass(frozen=True, slots=True)
class Component:
    """One part of the automatic reward; with weight 0 it is measured and does not teach.

    :ivar weight: at the start; the hyperparameter ``reward_weight.NAME`` is what it is now.
    """

    function: RewardFunction
    weight: float = 1.0
