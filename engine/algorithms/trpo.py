r"""TRPO: trust region policy optimization, the step that maximises the surrogate inside a ball of KL.

.. math::
    \max_\theta\ L(\theta) = \mathrm{mean}_t\, \rho_t A_t \quad \text{subject to} \quad
    \mathrm{mean}_t\ \mathrm{KL}\big(\pi_\mathrm{old}(\cdot|s_t),\ \pi_\theta(\cdot|s_t)\big) \le \delta

With g the gradient of L and F the Hessian of the mean KL at the old policy (its Fisher matrix), the step is

.. math::
    x \approx (F + \lambda I)^{-1} g, \qquad \theta = \theta_\mathrm{old} + 0.8^j \sqrt{2\delta / x^\top F x}\ x

with x from conjugate gradient, and the first j at which the realised KL is inside the ball and the surrogate has
improved. The length comes from the undamped F: on a language model, whose curvature is small almost everywhere, the
damping would otherwise eat most of the step.

Pure functions of vectors; :mod:`engine.trust_region` gives them a policy's gradient, Fisher products and tries.

Source: Schulman et al. (arXiv 1502.05477), section 6 and appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

BACKTRACK = 0.8
"""Each try of the line search takes this share of the one before."""

Product = Callable[[Tensor], Tensor]


@dataclass
class Direction:
    """What conjugate gradient found.

    :ivar x: the solution [n].
    :ivar fisher_x: F x [n], undamped.
    :ivar residuals: |b - (F + lambda I) x| / |b| after each iteration.
    """

    x: Tensor
    fisher_x: Tensor
    residuals: list[float] = field(default_factory=list)

    @property
    def curvature(self) -> float:
        """x'Fx, undamped."""
        return float(self.x @ self.fisher_x)


def conjugate_gradient(
    product: Product, b: Tensor, *, iterations: int, tolerance: float, damping: float = 0.0, first: Tensor | None = None
) -> Direction:
    """Solve (F + damping I) x = b for symmetric positive definite F + damping I, from x = 0.

    :param product: v [n] -> F v [n].
    :param tolerance: stop once the residual is at most this share of |b|.
    :param first: F b, where it is known already: the first iteration's product is along b.
    :returns: x, with F x added up on the way at no cost.

    A direction of no or negative curvature, which rounding can make, ends the search before it is taken.

    Source: Hestenes and Stiefel (1952).
    """
    x, fisher_x = torch.zeros_like(b), torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    size = squared = float(residual @ residual)
    found = Direction(x, fisher_x)
    for i in range(iterations):
        if squared <= tolerance**2 * size:
            break
        curved = first if i == 0 and first is not None else product(direction)
        damped = curved + damping * direction
        curvature = float(direction @ damped)
        if not curvature > 0:
            break
        step = squared / curvature
        x += step * direction
        fisher_x += step * curved
        residual -= step * damped
        before, squared = squared, float(residual @ residual)
        found.residuals.append((squared / size) ** 0.5)
        direction = residual + (squared / before) * direction
    return found


def rayleigh_quotient(v: Tensor, product: Tensor) -> float:
    """v'Fv / v'v: the curvature along v.

    :param product: F v.
    """
    return float(v @ product) / max(float(v @ v), 1e-30)


def step_length(trust_region: float, curvature: float) -> float:
    """sqrt(2 delta / x'Fx): the multiple of x at which the quadratic model of the KL reaches delta."""
    return float((2 * trust_region / curvature) ** 0.5)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of the line search.

    :ivar fraction: of the full step.
    :ivar kl: realised.
    :ivar gain: of the surrogate.
    """

    fraction: float
    kl: float
    gain: float
    accepted: bool


def line_search(attempt: Callable[[float], tuple[float, float]], trust_region: float, backtracks: int) -> list[Attempt]:
    """Try 0.8^j of the full step for j = 0, 1, ... until one is inside the trust region and better.

    :param attempt: fraction -> realised (KL, gain of the surrogate) there.
    :param backtracks: most tries.
    :returns: every try; the last one is the accepted one, if any is. What is not finite is never accepted.
    """
    tries: list[Attempt] = []
    for j in range(backtracks):
        fraction = BACKTRACK**j
        kl, gain = attempt(fraction)
        accepted = math.isfinite(kl) and kl <= trust_region and math.isfinite(gain) and gain > 0
        tries.append(Attempt(fraction, kl, gain, accepted))
        if accepted:
            break
    return tries
