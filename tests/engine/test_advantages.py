"""Group-relative advantages against numbers worked out by hand, and their properties."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.advantages import group_relative_advantages

NAN = math.nan
REWARDS = st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=2, max_size=12)


def advantages(rows: list[list[float]], scale: str = "group") -> tuple[list[list[float]], list[bool]]:
    values, dead = group_relative_advantages(torch.tensor(rows, dtype=torch.float64), scale)
    return values.tolist(), dead.tolist()


def test_one_right_of_four_by_hand() -> None:
    # mean 1/4; squared deviations 9/16 + 3/16 = 3/4, over n - 1 = 3: std 1/2
    values, dead = advantages([[1, 0, 0, 0]])
    assert values[0] == pytest.approx([0.75 / 0.5001, *[-0.25 / 0.5001] * 3], rel=1e-12)
    assert dead == [False]


def test_the_standard_deviation_is_over_n_minus_one() -> None:
    values, _ = advantages([[0.0, 2.0]])
    assert values[0] == pytest.approx([-1 / (math.sqrt(2) + 1e-4), 1 / (math.sqrt(2) + 1e-4)])


def test_a_response_without_a_reward_gets_nothing_and_counts_nowhere() -> None:
    values, dead = advantages([[1, NAN, 0, 0], [1, 0, 0, NAN]])
    std = statistics.stdev([1, 0, 0])
    assert values[0] == pytest.approx([2 / 3 / (std + 1e-4), 0, -1 / 3 / (std + 1e-4), -1 / 3 / (std + 1e-4)])
    assert values[0][1] == 0
    assert values[1][3] == 0
    assert dead == [False, False]


@pytest.mark.parametrize(
    "row",
    [[1, 1, 1], [0, 0, 0], [0.1, 0.1, 0.1], [NAN, NAN, NAN], [NAN, 3, NAN], [1.0, 1.0 + 5e-7, 1.0]],
)
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_dead_groups_get_exactly_zero(row: list[float], scale: str) -> None:
    values, dead = advantages([row, [0, 1, 2]], scale)
    assert values[0] == [0, 0, 0]
    assert dead == [True, False]
    assert any(values[1])


def test_batch_divides_by_the_deviation_of_all_rewards_and_centres_on_the_group() -> None:
    values, _ = advantages([[1, 0, NAN], [5, 4, 3]], "batch")
    std = statistics.stdev([1, 0, 5, 4, 3]) + 1e-4
    assert values[0] == pytest.approx([0.5 / std, -0.5 / std, 0])
    assert values[1] == pytest.approx([1 / std, 0, -1 / std])


def test_none_only_centres() -> None:
    assert advantages([[1, 0, 0, 0]], "none")[0][0] == pytest.approx([0.75, -0.25, -0.25, -0.25])


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="neither"):
        advantages([[0, 1]], "neither")


@given(REWARDS)
def test_against_the_formula_written_out(rewards: list[float]) -> None:
    values, dead = advantages([rewards])
    std = statistics.stdev(rewards)
    if std < 1e-6:
        assert dead == [True]
        assert not any(values[0])
    else:
        mean = statistics.fmean(rewards)
        assert values[0] == pytest.approx([(r - mean) / (std + 1e-4) for r in rewards], rel=1e-6, abs=1e-9)


@given(REWARDS, st.floats(-100, 100))
def test_a_constant_added_to_all_rewards_changes_nothing(rewards: list[float], constant: float) -> None:
    plain, _ = advantages([rewards])
    moved, _ = advantages([[r + constant for r in rewards]])
    if statistics.stdev(rewards) > 1e-4:
        assert moved[0] == pytest.approx(plain[0], rel=1e-6, abs=1e-8)


@given(REWARDS, st.floats(0.01, 100))
def test_scaling_rewards_changes_them_by_no_more_than_the_epsilon(rewards: list[float], c: float) -> None:
    std = statistics.stdev(rewards)
    if min(std, c * std) < 1e-3:
        return
    plain, _ = advantages([rewards])
    scaled, _ = advantages([[c * r for r in rewards]])
    allowed = 1e-4 / min(std, c * std) + 1e-9
    for a, b in zip(plain[0], scaled[0], strict=True):
        assert abs(a - b) <= allowed * max(abs(a), abs(b)) + 1e-9


@given(REWARDS)
def test_no_advantage_passes_its_bound(rewards: list[float]) -> None:
    values, _ = advantages([rewards])
    n = len(rewards)
    assert max(map(abs, values[0])) <= (n - 1) / math.sqrt(n) + 1e-9
    assert sum(values[0]) == pytest.approx(0, abs=1e-9)


def test_the_bound_is_reached_by_one_against_all() -> None:
    values, _ = advantages([[1e6, *[0] * 7]])
    assert values[0][0] == pytest.approx(7 / math.sqrt(8), rel=1e-6)
