"""What a step's rewards, advantages and lengths look like. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from engine.advantages import DEAD_STD
from engine.rollout import RolloutGroup
from sessions.records import Response


def effective_reward(response: Response) -> float | None:
    """The reward that teaches: after ratings where there are any; None if nothing could be scored."""
    if response.failed:
        return None
    return response.reward if response.rated_reward is None else response.rated_reward


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (n - 1); None where there are too few values."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) * (v - mean) for v in values) / (len(values) - 1))


def is_dead(group: RolloutGroup) -> bool:
    """Whether the group's automatic rewards are alike, so that it teaches nothing by comparison."""
    rewards = [r.reward for r in group.record.responses if r.reward is not None and not r.failed]
    spread = mean_std(rewards)[1]
    return spread is None or spread < DEAD_STD


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, equal values sharing their mean rank."""
    order = sorted(range(len(values)), key=values.__getitem__)
    result = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in range(start, end + 1):
            result[order[place]] = (start + end) / 2 + 1
        start = end + 1
    return result


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None where one side is constant."""
    rx, ry = ranks(x), ranks(y)
    mx, my = sum(rx) / len(rx), sum(ry) / len(ry)
    covariance = math.fsum((a - mx) * (b - my) for a, b in zip(rx, ry, strict=True))
    spread = math.sqrt(math.fsum((a - mx) ** 2 for a in rx) * math.fsum((b - my) ** 2 for b in ry))
    return covariance / spread if spread > 0 else None


RUN = 4
"""Tokens of the runs whose repetition is counted."""


def repetition(tokens: Sequence[int]) -> float | None:
    """Share of the runs of four tokens that came before in the same response: 1 - distinct runs / runs.

    As seq-rep-4 of Welleck and others (2020), "Neural text generation with unlikelihood training", section 6.1.

    :param tokens: of a response, its end token included.
    :returns: in [0, 1); None of fewer than four tokens, which hold no such run.
    """
    runs = len(tokens) - RUN + 1
    if runs < 1:
        return None
    return 1 - len(set(zip(*(tokens[i:] for i in range(RUN)), strict=False))) / runs


def length_correlation(groups: Sequence[RolloutGroup]) -> float | None:
    """Spearman correlation of reward and length inside groups, averaged over the groups that have one."""
    return _correlation(groups, lambda response: float(response.length))


def repetition_correlation(groups: Sequence[RolloutGroup]) -> float | None:
    """The same of reward and repetition."""
    return _correlation(groups, lambda response: response.repetition)


def _correlation(groups: Sequence[RolloutGroup], measure: Callable[[Response], float | None]) -> float | None:
    """Spearman correlation of reward and a measure inside groups, averaged over the groups that have one."""
    found = []
    for group in groups:
        rewards, measured = [], []
        for response in group.record.responses:
            reward, value = effective_reward(response), measure(response)
            if reward is not None and value is not None:
                rewards.append(reward)
                measured.append(value)
        if len(rewards) > 2 and min(measured) < max(measured):
            value = spearman(rewards, measured)
            if value is not None:
                found.append(value)
    return sum(found) / len(found) if found else None


def reward_statistics(groups: Sequence[RolloutGroup], reward_range: tuple[float, float]) -> dict[str, float]:
    """The metrics of rewards, groups, advantages and lengths of a step; what cannot be had is absent."""
    fresh = [g for g in groups if not g.late]
    responses = [r for g in fresh for r in g.record.responses]
    rewards = [r for r in map(effective_reward, responses) if r is not None]
    automatic = [r.reward for r in responses if r.reward is not None]
    advantages = [a for g in fresh for a in g.advantages]
    metrics: dict[str, float | None] = {}
    metrics["reward/mean"], metrics["reward/std"] = mean_std(rewards)
    metrics["reward/automatic"] = mean_std(automatic)[0]
    for component in dict.fromkeys(name for r in responses for name in r.components):
        values = [v for r in responses if (v := r.components.get(component)) is not None]
        metrics[f"reward/{component}"] = mean_std(values)[0]
    metrics["advantage/mean"], metrics["advantage/std"] = mean_std(advantages)
    metrics["advantage/abs_max"] = max(map(abs, advantages), default=None)
    metrics["groups/late"] = float(len(groups) - len(fresh))
    if fresh:
        lo, hi = reward_range
        dead = [g for g in fresh if g.dead]
        metrics["groups/dead_fraction"] = len(dead) / len(fresh)
        metrics["groups/all_right_fraction"] = sum(_all_at(g, hi) for g in dead) / len(fresh)
        metrics["groups/all_wrong_fraction"] = sum(_all_at(g, lo) for g in dead) / len(fresh)
    if responses:
        metrics["response/length"] = sum(r.length for r in responses) / len(responses)
        metrics["response/truncated_fraction"] = sum(not r.ended for r in responses) / len(responses)
        failed = sum(bool(r.failed) for r in responses)
        metrics["response/failed"] = float(failed)
        metrics["response/failed_fraction"] = failed / len(responses)
    repeated = [r.repetition for r in responses if r.repetition is not None]
    metrics["response/repetition"] = mean_std(repeated)[0]
    metrics["reward/length_correlation"] = length_correlation(fresh)
    metrics["reward/repetition_correlation"] = repetition_correlation(fresh)
    return {name: value for name, value in metrics.items() if value is not None}


def _all_at(group: RolloutGroup, level: float) -> bool:
    rewards = [r for r in map(effective_reward, group.record.responses) if r is not None]
    return bool(rewards) and all(abs(r - level) < 1e-6 for r in rewards)
