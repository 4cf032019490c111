"""Advantages: how much better a response was than expected. Pure functions, tensors in, tensors out."""

from __future__ import annotations

import torch
from torch import Tensor

DEAD_STD = 1e-6
"""A group whose rewards spread less than this teaches nothing."""
GROUP_EPSILON = 1e-4
"""Added to the standard deviation, as TRL does: it keeps rounding noise from becoming an advantage."""

WHITENING_EPSILON = 1e-8


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
    # One of the group's rewards comes off first: equal ones then centre to exactly 0, in any precision.
    largest = torch.where(scored, rewards, -torch.inf).amax(1, keepdim=True)
    shifted = torch.where(scored, rewards - largest, 0.0)
    mean = shifted.sum(1) / count.clamp(min=1)
    centred = torch.where(scored, shifted - mean[:, None], 0.0)
    std = (centred.square().sum(1) / (count - 1).clamp(min=1)).sqrt()
    dead = (count < 2) | (std < DEAD_STD)
    if scale == "group":
        advantages = centred / (std + GROUP_EPSILON)[:, None]
    elif scale == "batch":
        total = scored.sum()
        overall = torch.where(scored, rewards, 0.0).sum() / total.clamp(min=1)
        spread = torch.where(scored, rewards - overall, 0.0).square().sum() / (total - 1).clamp(min=1)
        advantages = centred / (spread.sqrt() + GROUP_EPSILON)
    elif scale == "none":
        advantages = centred
    else:
        raise ValueError(f"scale {scale!r} is not group, batch or none")
    return torch.where(dead[:, None], 0.0, advantages), dead


def process_supervised_advantages(step_rewards: Tensor, step_ends: Tensor, length: int) -> Tensor:
    r"""Group-relative advantages of GRPO, process supervision.

    .. math::
        \tilde r_{i,j} = \frac{r_{i,j} - \mathrm{mean}(R)}{\mathrm{std}(R) + 10^{-4}}, \qquad
        A_{i,t} = \sum_{j:\ \mathrm{end}(j) \ge t} \tilde r_{i,j}

    with R all step rewards of the group (standard deviation with ddof 1).

    :param step_rewards: [G, J], one a reasoning step; NaN where a response has fewer steps.
    :param step_ends: [G, J], the place of each step's last token; ignored where the reward is NaN.
    :param length: T, tokens of the longest response.
    :returns: [G, T]; exactly 0 everywhere if fewer than two rewards are there or their standard deviation is under
        1e-6. Places after a response's last step get 0.

    Source: DeepSeekMath (arXiv 2402.03300) section 4.1.3.
    """
    given = ~step_rewards.isnan()
    advantages = step_rewards.new_zeros(step_rewards.shape[0], length)
    if given.sum() < 2:
        return advantages
    shifted = step_rewards - step_rewards[given][0]  # equal rewards then spread by exactly 0, in any precision
    rewards = shifted[given]
    if rewards.std() < DEAD_STD:
        return advantages
    normalised = torch.where(given, (shifted - rewards.mean()) / (rewards.std() + GROUP_EPSILON), 0.0)
    at_end = advantages.scatter_add(1, step_ends.clamp(0, length - 1), normalised)
    return at_end.flip(1).cumsum(1).flip(1)


def discounted_returns(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    r"""Discounted sums of the rewards that are still to come, :math:`R_t = r_t + \gamma R_{t+1}`.

    A response scored 0.8 at its end with gamma 0.9 gives 0.8, 0.72, 0.648, ... going back from its last token: what
    each of its prefixes is worth.

    :param rewards: [rows, T].
    :param mask: [rows, T], true on response tokens, which come first in a row.
    :returns: [rows, T], 0 where the mask is false.
    """
    return generalised_advantages(rewards, torch.zeros_like(rewards), mask, gamma, 1.0)[0]


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    r"""Generalised advantage estimation.

    .. math::
        \delta_t = r_t + \gamma V_{t+1} - V_t, \qquad A_t = \delta_t + \gamma \lambda A_{t+1}, \qquad R_t = A_t + V_t

    The value after the last token is 0, of a truncated response too.

    :param rewards: r [rows, T].
    :param values: V [rows, T]; V_t is the estimate before token t.
    :param mask: [rows, T], true on response tokens, which come first in a row.
    :returns: advantages and returns [rows, T], 0 where the mask is false.

    Source: Schulman et al. (arXiv 1506.02438) equations 11 to 16.
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    advantages = torch.zeros_like(rewards)
    following = values.new_zeros(len(values))
    advantage = torch.zeros_like(following)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * following - values[:, t]
        advantage = torch.where(mask[:, t], delta + gamma * gae_lambda * advantage, 0.0)
        advantages[:, t] = advantage
        following = values[:, t]
    return advantages, advantages + values


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    r"""Mean 0 and variance 1 where the mask is true: :math:`(x - \bar x)/\sqrt{\mathrm{var}(x) + 10^{-8}}`.

    :param values: any shape.
    :returns: the same shape, 0 where the mask is false; the variance is unbiased. A single value becomes 0.
    """
    kept = values[mask]
    if kept.numel() < 2:
        return torch.zeros_like(values)
    values, kept = values - kept[0], kept - kept[0]  # equal values then become exactly 0, in any precision
    return torch.where(mask, (values - kept.mean()) * torch.rsqrt(kept.var() + WHITENING_EPSILON), 0.0)
