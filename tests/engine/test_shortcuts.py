"""Each shortcut of the update against the plain way: the same metrics and weights after the same steps."""

import copy
from pathlib import Path

import pytest
import torch

from engine.learner import Learner
from engine.policy import Policy
from sessions.shortcuts import active
from tests.engine.small import make_learner, random_policy

REWARD = {"kl_placement": "reward", "kl_estimator": "k1"}
CASES = {
    "grpo": {"kl_coefficient": 0.04},
    "grpo without a reference": {"kl_coefficient": 0.0},
    "grpo, several steps": {"kl_coefficient": 0.0, "epochs": 2, "minibatches": 2},
    "grpo, exact divergence": {"kl_coefficient": 0.04, "kl_estimator": "full"},
    "grpo, entropy bonus": {"kl_coefficient": 0.0, "entropy_bonus": 0.05},
    "gspo": {"ratio_level": "sequence", "kl_coefficient": 0.0, "epochs": 2, "clip_low": 3e-4, "clip_high": 4e-4},
    "ppo": {"algorithm": "ppo", **REWARD, "value_warmup_steps": 0, "epochs": 2, "stop_kl": 0.0},
    "ppo, shared": {"algorithm": "ppo", **REWARD, "value_warmup_steps": 0, "value_model": "shared"},
    "ppo, separate": {"algorithm": "ppo", **REWARD, "value_warmup_steps": 0, "value_model": "separate"},
    "trpo": {"algorithm": "trpo", **REWARD, "damping": 0.1},
}
UPDATE = ("tree", "skip_zero", "sampler_logprobs", "chunked_logits", "fused_adamw")


def policy_with(plain: tuple[str, ...]) -> Policy:
    made = random_policy(spread=2.5)
    shortcuts = active(plain)
    return Policy(made.model, made.tokenizer, made.accelerator, shortcuts=shortcuts)


def trained(folder: Path, plain: tuple[str, ...], **values: object) -> tuple[dict[str, float], Learner]:
    learner = make_learner(folder, policy=policy_with(plain), **values)
    metrics = {}
    for _ in range(2):
        metrics = learner.run_step()
    return metrics, learner


def compare(folder: Path, plain: tuple[str, ...], **values: object) -> None:
    fast, with_it = trained(folder / "fast", (), **values)
    slow, without = trained(folder / "plain", plain, **values)
    assert with_it.policy.packs
    left_out = {"memory/peak", "trpo/product_error", "ratio/first_error"}
    for name in slow.keys() - left_out:
        assert fast[name] == pytest.approx(slow[name], rel=2e-3, abs=1e-4), name
    for a, b in zip(with_it.policy.parameters, without.policy.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_all_of_them_together_learn_what_the_plain_way_learns(tmp_path: Path, case: str) -> None:
    compare(tmp_path, UPDATE, **CASES[case])


@pytest.mark.parametrize("name", UPDATE)
def test_each_of_them_alone_learns_what_the_plain_way_learns(tmp_path: Path, name: str) -> None:
    compare(tmp_path, (name,), kl_coefficient=0.0, epochs=2, minibatches=2)


def test_responses_without_an_advantage_are_left_out_only_where_nothing_else_reaches_them(tmp_path: Path) -> None:
    for values, left_out in (
        ({"kl_coefficient": 0.0}, True),
        ({"kl_coefficient": 0.01}, False),
        ({"kl_coefficient": 0.0, "entropy_bonus": 0.1}, False),
    ):
        learner = make_learner(tmp_path / str(len(values)) / str(left_out), **values)
        scored: list[int] = []
        inner = learner.policy.scorer.forward

        def counting(batch, scored=scored, inner=inner, **wanted):
            scored.append(len(batch.mask))
            return inner(batch, **wanted)

        learner.policy.scorer.forward = counting  # type: ignore[method-assign]
        groups = learner.sample(1)
        for response in groups[0].record.responses:
            response.reward = 1.0
        learner.measure_reference(1, groups)
        learner.advantages(groups, {})
        learner.update(1, groups, lambda: None)
        assert sum(scored) == (12 if left_out else 16)


def test_leaving_responses_out_leaves_the_denominators_alone(tmp_path: Path) -> None:
    moved = []
    for plain in ((), ("skip_zero",)):
        learner = make_learner(tmp_path / str(len(plain)), policy=policy_with(plain), kl_coefficient=0.0)
        groups = learner.sample(1)
        for group in groups[:2]:
            for response in group.record.responses:
                response.reward = 0.5
        learner.advantages(groups, {})
        before = copy.deepcopy([p.detach() for p in learner.policy.parameters])
        metrics = learner.update(1, groups, lambda: None)
        steps = [p.detach() - b for p, b in zip(learner.policy.parameters, before, strict=True)]
        moved.append((metrics["grad/norm"], metrics["loss/policy"], torch.cat([s.reshape(-1) for s in steps])))
    assert moved[0][:2] == pytest.approx(moved[1][:2], rel=1e-4, abs=1e-7)
    torch.testing.assert_close(moved[0][2], moved[1][2], rtol=1e-3, atol=1e-6)


def test_the_entropy_is_of_every_response_whether_it_is_trained_on_or_not(tmp_path: Path) -> None:
    found = []
    for plain in ((), ("skip_zero",)):
        learner = make_learner(tmp_path / str(len(plain)), policy=policy_with(plain), kl_coefficient=0.0)
        groups = learner.sample(1)
        for group in groups[:3]:
            for response in group.record.responses:
                response.reward = 0.5
        learner.advantages(groups, {})
        found.append(learner.update(1, groups, lambda: None)["entropy"])
        for group in groups:
            assert all(len(r.entropies) == len(r.tokens) for r in group.record.responses)
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_step_whose_groups_are_all_dead_has_an_entropy_all_the_same(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, kl_coefficient=0.0)
    groups = learner.sample(1)
    for group in groups:
        for response in group.record.responses:
            response.reward = 0.5
    learner.advantages(groups, {})
    metrics = learner.update(1, groups, lambda: None)
    assert metrics["update/optimizer_steps"] == 0
    responses = [r for group in groups for r in group.record.responses]
    tokens = [value for group in groups for row in group.entropies for value in row]
    assert metrics["entropy"] == pytest.approx(sum(tokens) / sum(len(r.tokens) for r in responses))
