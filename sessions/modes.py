"""The rating modes, one object each: its keys, what a complete answer is, and what it says about a response.

A mode is *absolute* when its answers carry a level (thumbs, likert). ``score`` maps an answer to h in [0, 1]; the
engine moves the reward there:  r <- (1 - w) r + w (lo + h (hi - lo)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from sessions.errors import InvalidValue, UnknownName


@dataclass(frozen=True, slots=True)
class RatingMode:
    """One way to judge responses.

    :ivar keys: terminal key -> (value recorded, word shown beside the key).
    :ivar responses_shown: how many responses one question shows.
    :ivar lowest: value that means the worst.
    :ivar highest: value that means the best.
    """

    name: str
    title: str
    keys: dict[str, tuple[float, str]]
    responses_shown: int
    lowest: float
    highest: float

    def check(self, value: float) -> float:
        """The value, if it is one of this mode's answers.

        :raises InvalidValue: naming the answers there are.
        """
        answers = sorted(answer for answer, _ in self.keys.values())
        if value not in answers:
            allowed = ", ".join(f"{answer:g}" for answer in answers)
            raise InvalidValue(f"{self.name}: {value:g} is not an answer; allowed: {allowed}")
        return value

    def score(self, value: float) -> float:
        """h in [0, 1]: 0 the worst answer, 1 the best."""
        return (value - self.lowest) / (self.highest - self.lowest)

    def preferred(self, values: Mapping[str, float]) -> list[tuple[str, str]]:
        """Which responses were judged better than which others of their group.

        :param values: letter -> one person's answer.
        :returns: (better, worse) for every two whose scores differ.
        """
        pairs = []
        for one, other in combinations(values, 2):
            first, second = self.score(values[one]), self.score(values[other])
            if first != second:
                pairs.append((one, other) if first > second else (other, one))
        return pairs

    def label(self, value: float) -> bool | None:
        """Whether an answer calls a response good; None for one in the middle."""
        score = self.score(value)
        return None if score == 0.5 else score > 0.5

    def show(self, value: float) -> str:
        """An answer in the few cells a list has for it."""
        return f"{value:+g}" if self.lowest < 0 else f"{value:g}"


MODES: dict[str, RatingMode] = {
    mode.name: mode
    for mode in (
        RatingMode(
            "likert",
            "5-point",
            {
                "1": (1, "bad"),
                "2": (2, "poor"),
                "3": (3, "ok"),
                "4": (4, "good"),
                "5": (5, "great"),
            },
            responses_shown=1,
            lowest=1,
            highest=5,
        ),
        RatingMode(
            "thumbs",
            "thumbs",
            {"-": (-1, "down"), "=": (1, "up")},
            responses_shown=1,
            lowest=-1,
            highest=1,
        ),
    )
}
"""In the order in which ``m`` goes through them."""


def rating_mode(name: str) -> RatingMode:
    """The mode of that name.

    :raises UnknownName: if there is none.
    """
    if name not in MODES:
        raise UnknownName("rating mode", name, MODES)
    return MODES[name]
