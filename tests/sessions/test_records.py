"""Records: names, letters and what a group's head says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.errors import InvalidValue
from sessions.modes import MODES, rating_mode
from sessions.records import (
    RatingUse,
    ResponseName,
    head_of,
    letters,
    parse_response_name,
    shorten,
)
from tests.sessions.samples import group, rating, response


def test_letters() -> None:
    assert [letters(i) for i in (0, 25, 26, 51, 52)] == ["A", "Z", "AA", "AZ", "BA"]
    assert len({letters(i) for i in range(700)}) == 700


@given(
    step=st.integers(0, 10**9),
    number=st.integers(0, 10**6),
    index=st.integers(-1, 255),
    branch=st.sampled_from(["", "main", "main~1", "a.b-c_d"]),
)
def test_names_round_trip(step: int, number: int, index: int, branch: str) -> None:
    name = ResponseName(step, number, letters(index) if index >= 0 else "", branch)
    assert parse_response_name(str(name)) == name


@pytest.mark.parametrize("text", ["812.3C", " 812.3C ", "main~1/812.3C"])
def test_names(text: str) -> None:
    name = parse_response_name(text)
    assert (name.step, name.group, name.letter) == (812, 3, "C")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "812",
        "812.",
        ".3C",
        "812.3c",
        "812.3ABC",
        "-1.3",
        "812.3C x",
        "a b/812.3C",
        "/1.1",
        "1." + "9" * 20,
        "1.\u0663",
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"is not a response; they are named like 812\.3C"):
        parse_response_name(text)


def test_a_head_counts_what_was_scored() -> None:
    made = group(rewards=[1.0, 0.0, None])
    made.responses[2].failed = "accuracy: ValueError"
    head = head_of(made)
    assert (head.mean, head.std) == (0.5, pytest.approx(0.5**0.5))
    assert head.rewards == [1.0, 0.0, None]
    assert head.flags == ["failed"]
    assert head.name == "3.1"


def test_a_heads_flags() -> None:
    assert "dead" in head_of(group(rewards=[1.0, 1.0])).flags
    assert "dead" in head_of(group(rewards=[None, None])).flags
    assert head_of(group(rewards=[None, None])).mean is None
    cut = group(rewards=[1.0, 0.0])
    cut.responses[0].ended = False
    cut.responses[1].kl = 0.7
    head = head_of(cut, {"A": "4"})
    assert head.flags == ["truncated", "rated", "high_kl"]
    assert (head.kl, head.ratings) == (0.7, {"A": "4"})


def test_a_rated_reward_replaces_the_automatic_one() -> None:
    made = group(rewards=[1.0, 0.0])
    made.responses[0].rated_reward = 0.25
    assert head_of(made).rewards == [0.25, 0.0]


def test_long_prompts_are_cut() -> None:
    assert shorten("x" * 500, 10) == "x" * 8 + ".."
    assert shorten("short") == "short"


def test_a_rating_names_its_responses() -> None:
    assert rating(values={"A": 4, "C": 2}).names == ["3.1A", "3.1C"]


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (RatingUse(rating="r", group="3.1", fate="on_time", step=3), "used in update 3, on time"),
        (RatingUse(rating="r", group="3.1", fate="late", step=5, kl=0.0031), "used in update 5, late (KL 0.0031)"),
        (RatingUse(rating="r", group="3.1", fate="unused", why="KL 0.9 is over 0.2"), "not used: KL 0.9 is over 0.2"),
    ],
)
def test_what_became_of_a_rating(use: RatingUse, words: str) -> None:
    assert use.describe() == words


@pytest.mark.parametrize("mode", MODES.values(), ids=lambda mode: mode.name)
def test_modes_score_from_0_to_1(mode) -> None:
    scores = sorted(mode.score(value) for value, _ in mode.keys.values())
    assert (scores[0], scores[-1]) == (0.0, 1.0)
    assert all(mode.check(value) == value for value, _ in mode.keys.values())
    with pytest.raises(InvalidValue, match="allowed: "):
        mode.check(0.5)
    assert rating_mode(mode.name) is mode
    assert response("A").letter == "A"
