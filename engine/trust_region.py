"""The TRPO update of a policy: gradient, direction, line search, and the old weights bit for bit where none is better.

The formulas are those of :mod:`engine.algorithms.trpo`. Everything is computed in fp32, whatever precision the
sampler has: steps this small are below the resolution of bf16. Products and gradients are of the plain model; several
processes add theirs up. Whenever a safe point is passed, the policy's parameters are the old ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from accelerate.utils import gather_object
from torch import Tensor

from engine.algorithms.surrogate import importance_ratio
from engine.algorithms.trpo import (
    Direction,
    Product,
    conjugate_gradient,
    line_search,
    rayleigh_quotient,
    step_length,
)
from engine.batches import Batch
from engine.control import Control
from engine.fisher import DifferenceProduct, ExactProduct, NoSecondDerivative, flatten, relative_difference
from engine.knobs import Knobs
from engine.objectives import fresh, note_forward
from engine.old_logprobs import own_or_recorded
from engine.old_policy import OldPolicy
from engine.passes import Budget, batch_of, micro_batches, padded
from engine.policy import Policy
from engine.precision import wide
from engine.randomness import permutation, stream
from engine.rollout import RolloutGroup, Row
from engine.scorer import Scores
from engine.tally import Tally
from engine.update import NonFinite
from sessions.records import TrustRegionStep, Try

CHECK_TOLERANCE = 1e-2
"""Largest relative difference of two Fisher products along one vector that the self-check takes for rounding."""


@dataclass
class SelfCheck:
    """What is known of a policy's Fisher products, from one update to the next.

    :ivar done: products asked for that have been checked.
    :ivar exists: whether the kernels have a second derivative.
    :ivar agrees: whether it agrees with the difference.
    :ivar why: it is not used.
    """

    done: set[str] = field(default_factory=set)
    exists: bool = True
    agrees: bool = True
    why: str = ""


@dataclass
class _Part:
    """A micro-batch of the rollout."""

    rows: list[Row]
    batch: Batch
    advantages: Tensor
    old: Tensor | None = None


@dataclass
class TrustRegion:
    """Everything a TRPO update needs.

    :ivar check: kept over updates.
    :ivar found: how the step was found, for the record.
    """

    policy: Policy
    knobs: Knobs
    control: Control
    budget: Budget
    check: SelfCheck
    found: TrustRegionStep = field(default_factory=TrustRegionStep)
    tally: Tally = field(default_factory=Tally)

    # ------------------------------------------------------------------------------------------- the update

    def run(self, groups: Sequence[RolloutGroup], *key: str | int) -> dict[str, float]:
        """Take a step on a rollout, or none.

        :param groups: of all processes; each computes on its own.
        :param key: names the random choices: which groups the Fisher products see, and the self-check's vector.
        :returns: the update's metrics.
        :raises NonFinite: if the gradient is not finite.
        """
        rows = [row for group in groups for row in group.rows()]
        parts = self._parts([row for row in rows if row.group.own])
        tokens = sum(len(row.response.tokens) for row in rows)
        old = OldPolicy(self.policy)
        gradient, surrogate = self._gradient(parts, tokens, old)
        norm = float(gradient.norm())
        if not math.isfinite(norm):
            raise NonFinite("the gradient of the surrogate", self._culprits(rows, tokens))
        metrics: dict[str, float] = {"loss/policy": -surrogate}
        if norm == 0:
            self.found.note = "no gradient"
            return self.tally.results(self.policy.accelerator) | metrics
        direction, whole = self._direction(groups, gradient, old, key)
        curvature = direction.curvature
        if not whole and curvature > 0:  # a share of the groups knows nothing of directions that move the others
            curvature = self._difference(old, tokens).curvature(direction.x)
        self.found.curvature = curvature
        metrics["grad/norm"] = norm
        if curvature > 0 and math.isfinite(curvature):
            metrics |= self._search(direction.x, curvature, gradient, old, parts, tokens, surrogate)
        else:
            self.found.note = "no curvature along the direction that conjugate gradient found; no step"
            metrics["trpo/step_fraction"] = 0.0
        return self.tally.results(self.policy.accelerator) | metrics | self._measured()

    def _measured(self) -> dict[str, float]:
        found = self.found
        metrics = {
            "trpo/cg_iterations": float(len(found.residuals)),
            "trpo/cg_residual": found.residuals[-1] if found.residuals else None,
            "trpo/curvature": found.curvature,
            "trpo/damping": found.damping,
            "trpo/product_error": found.product_error,
        }
        return {name: value for name, value in metrics.items() if value is not None}

    # ------------------------------------------------------------------------------------ gradient, direction

    def _parts(self, rows: Sequence[Row]) -> list[_Part]:
        parts = []
        for part in micro_batches(self.policy, rows, self.budget.tokens, keeps_logits=True):
            batch = batch_of(self.policy, part)
            parts.append(_Part(part, batch, padded([row.token_advantages for row in part], batch.mask)))
        return parts

    def _gradient(self, parts: Sequence[_Part], tokens: int, old: OldPolicy) -> tuple[Tensor, float]:
        """g [n] of the mean of rho A at the old policy, and that mean; l_old of the fresh rows is this forward's.

        :param old: is given what the old policy says of every micro-batch.
        """
        parameters = self.policy.parameters
        gradient = flatten([None] * len(parameters), parameters)
        total = torch.zeros((), dtype=wide(self.policy.device), device=self.policy.device)
        for done, part in enumerate(parts):
            self.control.advance(done, len(parts))
            with torch.enable_grad():
                scores = self.policy.full_precision_scorer(part.batch, keep_hidden=True, keep_logits=True)
                old.keep(part.batch, scores)
                part.old = _old(part.rows, part.batch, scores)
                ratio = importance_ratio(scores.logprobs, part.old, part.batch.mask)
                gained = torch.where(part.batch.mask, ratio * part.advantages, 0.0).sum() / tokens
                if gained.requires_grad:
                    gradient += flatten(torch.autograd.grad(gained, parameters, allow_unused=True), parameters)
            total += gained.detach()
            note_forward(part.rows, part.batch, scores, part.old, ratio, self.tally, first=True)
        return self._reduced(gradient), float(self._reduced(total))

    def _culprits(self, rows: Sequence[Row], tokens: int) -> list[str]:
        """Which rows have a gradient that is not finite, tried one by one; of all processes."""
        found = []
        for row in rows:
            if not row.group.own:
                continue
            (part,) = self._parts([row])
            with torch.enable_grad():
                scores = self.policy.full_precision_scorer(part.batch)
                ratio = importance_ratio(scores.logprobs, _old([row], part.batch, scores), part.batch.mask)
                gained = torch.where(part.batch.mask, ratio * part.advantages, 0.0).sum() / tokens
                parts = torch.autograd.grad(gained, self.policy.parameters, allow_unused=True)
            if not all(bool(torch.isfinite(g).all()) for g in parts if g is not None):
                found.append(row.name)
        if self.policy.accelerator.num_processes > 1:
            found = [name for names in gather_object([found]) for name in names]
        return found

    def _direction(
        self, groups: Sequence[RolloutGroup], gradient: Tensor, old: OldPolicy, key: Sequence[str | int]
    ) -> tuple[Direction, bool]:
        """Conjugate gradient on the Fisher products of some or all of the groups; whether it was all."""
        knobs = self.knobs
        seen = self._subsample(groups, key)
        rows = [row for group in seen for row in group.rows()]
        tokens = sum(len(row.response.tokens) for row in rows)
        batches = [part.batch for part in self._parts([row for row in rows if row.group.own])]
        whole = len(rows) == sum(len(group.rows()) for group in groups)
        product, first = self._product(lambda: old if whole else old.on(batches), batches, tokens, gradient, key)
        damping = knobs.number("damping")
        if knobs.text("damping_scale") == "curvature":
            damping *= max(rayleigh_quotient(gradient, first), 0.0)
        direction = conjugate_gradient(
            product,
            gradient,
            iterations=knobs.whole("cg_iterations"),
            tolerance=knobs.number("cg_tolerance"),
            damping=damping,
            first=first,
        )
        self.found.residuals, self.found.damping = direction.residuals, damping
        return direction, whole

    def _subsample(self, groups: Sequence[RolloutGroup], key: Sequence[str | int]) -> list[RolloutGroup]:
        """Whole groups, the same ones for every product of an update."""
        filled = [group for group in groups if group.rows()]  # one that a reward function failed on says nothing
        kept = max(1, math.ceil(self.knobs.number("fisher_fraction") * len(filled)))
        chosen = sorted(permutation("fisher groups", *key, n=len(filled))[:kept])
        return [filled[int(i)] for i in chosen]

    # ------------------------------------------------------------------------------------------ the products

    def _product(
        self,
        seen: Callable[[], OldPolicy],
        batches: Sequence[Batch],
        tokens: int,
        gradient: Tensor,
        key: Sequence[str | int],
    ) -> tuple[Product, Tensor]:
        """The Fisher product to use, checked once against the other kind, and F g.

        :param seen: the old policy on the batches that the products see.
        """
        wanted = self.knobs.text("fisher_product")
        unchecked = wanted not in self.check.done
        exact: ExactProduct | None = None
        if unchecked or wanted == "exact" or (wanted == "auto" and self.check.agrees):
            exact = self._exact(batches, tokens, gradient if unchecked else None)
        if unchecked:
            self._compare(exact, self._difference(seen(), tokens), [gradient, self._random_vector(gradient, key)])
            self.check.done.add(wanted)
            if exact is not None:  # the difference moved what its graph had kept
                exact = None  # that graph goes before another comes
                exact = self._exact(batches, tokens, None)
        if exact is not None and (wanted == "exact" or (wanted == "auto" and self.check.agrees)):
            use: ExactProduct | DifferenceProduct = exact
            self.found.product = "exact"
        else:  # not that of the check: a run that is resumed checks again, and its probes must begin alike
            use = self._difference(seen(), tokens)
            self.found.product = "difference"
            if wanted != "difference":
                self.found.note = f"Fisher products by difference: {self.check.why}"

        def product(v: Tensor) -> Tensor:
            return self._reduced(use(v))

        return product, product(gradient)

    def _difference(self, old: OldPolicy, tokens: int) -> DifferenceProduct:
        return DifferenceProduct(old, tokens, self._safe_point, self._reduced)

    def _exact(self, batches: Sequence[Batch], tokens: int, probe: Tensor | None) -> ExactProduct | None:
        """The exact product, if the model's kernels have it.

        :param probe: a vector to try it on.
        """
        if not self.check.exists:
            return None
        try:
            product = ExactProduct(self.policy, batches, tokens, self._safe_point)
            if probe is not None:
                product(probe)
        except NoSecondDerivative as error:
            self.check.exists = self.check.agrees = False
            self.check.why = f"no second derivative ({str(error).splitlines()[0][:80]})"
            return None
        return product

    def _compare(self, exact: ExactProduct | None, difference: DifferenceProduct, vectors: Sequence[Tensor]) -> None:
        """Along the gradient and a random vector: the difference against the exact product, or else half the step."""
        fine = [self._reduced(exact(v)) for v in vectors] if exact is not None else []
        coarse = [self._reduced(difference(v)) for v in vectors]
        error = max(map(relative_difference, coarse, fine)) if fine else math.inf
        if error > CHECK_TOLERANCE:
            half = DifferenceProduct(difference.old, difference.tokens, self._safe_point, self._reduced, scale=0.5)
            steady = max(relative_difference(c, self._reduced(half(v))) for c, v in zip(coarse, vectors, strict=True))
            if fine and steady <= CHECK_TOLERANCE:
                self.check.agrees = False
                self.check.why = f"the second derivative is off by {error:.1e}"
            error = error if fine else steady
        self.found.product_error = error

    def _random_vector(self, like: Tensor, key: Sequence[str | int]) -> Tensor:
        noise = stream("fisher check", *key).standard_normal(len(like), dtype="float32")
        return torch.from_numpy(noise).to(like.device)

    # ------------------------------------------------------------------------------------------- line search

    def _search(
        self,
        direction: Tensor,
        curvature: float,
        gradient: Tensor,
        old: OldPolicy,
        parts: Sequence[_Part],
        tokens: int,
        surrogate: float,
    ) -> dict[str, float]:
        """Shrink the step until it is inside the trust region and better; the old weights if it never is."""
        trust_region, backtracks = self.knobs.number("trust_region"), self.knobs.whole("backtracks")
        length = step_length(trust_region, curvature)
        predicted = length * float(gradient @ direction)
        extremes: tuple[float, float] = (1.0, 1.0)
        committed = False

        def attempt(fraction: float) -> tuple[float, float]:
            nonlocal extremes
            old.restore()
            self.control.advance(len(self.found.tries), backtracks)
            old.place(direction, fraction * length)
            kl, there, extremes = self._look(old, parts, tokens)
            self.found.tries.append(Try(fraction=fraction, kl=_finite(kl), gain=_finite(there - surrogate)))
            return kl, there - surrogate

        try:
            tries = line_search(attempt, trust_region, backtracks)
            committed = tries[-1].accepted
        finally:
            if not committed:
                old.restore()
        self.found.predicted_gain = predicted
        metrics = {"trpo/gain_predicted": predicted, "trpo/step_fraction": 0.0}
        if not committed:
            self.found.note = self.found.note or f"rejected: none of {len(tries)} tries was inside and better"
            return metrics
        self.control.commit()
        last = tries[-1]
        self.found.tries[-1].accepted = True
        metrics |= {
            "trpo/step_fraction": last.fraction,
            "trpo/kl_realised": last.kl,
            "trpo/gain_actual": last.gain,
            "kl/old_new": last.kl,
            "ratio/max": extremes[1],
            "ratio/min": extremes[0],
        }
        if predicted > 0:
            metrics["trpo/gain_ratio"] = last.gain / (predicted * last.fraction)
        return metrics

    @torch.no_grad()
    def _look(self, old: OldPolicy, parts: Sequence[_Part], tokens: int) -> tuple[float, float, tuple[float, float]]:
        """At the policy's present parameters: KL(old, new), the mean of rho A, and the smallest and largest rho."""
        total = torch.zeros(2, dtype=wide(self.policy.device), device=self.policy.device)
        extremes = Tally()
        for index, part in enumerate(parts):
            assert part.old is not None
            scores = self.policy.full_precision_scorer(part.batch, keep_logits=True)
            assert scores.logits is not None
            ratio = importance_ratio(scores.logprobs, part.old, part.batch.mask)
            gained = torch.where(part.batch.mask, ratio * part.advantages, 0.0).to(total.dtype).sum()
            total += torch.stack([old.kl_of(index, scores.logits).to(total.dtype), gained])
            new = part.batch.mask & fresh(part.rows, part.batch)
            extremes.minimum("min", ratio, new)
            extremes.maximum("max", ratio, new)
        found = extremes.results(self.policy.accelerator)
        kl, surrogate = (self._reduced(total) / tokens).tolist()
        return kl, surrogate, (found.get("min", 1.0), found.get("max", 1.0))

    # ----------------------------------------------------------------------------------------------- helpers

    def _safe_point(self) -> None:
        self.control.safe_point()

    def _reduced(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        accelerator = self.policy.accelerator
        return value if accelerator.num_processes == 1 else accelerator.reduce(value, "sum")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _old(rows: Sequence[Row], batch: Batch, scores: Scores) -> Tensor:
    """l_old [rows, T]: in the precision of this update, the fresh rows' own forward pass."""
    return own_or_recorded(rows, batch, scores, [not row.group.late for row in rows])
