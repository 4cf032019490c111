"""How ratings move rewards."""

from __future__ import annotations

import pytest

from engine.ratings import rated_reward, rated_rewards, scores
from tests.sessions.samples import rating


@pytest.mark.parametrize(
    ("mode", "value", "h"),
    [("thumbs", -1, 0), ("thumbs", 1, 1), ("likert", 1, 0), ("likert", 2, 0.25), ("likert", 3, 0.5),
     ("likert", 4, 0.75), ("likert", 5, 1)],
)  # fmt: skip
def test_h(mode: str, value: float, h: float) -> None:
    assert scores([rating(values={"A": value}, mode=mode)]) == {"A": h}


def test_several_people_are_averaged() -> None:
    said = [rating(values={"A": 5, "B": 1}), rating(values={"A": 3}), rating(values={"A": -1}, mode="thumbs")]
    assert scores(said) == {"A": pytest.approx((1 + 0.5 + 0) / 3), "B": 0}


@pytest.mark.parametrize(("w", "expected"), [(0.0, 0.2), (0.5, 0.1 + 0.5 * (-1 + 0.75 * 3)), (1.0, 1.25)])
def test_the_equation(w: float, expected: float) -> None:
    assert rated_reward(0.2, 0.75, w, (-1.0, 2.0)) == pytest.approx(expected)


def test_only_the_rated_change() -> None:
    said = [rating(values={"B": 5}), rating(values={"Z": 1})]
    assert rated_rewards({"A": 0.0, "B": 0.0}, said, 0.5, (0.0, 1.0)) == {"B": 0.5}


@pytest.mark.parametrize("w", [0.25, 1.0])
def test_a_rating_stands_in_for_a_reward_that_there_is_not(w: float) -> None:
    assert rated_rewards({"A": None}, [rating(values={"A": 4})], w, (-1.0, 1.0)) == {"A": 0.5}


def test_nobody_rated() -> None:
    assert rated_rewards({"A": 1.0}, [], 1.0, (0.0, 1.0)) == {}
