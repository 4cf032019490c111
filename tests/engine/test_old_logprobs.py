"""Where l_old comes from, seen at the passes that are made and at the weights that come out."""

from pathlib import Path

import pytest
import torch

from engine import old_logprobs, training
from engine.learner import Learner
from engine.policy import Policy
from sessions.shortcuts import active
from tests.engine.small import make_learner, random_policy

REWARD = {"kl_placement": "reward", "kl_estimator": "k1"}
STEPS = {"learning_rate": 1e-2, "kl_coefficient": 0.0}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every pass that is made for l_old."""
    made: list[int] = []
    real = old_logprobs.old_pass

    def counting(policy, rows, budget, safe_point) -> None:
        made.append(len(rows))
        real(policy, rows, budget, safe_point)

    monkeypatch.setattr(old_logprobs, "old_pass", counting)
    return made


def plain_policy(*names: str) -> Policy:
    policy = random_policy()
    policy.shortcuts = active(names)
    return policy


def weights(learner: Learner) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in learner.policy.parameters])


def test_an_update_of_one_minibatch_makes_no_pass_however_many_epochs(tmp_path: Path, passes: list[int]) -> None:
    make_learner(tmp_path / "a", policy=plain_policy("sampler_logprobs"), epochs=3, **STEPS).run_step()
    make_learner(tmp_path / "b", epochs=1, **STEPS).run_step()
    assert passes == []


def test_later_minibatches_use_the_samplers_while_it_agrees_with_the_first(tmp_path: Path, passes: list[int]) -> None:
    learner = make_learner(tmp_path, epochs=2, minibatches=2, **STEPS)
    assert learner.run_step()["update/optimizer_steps"] == 4
    assert passes == []


def test_in_bf16_the_samplers_do_not_serve(tmp_path: Path, passes: list[int]) -> None:
    policy = random_policy()
    policy.bf16 = True
    make_learner(tmp_path, policy=policy, minibatches=2, **STEPS).run_step()
    assert passes == [8]


def test_without_the_shortcut_one_pass_sees_the_rows_of_later_minibatches_only(
    tmp_path: Path, passes: list[int]
) -> None:
    learner = make_learner(tmp_path, policy=plain_policy("sampler_logprobs"), epochs=2, minibatches=2, **STEPS)
    learner.run_step()
    assert passes == [8]  # of 16 responses


@pytest.mark.parametrize("off", [0.9e-4, 1.1e-4])
def test_a_sampler_that_is_off_by_more_than_its_gap_costs_a_pass(
    tmp_path: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    learner = make_learner(tmp_path, minibatches=2, **STEPS)
    sample = learner.sample

    def shifted(*arguments, **named):
        groups = sample(*arguments, **named)
        for group in groups:
            for response in group.record.responses:
                response.logprobs = [value - off for value in response.logprobs]
        return groups

    monkeypatch.setattr(learner, "sample", shifted)
    learner.run_step()
    assert bool(passes) == (off > old_logprobs.SAMPLER_GAP)


def test_wherever_they_come_from_the_weights_are_the_same(tmp_path: Path) -> None:
    found = []
    for name in ("sampler", "pass", "before"):
        policy = plain_policy() if name == "sampler" else plain_policy("sampler_logprobs")
        learner = make_learner(tmp_path / name, policy=policy, epochs=2, minibatches=3, **STEPS)
        if name == "before":
            record_all(learner)
        for _ in range(2):
            learner.run_step()
        found.append(weights(learner))
    torch.testing.assert_close(found[1], found[2], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[0], found[2], atol=1e-4, rtol=1e-3)


def record_all(learner: Learner) -> None:
    """The plain way: l_old of the whole rollout, before its update begins."""
    update = learner.training._grpo

    def first(step, seed, groups, boundary):
        rows = [row for group in groups for row in group.rows()]
        old_logprobs.old_pass(learner.policy, rows, learner.training.budget, lambda: None)
        return update(step, seed, groups, boundary)

    learner.training._grpo = first  # type: ignore[method-assign]


def test_a_separate_value_model_asks_for_no_pass_of_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed: list[bool] = []
    real = training.value_pass

    def noting(*arguments, needs_old: bool) -> None:
        needed.append(needs_old)
        real(*arguments, needs_old=needs_old)

    monkeypatch.setattr(training, "value_pass", noting)
    values = {
        "algorithm": "ppo",
        "value_model": "separate",
        "value_warmup_steps": 0,
        "kl_placement": "reward",
        "kl_estimator": "k1",
    }
    learner = make_learner(tmp_path / "a", **values, kl_coefficient=0.0, epochs=2)
    metrics = learner.run_step()
    assert "ratio/first_error" not in metrics
    assert metrics["sampler_gap/max"] < 1e-4
    learner = make_learner(tmp_path / "b", **values, kl_coefficient=0.1, epochs=2)
    assert learner.run_step()["ratio/first_error"] < 1e-5
    assert needed == [False, True]


def test_late_groups_keep_the_log_probabilities_that_they_were_sampled_with(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, epochs=2, **STEPS)
    earlier = learner.sample(1)
    for group in earlier:
        group.late = True
        for response in group.record.responses:
            response.logprobs = [value - 0.05 for value in response.logprobs]
    learner.advantages(earlier, {})
    learner.update(1, earlier, lambda: None)
    assert all(not row.recorded_old for group in earlier for row in group.rows())
