"""The preview of advantages against numbers worked out by hand, and against the engine's own."""

import pytest

from screens.preview import advantages, rated_rewards, scores, short, show_advantages
from sessions.records import Rating


def rating(values: dict[str, float], mode: str = "likert", who: str = "ann", time: float = 1.0) -> Rating:
    return Rating(id=f"{who}{time}", time=time, who=who, branch="main", step=1, group=1, mode=mode, values=values)


def test_a_rating_replaces_the_automatic_reward_with_full_weight() -> None:
    assert rated_rewards({"A": 0.0, "B": 1.0}, {"A": 0.75}, 1.0, (0.0, 1.0)) == {"A": 0.75, "B": 1.0}


def test_half_the_weight_goes_half_the_way_in_the_tasks_range() -> None:
    changed = rated_rewards({"A": 0.0, "B": 1.0}, {"A": 1.0}, 0.5, (-1.0, 3.0))
    assert changed == {"A": pytest.approx(1.5), "B": 1.0}


def test_a_rating_stands_in_where_no_reward_applies() -> None:
    assert rated_rewards({"A": None}, {"A": 0.5}, 0.3, (0.0, 2.0)) == {"A": pytest.approx(1.0)}
    assert rated_rewards({"A": 1.0}, {"Z": 0.5}, 1.0, (0.0, 1.0)) == {"A": 1.0}


def test_advantages_by_hand() -> None:
    # mean .5, std (n - 1) of 1 0 0 1 is .57735
    found = advantages({"A": 1.0, "B": 0.0, "C": 0.0, "D": 1.0})
    assert found["A"] == pytest.approx(0.5 / (0.5773503 + 1e-4))
    assert found["B"] == pytest.approx(-found["A"])
    assert advantages({"A": 1.0, "B": 0.0}, "none") == {"A": 0.5, "B": -0.5}


def test_no_reward_or_no_spread_gives_no_advantage() -> None:
    assert advantages({"A": 1.0, "B": 1.0}) == {"A": 0.0, "B": 0.0}
    assert advantages({"A": 1.0, "B": None}) == {"A": 0.0, "B": 0.0}
    assert advantages({"A": 1.0, "B": None, "C": 0.0})["B"] == 0.0


def test_the_newest_answer_of_each_person_and_the_mean_of_people() -> None:
    said = [rating({"A": 1}), rating({"A": 5}, time=2.0), rating({"A": -1}, "thumbs", "bob", 3.0)]
    assert scores(said) == {"A": pytest.approx(0.5)}
    assert scores([rating({"A": 4, "B": 1})]) == {"A": 0.75, "B": 0.0}


@pytest.mark.parametrize(
    ("value", "text"), [(0.94, "+.94"), (-0.94, "-.94"), (1.254, "+1.25"), (0.0, "0"), (-0.001, "0"), (-1.0, "-1.00")]
)
def test_advantages_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_the_line_names_every_response() -> None:
    assert show_advantages({"A": 0.94, "B": 0.0}) == "A+.94 B 0"
