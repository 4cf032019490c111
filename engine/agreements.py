"""How far people agree, as metrics of a step: measured anew only where a rating has come, gone or moved since."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from sessions.agreement import (
    Agreement,
    GroupKey,
    Rewards,
    agreement_with,
    group_of,
    ordered_pairs,
    per_hour,
    raters,
    raters_alpha,
    repeated,
    self_agreement,
)
from sessions.records import REWARD_MODEL, Group, Rating, ResponseName
from sessions.wire import AnyEvent, RatingRetracted, RatingSaved

NEWEST = 200
"""Ratings that are compared with rewards: few, so that the figure follows what the policy does now."""
LEAST = 10
"""Comparisons that a figure rests on at least."""
MOST = 8
"""Responses that are named for one figure."""

Fetch = Callable[[Rating], Group | None]
"""Given a rating, the group that it is about."""


class Agreements:
    """The metrics of ``ratings/`` that are about agreement.

    :ivar came: counts what has changed, ratings or the branch.
    :ivar blamed: metric -> names of the responses on which judgements differ, the newest first.
    """

    def __init__(self) -> None:
        self.came = 0
        self._known: dict[str, float] = {}
        self._known_at = -1
        self.blamed: dict[str, list[str]] = {}
        self._rewards: dict[GroupKey, dict[str, float | None]] = {}
        self._scores: dict[GroupKey, dict[str, float | None]] = {}

    def note(self, event: AnyEvent) -> None:
        """Take in what people do; on the event loop."""
        if isinstance(event, RatingSaved | RatingRetracted):
            self.came += 1

    @property
    def known(self) -> dict[str, float] | None:
        """The metrics as they were measured last; None where something has changed since."""
        return self._known if self._known_at == self.came else None

    def look_again(self) -> None:
        """Another branch is trained, or ratings have moved to one."""
        self.came += 1
        self._rewards, self._scores = {}, {}

    def measure(self, ratings: Sequence[Rating], fetch: Fetch, branch: str, came: int) -> dict[str, float]:
        """The metrics of these ratings; on the store's thread. What cannot be had is absent.

        :param ratings: the newest that there are, oldest first.
        :param branch: that is trained: responses of others are named with theirs.
        :param came: what it was when the ratings were listed; what comes meanwhile is measured with the next step.
        """
        newest = [rating for rating in ratings if not rating.retracted][-NEWEST:]
        self._read(newest, fetch)
        self.blamed = {}
        found: dict[str, float | None] = {"ratings/per_hour": per_hour(ratings)}
        if people := raters(ratings):
            found["ratings/raters"] = float(len(people))
        found["ratings/self_agreement"] = _enough(self_agreement(ratings))
        apart = [r for r in sorted(repeated(ratings), key=lambda r: (-r.apart, -r.second.time)) if r.apart]
        self.blamed["ratings/self_agreement"] = _names(
            ((group_of(repeat.second), letter) for repeat in apart for letter in repeat.second.values), branch
        )
        for name, rewards in (("reward", self._rewards), ("reward_model", self._scores)):
            found[f"ratings/{name}_agreement"] = _enough(agreement_with(newest, rewards))
            self.blamed[f"ratings/{name}_agreement"] = _names(_against(newest, rewards), branch)
        if len(people) > 1:
            found["ratings/alpha"] = _enough(raters_alpha(ratings))
        self._known, self._known_at = {name: value for name, value in found.items() if value is not None}, came
        return self._known

    def _read(self, ratings: Sequence[Rating], fetch: Fetch) -> None:
        """Know the rewards of the groups that these are about, and of no others."""
        before, self._rewards, self._scores = (self._rewards, self._scores), {}, {}
        for rating in ratings:
            key = group_of(rating)
            if key in self._rewards:
                continue
            if key in before[0]:
                self._rewards[key], self._scores[key] = before[0][key], before[1][key]
            elif (group := fetch(rating)) is not None:
                self._rewards[key] = {r.letter: None if r.failed else r.reward for r in group.responses}
                self._scores[key] = {r.letter: r.components.get(REWARD_MODEL) for r in group.responses}


def _enough(agreement: Agreement | None) -> float | None:
    return agreement.value if agreement is not None and agreement.count >= LEAST else None


def _against(ratings: Sequence[Rating], rewards: Rewards) -> Iterator[tuple[GroupKey, str]]:
    """The responses that people found worse than another and rewards better, the newest group first."""
    for key, better, worse in sorted(ordered_pairs(ratings), key=lambda pair: -pair[0][1]):
        liked, disliked = rewards.get(key, {}).get(better), rewards.get(key, {}).get(worse)
        if liked is not None and disliked is not None and liked < disliked:
            yield key, worse


def _names(responses: Iterable[tuple[GroupKey, str]], branch: str) -> list[str]:
    """The names of the first few, each once."""
    names = (
        str(ResponseName(step, number, letter, "" if owner == branch else owner))
        for (owner, step, number), letter in responses
    )
    return list(islice(dict.fromkeys(names), MOST))
