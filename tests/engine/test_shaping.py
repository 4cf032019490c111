"""Reward components that come from a response's length."""

from __future__ import annotations

from fractions import Fraction

import pytest

from engine.shaping import overlong, shape_rewards
from tests.engine.small import make_knobs, rollout_group


@pytest.mark.parametrize(
    ("length", "penalty"),
    [(1, 0), (79, 0), (80, 0), (85, Fraction(-1, 4)), (90, Fraction(-1, 2)), (100, -1)],
)
def test_overlong_falls_from_the_margin_to_the_limit(length: int, penalty: Fraction) -> None:
    assert overlong(length, 100, 20) == pytest.approx(float(penalty))


def test_it_is_a_component_and_part_of_the_reward() -> None:
    group = rollout_group([1.0, 0.0, None], lengths=[3, 6, 6])
    shape_rewards([group], make_knobs(max_new_tokens=6, overlong_penalty=2))
    responses = group.record.responses
    assert [r.reward for r in responses] == [1.0, -1.0, None]
    assert [r.components.get("overlong") for r in responses] == [0.0, -1.0, None]


def test_shaping_again_changes_nothing_and_follows_the_settings() -> None:
    group = rollout_group([1.0, 0.5], lengths=[5, 6])
    knobs = make_knobs(max_new_tokens=6, overlong_penalty=2)
    shape_rewards([group], knobs)
    once = [r.reward for r in group.record.responses]
    shape_rewards([group], knobs)
    assert [r.reward for r in group.record.responses] == once == [0.5, -0.5]
    shape_rewards([group], make_knobs(max_new_tokens=6))
    assert [r.reward for r in group.record.responses] == [1.0, 0.5]
    assert all("overlong" not in r.components for r in group.record.responses)


@pytest.mark.parametrize(
    ("values", "shaped"),
    [
        ({"algorithm": "ppo", "kl_placement": "reward", "kl_estimator": "k1"}, True),
        ({"algorithm": "trpo", "kl_placement": "reward", "kl_estimator": "k1"}, False),
        ({"algorithm": "trpo", "baseline": "value", "kl_placement": "reward", "kl_estimator": "k1"}, True),
        ({"algorithm": "grpo"}, False),
    ],
)
def test_truncation_is_penalised_where_there_is_a_value_model(values: dict[str, str], shaped: bool) -> None:
    group = rollout_group([1.0, 1.0])
    group.record.responses[1].ended = False
    shape_rewards([group], make_knobs(truncation_penalty=0.75, **values))
    assert [r.reward for r in group.record.responses] == ([1.0, 0.25] if shaped else [1.0, 1.0])
    assert [r.components.get("truncation") for r in group.record.responses] == ([0.0, -0.75] if shaped else [None] * 2)
