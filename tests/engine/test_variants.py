"""GRPO's variants as hyperparameters: what each does to the gradient of a step, against the equation by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import checkpointing
from engine.learner import Learner
from engine.rollout import RolloutGroup
from sessions.commands import Set
from tests.engine.small import make_learner
from tests.engine.test_learner import gradient
from tests.engine.test_training import by_hand, rows_of, sampled


def policy_gradient(learner: Learner, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, learner.policy.parameters, allow_unused=True, retain_graph=True))


def close(got: list[Tensor], want: list[Tensor]) -> None:
    size = float(torch.cat([w.flatten() for w in want]).norm())
    for mine, expected in zip(got, want, strict=True):
        torch.testing.assert_close(mine, expected, rtol=2e-3, atol=2e-5 * max(size, 1.0))


def off_policy(groups: list[RolloutGroup]) -> None:
    """Old log-probabilities that are not the policy's own, so that ratios and both bounds matter."""
    for group in groups:
        group.late = True  # whose l_old is as recorded
        for response in group.record.responses:
            response.logprobs = [
                old + 0.15 * ((7 * t + response.length) % 5 - 2) for t, old in enumerate(response.logprobs)
            ]


def two_steps_on(learner: Learner) -> list[RolloutGroup]:
    """Away from the reference, so that divergences have a gradient."""
    for _ in range(2):
        learner.run_step()
    return sampled(learner)


def test_the_exact_divergence_in_the_loss(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, kl_estimator="full", kl_coefficient=0.7)
    groups = two_steps_on(learner)
    frozen = checkpointing.policy_weights(tmp_path / "0")
    reference = learner.policy.make_reference(frozen).model
    rows = rows_of(groups)
    total = torch.zeros(())
    for row in rows:
        prompt, tokens = row.prompt, row.response.tokens
        ids = torch.tensor([prompt + tokens])
        logits = learner.policy.model(ids).logits[0, len(prompt) - 1 : -1]
        with torch.no_grad():
            theirs = reference(ids).logits[0, len(prompt) - 1 : -1]
        l = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).squeeze(1)  # noqa: E741 - as in the paper
        kl = torch.distributions.kl_divergence(
            torch.distributions.Categorical(logits=logits), torch.distributions.Categorical(logits=theirs)
        )
        total = total + (-row.advantage * (l - l.detach()).exp() + 0.7 * kl).mean() / len(rows)
    close(gradient(learner, groups), policy_gradient(learner, total))
    close(gradient(learner, groups, micro_tokens=30), policy_gradient(learner, total))
    metrics = learner.update(3, groups, lambda: None)
    assert metrics["kl/full"] > 0
    assert metrics["kl/k3"] == pytest.approx(metrics["kl/full"], rel=1.0)  # an estimate of it


def test_the_exact_divergence_is_measured_now_and_then(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, reference_every=2, kl_coefficient=0.01)
    measured = [learner.run_step().get("kl/full") for _ in range(4)]
    assert [m is not None for m in measured] == [False, True, False, True]
    assert 0 < measured[1] < measured[3]


@pytest.mark.parametrize("without", [False, True])
def test_the_entropy_bonus(tmp_path: Path, without: bool) -> None:
    """It reaches the rows that have no advantage too."""
    learner = make_learner(tmp_path, kl_coefficient=0.0, entropy_bonus=0.3)
    groups = sampled(learner)
    if without:
        groups[0].advantages = [0.0] * 4
    rows = rows_of(groups)
    total = torch.zeros(())
    for row in rows:
        prompt, tokens = row.prompt, row.response.tokens
        logits = learner.policy.model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        l = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).squeeze(1)  # noqa: E741 - as in the paper
        entropy = torch.distributions.Categorical(logits=logits).entropy()
        total = total - (row.advantage * (l - l.detach()).exp() + 0.3 * entropy).mean() / len(rows)
    close(gradient(learner, groups), policy_gradient(learner, total))


@pytest.mark.parametrize(
    "values",
    [
        {"ratio_level": "token", "clip_low": 0.1, "clip_high": 0.25},
        {"ratio_level": "sequence", "clip_low": 0.02, "clip_high": 0.03},
        {"loss_aggregation": "token", "clip_high": 0.28},
        {"loss_aggregation": "constant", "advantage_scale": "none"},
    ],
)
def test_ratios_bounds_and_aggregations_off_policy(tmp_path: Path, values: dict[str, Any]) -> None:
    learner = make_learner(tmp_path, kl_coefficient=0.0, **values)
    groups = sampled(learner)
    off_policy(groups)
    rows = rows_of(groups)
    low, high = learner.knobs.number("clip_low"), learner.knobs.number("clip_high")
    tokens = sum(row.response.length for row in rows)
    total = torch.zeros(())
    for row in rows:
        logprobs, _ = by_hand(learner, row)
        log_ratio = logprobs - torch.tensor(row.response.logprobs)
        if values.get("ratio_level") == "sequence":
            log_ratio = log_ratio.mean().expand_as(log_ratio)
        ratio = log_ratio.exp()
        each = torch.minimum(ratio * row.advantage, ratio.clamp(1 - low, 1 + high) * row.advantage)
        aggregation = values.get("loss_aggregation", "response")
        over = {"response": len(rows) * row.response.length, "token": tokens, "constant": len(rows) * 6}[aggregation]
        total = total - each.sum() / over
    close(gradient(learner, groups), policy_gradient(learner, total))


@pytest.mark.parametrize("preset_name", ["deepseekmath", "dapo", "dr-grpo", "gspo"])
def test_every_preset_trains(tmp_path: Path, preset_name: str) -> None:
    from sessions.presets import preset

    learner = make_learner(tmp_path, **preset(preset_name).settings(6))
    for _ in range(2):
        metrics = learner.run_step()
        assert metrics["grad/norm"] > 0
        assert metrics["update/relative_size"] > 0


def test_an_overlong_response_has_a_lower_reward_and_advantage(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, overlong_penalty=3)
    groups = sampled(learner)
    long = [row.response for row in rows_of(groups) if row.response.length == 6]
    assert long
    assert all(r.components["overlong"] == -1 for r in long)
    assert all(r.reward == pytest.approx(r.components["early"] - 1) for r in long)


def test_a_penalty_that_comes_after_sampling_is_in_the_update(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    groups = sampled(learner)
    before = [row.response.reward for row in rows_of(groups)]
    learner.knobs.request(Set(values={"overlong_penalty": 3}), 1)
    learner.knobs.apply("update", 1)
    learner.advantages(groups, {})
    for row, reward in zip(rows_of(groups), before, strict=True):
        over = max(0, row.response.length - 3) / 3
        assert row.response.components["overlong"] == pytest.approx(-over)
        assert row.response.reward == pytest.approx(reward - over)
