"""The table of hyperparameters: what it accepts, refuses and suggests."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.errors import InvalidValue, UnknownName
from sessions.hyperparameters import (
    HYPERPARAMETERS,
    Assignment,
    Value,
    check_sampler,
    check_together,
    defaults,
    gate_parts,
    hyperparameter,
    parse_assignment,
    switched,
)

NUMBERS = [knob for knob in HYPERPARAMETERS.values() if knob.kind in ("float", "int")]


@pytest.mark.parametrize("knob", HYPERPARAMETERS.values(), ids=lambda knob: knob.name)
def test_every_knob_is_well_defined(knob) -> None:
    assert knob.parse(knob.default) == knob.default
    assert knob.parse(knob.show(knob.default)) == knob.default
    assert knob.boundary in {"minibatch", "update", "rollout", "restart"}
    assert knob.help.endswith(".")
    assert knob.range_text
    assert any(knob.used_by(algorithm) for algorithm in HYPERPARAMETERS["algorithm"].choices)


@pytest.mark.parametrize("knob", NUMBERS, ids=lambda knob: knob.name)
def test_bounds_are_inclusive_and_closed(knob) -> None:
    assert knob.parse(knob.low) == knob.low
    assert knob.parse(knob.high) == knob.high
    for outside in (math.nextafter(knob.low, -math.inf), knob.high * 1.01 + 1, math.inf, -math.inf, math.nan):
        with pytest.raises(InvalidValue, match=f"^{knob.name}: .*allowed: "):
            knob.parse(outside)


@pytest.mark.parametrize("given_value", ["", "many", "1e", None, True, [1], "1e999", 10**400, "nan"])
def test_what_is_no_number_is_refused(given_value: object) -> None:
    with pytest.raises(InvalidValue, match="learning_rate"):
        hyperparameter("learning_rate").parse(given_value)


def test_whole_numbers() -> None:
    knob = hyperparameter("group_size")
    assert knob.parse("16") == 16
    assert knob.parse("16.0") == 16
    assert isinstance(knob.parse(16.0), int)
    with pytest.raises(InvalidValue, match="not a whole number"):
        knob.parse("2.5")


def test_choices() -> None:
    assert hyperparameter("kl_estimator").parse("k2") == "k2"
    with pytest.raises(InvalidValue, match="'k9' is not one of k1, k2, k3"):
        hyperparameter("kl_estimator").parse("k9")


@pytest.mark.parametrize(
    ("given_gate", "gate"),
    [
        ("async", "async"),
        (" wait 2 ", "wait 2"),
        ("wait:2", "wait 2"),
        ("wait 2.0", "wait 2"),
        ("timeout 1.5", "timeout 1.5"),
        ("timeout 86400", "timeout 86400"),
    ],
)
def test_gates(given_gate: str, gate: str) -> None:
    assert hyperparameter("rating_gate").parse(given_gate) == gate


@pytest.mark.parametrize(
    "text",
    ["", "wait", "wait 0", "wait 1.5", "wait -1", "wait 1001", "timeout", "timeout 0", "timeout 90000", "async 3"],
)
def test_bad_gates(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"rating_gate: .*allowed: async, wait n"):
        hyperparameter("rating_gate").parse(text)


def test_gate_parts() -> None:
    assert gate_parts("async") == ("async", 0.0)
    assert gate_parts("wait 2") == ("wait", 2.0)
    assert gate_parts("timeout 1.5") == ("timeout", 1.5)


@given(data=st.data())
def test_a_nudge_stays_valid(data: st.DataObject) -> None:
    knob = data.draw(st.sampled_from(list(HYPERPARAMETERS.values())))
    value: Value = knob.default
    for direction in data.draw(st.lists(st.sampled_from([1, -1]), max_size=60)):
        value = knob.nudged(value, direction)
        assert knob.parse(value) == value
        assert isinstance(value, int) == (knob.kind == "int")


def test_nudges_move_and_come_back() -> None:
    assert hyperparameter("learning_rate").nudged(1e-6, 1) == 2e-6
    assert hyperparameter("learning_rate").nudged(2e-6, -1) == 1e-6
    assert hyperparameter("learning_rate").nudged(0.0, 1) > 0
    assert hyperparameter("temperature").nudged(1.0, 1) == 1.1
    assert hyperparameter("group_size").nudged(2, -1) == 2
    assert hyperparameter("kl_placement").nudged("loss", 1) == "reward"
    assert hyperparameter("kl_placement").nudged("loss", -1) == "reward"
    assert hyperparameter("rating_gate").nudged("wait 2", 1) == "wait 2"


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown hyperparameter 'learning_rat'; did you mean learning_rate\?"):
        hyperparameter("learning_rat")
    with pytest.raises(UnknownName, match="`workbench hyperparameters` lists the"):
        hyperparameter("zzzzzz")
    assert hyperparameter("learning-rate").name == "learning_rate"


def test_defaults_take_a_tasks_own() -> None:
    values = defaults({"learning_rate": 1e-4, "max-new-tokens": "12"} | {})
    assert set(defaults()) == set(HYPERPARAMETERS)
    assert values["learning_rate"] == 1e-4
    with pytest.raises(UnknownName):
        defaults({"nothing": 1})
    with pytest.raises(InvalidValue):
        defaults({"group_size": 1})


def test_check_together() -> None:
    check_together(defaults())
    check_together(defaults({"kl_placement": "reward", "kl_estimator": "k1"}))
    with pytest.raises(InvalidValue, match="kl_placement reward goes with kl_estimator k1, not k3"):
        check_together(defaults({"kl_placement": "reward"}))
    with pytest.raises(InvalidValue, match="k1 has no gradient as a loss"):
        check_together(defaults({"kl_estimator": "k1"}))


@pytest.mark.parametrize(
    ("text", "assignment"),
    [
        ("learning_rate=5e-7", Assignment("learning_rate", 5e-7)),
        ("learning-rate = 5e-7 @ 20", Assignment("learning_rate", 5e-7, 20)),
        ("rating_gate=wait 2@7", Assignment("rating_gate", "wait 2", 7)),
        ("kl_estimator=k2", Assignment("kl_estimator", "k2")),
    ],
)
def test_assignments(text: str, assignment: Assignment) -> None:
    assert parse_assignment(text) == assignment


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate", "should read name=value"),
        ("learning_rate=1e-6@0", "whole number from 1"),
        ("learning_rate=1e-6@", "whole number from 1"),
        ("learning_rate=1e-6@-3", "whole number from 1"),
        ("learning_rate=1e-6@x", "whole number from 1"),
        ("learning_rate=", "not a number"),
    ],
)
def test_bad_assignments(text: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        parse_assignment(text)


# --------------------------------------------------------------------------------------- switching the algorithm


@pytest.mark.parametrize("algorithm", ["ppo", "trpo"])
def test_defaults_follow_the_algorithm(algorithm: str) -> None:
    values = defaults({"algorithm": algorithm})
    assert (values["kl_coefficient"], values["kl_estimator"], values["kl_placement"]) == (0.05, "k1", "reward")
    check_together(values)
    back = {**values, **switched(values, {"algorithm": "grpo"})}
    assert back == defaults()


def test_what_a_person_set_stays_through_a_switch() -> None:
    values = defaults({"kl_coefficient": 0.2})
    after = {**values, **switched(values, {"algorithm": "ppo"})}
    assert (after["kl_coefficient"], after["kl_placement"]) == (0.2, "reward")


def test_what_is_wanted_is_not_overruled() -> None:
    assert switched(defaults(), {"algorithm": "ppo", "kl_coefficient": 0.04})["kl_coefficient"] == 0.04


def test_a_separate_value_model_has_a_rate_of_its_own() -> None:
    assert defaults({"value_model": "separate"})["value_learning_rate"] == 1e-5
    assert switched(defaults({"value_learning_rate": 0.5}), {"value_model": "separate"}) == {"value_model": "separate"}


@pytest.mark.parametrize(
    ("given_values", "message"),
    [
        ({"algorithm": "ppo", "kl_placement": "loss", "kl_estimator": "k3"}, "has the divergence in the reward"),
        ({"algorithm": "ppo", "kl_target": 0.1, "kl_coefficient": 0.0}, "it needs one above 0"),
        ({"ratio_level": "sequence", "loss_aggregation": "token"}, "goes with loss_aggregation response"),
        ({"overlong_penalty": 12, "max_new_tokens": 12}, "not less than max_new_tokens"),
    ],
)
def test_what_does_not_go_together(given_values: dict[str, Value], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        check_together(defaults(given_values))


@pytest.mark.parametrize("name", ["top_p", "top_k", "min_p"])
def test_training_samples_the_policys_own_distribution(name: str) -> None:
    check_sampler(defaults(), mismatch=False)
    cut = defaults({name: 1e-3 if name != "top_k" else 1})
    with pytest.raises(InvalidValue) as refusal:
        check_sampler(cut, mismatch=False)
    assert str(refusal.value).splitlines() == [
        f"{name} {hyperparameter(name).show(cut[name])} renormalises the sampler and not the policy that learns from "
        f"it; start the session with --allow-sampler-mismatch, or set eval_{name}"
    ]
    check_sampler(cut, mismatch=True)
    check_sampler(defaults({f"eval_{name}": cut[name]}), mismatch=False)


def test_a_knob_may_be_none() -> None:
    knob = hyperparameter("kl_target")
    assert knob.parse("none") == knob.parse(" none ") == "none"
    assert knob.parse("0.1") == 0.1
    assert knob.range_text.startswith("none | ")
    assert isinstance(knob.nudged("none", 1), float)
    with pytest.raises(InvalidValue):
        hyperparameter("gamma").parse("none")


def test_who_uses_what() -> None:
    values = defaults({"algorithm": "trpo"})
    assert not hyperparameter("learning_rate").used_by("trpo")
    assert not hyperparameter("max_grad_norm").used_by("trpo", values)
    assert hyperparameter("max_grad_norm").used_by("trpo", {**values, "baseline": "value"})  # the value model's AdamW
    assert not hyperparameter("gae_lambda").used_by("trpo", values)
    assert hyperparameter("gae_lambda").used_by("trpo", {**values, "baseline": "value"})
    assert hyperparameter("gae_lambda").used_by("ppo", values)
    assert hyperparameter("advantage_scale").used_by("trpo", values)
    assert not hyperparameter("trust_region").used_by("grpo")


def test_the_coefficient_waits_for_the_update_where_it_is_in_the_reward() -> None:
    knob = hyperparameter("kl_coefficient")
    assert knob.boundary_under(defaults()) == "minibatch"
    assert knob.boundary_under(defaults({"algorithm": "ppo"})) == "update"
