"""Passes without gradient over the rows of a rollout: log-probabilities and values as they are before an update."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from engine.policy import Batch, Policy, make_batch
from engine.rollout import RolloutGroup, Row, micro_batches
from engine.value_model import ValueModel

LOGITS_LIMIT = 2**27
"""Most response tokens x vocabulary in one forward: half a gigabyte of fp32 logits."""


def batch_of(policy: Policy, rows: Sequence[Row]) -> Batch:
    """Rows as a padded batch."""
    return make_batch(
        [row.prompt for row in rows],
        [row.response.tokens for row in rows],
        [row.group.record.temperature for row in rows],
        policy.pad,
        policy.device,
    )


def padded(values: Sequence[Sequence[float]], mask: Tensor) -> Tensor:
    """Rows of numbers as a tensor of the mask's shape, 0 beyond their ends."""
    result = torch.zeros(mask.shape, dtype=torch.float32)
    for i, row in enumerate(values):
        result[i, : len(row)] = torch.tensor(row)
    return result.to(mask.device)


def score(policy: Policy, scorer: nn.Module, rows: Sequence[Row]) -> list[list[float]]:
    """Log-probabilities of each row's response tokens under a scorer, without gradient."""
    with policy.inference():
        logprobs = scorer(batch_of(policy, rows)).logprobs
    return unpadded(logprobs, rows)


def unpadded(values: Tensor, rows: Sequence[Row]) -> list[list[float]]:
    """Values [rows, T] as one list a row, its real tokens only."""
    return [values[i, : len(row.response.tokens)].tolist() for i, row in enumerate(rows)]


def old_pass(
    policy: Policy,
    groups: Sequence[RolloutGroup],
    micro_tokens: int,
    safe_point: Callable[[], None],
    value_model: ValueModel | None = None,
) -> None:
    """Write l_old into the fresh groups of this process, with the kernels of training, and V into all of them.

    A late group keeps the log-probabilities that it was sampled with.
    """
    own = [group for group in groups if group.own]
    for group in own:
        group.values = [[] for _ in group.record.responses] if value_model else []
        if not group.late:
            group.old_logprobs = [[] for _ in group.record.responses]
    rows = [row for group in own if value_model or not group.late for row in group.rows()]
    for part in micro_batches(rows, micro_tokens, LOGITS_LIMIT, policy.vocabulary):
        safe_point()
        batch = batch_of(policy, part)
        with policy.inference():
            scores = policy.plain_scorer(batch)
            values = value_model.estimate(batch, scores) if value_model else None
        estimates = unpadded(values, part) if values is not None else [[] for _ in part]
        for row, old, estimated in zip(part, unpadded(scores.logprobs, part), estimates, strict=True):
            if not row.group.late:
                row.group.old_logprobs[row.place] = old
            if value_model:
                row.group.values[row.place] = estimated
