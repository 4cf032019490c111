"""A step of learning on a small random policy: what it computes, and what must not change it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.batches import make_batch
from engine.control import Control
from engine.groups import Evaluation
from engine.learner import Learner
from engine.loading import TINY, load_policy
from engine.objectives import GroupRelative
from engine.old_logprobs import OldLogprobs
from engine.optimizer import Optimizer
from engine.passes import Budget, score
from engine.policy import make_accelerator
from engine.randomness import stream
from engine.reference import tally_divergence
from engine.rewards import Component
from engine.rollout import RolloutGroup
from engine.tally import Tally
from engine.tasks import load_task
from engine.truncation import Truncation
from engine.update import NonFinite, Update
from sessions.commands import Set
from tests.engine.small import (
    make_learner,
    newest_checkpoint,
    random_policy,
    same_weights,
    small_task,
    weights_of,
)
from tests.sessions.samples import rating


def constant(prompts, completions, **_):
    return [1.0] * len(completions)


def sampled(learner: Learner, ratings=None) -> list[RolloutGroup]:
    """The groups of the next step with their advantages, up to the update."""
    step = learner.step + 1
    groups = learner.sample(step)
    learner.measure_reference(step, groups)
    learner.advantages(groups, ratings or {})
    return groups


def gradient(learner: Learner, groups: list[RolloutGroup], micro_tokens: int = 16_384) -> list[torch.Tensor]:
    """Of the whole rollout as one minibatch, with the optimizer untouched."""
    kept: list[torch.Tensor] = []
    policy = learner.policy
    optimizer = learner.optimizer

    class Keeping(Optimizer):
        def clip(self) -> float:
            kept.extend(p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in policy.parameters)
            return 1.0

        def step(self) -> None:
            optimizer.clear()

    alone = learner.knobs.whole("epochs") * learner.knobs.whole("minibatches") == 1
    budget = Budget(micro_tokens)
    objective = GroupRelative(
        policy, learner.knobs, learner.reference, OldLogprobs(policy, budget, lambda: None, alone)
    )
    keeping = {"policy": Keeping(policy.parameters, policy.accelerator, learner.knobs)}
    Update(policy, objective, keeping, learner.knobs, Control(), budget, lambda: None).run(groups, 0, 1)
    return kept


# ------------------------------------------------------------------------------------------ the first step


def test_before_the_first_step_the_ratio_is_one_and_the_divergence_zero(tmp_path: Path) -> None:
    metrics = make_learner(tmp_path, kl_coefficient=0.04).run_step()
    assert metrics["sampler_gap/max"] < 1e-4
    assert metrics["ratio/max"] == 1.0
    assert metrics["kl/old_new"] == 0.0
    for name in ("kl/k1", "kl/k2", "kl/k3", "loss/kl", "loss/policy"):
        assert abs(metrics[name]) < 1e-6
    assert metrics["grad/norm"] > 1e-3
    assert metrics["clip/low"] == metrics["clip/high"] == 0
    assert "ratio/first_error" not in metrics


def test_the_embedded_model_too(tmp_path: Path) -> None:
    task = load_task("arithmetic", 0, 50)
    policy = load_policy(TINY, make_accelerator("cpu", "fp32"))
    learner = make_learner(tmp_path, policy=policy, task=task, prompts_per_step=8, group_size=4)
    metrics = learner.run_step()
    assert metrics["sampler_gap/max"] < 1e-4
    assert abs(metrics["kl/k3"]) < 1e-6
    assert 0 < metrics["reward/mean"] < 1


def test_the_gradient_is_minus_a_grad_log_pi(tmp_path: Path) -> None:
    """Each response by itself through the plain model, its mean log-probability times its advantage."""
    learner = make_learner(tmp_path, kl_coefficient=0.0)
    groups = sampled(learner)
    total = torch.zeros(())
    rows = [(g, r, a) for g in groups for r, a in zip(g.record.responses, g.advantages, strict=True)]
    for group, response, advantage in rows:
        prompt = group.record.prompt_tokens
        logits = learner.policy.model(torch.tensor([prompt + response.tokens])).logits[0]
        logprobs = logits[len(prompt) - 1 : -1].log_softmax(-1).gather(1, torch.tensor(response.tokens)[:, None])
        total = total - advantage * logprobs.mean() / len(rows)
    expected = torch.autograd.grad(total, learner.policy.parameters)
    for got, want in zip(gradient(learner, groups), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_the_optimizer_steps_by_the_learning_rate(tmp_path: Path) -> None:
    """The first step of AdamW without decay is lr x sign(gradient), where the gradient is not tiny."""
    learner = make_learner(tmp_path, kl_coefficient=0.0, learning_rate=1e-3, max_grad_norm=1e6)
    before = weights_of(learner.policy)
    groups = sampled(learner)
    expected = gradient(learner, groups)
    learner.update(1, groups, lambda: None)
    for b, a, g in zip(before, weights_of(learner.policy), expected, strict=True):
        large = g.abs() > 1e-4
        torch.testing.assert_close((a - b)[large], (-1e-3 * g.sign())[large], rtol=1e-3, atol=1e-6)


def test_lr_warmup_rises_linearly(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, learning_rate=1e-3, lr_warmup_steps=4)
    rates = [learner.run_step()["learning_rate"] for _ in range(6)]
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-3])


# ---------------------------------------------------------------------------------- what must change nothing


def test_the_same_seed_gives_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    runs = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        learner = make_learner(tmp_path / name, seed=seed)
        metrics = [learner.run_step() for _ in range(3)]
        runs.append((weights_of(learner.policy), [m["reward/mean"] for m in metrics]))
    assert same_weights(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not same_weights(runs[0][0], runs[2][0])


@pytest.mark.parametrize("aggregation", ["response", "token", "constant"])
def test_the_cut_into_micro_batches_does_not_change_the_gradient(tmp_path: Path, aggregation: str) -> None:
    learner = make_learner(tmp_path, loss_aggregation=aggregation, kl_coefficient=0.3)
    learner.run_step()
    groups = sampled(learner)
    whole = gradient(learner, groups)
    scale = max(float(g.abs().max()) for g in whole)
    for micro_tokens in (1, 40, 100):
        for a, b in zip(gradient(learner, groups, micro_tokens), whole, strict=True):
            assert float((a - b).abs().max()) < 1e-6 * max(scale, 1)


def test_the_order_of_groups_does_not_change_the_gradient(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    groups = sampled(learner)
    for a, b in zip(gradient(learner, groups), gradient(learner, groups[::-1]), strict=True):
        assert float((a - b).abs().max()) < 1e-6


def test_dead_groups_give_no_gradient_and_count_in_the_denominator(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, kl_coefficient=0.0)
    groups = sampled(learner)
    whole = gradient(learner, groups)
    for response in groups[0].record.responses:
        response.reward = 0.5
    learner.advantages(groups, {})
    assert groups[0].dead
    assert groups[0].advantages == [0.0] * 4
    with_dead = gradient(learner, groups)
    without = gradient(learner, groups[1:])
    for a, b in zip(with_dead, without, strict=True):
        torch.testing.assert_close(a, 0.75 * b, rtol=1e-4, atol=1e-7)
    assert not same_weights(with_dead, whole)


def test_a_step_of_dead_groups_does_not_step_the_optimizer(tmp_path: Path) -> None:
    task = small_task(function=lambda prompts, completions, **_: [0.0] * len(completions))
    learner = make_learner(tmp_path, task=small_task(), kl_coefficient=0.0)
    learner.run_step()  # the optimizer has momentum now
    learner.task = learner.sampler.task = task
    before, steps = weights_of(learner.policy), learner.optimizer.steps
    metrics = learner.run_step()
    assert same_weights(before, weights_of(learner.policy))
    assert learner.optimizer.steps == steps
    assert metrics["groups/dead_fraction"] == 1
    assert metrics["groups/all_wrong_fraction"] == 1
    for name in ("grad/norm", "update/relative_size", "learning_rate"):
        assert name not in metrics
    assert learner.step == 2
    assert not learner.control.discard()  # it is learned, if nothing came of it


def test_a_failed_response_teaches_nothing(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, kl_coefficient=0.0)
    groups = sampled(learner)
    response = groups[0].record.responses[2]
    response.failed, response.reward = "early: raised", None
    learner.advantages(groups, {})
    assert groups[0].advantages[2] == 0
    others = [r.reward for i, r in enumerate(groups[0].record.responses) if i != 2]
    mean = sum(others) / 3
    std = math.sqrt(sum((r - mean) ** 2 for r in others) / 2)
    expected = [(r - mean) / (std + 1e-4) for r in others]
    assert [a for i, a in enumerate(groups[0].advantages) if i != 2] == pytest.approx(expected)
    tokens = response.tokens
    before = gradient(learner, groups)
    response.tokens = [t + 1 for t in tokens]
    assert same_weights(before, gradient(learner, groups))


def test_a_component_that_raises_excludes_its_rows_and_the_run_goes_on(tmp_path: Path) -> None:
    def broken(prompts, completions, **_):
        raise RuntimeError("no")

    learner = make_learner(tmp_path, task=small_task(broken=Component(broken)))
    metrics = learner.run_step()
    assert metrics["response/failed"] == 16
    assert "reward/mean" not in metrics
    assert metrics["groups/dead_fraction"] == 1
    assert metrics["reward/early"] > 0


# ---------------------------------------------------------------------------------- epochs and minibatches


def test_epochs_and_minibatches(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, epochs=2, minibatches=2, learning_rate=1e-2)
    seen: list[RolloutGroup] = []
    sample = learner.sample
    learner.sample = lambda step: seen.extend(sample(step)) or seen  # type: ignore[method-assign]
    metrics = learner.run_step()
    for group in seen:  # of every minibatch
        for response in group.record.responses:
            assert len(response.entropies) == len(response.tokens)
    assert learner.optimizer.steps == 4
    assert "ratio/first_error" not in metrics  # l_old is the first forward pass itself, or the sampler's
    assert metrics["sampler_gap/max"] < 1e-4
    assert metrics["ratio/max"] > 1.0
    assert metrics["kl/old_new"] > 0


def test_minibatches_are_their_own_denominators(tmp_path: Path) -> None:
    """Without a step between, the two halves together are twice the whole."""
    learner = make_learner(tmp_path, minibatches=2, kl_coefficient=0.0, learning_rate=0.0)
    groups = sampled(learner)
    halves = gradient(learner, groups)
    count = len(learner.policy.parameters)
    learner.knobs.request(Set(values={"minibatches": 1}), 1)
    learner.knobs.apply("update", 1)
    whole = gradient(learner, groups)
    for i in range(count):
        torch.testing.assert_close(halves[i] + halves[count + i], 2 * whole[i], rtol=1e-4, atol=1e-6)


def test_a_dead_first_minibatch_does_not_hide_the_sampler_gap(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, minibatches=4, kl_coefficient=0.0)
    groups = sampled(learner)
    for group in groups[:3]:
        for response in group.record.responses:
            response.reward = 1.0
    learner.advantages(groups, {})
    metrics = learner.update(1, groups, lambda: None)
    assert learner.optimizer.steps == 1
    assert metrics["sampler_gap/max"] < 1e-4
    assert "ratio/first_error" not in metrics  # l_old is the first forward pass itself, or the sampler's


# ----------------------------------------------------------------------------------------- the divergence


def test_the_divergence_in_the_reward(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, kl_placement="reward", kl_estimator="k1", kl_coefficient=0.5)
    learner.run_step()
    step = 2
    groups = learner.sample(step)
    learner.measure_reference(step, groups)
    learner.advantages(groups, {})
    for group in groups:
        adjusted = []
        for r in group.record.responses:
            assert len(r.reference_logprobs) == r.length
            k1 = sum(a - b for a, b in zip(r.logprobs, r.reference_logprobs, strict=True))
            adjusted.append(r.reward - 0.5 * k1)
        mean = sum(adjusted) / 4
        std = math.sqrt(sum((x - mean) ** 2 for x in adjusted) / 3)
        assert group.advantages == pytest.approx([(x - mean) / (std + 1e-4) for x in adjusted], abs=1e-5)
    assert learner.update(step, groups, lambda: None)["loss/kl"] == 0


def test_the_reference_is_checkpoint_zero(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    frozen = random_policy()
    learner.run_step()
    groups = sampled(learner)
    group = groups[0].record
    response = group.responses[0]
    with torch.no_grad():
        logits = frozen.model(torch.tensor([group.prompt_tokens + response.tokens])).logits[0]
    expected = logits[len(group.prompt_tokens) - 1 : -1].log_softmax(-1)
    expected = expected.gather(1, torch.tensor(response.tokens)[:, None]).squeeze(1)
    assert response.reference_logprobs == pytest.approx(expected.tolist(), abs=1e-5)
    metrics = learner.update(2, groups, lambda: None)
    assert metrics["kl/k2"] > 0
    assert response.kl is not None


def test_without_a_coefficient_it_is_measured_now_and_then(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, kl_coefficient=0.0, reference_every=2)
    measured = ["kl/k3" in learner.run_step() for _ in range(4)]
    assert measured == [False, True, False, True]


def test_a_coefficient_that_comes_at_the_minibatch_finds_the_reference_measured(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, kl_coefficient=0.0, reference_every=0)
    learner.run_step()
    step = 2
    groups = sampled(learner)
    learner.knobs.request(Set(values={"kl_coefficient": 0.04}), step)
    metrics = learner.update(step, groups, lambda: learner.knobs.apply("minibatch", step))
    assert 0 < metrics["loss/kl"] < 0.01
    assert metrics["kl/k3"] < 0.1


def test_refreshing_the_reference(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, reference_refresh_steps=2)
    divergences = [learner.run_step()["kl/k3"] for _ in range(5)]
    assert divergences[1] > 1e-6
    assert abs(divergences[2]) < 1e-6  # step 2 ended with a refresh
    assert divergences[3] > 1e-6
    assert abs(divergences[4]) < 1e-6
    assert learner.reference.refreshed == 4


# ------------------------------------------------------------------------------------------------ ratings


def test_a_rating_changes_the_next_update(tmp_path: Path) -> None:
    plain, rated = (make_learner(tmp_path / name) for name in "ab")
    plain.update(1, sampled(plain), lambda: None)
    said = rating(1, 2, values={"B": 5.0})
    groups = sampled(rated, {"1.2": [said]})
    group = groups[1].record
    automatic = [r.reward for r in group.responses]
    rewards = [automatic[0], 1.0, automatic[2], automatic[3]]
    mean = sum(rewards) / 4
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / 3)
    assert groups[1].advantages == pytest.approx([(r - mean) / (std + 1e-4) for r in rewards])
    assert groups[1].automatic != groups[1].advantages
    assert groups[0].automatic == groups[0].advantages
    assert [r.rated_reward for r in group.responses] == [None, 1.0, None, None]
    assert group.responses[1].advantage == groups[1].advantages[1]
    assert group.responses[1].automatic_advantage == groups[1].automatic[1]
    metrics = rated.update(1, groups, lambda: None)
    assert metrics["reward/mean"] > metrics["reward/automatic"]
    assert not same_weights(weights_of(plain.policy), weights_of(rated.policy))


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_human_weight(tmp_path: Path, weight: float) -> None:
    learner = make_learner(tmp_path, human_weight=weight)
    groups = sampled(learner, {"1.1": [rating(1, 1, values={"A": 5.0})]})
    response = groups[0].record.responses[0]
    if weight:
        assert response.rated_reward == pytest.approx(0.5 * response.reward + 0.5)
    else:
        assert response.rated_reward is None
        assert groups[0].advantages == groups[0].automatic


def test_a_group_rated_alike_is_dead(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    groups = sampled(learner, {"1.1": [rating(1, 1, values=dict.fromkeys("ABCD", 5.0))]})
    assert groups[0].dead
    assert any(groups[0].automatic)


def test_a_late_group_joins_with_its_own_ratio(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, learning_rate=3e-3, kl_coefficient=0.0, clip_low=1.0, clip_high=100.0)
    learner.run_step()
    old = learner.sample(2)
    learner.advantages(old, {})
    learner.update(2, old, lambda: None)
    record = old[0].record
    drift = learner.drift(record)
    assert 0 < drift < 0.2
    (late,) = learner.late_groups([record])
    assert late.late
    fresh = learner.sample(3)
    said = {record.name: [rating(2, 1, values={"A": 5.0, "B": 1.0})]}
    learner.advantages([*fresh, late], said)
    assert late.advantages != late.automatic

    ratios, gaps = [], []
    for response in record.responses:
        batch = make_batch([record.prompt_tokens], [response.tokens], [1.0], 0, torch.device("cpu"))
        with torch.no_grad():
            now = learner.policy.scorer(batch)[0][0].tolist()
        ratios += [math.exp(a - b) for a, b in zip(now, response.logprobs, strict=True)]
        gaps += [math.exp(a - b) - 1 - (a - b) for a, b in zip(now, response.logprobs, strict=True)]
    assert drift == pytest.approx(sum(gaps) / len(gaps), rel=1e-3)

    metrics = learner.update(3, [*fresh, late], lambda: None)
    assert metrics["ratio/max"] == pytest.approx(max([1.0, *ratios]), rel=1e-5)
    assert metrics["sampler_gap/max"] < 1e-4  # of the fresh groups only
    assert metrics["groups/late"] == 1


def test_the_divergence_is_measured_on_fresh_groups_only(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    groups = sampled(learner)
    (late,) = learner.late_groups([groups[0].record])
    tally = Tally()
    tally_divergence([late], tally)
    assert tally.results(learner.policy.accelerator) == {}
    tally_divergence(groups, tally)
    assert set(tally.results(learner.policy.accelerator)) == {"kl/k1", "kl/k2", "kl/k3"}


def test_a_late_group_of_before_a_refresh_is_measured_again(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, reference_refresh_steps=1)
    groups = sampled(learner)
    learner.update(1, groups, lambda: None)
    record = groups[0].record
    assert record.responses[0].reference_logprobs
    (late,) = learner.late_groups([record])
    assert not record.responses[0].reference_logprobs
    learner.measure_reference(2, [late])
    now = learner.policy.scorer(
        make_batch([record.prompt_tokens], [record.responses[0].tokens], [1.0], 0, torch.device("cpu"))
    )[0]
    assert record.responses[0].reference_logprobs == pytest.approx(now[0].tolist(), abs=1e-5)


# ------------------------------------------------------------------------------------------- what goes wrong


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    learner.run_step()
    before, steps = weights_of(learner.policy), learner.optimizer.steps
    handle = learner.policy.parameters[0].register_hook(lambda grad: grad * math.nan)
    with pytest.raises(NonFinite, match="minibatch 1 of 1"):
        learner.run_step()
    handle.remove()
    assert same_weights(before, weights_of(learner.policy))
    assert learner.optimizer.steps == steps
    assert learner.step == 1
    assert all(p.grad is None for p in learner.policy.parameters)
    learner.take_on()
    assert learner.run_step()["grad/norm"] > 0


# --------------------------------------------------------------------------------------- prompts and resuming


def test_prompts_follow_the_cursor(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, prompts_per_step=5)
    order = [p.id for p in learner.task.take(0, 0, 15)]
    for step in (1, 2, 3):
        groups = sampled(learner)
        assert [g.record.prompt_id for g in groups] == order[5 * step - 5 : 5 * step]
        assert [g.record.name for g in groups] == [f"{step}.{i}" for i in range(1, 6)]
        learner.update(step, groups, lambda: None)


def test_a_prompt_twice_in_a_step_is_sampled_anew(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, task=small_task(prompts=1), prompts_per_step=2)
    one, two = learner.sample(1)
    assert one.record.prompt_id == two.record.prompt_id
    assert [r.tokens for r in one.record.responses] != [r.tokens for r in two.record.responses]


def test_a_prompt_that_takes_a_dead_groups_place_is_sampled_anew(tmp_path: Path) -> None:
    def reward(prompts: list[str], completions: list[str], answer: list[str], **_: Any) -> list[float]:
        return [0.0 if int(answer[0]) < 2 else i / 10 for i in range(len(completions))]

    learner = make_learner(tmp_path, task=small_task(4, reward), dynamic_sampling=3)
    groups = learner.sample(1)
    every = [*learner.replaced, *groups]
    assert len(every) > len({g.record.prompt_id for g in every})  # a task of four prompts asks some again
    assert len({tuple(tuple(r.tokens) for r in g.record.responses) for g in every}) == len(every)


def test_a_step_that_was_dropped_is_sampled_anew_resumed_or_not(tmp_path: Path) -> None:
    learner = make_learner(tmp_path / "a", task=small_task(4))
    tries = [learner.sample(1)]
    learner.take_on()
    learner.save("test")
    resumed = make_learner(tmp_path / "b", task=small_task(4), save=False)
    resumed.load(newest_checkpoint(tmp_path / "a"))
    tries += [learner.sample(1, 5), resumed.sample(1, 5)]
    first, second, again = ({tuple(tuple(r.tokens) for r in g.record.responses) for g in groups} for groups in tries)
    assert not first & second  # of the same four prompts
    assert again == second


def test_a_prompt_in_another_step_is_sampled_anew(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, task=small_task(prompts=4), learning_rate=0.0)
    seen = []
    for step in (1, 2):
        groups = sampled(learner)
        seen.append({g.record.prompt_id: [r.tokens for r in g.record.responses] for g in groups})
        learner.update(step, groups, lambda: None)
    assert set(seen[0]) == set(seen[1])
    assert all(seen[0][name] != seen[1][name] for name in seen[0])


def test_a_dropped_step_takes_the_next_prompts(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    first = learner.sample(1)
    learner.take_on()
    second = learner.sample(1, first_number=5)
    assert not {g.record.prompt_id for g in first} & {g.record.prompt_id for g in second}
    assert [g.record.number for g in second] == [5, 6, 7, 8]


@pytest.mark.parametrize("refresh", [0, 2])
def test_saved_and_loaded_it_goes_on_bit_for_bit(tmp_path: Path, refresh: int) -> None:
    values = {"reference_refresh_steps": refresh, "lr_warmup_steps": 10}
    whole = make_learner(tmp_path / "whole", **values)
    for _ in range(3):
        whole.run_step()
    whole.save("half way")
    expected = [whole.run_step() for _ in range(2)]

    other = make_learner(tmp_path / "whole", policy=random_policy(seed=9), save=False, **values)
    other.load(newest_checkpoint(tmp_path / "whole"))
    assert (other.step, other.cursor, other.optimizer.steps) == (3, 12, 3)
    found = [other.run_step() for _ in range(2)]
    assert same_weights(weights_of(whole.policy), weights_of(other.policy))
    for a, b in zip(expected, found, strict=True):
        assert {k: v for k, v in a.items() if k != "memory/peak"} == {k: v for k, v in b.items() if k != "memory/peak"}


@pytest.mark.parametrize("held_out", [{}, {"eval_temperature": 0.8, "eval_top_p": 0.9}])
def test_saving_and_evaluating_change_nothing(tmp_path: Path, held_out: dict[str, float]) -> None:
    plain, watched = make_learner(tmp_path / "a"), make_learner(tmp_path / "b", **held_out)
    for _ in range(2):
        plain.run_step()
        watched.evaluate()
        watched.run_step()
        watched.save("test")
    assert same_weights(weights_of(plain.policy), weights_of(watched.policy))


def test_a_checkpoint_while_sampling_samples_the_same_prompts_again(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    learner.run_step()
    groups = learner.sample(2)
    learner.save("in between")
    other = make_learner(tmp_path, save=False)
    other.load(tmp_path / "1")
    again = other.sample(2)
    assert [[r.tokens for r in g.record.responses] for g in again] == [
        [r.tokens for r in g.record.responses] for g in groups
    ]


def test_evaluation_is_greedy_and_judged(tmp_path: Path) -> None:
    task = load_task("arithmetic", 0, 40)
    policy = load_policy(TINY, make_accelerator("cpu", "fp32"))
    learner = make_learner(tmp_path, policy=policy, task=task, save=False)
    right = tokens = 0
    for prompt in task.evaluation:
        ids = torch.tensor([policy.encode_prompt(prompt.text)])
        with torch.no_grad():
            out = policy.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        answer = out[0, ids.shape[1] :].tolist()
        right += policy.decode(answer).strip() == prompt.answer
        tokens += len(answer)
    evaluation = learner.evaluate()
    assert evaluation.accuracy == pytest.approx(right / 40)
    assert evaluation.length == pytest.approx(tokens / 40)


def test_evaluation_with_a_temperature_draws_from_a_stream_of_each_prompt(tmp_path: Path) -> None:
    """Against one row at a time without a cache, with the numbers of (seed, "evaluation", prompt)."""
    held_out = {"eval_temperature": 1.4, "eval_top_k": 6, "eval_top_p": 0.95, "eval_min_p": 0.01}
    task, policy = load_task("arithmetic", 0, 12), load_policy(TINY, make_accelerator("cpu", "fp32"))
    learner = make_learner(tmp_path, policy=policy, task=task, save=False, seed=3, **held_out)
    right = tokens = 0
    for prompt in task.evaluation:
        ids, answer = policy.encode_prompt(prompt.text), []
        for u in stream("evaluation", 3, prompt.id).random(6):
            with torch.no_grad():
                logits = policy.model(torch.tensor([ids + answer])).logits[0, -1] / 1.4
            p = Truncation(6, 0.95, 0.01)(logits.log_softmax(-1)).double().exp()
            answer.append(int((p.cumsum(0) <= u).sum()))
            if answer[-1] in policy.end_tokens:
                break
        right += policy.decode(answer).strip() == prompt.answer
        tokens += len(answer)
    evaluation = learner.evaluate()
    assert evaluation.accuracy == pytest.approx(right / 12)
    assert evaluation.length == pytest.approx(tokens / 12)
    assert learner.evaluate() == evaluation

    def other(**values: float) -> Evaluation:
        return make_learner(tmp_path, policy=policy, task=task, save=False, **values).evaluate()

    greedy = other(eval_top_p=0.5)
    assert other(eval_temperature=4.0) != greedy
    for only_the_likeliest in ({"eval_top_k": 1}, {"eval_top_p": 1e-6}, {"eval_min_p": 1.0}):
        assert other(eval_temperature=4.0, **only_the_likeliest) == greedy


@pytest.mark.parametrize("cut", [{"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.2}])
def test_a_truncated_sampler_is_recorded_as_what_it_is(tmp_path: Path, cut: dict[str, float]) -> None:
    whole, learner = make_learner(tmp_path / "a"), make_learner(tmp_path / "b", **cut)
    assert whole.run_step()["sampler_gap/max"] < 1e-4
    groups = sampled(learner)
    for group in groups:
        for row in group.rows():
            under_policy = score(learner.policy, learner.policy.plain_scorer, [row])[0]
            under_sampler = row.response.logprobs
            assert all(s >= p - 1e-5 for s, p in zip(under_sampler, under_policy, strict=True))
    metrics = learner.update(1, groups, lambda: None)
    assert metrics["sampler_gap/max"] > 0.05
