"""PPO's token rewards, value loss and coefficient, against plain Python; where the value's gradient goes."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.algorithms.ppo import adapted_coefficient, explained_variance, token_rewards, value_loss

NAN, INF = math.nan, math.inf
EIGHTHS = st.integers(-40, 40).map(lambda x: x / 8)


@st.composite
def rows_of(draw: st.DrawFn, tensors: int, shortest: int = 0) -> tuple[list[Tensor], Tensor]:
    """So many tensors [rows, T] with rubbish behind the mask, and the mask."""
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    lengths = draw(st.lists(st.integers(shortest, length), min_size=rows, max_size=rows))
    mask = torch.arange(length)[None] < torch.tensor(lengths)[:, None]
    rubbish = draw(st.sampled_from([0.0, 9.0, NAN, INF, -INF]))
    values = [
        torch.tensor([[draw(EIGHTHS) for _ in range(length)] for _ in range(rows)], dtype=torch.float64)
        for _ in range(tensors)
    ]
    return [torch.where(mask, v, rubbish) for v in values], mask


# Token rewards


@given(rows_of(2, shortest=1), st.sampled_from([0.0, 0.05, 1.0]), st.data())
def test_token_rewards_against_plain_python(case, coefficient: float, data: st.DataObject) -> None:
    (old, reference), mask = case
    scores = [data.draw(EIGHTHS) for _ in range(len(mask))]
    found = token_rewards(torch.tensor(scores, dtype=torch.float64), old, reference, mask, coefficient)
    for i, n in enumerate(mask.sum(1).tolist()):
        expected = [-coefficient * (float(old[i, t]) - float(reference[i, t])) for t in range(n)]
        expected[-1] += scores[i]
        assert found[i].tolist() == pytest.approx(expected + [0.0] * (mask.shape[1] - n), abs=1e-12)


def test_the_score_is_paid_once_on_the_end_token() -> None:
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    old = torch.full((2, 4), -1.0)
    found = token_rewards(torch.tensor([2.0, -3.0]), old, old - 0.5, mask, 0.1)
    assert found.tolist() == [pytest.approx([-0.05, -0.05, 1.95, 0]), pytest.approx([-3.05, 0, 0, 0])]


def test_without_a_reference_there_is_only_the_score() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = token_rewards(torch.tensor([0.5]), torch.full((1, 3), -2.0), None, mask, 0.1)
    assert found.tolist() == [[0, 0, 0.5]]


# Value loss


def value_loss_by_hand(case: tuple[list[Tensor], Tensor], tokens: int, clip: float) -> tuple[float, list[list[bool]]]:
    (values, old, returns), mask = case
    total, lost = 0.0, []
    for i, row in enumerate(mask.tolist()):
        lost.append([False] * len(row))
        for t, real in enumerate(row):
            if not real:
                continue
            v, o, r = float(values[i, t]), float(old[i, t]), float(returns[i, t])
            plain, held = (v - r) ** 2, (min(max(v, o - clip), o + clip) - r) ** 2
            total += max(plain, held) if clip > 0 else plain
            lost[i][t] = clip > 0 and held > plain
    return total / 2 / tokens, lost


@given(rows_of(3), st.sampled_from([0.0, 0.2, 1.0]), st.integers(0, 5))
def test_the_value_loss_against_plain_python(case, clip: float, more: int) -> None:
    """``tokens`` are of the whole minibatch, of which the rows here are a part."""
    tokens = int(case[1].sum()) + more + 1
    found, lost = value_loss(*case[0], case[1], tokens, clip)
    expected, where = value_loss_by_hand(case, tokens, clip)
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert lost.tolist() == where


@given(rows_of(3), st.sampled_from([0.0, 0.2]))
def test_values_behind_the_mask_have_no_gradient_and_lost_ones_neither(case, clip: float) -> None:
    (values, old, returns), mask = case
    leaf = values.clone().requires_grad_()
    found, lost = value_loss(leaf, old, returns, mask, max(int(mask.sum()), 1), clip)
    found.backward()
    assert math.isfinite(float(found.detach()))
    assert not bool(leaf.grad[~mask | lost].any())
    kept = mask & ~lost & (values != returns)
    assert bool(leaf.grad[kept].all())


@pytest.mark.parametrize(
    ("value", "target", "gradient"),
    [
        # V_old = 0, clipped to +-0.2
        (0.5, 1.0, 0.0),  # moved towards its target past the bound: held back
        (0.5, -1.0, 1.5),  # moved away from it: pulled back in full
        (-0.5, -1.0, 0.0),
        (-0.5, 1.0, -1.5),
        (0.1, 1.0, -0.9),  # inside the bound
        (0.5, 0.5, 0.0),  # on the target, though outside the bound: the clipped error is larger
        (0.2, 1.0, -0.8),  # on the bound itself
    ],
)
def test_where_the_value_loses_its_gradient(value: float, target: float, gradient: float) -> None:
    leaf = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    old, mask = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool)
    found, lost = value_loss(leaf, old, torch.tensor([[target]], dtype=torch.float64), mask, 1, 0.2)
    found.backward()
    assert float(leaf.grad) == pytest.approx(gradient)
    assert bool(lost) == (gradient == 0)


def test_values_inside_the_bound_are_never_counted_as_held() -> None:
    """In single precision V_old + (V - V_old) is not V; a rounding error is no clipping."""
    generator = torch.Generator().manual_seed(0)
    values, old, returns = (torch.rand(1, 5000, generator=generator) * 0.1 for _ in range(3))
    _, lost = value_loss(values, old, returns, torch.ones(1, 5000, dtype=torch.bool), 5000, 1.0)
    assert not bool(lost.any())


def test_without_clipping_it_is_half_the_mean_squared_error() -> None:
    values, returns = torch.tensor([[3.0, 0.0]], requires_grad=True), torch.tensor([[1.0, 1.0]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    found, lost = value_loss(values, torch.zeros(1, 2), returns, mask, 2, 0.0)
    found.backward()
    assert float(found.detach()) == pytest.approx((4 + 1) / 2 / 2)
    assert values.grad.tolist() == [[1.0, -0.5]]
    assert not bool(lost.any())


@given(rows_of(3), st.integers(0, 4), st.integers(0, 3))
def test_micro_batches_and_padding_change_neither_the_value_loss_nor_its_gradient(case, cut: int, pad: int) -> None:
    (values, old, returns), mask = case
    tokens = max(int(mask.sum()), 1)
    leaves = [values.clone().requires_grad_() for _ in range(2)]
    whole, _ = value_loss(leaves[0], old, returns, mask, tokens, 0.2)
    whole.backward()
    added = 0.0
    for part in (slice(0, cut), slice(cut, None)):
        tensors = [torch.nn.functional.pad(t[part], (0, pad)) for t in (leaves[1], old, returns, mask)]
        share, _ = value_loss(*tensors, tokens, 0.2)
        share.backward()
        added += float(share.detach())
    assert added == pytest.approx(float(whole.detach()), rel=1e-12, abs=1e-15)
    torch.testing.assert_close(leaves[1].grad, leaves[0].grad, rtol=1e-12, atol=1e-15)


# Explained variance


@given(st.lists(st.tuples(EIGHTHS, EIGHTHS), min_size=2, max_size=12))
def test_explained_variance_against_the_formula(pairs: list[tuple[float, float]]) -> None:
    values, returns = (list(x) for x in zip(*pairs))
    found = explained_variance(*(torch.tensor(x, dtype=torch.float64) for x in (values, returns)))
    if len(set(returns)) == 1:
        assert found is None
    else:
        errors = [r - v for v, r in pairs]
        expected = 1 - statistics.variance(errors) / statistics.variance(returns)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_explained_variance_of_known_predictions() -> None:
    returns = torch.tensor([0.0, 1.0, 2.0, 5.0])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(returns + 7, returns) == pytest.approx(1)  # a constant error is not variance
    assert explained_variance(torch.full((4,), 2.0), returns) == pytest.approx(0)
    assert explained_variance(-returns, returns) == pytest.approx(-3)


@pytest.mark.parametrize("returns", [[], [1.0], [0.1] * 7, [100.1] * 7])
def test_returns_that_do_not_vary_have_no_explained_variance(returns: list[float]) -> None:
    assert explained_variance(torch.zeros(len(returns)), torch.tensor(returns)) is None


# The adaptive coefficient


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (0.02, 1.0),  # on target
        (0.022, 1 + 0.1 * 128 / 10_000),  # 10 % above
        (0.018, 1 - 0.1 * 128 / 10_000),  # 10 % below
        (5.0, 1 + 0.2 * 128 / 10_000),  # bounded above
        (0.0, 1 - 0.2 * 128 / 10_000),  # and below
        (-0.3, 1 - 0.2 * 128 / 10_000),  # k1 may be negative
    ],
)
def test_the_coefficient_follows_the_divergence(kl: float, factor: float) -> None:
    assert adapted_coefficient(0.05, kl, 0.02, 128) == pytest.approx(0.05 * factor, rel=1e-12)


@given(st.floats(0.001, 1), st.floats(-1, 10), st.floats(0.001, 1), st.integers(0, 10_000))
def test_the_coefficient_moves_the_right_way_within_its_bounds(
    coefficient: float, kl: float, target: float, responses: int
) -> None:
    found = adapted_coefficient(coefficient, kl, target, responses)
    assert (found - coefficient) * (kl - target) >= 0
    assert 0.8 * coefficient - 1e-12 <= found <= 1.2 * coefficient + 1e-12
