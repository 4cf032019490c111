"""Advantages against numbers worked out by hand and loops in plain Python, and the properties they must have."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.advantages import (
    discounted_returns,
    generalised_advantages,
    group_relative_advantages,
    process_supervised_advantages,
    whiten,
)
from engine.algorithms.ppo import token_rewards

NAN, INF = math.nan, math.inf
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


@pytest.mark.parametrize(("gap", "expected"), [(1e-6, True), (1.9e-6, True), (2.1e-6, False), (1e-4, False)])
def test_a_group_is_dead_under_a_standard_deviation_of_a_millionth(gap: float, expected: bool) -> None:
    _, dead = advantages([[0, 0, 0, gap]])  # its standard deviation is gap / 2
    assert dead == [expected]
    assert any(process([[0, 0, 0, gap]], [[0, 1, 2, 3]], 4)[0]) != expected


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("reward", [0.1, 100.1, -1000.3])
def test_equal_rewards_are_dead_in_single_precision_whatever_their_size(reward: float, scale: str) -> None:
    values, dead = group_relative_advantages(torch.tensor([[reward] * 7, [0, 1, 2, 3, 4, 5, NAN]]), scale)
    assert dead.tolist() == [True, False]
    assert values[0].tolist() == [0] * 7


def flat(rows: list[list[float]]) -> list[float]:
    return [x for row in rows for x in row]


@st.composite
def batches(draw: st.DrawFn) -> list[list[float]]:
    """Groups of one size, some rewards absent."""
    groups, size = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    reward = st.one_of(st.just(NAN), st.sampled_from([0.0, 1.0]), st.floats(-10, 10).map(lambda x: round(x, 3)))
    return [draw(st.lists(reward, min_size=size, max_size=size)) for _ in range(groups)]


def group_relative_by_hand(batch: list[list[float]], scale: str) -> tuple[list[list[float]], list[bool]]:
    everything = [r for group in batch for r in group if not math.isnan(r)]
    values, dead = [], []
    for group in batch:
        scored = [r for r in group if not math.isnan(r)]
        dead.append(len(scored) < 2 or statistics.stdev(scored) < 1e-6)
        if dead[-1]:
            values.append([0.0] * len(group))
            continue
        divisor = {"none": 1.0, "group": statistics.stdev(scored) + 1e-4, "batch": statistics.stdev(everything) + 1e-4}
        mean = statistics.fmean(scored)
        values.append([0.0 if math.isnan(r) else (r - mean) / divisor[scale] for r in group])
    return values, dead


@given(batches(), st.sampled_from(["group", "batch", "none"]))
def test_whole_batches_with_absent_rewards_against_the_formula_written_out(
    batch: list[list[float]], scale: str
) -> None:
    values, dead = advantages(batch, scale)
    expected, expected_dead = group_relative_by_hand(batch, scale)
    assert dead == expected_dead
    assert flat(values) == pytest.approx(flat(expected), rel=1e-9, abs=1e-9)


@given(batches(), st.sampled_from(["group", "batch", "none"]), st.randoms())
def test_the_order_of_groups_and_responses_changes_nothing(batch: list[list[float]], scale: str, random) -> None:
    rows, columns = list(range(len(batch))), list(range(len(batch[0])))
    random.shuffle(rows)
    random.shuffle(columns)
    plain, _ = advantages(batch, scale)
    moved, _ = advantages([[batch[i][j] for j in columns] for i in rows], scale)
    assert flat(moved) == pytest.approx([plain[i][j] for i in rows for j in columns], rel=1e-9, abs=1e-9)


# Process supervision


def process(rewards: list[list[float]], ends: list[list[int]], length: int) -> list[list[float]]:
    tensor = torch.tensor(rewards, dtype=torch.float64)
    return process_supervised_advantages(tensor, torch.tensor(ends), length).tolist()


def test_process_supervision_by_hand() -> None:
    # All step rewards of the group: 1, 0, 1, 0 with mean 1/2, std sqrt(1/3).
    unit = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    values = process([[1, 0], [1, 0]], [[1, 3], [0, 1]], 5)
    assert values[0] == pytest.approx([0, 0, -unit, -unit, 0], abs=1e-12)
    assert values[1] == pytest.approx([0, -unit, 0, 0, 0], abs=1e-12)


def test_a_group_of_one_response_is_normalised_over_its_own_steps() -> None:
    unit = 1 / (math.sqrt(2) + 1e-4)
    assert process([[0, 2]], [[0, 2]], 4)[0] == pytest.approx([0, unit, unit, 0], abs=1e-12)


@pytest.mark.parametrize(
    "rewards", [[[1, 1], [1, 1]], [[NAN, NAN], [NAN, NAN]], [[0.7, NAN], [NAN, NAN]], [[1, 1 + 5e-7], [1, NAN]]]
)
def test_dead_process_groups_get_exactly_zero(rewards: list[list[float]]) -> None:
    assert process(rewards, [[0, 2], [1, 2]], 3) == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("reward", [0.1, 100.1, -1000.3])
def test_equal_step_rewards_are_dead_in_single_precision_whatever_their_size(reward: float) -> None:
    values = process_supervised_advantages(torch.full((1, 7), reward), torch.arange(7)[None], 7)
    assert not bool(values.any())


@st.composite
def step_rewards(draw: st.DrawFn) -> tuple[list[list[float]], list[list[int]], int]:
    """A group with ragged steps: NaN rewards, and any number for an end, where a response has fewer."""
    length, most = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    rewards, ends = [], []
    for _ in range(draw(st.integers(1, 5))):
        places = sorted(draw(st.sets(st.integers(0, length - 1), max_size=min(most, length))))
        missing = most - len(places)
        rewards.append([draw(st.integers(-40, 40)) / 8 for _ in places] + [NAN] * missing)
        ends.append(places + [draw(st.integers(-5, 50)) for _ in range(missing)])
    return rewards, ends, length


@given(step_rewards())
def test_process_supervision_against_the_definition(case: tuple[list[list[float]], list[list[int]], int]) -> None:
    rewards, ends, length = case
    everything = [r for row in rewards for r in row if not math.isnan(r)]
    values = process(rewards, ends, length)
    if len(everything) < 2 or statistics.stdev(everything) < 1e-6:
        assert not any(map(any, values))
        return
    mean, std = statistics.fmean(everything), statistics.stdev(everything)
    for i, row in enumerate(values):
        for t, value in enumerate(row):
            to_come = [
                (r - mean) / (std + 1e-4)
                for r, end in zip(rewards[i], ends[i], strict=True)
                if not math.isnan(r) and end >= t
            ]
            assert value == pytest.approx(sum(to_come), rel=1e-9, abs=1e-9)


# Returns and generalised advantages


def test_the_example_of_the_article() -> None:
    """A response scored 0.8 at gamma 0.9: 0.8, 0.72, 0.648 going back from its last token."""
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    old = torch.full((2, 5), -1.0, dtype=torch.float64)
    rewards = token_rewards(torch.tensor([0.8, 0.8], dtype=torch.float64), old, None, mask, 0.0)
    back = [0.8, 0.72, 0.648, 0.5832, 0.52488]
    values, returns = generalised_advantages(rewards, torch.zeros_like(rewards), mask, 0.9, 1.0)
    for result in (values, returns, discounted_returns(rewards, mask, 0.9)):
        assert result[0].tolist() == pytest.approx(back[::-1], rel=1e-12)
        assert result[1].tolist() == pytest.approx([*back[2::-1], 0, 0], rel=1e-12)


@st.composite
def episodes(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and masks [rows, T]; rubbish behind the masks."""
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    lengths = draw(st.lists(st.integers(0, length), min_size=rows, max_size=rows))
    mask = torch.arange(length)[None] < torch.tensor(lengths)[:, None]
    number = st.integers(-40, 40).map(lambda x: x / 8)
    rewards, values = (
        torch.tensor([[draw(number) for _ in range(length)] for _ in range(rows)], dtype=torch.float64)
        for _ in range(2)
    )
    rubbish = draw(st.sampled_from([0.0, 7.0, NAN, INF, -INF]))
    return torch.where(mask, rewards, rubbish), torch.where(mask, values, rubbish), mask


FACTOR = st.sampled_from([0.0, 0.5, 0.9, 0.95, 1.0])


@given(episodes(), FACTOR, FACTOR)
def test_generalised_advantages_against_the_double_sum(case, gamma: float, gae_lambda: float) -> None:
    rewards, values, mask = case
    found, returns = generalised_advantages(rewards, values, mask, gamma, gae_lambda)
    for i, n in enumerate(mask.sum(1).tolist()):
        r, v = rewards[i, :n].tolist(), [*values[i, :n].tolist(), 0.0]
        delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(n)]
        expected = [sum((gamma * gae_lambda) ** (k - t) * delta[k] for k in range(t, n)) for t in range(n)]
        padding = [0.0] * (mask.shape[1] - n)
        assert found[i].tolist() == pytest.approx(expected + padding, rel=1e-9, abs=1e-9)
        totals = [a + b for a, b in zip(expected, v)]
        assert returns[i].tolist() == pytest.approx(totals + padding, rel=1e-9, abs=1e-9)


@given(episodes())
def test_without_discount_or_decay_it_is_rewards_to_go_minus_value(case) -> None:
    rewards, values, mask = case
    found, returns = generalised_advantages(rewards, values, mask, 1.0, 1.0)
    for i, n in enumerate(mask.sum(1).tolist()):
        r, v = rewards[i, :n].tolist(), values[i, :n].tolist()
        to_go = [math.fsum(r[t:]) for t in range(n)]
        assert found[i, :n].tolist() == pytest.approx([a - b for a, b in zip(to_go, v)], abs=1e-9)
        assert returns[i, :n].tolist() == pytest.approx(to_go, abs=1e-9)


@given(episodes(), FACTOR)
def test_with_lambda_zero_it_is_the_temporal_difference_error(case, gamma: float) -> None:
    rewards, values, mask = case
    found, _ = generalised_advantages(rewards, values, mask, gamma, 0.0)
    for i, n in enumerate(mask.sum(1).tolist()):
        r, v = rewards[i, :n].tolist(), [*values[i, :n].tolist(), 0.0]
        assert found[i, :n].tolist() == pytest.approx([r[t] + gamma * v[t + 1] - v[t] for t in range(n)], abs=1e-9)


def test_the_value_after_the_last_token_is_zero() -> None:
    mask = torch.tensor([[True, True, False]])
    rewards, values = torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[0.25, 0.5, 100.0]])
    found, _ = generalised_advantages(rewards, values, mask, 1.0, 0.0)
    assert found.tolist() == [[0.25, 0.5, 0.0]]


@given(episodes(), FACTOR)
def test_discounted_returns_against_the_sum(case, gamma: float) -> None:
    rewards, _, mask = case
    found = discounted_returns(rewards, mask, gamma)
    for i, n in enumerate(mask.sum(1).tolist()):
        r = rewards[i, :n].tolist()
        expected = [sum(gamma ** (k - t) * r[k] for k in range(t, n)) for t in range(n)]
        assert found[i].tolist() == pytest.approx(expected + [0.0] * (mask.shape[1] - n), abs=1e-9)


# Whitening


@given(episodes())
def test_whitening_against_the_formula_over_real_tokens(case) -> None:
    values, _, mask = case
    kept = [x for row, real in zip(values.tolist(), mask.tolist()) for x, m in zip(row, real) if m]
    whitened = whiten(values, mask)
    assert not bool(whitened[~mask].any())
    if len(kept) < 2:
        assert not bool(whitened.any())
        return
    mean, variance = statistics.fmean(kept), statistics.variance(kept)
    expected = [(x - mean) / math.sqrt(variance + 1e-8) for x in kept]
    assert whitened[mask].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-7)


def test_whitened_values_have_mean_zero_and_unbiased_variance_one() -> None:
    values = torch.tensor([[3.0, 5.0, 9.0], [1.0, -2.0, NAN]], dtype=torch.float64)
    mask = values.isfinite()
    kept = whiten(values, mask)[mask].tolist()
    assert statistics.fmean(kept) == pytest.approx(0, abs=1e-12)
    assert statistics.variance(kept) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("value", [0.1, 100.1, -1000.3])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_whitened_constants_are_exactly_zero(value: float, count: int) -> None:
    assert whiten(torch.full((count,), value), torch.ones(count, dtype=torch.bool)).tolist() == [0] * count


def test_nothing_to_whiten() -> None:
    assert whiten(torch.tensor([NAN, 1.0]), torch.tensor([False, False])).tolist() == [0, 0]
