"""A reward model's scores as a component of the reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.reward_model import RewardModel
from engine.rollout import RolloutGroup, Row
from engine.supervised import Lesson
from sessions.records import REWARD_MODEL

COMPONENT = REWARD_MODEL
"""The component's name."""


def score_groups(
    model: RewardModel, groups: Sequence[RolloutGroup], weight: float, *, by_text: bool, safe_point: Callable[[], None]
) -> None:
    """Write the model's score into every response that no reward function failed on, as a component of its reward.

    A response whose other components do not apply is worth this one alone.

    :param weight: 0: it is measured and shown, and does not teach.
    :param by_text: whether responses are encoded again: the model reads other tokens than the policy.
    """
    rows = [row for group in groups for row in group.rows()]
    lessons = [_lesson(model, row) if by_text else row for row in rows]
    states = model.states(lessons, safe_point)
    raw = model.raw(states)
    means = model.normalised(raw).mean(0).tolist()
    for row, score, heads in zip(rows, means, raw.t().tolist(), strict=True):
        response = row.response
        response.components = {**response.components, COMPONENT: score}
        response.heads = heads
        if weight:
            response.reward = (response.reward or 0.0) + weight * score


def _lesson(model: RewardModel, row: Row) -> Lesson:
    group = row.group.record
    return model.encode(group.asked, group.said(row.response.text), f"response {row.name}")
