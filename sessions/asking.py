"""What to ask a person next: which group, which two of its responses, and when an earlier question comes again.

Nothing here draws random numbers: what looks random is a function of a seed and of the names of groups and responses,
so that a queue keeps its order while groups come and go, and coming back to a group shows it as it was.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

from sessions.errors import UnknownName
from sessions.records import Group, GroupHead, Rating, Response, discord, doubts

RULES: dict[str, str] = {
    "newest": "the newest first",
    "random": "in an order that says nothing: the control",
    "uncertain": "where the reward model can tell two responses apart least",
    "disagree": "where reward components order responses in opposite ways",
    "spread": "where the rewards differ most",
}
"""Rule -> what comes first under it."""
RECENT = 20
"""Questions of a person that must lie between a question and its silent repeat."""
REPEATABLE = ("likert", "thumbs", "pair", "rank")
"""Modes whose questions are asked again: two answers to them can be compared."""

Seed = int | str
"""What makes one person's order, or one session's, another's."""


def chance(seed: Seed, *key: object) -> float:
    """A number in [0, 1) that belongs to the key."""
    text = "\x1f".join(map(str, (seed, *key)))
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=7).digest()
    return (int.from_bytes(digest, "big") >> 3) / (1 << 53)


# -------------------------------------------------------------------------------------------------- groups


GONE = ("discarded", "replaced")
"""Groups that no update will ever see."""


def tells_nothing(head: GroupHead) -> bool:
    """Whether a group's rewards are all alike; one without rewards waits for people, who are all that teaches it."""
    return "dead" in head.flags and head.mean is not None


def waits(head: GroupHead) -> bool:
    """Whether a group waits for a rating: an update may see it, it can teach something, and nobody has rated it."""
    return head.status not in GONE and not head.ratings and not tells_nothing(head)


def order_groups(heads: Iterable[GroupHead], rule: str, seed: Seed = 0) -> list[GroupHead]:
    """The groups in the order in which a rule asks about them.

    Ties are the newest first; groups that the rule knows nothing about come after all others, the newest first.

    :param seed: of the rule ``random``; its order of two groups does not depend on which others there are.
    :raises UnknownName: if there is no such rule.
    """
    if rule not in RULES:
        raise UnknownName("rule", rule, RULES)
    worth = _WORTH.get(rule)

    def place(head: GroupHead) -> tuple[bool, float, int, int, str]:
        found = chance(seed, head.branch, head.name) if rule == "random" else worth(head) if worth else 0.0
        return found is None, -(found or 0.0), -head.step, head.number, head.branch

    return sorted(heads, key=place)


def _std(head: GroupHead) -> float | None:
    return head.std


def _doubt(head: GroupHead) -> float | None:
    return head.doubt


def _discord(head: GroupHead) -> float | None:
    return head.discord


_WORTH: dict[str, Callable[[GroupHead], float | None]] = {"uncertain": _doubt, "disagree": _discord, "spread": _std}


# --------------------------------------------------------------------------------------------------- pairs


def choose_pairs(group: Group, rule: str, count: int, seed: Seed = 0) -> list[tuple[str, str]]:
    """Which two responses of a group to compare, in order: (left, right).

    All responses are shown by as few pairs as can be, and then come the rest; as far as that leaves a choice, the most
    telling pair under the rule comes first. Two equal texts are never compared, and a pair of texts that was asked
    already, under other letters, comes late. Which of the two stands left is keyed.

    :param count: most pairs to choose.
    :raises UnknownName: if there is no such rule.
    """
    if rule not in RULES:
        raise UnknownName("rule", rule, RULES)
    telling = _telling(group.responses, rule)
    texts = {response.letter: response.text for response in group.responses}
    left_over = {
        (one, other): (telling.get((one, other), -math.inf), chance(seed, group.branch, group.name, one, other))
        for one, other in combinations(texts, 2)
        if texts[one] != texts[other]
    }
    hidden = dict(texts)
    asked: set[frozenset[str]] = set()
    chosen: list[tuple[str, str]] = []

    def worth(pair: tuple[str, str]) -> tuple[int, int, bool, tuple[float, float]]:
        one, other = pair
        now = [texts[letter] for letter in pair if letter in hidden]
        alike = max([count - (text in now) for text, count in most_alike], default=0)
        # equal texts are not compared, so as many pairs are left to go as of the most frequent text are not shown yet
        left = max(-(-(len(hidden) - len(now)) // 2), alike)
        return -left, len(now), frozenset((texts[one], texts[other])) not in asked, left_over[pair]

    while left_over and len(chosen) < count:
        most_alike = Counter(hidden.values()).most_common(3)  # a pair takes from two: the third is the most then
        one, other = max(left_over, key=worth)
        del left_over[one, other]
        for letter in (one, other):
            hidden.pop(letter, None)
        asked.add(frozenset((texts[one], texts[other])))
        swap = chance(seed, group.branch, group.name, one, other, "left") < 0.5
        chosen.append((other, one) if swap else (one, other))
    return chosen


def _telling(responses: Sequence[Response], rule: str) -> dict[tuple[str, str], float]:
    """(letter, letter) -> how much an answer would tell; without the pairs that the rule knows nothing about."""
    found: dict[tuple[str, str], float] = {}
    if rule == "uncertain":
        return {(one, other): doubt for one, other, doubt in doubts(responses)}
    for one, other in combinations(responses, 2):
        value = None
        if rule == "disagree":
            value = discord((one, other))
        elif rule == "spread" and one.reward is not None and other.reward is not None:
            value = abs(one.reward - other.reward)
        if value is not None:
            found[one.letter, other.letter] = value
    return found


# ------------------------------------------------------------------------------------------------- repeats


def repeat_due(asked: int, share: float, seed: Seed = 0) -> bool:
    """Whether the next question should be an earlier one again.

    One question of every 1/share is, at a place in it that cannot be foreseen.

    :param asked: questions asked of the person before, repeats among them.
    :param share: of all questions, in [0, 1]; 0: never.
    """
    if share <= 0:
        return False
    first, last = math.floor(asked * share), math.floor((asked + 1) * share)
    return any(asked <= (block + chance(seed, "repeat", block)) / share < asked + 1 for block in range(first, last + 1))


def choose_repeat(ratings: Iterable[Rating], who: str, seed: Seed = 0, recent: int = RECENT) -> Rating | None:
    """The earlier answer of a person whose question to ask again silently; None where there is none.

    Only an answer that stands: neither taken back nor replaced, and none that is a repeat itself. Not one of the
    person's last ``recent``. Those asked again least often come first, in a keyed order.

    :param ratings: in the order in which they were given; other people's are left alone.
    """
    mine = [rating for rating in ratings if rating.who == who]
    replaced = {rating.supersedes for rating in mine if rating.supersedes and not rating.retracted}
    again = Counter(rating.repeats for rating in mine if rating.repeats)
    old_enough = mine[: max(0, len(mine) - recent)] if recent else mine
    candidates = [
        rating
        for rating in old_enough
        if not rating.repeats and not rating.retracted and rating.id not in replaced and rating.mode in REPEATABLE
    ]
    return min(candidates, key=lambda r: (again[r.id], chance(seed, r.id, again[r.id])), default=None)
