r"""The policy before a TRPO step: its parameters to go back to, and its distributions to measure the KL from.

The distribution at every response token is kept as the state that the output layer reads, and the layer's old weights;
logits are made again a few at a time. Where a model does more to its logits than that, the log-probabilities
themselves are kept.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.batches import Batch
from engine.policy import Policy
from engine.precision import wide
from engine.scorer import Scores

HEAD_ERROR = 1e-3
"""Nats by which logits made again from the kept states may differ from the model's own."""


class OldPolicy:
    """The policy as it is now, and what it says of some micro-batches.

    :param batches: of this process; more can be added with :meth:`keep`.
    :ivar size: norm of the trainable parameters.
    """

    def __init__(self, policy: Policy, batches: Sequence[Batch] = ()) -> None:
        self._policy = policy
        self.parameters = [p.detach().clone() for p in policy.parameters]
        self.size = float(torch.stack([p.norm() for p in self.parameters]).norm())
        kept = {id(p): old for p, old in zip(policy.parameters, self.parameters, strict=True)}
        self._head = _OldHead(policy, kept)
        self._begin(batches)

    def _begin(self, batches: Sequence[Batch]) -> None:
        self._batches: list[Batch] = []
        self._states: list[Tensor] = []
        self._exact = True
        for batch in batches:
            self.keep(batch, self._scores(batch))

    def on(self, batches: Sequence[Batch]) -> OldPolicy:
        """The same policy on other micro-batches; its parameters are shared. Only while they are in place."""
        other = copy.copy(self)
        other._begin(batches)
        return other

    def keep(self, batch: Batch, scores: Scores) -> None:
        """Add a micro-batch.

        :param scores: of this policy on it, with logits.
        """
        assert scores.logits is not None
        assert scores.hidden is not None
        hidden, logits = scores.hidden.detach(), scores.logits.detach()
        if self._exact and not self._head.explains(hidden, logits, batch):
            self._exact = False  # from the first batch on: all of them are kept in one form
            self._states = [self._log_probabilities(self._scores(earlier)) for earlier in self._batches]
        self._batches.append(batch)
        self._states.append(hidden.clone() if self._exact else self._log_probabilities(scores))

    @torch.no_grad()
    def _scores(self, batch: Batch) -> Scores:
        return self._policy.full_precision_scorer(batch, keep_hidden=True, keep_logits=True)

    @staticmethod
    def _log_probabilities(scores: Scores) -> Tensor:
        assert scores.logits is not None
        return scores.logits.detach().log_softmax(-1)

    def log_probabilities(self, index: int) -> Tensor:
        """log p_old [rows, T, V] of a micro-batch."""
        if not self._exact:
            return self._states[index]
        temperature = self._batches[index].temperature[:, None, None]
        return (self._head.logits(self._states[index]) / temperature).log_softmax(-1)

    # ------------------------------------------------------------------------------------------ parameters

    @contextlib.contextmanager
    def moved(self, v: Tensor, by: float) -> Iterator[None]:
        """The policy at old + by * v [n]; the old one again afterwards, bit for bit."""
        try:
            self.place(v, by)
            yield
        finally:
            self.restore()

    def place(self, v: Tensor, by: float) -> None:
        """Put the policy's parameters at old + by * v [n]."""
        sizes = [p.numel() for p in self.parameters]
        with torch.no_grad():
            for p, old, part in zip(self._policy.parameters, self.parameters, v.split(sizes), strict=True):
                p.copy_(old + by * part.view_as(old))

    def restore(self) -> None:
        """Put the old parameters back, bit for bit."""
        with torch.no_grad():
            for p, old in zip(self._policy.parameters, self.parameters, strict=True):
                p.copy_(old)

    # --------------------------------------------------------------------------------------- the divergence

    @torch.no_grad()
    def kl(self, tokens: int) -> Tensor:
        """This process's share of the mean KL(old, new) over the whole vocabulary, nats a token; scalar."""
        total = torch.zeros((), dtype=wide(self._policy.device), device=self._policy.device)
        for index in range(len(self._batches)):
            total += self._kl(index)
        return total / tokens

    def kl_gradient(self, tokens: int) -> Tensor:
        """The gradient [n] of that mean at the policy's present parameters."""
        gradient = torch.zeros(sum(p.numel() for p in self.parameters), device=self._policy.device)
        for index in range(len(self._batches)):
            with torch.enable_grad():
                parts = torch.autograd.grad(self._kl(index) / tokens, self._policy.parameters, allow_unused=True)
            flat = [torch.zeros_like(p) if g is None else g for g, p in zip(parts, self.parameters, strict=True)]
            gradient += torch.cat([g.reshape(-1) for g in flat])
        return gradient

    def _kl(self, index: int) -> Tensor:
        """The sum of KL(old, new) over the tokens of a micro-batch, with gradient where gradients are on."""
        logits = self._policy.full_precision_scorer(self._batches[index], keep_logits=True).logits
        assert logits is not None
        return self.kl_of(index, logits)

    def kl_of(self, index: int, logits: Tensor) -> Tensor:
        """The same from the new policy's tempered logits [rows, T, V]."""
        old = self.log_probabilities(index)
        each = (old.exp() * (old - logits.log_softmax(-1))).sum(-1)
        return torch.where(self._batches[index].mask, each, 0.0).sum()


class _OldHead:
    """The output layer's weights as they were.

    :param kept: id of a trainable parameter -> its old value; one that does not train is still what it was.
    """

    def __init__(self, policy: Policy, kept: Mapping[int, Tensor]) -> None:
        head = policy.model.get_output_embeddings()
        self._weight: Tensor = kept.get(id(head.weight), head.weight.detach())
        bias = getattr(head, "bias", None)
        self._bias: Tensor | None = None if bias is None else kept.get(id(bias), bias.detach())

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden.float(), self._weight.float(), self._bias)

    def explains(self, hidden: Tensor, logits: Tensor, batch: Batch) -> bool:
        """Whether the layer alone makes the model's tempered logits."""
        if hidden.shape[-1] != self._weight.shape[-1]:
            return False
        again = self.logits(hidden) / batch.temperature[:, None, None]
        return bool((again - logits).abs()[batch.mask].max() < HEAD_ERROR)
