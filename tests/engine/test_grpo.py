"""The loss of GRPO: by hand for every aggregation, at the clip bounds, and the properties it must have."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.algorithms.grpo import Loss, loss
from engine.algorithms.surrogate import Denominators, importance_ratio


def call(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, over: Denominators | None = None, **more
) -> Loss:
    over = over or Denominators(len(mask), int(mask.sum()), 8)
    return loss(logprobs, old, advantages, mask, over, **{"clip_low": 0.2, "clip_high": 0.2, **more})


def ratios(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


TWO = torch.tensor([[True, True, True], [True, False, False]])
A = torch.tensor([[1.0] * 3, [-2.0] * 3], dtype=torch.float64)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        # surrogates: row 1: 1.1, 1.2 (clipped from 1.5), 0.9; row 2: -2 x 1.05
        ("response", ((1.1 + 1.2 + 0.9) / 3 + -2.1) / 2),
        ("token", (1.1 + 1.2 + 0.9 - 2.1) / 4),
        ("constant", (1.1 + 1.2 + 0.9 - 2.1) / (2 * 8)),
    ],
)
def test_by_hand(aggregation: str, expected: float) -> None:
    rho = ratios([1.1, 1.5, 0.9], [1.05, 7.0, 9.0])
    result = call(rho, torch.zeros_like(rho), A, TWO, aggregation=aggregation)
    assert float(result.total) == pytest.approx(-expected)
    assert float(result.policy) == pytest.approx(-expected)
    assert float(result.kl) == 0


@pytest.mark.parametrize(
    ("rho", "advantage", "moves"),
    [
        (1.19, 1.0, True), (1.21, 1.0, False), (1.21, -1.0, True), (9.0, -1.0, True),
        (0.81, -1.0, True), (0.79, -1.0, False), (0.79, 1.0, True), (0.01, 1.0, True),
        (1.0, 1.0, True), (1.0, -1.0, True),
    ],
)  # fmt: skip
def test_the_clip_stops_the_gradient_only_where_it_would_go_further(rho: float, advantage: float, moves: bool) -> None:
    logprobs = ratios([rho]).requires_grad_()
    mask = torch.ones(1, 1, dtype=torch.bool)
    result = call(logprobs, torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), advantage).double(), mask)
    result.total.backward()
    assert float(logprobs.grad) == pytest.approx(-advantage * rho if moves else 0.0)
    assert bool(result.clipped_high) == (not moves and rho > 1)
    assert bool(result.clipped_low) == (not moves and rho < 1)


def test_the_bounds_are_apart() -> None:
    rho = ratios([1.25, 0.75])
    mask = torch.ones(1, 2, dtype=torch.bool)
    result = call(
        rho, torch.zeros_like(rho), torch.tensor([[1.0, -1.0]]).double(), mask, clip_low=0.1, clip_high=0.28
    )  # fmt: skip
    assert float(result.total) == pytest.approx(-(1.25 - 0.9) / 2)
    assert result.clipped_low.tolist() == [[False, True]]
    assert result.clipped_high.tolist() == [[False, False]]


def test_on_policy_the_value_is_zero_and_the_gradient_is_minus_a_grad_log_pi() -> None:
    logits = torch.tensor([[0.2, -0.4, 1.0], [0.1, 0.0, -0.3]], dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([[2], [0]])
    logprobs = logits.log_softmax(-1).gather(1, tokens)
    advantages = torch.tensor([[0.7], [-0.7]], dtype=torch.float64)
    result = call(logprobs, logprobs.detach(), advantages, torch.ones(2, 1, dtype=torch.bool))
    assert float(result.total.detach()) == pytest.approx(0, abs=1e-12)
    result.total.backward()
    p = logits.detach().softmax(-1)
    onehot = torch.nn.functional.one_hot(tokens.squeeze(1), 3)
    torch.testing.assert_close(logits.grad, -advantages * (onehot - p) / 2)


@pytest.mark.parametrize("estimator", ["k3", "k2", "k3_ratio"])
@pytest.mark.parametrize("aggregation", ["response", "token", "constant"])
def test_padded_slots_may_hold_anything(estimator: str, aggregation: str) -> None:
    clean = torch.tensor([[-1.0, -2.0, -0.5], [-0.3, -9.0, -9.0]], dtype=torch.float64)
    old, reference = clean - 0.05, clean - 0.1
    results = []
    for rubbish in (0.0, 1e30, -1e30, math.inf, -math.inf, math.nan):
        a, b, c = (torch.where(TWO, x, rubbish) for x in (clean, old, reference))
        logprobs = a.requires_grad_()
        advantages = torch.where(TWO, A, rubbish)
        more = {"reference": c, "kl_coefficient": 0.5, "kl_estimator": estimator, "aggregation": aggregation}
        part = call(logprobs, b, advantages, TWO, **more)
        part.total.backward()
        assert bool(logprobs.grad.isfinite().all())
        assert not bool(logprobs.grad[~TWO].any())
        assert not bool((part.clipped_low | part.clipped_high)[~TWO].any())
        results.append((float(part.total.detach()), logprobs.grad[TWO].tolist()))
    assert all(r == results[0] for r in results)


def test_the_ratio_is_one_on_padding() -> None:
    assert importance_ratio(torch.tensor([[5.0, math.nan]]), torch.tensor([[5.0, 1.0]]), TWO[1:, :2]).tolist() == [
        [1.0, 1.0]
    ]


def test_a_fully_masked_response_counts_as_zero() -> None:
    mask = torch.tensor([[True, True], [False, False]])
    rho = ratios([1.1, 1.1], [1.1, 1.1])
    advantages = torch.ones(2, 2, dtype=torch.float64)
    result = call(rho, torch.zeros_like(rho), advantages, mask, aggregation="response")
    assert float(result.total) == pytest.approx(-1.1 / 2)


def test_the_divergence_is_added_with_its_coefficient() -> None:
    logprobs = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    reference = torch.tensor([[-1.5, -1.0]], dtype=torch.float64)
    mask = torch.ones(1, 2, dtype=torch.bool)
    zero = torch.zeros(1, 2, dtype=torch.float64)
    result = call(logprobs, logprobs, zero, mask, reference=reference, kl_coefficient=0.04)
    k3 = [math.exp(-0.5) - 1 + 0.5, math.exp(1.0) - 1 - 1.0]
    assert float(result.kl) == pytest.approx(0.04 * sum(k3) / 2)
    assert float(result.total) == pytest.approx(0.04 * sum(k3) / 2)
    assert float(call(logprobs, logprobs, zero, mask, reference=reference, kl_coefficient=0.0).total) == 0


def test_an_unknown_aggregation_is_refused() -> None:
    one = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="mean"):
        call(one, one, one, torch.ones(1, 1, dtype=torch.bool), aggregation="mean")


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Random log-probabilities and masks [rows, T]; some rows may be empty."""
    rows, length = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    lengths = torch.tensor(draw(st.lists(st.integers(0, length), min_size=rows, max_size=rows)))
    mask = torch.arange(length)[None] < lengths[:, None]
    logprobs, noise, other = (torch.randn(rows, length, generator=generator).double() for _ in range(3))
    advantages = torch.randn(rows, 1, generator=generator).double().expand(rows, length)
    return -logprobs.abs(), -logprobs.abs() + 0.3 * noise, -other.abs(), advantages, mask


def oracle(case, over: Denominators, aggregation: str, beta: float) -> float:
    """The objective, written out token by token in plain Python."""
    logprobs, old, reference, advantages, mask = (t.tolist() for t in case)
    rows = []
    for i, row in enumerate(mask):
        tokens = []
        for t, real in enumerate(row):
            if real:
                rho = math.exp(logprobs[i][t] - old[i][t])
                gain = min(rho * advantages[i][t], min(max(rho, 0.8), 1.2) * advantages[i][t])
                log_ratio = reference[i][t] - logprobs[i][t]
                tokens.append(gain - beta * (math.exp(log_ratio) - log_ratio - 1))
        rows.append(tokens)
    if aggregation == "response":
        return -sum(sum(r) / len(r) for r in rows if r) / over.responses
    total = sum(map(sum, rows))
    return -total / (max(over.tokens, 1) if aggregation == "token" else over.responses * over.max_new_tokens)


@settings(max_examples=40, deadline=None)
@given(rollouts(), st.sampled_from(["response", "token", "constant"]), st.sampled_from([0.0, 0.3]))
def test_against_plain_python(case, aggregation: str, beta: float) -> None:
    logprobs, old, reference, advantages, mask = case
    over = Denominators(len(mask), int(mask.sum()), 8)
    result = call(
        logprobs, old, advantages, mask, over, aggregation=aggregation, reference=reference, kl_coefficient=beta
    )  # fmt: skip
    assert float(result.total) == pytest.approx(oracle(case, over, aggregation, beta), rel=1e-9, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    rollouts(),
    st.sampled_from(["response", "token", "constant"]),
    st.sampled_from(["token", "sequence"]),
    st.randoms(),
    st.integers(0, 3),
)
def test_cuts_order_and_padding_change_neither_value_nor_gradient(
    case, aggregation: str, level: str, random, pad: int
) -> None:
    over = Denominators(len(case[-1]), int(case[-1].sum()), 8)

    def total(parts: list[list[int]], padding: int) -> tuple[float, Tensor]:
        leaf = case[0].clone().requires_grad_()
        value = 0.0
        for part in parts:
            index = torch.tensor(part)
            tensors = [t.index_select(0, index) for t in (leaf, *case[1:])]
            logprobs, old, reference, advantages, mask = (torch.nn.functional.pad(t, (0, padding)) for t in tensors)
            more = {"aggregation": aggregation, "ratio_level": level, "reference": reference, "kl_coefficient": 0.2}
            result = call(logprobs, old, advantages, mask, over, **more)
            result.total.backward()
            value += float(result.total.detach())
        return value, leaf.grad

    rows = list(range(len(case[-1])))
    whole, gradient = total([rows], 0)
    random.shuffle(rows)
    cut = random.randint(0, len(rows))
    value, other = total([part for part in (rows[:cut], rows[cut:]) if part], pad)
    assert value == pytest.approx(whole, rel=1e-9, abs=1e-12)
    torch.testing.assert_close(other, gradient, rtol=1e-9, atol=1e-12)


# Off-policy, with everything on, against loops in plain Python


def objective_by_hand(case, full, entropy, *, level, aggregation, estimator, beta, bonus, low, high, over) -> float:
    """Value of the objective to maximise; every row of tokens as Python floats."""
    logprobs, old, reference, advantages, mask = (t.tolist() for t in case)
    rows = []
    for i, real in enumerate(mask):
        n = sum(real)
        gaps = [logprobs[i][t] - old[i][t] for t in range(n)]
        tokens = []
        for t in range(n):
            rho = math.exp(gaps[t] if level == "token" else math.fsum(gaps) / n)
            gain = min(rho * advantages[i][t], min(max(rho, 1 - low), 1 + high) * advantages[i][t])
            x = logprobs[i][t] - reference[i][t]
            penalty = {
                "k2": x * x / 2,
                "k3": math.exp(-x) - 1 + x,
                "k3_ratio": (math.exp(-x) - 1 + x) * math.exp(gaps[t]),
                "full": full[i][t],
            }[estimator]
            tokens.append(gain - beta * penalty + bonus * entropy[i][t])
        rows.append(tokens)
    if aggregation == "response":
        return sum(math.fsum(r) / len(r) for r in rows if r) / over.responses
    total = math.fsum(x for r in rows for x in r)
    return total / (over.tokens if aggregation == "token" else over.responses * over.max_new_tokens)


@settings(max_examples=100, deadline=None)
@given(
    rollouts(),
    st.sampled_from(["token", "sequence"]),
    st.sampled_from(["response", "token", "constant"]),
    st.sampled_from(["k2", "k3", "k3_ratio", "full"]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 0.05]),
)
def test_everything_together_against_plain_python(case, level, aggregation, estimator, beta, bonus) -> None:
    *_, mask = case
    over = Denominators(len(mask) + 1, int(mask.sum()) + 2, 8)  # as if other ranks had more
    full, entropy = case[0].square() + 0.1, case[2].abs() + 0.2
    more = {"level": level, "aggregation": aggregation, "estimator": estimator, "beta": beta, "bonus": bonus}
    expected = objective_by_hand(case, full.tolist(), entropy.tolist(), low=0.1, high=0.3, over=over, **more)
    logprobs, old, reference, advantages, mask = case
    result = loss(
        logprobs,
        old,
        advantages,
        mask,
        over,
        clip_low=0.1,
        clip_high=0.3,
        aggregation=aggregation,
        ratio_level=level,
        reference=reference,
        full=full,
        kl_coefficient=beta,
        kl_estimator=estimator,
        entropy=entropy,
        entropy_bonus=bonus,
    )
    assert float(result.total) == pytest.approx(-expected, rel=1e-9, abs=1e-9)
    without = objective_by_hand(
        case, full.tolist(), entropy.tolist(), low=0.1, high=0.3, over=over, **(more | {"beta": 0.0, "bonus": 0.0})
    )
    assert float(result.policy) == pytest.approx(-without, rel=1e-9, abs=1e-9)


def test_the_sequence_objective_by_hand() -> None:
    # GSPO: s = exp(mean log-ratio), one clip a response.
    # Row 1: s = sqrt(1.21 x 1.0) = 1.1 with A 2, inside 0.2: its value is 2.2; row 2: s = 1.5 with A 1, clipped at 1.2.
    mask = torch.tensor([[True, True, False], [True, False, False]])
    rho = ratios([1.21, 1.0, 50.0], [1.5, 50.0, 50.0]).requires_grad_()
    advantages = torch.tensor([[2.0] * 3, [1.0] * 3], dtype=torch.float64)
    result = call(rho, torch.zeros(2, 3, dtype=torch.float64), advantages, mask, ratio_level="sequence")
    assert float(result.total.detach()) == pytest.approx(-(2.2 + 1.2) / 2)
    assert result.ratio.tolist() == [pytest.approx([1.1, 1.1, 1]), pytest.approx([1.5, 1, 1])]
    assert result.clipped_high.tolist() == [[False] * 3, [True, False, False]]
    result.total.backward()
    # d s A / d l_t = s A / |o|, over two responses; the clipped row stands still.
    assert rho.grad.tolist() == [pytest.approx([-0.55, -0.55, 0]), [0, 0, 0]]


def test_clip_fractions() -> None:
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    rho = ratios([0.5, 1.0, 1.5, 1.1], [0.5, 1.5, 0.5, 1.5])
    advantages = torch.tensor([[1.0] * 4, [-1.0] * 4], dtype=torch.float64)
    result = call(rho, torch.zeros_like(rho), advantages, mask)
    assert float(result.clipped_high.sum() / mask.sum()) == pytest.approx(1 / 6)  # row 1, token 3
    assert float(result.clipped_low.sum() / mask.sum()) == pytest.approx(1 / 6)  # row 2, token 1


@pytest.mark.parametrize("aggregation", ["response", "token", "constant"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_dead_group_gives_no_gradient_without_a_divergence(aggregation: str, level: str) -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -9.0, -9.0]], dtype=torch.float64, requires_grad=True)
    result = call(
        logprobs,
        logprobs.detach() - 0.4,
        torch.zeros(2, 3, dtype=torch.float64),
        TWO,
        aggregation=aggregation,
        ratio_level=level,
        reference=logprobs.detach() - 1.0,
    )
    result.total.backward()
    assert not bool(logprobs.grad.any())


def test_a_dead_group_still_learns_from_the_divergence() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -9.0, -9.0]], dtype=torch.float64, requires_grad=True)
    none = torch.zeros(2, 3, dtype=torch.float64)
    call(
        logprobs, logprobs.detach(), none, TWO, reference=logprobs.detach() - 1.0, kl_coefficient=0.1
    ).total.backward()  # fmt: skip
    assert bool(logprobs.grad[TWO].all())
    assert not bool(logprobs.grad[~TWO].any())


def test_the_entropy_bonus_raises_entropy() -> None:
    logits = torch.tensor([[[2.0, 0.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    p = logits.log_softmax(-1)
    entropy = -(p.exp() * p).sum(-1)
    zero, mask = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool)
    plain = call(zero, zero, zero, mask, entropy=entropy)
    assert float(plain.total) == 0
    result = call(zero, zero, zero, mask, entropy=entropy, entropy_bonus=0.5)
    assert float(result.total.detach()) == pytest.approx(-0.5 * float(entropy.detach()))
    result.total.backward()
    assert float(logits.grad[0, 0, 0]) > 0  # a descent step lowers the likeliest token


@pytest.mark.parametrize("rubbish", [1e30, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_rubbish_behind_the_mask_reaches_no_gradient_of_entropy_or_full(rubbish: float, level: str) -> None:
    logprobs, full, entropy = (
        torch.where(TWO, torch.full((2, 3), x, dtype=torch.float64), rubbish).requires_grad_() for x in (-1, 0.3, 0.7)
    )
    result = call(
        logprobs,
        torch.where(TWO, -1.1, rubbish).double(),
        torch.where(TWO, A, rubbish),
        TWO,
        ratio_level=level,
        full=full,
        kl_coefficient=0.1,
        kl_estimator="full",
        entropy=entropy,
        entropy_bonus=0.1,
    )
    result.total.backward()
    assert math.isfinite(float(result.total.detach()))
    for leaf in (logprobs, full, entropy):
        assert bool(leaf.grad[TWO].isfinite().all())
        assert bool(leaf.grad[TWO].any())
        assert not bool(leaf.grad[~TWO].any())


def test_a_divergence_that_cannot_be_computed_is_refused() -> None:
    one, mask = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="whole vocabulary"):
        call(one, one, one, mask, reference=one, kl_coefficient=0.1, kl_estimator="full")
    with pytest.raises(ValueError, match="reference"):
        call(one, one, one, mask, full=one, kl_coefficient=0.1, kl_estimator="k3")
