"""The update: passes over a rollout, cut into minibatches and micro-batches, one optimizer step a minibatch.

The loss is :func:`engine.algorithms.grpo.loss`. Every denominator is over the whole minibatch and all processes, so
neither the cut into micro-batches nor the number of processes changes a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.algorithms.grpo import Loss, loss
from engine.algorithms.surrogate import Denominators
from engine.control import Control
from engine.divergences import kl_old_new
from engine.knobs import Knobs
from engine.optimizer import PolicyOptimizer, relative_size
from engine.policy import Policy, make_batch
from engine.rollout import RolloutGroup, Row, micro_batches, minibatches
from engine.tally import Tally

LOGITS_LIMIT = 2**27
"""Most response tokens x vocabulary in one forward: half a gigabyte of fp32 logits."""


class NonFiniteGradient(ArithmeticError):
    """A gradient was not finite; the optimizer was not stepped with it."""


@dataclass(frozen=True, slots=True)
class Update:
    """Everything an update needs.

    :ivar micro_tokens: prompt and response tokens that one forward and backward may hold.
    :ivar at_minibatch: called before each optimizer step's forward passes, where changes take effect.
    """

    policy: Policy
    optimizer: PolicyOptimizer
    knobs: Knobs
    control: Control
    micro_tokens: int
    at_minibatch: Callable[[], None]

    def run(self, groups: Sequence[RolloutGroup], *key: str | int) -> dict[str, float]:
        """``epochs`` passes over the rollout in ``minibatches`` sets of whole groups; one optimizer step for each.

        :param groups: of all processes; each trains its own, and every denominator is over all.
        :param key: names the shuffling of groups.
        :returns: the update's metrics.
        :raises NonFiniteGradient: before a step with a gradient that is not finite; no weight has changed by it.
        """
        epochs, parts = self.knobs.whole("epochs"), self.knobs.whole("minibatches")
        plan = [m for epoch in range(epochs) for m in minibatches(groups, parts, *key, epoch)]
        if len(plan) > 1:
            self._old_pass(groups)
        tally = Tally()
        before = self.optimizer.watch()
        stepped = 0
        for index, minibatch in enumerate(plan):
            self.at_minibatch()
            if all(not any(g.advantages) for g in minibatch):
                continue  # all dead: stepping would only follow the optimizer's momentum
            self._backward(minibatch, tally, first=stepped == 0, alone=len(plan) == 1, progress=(index, len(plan)))
            self.control.commit()
            norm = self.optimizer.step()
            if norm is None:
                raise NonFiniteGradient(f"the gradient of minibatch {index + 1} of {len(plan)} is not finite")
            tally.add("grad/norm", norm)
            stepped += 1
        metrics = tally.results(self.policy.accelerator)
        if stepped:
            metrics["update/relative_size"] = relative_size(before, self.optimizer.watch())
            metrics["learning_rate"] = self.optimizer.learning_rate
        else:
            metrics.pop("grad/norm", None)
        return metrics

    def _backward(
        self,
        minibatch: Sequence[RolloutGroup],
        tally: Tally,
        *,
        first: bool,
        alone: bool,
        progress: tuple[int, int],
    ) -> None:
        """The gradient of one minibatch, in micro-batches."""
        rows = [row for group in minibatch for row in group.rows()]
        over = Denominators(
            len(rows), sum(len(row.response.tokens) for row in rows), self.knobs.whole("max_new_tokens")
        )
        beta = self.knobs.number("kl_coefficient") if self.knobs.text("kl_placement") == "loss" else 0.0
        mine = [row for row in rows if row.group.own and (row.advantage != 0 or beta > 0)]
        batches = list(micro_batches(mine, self.micro_tokens, LOGITS_LIMIT, self.policy.vocabulary))
        accelerator = self.policy.accelerator
        if not batches and accelerator.num_processes > 1:
            self._join_reduction(rows[0])
        for i, batch in enumerate(batches):
            self.control.advance(progress[0] * len(batches) + i, progress[1] * len(batches))
            last = i + 1 == len(batches)
            with nullcontext() if last else accelerator.no_sync(self.policy.scorer):
                part = self._loss(batch, over, beta, tally, first=first, alone=alone)
                # the reduction over processes is a mean, and the denominators are already those of all
                accelerator.backward(part.total * accelerator.num_processes)
            tally.total("loss/policy", float(part.policy.detach()))
            tally.total("loss/kl", float(part.kl.detach()))

    def _join_reduction(self, row: Row) -> None:
        """A process without a share still takes part in the reduction of gradients, with zeros."""
        batch = make_batch([row.prompt], [row.response.tokens], [1.0], self.policy.pad, self.policy.device)
        logprobs, _ = self.policy.scorer(batch)
        self.policy.accelerator.backward(logprobs.sum() * 0.0)

    def _loss(
        self, rows: list[Row], over: Denominators, beta: float, tally: Tally, *, first: bool, alone: bool
    ) -> Loss:
        knobs, device = self.knobs, self.policy.device
        batch = make_batch(
            [row.prompt for row in rows],
            [row.response.tokens for row in rows],
            [row.group.record.temperature for row in rows],
            self.policy.pad,
            device,
        )
        logprobs, entropy = self.policy.scorer(batch)
        old = padded([row.old for row in rows], batch.mask)
        if alone:  # one optimizer step a rollout: l_old is this forward's own, except for late groups
            fresh = torch.tensor([not row.group.late for row in rows], device=device)
            old = torch.where(fresh[:, None], logprobs.detach(), old)
        reference = None
        if beta > 0:
            reference = padded([row.response.reference_logprobs for row in rows], batch.mask)
        advantages = torch.tensor([row.advantage for row in rows], device=device)[:, None].expand_as(logprobs)
        part = loss(
            logprobs,
            old,
            advantages,
            batch.mask,
            over,
            clip_low=knobs.number("clip_low"),
            clip_high=knobs.number("clip_high"),
            aggregation=knobs.text("loss_aggregation"),
            reference=reference,
            kl_coefficient=beta,
            kl_estimator=knobs.text("kl_estimator"),
        )
        mask = batch.mask
        tally.mean("entropy", entropy, mask)
        tally.mean("kl/old_new", kl_old_new(torch.where(mask, logprobs, 0.0), torch.where(mask, old, 0.0)), mask)
        tally.mean("clip/low", part.clipped_low, mask)
        tally.mean("clip/high", part.clipped_high, mask)
        tally.maximum("ratio/max", part.ratio, mask)
        for i, row in enumerate(rows):
            if not row.response.entropies:
                row.response.entropies = entropy[i, : len(row.response.tokens)].tolist()
        if first:
            self._first_forward(rows, logprobs.detach(), part.ratio, mask, tally, alone=alone)
        return part

    def _first_forward(
        self,
        rows: list[Row],
        logprobs: Tensor,
        ratio: Tensor,
        mask: Tensor,
        tally: Tally,
        *,
        alone: bool,
    ) -> None:
        """Record what the unchanged policy says: it should be what the sampler said."""
        fresh = mask & torch.tensor([not row.group.late for row in rows], device=mask.device)[:, None]
        gap = (logprobs - padded([row.response.logprobs for row in rows], mask)).abs()
        tally.mean("sampler_gap/mean", gap, fresh)
        tally.maximum("sampler_gap/max", gap, fresh)
        if not alone:
            tally.maximum("ratio/first_error", (ratio - 1).abs(), fresh)

    def _old_pass(self, groups: Sequence[RolloutGroup]) -> None:
        """l_old of the fresh groups, by a pass without gradient with the kernels of training."""
        fresh = [row for group in groups if group.own and not group.late for row in group.rows()]
        for row in fresh:
            row.group.old_logprobs = row.group.old_logprobs or [[] for _ in row.group.record.responses]
        for batch in micro_batches(fresh, self.micro_tokens, LOGITS_LIMIT, self.policy.vocabulary):
            self.control.safe_point()
            for row, values in zip(batch, score(self.policy, self.policy.plain_scorer, batch), strict=True):
                row.group.old_logprobs[row.place] = values


def padded(values: Sequence[Sequence[float]], mask: Tensor) -> Tensor:
    """Rows of numbers as a tensor of the mask's shape, 0 beyond their ends."""
    result = torch.zeros(mask.shape, dtype=torch.float32)
    for i, row in enumerate(values):
        result[i, : len(row)] = torch.tensor(row)
    return result.to(mask.device)


def score(policy: Policy, scorer: torch.nn.Module, rows: Sequence[Row]) -> list[list[float]]:
    """Log-probabilities of each row's response tokens under a scorer, without gradient."""
    batch = make_batch(
        [row.prompt for row in rows],
        [row.response.tokens for row in rows],
        [row.group.record.temperature for row in rows],
        policy.pad,
        policy.device,
    )
    with policy.inference():
        logprobs, _ = scorer(batch)
    return [logprobs[i, : len(row.response.tokens)].tolist() for i, row in enumerate(rows)]
