"""The losses of preferences, against sums over every order and against differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations

import pytest
import torch
from torch import Tensor

from engine.preference_losses import MOST_TIED, bradley_terry, centering, plackett_luce


def scores_of(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)


def order_probability(scores: Sequence[float], order: Sequence[int]) -> float:
    """P(order): each place is taken by one of those left, in proportion to exp of its score; in double precision."""
    left, p = list(order), 1.0
    for i in order:
        p *= math.exp(scores[i]) / math.fsum(math.exp(scores[j]) for j in left)
        left.remove(i)
    return p


def random_scores(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_probabilities_of_all_orders_sum_to_one(count: int) -> None:
    scores = random_scores(count, count)
    total = sum(float((-plackett_luce(scores[list(order)], [1] * count)).exp()) for order in permutations(range(count)))
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("ties", ["skip", "average"])
def test_a_ranking_without_ties_is_the_product_of_its_choices(ties: str) -> None:
    scores = random_scores(5)
    for order in list(permutations(range(5)))[::7]:
        expected = -math.log(order_probability(scores.tolist(), order))
        assert float(plackett_luce(scores[list(order)], [1] * 5, ties)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("ties", ["skip", "average"])
def test_two_in_an_order_are_bradley_terry(ties: str) -> None:
    for seed in range(5):
        scores = random_scores(2, seed)
        expected = -math.log(1 / (1 + math.exp(float(scores[1] - scores[0]))))
        assert float(plackett_luce(scores, [1, 1], ties)) == pytest.approx(expected, rel=1e-5)
        assert torch.equal(plackett_luce(scores, [1, 1], ties), bradley_terry(scores[0], scores[1]))


def test_a_margin_is_what_the_better_one_should_be_above_the_other() -> None:
    assert float(bradley_terry(scores_of(3.0), scores_of(1.0), 2.0)) == pytest.approx(math.log(2))
    each = bradley_terry(scores_of(1, 1), scores_of(0, 0), scores_of(0, 0.5))
    assert each.tolist() == pytest.approx([math.log(1 + math.exp(-1)), math.log(1 + math.exp(-0.5))])


def test_a_loss_stays_finite_and_right_where_scores_are_far_apart() -> None:
    assert float(bradley_terry(scores_of(-500), scores_of(500))) == 1000
    assert float(bradley_terry(scores_of(500), scores_of(-500))) == 0
    assert float(plackett_luce(scores_of(-500, 500, 400), [1, 1, 1])) == 1000
    assert float(plackett_luce(scores_of(900, -900, -900), [1, 2], "average")) == pytest.approx(math.log(2), rel=1e-3)


TIERS = [[2, 1], [1, 2], [2, 2], [1, 3], [3, 1], [1, 2, 1], [3], [2, 1, 2], [1, 1, 3]]


@pytest.mark.parametrize("tiers", TIERS)
def test_averaged_ties_are_the_mean_over_every_order_of_the_tied(tiers: list[int]) -> None:
    scores = random_scores(sum(tiers), 3)
    starts = [sum(tiers[:k]) for k in range(len(tiers))]
    orders: list[list[int]] = [[]]
    for start, size in zip(starts, tiers, strict=True):
        orders = [[*before, *own] for before in orders for own in permutations(range(start, start + size))]
    expected = -sum(math.log(order_probability(scores.tolist(), order)) for order in orders) / len(orders)
    assert float(plackett_luce(scores, tiers, "average")) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("tiers", TIERS)
def test_skipped_ties_each_beat_what_is_below_them_and_not_each_other(tiers: list[int]) -> None:
    scores = random_scores(sum(tiers), 4).tolist()
    expected = 0.0
    for k in range(len(tiers)):
        start, end = sum(tiers[:k]), sum(tiers[: k + 1])
        for i in range(start, end):
            others = [scores[i], *scores[end:]]
            expected -= math.log(math.exp(scores[i]) / sum(map(math.exp, others)))
    assert float(plackett_luce(torch.tensor(scores), tiers)) == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_a_tied_pair_says_nothing_where_ties_are_skipped_and_pulls_together_where_averaged() -> None:
    scores = scores_of(2.0, -1.0).requires_grad_()
    assert float(plackett_luce(scores, [2]).detach()) == 0
    plackett_luce(scores, [2], "average").backward()
    assert scores.grad is not None
    assert float(scores.grad[0]) > 0 > float(scores.grad[1])


def test_tied_ones_may_be_given_in_any_order() -> None:
    for ties in ("skip", "average"):
        one = plackett_luce(scores_of(2, 0.5, -1, 0), [1, 2, 1], ties)
        other = plackett_luce(scores_of(2, -1, 0.5, 0), [1, 2, 1], ties)
        assert float(one) == pytest.approx(float(other))


@pytest.mark.parametrize("ties", ["skip", "average"])
@pytest.mark.parametrize("tiers", [[1, 1], [1, 2, 2], [1, 1, 1], [3, 1]])
def test_gradients_are_those_of_finite_differences(tiers: list[int], ties: str) -> None:
    scores = random_scores(sum(tiers), 5)

    def value(x: Tensor) -> Tensor:
        return plackett_luce(x, tiers, ties) + 0.01 * centering(x)

    leaf = scores.clone().requires_grad_()
    value(leaf).backward()
    assert leaf.grad is not None
    for i in range(len(scores)):
        step = torch.zeros_like(scores)
        step[i] = 0.02
        difference = float(value(scores + step) - value(scores - step)) / 0.04
        assert float(leaf.grad[i]) == pytest.approx(difference, abs=1e-3)


def test_heads_are_independent_of_each_other() -> None:
    scores = torch.stack([random_scores(4, seed) for seed in range(3)])
    for ties in ("skip", "average"):
        together = plackett_luce(scores, [1, 2, 1], ties)
        alone = torch.stack([plackett_luce(row, [1, 2, 1], ties) for row in scores])
        assert torch.allclose(together, alone, atol=1e-6)


def test_half_precision_is_widened() -> None:
    scores = scores_of(1.0, 2.0).bfloat16()
    for loss in (plackett_luce(scores, [1, 1]), bradley_terry(scores[0], scores[1]), centering(scores)):
        assert loss.dtype == torch.float32


def test_centering_of_a_pair_is_its_squared_sum_and_of_a_ranking_no_more_for_its_length() -> None:
    assert float(centering(scores_of(1.5, -0.5))) == pytest.approx(1.0)
    assert float(centering(scores_of(1, 1))) == float(centering(scores_of(1, 1, 1, 1, 1))) == 4


def test_what_cannot_be_a_ranking_is_refused() -> None:
    with pytest.raises(ValueError, match="do not make up 3"):
        plackett_luce(scores_of(1, 2, 3), [1, 1])
    with pytest.raises(ValueError, match="do not make up 2"):
        plackett_luce(scores_of(1, 2), [2, 0])
    with pytest.raises(ValueError, match="'skip' or 'average'"):
        plackett_luce(scores_of(1, 2), [2], "mean")
    many = MOST_TIED + 1
    with pytest.raises(ValueError, match="too many to average over"):
        plackett_luce(torch.zeros(many), [many], "average")
    assert float(plackett_luce(torch.zeros(many + 1), [1, many])) == pytest.approx(math.log(many + 1))
