"""Records: names, letters and what a group's head says."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.errors import InvalidValue
from sessions.records import (
    Group,
    RatingUse,
    Response,
    ResponseName,
    discord,
    doubts,
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


def test_a_response_has_a_letter() -> None:
    assert response("A").letter == "A"


def scored(letter: str, text: str = "", heads: list[float] | None = None, **components: float | None) -> Response:
    return msgspec.structs.replace(
        response(letter), text=text or letter, heads=heads or [], components=dict(components)
    )  # fmt: skip


def test_discord_is_how_often_components_order_two_responses_in_opposite_ways() -> None:
    agree = [scored("A", right=1.0, short=0.9), scored("B", right=0.0, short=0.1)]
    oppose = [scored("A", right=1.0, short=0.1), scored("B", right=0.0, short=0.9)]
    mixed = [*agree, scored("C", right=0.0, short=0.95)]  # only C, shorter and wrong, is opposed to A
    assert discord(agree) == 0
    assert discord(oppose) == 1
    assert discord(mixed) == 1 / 2
    assert discord([scored("A", right=1.0), scored("B", right=0.0)]) is None
    assert discord([scored("A", right=1.0, short=None), scored("B", right=0.0, short=0.2)]) is None
    assert discord([scored("A", right=1.0, short=0.5), scored("B", right=1.0, short=0.5)]) is None
    assert discord([]) is None


def test_doubt_is_1_where_heads_see_no_difference_or_contradict_each_other() -> None:
    sure = [scored("A", heads=[5.0, 6.0]), scored("B", heads=[-5.0, -4.0])]
    even = [scored("A", heads=[1.0, 2.0]), scored("B", heads=[1.0, 2.0])]
    split = [scored("A", heads=[9.0, -9.0]), scored("B", heads=[-9.0, 9.0])]
    assert doubts(sure) == [("A", "B", pytest.approx(0, abs=1e-3))]
    assert doubts(even) == [("A", "B", pytest.approx(1))]
    assert doubts(split) == [("A", "B", pytest.approx(1, abs=1e-6))]


def test_equal_texts_and_unscored_responses_are_not_doubted() -> None:
    assert doubts([scored("A", "x", heads=[1.0]), scored("B", "x", heads=[1.0])]) == []
    assert doubts([scored("A"), scored("B")]) == []
    assert doubts([scored("A", heads=[1e6]), scored("B", heads=[-1e6])]) == [("A", "B", 0)]


def test_the_head_of_a_group_says_how_unsure_and_at_odds_its_scores_are() -> None:
    group = Group(
        branch="main", step=1, number=1, prompt_id="p", prompt="q", answer="", temperature=1.0,
        responses=[
            scored("A", heads=[3.0], right=1.0, short=0.0),
            scored("B", heads=[0.1], right=0.0, short=1.0),
            scored("C", heads=[0.0], right=0.0, short=1.0),
        ],
    )  # fmt: skip
    head = head_of(group)
    assert head.discord == 1
    assert head.doubt == pytest.approx(1 - abs(2 / (1 + 2.718281828**-0.1) - 1))


def test_a_rating_says_what_it_said_and_what_became_of_it() -> None:
    used = RatingUse(rating="r", group="3.1", fate="late", step=5, kl=0.0031)
    assert rating(3, 1, {"A": 4.0}).fate(None) == "waits for an update"
    assert rating(3, 1, {"A": 4.0}, retracted=9.0).fate(None) == "taken back"
    assert rating(3, 1, {"A": 4.0}).fate(used) == "used in update 5, late (KL 0.0031)"
    assert rating(3, 1, {"A": 4.0}, retracted=9.0).fate(used).endswith("late (KL 0.0031), retracted after")
    assert rating(3, 1, {"A": 1.0, "B": 0.0}, mode="pair").said() == "A=1, B=0"
    assert rating(3, 1, {"A": 1.0}, mode="critique", flags=["wrong"]).said() == "A=1, wrong"
    assert rating(3, 1, {"A": 1.0}, mode="edit", text="a\nb").said() == "A=1: a b"
