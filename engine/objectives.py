"""What a micro-batch of an update minimises: GRPO's loss, or PPO's with a value model beside the policy.

An objective reads the hyperparameters when it is used, so a change with boundary minibatch is in the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.algorithms import grpo
from engine.algorithms.ppo import value_loss
from engine.algorithms.surrogate import Denominators, aggregate, clipped, clipped_surrogate, importance_ratio
from engine.batches import Batch
from engine.divergences import full_kl, kl_old_new
from engine.knobs import Knobs
from engine.old_logprobs import OldLogprobs
from engine.passes import batch_of, padded
from engine.policy import Policy
from engine.reference import Reference
from engine.rollout import Row
from engine.scorer import Scores
from engine.tally import Tally
from engine.value_model import ValueModel


@dataclass(frozen=True, slots=True)
class Part:
    """A micro-batch's share of the minibatch.

    :ivar total: scalar with gradient, to minimise.
    :ivar kl_old_new: the sum of (rho - 1) - log rho over its tokens of this step's groups: what the update has moved.
    :ivar tokens: how many those are.
    """

    total: Tensor
    kl_old_new: float
    tokens: int


class Objective(Protocol):
    """What the update asks of an algorithm."""

    old: OldLogprobs

    @property
    def keeps_logits(self) -> bool:
        """Whether it asks for the logits of a micro-batch."""

    def denominators(self, rows: Sequence[Row]) -> Denominators:
        """What the losses of a minibatch are divided by."""

    def teaches(self, row: Row) -> bool:
        """Whether a minibatch with this row is worth an optimizer step."""

    def reaches(self, row: Row) -> bool:
        """Whether any term of the loss reaches this row, so that it needs a forward pass."""

    def part(self, rows: Sequence[Row], over: Denominators, tally: Tally, *, first: bool) -> Part:
        """The loss of a micro-batch.

        :param first: whether no optimizer step has been made in this update.
        """


@dataclass
class GroupRelative:
    """GRPO on the rows of a micro-batch."""

    policy: Policy
    knobs: Knobs
    reference: Reference
    old: OldLogprobs

    @property
    def beta(self) -> float:
        """The divergence's weight in the loss."""
        return self.knobs.number("kl_coefficient") if self.knobs.text("kl_placement") == "loss" else 0.0

    @property
    def keeps_logits(self) -> bool:
        """Whether the divergence is the sum over the vocabulary."""
        return self.beta > 0 and self.knobs.text("kl_estimator") == "full"

    def denominators(self, rows: Sequence[Row]) -> Denominators:
        return denominators(rows, self.knobs)

    def teaches(self, row: Row) -> bool:
        return row.teaches

    def reaches(self, row: Row) -> bool:
        others = self.beta > 0 or self.knobs.number("entropy_bonus") > 0
        return row.teaches or others or "skip_zero" not in self.policy.shortcuts

    def part(self, rows: Sequence[Row], over: Denominators, tally: Tally, *, first: bool) -> Part:
        knobs, beta, bonus = self.knobs, self.beta, self.knobs.number("entropy_bonus")
        batch = batch_of(self.policy, rows)
        scores: Scores = self.policy.scorer(batch, keep_logits=self.keeps_logits, entropy_gradient=bonus > 0)
        old = self.old.of(rows, batch, scores, unmoved=first)
        reference = full = None
        if beta > 0:
            reference = padded([row.response.reference_logprobs for row in rows], batch.mask)
        if scores.logits is not None:
            full = full_kl(scores.logits, self.reference.logits(batch))
            tally.mean("kl/full", full, batch.mask & fresh(rows, batch))
        loss = grpo.loss(
            scores.logprobs,
            old,
            padded([row.token_advantages for row in rows], batch.mask),
            batch.mask,
            over,
            clip_low=knobs.number("clip_low"),
            clip_high=knobs.number("clip_high"),
            aggregation=knobs.text("loss_aggregation"),
            ratio_level=knobs.text("ratio_level"),
            reference=reference,
            full=full,
            kl_coefficient=beta,
            kl_estimator=knobs.text("kl_estimator"),
            entropy=scores.entropy,
            entropy_bonus=bonus,
        )
        tally.total("loss/policy", float(loss.policy.detach()))
        tally.total("loss/kl", float(loss.kl.detach()))
        tally.mean("clip/low", loss.clipped_low, batch.mask)
        tally.mean("clip/high", loss.clipped_high, batch.mask)
        moved = note_forward(rows, batch, scores, old, loss.ratio, tally, first=first)
        return Part(loss.total, moved, int((batch.mask & fresh(rows, batch)).sum()))


@dataclass
class Proximal:
    """PPO on the rows of a micro-batch, or the value model's part of it alone.

    :ivar value_only: the policy is left as it is: in the value model's warm-up, and beside TRPO.
    """

    policy: Policy
    knobs: Knobs
    value_model: ValueModel
    old: OldLogprobs
    value_only: bool = False

    keeps_logits = False

    def denominators(self, rows: Sequence[Row]) -> Denominators:
        return denominators([row for row in rows if row.response.returns], self.knobs)

    def teaches(self, row: Row) -> bool:
        return bool(row.response.returns)

    reaches = teaches

    def part(self, rows: Sequence[Row], over: Denominators, tally: Tally, *, first: bool) -> Part:
        batch = batch_of(self.policy, rows)
        if self.value_only:
            with torch.no_grad(), self.policy.accelerator.autocast():
                scores: Scores = self.policy.plain_scorer(batch, keep_hidden=True)
        else:
            scores = self.policy.scorer(batch, keep_hidden=True)
        with self.policy.accelerator.autocast():
            values = self.value_model.estimate(batch, scores, alone=self.value_only)
        lost, cut = value_loss(
            values,
            padded([row.response.values for row in rows], batch.mask),
            padded([row.response.returns for row in rows], batch.mask),
            batch.mask,
            over.tokens,
            self.knobs.number("value_clip"),
        )
        tally.total("value/loss", float(lost.detach()))
        tally.mean("value/clip_fraction", cut, batch.mask)
        old = self.old.of(rows, batch, scores, unmoved=first)
        ratio = importance_ratio(scores.logprobs, old, batch.mask)
        moved = note_forward(rows, batch, scores, old, ratio, tally, first=first)
        if self.value_only:
            return Part(lost, moved, int((batch.mask & fresh(rows, batch)).sum()))
        advantages = padded([row.token_advantages for row in rows], batch.mask)
        bounds = (self.knobs.number("clip_low"), self.knobs.number("clip_high"))
        policy = -aggregate(clipped_surrogate(ratio, advantages, *bounds), batch.mask, "token", over)
        low, high = clipped(ratio, advantages, batch.mask, *bounds)
        tally.total("loss/policy", float(policy.detach()))
        tally.mean("clip/low", low, batch.mask)
        tally.mean("clip/high", high, batch.mask)
        return Part(policy + lost, moved, int((batch.mask & fresh(rows, batch)).sum()))


def denominators(rows: Sequence[Row], knobs: Knobs) -> Denominators:
    """Counts of a minibatch's rows."""
    return Denominators(len(rows), sum(len(row.response.tokens) for row in rows), knobs.whole("max_new_tokens"))


def fresh(rows: Sequence[Row], batch: Batch) -> Tensor:
    """Which rows are of this step [rows, 1]."""
    return torch.tensor([not row.group.late for row in rows], device=batch.mask.device)[:, None]


def note_forward(
    rows: Sequence[Row],
    batch: Batch,
    scores: Scores,
    old: Tensor,
    ratio: Tensor,
    tally: Tally,
    *,
    first: bool,
) -> float:
    """Measure a training forward; the sum of (rho - 1) - log rho over the fresh rows' tokens.

    Where a late row began to move is not this update's doing.

    What the unchanged policy says (``first``) should be what the sampler said.
    """
    mask, logprobs = batch.mask, scores.logprobs.detach()
    new = mask & fresh(rows, batch)
    moved = kl_old_new(torch.where(mask, logprobs, 0.0), torch.where(mask, old, 0.0))
    tally.mean("entropy", scores.entropy, mask)
    tally.mean("kl/old_new", moved, new)
    tally.maximum("ratio/max", ratio, mask)
    tally.minimum("ratio/min", ratio, mask)
    for i, row in enumerate(rows):
        if not row.response.entropies:
            row.response.entropies = scores.entropy[i, : len(row.response.tokens)].tolist()
    if first:
        gap = (logprobs - padded([row.response.logprobs for row in rows], mask)).abs()
        tally.mean("sampler_gap/mean", gap, new)
        tally.maximum("sampler_gap/max", gap, new)
        recorded = torch.tensor([bool(row.recorded_old) for row in rows], device=mask.device)[:, None]
        tally.maximum("ratio/first_error", (ratio - 1).abs(), new & recorded)
    return float(torch.where(new, moved, 0.0).sum())
