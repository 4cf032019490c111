"""The difference of two texts: nothing is lost, what is common is common, and as little as possible differs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import screens.difference
from screens.difference import Pieces, difference

ANY = st.text(st.characters(), max_size=60)
WORDS = st.lists(st.sampled_from(["a", "b", "c", "the", "7"]), max_size=14)


def joined(pieces: Pieces, only: bool | None = None) -> str:
    return "".join(piece.text for piece in pieces if only is None or piece.only == only)


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """By the textbook's table."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def check(one: str, other: str) -> tuple[Pieces, Pieces]:
    """What holds for any two texts."""
    left, right = difference(one, other)
    assert (joined(left), joined(right)) == (one, other)
    assert joined(left, only=False) == joined(right, only=False)
    for pieces in (left, right):
        assert all(piece.text for piece in pieces)
        assert all(a.only != b.only for a, b in pairwise(pieces)), "neighbours are one piece"
    return left, right


@given(ANY, ANY)
def test_joined_the_pieces_are_the_texts_and_the_common_ones_are_equal(one: str, other: str) -> None:
    check(one, other)


@given(ANY, ANY, ANY, ANY)
def test_texts_that_share_much_keep_it(start: str, one: str, other: str, end: str) -> None:
    check(start + one + end, start + other + end)


@given(ANY)
def test_a_text_does_not_differ_from_itself(text: str) -> None:
    left, right = difference(text, text)
    assert not [piece for piece in left + right if piece.only]


@given(WORDS, WORDS)
def test_as_few_words_differ_as_can_be(one: list[str], other: list[str]) -> None:
    left, right = check(" ".join(one), " ".join(other))
    assert len(joined(left, only=False).split()) == len(joined(right, only=False).split()) == longest_common(one, other)


@given(WORDS, WORDS, st.integers(0, 6))
def test_beyond_the_bound_it_is_still_a_difference(one: list[str], other: list[str], most: int) -> None:
    difference.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screens.difference, "MOST_EDITS", most)
        left, _ = check(" ".join(one), " ".join(other))
    difference.cache_clear()
    common, best = len(joined(left, only=False).split()), longest_common(one, other)
    assert common <= best
    if len(one) + len(other) - 2 * best <= most:
        assert common == best


def test_as_many_edits_as_are_allowed_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screens.difference, "MOST_EDITS", 4)
    difference.cache_clear()
    left, _ = check("x a a y z", "a")
    assert joined(left, only=False).strip() == "a"
    difference.cache_clear()


@pytest.mark.parametrize(
    ("one", "other", "mine", "theirs"),
    [
        ("back at 19:17.", "back at 19:05.", ["17"], ["05"]),
        ("a b c", "a x y c", ["b"], ["x y"]),
        ("a c", "a new c", [], ["new "]),
        ("so it waits", "it waits", ["so "], []),
        ("it waits", "it waits, then", [], [", then"]),
        ("one\n\ntwo", "one\ntwo", ["\n\n"], ["\n"]),
        ("  a", "a", ["  "], []),
        ("don't", "dont", ["don't"], ["dont"]),
        ("cafe\u0301s", "cafes", ["cafe\u0301s"], ["cafes"]),
        ("日本語", "日本人", ["語"], ["人"]),
        ("हिन्दी है", "हिन्दू है", ["हिन्दी"], ["हिन्दू"]),
        ("x_1 = 2", "x_2 = 2", ["x_1"], ["x_2"]),
        ("", "all of it", [], ["all of it"]),
    ],
)
def test_what_is_marked(one: str, other: str, mine: list[str], theirs: list[str]) -> None:
    left, right = check(one, other)
    assert [piece.text for piece in left if piece.only] == mine
    assert [piece.text for piece in right if piece.only] == theirs


def test_long_texts_are_cut_where_a_word_stands_once() -> None:
    chance = random.Random(7)
    start = [f"w{i}" if i % 5 == 0 else chance.choice("abcdefgh") for i in range(6000)]
    changed = [chance.choice("xyz") if i % 5 == 2 else word for i, word in enumerate(start)]
    left, _ = check(" ".join(start), " ".join(changed))
    assert len(joined(left, only=False).split()) >= 4800


@pytest.mark.parametrize("kind", ["equal words", "other words", "few words", "once"])
def test_the_effort_is_bounded_on_the_longest_texts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    words = 16_000
    one, other = {
        "equal words": (["a"] * words, ["a", "b"] * (words // 2)),
        "other words": ([f"a{i}" for i in range(words)], [f"b{i}" for i in range(words)]),
        "few words": (chance.choices("abcdef", k=words), chance.choices("abcdef", k=words)),
        "once": ([f"a{i}" for i in range(words)], [f"a{i}" for i in reversed(range(words))]),
    }[kind]
    left: list[int] = []
    spent = screens.difference._Search._shortest

    def watched(search: screens.difference._Search, a: Sequence[int], b: Sequence[int]) -> object:
        left.append(search._left)
        try:
            return spent(search, a, b)
        finally:
            left.append(search._left)

    monkeypatch.setattr(screens.difference._Search, "_shortest", watched)
    check(" ".join(one), " ".join(other))
    assert min(left) < left[0], "it is counted"
    # One row of diagonals may still be walked when nothing is left.
    assert min(left) >= -(2 * screens.difference.MOST_EDITS + 1) - 2 * words


def test_a_difference_is_computed_once() -> None:
    assert difference("a b", "a c") is difference("a b", "a c")
