"""The plan of a step: before the first one, after some, and for changes of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine import memory, plan
from engine.knobs import Knobs
from engine.learner import Learner
from engine.lengths import longest_of, mean_length, survival
from engine.memory import Held, Need, check_memory, need, sampling_memory
from engine.plan import Planner
from engine.sizes import Sizes, count
from engine.times import Times
from engine.work import Rollout
from sessions.errors import InvalidValue, Refused
from sessions.hyperparameters import defaults, switched
from sessions.shortcuts import active
from tests.engine.small import make_learner, random_policy, same_weights, weights_of

SIZES = Sizes(
    parameters=1000, weights=4016, trainable=4000, learned=4016, trunk=3000, head=68, cache=128, layers=2,
    vocabulary=64, activation=900.0, logits=1000.0,
)  # fmt: skip
NOTHING = Held()


def needed(
    groups: float = 4, size: float = 4, width: float = 10, limit: int = 20, held: Held = NOTHING, **values: Any
) -> Need:
    """What a step needs whose responses all run into the limit."""
    before = defaults()
    small = {"evaluate_every": 0, "kl_coefficient": 0.0, "reference_every": 0}
    knobs = Knobs({**before, **switched(before, {**small, **values})})
    alive = survival([limit], [False], limit)
    rollout = Rollout(groups, size, width, width, mean_length(alive), longest_of(alive, groups * size))
    return need(SIZES, rollout, alive, knobs, 10**6, active([]), held, evaluated=8)


class Stepping:
    """A learner whose steps take as long as a clock of the test says: so much for every call of it."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.planner = learner, Planner(learner)
        learner.planner = self.planner
        self.now = 0.0
        learner.control.clock = lambda: self.now  # type: ignore[method-assign]

    def step(self, count: int = 1) -> None:
        """Steps that take 300 us a decode step, 2 us a response token, and in an epoch 300 us and 3 us a token."""
        learner = self.learner
        for _ in range(count):
            number = learner.step + 1
            times = Times(learner.control)
            groups = learner.sample(number)
            responses = [r for g in groups for r in g.record.responses]
            sampled = sum(r.length for r in responses)
            self.now += 3e-4 * max(r.length for r in responses) + 2e-6 * sampled
            times.mark("sampling")
            learner.measure_reference(number, groups)
            learner.advantages(groups, {})
            metrics = learner.update(number, groups, lambda: None)
            prompts = sum(len(g.record.prompt_tokens) for g in groups)
            self.now += (3e-6 * (sampled + prompts) + 3e-4) * learner.knobs.whole("epochs")
            times.mark("updating")
            self.planner.record(number, learner.knobs.values, groups, metrics | times.metrics(sampled))


def stepping(folder: Path, **values: Any) -> Stepping:
    small = {"kl_coefficient": 0.0, "reference_every": 0}
    return Stepping(make_learner(folder, **{**small, **values}))


# ------------------------------------------------------------------------------------------------- memory


def test_what_stays_is_counted_by_what_the_hyperparameters_use() -> None:
    base = {"weights": 4016.0, "optimizer": 8000.0}
    assert needed(checkpoint_steps=0).kept == base
    assert needed(checkpoint_steps=0, kl_coefficient=0.04).kept == {**base, "reference": 4016.0}
    assert needed(checkpoint_steps=0, reference_every=10).kept == {**base, "reference": 4016.0}
    assert needed(checkpoint_steps=0, held=Held(reference=True)).kept == {**base, "reference": 4016.0}
    assert needed(checkpoint_steps=0, algorithm="ppo", value_model="separate").kept["value model"] == 3 * (3000 + 68)
    assert needed(checkpoint_steps=0, algorithm="ppo").kept["value model"] == 3 * 68
    assert (
        needed(checkpoint_steps=0, held=Held(value_model="separate")).kept["value model"] == 3 * 3068
    )  # at rest, and still there
    assert needed(checkpoint_steps=0, algorithm="trpo").kept == {"weights": 4016.0}
    assert needed(checkpoint_steps=0, algorithm="trpo", held=Held(optimizer=True)).kept == base


def test_a_checkpoint_is_a_copy_of_all_that_it_holds_beside_the_step_that_goes_on() -> None:
    assert needed(checkpoint_steps=50).kept["checkpoint"] == 4016 + 8000
    assert needed(checkpoint_steps=50, algorithm="ppo").kept["checkpoint"] == 4016 + 8000 + 3 * 68
    assert needed(checkpoint_steps=50, algorithm="trpo").kept["checkpoint"] == 4016


def test_what_an_update_takes() -> None:
    tokens, answered = 4 * 10 + 16 * 20, 16 * 20
    update = needed().phases["updating"]
    assert update == {"activations": 900.0 * tokens, "logits": 1000.0 * answered, "gradients": 4000.0}
    assert needed(epochs=2).phases["updating"]["weights to go back to"] == 3 * 4000
    assert needed(minibatches=4).phases["updating"]["activations"] == 900.0 * tokens / 4
    search = needed(algorithm="trpo").phases["updating"]
    assert search["TRPO's vectors"] == 6 * 4 * 1000
    assert search["activations"] > update["activations"]


def test_the_peak_is_that_of_the_widest_phase() -> None:
    one = needed(size=2, limit=1, algorithm="grpo")
    assert one.passing == max(sum(parts.values()) for parts in one.phases.values())
    assert "loading the reference" in needed(kl_coefficient=0.04).phases
    loaded = needed(held=Held(reference=True), kl_coefficient=0.04)
    assert loaded.phases.keys() == {"sampling", "updating"}
    assert needed(evaluate_every=5).phases["evaluating"] == sampling_memory(
        SIZES, 8, 10, survival([20], [False], 20)
    )  # fmt: skip


def test_the_cache_holds_the_rows_that_are_left() -> None:
    everyone = sampling_memory(SIZES, 6, 10, survival([20], [False], 20))
    assert everyone["cache"] == 6 * (10 + 20) * 128 * 1.5  # one of two layers is copied at a time
    half = sampling_memory(SIZES, 6, 10, survival([1, 20], [True, False], 20))
    assert half["cache"] == pytest.approx(6 * 0.5 / 0.75 * (10 + 20) * 128 * 1.5)
    assert half["sampling's logits"] == everyone["sampling's logits"] == 6 * 64 * 24


def test_a_micro_batch_bounds_what_is_held_at_once() -> None:
    before = defaults()
    knobs = Knobs({**before, "kl_coefficient": 0.0})
    rollout = Rollout(groups=64, group_size=8, prompt=50, width=60, response=100, longest=200)
    for shortcuts in (active([]), active(["all"])):
        tokens, answered = memory.micro_batch(rollout, knobs, 4096, shortcuts)
        assert tokens == 4096
        assert 0 < answered < tokens
        assert memory.micro_batch(rollout, knobs, 100, shortcuts)[0] == 260  # at least one row


WHAT = st.tuples(st.integers(1, 64), st.integers(2, 32), st.integers(1, 200))


@given(WHAT, st.sampled_from(["grpo", "ppo", "trpo"]), st.booleans())
def test_more_responses_never_need_less(what: tuple[int, int, int], algorithm: str, separate: bool) -> None:
    groups, size, limit = what
    values: dict[str, Any] = {"algorithm": algorithm, "value_model": "separate" if separate else "head"}

    def peak(groups: int, size: int, limit: int) -> float:
        found = needed(groups, size, limit=limit, **values)
        return found.resident + found.passing

    least = peak(groups, size, limit)
    assert peak(groups + 1, size, limit) >= least
    assert peak(groups, size + 1, limit) >= least
    assert peak(groups, size, limit + 1) >= least


def test_a_graph_that_does_not_fit_is_refused_with_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = random_policy(spread=2.5)
    n = sum(p.numel() for p in policy.parameters)
    monkeypatch.setattr(memory, "available_memory", lambda device: 24 * n + 1000)
    check_memory("trpo", policy, 1000)
    with pytest.raises(Refused, match=rf"6 x 4 x {n:,} bytes = .*, and about .* for the graph .* is available on cpu"):
        check_memory("trpo", policy, 1001)
    check_memory("grpo", policy, 1e15)


def test_switching_to_trpo_counts_the_graph_once_lengths_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped = stepping(tmp_path)
    assert stepped.planner.graph() == 0
    vectors = 24 * stepped.planner.sizes.parameters
    monkeypatch.setattr(memory, "available_memory", lambda device: vectors + 1)
    stepped.learner.check_algorithm("trpo")
    stepped.step()
    with pytest.raises(Refused, match="the graph of its Fisher products"):
        stepped.learner.check_algorithm("trpo")


# ------------------------------------------------------------------------------------------------- planning


def test_before_the_first_step_memory_is_counted_and_seconds_are_not_known(tmp_path: Path) -> None:
    stepped = stepping(tmp_path)
    found = stepped.planner.plan({"group_size": 16})
    assert found.seconds_now is found.seconds_then is found.ratio is None
    assert found.unknown == "known after the first step"
    assert found.memory_then > found.memory_now > 0
    assert found.memory_then == found.memory_most  # every response as long as it may be
    assert "no step measured" in found.basis
    assert found.values == {"group_size": 16}
    parts = {part.name: part.then for part in found.memory_parts}
    assert sum(size or 0 for size in parts.values()) == pytest.approx(found.memory_then)
    assert parts["weights"] == count(stepped.learner.policy).weights


def test_after_some_steps_the_seconds_are_those_that_they_took(tmp_path: Path) -> None:
    stepped = stepping(tmp_path, learning_rate=0.0)
    stepped.step(6)
    found = stepped.planner.plan({})
    took = sorted(step.seconds["sampling"] + step.seconds["updating"] for step in stepped.planner._recent)
    assert took[0] <= (found.seconds_now or 0) <= took[-1]
    assert found.seconds_now == found.seconds_then
    assert found.values == {}
    assert found.basis.startswith("seconds measured over the last 6 steps of grpo; memory counted")
    assert sum(part.then or 0 for part in found.seconds_parts) == pytest.approx(found.seconds_then)


@pytest.mark.parametrize("change", [{"group_size": 8}, {"prompts_per_step": 12}, {"epochs": 3}, {"max_new_tokens": 3}])
def test_a_change_is_foreseen(tmp_path: Path, change: dict[str, Any]) -> None:
    """The planned seconds beside those that the changed learner then takes on the same clock.

    Steps of different sizes come first: where all are alike it is the guess that tells the costs apart.
    """
    stepped = stepping(tmp_path, learning_rate=0.0)
    for prompts, size in ((2, 2), (6, 4), (3, 3), (5, 2), (4, 5), (4, 4)):
        stepped.learner.knobs.adapt("prompts_per_step", prompts)
        stepped.learner.knobs.adapt("group_size", size)
        stepped.step(2)
    found = stepped.planner.plan(change)
    began = stepped.now
    for name, value in change.items():
        stepped.learner.knobs.adapt(name, value)
    stepped.step(8)
    took = (stepped.now - began) / 8
    assert found.seconds_then == pytest.approx(took, rel=0.2)
    assert found.seconds_least <= took <= found.seconds_most  # type: ignore[operator]


def test_an_algorithm_that_has_not_run_is_said_to_be_a_guess(tmp_path: Path) -> None:
    stepped = stepping(tmp_path)
    stepped.step(3)
    guess = stepped.planner.plan({"algorithm": "trpo"})
    assert "trpo has not run here, its update is counted at their pace" in guess.basis
    assert {"Fisher products", "line search"} <= {part.name for part in guess.seconds_parts}
    assert guess.values["kl_estimator"] == "k1"  # what follows by itself is planned too
    own = stepped.planner.plan({"epochs": 2})
    width = {p.algorithm: (p.seconds_most - p.seconds_least) / p.seconds_then for p in (guess, own)}  # type: ignore
    assert width["trpo"] > width["grpo"]


def test_responses_that_were_cut_may_grow(tmp_path: Path) -> None:
    stepped = stepping(tmp_path, max_new_tokens=2, learning_rate=0.0)
    stepped.step(3)
    found = stepped.planner.plan({"max_new_tokens": 40})
    assert found.memory_then < found.memory_most
    assert found.seconds_then < found.seconds_most  # type: ignore[operator]
    assert "cut)" in found.basis


def test_values_that_wait_count_as_they_are(tmp_path: Path) -> None:
    from sessions.commands import Set

    stepped = stepping(tmp_path)
    stepped.step(2)
    before = stepped.planner.plan({"group_size": 8})
    stepped.learner.knobs.request(Set(values={"group_size": 8}), 2)
    now = stepped.planner.plan({})
    assert now.seconds_now == before.seconds_then
    assert stepped.planner.plan({"group_size": 8}).values == {}
    with pytest.raises(InvalidValue, match="kl_placement reward goes with kl_estimator k1"):
        stepped.planner.plan({"kl_placement": "reward"})


def test_too_much_is_warned_of_and_planning_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped = stepping(tmp_path)
    stepped.step(2)
    assert stepped.planner.plan({"prompts_per_step": 4096, "max_new_tokens": 1000}).warning == ""
    monkeypatch.setattr(plan, "available_memory", lambda device: 0)
    monkeypatch.setattr(plan, "held_memory", lambda: int(5e6))
    found = stepped.planner.plan({"group_size": 16})
    assert found.memory_then > found.memory_available == 5e6
    assert "GB is needed and 0.005 GB is there" in found.warning
    assert found.describe().count("! about") == 1


def test_planning_changes_nothing(tmp_path: Path) -> None:
    """Weights, sampled tokens and random streams are the same with plans and without."""
    plain, planned = make_learner(tmp_path / "a", epochs=2), make_learner(tmp_path / "b", epochs=2)
    stepped = Stepping(planned)
    for _ in range(3):
        plain.run_step()
        stepped.step()
        stepped.planner.plan({"group_size": 32, "algorithm": "trpo"})
    assert same_weights(weights_of(plain.policy), weights_of(planned.policy))
    assert all(p.grad is None for p in planned.policy.parameters)


def test_a_step_without_an_update_says_nothing(tmp_path: Path) -> None:
    stepped = stepping(tmp_path)
    groups = stepped.learner.sample(1)
    stepped.planner.record(1, stepped.learner.knobs.values, groups, {"update/optimizer_steps": 0.0})
    assert stepped.planner.plan({}).unknown


def test_only_steps_that_raised_the_peak_calibrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped = stepping(tmp_path)
    peaks = iter([3e9, 3e9, 3.2e9])
    monkeypatch.setattr(plan, "peak_memory", lambda: next(peaks))
    stepped.step(3)
    found = stepped.planner.plan({})
    assert "calibrated with 2 measured peaks" in found.basis
    assert found.memory_now == pytest.approx(3.1e9, rel=0.1)  # one process has taken it, whatever was counted


def test_the_threads_of_torch_are_left_alone(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    stepping(tmp_path).planner.plan({})
    assert torch.get_num_threads() == before
