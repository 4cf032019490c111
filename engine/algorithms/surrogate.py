r"""What GRPO and PPO share: importance ratios, the clipped surrogate, and how token values become one number.

.. math::
    \rho_t = \exp(l_t - l^\mathrm{old}_t), \qquad
    L_t = \min\big(\rho_t A_t,\ \mathrm{clip}(\rho_t, 1-\epsilon_l, 1+\epsilon_h) A_t\big)

Source: PPO (arXiv 1707.06347) equation 7; two bounds: DAPO (arXiv 2503.14476); sequence ratios: GSPO (arXiv
2507.18071).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.divergences import LOG_RATIO_LIMIT


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


def importance_ratio(logprobs: Tensor, old: Tensor, mask: Tensor, level: str = "token") -> Tensor:
    r"""rho [rows, T], 1 where masked; masked before exp, so that padding can make no NaN gradient.

    :param level: ``token``: exp(l - l_old) of each token; ``sequence``: every token of a row has
        :math:`\exp\big(\frac{1}{|o|} \sum_t (l_t - l^\mathrm{old}_t)\big)`, with its gradient.
    """
    log_ratio = torch.where(mask, logprobs - old, 0.0)
    if level == "sequence":
        mean = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        log_ratio = torch.where(mask, mean.expand_as(log_ratio), 0.0)
    elif level != "token":
        raise ValueError(f"ratio level {level!r} is not token or sequence")
    return log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def clipped_surrogate(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) [rows, T], to be maximised."""
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)


def clipped(
    ratio: Tensor, advantages: Tensor, mask: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """Where the low and where the high bound takes the gradient away [rows, T]."""
    low = mask & (ratio < 1 - clip_low) & (advantages < 0)
    high = mask & (ratio > 1 + clip_high) & (advantages > 0)
    return low, high
