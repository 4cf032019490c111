"""The rating modes: what each takes, what it records, and what that says."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.errors import InvalidValue, UnknownName
from sessions.modes import (
    BOTH_BAD,
    CRITIQUE,
    EDIT,
    FLAGS,
    LEFT,
    LIKERT,
    MODES,
    MUCH_RIGHT,
    PAIR,
    RANK,
    THUMBS,
    TIE,
    preferred,
    rating_mode,
    replaces,
)

GOOD = [
    ("likert", {"A": 4}, "", []),
    ("likert", {"A": 4, "B": 1}, "", []),
    ("thumbs", {"A": -1}, "", []),
    ("pair", {"A": 1, "B": 0}, "", []),
    ("pair", {"A": 0, "B": 2}, "", []),
    ("pair", {"A": 1, "B": 1}, "", []),
    ("pair", {"A": 0, "B": 0}, "", []),
    ("rank", {"A": 1, "B": 2, "C": 2}, "", []),
    ("rank", {"A": 1, "B": 1}, "", []),
    ("edit", {"A": 1}, "a better text", []),
    ("critique", {"A": 1}, "", ["wrong", "format"]),
    ("critique", {"A": 1}, "", []),
]
BAD = [
    ("likert", {"A": 6}, "", [], "allowed: 1, 2, 3, 4, 5"),
    ("likert", {"A": 2.5}, "", [], "2.5 is not an answer"),
    ("likert", {}, "", [], "at least one response"),
    ("likert", {"A": 4}, "text", [], "takes no text"),
    ("thumbs", {"A": 0}, "", [], "allowed: -1, 1"),
    ("thumbs", {"A": 1}, "", ["wrong"], "takes no flags"),
    ("pair", {"A": 1}, "", [], "two responses"),
    ("pair", {"A": 1, "B": 0, "C": 0}, "", [], "two responses"),
    ("pair", {"A": 2, "B": 1}, "", [], "two responses"),
    ("pair", {"A": float("inf"), "B": 0}, "", [], "two responses"),
    ("rank", {"A": 1}, "", [], "at least two"),
    ("rank", {"A": 1, "B": 1.5}, "", [], "1.5 is not a place"),
    ("rank", {"A": 1, "B": float("inf")}, "", [], "is not a place"),
    ("rank", {"A": 0, "B": 1}, "", [], "is not a place"),
    ("edit", {"A": 1}, "  ", [], "text is missing"),
    ("edit", {"A": 1, "B": 1}, "x", [], "names one response"),
    ("edit", {"A": 1}, "x", ["wrong"], "takes no flags"),
    ("critique", {"A": 1}, "", ["nonsense"], "is not a flag"),
    ("critique", {"A": 2}, "", [], "names one response"),
    ("critique", {"A": 1}, "x", [], "takes no better text"),
]


@pytest.mark.parametrize(("mode", "values", "text", "flags"), GOOD)
def test_an_answer_is_taken(mode: str, values: dict, text: str, flags: list) -> None:
    rating_mode(mode).check(values, text, flags)


@pytest.mark.parametrize(("mode", "values", "text", "flags", "says"), BAD)
def test_what_is_no_answer_is_refused_by_name(mode: str, values: dict, text: str, flags: list, says: str) -> None:
    with pytest.raises(InvalidValue, match=says) as refused:
        rating_mode(mode).check(values, text, flags)
    assert str(refused.value).startswith(mode)


def test_there_are_the_six_modes_that_are_promised_and_no_other() -> None:
    assert set(MODES) == {"thumbs", "likert", "pair", "rank", "edit", "critique"}
    assert all(mode.name == name and mode.title and mode.teaches for name, mode in MODES.items())
    with pytest.raises(UnknownName, match="likert"):
        rating_mode("likrt")


def test_every_key_of_a_level_gives_an_answer_from_0_to_1() -> None:
    for mode in (LIKERT, THUMBS):
        scores = sorted(mode.score(value) for value, _ in mode.keys.values())
        assert (scores[0], scores[-1]) == (0.0, 1.0)
        for value, _ in mode.keys.values():
            mode.check({"A": value})


def test_every_key_of_a_pair_records_an_answer() -> None:
    recorded = {key: PAIR.answer(code, "X", "Y") for key, (code, _) in PAIR.keys.items()}
    assert recorded == {
        "h": {"X": 1, "Y": 0},
        "H": {"X": 2, "Y": 0},
        "l": {"Y": 1, "X": 0},
        "L": {"Y": 2, "X": 0},
        "t": {"X": 1, "Y": 1},
        "0": {"X": 0, "Y": 0},
    }
    for values in recorded.values():
        PAIR.check(values)


def test_the_strength_of_a_pair_is_a_margin_and_nothing_more() -> None:
    slight, strong = PAIR.answer(LEFT, "A", "B"), PAIR.answer(MUCH_RIGHT, "B", "A")
    assert PAIR.heights(slight) == PAIR.heights(strong)
    assert (PAIR.margin(slight), PAIR.margin(strong)) == (0, 1)
    assert PAIR.margin(PAIR.answer(TIE, "A", "B")) == PAIR.margin(PAIR.answer(BOTH_BAD, "A", "B")) == 0


@pytest.mark.parametrize(
    ("mode", "values", "pairs"),
    [
        (LIKERT, {"A": 1, "B": 5, "C": 1}, {("B", "A"), ("B", "C")}),
        (THUMBS, {"A": 1, "B": -1}, {("A", "B")}),
        (PAIR, {"A": 0, "B": 2}, {("B", "A")}),
        (PAIR, {"A": 1, "B": 1}, set()),
        (RANK, {"A": 2, "B": 1, "C": 2, "D": 3}, {("B", "A"), ("B", "C"), ("B", "D"), ("A", "D"), ("C", "D")}),
        (EDIT, {"A": 1}, set()),
        (CRITIQUE, {"A": 1}, set()),
    ],
)
def test_who_is_preferred_to_whom(mode, values: dict, pairs: set) -> None:
    assert set(preferred(mode.tiers(values))) == pairs


@given(st.dictionaries(st.sampled_from("ABCDEFGHI"), st.integers(1, 9), min_size=2))
def test_heights_of_a_ranking_are_those_of_counting_who_is_beaten(places: dict[str, int]) -> None:
    heights = RANK.heights(places).relative
    for letter, h in heights.items():
        others = [place for other, place in places.items() if other != letter]
        beaten = sum(1.0 if places[letter] < place else 0.5 if places[letter] == place else 0.0 for place in others)
        assert h == pytest.approx(beaten / len(others))


def test_a_ranking_records_its_tiers() -> None:
    assert RANK.answer([["C"], ["A", "B"], ["D"]]) == {"C": 1, "A": 2, "B": 2, "D": 3}
    assert RANK.tiers(RANK.answer([["C"], ["A", "B"], ["D"]])) == [["C"], ["A", "B"], ["D"]]


def test_what_is_complete() -> None:
    assert RANK.complete({"A": 1, "B": 2}, ["A", "B"])
    assert not RANK.complete({"A": 1, "B": 2}, ["A", "B", "C"])
    assert not LIKERT.complete({"A": 1}, ["A", "B"])
    assert PAIR.complete({"A": 1, "B": 0}, ["A", "B"])
    assert not PAIR.complete({}, ["A", "B"])
    assert EDIT.complete({"A": 1}, ["A"])
    assert CRITIQUE.complete({"A": 1}, ["A"])


def test_an_answer_takes_the_place_of_one_in_its_slot() -> None:
    assert replaces("likert", "A", "thumbs", "A")
    assert not replaces("likert", "A", "likert", "B")
    assert not replaces("likert", "A", "pair", "AB")
    assert replaces("pair", "AB", "pair", "BA")
    assert not replaces("pair", "AB", "pair", "AC")
    assert replaces("rank", "ABC", "rank", "CD")
    assert not replaces("rank", "AB", "rank", "CD")
    assert not replaces("edit", "A", "critique", "A")
    assert not replaces("likert", "A", "a mode of a later version", "A")


def test_only_levels_and_comparisons_move_rewards() -> None:
    assert {name for name, mode in MODES.items() if mode.moves_rewards} == {"thumbs", "likert", "pair", "rank"}
    for mode, values in ((EDIT, {"A": 1}), (CRITIQUE, {"A": 1})):
        assert not mode.heights(values).level
        assert not mode.heights(values).relative


def test_every_flag_has_a_digit() -> None:
    assert [word for _, word in CRITIQUE.keys.values()] == list(FLAGS)
    assert all(key.isdigit() for key in CRITIQUE.keys)


def test_answers_are_short_in_lists() -> None:
    shown = {mode.name: [mode.show(value) for value in (0, 1, 2)] for mode in MODES.values()}
    assert all(len(text) <= 7 for texts in shown.values() for text in texts)
    for one, other in combinations(("0", "1", "2"), 2):
        assert PAIR.show(float(one)) != PAIR.show(float(other))
