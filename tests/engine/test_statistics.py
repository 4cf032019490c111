"""Ranks, correlations and the metrics of a step."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.statistics import (
    effective_reward,
    length_correlation,
    mean_std,
    ranks,
    repetition,
    repetition_correlation,
    reward_statistics,
    spearman,
)
from tests.engine.small import rollout_group

FEW = st.integers(-3, 3).map(float)


def test_mean_and_deviation() -> None:
    assert mean_std([]) == (None, None)
    assert mean_std([3.0]) == (3.0, None)
    assert mean_std([1.0, 2.0, 4.0]) == (pytest.approx(7 / 3), pytest.approx(statistics.stdev([1, 2, 4])))

    assert mean_std([1e300, -1e300])[1] == math.inf  # too wide for a number: said, not raised


def brute_ranks(values: list[float]) -> list[float]:
    """1 + how many are smaller + half of how many others are equal."""
    return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


@given(st.lists(FEW, max_size=12))
def test_ranks_share_ties(values: list[float]) -> None:
    assert ranks(values) == brute_ranks(values)


@given(st.lists(st.tuples(FEW, FEW), min_size=2, max_size=12))
def test_spearman_is_the_correlation_of_ranks(pairs: list[tuple[float, float]]) -> None:
    x, y = [p[0] for p in pairs], [p[1] for p in pairs]
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert spearman(x, y) is None
    else:
        assert spearman(x, y) == pytest.approx(statistics.correlation(brute_ranks(x), brute_ranks(y)), abs=1e-12)


def test_spearman_sees_order_only() -> None:
    assert spearman([1, 2, 3, 4], [1, 10, 100, 1e6]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)


def test_the_reward_that_teaches() -> None:
    response = rollout_group([0.5]).record.responses[0]
    assert effective_reward(response) == 0.5
    response.rated_reward = 0.0
    assert effective_reward(response) == 0.0
    response.failed = "early: raised"
    assert effective_reward(response) is None


def test_a_component_counts_wherever_a_response_has_it() -> None:
    group = rollout_group([None, 0.5, 1.0])
    for response, penalty in zip(group.record.responses[1:], (0.0, -0.5), strict=True):
        response.components["overlong"] = penalty  # the first has no reward that it could lower
    assert reward_statistics([group], (0.0, 1.0))["reward/overlong"] == -0.25


def test_length_correlation_is_averaged_over_groups_that_have_one() -> None:
    rising = rollout_group([0, 1, 2], [1, 2, 3])
    falling = rollout_group([2, 1, 0, None], [1, 2, 3, 9])
    flat = rollout_group([1, 1, 1], [1, 2, 3])
    assert length_correlation([rising, flat]) == pytest.approx(1)
    assert length_correlation([rising, falling]) == pytest.approx(0)
    assert length_correlation([flat]) is None
    assert length_correlation([rollout_group([0, 1], [1, 2])]) is None


def test_the_metrics_of_a_step() -> None:
    right = rollout_group([1.0, 1.0], dead=True, advantages=[0.0, 0.0])
    wrong = rollout_group([0.0, 0.0], dead=True, advantages=[0.0, 0.0])
    alive = rollout_group([1.0, 0.0], [2, 6], advantages=[0.7, -0.7])
    alive.record.responses[1].ended = False
    late = rollout_group([9.0, 9.0], late=True, advantages=[5.0, -5.0])
    metrics = reward_statistics([right, wrong, alive, late], (0.0, 1.0))
    assert metrics["reward/mean"] == pytest.approx(0.5)
    assert metrics["reward/std"] == pytest.approx(statistics.stdev([1, 1, 0, 0, 1, 0]))
    assert metrics["reward/early"] == pytest.approx(0.5)
    assert metrics["groups/dead_fraction"] == pytest.approx(2 / 3)
    assert metrics["groups/all_right_fraction"] == pytest.approx(1 / 3)
    assert metrics["groups/all_wrong_fraction"] == pytest.approx(1 / 3)
    assert metrics["groups/late"] == 1
    assert metrics["advantage/abs_max"] == pytest.approx(0.7)
    assert metrics["response/length"] == pytest.approx((3 * 4 + 2 + 6) / 6)
    assert metrics["response/truncated_fraction"] == pytest.approx(1 / 6)
    assert metrics["response/failed"] == 0
    assert "reward/length_correlation" not in metrics


def test_what_cannot_be_had_is_absent() -> None:
    group = rollout_group([None, None], dead=True, advantages=[0.0, 0.0])
    group.record.responses[0].failed = "early: raised"
    metrics = reward_statistics([group], (0.0, 1.0))
    assert "reward/mean" not in metrics
    assert "reward/early" not in metrics
    assert metrics["response/failed"] == 1
    assert all(math.isfinite(v) for v in metrics.values())


@pytest.mark.parametrize(
    ("tokens", "share"),
    [([], None), ([1, 2, 3], None), ([1, 2, 3, 4], 0), ([1, 1, 1, 1, 1], 1 / 2), ([7] * 13, 9 / 10),
     ([1, 2, 3, 4, 1, 2, 3, 4], 1 / 5), ([1, 2, 3, 4, 4, 3, 2, 1], 0)],
)  # fmt: skip
def test_repetition_is_the_share_of_runs_of_four_that_came_before(tokens: list[int], share: float | None) -> None:
    assert repetition(tokens) == (None if share is None else pytest.approx(share))


@given(st.lists(st.integers(0, 2), min_size=4, max_size=30))
def test_repetition_counted_one_by_one(tokens: list[int]) -> None:
    runs = [tokens[i : i + 4] for i in range(len(tokens) - 3)]
    assert repetition(tokens) == pytest.approx(sum(run in runs[:i] for i, run in enumerate(runs)) / len(runs))


def test_reward_and_repetition_are_compared_within_groups_that_have_both() -> None:
    paid, free, unknown = (rollout_group([0.0, 0.3, 0.9]) for _ in range(3))
    for group, shares in ((paid, [0.1, 0.2, 0.8]), (free, [0.5, 0.5, 0.5]), (unknown, [None, 0.1, 0.2])):
        for response, share in zip(group.record.responses, shares):
            response.repetition = share
    assert repetition_correlation([paid, free, unknown]) == pytest.approx(1)
    assert repetition_correlation([free, unknown]) is None
    metrics = reward_statistics([paid, free], (0.0, 1.0))
    assert metrics["response/repetition"] == pytest.approx((0.1 + 0.2 + 0.8 + 1.5) / 6)
    assert metrics["reward/repetition_correlation"] == pytest.approx(1)
    bare = reward_statistics([rollout_group([0.0, 0.3, 0.9])], (0.0, 1.0))
    assert not {"response/repetition", "reward/repetition_correlation"} & bare.keys()
