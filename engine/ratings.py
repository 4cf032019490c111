r"""How ratings act on rewards.

With w = ``human_weight`` and h in [0, 1] from the rating's mode, an absolute rating moves the automatic reward r of a
response to

.. math:: r \leftarrow (1 - w)\, r + w\, (lo + h\,(hi - lo))

where [lo, hi] is the task's reward range. Unrated responses keep r. Ratings are no component of the reward: summing
them in would pay a response for having been rated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sessions.modes import rating_mode
from sessions.records import Rating


def scores(ratings: Iterable[Rating]) -> dict[str, float]:
    """Letter -> h in [0, 1]; where several people rated a response, the mean of theirs."""
    said: dict[str, list[float]] = {}
    for rating in ratings:
        mode = rating_mode(rating.mode)
        for letter, value in rating.values.items():
            said.setdefault(letter, []).append(mode.score(value))
    return {letter: sum(values) / len(values) for letter, values in said.items()}


def rated_reward(reward: float, h: float, weight: float, reward_range: tuple[float, float]) -> float:
    """The equation above for one response."""
    lo, hi = reward_range
    return (1 - weight) * reward + weight * (lo + h * (hi - lo))


def rated_rewards(
    rewards: Mapping[str, float | None],
    ratings: Iterable[Rating],
    weight: float,
    reward_range: tuple[float, float],
) -> dict[str, float]:
    """The rewards that ratings changed.

    :param rewards: letter -> automatic reward; None where there is none: then the rating stands in for it.
    :returns: letter -> reward, for the rated letters only.
    """
    changed = {}
    for letter, h in scores(ratings).items():
        if letter not in rewards:
            continue
        automatic = rewards[letter]
        if automatic is None:
            lo, hi = reward_range
            changed[letter] = lo + h * (hi - lo)
        else:
            changed[letter] = rated_reward(automatic, h, weight, reward_range)
    return changed
