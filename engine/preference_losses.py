r"""What reward models are trained by: losses of scores that should stand in a known order.

Everything is in fp32 and works on any leading dimensions, such as heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

CENTERING = 0.01
MOST_TIED = 10
"""Responses of a tier over which orders are averaged: the work doubles with each."""


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    r"""The loss of pairs,

    .. math:: L = -\log \sigma(r_w - r_l - m) .

    Sources: Bradley and Terry (1952); the margin: Touvron et al. (2023), Llama 2, equation 2.

    :param chosen: [...], the scores of the better ones.
    :param rejected: [...].
    :param margin: [...], m: 0 or what a better one should be above the other.
    :returns: [...], nats.
    """
    return F.softplus(rejected.float() - chosen.float() + margin)


def plackett_luce(scores: Tensor, tiers: Sequence[int], ties: str = "skip") -> Tensor:
    r"""The loss of a ranking in tiers :math:`T_1 > T_2 > \dots`.

    ``skip``: a tied response should beat what is below it, and is not compared with its ties,

    .. math:: L = -\sum_k \sum_{i \in T_k} \Big[ r_i - \mathrm{logsumexp}(\{r_i\} \cup \{r_j : j \in T_{k+1}, \dots\})
              \Big] ,

    which without ties is Plackett-Luce; two tied responses alone give 0. ``average``: the mean of Plackett-Luce over
    all orders of the tied ones. Of the responses of a tier that are left when some have been placed, each set of a
    size is as likely as any other, so with :math:`\Lambda_k` the lower tiers it is exactly

    .. math:: L = \sum_k \Big[ \sum_{s=1}^{|T_k|} \operatorname{mean}_{S \subseteq T_k, |S| = s}
              \mathrm{logsumexp}(S \cup \Lambda_k) - \sum_{i \in T_k} r_i \Big] .

    Two responses in an order are Bradley-Terry. Sources: Plackett (1975); Luce (1959).

    :param scores: [..., K], best tier first.
    :param tiers: how many responses each tier has; K in all.
    :returns: [...], nats.
    :raises ValueError: if the tiers are not K responses, or one that is averaged has over :data:`MOST_TIED`.
    """
    if sum(tiers) != scores.shape[-1] or min(tiers, default=0) < 1:
        raise ValueError(f"tiers of {list(tiers)} responses do not make up {scores.shape[-1]}")
    if ties not in {"skip", "average"}:
        raise ValueError(f"ties are 'skip' or 'average', not {ties!r}")
    scores = scores.float()
    loss = torch.zeros(scores.shape[:-1], device=scores.device)
    start = 0
    for size in tiers:
        end = start + size
        own = scores[..., start:end]
        below = scores[..., end:].logsumexp(-1, keepdim=True) if end < scores.shape[-1] else None
        if ties == "average" and size > 1:
            loss = loss + _averaged(own, below)
        elif below is not None:
            loss = loss + F.softplus(below - own).sum(-1)
        start = end
    return loss


def _averaged(own: Tensor, below: Tensor | None) -> Tensor:
    """A tier's share [...] of the mean over its orders; ``below`` [..., 1] is the logsumexp of the lower tiers."""
    size = own.shape[-1]
    if size > MOST_TIED:
        raise ValueError(f"{size} tied responses are too many to average over; at most {MOST_TIED}, or skip ties")
    loss = -own.sum(-1)
    for count in range(1, size + 1):
        sets = torch.tensor(list(combinations(range(size), count)), device=own.device)
        left = own[..., sets]  # [..., sets, count]
        if below is not None:
            left = torch.cat([left, below[..., None].expand(*left.shape[:-1], 1)], -1)
        loss = loss + left.logsumexp(-1).mean(-1)
    return loss


def centering(scores: Tensor) -> Tensor:
    r"""What keeps scores near 0, where nothing else decides their level: :math:`(2 \bar r)^2` with the mean over the K
    responses of an ordering. For a pair that is :math:`(r_w + r_l)^2`, and no ranking weighs more for its length.

    Source: Eisenstein et al. (2023), Helping or Herding?

    :param scores: [..., K].
    :returns: [...], to be multiplied by a coefficient such as :data:`CENTERING`.
    """
    return (2 * scores.float().mean(-1)) ** 2
