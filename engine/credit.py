"""From rewards and ratings to advantages: who gets the credit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from engine.advantages import generalised_advantages, group_relative_advantages, whiten
from engine.algorithms.ppo import explained_variance, token_rewards
from engine.divergences import k1
from engine.passes import padded
from engine.rollout import RolloutGroup, Row
from engine.statistics import effective_reward
from sessions.judging import judge, rated_rewards
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
            judge(ratings.get(group.record.name, ())),
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
            response.values, response.returns, response.advantages = [], [], []


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


# ---------------------------------------------------------------------------------------- with a value model


def write_value_advantages(
    groups: Sequence[RolloutGroup],
    accelerator: Accelerator,
    *,
    gamma: float,
    gae_lambda: float,
    kl_coefficient: float,
) -> dict[str, float]:
    """Write values, returns and whitened advantages of every token into the responses, with and without ratings.

    A response without a reward has no returns and advantages of 0: it teaches neither the policy nor the value model.

    :param groups: of all processes, each with the values and l_old of its own.
    :returns: metrics of the value model before the update.
    """
    rows = [row for group in groups for row in group.rows()]
    rated = _estimated(rows, accelerator, gamma, gae_lambda, kl_coefficient, rated=True)
    automatic = _estimated(rows, accelerator, gamma, gae_lambda, kl_coefficient, rated=False)
    for group in groups:
        responses = group.record.responses
        group.advantages = [0.0] * len(responses)
        group.automatic = [0.0] * len(responses)
        group.dead = bool(group_relative_advantages(_rewards([group], {}, rated=True))[1])
        for response in responses:
            response.values, response.returns, response.advantages = [], [], []
    for row in rows:
        response, found = row.response, rated.get(row.name)
        if row.group.own:
            response.values = row.group.values[row.place]
        if found is not None:
            response.values, response.returns, response.advantages = found
            row.group.advantages[row.place] = math.fsum(response.advantages) / len(response.advantages)
        if row.name in automatic:
            advantages = automatic[row.name][2]
            row.group.automatic[row.place] = math.fsum(advantages) / len(advantages)
    for group in groups:
        for response, advantage, without in zip(group.record.responses, group.advantages, group.automatic, strict=True):
            response.advantage, response.automatic_advantage = advantage, without
    values = torch.tensor([v for row in rows if row.response.returns for v in row.response.values])
    returns = torch.tensor([r for row in rows for r in row.response.returns])
    metrics = {"value/mean": float(values.mean())} if len(values) else {}
    explained = explained_variance(values, returns)
    return metrics if explained is None else {**metrics, "value/explained_variance": explained}


_Estimated = dict[str, tuple[list[float], list[float], list[float]]]
"""Response name -> its values, returns and advantages."""


def _estimated(
    rows: Sequence[Row],
    accelerator: Accelerator,
    gamma: float,
    gae_lambda: float,
    kl_coefficient: float,
    *,
    rated: bool,
) -> _Estimated:
    """GAE on this process's rows, whitened over those of all processes."""
    scores = {row.name: effective_reward(row.response) if rated else row.response.reward for row in rows}
    own = [row for row in rows if row.group.own and scores[row.name] is not None]
    raw: _Estimated = {}
    if own:
        mask = torch.zeros(len(own), max(len(row.response.tokens) for row in own), dtype=torch.bool)
        for i, row in enumerate(own):
            mask[i, : len(row.response.tokens)] = True
        reference = None
        if kl_coefficient > 0:
            reference = padded([row.response.reference_logprobs for row in own], mask)
        score = torch.tensor([scores[row.name] for row in own])
        rewards = token_rewards(score, padded([row.old for row in own], mask), reference, mask, kl_coefficient)
        values = padded([row.group.values[row.place] for row in own], mask)
        advantages, returns = generalised_advantages(rewards, values, mask, gamma, gae_lambda)
        for i, row in enumerate(own):
            n = len(row.response.tokens)
            raw[row.name] = (values[i, :n].tolist(), returns[i, :n].tolist(), advantages[i, :n].tolist())
    if accelerator.num_processes > 1:
        raw = {name: found for part in gather_object([raw]) for name, found in part.items()}
    found = [raw[row.name] for row in rows if row.name in raw]
    flat = torch.tensor([a for _, _, advantages in found for a in advantages])
    white: Tensor = whiten(flat, torch.ones_like(flat, dtype=torch.bool))
    start, result = 0, {}
    for row in rows:
        if row.name in raw:
            values_, returns_, advantages_ = raw[row.name]
            result[row.name] = (values_, returns_, white[start : start + len(advantages_)].tolist())
            start += len(advantages_)
    return result
