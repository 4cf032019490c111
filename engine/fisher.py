r"""Products of a policy's Fisher matrix with vectors: the Hessian of the mean KL(old, new) at the old policy.

.. math::
    F = \mathrm{mean}_t\ J_t^\top \big(\mathrm{diag}(p_t) - p_t p_t^\top\big) J_t,
    \qquad J_t = \partial z_t / \partial\theta

with z the tempered logits at a response token and p their softmax. The KL's own gradient is 0 at the old policy, so
this is its Hessian exactly, with no sampling of tokens.

``exact`` differentiates twice: J'u is linear in a cotangent u, and its derivative by u is J; so one backward pass
through that backward pass gives J v, and one more through the forward pass J'(..). ``difference`` is the central
difference of the KL's gradient, for attention kernels that have no second derivative.

Source: Schulman et al. (arXiv 1502.05477) appendix C; Martens (2010) for the Gauss-Newton form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.batches import Batch
from engine.old_policy import OldPolicy
from engine.policy import Policy

PROBE_KL = 1e-5
"""KL, nats a token, at the ends of a central difference: large enough for fp32, small enough to be quadratic."""
RADIUS_ERROR = 4.0
"""A difference is taken again when its own curvature says that the KL at its ends was off by more than this."""
PROBE_ERROR = 10.0
"""A probe is taken again, nearer to where it should be, when its KL was off by more than this."""
TRIES = 5


class NoSecondDerivative(RuntimeError):
    """A kernel in the model's forward pass cannot be differentiated twice."""


class FisherProduct(Protocol):
    """v [n] -> F v [n], this process's share of the mean."""

    def __call__(self, v: Tensor) -> Tensor: ...


def flatten(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    """Tensors as one vector [n]; None is zeros."""
    parts = [(torch.zeros_like(p) if t is None else t).reshape(-1) for t, p in zip(tensors, like, strict=True)]
    return torch.cat(parts)


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """A vector [n] as tensors of the parameters' shapes (views)."""
    sizes = [p.numel() for p in like]
    return [part.view_as(p) for part, p in zip(vector.split(sizes), like, strict=True)]


@dataclass
class _Graph:
    """A forward pass that can be differentiated twice."""

    logits: Tensor
    pullback: Sequence[Tensor | None]
    cotangent: Tensor
    probabilities: Tensor
    mask: Tensor


class ExactProduct:
    """Differentiates twice, under the attention kernel that can.

    The graph of a rollout that is one micro-batch is kept from product to product; of several it is made again.

    :param tokens: response tokens of all processes that the mean is over.
    :raises NoSecondDerivative: if a kernel of the model has none.
    """

    def __init__(self, policy: Policy, batches: Sequence[Batch], tokens: int, safe_point: Callable[[], None]) -> None:
        self._policy, self._batches, self._tokens, self._safe_point = policy, batches, tokens, safe_point
        self._kept = self._graph(batches[0]) if len(batches) == 1 else None

    def __call__(self, v: Tensor) -> Tensor:
        total = torch.zeros_like(v)
        parameters = self._policy.parameters
        for batch in self._batches:
            self._safe_point()
            graph = self._kept or self._graph(batch)
            try:
                total += flatten(self._times(graph, unflatten(v, parameters)), parameters)
            except RuntimeError as error:
                raise _second(error) from None
        return total

    def _graph(self, batch: Batch) -> _Graph:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            logits = self._policy.full_precision_scorer(batch, keep_logits=True).logits
            assert logits is not None
            cotangent = torch.zeros_like(logits, requires_grad=True)
            try:
                pullback = torch.autograd.grad(
                    logits, self._policy.parameters, cotangent, create_graph=True, allow_unused=True
                )
            except RuntimeError as error:
                raise _second(error) from None
        return _Graph(logits, pullback, cotangent, logits.detach().softmax(-1), batch.mask)

    def _times(self, graph: _Graph, v: Sequence[Tensor]) -> Sequence[Tensor | None]:
        used = [(g, part) for g, part in zip(graph.pullback, v, strict=True) if g is not None and g.requires_grad]
        (jv,) = torch.autograd.grad(
            [g for g, _ in used], graph.cotangent, [part for _, part in used], retain_graph=True
        )
        p = graph.probabilities
        bjv = p * (jv - (p * jv).sum(-1, keepdim=True))
        bjv = torch.where(graph.mask[..., None], bjv, 0.0) / self._tokens
        return torch.autograd.grad(graph.logits, self._policy.parameters, bjv, retain_graph=True, allow_unused=True)


def _second(error: RuntimeError) -> RuntimeError:
    """The error of a kernel that cannot be differentiated twice, by its name; any other as it is."""
    text = str(error)
    known = ("is not implemented", "differentiate twice")
    return NoSecondDerivative(text) if any(words in text for words in known) else error


class DifferenceProduct:
    r"""The central difference of the KL's gradient, :math:`[\nabla(\theta + e v) - \nabla(\theta - e v)] / 2e`.

    e is chosen so that the KL at the ends is about 1e-5 nats a token: a fixed length is right along random vectors and
    far off along the gradient, where the curvature is large. The parameters are back at the old policy, bit for bit,
    whenever this returns or a safe point is passed.

    :param reduce: sums a vector or number over all processes.
    :ivar scale: multiplies e, for comparing a difference with one of half the length.
    """

    def __init__(
        self,
        old: OldPolicy,
        tokens: int,
        safe_point: Callable[[], None],
        reduce: Callable[[Tensor], Tensor] = lambda value: value,
        scale: float = 1.0,
    ) -> None:
        self.old, self.tokens, self._safe_point, self._reduce = old, tokens, safe_point, reduce
        self.scale = scale
        self._distance = 1e-3 * max(old.size, 1e-6)  # from the old parameters, where the next probe is taken

    def __call__(self, v: Tensor) -> Tensor:
        e = self._radius(v)
        for _ in range(2):
            product = (self._gradient(v, e) - self._gradient(v, -e)) / (2 * e)
            curvature = float(v @ self._reduce(product.clone()))
            kl = 0.5 * e * e * curvature
            off = kl / (PROBE_KL * self.scale**2)
            if not curvature > 0 or 1 / RADIUS_ERROR <= off <= RADIUS_ERROR:
                break
            e = self.scale * (2 * PROBE_KL / curvature) ** 0.5
        return product

    def curvature(self, v: Tensor) -> float:
        """v'Fv of all processes, from the KL at a small distance along v: a few forward passes, and no product."""
        return 2 * PROBE_KL * (self.scale / self._radius(v)) ** 2

    def _radius(self, v: Tensor) -> float:
        """e at which the KL is about :data:`PROBE_KL`, from the KL at a probe: it grows with the distance's square."""
        size = float(v.norm())
        if size == 0:
            return 1.0
        e = self._distance / size
        for _ in range(TRIES):
            self._safe_point()
            with self.old.moved(v, e):
                kl = float(self._reduce(self.old.kl(self.tokens)))
            if not math.isfinite(kl):
                e /= 10
                continue
            off = max(kl, 1e-4 * PROBE_KL) / PROBE_KL  # less is rounding
            e /= off**0.5
            if 1 / PROBE_ERROR <= off <= PROBE_ERROR:
                break
        self._distance = e * size
        return self.scale * e

    def _gradient(self, v: Tensor, e: float) -> Tensor:
        self._safe_point()
        with self.old.moved(v, e):
            return self.old.kl_gradient(self.tokens)


def relative_difference(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    return float((a - b).norm() / b.norm().clamp(min=1e-30))
