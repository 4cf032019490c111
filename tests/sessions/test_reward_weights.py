"""The weights of reward components as hyperparameters of a session's own."""

from __future__ import annotations

import pytest

from sessions.commands import Reload, Set, parse_words
from sessions.errors import InvalidValue, UnknownName, UsageError
from sessions.hyperparameters import (
    HYPERPARAMETERS,
    check_together,
    defaults,
    hyperparameter,
    knobs_of,
    parse_assignment,
)
from sessions.metrics import metric
from sessions.records import Change
from sessions.reward_reloads import LARGEST, RewardReload, component_change
from sessions.wire import Changed, describe


def test_every_component_has_a_weight() -> None:
    knob = hyperparameter("reward_weight.format")
    assert (knob.name, knob.default, knob.boundary, knob.kind) == ("reward_weight.format", 1.0, "rollout", "float")
    assert knob.parse("-2.5") == -2.5
    assert hyperparameter("reward-weight.my-own").name == "reward_weight.my-own"
    with pytest.raises(InvalidValue, match="out of bounds"):
        knob.parse("1e7")
    for wrong in ("reward_weight.", "reward_weight", "rewardweight.x", "learning_rate.x"):
        with pytest.raises(UnknownName):
            hyperparameter(wrong)


def test_they_are_set_scheduled_and_told_like_the_others() -> None:
    assert parse_assignment("reward_weight.f=.5@7").step == 7
    command = parse_words("set reward_weight.f=2 learning_rate=1e-5")
    assert isinstance(command, Set)
    assert command.values == {"reward_weight.f": 2.0, "learning_rate": 1e-5}
    values = defaults({"reward_weight.f": 0.5}, {"reward_weight.f": "0"})
    assert values["reward_weight.f"] == 0.0
    check_together(values)
    change = Change(id="1", time=0, who="ann", name="reward_weight.f", old=1.0, new=1e-6, boundary="rollout")
    assert "ann set reward_weight.f 1 -> 1e-6: pending" in describe(Changed(time=0, step=1, change=change))[1]


def test_they_come_after_all_others_and_only_where_a_session_has_them() -> None:
    assert list(knobs_of(defaults())) == list(HYPERPARAMETERS)
    values = {"reward_weight.b": 1.0, **defaults(), "reward_weight.a": 2.0}
    assert list(knobs_of(values)) == [*HYPERPARAMETERS, "reward_weight.b", "reward_weight.a"]


def test_what_functions_log_has_a_metric() -> None:
    assert metric("logged/accuracy").title == "accuracy"


def test_reload_is_read() -> None:
    assert parse_words("reload") == Reload(id=parse_words("reload").id) or not parse_words("reload").use
    assert not parse_words("reload").use
    assert parse_words("reload use").use
    assert parse_words("reload --use").use
    with pytest.raises(UsageError, match="`reload use` then scores with it"):
        parse_words("reload now")


def test_a_difference_counts_values_and_failures_that_change() -> None:
    before = [("5.1A", 1.0, ""), ("5.1B", 0.5, ""), ("5.1C", None, ""), ("5.1D", None, "f: raised"), ("5.1E", 2.0, "")]
    after = [(1.0, ""), (4.0, ""), (0.0, ""), (0.5, ""), (None, "f: too slow")]
    change = component_change("f", before, after, ("abc", "def"))
    assert (change.responses, change.changed) == (5, 4)
    assert change.before == pytest.approx(3.5 / 3)
    assert change.after == pytest.approx(5.5 / 4)
    assert (change.failed_before, change.failed, change.why) == (1, 1, "f: too slow")
    assert [(m.name, m.before, m.after) for m in change.largest] == [
        ("5.1C", None, 0.0),
        ("5.1D", None, 0.5),
        ("5.1E", 2.0, None),
        ("5.1B", 0.5, 4.0),
    ]
    assert change.describe() == [
        "f: code abc -> def",
        "  4 of 5 responses change; mean 1.167 -> 1.375",
        "  fails on 1 (before: 1): f: too slow",
        "  5.1C - -> 0  5.1D - -> 0.5  5.1E 2 -> -  5.1B 0.5 -> 4",
    ]


def test_a_difference_names_the_largest_changes_only() -> None:
    before = [(f"1.1{chr(65 + i)}", 0.0, "") for i in range(10)]
    change = component_change("f", before, [(float(i), "") for i in range(10)], ("a", "a"))
    assert [m.after for m in change.largest] == [9.0, 8.0, 7.0, 6.0, 5.0][:LARGEST]
    assert change.describe()[0] == "f: the same code (a)"


def test_a_reload_says_what_using_it_would_do() -> None:
    waiting = RewardReload(step=3, waiting=True).describe()
    learned = RewardReload(step=3).describe()
    assert "which wait for their update" in waiting
    assert "are learned and stay as they are" in learned
    assert "no response has been scored yet" in RewardReload().describe()
