"""Fisher products of a small policy against its explicit Fisher matrix, and the old policy they start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from engine.fisher import (
    PROBE_KL,
    DifferenceProduct,
    ExactProduct,
    NoSecondDerivative,
    flatten,
    relative_difference,
    unflatten,
)
from engine.old_policy import OldPolicy
from engine.passes import batch_of
from engine.policy import Batch, Policy
from tests.engine.small import random_policy, rollout_group, same_weights, weights_of


def nothing() -> None:
    """A safe point nobody waits at."""


@pytest.fixture
def policy() -> Policy:
    return random_policy(hidden=8, spread=2.5)  # flat enough for the quadratic to hold over a finite difference


def batches(policy: Policy, split: bool = False, temperature: float = 1.0) -> list[Batch]:
    """Two prompts of different lengths, responses of different lengths."""
    one = rollout_group([1.0, 0.0], lengths=[3, 1], number=1)
    two = rollout_group([1.0], lengths=[2], number=2, prompt_tokens=[9, 8])
    one.record.temperature = two.record.temperature = temperature
    rows = [*one.rows(), *two.rows()]
    return [batch_of(policy, [row]) for row in rows] if split else [batch_of(policy, rows)]


TOKENS = 6


def explicit_fisher(policy: Policy, parts: Sequence[Batch]) -> Tensor:
    """mean of J'(diag p - p p')J [n, n] in fp64, J one row of the jacobian after another."""
    n = sum(p.numel() for p in policy.parameters)
    fisher = torch.zeros(n, n, dtype=torch.float64)
    for batch in parts:
        logits = policy.plain_scorer(batch, keep_logits=True).logits
        for row, t in batch.mask.nonzero().tolist():
            z = logits[row, t]
            rows = [torch.autograd.grad(z[v], policy.parameters, retain_graph=True) for v in range(len(z))]
            jacobian = torch.stack([torch.cat([g.flatten() for g in grads]) for grads in rows]).double()
            p = z.detach().double().softmax(-1)
            fisher += jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
    return fisher / TOKENS


def vectors(policy: Policy, count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    n = sum(p.numel() for p in policy.parameters)
    return [torch.randn(n, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_exact_product_is_the_explicit_matrix(policy: Policy, split: bool, temperature: float) -> None:
    parts = batches(policy, split, temperature)
    fisher = explicit_fisher(policy, parts)
    product = ExactProduct(policy, parts, TOKENS, nothing)
    for v in vectors(policy):
        want = fisher @ v.double()
        assert float((product(v).double() - want).norm() / want.norm()) < 1e-4


def test_the_explicit_matrix_is_the_hessian_of_the_divergence(policy: Policy) -> None:
    """Differentiating KL(old, new) twice at the old policy gives the same product."""
    (batch,) = batches(policy)
    product = ExactProduct(policy, [batch], TOKENS, nothing)
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        logits = policy.plain_scorer(batch, keep_logits=True).logits
    new, old = logits.log_softmax(-1), logits.detach().log_softmax(-1)
    kl = torch.where(batch.mask, (old.exp() * (old - new)).sum(-1), 0.0).sum() / TOKENS
    gradient = flatten(torch.autograd.grad(kl, policy.parameters, create_graph=True), policy.parameters)
    for v in vectors(policy):
        twice = flatten(torch.autograd.grad(gradient @ v, policy.parameters, retain_graph=True), policy.parameters)
        assert relative_difference(product(v), twice) < 1e-4


def test_the_exact_product_is_symmetric_and_positive_semi_definite(policy: Policy) -> None:
    product = ExactProduct(policy, batches(policy), TOKENS, nothing)
    v, w, _ = vectors(policy)
    assert float(w @ product(v)) == pytest.approx(float(v @ product(w)), rel=1e-3, abs=1e-7)
    assert all(float(v @ product(v)) > 0 for v in vectors(policy))


def test_the_difference_agrees_with_the_exact_product(policy: Policy) -> None:
    """Along random vectors, and along a direction of large curvature, where a fixed radius would be wrong."""
    parts = batches(policy)
    exact = ExactProduct(policy, parts, TOKENS, nothing)
    steep = vectors(policy, 1)[0]
    for _ in range(5):
        steep = exact(steep)
        steep = steep / steep.norm()
    given = [*vectors(policy), steep, 1e-4 * steep, 1e4 * steep]
    want = [exact(v) for v in given]
    difference = DifferenceProduct(OldPolicy(policy, parts), TOKENS, nothing)
    for v, expected in zip(given, want, strict=True):
        assert relative_difference(difference(v), expected) < 1e-2


def test_a_difference_puts_the_parameters_back_bit_for_bit(policy: Policy) -> None:
    before = weights_of(policy)
    old = OldPolicy(policy, batches(policy))
    seen: list[bool] = []
    difference = DifferenceProduct(old, TOKENS, lambda: seen.append(same_weights(before, weights_of(policy))))
    difference(vectors(policy)[0])
    assert same_weights(before, weights_of(policy))
    assert len(seen) > 2
    assert all(seen)  # whoever looks at a safe point sees the old policy


def test_an_interruption_puts_the_parameters_back(policy: Policy) -> None:
    before = weights_of(policy)
    old = OldPolicy(policy, batches(policy))

    def interrupted() -> None:
        with old.moved(vectors(policy)[0], 0.1):
            assert not same_weights(before, weights_of(policy))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert same_weights(before, weights_of(policy))


def test_the_divergence_is_the_sum_over_the_vocabulary(policy: Policy) -> None:
    parts = batches(policy, split=True)
    old = OldPolicy(policy, parts)
    before = [policy.plain_scorer(b, keep_logits=True).logits.detach().double() for b in parts]
    assert float(old.kl(TOKENS)) == pytest.approx(0.0, abs=1e-7)
    with old.moved(vectors(policy)[0], 0.02):
        total = 0.0
        for batch, logits in zip(parts, before, strict=True):
            now = policy.plain_scorer(batch, keep_logits=True).logits.detach().double()
            for row, t in batch.mask.nonzero().tolist():
                p, q = (torch.distributions.Categorical(logits=z[row, t]) for z in (logits, now))
                total += float(torch.distributions.kl_divergence(p, q))
        assert float(old.kl(TOKENS)) == pytest.approx(total / TOKENS, rel=1e-4)
        assert total > 0


def test_the_gradient_of_the_divergence(policy: Policy) -> None:
    """Against differences of the divergence itself, at a point away from the old policy."""
    old = OldPolicy(policy, batches(policy))
    away, v, _ = vectors(policy)
    v = v / v.norm()
    with old.moved(away, 0.02):
        slope = float(old.kl_gradient(TOKENS) @ v)
    kls = []
    for e in (1e-2, -1e-2):
        with old.moved(away * 0.02 + e * v, 1.0):
            kls.append(float(old.kl(TOKENS)))
    assert slope == pytest.approx((kls[0] - kls[1]) / 2e-2, rel=2e-2)


def test_where_the_head_does_not_explain_the_logits_they_are_kept(policy: Policy) -> None:
    """A model that caps its logits after the output layer."""
    real: Callable[..., object] = policy.model.forward

    def capped(*arguments: object, **named: object) -> object:
        output = real(*arguments, **named)
        output.logits = 5.0 * torch.tanh(output.logits / 5.0)
        return output

    policy.model.forward = capped
    parts = batches(policy, split=True)
    old = OldPolicy(policy, parts)
    for index, batch in enumerate(parts):
        want = policy.plain_scorer(batch, keep_logits=True).logits.detach().log_softmax(-1)
        torch.testing.assert_close(old.log_probabilities(index), want)
    assert float(old.kl(TOKENS)) == pytest.approx(0.0, abs=1e-7)


class Once(torch.autograd.Function):
    """The identity, by a kernel that cannot be differentiated twice."""

    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: object, gradient: Tensor) -> Tensor:
        return gradient.clone()


def no_second_derivative(policy: Policy) -> None:
    """Put such a kernel behind the policy's embeddings."""
    policy.model.get_input_embeddings().register_forward_hook(lambda *seen: Once.apply(seen[-1]))


def test_a_kernel_without_a_second_derivative_is_told_apart(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    monkeypatch.setattr("engine.fisher.sdpa_kernel", lambda _: sdpa_kernel(SDPBackend.FLASH_ATTENTION))
    with pytest.raises(NoSecondDerivative, match="is not implemented"):
        ExactProduct(policy, batches(policy), TOKENS, nothing)(vectors(policy)[0])


def test_the_difference_needs_none(policy: Policy) -> None:
    parts = batches(policy)
    fisher = explicit_fisher(policy, parts)
    no_second_derivative(policy)
    v = vectors(policy)[0]
    got = DifferenceProduct(OldPolicy(policy, parts), TOKENS, nothing)(v).double()
    want = fisher @ v.double()
    assert float((got - want).norm() / want.norm()) < 1e-2


def test_other_errors_pass_through(policy: Policy) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    product = ExactProduct(policy, batches(policy), TOKENS, nothing)
    policy.model.get_input_embeddings().register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        ExactProduct(policy, batches(policy), TOKENS, nothing)
    assert product(vectors(policy)[0]).isfinite().all()  # its graph was kept


def test_flat_vectors_and_back(policy: Policy) -> None:
    given = [torch.randn_like(p) for p in policy.parameters]
    flat = flatten(given, policy.parameters)
    assert all(torch.equal(a, b) for a, b in zip(unflatten(flat, policy.parameters), given, strict=True))
    assert torch.equal(
        flatten([None, *given[1:]], policy.parameters)[: given[0].numel()], torch.zeros(given[0].numel())
    )


def test_the_radius_of_a_difference_is_a_divergence(policy: Policy) -> None:
    old = OldPolicy(policy, batches(policy))
    for scale in (1e-3, 1.0, 1e3):
        v = scale * vectors(policy)[0]
        with old.moved(v, DifferenceProduct(old, TOKENS, nothing)._radius(v)):
            assert float(old.kl(TOKENS)) == pytest.approx(PROBE_KL, rel=0.5)
