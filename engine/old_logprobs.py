"""Where l_old comes from: the log-probabilities of the policy that has not moved yet.

The rows of an update's first minibatch have them from their own forward pass, which no optimizer step precedes. Those
of later minibatches have the sampler's, if on the first minibatch these agree with the forward pass (in fp32, to
1e-4); else one pass without gradient before the first optimizer step makes them. A row that has them recorded, for
its value or because it was sampled in an earlier step, keeps those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.batches import Batch
from engine.passes import Budget, old_pass, padded, unpadded
from engine.policy import Policy
from engine.rollout import Row
from engine.scorer import Scores

SAMPLER_GAP = 1e-4
"""Nats a token by which the sampler may differ from training for its log-probabilities to serve."""


@dataclass
class OldLogprobs:
    """l_old of the rows of one update.

    :ivar alone: whether the update makes one optimizer step, so that nobody asks again.
    """

    policy: Policy
    budget: Budget
    safe_point: Callable[[], None]
    alone: bool
    _taken: list[tuple[Row, list[float]]] = field(default_factory=list)

    def of(self, rows: Sequence[Row], batch: Batch, scores: Scores, *, unmoved: bool) -> Tensor:
        """l_old [rows, T] of a micro-batch.

        :param scores: of its forward pass.
        :param unmoved: whether no optimizer step precedes that.
        """
        own = [unmoved and not row.group.late and not row.recorded_old for row in rows]
        old = own_or_recorded(rows, batch, scores, own)
        if any(own) and not self.alone:
            for row, logprobs, its_own in zip(rows, unpadded(scores.logprobs.detach(), rows), own, strict=True):
                if its_own:
                    self._taken.append((row, logprobs))
        return old

    def forget(self) -> None:
        """The forward passes since the last optimizer step do not count."""
        self._taken.clear()

    def before_moving(self, later: Sequence[Row]) -> None:
        """Record what the first minibatch said, and see to the rows of later ones."""
        if self.alone:
            return
        gaps = [abs(a - b) for row, old in self._taken for a, b in zip(old, row.response.logprobs, strict=True)]
        for row, old in self._taken:
            row.record_old(old)
        sampler_serves = (
            "sampler_logprobs" in self.policy.shortcuts
            and not self.policy.bf16
            and bool(gaps)
            and max(gaps) < SAMPLER_GAP
        )
        waiting = {(id(r.group), r.place): r for r in later if r.group.own and not r.group.late and not r.recorded_old}
        if waiting and not sampler_serves:
            old_pass(self.policy, list(waiting.values()), self.budget, self.safe_point)


def own_or_recorded(rows: Sequence[Row], batch: Batch, scores: Scores, own: Sequence[bool]) -> Tensor:
    """l_old [rows, T]: the forward pass's own for some rows, what is recorded for the others."""
    if all(own):
        return scores.logprobs.detach()
    recorded = padded([row.old for row in rows], batch.mask)
    return torch.where(torch.tensor(own, device=recorded.device)[:, None], scores.logprobs.detach(), recorded)
