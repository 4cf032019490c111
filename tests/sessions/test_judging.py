"""How ratings move rewards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.judging import Judged, judge, rated_rewards
from tests.sessions.samples import rating


def rewards_of(rewards: dict, said: list, w: float, reward_range: tuple[float, float] = (0.0, 1.0)) -> dict[str, float]:
    return rated_rewards(rewards, judge(said), w, reward_range)


@pytest.mark.parametrize(
    ("mode", "value", "h"),
    [("thumbs", -1, 0), ("thumbs", 1, 1), ("likert", 1, 0), ("likert", 2, 0.25), ("likert", 3, 0.5),
     ("likert", 4, 0.75), ("likert", 5, 1)],
)  # fmt: skip
def test_h_of_a_level(mode: str, value: float, h: float) -> None:
    assert judge([rating(values={"A": value}, mode=mode)]) == Judged(level={"A": h})


@pytest.mark.parametrize(
    ("values", "relative", "level"),
    [
        ({"A": 1, "B": 0}, {"A": 1, "B": 0}, {}),
        ({"A": 0, "B": 2}, {"A": 0, "B": 1}, {}),
        ({"A": 1, "B": 1}, {"A": 0.5, "B": 0.5}, {}),
        ({"A": 0, "B": 0}, {}, {"A": 0, "B": 0}),
    ],
)
def test_h_of_a_pair(values: dict, relative: dict, level: dict) -> None:
    assert judge([rating(values=values, mode="pair")]) == Judged(level, relative)


@pytest.mark.parametrize(
    ("places", "h"),
    [
        ({"A": 1, "B": 2, "C": 3}, {"A": 1, "B": 0.5, "C": 0}),
        ({"A": 2, "B": 1}, {"A": 0, "B": 1}),
        ({"A": 1, "B": 2, "C": 2, "D": 3}, {"A": 1, "B": 0.5, "C": 0.5, "D": 0}),  # places 2 and 3 share 2.5
        ({"A": 1, "B": 1, "C": 2}, {"A": 0.75, "B": 0.75, "C": 0}),
        ({"A": 1, "B": 1, "C": 1}, {"A": 0.5, "B": 0.5, "C": 0.5}),
    ],
)
def test_h_of_a_ranking(places: dict, h: dict) -> None:
    assert judge([rating(values=places, mode="rank")]).relative == pytest.approx(h)


def test_several_people_are_averaged() -> None:
    said = [
        rating(values={"A": 5, "B": 1}),
        rating(values={"A": 3}, who="bob"),
        rating(values={"A": -1}, mode="thumbs", who="cat"),
    ]
    assert judge(said).level == {"A": pytest.approx((1 + 0.5 + 0) / 3), "B": 0}


def test_of_one_persons_levels_the_later_counts() -> None:
    said = [rating(values={"A": 5}), rating(values={"A": -1}, mode="thumbs")]
    assert judge(said).level == {"A": 0}


def test_pairs_of_a_group_are_wins_over_pairs() -> None:
    pairs = [{"A": 1, "B": 0}, {"A": 2, "C": 0}, {"B": 1, "C": 1}]
    assert judge([rating(values=values, mode="pair") for values in pairs]).relative == {"A": 1, "B": 0.25, "C": 0.25}


@pytest.mark.parametrize(("w", "expected"), [(0.0, 0.2), (0.5, 0.1 + 0.5 * (-1 + 0.75 * 3)), (1.0, 1.25)])
def test_a_level_moves_to_its_place_in_the_range(w: float, expected: float) -> None:
    found = rewards_of({"A": 0.2}, [rating(values={"A": 4})], w, (-1.0, 2.0))
    assert found == {"A": pytest.approx(expected)}


@pytest.mark.parametrize("w", [0.0, 0.3, 1.0])
def test_a_comparison_is_centred_on_the_mean_of_what_was_compared(w: float) -> None:
    automatic = {"A": 0.2, "B": 0.6, "C": 0.9}
    found = rewards_of(automatic, [rating(values={"A": 1, "B": 0}, mode="pair")], w, (-1.0, 1.0))
    centre = (0.2 + 0.6) / 2
    assert found == {
        "A": pytest.approx((1 - w) * 0.2 + w * (centre + 1)),
        "B": pytest.approx((1 - w) * 0.6 + w * (centre - 1)),
    }
    assert sum(found.values()) == pytest.approx(0.8)  # what was compared is neither raised nor lowered as a whole


def test_a_tie_moves_both_to_their_mean() -> None:
    assert rewards_of({"A": 0.0, "B": 1.0}, [rating(values={"A": 1, "B": 1}, mode="pair")], 1.0) == {"A": 0.5, "B": 0.5}


def test_both_bad_is_the_lowest_reward_for_each() -> None:
    said = [rating(values={"A": 0, "B": 0}, mode="pair")]
    assert rewards_of({"A": 0.5, "B": 1.0}, said, 1.0, (-2.0, 1.0)) == {"A": -2, "B": -2}


def test_a_level_counts_where_there_is_a_comparison_too() -> None:
    said = [rating(values={"A": 1, "B": 0}, mode="pair"), rating(values={"B": 4})]
    assert rewards_of({"A": 0.0, "B": 0.0}, said, 1.0) == {"A": 0.5, "B": 0.75}


def test_what_a_reward_function_failed_on_is_neither_moved_nor_counted() -> None:
    said = [rating(values={"A": 1, "B": 2, "C": 3}, mode="rank")]
    assert rewards_of({"A": 0.2, "C": 0.4}, said, 1.0) == {"A": pytest.approx(0.8), "C": pytest.approx(-0.2)}
    assert rewards_of({"A": 0.2}, said, 1.0) == {}  # one alone is compared with nothing


def test_only_the_rated_change() -> None:
    said = [rating(values={"B": 5}), rating(values={"Z": 1}, who="bob")]
    assert rewards_of({"A": 0.0, "B": 0.0}, said, 0.5) == {"B": 0.5}


@pytest.mark.parametrize("w", [0.25, 1.0])
def test_a_rating_stands_in_for_a_reward_that_there_is_not(w: float) -> None:
    assert rewards_of({"A": None}, [rating(values={"A": 4})], w, (-1.0, 1.0)) == {"A": 0.5}
    pair = [rating(values={"A": 1, "B": 0}, mode="pair")]
    assert rewards_of({"A": None, "B": None}, pair, w, (-1.0, 1.0)) == {"A": 1, "B": -1}


def test_silent_repeats_edits_and_critiques_move_nothing() -> None:
    said = [
        rating(values={"A": 5}, repeats="x"),
        rating(values={"A": 1}, mode="edit", text="better"),
        rating(values={"A": 1}, mode="critique", flags=["wrong"]),
    ]
    assert judge(said) == Judged()


def test_nobody_rated() -> None:
    assert rewards_of({"A": 1.0}, [], 1.0) == {}


@given(
    order=st.permutations("ABCDE"),
    cuts=st.lists(st.booleans(), min_size=4, max_size=4),
    rewards=st.lists(st.floats(-5, 5), min_size=5, max_size=5),
)
def test_a_ranking_orders_the_rewards_as_it_says(order: list[str], cuts: list[bool], rewards: list[float]) -> None:
    places, place = {}, 1
    for letter, cut in zip(order, [*cuts, False], strict=True):
        places[letter] = place
        place += cut
    automatic = dict(zip("ABCDE", rewards, strict=True))
    found = rewards_of(automatic, [rating(values=places, mode="rank")], 1.0, (0.0, 2.0))
    for one in "ABCDE":
        for other in "ABCDE":
            if places[one] < places[other]:
                assert found[one] > found[other]
            elif places[one] == places[other]:
                assert found[one] == pytest.approx(found[other])
    assert sum(found.values()) == pytest.approx(sum(rewards), abs=1e-9)
