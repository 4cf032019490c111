"""The reference: the policy's frozen weights at the start of RL; of adapters theirs, on the base that they share.

They are those of checkpoint 0, loaded from there when first needed and never read again from a model's name; with
``reference_refresh_steps`` the present policy takes their place every so often (iterative GRPO).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.batches import Batch
from engine.divergences import full_kl, k1, k2, k3
from engine.passes import Budget, batch_of, score
from engine.policy import Policy
from engine.rollout import RolloutGroup, Row
from engine.scorer import TokenScorer
from engine.tally import Tally


class Reference:
    """A frozen scorer, made when first needed.

    :param first_weights: reads the weights of checkpoint 0.
    :ivar refreshed: the step whose policy it is; 0: the start of RL.
    """

    def __init__(self, policy: Policy, first_weights: Callable[[], dict[str, Tensor]]) -> None:
        self._policy = policy
        self._first_weights = first_weights
        self._scorer: TokenScorer | None = None
        self.refreshed = 0

    def _loaded(self) -> TokenScorer:
        if self._scorer is None:
            self._scorer = self._policy.make_reference(self._first_weights())
        return self._scorer

    @property
    def loaded(self) -> bool:
        """Whether its weights are in memory."""
        return self._scorer is not None

    def refresh(self, step: int) -> None:
        """Take the present policy's weights."""
        self._scorer = self._policy.make_reference()
        self.refreshed = step

    def begin_again(self) -> None:
        """Be the start of RL again."""
        if self.refreshed:
            self._scorer, self.refreshed = None, 0

    def weights(self) -> dict[str, Tensor]:
        """The weights of a refreshed reference, for a checkpoint."""
        return self._policy.weights(self._loaded().model)

    def load(self, weights: dict[str, Tensor], refreshed: int) -> None:
        """Take the weights of a checkpoint."""
        self._scorer = self._policy.make_reference(weights)
        self.refreshed = refreshed

    def score(self, groups: Sequence[RolloutGroup], budget: Budget, safe_point: Callable[[], None]) -> None:
        """Write l_ref into every response that this process holds and that has none yet."""
        rows = [r for g in groups if g.own for r in g.rows() if not r.response.reference_logprobs]
        if not rows:
            return
        scorer = self._loaded()

        def write(part: list[Row]) -> None:
            safe_point()
            for row, values in zip(part, score(self._policy, scorer, part), strict=True):
                row.response.reference_logprobs = values

        budget.each(self._policy, rows, write)

    def logits(self, batch: Batch) -> Tensor:
        """The reference's tempered logits [rows, T, V] on a batch, without gradient."""
        with self._policy.inference():
            logits = self._loaded()(batch, keep_logits=True).logits
        assert logits is not None
        return logits

    def measure_full(
        self, groups: Sequence[RolloutGroup], budget: Budget, safe_point: Callable[[], None], tally: Tally
    ) -> None:
        """Add the exact KL(policy, reference) over all tokens of the fresh groups; a forward pass of both."""
        rows = [r for g in groups if g.own and not g.late for r in g.rows()]

        def add(part: list[Row]) -> None:
            safe_point()
            batch = batch_of(self._policy, part)
            with self._policy.inference():
                logits = self._policy.plain_scorer(batch, keep_logits=True).logits
            assert logits is not None
            tally.mean("kl/full", full_kl(logits, self.logits(batch)), batch.mask)

        budget.each(self._policy, rows, add, keeps_logits=True)


def tally_divergence(groups: Sequence[RolloutGroup], tally: Tally) -> None:
    """Add k1, k2 and k3 to the reference over all tokens of the fresh groups, and keep each response's mean k3."""
    for group in groups:
        if group.late or not group.own:
            continue
        for row in group.rows():
            response = row.response
            if not response.reference_logprobs:
                continue
            policy, reference = torch.tensor(row.old), torch.tensor(response.reference_logprobs)
            every = torch.ones_like(policy, dtype=torch.bool)
            for name, estimator in (("kl/k1", k1), ("kl/k2", k2), ("kl/k3", k3)):
                tally.mean(name, estimator(policy, reference), every)
            response.kl = float(k3(policy, reference).mean())
