r"""GRPO: group relative policy optimization.

For a prompt q and its group of responses :math:`o_1 .. o_G` sampled from the old policy, maximise

.. math::
    \frac1G \sum_i \frac1{|o_i|} \sum_t \Big\{
        \min\big(\rho_{i,t} A_{i,t},\ \mathrm{clip}(\rho_{i,t}, 1-\epsilon_l, 1+\epsilon_h) A_{i,t}\big)
        - \beta\, D_{i,t} + c\, H_{i,t} \Big\},
    \qquad \rho_{i,t} = \exp(l_{i,t} - l^\mathrm{old}_{i,t})

with A from :func:`engine.advantages.group_relative_advantages`, D the divergence from the reference
(:mod:`engine.divergences`) and H the entropy. There is no value model: the group's mean is the baseline.

Source: DeepSeekMath (arXiv 2402.03300) equation 3; clip-higher and token aggregation: DAPO (arXiv 2503.14476);
constant aggregation: Dr. GRPO (arXiv 2503.20783); sequence ratios: GSPO (arXiv 2507.18071).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.algorithms.surrogate import Denominators, aggregate, clipped, clipped_surrogate, importance_ratio
from engine.divergences import divergence


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of a micro-batch and its parts: its shares of the minibatch's.

    :ivar total: scalar with gradient, to minimise.
    :ivar policy: the surrogate's part of it.
    :ivar kl: the divergence's part of it.
    :ivar ratio: rho [rows, T], 1 where masked.
    :ivar clipped_low: [rows, T], where the low bound took the gradient away.
    """

    total: Tensor
    policy: Tensor
    kl: Tensor
    ratio: Tensor
    clipped_low: Tensor
    clipped_high: Tensor


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
    ratio_level: str = "token",
    reference: Tensor | None = None,
    full: Tensor | None = None,
    kl_coefficient: float = 0.0,
    kl_estimator: str = "k3",
    entropy: Tensor | None = None,
    entropy_bonus: float = 0.0,
) -> Loss:
    """The negated objective on a micro-batch.

    :param logprobs: l [rows, T] of the sampled tokens, with gradient.
    :param old: l_old [rows, T].
    :param advantages: A [rows, T].
    :param mask: m [rows, T], true on response tokens up to and including the first end token.
    :param reference: l_ref [rows, T]; None leaves the divergence out.
    :param full: KL(policy, reference) [rows, T] with gradient, which ``kl_estimator`` full takes for D.
    :param entropy: H [rows, T], with gradient where the bonus is not 0.
    """
    ratio = importance_ratio(logprobs, old, mask, ratio_level)
    surrogate = clipped_surrogate(ratio, advantages, clip_low, clip_high)
    policy = -aggregate(surrogate, mask, aggregation, over)
    kl = torch.zeros_like(policy)
    if kl_coefficient > 0 and (full is not None or reference is not None):
        if kl_estimator == "full":
            if full is None:
                raise ValueError("kl_estimator full needs the divergence over the whole vocabulary")
            estimate = full
        else:
            if reference is None:
                raise ValueError(f"kl_estimator {kl_estimator} needs the reference's log-probabilities")
            token_ratio = importance_ratio(logprobs, old, mask)  # the estimators are of tokens, at any ratio level
            estimate = divergence(
                kl_estimator, torch.where(mask, logprobs, 0.0), torch.where(mask, reference, 0.0), token_ratio
            )
        kl = kl_coefficient * aggregate(estimate, mask, aggregation, over)
    total = policy + kl
    if entropy is not None and entropy_bonus > 0:
        total = total - entropy_bonus * aggregate(entropy, mask, aggregation, over)
    low, high = clipped(ratio, advantages, mask, clip_low, clip_high)
    return Loss(total, policy, kl, ratio, low, high)
