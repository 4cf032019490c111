"""What two texts have in common, by words: what a person would strike out of one and write into the other.

Words and punctuation marks are compared, and the white space between them belongs to its neighbours: it is common where
a word beside it is. Where at most :data:`MOST_EDITS` words differ as few as possible do. Beyond that the texts are cut
at the words that each has once, and what lies between is compared in turn, as long as :data:`EFFORT` lasts: no text
takes longer than a moment, and what was not compared counts as different.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

MOST_EDITS = 700
"""Words on both sides together that may differ for the difference still to be the smallest there is."""
EFFORT = 1_000_000
"""Comparisons before the rest is left as different; a few tenths of a second."""
_DEEPEST = 12
"""Times a text is cut at the words that are there once."""

_MARKS = r"\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\U0001f3fb-\U0001f3ff"
_INDIC = r"\u0900-\u0963\u0966-\u1cff"  # vowel signs there are letters to a reader and not to ``\w``
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Scripts without spaces between words: each character is a word."""
_WORD = re.compile(rf"(?:[^\W{_UNSPACED}]|[{_INDIC}])(?:[^\W{_UNSPACED}]|[{_INDIC}{_MARKS}])*|\S[{_MARKS}]*")

Pair = tuple[int, int]
"""A word of one text and the same word of the other, by their numbers."""


class Piece(NamedTuple):
    """A stretch of a text.

    :ivar text: never empty.
    :ivar only: whether the other text does not have it.
    """

    text: str
    only: bool


Pieces = tuple[Piece, ...]


@lru_cache(maxsize=64)
def difference(one: str, other: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces; joined, they are the texts again.

    The pieces that are not ``only`` in one text, joined, equal those of the other. The last 64 pairs are remembered.
    """
    words, others = ([match.span() for match in _WORD.finditer(text)] for text in (one, other))
    numbers: dict[str, int] = {}
    first, second = (
        [numbers.setdefault(text[start:end], len(numbers)) for start, end in spans]
        for text, spans in ((one, words), (other, others))
    )
    pairs = _Search().common(first, second)
    gaps, other_gaps = _gaps(one, words), _gaps(other, others)
    same, other_same = _common_gaps(
        [one[slice(*gap)] for gap in gaps], [other[slice(*gap)] for gap in other_gaps], pairs
    )
    return (
        _pieces(one, words, gaps, {i for i, _ in pairs}, same),
        _pieces(other, others, other_gaps, {j for _, j in pairs}, other_same),
    )


def _gaps(text: str, words: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where the white space before each word is, and that after the last; one more than there are words."""
    ends = [0, *(end for _, end in words)]
    return list(zip(ends, [*(start for start, _ in words), len(text)], strict=True))


def _common_gaps(gaps: Sequence[str], others: Sequence[str], pairs: Sequence[Pair]) -> tuple[set[int], set[int]]:
    """Which gaps are the same beside the same word; the edges of the texts are the same too."""
    same: set[int] = set()
    other_same: set[int] = set()
    for i, j in [(-1, -1), *pairs, (len(gaps) - 1, len(others) - 1)]:
        for gap, other in ((i, j), (i + 1, j + 1)):  # the one before the word, the one after it
            inside = 0 <= gap < len(gaps) and 0 <= other < len(others)
            if inside and gap not in same and other not in other_same and gaps[gap] == others[other]:
                same.add(gap)
                other_same.add(other)
    return same, other_same


def _pieces(
    text: str, words: Sequence[tuple[int, int]], gaps: Sequence[tuple[int, int]], common: set[int], same: set[int]
) -> Pieces:
    """The text cut where it begins or ceases to be common."""
    places = [0]
    flags: list[bool] = []
    for number, gap in enumerate(gaps):
        parts = [(gap, number not in same)]
        if number < len(words):
            parts.append((words[number], number not in common))
        for (start, end), only in parts:
            if start == end:
                continue
            if flags and flags[-1] == only:
                places[-1] = end
            else:
                flags.append(only)
                places.append(end)
    return tuple(Piece(text[a:b], only) for (a, b), only in zip(pairwise(places), flags, strict=True))


class _Search:
    """Finds the words that two lists have in common, in order, with an effort that is bounded for all of it."""

    def __init__(self) -> None:
        self._left = EFFORT

    def common(self, one: Sequence[int], other: Sequence[int]) -> list[Pair]:
        """Pairs of equal words, both numbers rising."""
        pairs: list[Pair] = []
        # What is left to do, the last first: two stretches, and how often they were cut.
        todo = [(0, len(one), 0, len(other), 0)]
        while todo:
            a, b, c, d, depth = todo.pop()
            while a < b and c < d and one[a] == other[c]:
                pairs.append((a, c))
                a, c = a + 1, c + 1
            end = 0
            while a < b and c < d and one[b - 1] == other[d - 1]:
                b, d, end = b - 1, d - 1, end + 1
            pairs.extend((b + k, d + k) for k in range(end))
            if a == b or c == d:
                continue
            found = self._shortest(one[a:b], other[c:d])
            if found is not None:
                pairs.extend((a + i, c + j) for i, j in found)
            elif depth < _DEEPEST:
                anchors = _anchors(one[a:b], other[c:d])
                edges = [(-1, -1), *anchors, (b - a, d - c)]
                pairs.extend((a + i, c + j) for i, j in anchors)
                if anchors:
                    todo.extend((a + i + 1, a + k, c + j + 1, c + m, depth + 1) for (i, j), (k, m) in pairwise(edges))
        return sorted(pairs)

    def _shortest(self, one: Sequence[int], other: Sequence[int]) -> list[Pair] | None:
        """A longest common subsequence (Myers 1986), or None if that takes too many edits or too much effort."""
        n, m = len(one), len(other)
        most = min(n + m, MOST_EDITS)
        if abs(n - m) > most:
            return None
        # reached[zero + k]: how far the edits so far come in ``one`` on diagonal k, where x - y is k.
        zero = most + 1
        reached = [-1] * (2 * most + 3)
        reached[zero + 1] = 0
        trail: list[list[int]] = []
        for edits in range(most + 1):
            for k in range(-edits, edits + 1, 2):
                if not -m <= k <= n:
                    continue
                x = start = _step(reached[zero + k - 1], reached[zero + k + 1], k, edits)
                y = x - k
                while x < n and y < m and one[x] == other[y]:
                    x, y = x + 1, y + 1
                reached[zero + k] = x
                self._left -= 1 + x - start
                if k == n - m and x >= n:
                    return _way_back(trail, n, m)
            if self._left < 0:
                return None
            trail.append(reached[zero - edits : zero + edits + 1 : 2])
        return None


def _step(before: int, after: int, k: int, edits: int) -> int:
    """Where diagonal k is entered: from the one before it, by a word of the first text, or from the one after it."""
    return after if k == -edits or (k != edits and before < after) else before + 1


def _way_back(trail: Sequence[Sequence[int]], n: int, m: int) -> list[Pair]:
    """The pairs on the way that came to the end first.

    :param trail: for e edits, how far they came on the diagonals -e, 2 - e, .. e.
    """
    pairs: list[Pair] = []
    x, y = n, m
    for edits in range(len(trail), 0, -1):
        row, k = trail[edits - 1], x - y
        at = (k + edits) // 2  # of the diagonal after this one; that before it stands one place earlier
        before = row[at - 1] if at > 0 else -1
        after = row[at] if at < edits else -1
        start = _step(before, after, k, edits)
        while x > start:
            x, y = x - 1, y - 1
            pairs.append((x, y))
        if k == -edits or (k != edits and before < after):
            y -= 1
        else:
            x -= 1
    pairs.extend((i, i) for i in range(x - 1, -1, -1))
    return pairs[::-1]


def _anchors(one: Sequence[int], other: Sequence[int]) -> list[Pair]:
    """Words that both have exactly once, as many as are in the same order in both."""
    once, other_once = Counter(one), Counter(other)
    place = {word: j for j, word in enumerate(other) if other_once[word] == 1}
    pairs = [(i, place[word]) for i, word in enumerate(one) if once[word] == 1 and word in place]
    # The longest rising run of the second numbers: for each length the smallest number that ends one.
    ends: list[int] = []
    last: list[int] = []
    before: list[int] = []
    for number, (_, j) in enumerate(pairs):
        at = bisect_left(ends, j)
        before.append(last[at - 1] if at else -1)
        if at == len(ends):
            ends.append(j)
            last.append(number)
        else:
            ends[at], last[at] = j, number
    run: list[Pair] = []
    number = last[-1] if last else -1
    while number >= 0:
        run.append(pairs[number])
        number = before[number]
    return run[::-1]
