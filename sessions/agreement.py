r"""How far people agree: with themselves, with each other, and with what rewards responses automatically.

Plain functions of the records; where there is nothing to compare, the answer is None and never a number.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from sessions.judging import standing
from sessions.modes import MODES, Levels, preferred
from sessions.records import Rating

GroupKey = tuple[str, int, int]
"""A group: branch, step, number."""
Rewards = Mapping[GroupKey, Mapping[str, float | None]]
"""Group -> letter -> what rewards it automatically; None where nothing does."""
BREAK = 300.0
"""Seconds without an answer after which a person is taken to have paused."""
PACE_ANSWERS, PACE_SECONDS = 10, 120.0
"""Answers and seconds of work below which no pace is told: a burst of keys says nothing of an hour."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two judgements agree.

    :ivar value: 1 is full agreement; what else it means, the function says that returns it.
    :ivar count: comparisons that it was measured on.
    """

    value: float
    count: int


def group_of(rating: Rating) -> GroupKey:
    """The group that a rating is about."""
    return rating.branch, rating.step, rating.group


# ---------------------------------------------------------------------------------------------- with oneself


@dataclass(frozen=True, slots=True)
class Repeat:
    """A question that was asked twice.

    :ivar apart: how far the two answers are from each other, in [0, 1].
    :ivar by_chance: how far two answers are on average that are given blindly.
    """

    first: Rating
    second: Rating
    apart: float
    by_chance: float


def repeated(ratings: Iterable[Rating]) -> list[Repeat]:
    """The questions asked twice whose answers both stand, in the order of the second answer."""
    everything = list(ratings)
    replaced = {rating.supersedes for rating in everything if rating.supersedes and not rating.retracted}
    stand = {rating.id: rating for rating in everything if not rating.retracted and rating.id not in replaced}
    found = []
    for second in stand.values():
        first = stand.get(second.repeats) if second.repeats else None
        if first is not None and first.who == second.who and first.mode == second.mode:
            measured = _apart(first, second)
            if measured is not None:
                found.append(Repeat(first, second, *measured))
    return found


def self_agreement(ratings: Iterable[Rating]) -> Agreement | None:
    r"""How far people give the same answer when asked the same question again, over chance.

    .. math:: 1 - \frac{\sum_q d_q}{\sum_q e_q}

    over the questions q asked twice. d is how far the two answers are apart: for levels |difference| over the range of
    the scale; for pairs 0 for the same answer, 1 for the opposite winner, 1/2 for anything else (a tie against a
    winner, or both bad); for rankings the share of the pairs of responses ordered the other way round, a tie on one
    side half. e is what d is on average for somebody who answers blindly, each answer of the mode (for rankings: each
    order) being equally likely: 2/5 for likert, 1/2 for thumbs, 7/16 for pairs, 1/2 for rankings.

    1: always the same. 0: as good as blind; it may be negative.

    It is corrected for chance because plain agreement is not the same number in every mode: somebody who presses 1 to 5
    blindly would reach 0.6, just where the alarm is. The chance is that of the scale, not of the person's own answers,
    because those of one who mostly says 5 would make the correction jump with every repeat, and there are few.
    """
    repeats = repeated(ratings)
    if not repeats:
        return None
    apart = math.fsum(repeat.apart for repeat in repeats)
    by_chance = math.fsum(repeat.by_chance for repeat in repeats)
    return Agreement(1 - apart / by_chance, len(repeats))


def _apart(first: Rating, second: Rating) -> tuple[float, float] | None:
    """(how far apart, how far by chance) two answers in one mode are; None where they have no response in common."""
    common = sorted(first.values.keys() & second.values.keys())
    mode = MODES.get(first.mode)
    if isinstance(mode, Levels) and common:
        answers = [value for value, _ in mode.keys.values()]
        width = mode.highest - mode.lowest
        apart = [abs(first.values[letter] - second.values[letter]) / width for letter in common]
        blind = [abs(a - b) / width for a in answers for b in answers]
        return sum(apart) / len(apart), sum(blind) / len(blind)
    if first.mode == "pair" and len(common) == 2:
        one, other = (_outcome(rating.values, *common) for rating in (first, second))
        return 0.0 if one == other else 1.0 if {one, other} == {"first", "second"} else 0.5, 7 / 16
    if first.mode == "rank" and len(common) > 1:
        signs = [
            tuple(_sign(rating.values[b] - rating.values[a]) for rating in (first, second))
            for a, b in combinations(common, 2)
        ]
        return sum(abs(one - other) for one, other in signs) / 2 / len(signs), 0.5
    return None


def _outcome(points: Mapping[str, float], one: str, other: str) -> str:
    """What a pair's points say: ``first``, ``second``, ``tie`` or ``bad``."""
    if points[one] == points[other]:
        return "tie" if points[one] else "bad"
    return "first" if points[one] > points[other] else "second"


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


# ------------------------------------------------------------------------------------------ with the rewards


def ordered_pairs(ratings: Iterable[Rating]) -> list[tuple[GroupKey, str, str]]:
    """(group, better, worse) for every two responses that a person put in an order, once for each person and mode.

    Levels that one person gave to different responses of a group are compared with each other.
    """
    levels: dict[tuple[GroupKey, str, str], dict[str, float]] = defaultdict(dict)
    found: dict[tuple[GroupKey, str, str, str, str], None] = {}
    for rating in standing(ratings):
        mode, key = MODES.get(rating.mode), group_of(rating)
        if isinstance(mode, Levels):
            levels[key, rating.who, rating.mode].update(rating.values)
        elif mode is not None:
            for better, worse in preferred(mode.tiers(rating.values)):
                found[key, rating.who, rating.mode, better, worse] = None
    for (key, who, name), values in levels.items():
        for better, worse in preferred(MODES[name].tiers(values)):
            found[key, who, name, better, worse] = None
    return [(key, better, worse) for key, _, _, better, worse in found]


def agreement_with(ratings: Iterable[Rating], rewards: Rewards) -> Agreement | None:
    """Share of the pairs of responses that people ordered which rewards order alike; a tie of the rewards is half.

    0.5 is what rewards reach that know nothing of what people like; 0 is the opposite order everywhere.

    :param rewards: the automatic reward, or the reward model's score: never a reward that ratings have moved, which
        would agree with them by construction. Pairs with a response that it does not hold are left out.
    """
    alike, count = 0.0, 0
    for key, better, worse in ordered_pairs(ratings):
        of = rewards.get(key, {})
        high, low = of.get(better), of.get(worse)
        if high is not None and low is not None:
            alike += (1 + _sign(high - low)) / 2
            count += 1
    return Agreement(alike / count, count) if count else None


# --------------------------------------------------------------------------------------------------- the pace


def per_hour(ratings: Iterable[Rating]) -> float | None:
    """Answers an hour of a person at work: over the time between their answers, without breaks of over 5 minutes.

    Repeats count, for they are work; what was taken back does not. Of several people it is their mean pace, each
    weighted with the time at work.

    :returns: None before there are 10 answers and 2 minutes of work.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for rating in ratings:
        if not rating.retracted:
            times[rating.who].append(rating.time)
    gaps = [b - a for of in times.values() for a, b in pairwise(sorted(of)) if b - a <= BREAK]
    spent = math.fsum(gaps)
    enough = len(gaps) + 1 >= PACE_ANSWERS and spent >= PACE_SECONDS
    return 3600 * len(gaps) / spent if enough else None


# ------------------------------------------------------------------------------------------ between people


def raters(ratings: Iterable[Rating]) -> list[str]:
    """The names of those whose ratings stand, in the order of the alphabet."""
    return sorted({rating.who for rating in standing(ratings)})


def raters_alpha(ratings: Iterable[Rating]) -> Agreement | None:
    """Krippendorff's alpha between people by name: 1 full agreement, 0 as by chance, below 0 systematic disagreement.

    Answers on different scales cannot stand in one table, so there is an alpha for each of three, and the value
    returned is their mean, each weighted with the answers that it rests on (those about something that two people
    judged):

    - likert: a response is a unit, the level is ordinal;
    - thumbs: a response is a unit, nominal;
    - comparisons, of pairs and of rankings: two responses are a unit, with one of the values "the first", "the
      second", "a tie", "both bad", nominal. A ranking says something of every two of its responses.

    A scale on which everybody gave one and the same answer has no alpha: nothing tells agreement from habit there.

    :returns: None unless two people judged the same response, or the same two, on the same scale.
    """
    likert: _Units = defaultdict(dict)
    thumbs: _Units = defaultdict(dict)
    orders: _Units = defaultdict(dict)
    for rating in standing(ratings):
        key = group_of(rating)
        if rating.mode in ("likert", "thumbs"):
            for letter, value in rating.values.items():
                (likert if rating.mode == "likert" else thumbs)[key, letter][rating.who] = value
        elif rating.mode in ("pair", "rank"):
            # a place is the better the lower it is; points the other way round
            points = rating.values if rating.mode == "pair" else {x: 1 / v for x, v in rating.values.items()}
            for one, other in combinations(sorted(points), 2):
                orders[key, one, other][rating.who] = _outcome(points, one, other)
    scales = (
        (likert, sorted(answer for answer, _ in MODES["likert"].keys.values()), "ordinal"),
        (thumbs, sorted(answer for answer, _ in MODES["thumbs"].keys.values()), "nominal"),
        (orders, ["first", "second", "tie", "bad"], "nominal"),
    )
    measured = [alpha for scale in scales if (alpha := _alpha(*scale)) is not None]
    count = sum(alpha.count for alpha in measured)
    return Agreement(sum(alpha.value * alpha.count for alpha in measured) / count, count) if count else None


_Units = defaultdict[tuple[object, ...], dict[str, object]]


def _alpha(units: _Units, domain: Sequence[object], level: str) -> Agreement | None:
    """Alpha of one scale.

    :param units: unit -> person -> answer.
    :param domain: the answers there are, in order.
    """
    counts = [[Counter(answers.values())[value] for value in domain] for answers in units.values() if len(answers) > 1]
    total = sum(map(sum, counts))
    if sum(any(row[i] for row in counts) for i in range(len(domain))) < 2:
        return None
    import krippendorff  # numpy comes with it, which few callers need

    value = krippendorff.alpha(value_counts=counts, value_domain=list(range(len(domain))), level_of_measurement=level)
    return Agreement(float(value), total)
