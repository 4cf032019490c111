r"""PPO: proximal policy optimization with a value model, for responses that are scored at their end.

Every token is an action with a reward of its own: the divergence from the reference, and the score on the last one,

.. math:: r_t = -\beta\,(l^\mathrm{old}_t - l^\mathrm{ref}_t) + [t = |o|]\ \mathrm{score}

Advantages come from :func:`engine.advantages.generalised_advantages`, whitened over all tokens of the rollout. The
policy maximises the clipped surrogate of :mod:`engine.algorithms.surrogate`, the mean over tokens; beside it the value
model minimises

.. math::
    \tfrac12\, \mathrm{mean}_t \max\big((V_t - R_t)^2,\
    (\mathrm{clip}(V_t, V^\mathrm{old}_t \pm \epsilon_V) - R_t)^2\big)

Source: Schulman et al. (arXiv 1707.06347); for language models Ziegler et al. (arXiv 1909.08593) and Stiennon et al.
(arXiv 2009.01325).
"""

from __future__ import annotations

import torch
from torch import Tensor

KL_HORIZON = 10_000
"""Responses over which the adaptive coefficient moves by its whole error."""
KL_ERROR_LIMIT = 0.2


def token_rewards(scores: Tensor, old: Tensor, reference: Tensor | None, mask: Tensor, kl_coefficient: float) -> Tensor:
    """r_t [rows, T]: the divergence on every token and the score once, on the last one (the end token).

    :param scores: [rows], of whole responses.
    :param old: l_old [rows, T].
    :param reference: l_ref [rows, T]; None leaves the divergence out.
    :param mask: [rows, T], true on response tokens, which come first in a row; each row has at least one.
    """
    rewards = torch.zeros_like(old)
    if reference is not None and kl_coefficient > 0:
        rewards = torch.where(mask, -kl_coefficient * (old - reference), 0.0)
    last = mask.sum(1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores[:, None].to(rewards.dtype))


def value_loss(
    values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, tokens: int, value_clip: float
) -> tuple[Tensor, Tensor]:
    """Half the mean squared error of the values, the larger of the plain and the clipped one at each token.

    :param values: V [rows, T], with gradient.
    :param old: V_old [rows, T], before the update.
    :param returns: R [rows, T].
    :param tokens: of the whole minibatch, on all ranks: a micro-batch gives its share of the mean.
    :param value_clip: how far V may move from V_old; 0: no clipping.
    :returns: the loss, and where clipping took the gradient away [rows, T].
    """
    values, old, returns = (torch.where(mask, x, 0.0) for x in (values, old, returns))
    error = (values - returns).square()
    lost = torch.zeros_like(mask)
    if value_clip > 0:
        near = values.clamp(old - value_clip, old + value_clip)  # inside, exactly V: no rounding that looks lost
        held = (near - returns).square()
        lost = mask & (held > error)
        error = torch.maximum(error, held)
    return 0.5 * torch.where(mask, error, 0.0).sum() / max(tokens, 1), lost


def explained_variance(values: Tensor, returns: Tensor) -> float | None:
    """1 - Var(R - V) / Var(R) over real tokens [n]; None where the returns do not vary."""
    if returns.numel() < 2:
        return None
    spread = (returns - returns[0]).var()  # exactly 0 where all are equal, in any precision
    return float(1 - (returns - values).var() / spread) if spread > 0 else None


def adapted_coefficient(kl_coefficient: float, kl: float, target: float, responses: int) -> float:
    """The coefficient that brings the divergence nearer to its target.

    ``error = clip(KL / target - 1, -0.2, 0.2)``, ``beta <- beta (1 + error * responses / 10000)``

    :param kl: from the reference, nats a token.
    :param responses: of the rollout.
    """
    error = min(max(kl / target - 1, -KL_ERROR_LIMIT), KL_ERROR_LIMIT)
    return kl_coefficient * (1 + error * responses / KL_HORIZON)
