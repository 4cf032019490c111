"""From rewards and ratings to the advantage of each response: who gets the credit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from engine.advantages import group_relative_advantages
from engine.divergences import k1
from engine.ratings import rated_rewards
from engine.rollout import RolloutGroup
from engine.statistics import effective_reward
from sessions.records import Rating


def apply_ratings(
    groups: Sequence[RolloutGroup],
    ratings: Mapping[str, Sequence[Rating]],
    weight: float,
    reward_range: tuple[float, float],
) -> None:
    """Write the rated reward into every response that a person rated, and clear it in the others.

    :param ratings: group name -> its standing ratings.
    :param weight: ``human_weight``; 0 leaves every automatic reward as it is.
    """
    for group in groups:
        responses = group.record.responses
        changed = rated_rewards(
            {r.letter: r.reward for r in responses if not r.failed},
            ratings.get(group.record.name, ()),
            weight,
            reward_range,
        )
        for response in responses:
            response.rated_reward = changed.get(response.letter) if weight > 0 else None


def reward_penalties(groups: Sequence[RolloutGroup], kl_coefficient: float) -> dict[str, float]:
    """kl_coefficient x sum of k1 over a response's tokens, for a divergence that is placed in the reward.

    :returns: response name -> what its reward loses, for this process's groups.
    """
    penalties = {}
    for group in groups:
        for row in group.rows() if group.own else ():
            old, reference = torch.tensor(row.old), torch.tensor(row.response.reference_logprobs)
            penalties[f"{group.record.name}{row.response.letter}"] = kl_coefficient * float(k1(old, reference).sum())
    return penalties


def write_advantages(groups: Sequence[RolloutGroup], penalties: Mapping[str, float], scale: str) -> None:
    """Write the advantages of every group, with and without its ratings, into it and its responses.

    :param penalties: response name -> what its reward loses.
    :param scale: ``advantage_scale``.
    """
    automatic, _ = group_relative_advantages(_rewards(groups, penalties, rated=False), scale)
    rated, dead = group_relative_advantages(_rewards(groups, penalties, rated=True), scale)
    for i, group in enumerate(groups):
        responses = group.record.responses
        group.advantages, group.dead = rated[i, : len(responses)].tolist(), bool(dead[i])
        group.automatic = automatic[i, : len(responses)].tolist()
        for response, advantage, without in zip(responses, group.advantages, group.automatic, strict=True):
            response.advantage, response.automatic_advantage = advantage, without


def _rewards(groups: Sequence[RolloutGroup], penalties: Mapping[str, float], *, rated: bool) -> torch.Tensor:
    """Rewards [groups, largest group]; NaN where there is none."""
    width = max(len(g.record.responses) for g in groups)
    rewards = torch.full((len(groups), width), math.nan, dtype=torch.float64)
    for i, group in enumerate(groups):
        for j, response in enumerate(group.record.responses):
            reward = effective_reward(response) if rated else response.reward
            if reward is not None and not response.failed:
                rewards[i, j] = reward - penalties.get(f"{group.record.name}{response.letter}", 0.0)
    return rewards
