"""Published settings: what they set, and that it goes together."""

from __future__ import annotations

import pytest

from sessions.errors import UnknownName
from sessions.hyperparameters import HYPERPARAMETERS, check_together, defaults, switched
from sessions.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("before", [{}, {"algorithm": "ppo"}, {"algorithm": "trpo"}, {"loss_aggregation": "token"}])
@pytest.mark.parametrize("limit", [2, 12, 256])
def test_a_preset_goes_with_whatever_ran_before(name: str, before: dict[str, str], limit: int) -> None:
    values = defaults({"max_new_tokens": limit}, before)
    wanted = preset(name).settings(limit)
    after = {**values, **switched(values, wanted)}
    check_together(after)
    for knob, value in wanted.items():
        assert HYPERPARAMETERS[knob].parse(value) == value
        assert after[knob] == value


@pytest.mark.parametrize("name", PRESETS)
def test_it_sets_what_it_names_and_nothing_else(name: str) -> None:
    values = defaults({"group_size": 5, "learning_rate": 3e-3, "temperature": 0.7, "rating_gate": "wait 2"})
    wanted = preset(name).settings(100)
    assert not wanted.keys() & {"learning_rate", "group_size", "prompts_per_step", "max_new_tokens", "temperature"}
    assert set(switched(values, wanted)) == set(wanted)  # nothing follows by itself: the preset says it all


def test_they_are_the_papers() -> None:
    """arXiv 2402.03300 section 4.2; 2503.14476 section 4.1; 2503.20783; 2507.18071 section 5.1."""
    assert preset("deepseekmath").settings(1024)["kl_coefficient"] == 0.04
    dapo = preset("dapo").settings(20_480)
    assert (dapo["clip_low"], dapo["clip_high"], dapo["loss_aggregation"]) == (0.2, 0.28, "token")
    assert dapo["overlong_penalty"] == 4_096
    assert dapo["kl_coefficient"] == 0
    dr_grpo = preset("dr-grpo").settings(256)
    assert (dr_grpo["advantage_scale"], dr_grpo["loss_aggregation"]) == ("none", "constant")
    gspo = preset("gspo").settings(256)
    assert (gspo["ratio_level"], gspo["clip_low"], gspo["clip_high"]) == ("sequence", 3e-4, 4e-4)
    assert preset("ppo").settings(256)["algorithm"] == "ppo"
    assert preset("trpo").settings(256)["algorithm"] == "trpo"


def test_an_unknown_one() -> None:
    with pytest.raises(UnknownName, match="unknown preset 'grp'"):
        preset("grp")
