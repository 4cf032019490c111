"""One group on the desk of a person who rates: what is shown of it, what is half typed, the time spent."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from screens.rating_book import Key
from sessions.asking import choose_pairs
from sessions.modes import MOST_RANKED
from sessions.records import letters
from sessions.wire import GroupDetail

PART = MOST_RANKED
"""Most responses a question shows; a larger group is asked in parts."""
PAIRS = 6
"""Pairs of a group that are asked one after another."""


@dataclass(slots=True)
class Draft:
    """A half-typed order, best first.

    :ivar tiers: tied responses together.
    :ivar tie: the next response ties with the one before.
    """

    tiers: list[list[str]] = field(default_factory=list)
    tie: bool = False

    @property
    def placed(self) -> list[str]:
        return [letter for tier in self.tiers for letter in tier]

    def add(self, letter: str) -> bool:
        """Put a response next; False if it is in the order already."""
        if letter in self.placed:
            return False
        if self.tie and self.tiers:
            self.tiers[-1].append(letter)
        else:
            self.tiers.append([letter])
        self.tie = False
        return True

    def back(self) -> bool:
        """Take the last key back; False if there was none."""
        if self.tie:
            self.tie = False
            return True
        if not self.tiers:
            return False
        self.tiers[-1].pop()
        if not self.tiers[-1]:
            self.tiers.pop()
        elif self.tiers[-1]:
            self.tie = False
        return True


@dataclass(slots=True)
class Visit:
    """A group on the desk.

    :ivar place: its number in this sitting: what it is called while blind.
    :ivar order: letters in the order shown.
    :ivar at: place in ``order`` of the response shown.
    :ivar before: the response shown before it: what ``D`` compares with.
    :ivar repeats: the rating whose question is asked again, silently: nothing given before is shown.
    :ivar given: ratings given while it was asked again.
    :ivar rule: by which it was picked; empty where a person went to it.
    :ivar revealed: whether rewards were seen, here or on another screen.
    :ivar seconds: question -> time spent on it since its last answer.
    :ivar pairs: (left, right), in the order asked; None until the group is here.
    :ivar drafts: part of the group -> half-typed order.
    :ivar flags: letter -> flags switched on and off, and not saved.
    :ivar edits: letter -> a text that was not saved.
    """

    key: Key
    place: int
    order: list[str]
    at: int = 0
    before: str = ""
    repeats: str = ""
    given: set[str] = field(default_factory=set)
    rule: str = ""
    revealed: bool = False
    left: bool = False
    detail: GroupDetail | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    pairs: list[tuple[str, str]] | None = None
    pair_at: int = 0
    side: int = 0
    drafts: dict[int, Draft] = field(default_factory=dict)
    flags: dict[str, list[str]] = field(default_factory=dict)
    edits: dict[str, str] = field(default_factory=dict)

    @property
    def letter(self) -> str:
        """The response shown."""
        return self.order[self.at] if self.order else ""

    @property
    def pair(self) -> tuple[str, str] | None:
        """The pair shown."""
        return self.pairs[self.pair_at] if self.pairs else None

    @property
    def parts(self) -> list[list[str]]:
        """The letters in parts of as equal a size as can be, none larger than :data:`PART`."""
        count = max(1, -(-len(self.order) // PART))
        edges = [len(self.order) * n // count for n in range(count + 1)]
        return [self.order[a:b] for a, b in pairwise(edges)]

    @property
    def part(self) -> tuple[int, int]:
        """Which part of a large group is asked, and of how many."""
        seen = 0
        parts = self.parts
        for number, part in enumerate(parts, 1):
            seen += len(part)
            if self.at < seen:
                return number, len(parts)
        return len(parts), len(parts)

    @property
    def here(self) -> list[str]:
        """The letters of the part that is asked."""
        return self.parts[self.part[0] - 1]

    @property
    def draft(self) -> Draft:
        """The half-typed order of the part that is asked."""
        return self.drafts.setdefault(self.part[0], Draft())

    def response_text(self, letter: str) -> str:
        """The text of a response, empty while the group is not here."""
        if self.detail is None:
            return ""
        return next((r.text for r in self.detail.group.responses if r.letter == letter), "")

    def read(self, detail: GroupDetail, who: str, rule: str, asked_again: Sequence[str] = ()) -> None:
        """The group came.

        :param asked_again: the pair that is asked again.
        """
        self.detail = detail
        if len(self.order) != len(detail.group.responses):
            self.order = shuffled(self.key, len(detail.group.responses), who, self.repeats)
            self.at = min(self.at, max(0, len(self.order) - 1))
        if self.pairs is None:
            self.pairs = choose_pairs(detail.group, rule, PAIRS, f"{who}/{self.repeats}")
            if len(asked_again) == 2 and set(asked_again) not in [set(pair) for pair in self.pairs]:
                self.pairs[-1:] = [(asked_again[1], asked_again[0])]


def shuffled(key: Key, responses: int, who: str, repeats: str = "") -> list[str]:
    """Letters shuffled by the group's name and the person's, so that coming back shows the same order.

    :param repeats: asked again: in another order.
    """
    order = [letters(i) for i in range(responses)]
    name = f"{who}/{'/'.join(map(str, key))}"
    random.Random(name).shuffle(order)
    if repeats:
        first = list(order)
        random.Random(f"{name}/{repeats}").shuffle(order)
        if order == first:
            order = order[1:] + order[:1]
    return order
