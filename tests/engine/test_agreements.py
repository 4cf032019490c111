"""The metrics of agreement: what they rest on, what they name, and when they are measured anew."""

from __future__ import annotations

import pytest

from engine.agreements import LEAST, NEWEST, Agreements
from sessions.records import Group, Rating
from sessions.wire import Noted, RatingRetracted, RatingSaved
from tests.sessions.samples import group, rating


def asked_twice(count: int, apart: int = 0) -> list[Rating]:
    """Likert answers, and the same again, of which so many differ by two."""
    first = [rating(i, id=f"{i}", time=float(i), values={"A": 4.0}) for i in range(count)]
    again = [
        rating(i, id=f"r{i}", time=100.0 + i, values={"A": 2.0 if i < apart else 4.0}, repeats=f"{i}")
        for i in range(count)
    ]
    return first + again


class Groups:
    """Groups as the store has them, and what was read."""

    def __init__(self, **scores: float) -> None:
        self.read: list[int] = []
        self.scores = scores
        self.failed = ""

    def __call__(self, asked: Rating) -> Group | None:
        self.read.append(asked.step)
        if asked.step < 0:
            return None
        found = group(asked.step, asked.group)  # rewards 1, 0, 0, 1
        for response in found.responses:
            if response.letter in self.scores:
                response.components["reward_model"] = self.scores[response.letter]
            response.failed = "accuracy: raised" if response.letter == self.failed else ""
            response.rated_reward = 0.5  # what ratings have moved is never compared with ratings
        return found


def measured(ratings: list[Rating], groups: Groups | None = None, branch: str = "main") -> tuple[dict, Agreements]:
    agreements = Agreements()
    return agreements.measure(ratings, groups or Groups(), branch, 0), agreements


def pairs(count: int, better: str, worse: str, **more: object) -> list[Rating]:
    return [
        rating(i, mode="pair", values={better: 1.0, worse: 0.0}, time=10.0 * i, **more) for i in range(1, count + 1)
    ]


def test_nothing_is_measured_where_nobody_rated() -> None:
    assert measured([])[0] == {}


def test_self_agreement_needs_enough_repeats_and_names_those_furthest_apart() -> None:
    assert "ratings/self_agreement" not in measured(asked_twice(LEAST - 1))[0]
    metrics, agreements = measured(asked_twice(LEAST, apart=2))
    assert metrics["ratings/self_agreement"] == pytest.approx(1 - 2 * 0.5 / (LEAST * 0.4))
    assert agreements.blamed["ratings/self_agreement"] == ["1.1A", "0.1A"]


def test_the_automatic_reward_is_compared_and_what_it_likes_against_people_is_named() -> None:
    said = pairs(6, "A", "B") + pairs(4, "C", "A", who="bob")
    metrics, agreements = measured(said)
    assert metrics["ratings/reward_agreement"] == pytest.approx(6 / 10)
    assert agreements.blamed["ratings/reward_agreement"] == ["4.1A", "3.1A", "2.1A", "1.1A"]
    assert "ratings/reward_model_agreement" not in metrics
    assert "ratings/reward_agreement" not in measured(pairs(LEAST - 1, "A", "B"))[0]


def test_the_reward_model_is_compared_by_its_scores() -> None:
    metrics, agreements = measured(pairs(10, "A", "B"), Groups(A=-1.0, B=0.5))
    assert (metrics["ratings/reward_agreement"], metrics["ratings/reward_model_agreement"]) == (1, 0)
    assert agreements.blamed["ratings/reward_model_agreement"][:2] == ["10.1B", "9.1B"]


def test_a_response_that_a_reward_function_failed_on_is_compared_with_nothing() -> None:
    groups = Groups()
    groups.failed = "C"
    metrics, _ = measured([*pairs(10, "A", "B"), *pairs(10, "C", "A", who="bob")], groups)
    assert metrics["ratings/reward_agreement"] == 1


def test_only_the_newest_ratings_are_compared_with_rewards() -> None:
    metrics, _ = measured(pairs(30, "C", "A", who="bob") + pairs(NEWEST, "A", "B"))
    assert metrics["ratings/reward_agreement"] == 1


def test_responses_of_another_branch_are_named_with_it() -> None:
    _, agreements = measured(pairs(10, "C", "A"), branch="careful")
    assert agreements.blamed["ratings/reward_agreement"][0] == "main/10.1A"


def test_raters_their_pace_and_their_agreement() -> None:
    one = measured(pairs(13, "A", "B"))[0]
    assert (one["ratings/raters"], one["ratings/per_hour"]) == (1, pytest.approx(360))
    assert "ratings/alpha" not in one
    two = measured(pairs(6, "A", "B") + pairs(3, "A", "B", who="bob") + [
        rating(i, mode="pair", values={"A": 0.0, "B": 1.0}, who="bob") for i in (4, 5, 6)
    ])[0]  # fmt: skip
    # D_o = 6/12; 9 first, 3 second: D_e = 2 * 27 / (12 * 11)
    assert (two["ratings/raters"], two["ratings/alpha"]) == (2, pytest.approx(1 - 0.5 / (54 / 132)))


def test_a_group_that_is_gone_is_left_out() -> None:
    groups = Groups()
    gone = rating(-1, mode="pair", values={"C": 1.0, "A": 0.0})
    metrics, _ = measured([*pairs(10, "A", "B"), gone], groups)
    assert metrics["ratings/reward_agreement"] == 1


def test_groups_are_read_once_and_forgotten_with_their_ratings() -> None:
    agreements, groups = Agreements(), Groups()
    agreements.measure(pairs(3, "A", "B"), groups, "main", 0)
    agreements.measure(pairs(4, "A", "B"), groups, "main", 1)
    assert groups.read == [1, 2, 3, 4]
    agreements.measure([], groups, "main", 2)
    agreements.measure(pairs(1, "A", "B"), groups, "main", 3)
    assert groups.read == [1, 2, 3, 4, 1]


def test_it_is_measured_anew_only_where_something_has_changed() -> None:
    agreements = Agreements()
    assert agreements.known is None
    first = agreements.measure(pairs(2, "A", "B"), Groups(), "main", agreements.came)
    agreements.note(Noted(time=0.0, step=1, kind="started", text=""))
    assert agreements.known == first
    for change in (
        lambda: agreements.note(RatingSaved(time=0.0, step=1, rating=rating())),
        lambda: agreements.note(RatingRetracted(time=0.0, step=1, rating="x", who="ann")),
        agreements.look_again,
    ):
        change()
        assert agreements.known is None
        agreements.measure([], Groups(), "main", agreements.came)
        assert agreements.known == {}


def test_a_rating_that_comes_while_it_is_measured_is_measured_next() -> None:
    agreements = Agreements()
    came = agreements.came
    agreements.note(RatingSaved(time=0.0, step=1, rating=rating()))
    agreements.measure([], Groups(), "main", came)
    assert agreements.known is None
