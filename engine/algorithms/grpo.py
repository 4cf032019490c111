r"""GRPO: group relative policy optimization.

For a prompt q and its group of responses :math:`o_1 .. o_G` sampled from the old policy, maximise

.. math::
    \frac1G \sum_i \frac1{|o_i|} \sum_t \Big\{
        \min\big(\rho_{i,t} A_{i,t},\ \mathrm{clip}(\rho_{i,t}, 1-\epsilon_l, 1+\epsilon_h) A_{i,t}\big)
        - \beta\, D_{i,t} \Big\},
    \qquad \rho_{i,t} = \exp(l_{i,t} - l^\mathrm{old}_{i,t})

with A from :func:`engine.advantages.group_relative_advantages` and D an estimate of the divergence from the
reference. There is no value model: the group's mean is the baseline.

Source: DeepSeekMath (arXiv 2402.03300) equation 3; clip-higher and token aggregation: DAPO (arXiv 2503.14476);
constant aggregation: Dr. GRPO (arXiv 2503.20783).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.divergences import LOG_RATIO_LIMIT, divergence


@dataclass(frozen=True, slots=True)
class Denominators:
    """What token losses are divided by: counts over the whole minibatch, on all ranks, dead groups included.

    :ivar responses: responses in the minibatch.
    :ivar tokens: their response tokens.
    :ivar max_new_tokens: the configured limit, for ``constant``.
    """

    responses: int
    tokens: int
    max_new_tokens: int


def aggregate(values: Tensor, mask: Tensor, aggregation: str, over: Denominators) -> Tensor:
    """One number from token values [rows, T]; a micro-batch gives its share of the minibatch's number.

    :param aggregation: ``response``: mean over tokens, then over responses, a fully masked response counting 0;
        ``token``: sum over all tokens of the minibatch; ``constant``: sum over responses x max_new_tokens.
    """
    values = torch.where(mask, values, 0.0)
    if aggregation == "response":
        per_response = values.sum(1) / mask.sum(1).clamp(min=1)
        return per_response.sum() / max(over.responses, 1)
    if aggregation == "token":
        return values.sum() / max(over.tokens, 1)
    if aggregation == "constant":
        return values.sum() / max(over.responses * over.max_new_tokens, 1)
    raise ValueError(f"aggregation {aggregation!r} is not response, token or constant")


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of a micro-batch and its parts; sums are over its response tokens, to be divided at the end.

    :ivar total: scalar with gradient, to minimise.
    :ivar policy: the surrogate's part of it.
    :ivar kl: the divergence's part of it.
    :ivar ratio: rho [rows, T], 1 where masked.
    """

    total: Tensor
    policy: Tensor
    kl: Tensor
    ratio: Tensor
    clipped_low: Tensor
    clipped_high: Tensor


def importance_ratio(logprobs: Tensor, old: Tensor, mask: Tensor) -> Tensor:
    """rho = exp(l - l_old) [rows, T]; masked before exp, so that padding can make no NaN gradient."""
    log_ratio = torch.where(mask, logprobs - old, 0.0)
    return log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def loss(
    logprobs: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    over: Denominators,
    *,
    clip_low: float,
    clip_high: float,
    aggregation: str = "response",
    reference: Tensor | None = None,
    kl_coefficient: float = 0.0,
    kl_estimator: str = "k3",
) -> Loss:
    """The negated objective on a micro-batch.

    :param logprobs: l [rows, T] of the sampled tokens, with gradient.
    :param old: l_old [rows, T].
    :param advantages: A [rows, T].
    :param mask: m [rows, T], true on response tokens up to and including the first end token.
    :param reference: l_ref [rows, T]; None leaves the divergence out.
    """
    ratio = importance_ratio(logprobs, old, mask)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages)
    policy = -aggregate(surrogate, mask, aggregation, over)
    kl = torch.zeros_like(policy)
    if reference is not None and kl_coefficient > 0:
        estimate = divergence(kl_estimator, torch.where(mask, logprobs, 0.0), torch.where(mask, reference, 0.0), ratio)
        kl = kl_coefficient * aggregate(estimate, mask, aggregation, over)
    low = mask & (ratio < 1 - clip_low) & (advantages < 0)
    high = mask & (ratio > 1 + clip_high) & (advantages > 0)
    return Loss(policy + kl, policy, kl, ratio, low, high)
