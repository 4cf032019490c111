"""What is told of a reward model."""

from __future__ import annotations

from sessions.reward_models import (
    RewardModelFigures,
    RewardModelReport,
    RewardModelSettings,
    RewardModelState,
    reward_model_lines,
)


def test_the_newest_training_comes_first_and_what_is_not_known_is_a_dash() -> None:
    held_out = RewardModelFigures(pairs=12, accuracy=0.75)
    reports = [
        RewardModelReport(version=1, orderings=20, pairs=30),
        RewardModelReport(version=2, orderings=40, pairs=60, drift=0.5, held_out=held_out),
    ]
    state = RewardModelState(settings=RewardModelSettings(), version=2, trained=40, reports=reports)
    first, _, _, newest, oldest = reward_model_lines(state)
    assert "version 2, kind head, 4 heads, trained on 40" in first
    assert newest.split() == ["2", "40", "60", "12", "0.750", "-", "-", "-", "0.500", "-"]
    assert oldest.split() == ["1", "20", "30", "0", "-", "-", "-", "-", "-", "-"]


def test_where_there_is_none_it_says_how_to_get_one() -> None:
    assert "`reward-model train`" in reward_model_lines(None)[0]
