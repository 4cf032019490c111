r"""What ratings do to rewards: one definition for the engine, which learns from it, and the screens, which preview it.

With w = ``human_weight``, [lo, hi] the task's reward range and h in [0, 1] from the rating's mode, an answer that
carries a level moves the automatic reward r of a response to

.. math:: r \leftarrow (1 - w)\, r + w\, (lo + h\,(hi - lo))

and answers that only compare are centred on m, the mean automatic reward of the responses compared:

.. math:: r \leftarrow (1 - w)\, r + w\, (m + (h - \bar h)(hi - lo))

Unrated responses keep r. Ratings are no component of the reward: summing them in would pay a response for having been
rated. Where one response has both kinds of answers, the level counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sessions.modes import MODES, Heights
from sessions.records import Rating


@dataclass(frozen=True, slots=True)
class Judged:
    """What people say about the responses of a group, letter -> h.

    :ivar level: of those with an answer that carries a level; several people's are averaged.
    :ivar relative: of the others that were compared, among all that were compared: the mean of a person's answers,
        averaged over people.
    """

    level: dict[str, float] = field(default_factory=dict)
    relative: dict[str, float] = field(default_factory=dict)


def standing(ratings: Iterable[Rating]) -> list[Rating]:
    """The ratings that count, oldest first: neither taken back, nor replaced by one that stands, nor silent repeats."""
    kept = [rating for rating in ratings if not rating.retracted and not rating.repeats]
    replaced = {rating.supersedes for rating in kept}
    return [rating for rating in kept if rating.id not in replaced]


def judge(standing: Iterable[Rating]) -> Judged:
    """Bring together the ratings of a group that count.

    Of two answers of a person in the same mode about the same response, as a script may send them, both count in a
    comparison, and the later in a level.
    """
    levels: dict[str, dict[str, float]] = {}
    compared: dict[str, dict[str, list[float]]] = {}
    for rating in standing:
        if rating.mode not in MODES or rating.repeats:
            continue
        said: Heights = MODES[rating.mode].heights(rating.values)
        for letter, h in said.level.items():
            levels.setdefault(letter, {})[rating.who] = h
        for letter, h in said.relative.items():
            compared.setdefault(letter, {}).setdefault(rating.who, []).append(h)
    return Judged(
        {letter: _mean(of.values()) for letter, of in levels.items()},
        {letter: _mean(map(_mean, of.values())) for letter, of in compared.items()},
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def rated_rewards(
    rewards: Mapping[str, float | None], judged: Judged, weight: float, reward_range: tuple[float, float]
) -> dict[str, float]:
    """The rewards that ratings changed: both equations above.

    :param rewards: letter -> automatic reward; None where there is none: then the rating stands in for it. A response
        that is not in it is not rated: one that a reward function failed on.
    :param weight: w; 1 replaces the automatic reward.
    :returns: letter -> reward, for the rated letters only.
    """
    low, high = reward_range
    changed: dict[str, float] = {}

    def move(letter: str, target: float) -> None:
        automatic = rewards[letter]
        changed[letter] = target if automatic is None else (1 - weight) * automatic + weight * target

    compared = {letter: h for letter, h in judged.relative.items() if letter in rewards}
    if len(compared) > 1:
        known = [r for letter in compared if (r := rewards[letter]) is not None]
        centre = _mean(known) if known else (low + high) / 2
        mean = _mean(compared.values())
        for letter, h in compared.items():
            move(letter, centre + (h - mean) * (high - low))
    for letter, h in judged.level.items():
        if letter in rewards:
            move(letter, low + h * (high - low))
    return changed
