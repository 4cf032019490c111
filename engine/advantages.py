"""Advantages: how much better a response was than expected. Pure functions, tensors in, tensors out."""

from __future__ import annotations

import torch
from torch import Tensor

DEAD_STD = 1e-6
"""A group whose rewards spread less than this teaches nothing."""
GROUP_EPSILON = 1e-4
"""Added to the standard deviation, as TRL does: it keeps rounding noise from becoming an advantage."""


def group_relative_advantages(rewards: Tensor, scale: str = "group") -> tuple[Tensor, Tensor]:
    r"""Group-relative advantages of GRPO, outcome supervision.

    .. math:: A_i = \frac{r_i - \mathrm{mean}(r)}{\mathrm{std}(r) + 10^{-4}}

    with mean and standard deviation (ddof 1) over the scored responses of the group.

    :param rewards: [groups, G]; NaN marks a response without a reward, which is left out and gets 0.
    :param scale: ``group``; ``batch``: one standard deviation over all scored responses, still minus the group's
        mean; ``none``: no division (Dr. GRPO).
    :returns: advantages [groups, G] and dead [groups]: true for groups with fewer than two scored responses or a
        standard deviation under 1e-6, whose advantages are exactly 0.

    Source: DeepSeekMath (arXiv 2402.03300) section 4.1.2; Dr. GRPO (arXiv 2503.20783).
    """
    scored = ~rewards.isnan()
    count = scored.sum(1)
    filled = torch.where(scored, rewards, 0.0)
    mean = filled.sum(1) / count.clamp(min=1)
    centred = torch.where(scored, rewards - mean[:, None], 0.0)
    std = (centred.square().sum(1) / (count - 1).clamp(min=1)).sqrt()
    dead = (count < 2) | (std < DEAD_STD)
    if scale == "group":
        advantages = centred / (std + GROUP_EPSILON)[:, None]
    elif scale == "batch":
        total = scored.sum()
        overall = filled.sum() / total.clamp(min=1)
        spread = torch.where(scored, rewards - overall, 0.0).square().sum() / (total - 1).clamp(min=1)
        advantages = centred / (spread.sqrt() + GROUP_EPSILON)
    elif scale == "none":
        advantages = centred
    else:
        raise ValueError(f"scale {scale!r} is not group, batch or none")
    return torch.where(dead[:, None], 0.0, advantages), dead
