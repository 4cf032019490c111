"""What GRPO and PPO share, against loops in plain Python; where gradients go, against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.algorithms.surrogate import Denominators, aggregate, clipped, clipped_surrogate, importance_ratio

NAN, INF = math.nan, math.inf


@st.composite
def ragged(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Two tensors and a mask [rows, T]; some rows may be empty."""
    rows, length = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    lengths = draw(st.lists(st.integers(0, length), min_size=rows, max_size=rows))
    mask = torch.arange(length)[None] < torch.tensor(lengths)[:, None]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    a, b = (torch.randn(rows, length, generator=generator, dtype=torch.float64) for _ in range(2))
    return a, b, mask


def finite_differences(function, at: Tensor, step: float = 1e-6) -> Tensor:
    """The central difference of a scalar function in every coordinate."""
    gradient = torch.zeros_like(at)
    for i in range(at.numel()):
        nudge = torch.zeros(at.numel(), dtype=at.dtype)
        nudge[i] = step
        nudge = nudge.view_as(at)
        gradient.view(-1)[i] = (float(function(at + nudge)) - float(function(at - nudge))) / (2 * step)
    return gradient


# Importance ratios


@given(ragged(), st.sampled_from([0.0, NAN, INF, -INF]))
def test_token_ratios_against_plain_python(case, rubbish: float) -> None:
    logprobs, old, mask = case
    found = importance_ratio(torch.where(mask, logprobs, rubbish), torch.where(mask, old, -rubbish), mask).tolist()
    for i, row in enumerate(mask.tolist()):
        expected = [math.exp(float(logprobs[i, t] - old[i, t])) if real else 1.0 for t, real in enumerate(row)]
        assert found[i] == pytest.approx(expected, rel=1e-12)


@given(ragged(), st.sampled_from([0.0, NAN, INF, -INF]))
def test_sequence_ratios_against_plain_python(case, rubbish: float) -> None:
    logprobs, old, mask = case
    a, b = torch.where(mask, logprobs, rubbish), torch.where(mask, old, -rubbish)
    found = importance_ratio(a, b, mask, "sequence").tolist()
    for i, row in enumerate(mask.tolist()):
        gaps = [float(logprobs[i, t] - old[i, t]) for t, real in enumerate(row) if real]
        ratio = math.exp(math.fsum(gaps) / len(gaps)) if gaps else 1.0
        assert found[i] == pytest.approx([ratio if real else 1.0 for real in row], rel=1e-12)


@given(ragged(), st.sampled_from(["token", "sequence"]))
def test_the_gradient_of_ratios_against_finite_differences(case, level: str) -> None:
    logprobs, old, mask = case
    weight = torch.arange(1.0, mask.numel() + 1, dtype=torch.float64).view_as(old) / mask.numel()

    def weighed(x: Tensor) -> Tensor:
        return (weight * importance_ratio(x, old, mask, level)).sum()

    leaf = logprobs.clone().requires_grad_()
    weighed(leaf).backward()
    torch.testing.assert_close(leaf.grad, finite_differences(weighed, logprobs), rtol=1e-5, atol=1e-6)
    assert not bool(leaf.grad[~mask].any())


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_ratios_are_one_where_nothing_moved_and_finite_where_everything_did(level: str) -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    same = torch.tensor([[-0.1, -3.0, -7.0]])
    assert importance_ratio(same, same, mask, level).tolist() == [[1, 1, 1]]
    leaf = torch.zeros(1, 3, requires_grad=True)
    ratio = importance_ratio(leaf, torch.full((1, 3), -1e4), mask, level)
    ratio.sum().backward()
    assert bool(ratio.isfinite().all())
    assert bool(leaf.grad.isfinite().all())


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="word"):
        importance_ratio(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), "word")


# The clipped surrogate


@given(
    st.floats(0.01, 5),
    st.floats(-3, 3),
    st.floats(0, 0.9),
    st.floats(0, 3),
)
def test_the_surrogate_against_plain_python(rho: float, advantage: float, low: float, high: float) -> None:
    ratio, gain = (torch.tensor([x], dtype=torch.float64) for x in (rho, advantage))
    expected = min(rho * advantage, min(max(rho, 1 - low), 1 + high) * advantage)
    assert float(clipped_surrogate(ratio, gain, low, high)) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("rho", "advantage", "gradient", "bound"),
    [
        # clip_low 0.1, clip_high 0.3: the two may not be mixed up
        (0.85, 2.0, 2.0, None),  # below, to be raised: moves
        (0.85, -2.0, 0.0, "low"),  # below, to be lowered further: does not
        (1.4, 2.0, 0.0, "high"),  # above, to be raised further: does not
        (1.4, -2.0, -2.0, None),  # above, to be lowered: moves
        (0.95, 2.0, 2.0, None),
        (0.95, -2.0, -2.0, None),
        (1.2, 2.0, 2.0, None),
        (1.2, -2.0, -2.0, None),
        (0.85, 0.0, 0.0, None),
        (1.4, 0.0, 0.0, None),
    ],
)
def test_which_tokens_lose_their_gradient(rho: float, advantage: float, gradient: float, bound: str | None) -> None:
    ratio = torch.tensor([[rho]], dtype=torch.float64, requires_grad=True)
    gain = torch.tensor([[advantage]], dtype=torch.float64)
    clipped_surrogate(ratio, gain, 0.1, 0.3).sum().backward()
    assert float(ratio.grad) == gradient
    low, high = clipped(ratio.detach(), gain, torch.tensor([[True]]), 0.1, 0.3)
    assert (bool(low), bool(high)) == (bound == "low", bound == "high")
    low, high = clipped(ratio.detach(), gain, torch.tensor([[False]]), 0.1, 0.3)
    assert not bool(low | high)


@given(ragged(), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_clipped_tokens_are_those_whose_gradient_is_gone(case, low: float, high: float) -> None:
    """Whether a token is counted and whether autograd moves it must never disagree."""
    log_ratio, advantages, mask = case
    leaf = log_ratio.clone().requires_grad_()
    clipped_surrogate(leaf.exp(), advantages, low, high).sum().backward()
    below, above = clipped(log_ratio.exp(), advantages, mask, low, high)
    assert ((below | above) == (mask & (leaf.grad == 0))).all()
    assert not bool((below & above).any())


# Aggregation


def aggregate_by_hand(values: list[list[float]], mask: list[list[bool]], how: str, over: Denominators) -> float:
    rows = [[v for v, real in zip(row, m) if real] for row, m in zip(values, mask)]
    if how == "response":
        return sum(math.fsum(row) / len(row) for row in rows if row) / over.responses
    total = math.fsum(v for row in rows for v in row)
    return total / (over.tokens if how == "token" else over.responses * over.max_new_tokens)


HOW = st.sampled_from(["response", "token", "constant"])


@given(ragged(), HOW, st.integers(0, 5), st.integers(0, 9), st.sampled_from([0.0, NAN, INF]))
def test_aggregation_against_plain_python(case, how: str, more: int, tokens: int, rubbish: float) -> None:
    """The denominators are those of the whole minibatch, of which the rows here are a part."""
    values, _, mask = case
    over = Denominators(len(mask) + more, int(mask.sum()) + tokens + 1, 16)
    found = float(aggregate(torch.where(mask, values, rubbish), mask, how, over))
    assert found == pytest.approx(aggregate_by_hand(values.tolist(), mask.tolist(), how, over), rel=1e-9, abs=1e-12)


@given(ragged(), HOW, st.data())
def test_any_split_into_micro_batches_adds_up_to_the_whole(case, how: str, data: st.DataObject) -> None:
    values, _, mask = case
    over = Denominators(len(mask), max(int(mask.sum()), 1), 8)
    part_of = torch.tensor([data.draw(st.integers(0, 2)) for _ in range(len(mask))])
    whole, cut = values.clone().requires_grad_(), values.clone().requires_grad_()
    total = aggregate(whole.square(), mask, how, over)
    total.backward()
    parts = [part_of == k for k in range(3) if bool((part_of == k).any())]
    added = 0.0
    for part in parts:
        share = aggregate(cut[part].square(), mask[part], how, over)
        share.backward()
        added += float(share.detach())
    assert added == pytest.approx(float(total.detach()), rel=1e-12, abs=1e-15)
    torch.testing.assert_close(cut.grad, whole.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("how", ["response", "token", "constant"])
def test_nothing_to_aggregate_is_zero_and_keeps_a_graph(how: str) -> None:
    leaf = torch.full((2, 3), NAN, requires_grad=True)
    total = aggregate(leaf, torch.zeros(2, 3, dtype=torch.bool), how, Denominators(0, 0, 0))
    total.backward()
    assert float(total.detach()) == 0
    assert not bool(leaf.grad.any())


def test_an_unknown_aggregation_is_refused() -> None:
    with pytest.raises(ValueError, match="median"):
        aggregate(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), "median", Denominators(1, 1, 1))
