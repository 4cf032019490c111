"""Which groups wait for one person's rating, in the order in which a rule asks about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from screens.rating_book import Key
from sessions.asking import GONE, RULES, order_groups, tells_nothing, waits
from sessions.records import GroupHead

LOOKS = ("uncertain", "disagree", "spread")
"""Rules that look at figures which change after a group has come."""


def key_of_head(head: GroupHead) -> Key:
    return head.branch, head.step, head.number


class Queue:
    """The groups that there are, and those of them that wait.

    Dead groups teach nothing about rewards, and those that somebody else has rated have an answer: both wait only
    where everything is asked for.

    :param done: whether this person is done with a group.
    :param changed: the groups for which that may be another than when it was asked last.
    :ivar rule: by which they are ordered.
    """

    def __init__(self, done: Callable[[Key], bool], changed: Callable[[], set[Key]], seed: str) -> None:
        self._done, self._changed, self._seed = done, changed, seed
        self._heads: Mapping[Key, GroupHead] = {}
        self.rule = "newest"
        self._everything = False
        self._order: list[Key] = []
        self._fresh = False
        self._waits: set[Key] = set()

    @property
    def heads(self) -> Mapping[Key, GroupHead]:
        """The groups there are."""
        return self._heads

    @heads.setter
    def heads(self, heads: Mapping[Key, GroupHead]) -> None:
        # New groups come once a step, and other changes with every rating: those do not change the order at once.
        before, self._heads = self._heads, heads
        if heads.keys() != before.keys():
            self._fresh = False
            self._waits.intersection_update(heads)
        for key, head in heads.items():
            if before.get(key) is not head:
                self._update(key)

    @property
    def everything(self) -> bool:
        """Whether dead groups, and those that others have rated, are offered too."""
        return self._everything

    @everything.setter
    def everything(self, on: bool) -> None:
        self._everything = on
        for key in self._heads:
            self._update(key)

    def use(self, rule: str) -> None:
        """Order by a rule from now on; by none that there is not."""
        if rule != self.rule and rule in RULES:
            self.rule, self._fresh = rule, False

    def _update(self, key: Key) -> None:
        head = self._heads[key]
        if self.offered(head) and not self._done(key):
            self._waits.add(key)
        else:
            self._waits.discard(key)

    @property
    def waits(self) -> set[Key]:
        """The groups that wait."""
        for key in self._changed():
            if key in self._heads:
                self._update(key)
        return self._waits

    def order(self, *, anew: bool = False) -> list[Key]:
        """Every group, in the order of the rule.

        :param anew: what the rule looks at may have changed.
        """
        if not self._fresh or (anew and self.rule in LOOKS):
            self._order = [key_of_head(head) for head in order_groups(self._heads.values(), self.rule, self._seed)]
            self._fresh = True
        return self._order

    def offered(self, head: GroupHead) -> bool:
        """Whether a group may be asked about at all."""
        return waits(head) or (self._everything and head.status not in GONE)

    def waiting(self, *, anew: bool = False) -> Iterator[GroupHead]:
        """The groups that wait, in order."""
        waits = self.waits
        for key in self.order(anew=anew):
            if key in waits:
                yield self._heads[key]

    def hidden(self) -> tuple[int, int]:
        """Groups that are not offered though this person has not rated them: dead ones; rated by others."""
        if self._everything:
            return 0, 0
        dead = others = 0
        for key, head in self._heads.items():
            if head.status in GONE or not (tells_nothing(head) or head.ratings) or self._done(key):
                continue
            if tells_nothing(head):
                dead += 1
            else:
                others += 1
        return dead, others
