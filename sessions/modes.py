"""The rating modes, one object each: its keys, how many responses it shows, what a complete answer is, what it records,
and what that says about the responses.

An answer is recorded as ``values``: letter -> number, in the mode's own terms. Two things are read from it:

- *heights*, h in [0, 1], which move rewards (:mod:`sessions.judging`). An answer that carries a level (thumbs, likert,
  both bad) moves a reward to that level; one that only compares (pair, rank) moves the responses apart.
- *tiers*, best first, tied responses together: what a reward model learns from.

An edit and a critique have no height: an edit is a demonstration and, with its original, a pair; a critique is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

from sessions.errors import InvalidValue, UnknownName

Values = Mapping[str, float]
"""Letter -> answer."""

FLAGS = (
    "wrong",
    "invalid step",
    "off topic",
    "unsafe",
    "too long",
    "too short",
    "format",
    "language",
    "repetitive",
)
"""What a critique can say of a response at a key; the digit of a flag is its place."""
MOST_RANKED = 9
"""Responses that one question ranks: there are nine digits."""


@dataclass(frozen=True, slots=True)
class Heights:
    """What an answer says about responses, letter -> h in [0, 1].

    :ivar level: h means a place between the worst and the best reward of the task.
    :ivar relative: h means better or worse than the other responses judged with it, and nothing else.
    """

    level: dict[str, float] = field(default_factory=dict)
    relative: dict[str, float] = field(default_factory=dict)


class RatingMode(Protocol):
    """One way to judge responses."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def keys(self) -> Mapping[str, tuple[float, str]]:
        """Terminal key -> (its code, the word shown beside it)."""

    @property
    def responses_shown(self) -> int:
        """Most responses that one question shows."""

    @property
    def slot(self) -> str:
        """An answer takes the place of an earlier one by the same person in the same slot."""

    @property
    def teaches(self) -> str:
        """What becomes of an answer, in words."""

    @property
    def moves_rewards(self) -> bool:
        """Whether an update learns from its answers."""

    def check(self, values: Values, text: str = "", flags: Collection[str] = ()) -> None:
        """Refuse what is no answer of this mode.

        :raises InvalidValue: naming what it takes.
        """

    def complete(self, values: Values, shown: Sequence[str]) -> bool:
        """Whether nothing is missing from the answer to a question that shows some responses."""

    def heights(self, values: Values) -> Heights:
        """What the answer says about rewards."""

    def tiers(self, values: Values) -> list[list[str]]:
        """Letters from best to worst, tied ones together; fewer than two tiers say nothing."""

    def margin(self, values: Values) -> float:
        """By how much a reward model should keep a preferred response apart, beyond being right."""

    def labels(self, values: Values) -> dict[str, bool]:
        """Letter -> whether the answer calls the response good; those that it does not call either are left out."""

    def show(self, value: float) -> str:
        """The answer about one response, in the few cells a list has for it."""


def preferred(tiers: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """(better, worse) for every two responses in different tiers."""
    return [
        (better, worse)
        for at, tier in enumerate(tiers)
        for better in tier
        for below in tiers[at + 1 :]
        for worse in below
    ]


def _tiers(values: Values, *, best_first: bool) -> list[list[str]]:
    """Letters grouped by equal values."""
    ordered = sorted(values, key=lambda letter: -values[letter] if best_first else values[letter])
    return [list(tier) for _, tier in groupby(ordered, key=lambda letter: values[letter])]


@dataclass(frozen=True, slots=True)
class Levels:
    """A score for each response: thumbs, likert.

    :ivar lowest: answer that means the worst.
    :ivar highest: answer that means the best.
    """

    name: str
    title: str
    keys: dict[str, tuple[float, str]]
    lowest: float
    highest: float
    teaches: str = "the response's reward"
    responses_shown: int = 1
    slot: str = "level"
    moves_rewards: bool = True

    def check(self, values: Values, text: str = "", flags: Collection[str] = ()) -> None:
        _need(self.name, values, 1, "at least one response")
        answers = sorted(answer for answer, _ in self.keys.values())
        for value in values.values():
            if value not in answers:
                allowed = ", ".join(f"{answer:g}" for answer in answers)
                raise InvalidValue(f"{self.name}: {value:g} is not an answer; allowed: {allowed}")
        _plain(self.name, text, flags)

    def complete(self, values: Values, shown: Sequence[str]) -> bool:
        return all(letter in values for letter in shown)

    def score(self, value: float) -> float:
        """h in [0, 1]: 0 the worst answer, 1 the best."""
        return (value - self.lowest) / (self.highest - self.lowest)

    def heights(self, values: Values) -> Heights:
        return Heights(level={letter: self.score(value) for letter, value in values.items()})

    def tiers(self, values: Values) -> list[list[str]]:
        return _tiers(values, best_first=True)

    def margin(self, values: Values) -> float:
        return 0.0

    def labels(self, values: Values) -> dict[str, bool]:
        scores = {letter: self.score(value) for letter, value in values.items()}
        return {letter: h > 0.5 for letter, h in scores.items() if h != 0.5}

    def show(self, value: float) -> str:
        return f"{value:+g}" if self.lowest < 0 else f"{value:g}"


LEFT, MUCH_LEFT, RIGHT, MUCH_RIGHT, TIE, BOTH_BAD = 1.0, 2.0, -1.0, -2.0, 0.0, 9.0
"""Codes of the keys of a pair."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two responses beside each other.

    Recorded as points: better 1, much better 2, worse 0; a tie 1 each; both bad 0 each.
    """

    name: str = "pair"
    title: str = "pairwise"
    keys: dict[str, tuple[float, str]] = field(
        default_factory=lambda: {
            "h": (LEFT, "left better"),
            "H": (MUCH_LEFT, "left much better"),
            "t": (TIE, "tie"),
            "L": (MUCH_RIGHT, "right much better"),
            "l": (RIGHT, "right better"),
            "0": (BOTH_BAD, "both bad"),
        }
    )
    teaches: str = "a Bradley-Terry pair; the reward by wins in the group; both bad: the lowest reward for each"
    responses_shown: int = 2
    slot: str = "pair"
    moves_rewards: bool = True

    def answer(self, code: float, left: str, right: str) -> dict[str, float]:
        """What a key records of the two responses shown."""
        if code in (TIE, BOTH_BAD):
            return dict.fromkeys((left, right), 1.0 if code == TIE else 0.0)
        winner, loser = (left, right) if code > 0 else (right, left)
        return {winner: abs(code), loser: 0.0}

    def check(self, values: Values, text: str = "", flags: Collection[str] = ()) -> None:
        points = sorted(values.values(), reverse=True)
        if points not in ([1, 0], [2, 0], [1, 1], [0, 0]):
            raise InvalidValue(
                f"{self.name}: two responses and their points: 1 and 0 (better), 2 and 0 (much better), 1 and 1 (tie), "
                "0 and 0 (both bad)"
            )
        _plain(self.name, text, flags)

    def complete(self, values: Values, shown: Sequence[str]) -> bool:
        return len(values) == 2

    def heights(self, values: Values) -> Heights:
        if not any(values.values()):
            return Heights(level=dict.fromkeys(values, 0.0))
        most = max(values.values())
        if min(values.values()) == most:
            return Heights(relative=dict.fromkeys(values, 0.5))
        return Heights(relative={letter: float(value == most) for letter, value in values.items()})

    def tiers(self, values: Values) -> list[list[str]]:
        return _tiers(values, best_first=True)

    def margin(self, values: Values) -> float:
        """1 for much better; else 0."""
        return 1.0 if max(values.values(), default=0) > 1 else 0.0

    def labels(self, values: Values) -> dict[str, bool]:
        return {} if any(values.values()) else dict.fromkeys(values, False)

    def show(self, value: float) -> str:
        return {2: "++", 1: "+", 0: "-"}.get(int(value), f"{value:g}")


RANK_TIE, RANK_BACK = 0.0, -1.0
"""Codes of two of a ranking's keys; the others' codes are places on the screen."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Responses from best to worst, with ties; some may be left out.

    Recorded as places: 1 the best; tied responses have the same.
    """

    name: str = "rank"
    title: str = "ranking"
    keys: dict[str, tuple[float, str]] = field(
        default_factory=lambda: {
            **{str(n): (float(n), f"response {n} next") for n in range(1, MOST_RANKED + 1)},
            "=": (RANK_TIE, "ties with the one before"),
            "backspace": (RANK_BACK, "take the last back"),
        }
    )
    teaches: str = "Plackett-Luce; the reward by rank"
    responses_shown: int = MOST_RANKED
    slot: str = "rank"
    moves_rewards: bool = True

    def answer(self, tiers: Sequence[Sequence[str]]) -> dict[str, float]:
        """What an order records."""
        return {letter: float(place) for place, tier in enumerate(tiers, 1) for letter in tier}

    def check(self, values: Values, text: str = "", flags: Collection[str] = ()) -> None:
        _need(self.name, values, 2, "at least two responses and their places, 1 the best")
        for value in values.values():
            if value not in range(1, 27):
                raise InvalidValue(f"{self.name}: {value:g} is not a place; they are 1, 2, 3, ...; ties have the same")
        _plain(self.name, text, flags)

    def complete(self, values: Values, shown: Sequence[str]) -> bool:
        return all(letter in values for letter in shown)

    def heights(self, values: Values) -> Heights:
        """(K - place)/(K - 1); tied places share their mean."""
        count = len(values)
        heights: dict[str, float] = {}
        place = 1
        for tier in self.tiers(values):
            mean = place + (len(tier) - 1) / 2
            heights |= dict.fromkeys(tier, (count - mean) / (count - 1) if count > 1 else 0.5)
            place += len(tier)
        return Heights(relative=heights)

    def tiers(self, values: Values) -> list[list[str]]:
        return _tiers(values, best_first=False)

    def margin(self, values: Values) -> float:
        return 0.0

    def labels(self, values: Values) -> dict[str, bool]:
        return {}

    def show(self, value: float) -> str:
        return f"#{value:g}"


@dataclass(frozen=True, slots=True)
class Edits:
    """A better text in the place of a response: ``text``; ``values`` name the response that it is better than."""

    name: str = "edit"
    title: str = "edit"
    keys: dict[str, tuple[float, str]] = field(default_factory=dict)
    teaches: str = "a demonstration, and the pair of the better text and the response"
    responses_shown: int = 1
    slot: str = "edit"
    moves_rewards: bool = False

    def check(self, values: Values, text: str = "", flags: Collection[str] = ()) -> None:
        _one(self.name, values)
        if not text.strip():
            raise InvalidValue(f"{self.name}: the better text is missing")
        if flags:
            raise InvalidValue(f"{self.name}: takes no flags; those are a critique's")

    def complete(self, values: Values, shown: Sequence[str]) -> bool:
        return len(values) == 1

    def heights(self, values: Values) -> Heights:
        return Heights()

    def tiers(self, values: Values) -> list[list[str]]:
        return []

    def margin(self, values: Values) -> float:
        return 0.0

    def labels(self, values: Values) -> dict[str, bool]:
        return {}

    def show(self, value: float) -> str:
        return "edited"


@dataclass(frozen=True, slots=True)
class Critiques:
    """Flags and a line about a response: kept, filtered on, exported."""

    name: str = "critique"
    title: str = "critique"
    keys: dict[str, tuple[float, str]] = field(
        default_factory=lambda: {str(n): (float(n), flag) for n, flag in enumerate(FLAGS, 1)}
    )
    teaches: str = "nothing: it is kept, filtered on and exported"
    responses_shown: int = 1
    slot: str = "critique"
    moves_rewards: bool = False

    def check(self, values: Values, text: str = "", flags: Collection[str] = ()) -> None:
        _one(self.name, values)
        if text:
            raise InvalidValue(f"{self.name}: takes no better text; that is an edit's")
        for flag in flags:
            if flag not in FLAGS:
                raise InvalidValue(f"{self.name}: {flag!r} is not a flag; there are {', '.join(FLAGS)}")

    def complete(self, values: Values, shown: Sequence[str]) -> bool:
        return len(values) == 1

    def heights(self, values: Values) -> Heights:
        return Heights()

    def tiers(self, values: Values) -> list[list[str]]:
        return []

    def margin(self, values: Values) -> float:
        return 0.0

    def labels(self, values: Values) -> dict[str, bool]:
        return {}

    def show(self, value: float) -> str:
        return "flagged"


def _need(name: str, values: Values, least: int, what: str) -> None:
    if len(values) < least:
        raise InvalidValue(f"{name}: needs {what}")


def _one(name: str, values: Values) -> None:
    if list(values.values()) != [1]:
        raise InvalidValue(f"{name}: names one response, with the value 1")


def _plain(name: str, text: str, flags: Collection[str]) -> None:
    if text or flags:
        raise InvalidValue(f"{name}: takes no {'text' if text else 'flags'}; an edit has a text, a critique has flags")


LIKERT = Levels(
    "likert",
    "5-point",
    {"1": (1, "bad"), "2": (2, "poor"), "3": (3, "ok"), "4": (4, "good"), "5": (5, "great")},
    lowest=1,
    highest=5,
)
THUMBS = Levels("thumbs", "thumbs", {"-": (-1, "down"), "=": (1, "up")}, lowest=-1, highest=1)
PAIR, RANK, EDIT, CRITIQUE = Pairs(), Ranking(), Edits(), Critiques()

MODES: dict[str, RatingMode] = {mode.name: mode for mode in (LIKERT, THUMBS, PAIR, RANK, EDIT, CRITIQUE)}
"""In the order in which ``m`` goes through them."""


def rating_mode(name: str) -> RatingMode:
    """The mode of that name.

    :raises UnknownName: if there is none.
    """
    if name not in MODES:
        raise UnknownName("rating mode", name, MODES)
    return MODES[name]


def replaces(mode: str, letters: Collection[str], earlier_mode: str, earlier_letters: Collection[str]) -> bool:
    """Whether an answer of a person takes the place of an earlier one of theirs about the same group.

    A level takes the place of a level, a pair of the same pair, a ranking of any that it shares responses with.
    """
    slot, before = rating_mode(mode).slot, MODES[earlier_mode].slot if earlier_mode in MODES else ""
    if slot != before:
        return False
    return bool(set(letters) & set(earlier_letters)) if slot == "rank" else set(letters) == set(earlier_letters)
