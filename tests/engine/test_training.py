"""PPO, TRPO and GRPO on one small policy: what each step computes, what a switch keeps, and what a try leaves alone."""

from __future__ import annotations

import gc
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import memory, optimizer
from engine.algorithms.surrogate import Denominators
from engine.control import Control, Discarded
from engine.learner import Learner
from engine.memory import check_memory
from engine.objectives import Proximal
from engine.old_logprobs import OldLogprobs
from engine.old_policy import OldPolicy
from engine.passes import batch_of
from engine.preview import own_copies, preview
from engine.rollout import RolloutGroup, Row
from engine.tally import Tally
from engine.training import Training
from engine.update import NonFinite
from sessions.commands import Set
from sessions.errors import Refused
from tests.engine.small import (
    make_knobs,
    make_learner,
    newest_checkpoint,
    random_policy,
    same_weights,
    small_task,
    weights_of,
)
from tests.engine.test_fisher import TOKENS, explicit_fisher, no_second_derivative
from tests.sessions.samples import rating

REWARD: dict[str, Any] = {"kl_placement": "reward", "kl_estimator": "k1", "kl_coefficient": 0.0}
PPO: dict[str, Any] = {"algorithm": "ppo", **REWARD, "value_warmup_steps": 0}
TRPO: dict[str, Any] = {"algorithm": "trpo", **REWARD, "fisher_product": "exact"}


def sampled(learner: Learner, ratings: Any = None) -> list[RolloutGroup]:
    """The groups of the next step with their advantages, up to the update."""
    step = learner.step + 1
    learner.knobs.begin_step(step)
    learner.knobs.apply("rollout", step)
    groups = learner.sample(step)
    learner.measure_reference(step, groups)
    learner.advantages(groups, ratings or {})
    return groups


def rows_of(groups: list[RolloutGroup]) -> list[Row]:
    return [row for group in groups for row in group.rows()]


def by_hand(learner: Learner, row: Row) -> tuple[Tensor, Tensor]:
    """Log-probabilities and final states before each token of one response, from the plain model."""
    prompt, tokens = row.prompt, row.response.tokens
    output = learner.policy.model(torch.tensor([prompt + tokens]), output_hidden_states=True)
    logits = output.logits[0, len(prompt) - 1 : -1]
    logprobs = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).squeeze(1)
    return logprobs, output.hidden_states[-1][0, len(prompt) - 1 : -1]


# --------------------------------------------------------------------------------------------- the value model


def test_the_articles_discounted_prefixes_are_recorded(tmp_path: Path) -> None:
    """Score 0.8, gamma 0.9, lambda 1: 0.8, 0.72, 0.648 going back from the last token."""
    task = small_task(function=lambda prompts, completions, **_: [0.8] * len(completions))
    learner = make_learner(tmp_path, task=task, **PPO, gamma=0.9, gae_lambda=1.0)
    groups = sampled(learner)
    responses = [row.response for row in rows_of(groups)]
    assert max(r.length for r in responses) >= 3
    for response in responses:
        back = response.returns[::-1]
        assert back == pytest.approx([0.8 * 0.9**n for n in range(response.length)], rel=1e-6)
        assert len(response.values) == len(response.advantages) == response.length


def test_values_are_read_before_their_token(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, **PPO)
    for _ in range(2):
        learner.run_step()
    groups = sampled(learner)
    head = learner.training.value_model.head
    assert float(head.weight.detach().norm()) > 0
    for row in rows_of(groups)[:6]:
        hidden = by_hand(learner, row)[1].detach()
        direction = hidden / hidden.norm(dim=-1, keepdim=True)
        want = direction @ head.weight[0].detach() + head.bias.detach()
        assert row.response.values == pytest.approx(want.tolist(), abs=1e-5)


def test_it_begins_at_the_mean_score(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, **PPO)
    groups = sampled(learner)
    scores = [row.response.reward for row in rows_of(groups)]
    values = [v for row in rows_of(groups) for v in row.response.values]
    assert values == pytest.approx([sum(scores) / len(scores)] * len(values), rel=1e-5)


def test_a_step_without_rewards_is_none_of_its_warm_up(tmp_path: Path) -> None:
    task = small_task(function=lambda prompts, completions, **_: [None] * len(completions))
    learner = make_learner(tmp_path, task=task, **{**PPO, "value_warmup_steps": 2})
    assert learner.run_step()["value/warmup_left"] == 2
    assert learner.training.value_model.updates == 0  # so that it still begins at the mean score


def test_it_learns_what_can_be_predicted(tmp_path: Path) -> None:
    """The score depends on the prompt alone, which every state knows."""
    task = small_task(2, lambda prompts, completions, **_: [float(p == "0+0=") for p in prompts])
    learner = make_learner(
        tmp_path, task=task, **{**PPO, "value_warmup_steps": 1000, "value_learning_rate": 0.1, "value_clip": 0.0}
    )
    explained = [learner.run_step()["value/explained_variance"] for _ in range(40)]
    assert abs(explained[0]) < 1e-6  # one value for everything explains nothing
    assert explained[-1] > 0.5


@pytest.mark.parametrize("kind", ["head", "shared", "separate"])
def test_in_its_warm_up_the_policy_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    learner = make_learner(tmp_path, **{**PPO, "value_warmup_steps": 2, "value_model": kind})
    before = weights_of(learner.policy)
    left = []
    for _ in range(2):
        metrics = learner.run_step()
        left.append(metrics["value/warmup_left"])
        assert "grad/norm" not in metrics
        assert metrics["value/grad_norm"] > 0
    assert left == [1.0, 0.0]
    assert same_weights(before, weights_of(learner.policy))
    assert learner.run_step()["grad/norm"] > 0
    assert not same_weights(before, weights_of(learner.policy))


def gradients(learner: Learner, rows: list[Row]) -> tuple[list[Tensor], list[Tensor]]:
    """Of PPO's loss on all rows as one micro-batch: the policy's and the head's."""
    value_model = learner.training.value_model
    old = OldLogprobs(learner.policy, learner.training.budget, lambda: None, alone=False)
    objective = Proximal(learner.policy, learner.knobs, value_model, old)
    over = Denominators(len(rows), sum(len(r.response.tokens) for r in rows), 6)
    total = objective.part(rows, over, Tally(), first=True).total
    named = [*learner.policy.parameters, *value_model.head.parameters()]
    found = torch.autograd.grad(total, named, allow_unused=True)
    found = [torch.zeros_like(p) if g is None else g for g, p in zip(found, named, strict=True)]
    return found[:-2], found[-2:]


@pytest.mark.parametrize("kind", ["head", "shared"])
def test_the_gradient_of_ppo_token_by_token(tmp_path: Path, kind: str) -> None:
    """Each response by itself through the plain model; only a shared value model reaches the policy's trunk."""
    learner = make_learner(tmp_path, **{**PPO, "value_model": kind, "value_coefficient": 0.3, "value_clip": 0.0})
    for _ in range(2):
        learner.run_step()
    rows = rows_of(sampled(learner))
    for row in rows:  # off-policy, so that both bounds cut
        learner_old = [old + 0.4 * math.sin(7 * i + row.place) for i, old in enumerate(row.old)]
        row.group.old_logprobs[row.place] = learner_old
    head = learner.training.value_model.head
    tokens = sum(row.response.length for row in rows)
    policy = value = torch.zeros(())
    for row in rows:
        logprobs, hidden = by_hand(learner, row)
        for t in range(row.response.length):
            ratio = (logprobs[t] - row.old[t]).exp()
            a = row.response.advantages[t]
            policy = policy + torch.maximum(-a * ratio, -a * ratio.clamp(0.8, 1.2)) / tokens
            v = (hidden[t] / hidden[t].norm()) @ head.weight[0] + head.bias[0]
            value = value + 0.5 * (v - row.response.returns[t]) ** 2 / tokens
    of_policy = torch.autograd.grad(policy, learner.policy.parameters, retain_graph=True)
    of_value = torch.autograd.grad(value, learner.policy.parameters, retain_graph=True)
    of_head = torch.autograd.grad(value, list(head.parameters()))
    weight = 0.3 if kind == "shared" else 0.0
    got, got_head = gradients(learner, rows)
    for mine, p, v in zip(got, of_policy, of_value, strict=True):
        torch.testing.assert_close(mine, p + weight * v, rtol=1e-3, atol=1e-6)
    for mine, want in zip(got_head, of_head, strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["head", "shared", "separate"])
def test_the_cut_into_micro_batches_changes_nothing(tmp_path: Path, kind: str) -> None:
    outcomes = []
    for name, micro_tokens in (("whole", 16_384), ("cut", 30)):
        values = {**PPO, "value_model": kind, "epochs": 2, "minibatches": 2}
        learner = make_learner(tmp_path / name, micro_tokens=micro_tokens, **values)
        metrics = learner.run_step()
        outcomes.append((weights_of(learner.policy), learner.training.value_model.tensors(), metrics))
    for a, b in zip(outcomes[0][0], outcomes[1][0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)
    for name, tensor in outcomes[0][1].items():
        torch.testing.assert_close(tensor, outcomes[1][1][name], rtol=1e-3, atol=2e-5)
    for name, value in outcomes[0][2].items():
        if name != "memory/peak":
            assert outcomes[1][2][name] == pytest.approx(value, rel=2e-3, abs=1e-4), name


def test_a_separate_model_leaves_the_policys_trunk_alone(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, **{**PPO, "value_model": "separate", "value_learning_rate": 1e-3})
    learner.run_step()
    trunk = learner.training.value_model.trunk
    before = [p.detach().clone() for p in trunk.parameters()]
    own = {p.data_ptr() for p in trunk.parameters()}
    assert not own & {p.data_ptr() for p in learner.policy.parameters}
    learner.run_step()
    assert not same_weights(before, list(trunk.parameters()))


def test_another_kind_starts_a_new_one(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, **PPO)
    learner.run_step()
    first = learner.training.value_model
    learner.run_step()
    assert learner.training.value_model is first
    learner.knobs.request(Set(values={"value_model": "shared"}), learner.step)
    learner.run_step()
    assert learner.training.value_model is not first
    assert learner.training.value_model.kind == "shared"


# -------------------------------------------------------------------------------------------------- PPO's update


def test_it_stops_when_the_policy_has_moved(tmp_path: Path) -> None:
    steps = {}
    for stop in (0.0, 1e-7):
        learner = make_learner(tmp_path / str(stop), **PPO, epochs=3, minibatches=2, stop_kl=stop)
        steps[stop] = learner.run_step()["update/optimizer_steps"]
    assert steps[0.0] == 6
    assert 1 <= steps[1e-7] < 6


def test_where_a_late_group_comes_from_does_not_stop_it(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, **PPO, learning_rate=3e-3, epochs=2, stop_kl=0.0)
    record = sampled(learner)[0].record
    for _ in range(3):
        learner.run_step()
    drift = learner.drift(record)
    learner.knobs.request(Set(values={"stop_kl": drift / 100, "learning_rate": 1e-7}), learner.step)
    learner.knobs.apply("update", 4)
    groups = [*sampled(learner), *learner.late_groups([record])]
    learner.advantages(groups, {})
    metrics = learner.update(4, groups, lambda: (learner.knobs.apply("minibatch", 4), None)[1])
    assert metrics["update/optimizer_steps"] == 2
    assert metrics["kl/old_new"] < drift / 100
    assert metrics["ratio/min"] < 0.9  # of the late group


def test_the_divergence_is_a_reward_of_every_token(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, **{**PPO, "kl_coefficient": 0.5, "gae_lambda": 1.0, "value_warmup_steps": 1})
    for _ in range(3):
        learner.run_step()
    moved = False
    for row in rows_of(sampled(learner)):
        r = row.response
        togo = r.reward
        for t in reversed(range(r.length)):
            togo -= 0.5 * (row.old[t] - r.reference_logprobs[t])
            assert r.returns[t] == pytest.approx(togo, abs=1e-5)
        moved = moved or abs(togo - r.reward) > 1e-3
    assert moved


def test_advantages_are_white_over_all_tokens(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, **PPO)
    advantages = torch.tensor([a for row in rows_of(sampled(learner)) for a in row.response.advantages])
    assert float(advantages.mean()) == pytest.approx(0, abs=1e-6)
    assert float(advantages.var()) == pytest.approx(1, rel=1e-5)


def test_the_coefficient_follows_its_target(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, **{**PPO, "kl_coefficient": 0.1}, kl_target=1e-6)
    for _ in range(3):
        learner.run_step()
    assert learner.knobs.number("kl_coefficient") > 0.1  # far over the target, by 0.2 x 16 / 10000 a step at most
    assert learner.knobs.number("kl_coefficient") <= 0.1 * (1 + 0.2 * 16 / 10_000) ** 3


def test_a_response_without_a_reward_teaches_nobody(tmp_path: Path) -> None:
    def some(prompts: Any, completions: list[str], **_: Any) -> list[float | None]:
        return [None if i == 1 else float(i) for i in range(len(completions))]

    learner = make_learner(tmp_path, task=small_task(function=some), **PPO)
    groups = sampled(learner)
    for group in groups:
        assert group.record.responses[1].returns == []
        assert group.advantages[1] == 0
        assert group.record.responses[1].values  # it is estimated all the same
    assert learner.update(1, groups, lambda: None)["grad/norm"] > 0


def test_a_rating_changes_returns_and_advantages(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, **PPO)
    plain = sampled(learner)
    before = [r.response.returns for r in rows_of(plain)]
    name = plain[0].record.name
    learner.advantages(plain, {name: [rating(1, plain[0].record.number, values={"A": 5.0})]})
    after = [r.response.returns for r in rows_of(plain)]
    assert before[0] != after[0]
    assert after[0][-1] == pytest.approx(1.0, abs=1e-6)
    assert plain[0].advantages[0] != plain[0].automatic[0]


def test_an_update_that_fails_half_way_leaves_everything_as_it_was(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, **PPO, epochs=2, minibatches=2, stop_kl=0.0)
    learner.run_step()
    groups = sampled(learner)
    rows_of(groups)[-1].response.advantages[0] = math.nan
    before, optimizer = weights_of(learner.policy), learner.optimizer.tensors()
    optimizer = {name: tensor.clone() for name, tensor in optimizer.items()}
    value = {name: t.clone() for name, t in learner.training.value_model.tensors().items()}
    with pytest.raises(NonFinite, match="is not finite, from") as caught:
        learner.update(2, groups, lambda: None)
    assert caught.value.responses == [rows_of(groups)[-1].name]
    assert same_weights(before, weights_of(learner.policy))
    assert all(torch.equal(t, optimizer[n]) for n, t in learner.optimizer.tensors().items())
    assert all(torch.equal(t, value[n]) for n, t in learner.training.value_model.tensors().items())


# ---------------------------------------------------------------------------------------------------------- TRPO


def divergence(learner: Learner, before: list[Tensor], groups: list[RolloutGroup]) -> float:
    """Mean KL(old, new) over response tokens, by torch's own distributions."""
    batch = batch_of(learner.policy, rows_of(groups))
    now = weights_of(learner.policy)

    def logits(weights: list[Tensor]) -> Tensor:
        with torch.no_grad():
            for p, w in zip(learner.policy.parameters, weights, strict=True):
                p.copy_(w)
            return learner.policy.plain_scorer(batch, keep_logits=True).logits

    old, new = logits(before), logits(now)
    each = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=old), torch.distributions.Categorical(logits=new)
    )
    return float(each[batch.mask].mean())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("micro_tokens", [16_384, 40])
def test_an_accepted_step_stays_inside_the_trust_region(tmp_path: Path, seed: int, micro_tokens: int) -> None:
    learner = make_learner(
        tmp_path, policy=random_policy(spread=2.5), seed=seed, micro_tokens=micro_tokens, **TRPO, trust_region=0.02
    )
    groups = sampled(learner)
    before = weights_of(learner.policy)
    metrics = learner.update(1, groups, lambda: None)
    assert metrics["trpo/step_fraction"] > 0
    kl = divergence(learner, before, groups)
    assert 0 < kl <= 0.02 * 1.001
    assert metrics["trpo/kl_realised"] == pytest.approx(kl, rel=1e-3)
    assert metrics["trpo/gain_actual"] > 0
    found = learner.training.trust_region
    assert [t.accepted for t in found.tries] == [False] * (len(found.tries) - 1) + [True]
    assert metrics["trpo/step_fraction"] == pytest.approx(0.8 ** (len(found.tries) - 1))


def test_the_direction_is_the_natural_gradient(tmp_path: Path) -> None:
    """Against the explicit (F + lambda I)^-1 g of a small policy."""
    policy = random_policy(hidden=8, spread=2.5)
    learner = make_learner(
        tmp_path,
        policy=policy,
        **{**TRPO, "damping": 0.3, "damping_scale": "absolute", "cg_iterations": 200, "cg_tolerance": 1e-6},
        prompts_per_step=2,
        group_size=2,
        trust_region=1e-5,
    )
    groups = sampled(learner)
    rows = rows_of(groups)
    batch = batch_of(policy, rows)
    tokens = int(batch.mask.sum())
    scores = policy.plain_scorer(batch)
    advantages = torch.tensor([row.advantage for row in rows])[:, None]
    surrogate = torch.where(batch.mask, scores.logprobs * advantages, 0.0).sum() / tokens
    g = torch.cat([p.flatten() for p in torch.autograd.grad(surrogate, policy.parameters)]).double()
    fisher = explicit_fisher(policy, [batch]) * TOKENS / tokens
    x = torch.linalg.solve(fisher + 0.3 * torch.eye(len(g), dtype=torch.float64), g)
    step = x * (2 * 1e-5 / (x @ fisher @ x)).sqrt()
    before = weights_of(policy)
    metrics = learner.update(1, groups, lambda: None)
    moved = torch.cat([(a - b).flatten() for a, b in zip(weights_of(policy), before, strict=True)]).double()
    assert float(moved @ step / (moved.norm() * step.norm())) > 0.999
    assert float(moved.norm()) == pytest.approx(float(step.norm()) * metrics["trpo/step_fraction"], rel=0.02)


def far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every try of a line search finds itself far outside the trust region."""
    real = OldPolicy.kl_of
    monkeypatch.setattr(OldPolicy, "kl_of", lambda *given: 1e9 * real(*given))


def test_a_rejected_step_leaves_the_weights_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner(tmp_path, policy=random_policy(spread=2.5), **TRPO, backtracks=3)
    far_away(monkeypatch)
    before = weights_of(learner.policy)
    metrics = learner.run_step()
    assert metrics["trpo/step_fraction"] == 0
    assert "update/relative_size" not in metrics
    assert "rejected" in learner.training.trust_region.note
    assert same_weights(before, weights_of(learner.policy))


def test_no_gradient_is_said(tmp_path: Path) -> None:
    task = small_task(function=lambda prompts, completions, **_: [1.0] * len(completions))
    learner = make_learner(tmp_path, task=task, policy=random_policy(spread=2.5), **TRPO)
    before = weights_of(learner.policy)
    metrics = learner.run_step()
    assert learner.training.trust_region.note == "no gradient"
    assert "grad/norm" not in metrics
    assert same_weights(before, weights_of(learner.policy))


def test_only_what_is_trainable_moves(tmp_path: Path) -> None:
    """As with adapters: a few parameters train, the rest is frozen."""
    policy = random_policy(spread=2.5)
    for name, parameter in policy.model.named_parameters():
        parameter.requires_grad_("mlp" in name)
    policy.parameters = [p for p in policy.model.parameters() if p.requires_grad]
    learner = make_learner(tmp_path, policy=policy, **TRPO)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    assert learner.run_step()["trpo/step_fraction"] > 0
    for name, p in policy.model.named_parameters():
        assert torch.equal(before[name], p) == ("mlp" not in name), name


def test_the_self_check_runs_once_for_each_product(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, policy=random_policy(spread=2.5), **{**TRPO, "fisher_product": "auto"})
    assert learner.run_step()["trpo/product_error"] < 1e-2
    assert "trpo/product_error" not in learner.run_step()
    learner.knobs.request(Set(values={"fisher_product": "difference"}), learner.step)
    assert learner.run_step()["trpo/product_error"] < 1e-2
    assert learner.training.trust_region.product == "difference"


def test_exact_and_difference_take_the_same_step(tmp_path: Path) -> None:
    moved = []
    for product in ("exact", "difference"):
        learner = make_learner(
            tmp_path / product,
            policy=random_policy(spread=2.5),
            **{**TRPO, "fisher_product": product, "cg_iterations": 3},
        )
        before = weights_of(learner.policy)
        learner.run_step()
        assert learner.training.trust_region.product == product
        moved.append(torch.cat([(a - b).flatten() for a, b in zip(weights_of(learner.policy), before, strict=True)]))
    assert float((moved[0] - moved[1]).norm() / moved[0].norm()) < 0.05


@pytest.mark.parametrize("asked", ["auto", "exact"])
def test_without_a_second_derivative_it_takes_the_difference_and_says_so(
    tmp_path: Path, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    monkeypatch.setattr("engine.fisher.sdpa_kernel", lambda _: sdpa_kernel(SDPBackend.FLASH_ATTENTION))
    learner = make_learner(tmp_path, policy=random_policy(spread=2.5), **{**TRPO, "fisher_product": asked})
    for _ in range(2):
        assert learner.run_step()["trpo/step_fraction"] > 0
        found = learner.training.trust_region
        assert found.product == "difference"
        assert "no second derivative" in found.note


def test_a_second_derivative_that_is_silently_wrong_is_not_used(tmp_path: Path) -> None:
    policy = random_policy(spread=2.5)
    no_second_derivative(policy)
    learner = make_learner(tmp_path, policy=policy, **{**TRPO, "fisher_product": "auto"})
    metrics = learner.run_step()
    assert metrics["trpo/product_error"] > 1e-2
    assert learner.training.trust_region.product == "difference"
    assert "is off by" in learner.training.trust_region.note
    assert metrics["trpo/step_fraction"] > 0


def test_a_share_of_the_groups_is_the_same_for_every_product(tmp_path: Path) -> None:
    fractions = {}
    for fraction in (1.0, 0.5):
        learner = make_learner(
            tmp_path / str(fraction), policy=random_policy(spread=2.5), **TRPO, fisher_fraction=fraction
        )
        metrics = learner.run_step()
        assert metrics["trpo/step_fraction"] > 0
        fractions[fraction] = metrics["trpo/curvature"]
    assert fractions[1.0] != fractions[0.5]


def test_a_share_is_of_the_groups_that_teach(tmp_path: Path) -> None:
    def fails_on_even(prompts: list[str], completions: list[str], answer: list[str], **_: Any) -> list[float]:
        if int(answer[0]) % 2 == 0:
            raise ValueError("no")
        return [float(len(c)) + i / 10 for i, c in enumerate(completions)]

    for seed in range(4):
        learner = make_learner(
            tmp_path / str(seed), task=small_task(12, fails_on_even), seed=seed, **TRPO, fisher_fraction=0.25
        )
        assert learner.run_step()["trpo/step_fraction"] > 0


def test_with_a_value_model_as_the_baseline(tmp_path: Path) -> None:
    learner = make_learner(
        tmp_path, policy=random_policy(spread=2.5), **{**TRPO, "baseline": "value", "value_warmup_steps": 1}
    )
    before = weights_of(learner.policy)
    first = learner.run_step()
    assert first["value/warmup_left"] == 0
    assert same_weights(before, weights_of(learner.policy))
    second = learner.run_step()
    assert second["trpo/step_fraction"] > 0
    assert second["value/loss"] > 0
    assert learner.optimizer.steps == 0


def test_dropping_a_step_inside_the_line_search_puts_the_weights_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(tmp_path, policy=random_policy(spread=2.5), **TRPO, backtracks=5)
    far_away(monkeypatch)
    groups = sampled(learner)
    before = weights_of(learner.policy)
    seen = []
    real = learner.control.advance

    def advance(done: int, total: int) -> None:
        if total == 5:
            seen.append(same_weights(before, weights_of(learner.policy)))
            if done == 2:
                raise Discarded
        real(done, total)

    learner.control.advance = advance  # type: ignore[method-assign]
    with pytest.raises(Discarded):
        learner.update(1, groups, lambda: None)
    assert seen == [True, True, True]
    assert same_weights(before, weights_of(learner.policy))


def test_a_gradient_that_is_not_finite(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, policy=random_policy(spread=2.5), **TRPO)
    groups = sampled(learner)
    before = weights_of(learner.policy)
    groups[1].advantages[2] = math.nan
    with pytest.raises(NonFinite) as caught:
        learner.update(1, groups, lambda: None)
    assert caught.value.responses == [f"{groups[1].record.name}C"]
    assert same_weights(before, weights_of(learner.policy))


def test_a_step_that_fails_leaves_the_value_model_too(tmp_path: Path) -> None:
    learner = make_learner(
        tmp_path, policy=random_policy(spread=2.5), **{**TRPO, "baseline": "value", "value_warmup_steps": 0}
    )
    learner.run_step()
    groups = sampled(learner)
    value_model = learner.training.value_model
    before, moments = (
        {n: t.clone() for n, t in each.tensors().items()} for each in (value_model, value_model.optimizer)
    )
    groups[1].record.responses[2].advantages[0] = math.nan
    with pytest.raises(NonFinite):
        learner.update(2, groups, lambda: None)
    assert all(torch.equal(t, before[n]) for n, t in value_model.tensors().items())
    assert all(torch.equal(t, moments[n]) for n, t in value_model.optimizer.tensors().items())
    assert (value_model.updates, value_model.optimizer.steps) == (1, 1)


def test_too_little_memory_is_refused_with_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = random_policy(spread=2.5)
    n = sum(p.numel() for p in policy.parameters)
    monkeypatch.setattr(memory, "available_memory", lambda device: 6 * 4 * n - 1)
    with pytest.raises(Refused, match=rf"6 x 4 x {n:,} bytes = .* is available on cpu; train an adapter"):
        check_memory("trpo", policy)
    check_memory("ppo", policy)
    monkeypatch.setattr(memory, "available_memory", lambda device: 6 * 4 * n)
    check_memory("trpo", policy)


# ----------------------------------------------------------------------------------------------------- switching


def switch(learner: Learner, algorithm: str) -> None:
    learner.knobs.request(Set(values={"algorithm": algorithm}), learner.step)


def moments(learner: Learner) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in learner.optimizer.tensors().items() if name.endswith("exp_avg")}


def test_grpo_and_ppo_share_the_optimizer(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, value_warmup_steps=0)
    learner.run_step()
    before = moments(learner)
    switch(learner, "ppo")
    learner.run_step()
    assert learner.optimizer.steps == 2
    kept = {name: 0.9 * tensor for name, tensor in before.items()}
    # the first moment is 0.9 x what GRPO left + 0.1 x a gradient of norm at most 1
    assert all(float((moments(learner)[n] - kept[n]).norm()) <= 0.1001 for n in kept)
    value = learner.training.value_model
    switch(learner, "grpo")
    learner.run_step()
    assert learner.training.value_model is value
    switch(learner, "ppo")
    learner.run_step()
    assert learner.training.value_model is value
    assert value.updates == 2


def test_leaving_trpo_forgets_the_first_moment(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    learner.run_step()
    kept = max(float(m.norm()) for m in moments(learner).values())
    switch(learner, "trpo")
    learner.run_step()
    assert learner.optimizer.steps == 1
    assert max(float(m.norm()) for m in moments(learner).values()) == kept  # trpo has no use for it
    learner.knobs.request(Set(values={"algorithm": "grpo", "max_grad_norm": 1e-6}), learner.step)
    learner.run_step()
    # a moment that was kept would be 0.9 of it now; the new gradient is clipped to next to nothing
    assert max(float(m.norm()) for m in moments(learner).values()) <= 1.01e-7 < 0.1 * kept


ROUTES = [("grpo", "ppo"), ("ppo", "trpo"), ("trpo", "grpo"), ("grpo", "trpo")]


@pytest.mark.parametrize(("first", "second"), ROUTES)
def test_switched_live_it_equals_a_run_that_was_started_so(tmp_path: Path, first: str, second: str) -> None:
    in_reward = {**REWARD, "kl_coefficient": 0.05}
    start = {"algorithm": first, "value_warmup_steps": 1} | (in_reward if first != "grpo" else {})  # all at defaults
    scheduled = make_learner(tmp_path / "a", knobs=make_knobs(f"algorithm={second}@3", **start))
    live = make_learner(tmp_path / "b", **start)
    outcomes = []
    for learner in (scheduled, live):
        for _ in range(4):
            if learner is live and learner.step == 2:
                switch(learner, second)
            learner.run_step()
        outcomes.append((weights_of(learner.policy), learner.knobs.values, learner.training.value_model))
    assert outcomes[0][1] == outcomes[1][1]
    assert outcomes[0][1]["algorithm"] == second
    assert outcomes[0][1]["kl_placement"] == ("loss" if second == "grpo" else "reward")
    assert same_weights(outcomes[0][0], outcomes[1][0])
    if outcomes[0][2] is not None:
        pairs = zip(outcomes[0][2].tensors().items(), outcomes[1][2].tensors().items(), strict=True)
        assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize("kind", ["head", "separate"])
def test_saved_and_loaded_ppo_goes_on_bit_for_bit(tmp_path: Path, kind: str) -> None:
    values = {**PPO, "kl_coefficient": 0.05, "value_warmup_steps": 2, "value_model": kind}
    whole = make_learner(tmp_path / "whole", **values)
    for _ in range(3):
        whole.run_step()
    whole.save("test")
    other = make_learner(tmp_path / "other", save=False, **values)
    other.reference = whole.reference
    other.training.reference = whole.reference
    other.load(newest_checkpoint(tmp_path / "whole"))
    for _ in range(2):
        whole.run_step()
        other.run_step()
    assert same_weights(weights_of(whole.policy), weights_of(other.policy))
    first, second = (each.training.value_model for each in (whole, other))
    assert first.updates == second.updates == 5
    assert all(torch.equal(t, second.tensors()[n]) for n, t in first.tensors().items())


@pytest.mark.parametrize("product", ["exact", "difference", "auto"])
def test_saved_and_loaded_trpo_goes_on_bit_for_bit(tmp_path: Path, product: str) -> None:
    values = {**TRPO, "fisher_product": product, "cg_iterations": 3}
    whole = make_learner(tmp_path / "whole", **values)
    whole.run_step()
    whole.save("test")
    other = make_learner(tmp_path / "other", save=False, **values)
    other.load(newest_checkpoint(tmp_path / "whole"))
    for learner in (whole, other):
        assert learner.run_step()["trpo/step_fraction"] > 0
    assert same_weights(weights_of(whole.policy), weights_of(other.policy))


def test_a_checkpoint_remembers_that_trpo_came_before(tmp_path: Path) -> None:
    learner = make_learner(tmp_path / "a", **TRPO)
    learner.run_step()
    learner.save("test")
    other = make_learner(tmp_path / "b", save=False)
    other.load(newest_checkpoint(tmp_path / "a"))
    assert other.training.last_algorithm == "trpo"


# ------------------------------------------------------------------------------------------------------- what-if


def tried(learner: Learner, groups: list[RolloutGroup], algorithm: str = "") -> Any:
    def rollout(trial: Training) -> list[RolloutGroup]:
        return own_copies(groups)

    return preview(learner.training, learner.step + 1, 0, rollout, {}, algorithm)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "trpo"])
def test_a_preview_is_the_update_that_follows(tmp_path: Path, algorithm: str) -> None:
    values = {} if algorithm == "grpo" else PPO if algorithm == "ppo" else TRPO
    plain, previewed = (make_learner(tmp_path / name, **values) for name in "ab")
    for learner in (plain, previewed):
        learner.run_step()
    groups = sampled(previewed)
    before, optimizer = weights_of(previewed.policy), previewed.optimizer.tensors()
    optimizer = {name: t.clone() for name, t in optimizer.items()}
    found = tried(previewed, groups)
    assert same_weights(before, weights_of(previewed.policy))
    assert all(torch.equal(t, optimizer[n]) for n, t in previewed.optimizer.tensors().items())
    assert all(p.grad is None for p in previewed.policy.parameters)
    old = [logprobs_by_hand(previewed, row) for row in rows_of(groups)]
    metrics = previewed.update(2, groups, lambda: None)
    assert found.algorithm == algorithm
    assert found.grad_norm == metrics["grad/norm"]
    assert found.loss == pytest.approx(metrics["loss/policy"] + metrics.get("loss/kl", 0.0))
    for row, response, was in zip(rows_of(groups), found.responses, old, strict=True):
        assert response.name == row.name
        assert response.advantage == pytest.approx(row.group.advantages[row.place])
        assert response.logprob == pytest.approx(was, abs=1e-4)
        assert response.change == pytest.approx(logprobs_by_hand(previewed, row) - was, abs=1e-4)
    if algorithm == "trpo":
        assert [t.fraction for t in found.trust_region.tries] == [
            t.fraction for t in previewed.training.trust_region.tries
        ]
    plain.run_step()
    assert same_weights(weights_of(plain.policy), weights_of(previewed.policy))


def test_a_preview_leaves_nothing_in_memory(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, **PPO)
    groups = sampled(learner)
    tried(learner, groups)
    kept = tensors_in_memory()
    for _ in range(2):
        tried(learner, groups)
    assert tensors_in_memory() == kept


def tensors_in_memory() -> int:
    gc.collect()
    return sum(isinstance(thing, Tensor) for thing in gc.get_objects())


def logprobs_by_hand(learner: Learner, row: Row) -> float:
    with torch.no_grad():
        return float(by_hand(learner, row)[0].sum())


def test_each_algorithm_can_be_tried_on_one_rollout(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    groups = sampled(learner)
    changes = {name: [r.change for r in tried(learner, groups, name).responses] for name in ("grpo", "trpo")}
    assert changes["grpo"] != changes["trpo"]
    with pytest.raises(Refused, match="ppo needs a value model, and there is none yet"):
        tried(learner, groups, "ppo")
    learner = make_learner(tmp_path / "ppo", **{**PPO, "value_warmup_steps": 2})
    found = tried(learner, sampled(learner))
    assert "still trained alone (1 more steps)" in found.note
    assert all(r.change == 0 for r in found.responses)


def test_a_preview_ends_with_the_step(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    groups = sampled(learner)
    learner.control = learner.training.control = Control()
    learner.control.discard()
    with pytest.raises(Discarded):
        tried(learner, groups)


def test_what_a_preview_says() -> None:
    from sessions.records import Preview, PreviewedResponse, TrustRegionStep, Try

    found = Preview(
        step=3,
        algorithm="trpo",
        loss=-0.01,
        kl_old_new=0.009,
        grad_norm=2.5,
        trust_region=TrustRegionStep(
            tries=[Try(fraction=1.0, kl=0.02, gain=0.1), Try(fraction=0.8, kl=0.009, gain=0.08)]
        ),
        responses=[PreviewedResponse(name=f"3.1{c}", reward=1.0, advantage=0.5, logprob=-3.0, change=d)
                   for c, d in zip("ABC", (0.1, -0.7, 0.3), strict=True)],
    )  # fmt: skip
    lines = found.describe(most=2).splitlines()
    assert lines[0].startswith("what trpo would do with step 3 (nothing has changed")
    assert "KL old-new 0.009 (estimated)" in lines[1]  # the line search has the exact one
    assert lines[2] == "line search: 1 of the step: KL 0.02, gain 0.1"
    assert [line.split()[0] for line in lines[4:6]] == ["3.1B", "3.1C"]
    assert lines[4].endswith("log p -3.000 -> -3.700")
    assert "1 more responses" in lines[6]


def test_moments_made_before_the_first_step_are_those_that_the_step_would_have_made(tmp_path: Path) -> None:
    found = []
    for early in (True, False):
        learner = make_learner(tmp_path / str(early))
        if not early:
            learner.optimizer.allocate = lambda: None  # type: ignore[method-assign]
        learner.run_step()
        found.append((weights_of(learner.policy), learner.optimizer.tensors()))
    assert same_weights(found[0][0], found[1][0])
    assert found[0][1].keys() == found[1][1].keys()
    assert all(torch.equal(tensor, found[1][1][name]) for name, tensor in found[0][1].items())


def test_memory_that_runs_out_while_moments_are_made_leaves_everything_to_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of PPO's two optimizers too: the policy must not step when the value model's cannot."""
    values = {"algorithm": "ppo", "kl_placement": "reward", "kl_estimator": "k1", "value_warmup_steps": 0}
    learner = make_learner(tmp_path / "short", value_model="separate", **values)
    groups = learner.sample(1)
    learner.measure_reference(1, groups)
    learner.advantages(groups, {})
    before = weights_of(learner.policy)
    real, left = torch.zeros_like, [2 * len(learner.policy.parameters) + 3]

    def short(*arguments, **named):
        left[0] -= 1
        if left[0] == 0:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(optimizer.torch, "zeros_like", short)
        with pytest.raises(torch.OutOfMemoryError):
            learner.update(1, groups, lambda: None)
    assert same_weights(before, weights_of(learner.policy))
    learner.update(1, groups, lambda: None)
    roomy = make_learner(tmp_path / "roomy", value_model="separate", **values)
    roomy.run_step()
    assert same_weights(weights_of(roomy.policy), weights_of(learner.policy))
