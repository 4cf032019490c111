"""What an update learns from: groups with their advantages, and the rows of tokens they turn into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.randomness import permutation
from sessions.records import Group, Response


@dataclass
class RolloutGroup:
    """A group on its way through an update.

    :ivar own: whether this process samples and trains it; other ranks hold the others.
    :ivar late: whether it joins because a person rated it after its own update.
    :ivar advantages: one a response, ratings included; with a value model the mean over its tokens.
    :ivar automatic: the same without ratings.
    :ivar dead: whether every advantage is 0 because the rewards are alike.
    :ivar old_logprobs: l_old of each response, empty where no other pass than sampling made it.
    :ivar entropies: the sampler's, of each response; empty for what this process has not sampled in this step.
    :ivar values: the value model's estimates for each response, before the update.
    """

    record: Group
    own: bool = True
    late: bool = False
    advantages: list[float] = field(default_factory=list)
    automatic: list[float] = field(default_factory=list)
    dead: bool = False
    old_logprobs: list[list[float]] = field(default_factory=list)
    entropies: list[list[float]] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)

    def rows(self) -> list[Row]:
        """The responses that may teach: those that no reward function failed on."""
        return [
            Row(self, place, response)
            for place, response in enumerate(self.record.responses)
            if not response.failed and response.tokens
        ]


@dataclass(frozen=True, slots=True)
class Row:
    """One response as a row of a batch."""

    group: RolloutGroup
    place: int
    response: Response

    @property
    def prompt(self) -> list[int]:
        return self.group.record.prompt_tokens

    @property
    def tokens(self) -> list[int]:
        return self.response.tokens

    @property
    def temperature(self) -> float:
        return self.group.record.temperature

    @property
    def advantage(self) -> float:
        return self.group.advantages[self.place]

    @property
    def name(self) -> str:
        """``812.3C``."""
        return f"{self.group.record.name}{self.response.letter}"

    @property
    def token_advantages(self) -> list[float]:
        """A of each token; one value for all of them where no value model tells them apart."""
        return self.response.advantages or [self.advantage] * len(self.response.tokens)

    @property
    def teaches(self) -> bool:
        """Whether any of its tokens has an advantage other than 0."""
        return self.advantage != 0 or any(self.response.advantages)

    @property
    def old(self) -> list[float]:
        """l_old: that of the pass which made it, else the sampler's."""
        return self.recorded_old or self.response.logprobs

    def record_old(self, logprobs: list[float]) -> None:
        """Keep l_old as another pass than sampling made it."""
        if not self.group.old_logprobs:
            self.group.old_logprobs = [[] for _ in self.group.record.responses]
        self.group.old_logprobs[self.place] = logprobs

    @property
    def sampled_entropies(self) -> list[float]:
        """The entropy before each token, as the sampler saw it; empty where that is not known."""
        return self.group.entropies[self.place] if self.group.entropies else []

    @property
    def recorded_old(self) -> list[float]:
        """l_old where another pass than sampling made it; empty where none did."""
        return self.group.old_logprobs[self.place] if self.group.old_logprobs else []


def minibatches(groups: Sequence[RolloutGroup], count: int, *key: str | int) -> list[list[RolloutGroup]]:
    """Cut whole groups into ``count`` sets of nearly equal size, shuffled by ``key``; never an empty set."""
    if count <= 1:
        return [list(groups)]
    order = permutation("minibatches", *key, n=len(groups))
    return [[groups[int(i)] for i in part] for part in np.array_split(order, min(count, len(groups)))]
