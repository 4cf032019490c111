"""The preview of advantages against numbers worked out by hand."""

import pytest

from screens.preview import advantages, short, show_advantages


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


@pytest.mark.parametrize(
    ("value", "text"), [(0.94, "+.94"), (-0.94, "-.94"), (1.254, "+1.25"), (0.0, "0"), (-0.001, "0"), (-1.0, "-1.00")]
)
def test_advantages_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_the_line_names_every_response() -> None:
    assert show_advantages({"A": 0.94, "B": 0.0}) == "A+.94 B 0"
