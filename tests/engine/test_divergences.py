"""The estimators, and their gradients on a distribution small enough to enumerate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from engine.divergences import divergence, entropy, full_kl, k1, k2, k3, kl_old_new

LOGITS = torch.tensor([0.3, -1.2, 0.9, 0.1, -0.4], dtype=torch.float64)
REFERENCE = torch.tensor([-0.2, 0.4, 0.5, -1.0, 0.2], dtype=torch.float64).log_softmax(0)
OLD = torch.tensor([0.5, -0.9, 0.2, 0.4, -0.1], dtype=torch.float64).log_softmax(0)


def test_values_by_hand() -> None:
    policy, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert float(k1(policy, reference)) == pytest.approx(math.log(2))
    assert float(k2(policy, reference)) == pytest.approx(math.log(2) ** 2 / 2)
    assert float(k3(policy, reference)) == pytest.approx(0.5 - 1 + math.log(2))
    assert float(kl_old_new(policy, reference)) == pytest.approx(2 - 1 - math.log(2))


def test_all_are_zero_where_nothing_differs() -> None:
    same = torch.tensor([-0.1, -3.0, -20.0])
    for estimator in (k1, k2, k3, kl_old_new):
        assert estimator(same, same).tolist() == [0, 0, 0]


def test_k2_and_k3_are_never_negative_and_k1_may_be() -> None:
    policy, reference = torch.linspace(-5, 0, 50), torch.linspace(0, -5, 50)
    assert bool((k2(policy, reference) >= 0).all())
    assert bool((k3(policy, reference) >= 0).all())
    assert bool((k1(policy, reference) < 0).any())


def test_expectations_under_the_policy() -> None:
    policy = LOGITS.log_softmax(0)
    exact = float((policy.exp() * (policy - REFERENCE)).sum())
    assert float((policy.exp() * k1(policy, REFERENCE)).sum()) == pytest.approx(exact, rel=1e-12)
    assert float((policy.exp() * k3(policy, REFERENCE)).sum()) == pytest.approx(exact, rel=1e-12)
    assert float((policy.exp() * k2(policy, REFERENCE)).sum()) != pytest.approx(exact, rel=1e-3)


def test_old_new_is_unbiased_on_samples_of_the_old_policy() -> None:
    new = LOGITS.log_softmax(0)
    exact = float((OLD.exp() * (OLD - new)).sum())
    assert float((OLD.exp() * kl_old_new(new, OLD)).sum()) == pytest.approx(exact, rel=1e-12)


def expected_gradient(estimator: str, old: Tensor | None = None) -> Tensor:
    """Gradient of the loss in expectation over the token, which ``old`` (on-policy: the policy itself) samples."""
    logits = LOGITS.clone().requires_grad_()
    policy = logits.log_softmax(0)
    sampler = policy.detach() if old is None else old
    ratio = (policy - sampler).exp()
    loss = (sampler.exp() * divergence(estimator, policy, REFERENCE, ratio)).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    return gradient


def analytic(kind: str) -> Tensor:
    """d KL(pi, ref)/d logit_j = p_j (L_j - KL), d KL(ref, pi)/d logit_j = p_j - ref_j; worked out on paper."""
    p = [math.exp(x) for x in LOGITS.tolist()]
    total = sum(p)
    p = [x / total for x in p]
    ref = [math.exp(x) for x in REFERENCE.tolist()]
    if kind == "forward":
        return torch.tensor([a - b for a, b in zip(p, ref, strict=True)], dtype=torch.float64)
    log_ratio = [math.log(a / b) for a, b in zip(p, ref, strict=True)]
    kl = sum(a * x for a, x in zip(p, log_ratio, strict=True))
    return torch.tensor([a * (x - kl) for a, x in zip(p, log_ratio, strict=True)], dtype=torch.float64)


def test_gradients_in_expectation() -> None:
    torch.testing.assert_close(expected_gradient("k1"), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(expected_gradient("k2"), analytic("reverse"))
    torch.testing.assert_close(expected_gradient("k3_ratio"), analytic("reverse"))
    torch.testing.assert_close(expected_gradient("k3"), analytic("forward"))


def test_k3_with_the_ratio_keeps_its_gradient_off_policy() -> None:
    torch.testing.assert_close(expected_gradient("k3_ratio", OLD), analytic("reverse"))


def test_far_tokens_stay_finite_with_finite_gradients() -> None:
    policy = torch.tensor([-1e4, 0.0, -60.0], requires_grad=True)
    reference = torch.tensor([0.0, -1e4, 0.0])
    total = k3(policy, reference).sum() + kl_old_new(policy, reference).sum()
    total.backward()
    assert math.isfinite(float(total.detach()))
    assert bool(policy.grad.isfinite().all())


@given(st.lists(st.tuples(st.floats(-12, 0), st.floats(-12, 0)), min_size=1, max_size=8), st.floats(0.1, 10))
def test_values_against_numpy(pairs: list[tuple[float, float]], rho: float) -> None:
    logprobs, reference = np.array(pairs).T
    log_ratio = logprobs - reference
    expected = {
        "k1": log_ratio,
        "k2": log_ratio**2 / 2,
        "k3": np.exp(-log_ratio) - 1 + log_ratio,
        "k3_ratio": (np.exp(-log_ratio) - 1 + log_ratio) * rho,
    }
    policy, other = torch.from_numpy(logprobs.copy()), torch.from_numpy(reference.copy())
    for name, values in expected.items():
        found = divergence(name, policy, other, torch.full_like(policy, rho))
        np.testing.assert_allclose(found.numpy(), values, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(kl_old_new(other, policy).numpy(), expected["k3"], rtol=1e-9, atol=1e-9)


def test_small_differences_keep_their_digits_in_single_precision() -> None:
    """exp(x) - 1 - x is x^2/2 + x^3/6 near 0, which exp itself would lose to rounding."""
    x = 2.0**-10
    expected = x**2 / 2 + x**3 / 6
    for found in (k3(torch.tensor([-x]), torch.zeros(1)), kl_old_new(torch.tensor([x]), torch.zeros(1))):
        assert float(found) == pytest.approx(expected, rel=2e-4)


def random_logits(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 9))
def test_full_is_the_divergence_of_torch_distributions_with_both_gradients(seed: int, places: int, size: int) -> None:
    ours, theirs = [], []
    for found, exact in ((ours, False), (theirs, True)):
        p, q = (random_logits(seed + i, places, size).requires_grad_() for i in (0, 1))
        value = kl_divergence(Categorical(logits=p), Categorical(logits=q)) if exact else full_kl(p, q)
        assert value.shape == (places,)
        (value * torch.arange(1, places + 1)).sum().backward()
        found += [value.detach(), p.grad, q.grad]
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert bool((ours[0] >= -1e-12).all())


def test_full_does_not_depend_on_the_scale_of_unnormalised_logits() -> None:
    p, q = random_logits(0, 3, 5), random_logits(1, 3, 5)
    torch.testing.assert_close(full_kl(p + 100, q - 100), full_kl(p, q))


def test_the_gradient_of_full_is_the_reverse_divergence() -> None:
    logits = LOGITS.clone().requires_grad_()
    full_kl(logits, REFERENCE).backward()
    torch.testing.assert_close(logits.grad, analytic("reverse"))


@given(st.integers(0, 10_000), st.integers(2, 9))
def test_entropy_is_that_of_torch_distributions_with_its_gradient(seed: int, size: int) -> None:
    a, b = (random_logits(seed, 3, size).requires_grad_() for _ in range(2))
    ours, theirs = entropy(a), Categorical(logits=b).entropy()
    torch.testing.assert_close(ours, theirs)
    ours.sum().backward()
    theirs.sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


def test_entropy_of_the_uniform_distribution() -> None:
    assert float(entropy(torch.full((7,), 3.0))) == pytest.approx(math.log(7))


def test_names() -> None:
    one = torch.zeros(1)
    with pytest.raises(ValueError, match="ratio"):
        divergence("k3_ratio", one, one)
    with pytest.raises(ValueError, match="k9"):
        divergence("k9", one, one)
