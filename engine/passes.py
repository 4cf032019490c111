"""Rows of a rollout as micro-batches for a policy, and passes without gradient over them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from engine.batches import Batch, Sized, fits, make_batch, pack_batch, packed_micro_batches, padded_micro_batches
from engine.policy import Policy
from engine.rollout import RolloutGroup, Row
from engine.value_model import ValueModel

LOGITS_LIMIT = 2**27
"""Most response tokens x vocabulary in one forward that holds its logits: half a gigabyte of fp32."""
KEPT_LIMIT = LOGITS_LIMIT // 4
"""The same where logits are handed on, and others are made of them."""

_S = TypeVar("_S", bound=Sized)
_T = TypeVar("_T")


def micro_batches(policy: Policy, rows: Sequence[_S], tokens: int, *, keeps_logits: bool = False) -> Iterator[list[_S]]:
    """Cut rows into sets that fit in memory; it never changes a result, because denominators are the minibatch's.

    :param tokens: most tokens that a set may hold as a batch, padding included.
    :param keeps_logits: whether the logits of a set will be asked for.
    """
    limit = KEPT_LIMIT if keeps_logits else None if policy.chunks_logits else LOGITS_LIMIT
    cut = packed_micro_batches if policy.packs else padded_micro_batches
    return cut(rows, tokens, None if limit is None else limit // policy.vocabulary)


def batch_of(policy: Policy, rows: Sequence[Row]) -> Batch:
    """Rows as the batch that the policy is trained on."""
    make = pack_batch if policy.packs and all(map(fits, rows)) else make_batch
    return make(
        [row.prompt for row in rows],
        [row.tokens for row in rows],
        [row.temperature for row in rows],
        policy.pad,
        policy.device,
    )


class Budget:
    """How many tokens a forward and backward pass may hold: halved whenever memory does not suffice.

    :ivar tokens: prompt and response tokens, padding included.
    :ivar on_halved: told what happened, in words.
    :ivar release: called before another try, to give back what can be made again.
    """

    LEAST = 16

    def __init__(self, tokens: int, *, shared: bool = False) -> None:
        """:param shared: whether other processes wait for this one, so that it may not try again by itself."""
        self.tokens = tokens
        self._shared = shared
        self.on_halved: Callable[[str], None] = print
        self.release: Callable[[], None] = lambda: None

    def retry(self, work: Callable[[], _T], undo: Callable[[], None]) -> _T:
        """Do some work; where memory runs out, undo what it did, halve the budget and do it again.

        :raises Exception: what the work raises, where smaller micro-batches would not help.
        """
        while True:
            try:
                return work()
            except Exception as error:
                if not self._may_halve(error):
                    raise
            undo()  # outside the handler: the error's frames hold the tensors that did not fit
            self._halve()

    def each(
        self, policy: Policy, rows: Sequence[_S], work: Callable[[list[_S]], None], *, keeps_logits: bool = False
    ) -> None:
        """Call ``work``, which leaves nothing behind when it fails, with every micro-batch of the rows.

        One that does not fit in memory is cut, and so are those after it.
        """
        left = list(rows)
        done: list[_S] = []

        def parts() -> None:
            for part in micro_batches(policy, left, self.tokens, keeps_logits=keeps_logits):
                work(part)
                done.extend(part)

        def drop_done() -> None:
            finished = set(map(id, done))
            left[:] = [row for row in left if id(row) not in finished]

        self.retry(parts, drop_done)

    def _may_halve(self, error: Exception) -> bool:
        return not self._shared and self.tokens > self.LEAST and should_reduce_batch_size(error)

    def _halve(self) -> None:
        self.tokens //= 2
        self.release()
        gc.collect()
        clear_device_cache()
        self.on_halved(f"out of memory: micro-batches hold at most {self.tokens:,} tokens from here on")


def padded(values: Sequence[Sequence[float]], mask: Tensor) -> Tensor:
    """Rows of numbers as a tensor of the mask's shape, 0 beyond their ends."""
    length = mask.shape[1]
    whole = [[*row, *[0.0] * (length - len(row))] for row in values]
    return torch.tensor(whole, dtype=torch.float32).to(mask.device)


def score(policy: Policy, scorer: nn.Module, rows: Sequence[Row]) -> list[list[float]]:
    """Log-probabilities of each row's response tokens under a scorer, without gradient."""
    with policy.inference():
        logprobs = scorer(batch_of(policy, rows)).logprobs
    return unpadded(logprobs, rows)


def unpadded(values: Tensor, rows: Sequence[Row]) -> list[list[float]]:
    """Values [rows, T] as one list a row, its real tokens only."""
    return [row[: len(r.tokens)] for row, r in zip(values.tolist(), rows, strict=True)]


def old_pass(policy: Policy, rows: Sequence[Row], budget: Budget, safe_point: Callable[[], None]) -> None:
    """Write l_old of the unmoved policy into rows, with the kernels of training."""

    def write(part: list[Row]) -> None:
        safe_point()
        for row, old in zip(part, score(policy, policy.plain_scorer, part), strict=True):
            row.record_old(old)

    budget.each(policy, rows, write)


def value_pass(
    policy: Policy,
    groups: Sequence[RolloutGroup],
    budget: Budget,
    safe_point: Callable[[], None],
    value_model: ValueModel,
    *,
    needs_old: bool,
) -> None:
    """Write V into the groups of this process, and l_old into the fresh ones, as both are before an update.

    A late group keeps the log-probabilities that it was sampled with.

    :param needs_old: whether l_old is wanted even if V can be had without it.
    """
    own = [group for group in groups if group.own]
    for group in own:
        group.values = [[] for _ in group.record.responses]
    reads_policy = needs_old or value_model.trunk is None

    def write(part: list[Row]) -> None:
        safe_point()
        batch = batch_of(policy, part)
        with policy.inference():
            scores = policy.plain_scorer(batch, keep_hidden=True) if reads_policy else None
            values = value_model.estimate(batch, scores)
        for row, estimated in zip(part, unpadded(values, part), strict=True):
            row.group.values[row.place] = estimated
        if scores is not None:
            for row, old in zip(part, unpadded(scores.logprobs, part), strict=True):
                if not row.group.late:
                    row.record_old(old)

    budget.each(policy, [row for group in own for row in group.rows()], write)
