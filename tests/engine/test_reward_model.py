"""The reward model: what it reads, how it scores and is kept, and what training does to it and to nothing else."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine import reward_model, reward_training
from engine.batches import make_batch
from engine.loading import TINY, load_policy
from engine.passes import Budget
from engine.policy import Policy, make_accelerator
from engine.reward_model import RewardModel, load_reward_model
from engine.reward_training import (
    Example,
    bootstrap_weights,
    calibration_error,
    encode_orderings,
    figures,
    losses,
    train,
)
from engine.supervised import Lesson
from sessions.errors import InputFileError, InvalidValue, SessionError, UsageError
from sessions.orderings import Ordering, held_out
from sessions.reward_models import KINDS, RewardModelSettings
from tests.engine.small import random_policy

ROWS = [Lesson([5, 6, 7], [8, 9, 2]), Lesson([5, 6, 7], [8, 2]), Lesson([11, 12, 13, 14], [20, 21, 22, 23, 2])]


def settings(kind: str = "head", **more: object) -> RewardModelSettings:
    return RewardModelSettings(kind=kind, **more)


def pairs(count: int, seed: int = 0) -> list[Ordering]:
    """Somebody prefers short answers."""
    generator = random.Random(seed)
    found = []
    while len(found) < count:
        a, b = generator.randrange(100), generator.randrange(100)
        short, long = sorted(
            ("".join(generator.choices("0123456789", k=k)) for k in generator.sample(range(1, 7), 2)), key=len
        )
        found.append(Ordering(prompt=f"{a}+{b}=", tiers=[[short], [long]], source=str(len(found))))
    return found


def whole(policy: Policy) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in policy.model.state_dict().items()}


# ---------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("packed", [True, False])
def test_states_are_those_at_the_last_tokens_of_rows_read_one_by_one(packed: bool) -> None:
    policy = random_policy()
    policy.packs = packed
    model = RewardModel(policy)
    states = model.states(ROWS)
    for row, state in zip(ROWS, states, strict=True):
        ids = torch.tensor([[*row.prompt, *row.tokens]])
        with torch.no_grad():
            alone = policy.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
        assert torch.allclose(state, alone, atol=1e-4)


def test_states_do_not_depend_on_micro_batches_and_stop_at_safe_points() -> None:
    model = RewardModel(random_policy(), budget=Budget(16))
    calls: list[None] = []
    few = model.states(ROWS, lambda: calls.append(None))
    assert len(calls) > 1
    model.budget.tokens = 1000
    assert torch.allclose(few, model.states(ROWS), atol=1e-5)


def test_memory_that_runs_out_halves_the_budget_and_changes_nothing(monkeypatch) -> None:
    model = RewardModel(random_policy())
    model.budget.on_halved = lambda text: None
    expected = model.states(ROWS)
    read = model._read

    def out_of_memory(rows):
        if len(rows) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return read(rows)

    model.budget.tokens = 128
    monkeypatch.setattr(model, "_read", out_of_memory)
    assert torch.allclose(model.states(ROWS), expected, atol=1e-5)
    assert model.budget.tokens < 128


def test_an_answer_that_was_cut_is_read_as_if_it_ended_there() -> None:
    model = RewardModel(random_policy())
    end = model.policy.tokenizer.eos_token_id
    cut, ended = Lesson([5, 6], [8, 9]), Lesson([5, 6], [8, 9, end])
    assert model.closed(cut) == ended == model.closed(ended)
    assert torch.equal(model.score([cut]), model.score([ended]))
    full = Lesson([5] * 100, [8] * 28)  # nothing more fits the context
    assert model.closed(full) == full


def test_a_prompt_and_a_response_become_tokens_as_in_rl(small: Policy) -> None:
    model = RewardModel(small)
    end = small.tokenizer.eos_token_id
    row = model.encode("1+1=", "23")
    assert row.prompt == small.encode_prompt("1+1=")
    assert row.tokens == [*small.encode_text("23"), end]
    asked, said = [{"role": "user", "content": "1+1="}], [{"role": "assistant", "content": "23"}]
    assert model.encode(asked, said) == row
    with pytest.raises(InputFileError, match=r"^f:3: a conversation, and there is no chat template"):
        model.encode([*asked, *said, *asked], said, "f:3")
    with pytest.raises(InputFileError, match="one is text and one a conversation"):
        model.encode([*asked, *said], "23")


def test_a_conversation_is_written_by_the_chat_template_up_to_its_last_end() -> None:
    policy = random_policy()
    policy.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role[0] + ':' + m.content }}{% if m.role == 'assistant' %}<eos>{% endif %};"
        "{% endfor %}{% if add_generation_prompt %}{{ 'a:' }}{% endif %}"
    )
    policy.uses_chat_template = True
    model = RewardModel(policy)
    asked, said = [{"role": "user", "content": "1"}], [{"role": "assistant", "content": "2"}]
    row = model.encode(asked, [*said, *asked, *said])
    text = policy.tokenizer.convert_ids_to_tokens
    assert "".join(text(row.prompt)) == "u:1;a:"
    assert "".join(text(row.tokens)) == "2<eos>;u:1;a:2<eos>"


# ---------------------------------------------------------------------------------------------- the policy


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_is_not_touched_in_any_way(kind: str) -> None:
    policy = random_policy()
    policy.model.train()
    for parameter in policy.parameters:
        parameter.grad = torch.ones_like(parameter)
    before = whole(policy)
    torch.manual_seed(7)
    generators = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    model = RewardModel(policy, settings(kind, epochs=1))
    train(model, pairs(40))
    train(model.successor(), pairs(40), before=model)
    model.score(ROWS)
    assert all(torch.equal(t, before[name]) for name, t in policy.model.state_dict().items())
    assert set(policy.model.state_dict()) == set(before)
    assert all(bool((p.grad == 1).all()) and p.requires_grad for p in policy.parameters)
    assert all(module.training for module in policy.model.modules())
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert (random.getstate(), str(np.random.get_state())) == generators[1:]


@pytest.mark.parametrize("kind", KINDS)
def test_training_the_policy_does_not_move_the_reward_model(kind: str) -> None:
    policy = random_policy()
    model = RewardModel(policy, settings(kind))
    before = model.score(ROWS)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(1.0)
    assert torch.equal(model.score(ROWS), before)


def test_the_trunk_starts_from_the_weights_that_are_given() -> None:
    policy, start = random_policy(0), random_policy(1)
    given = RewardModel(policy, weights=lambda: whole(start))
    assert torch.equal(given.states(ROWS), RewardModel(start).states(ROWS))
    assert not torch.equal(given.states(ROWS), RewardModel(policy).states(ROWS))


# ------------------------------------------------------------------------------------- scores and doubt


def test_heads_begin_at_keyed_numbers_and_differ() -> None:
    one, again = RewardModel(random_policy()), RewardModel(random_policy())
    assert torch.equal(one.score(ROWS), again.score(ROWS))
    assert one.score(ROWS).shape == (4, len(ROWS))
    assert len({tuple(row) for row in one.score(ROWS).tolist()}) == 4
    assert not torch.equal(one.score(ROWS), RewardModel(random_policy(), settings(seed=1)).score(ROWS))


def test_scores_have_mean_0_and_deviation_1_on_the_reference_and_gain_and_bias_are_kept() -> None:
    model = RewardModel(random_policy())
    raw = model.raw(model.states(ROWS))
    mean, std = model.normalise(model.states(ROWS))
    scores = model.score(ROWS)
    assert torch.allclose(scores.mean(1), torch.zeros(4), atol=1e-5)
    assert torch.allclose(scores.std(1, correction=0), torch.ones(4), atol=1e-5)
    expected = raw * torch.tensor(model.state.gains)[:, None] + torch.tensor(model.state.biases)[:, None]
    assert torch.allclose(scores, expected)
    assert mean == pytest.approx(float(raw.mean()), abs=1e-6)
    assert std == pytest.approx(float(raw.std(1, correction=0).mean()), rel=1e-5)


def test_samples_that_are_all_alike_or_none_do_not_blow_scores_up() -> None:
    model = RewardModel(random_policy())
    model.normalise(model.states(ROWS[:1]))
    assert model.state.gains == [1.0] * 4
    assert torch.allclose(model.score(ROWS[:1]), torch.zeros(4, 1), atol=1e-6)
    before = list(model.state.biases)
    assert model.normalise(model.states([])) == (0.0, 0.0)
    assert model.state.biases == before
    assert model.score([]).shape == (4, 0)


def test_doubt_is_full_where_heads_split_and_none_where_all_are_sure() -> None:
    model = RewardModel(random_policy())
    model.state.gains = [0.5, 2.0, 1.0, 0.25]
    raw = torch.tensor([[0.0, 9.0, 0.0], [0.0, 9.0, 40.0], [0.0, 9.0, 40.0], [0.0, 9.0, -40.0]])
    scores = raw * torch.tensor(model.state.gains)[:, None]
    doubt = model.doubt(scores)
    assert torch.allclose(doubt, doubt.t())
    assert doubt.diagonal().tolist() == pytest.approx([1, 1, 1])
    assert float(doubt[0, 1]) == pytest.approx(2 / (1 + np.exp(9)), rel=1e-2)
    assert float(doubt[0, 2]) == pytest.approx(1 - abs(2 * (0.5 + 1 + 1 + 0) / 4 - 1), abs=1e-5)
    assert float(model.probability(scores)[1, 0]) == pytest.approx(1 / (1 + np.exp(-9)), rel=1e-4)


# -------------------------------------------------------------------------------------------- training


def test_bootstrap_samples_are_poisson_numbers_of_the_head_and_the_ordering() -> None:
    examples = [Example([0, 1], [1, 1], 0.0, str(i)) for i in range(2000)]
    weights = bootstrap_weights(examples, 4, seed=0)
    assert weights.shape == (4, 2000)
    assert torch.equal(weights, weights.round())
    for head in weights:
        assert float(head.mean()) == pytest.approx(1, abs=0.1)
        assert float((head == 0).float().mean()) == pytest.approx(np.exp(-1), abs=0.04)
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(bootstrap_weights(examples[::-1], 4, seed=0).flip(1), weights)
    assert not torch.equal(bootstrap_weights(examples, 4, seed=1), weights)


def test_the_losses_of_a_batch_are_those_of_its_orderings_one_by_one() -> None:
    raw = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    examples = [
        Example([4, 1], [1, 1], 0.7, "a"),
        Example([0, 2, 3], [1, 2], 0.0, "b"),
        Example([5, 0], [1, 1], 0.0, "c"),
        Example([2, 5], [2], 0.0, "d"),
    ]
    loss, centred = losses(raw, examples, [e.rows for e in examples], "skip")
    for head, scores in enumerate(raw.double()):
        softplus = torch.nn.functional.softplus
        below = scores[[2, 3]].logsumexp(0)
        expected = [
            softplus(scores[1] - scores[4] + 0.7),
            softplus(below - scores[0]),
            softplus(scores[0] - scores[5]),
            0,
        ]
        assert loss[head].tolist() == pytest.approx([float(x) for x in expected], abs=1e-5)
        level = [(2 * scores[e.rows].mean()) ** 2 for e in examples]
        assert centred[head].tolist() == pytest.approx([float(x) for x in level], abs=1e-5)
    average, _ = losses(raw, examples, [e.rows for e in examples], "average")
    assert float(average[0, 3]) > 0.1
    assert torch.equal(average[:, [0, 2]], loss[:, [0, 2]])


def test_the_gradient_of_a_step_is_that_of_the_formula() -> None:
    model = RewardModel(random_policy(), settings(centering=0.3))
    rankings = [Ordering(prompt="1+1=", tiers=[["2"], ["3", "44"], ["555"]], source="r")]
    examples = encode_orderings(model, [*pairs(6), *rankings])
    training = reward_training.Training(model, examples)
    chosen = [5, 0, 6, 2]
    training._backward(chosen)
    heads = model.heads
    w, b = heads.weight.detach().clone().requires_grad_(), heads.bias.detach().clone().requires_grad_()
    z = (model.states(examples.rows) - heads.centre) / heads.spread
    total = torch.zeros(())
    weights = bootstrap_weights(examples.all, 4, seed=0)
    assert len(weights[:, chosen].unique()) > 1
    for i, h in itertools.product(chosen, range(4)):
        own = z[examples.all[i].rows] @ w[h] + b[h]
        if i == 6:
            below = own[3]
            loss = -(own[0] - own.logsumexp(0))
            loss = loss - sum(own[j] - torch.stack([own[j], below]).logsumexp(0) for j in (1, 2))
        else:
            loss = -torch.nn.functional.logsigmoid(own[0] - own[1])
        total = total + weights[h, i] * (loss + 0.3 * (2 * own.mean()) ** 2) / 4 / len(chosen)
    total.backward()
    assert torch.allclose(heads.weight.grad, w.grad, atol=1e-5)
    assert torch.allclose(heads.bias.grad, b.grad, atol=1e-5)


def test_heads_read_standardised_states() -> None:
    model = RewardModel(random_policy())
    examples = encode_orderings(model, pairs(60))
    reward_training.Training(model, examples)
    z = (model.states(examples.rows) - model.heads.centre) / model.heads.spread
    assert torch.allclose(z.mean(0), torch.zeros(z.shape[1]), atol=1e-4)
    varies = model.states(examples.rows).var(0) > 0.1 * model.states(examples.rows).var(0).mean()
    assert bool(((z.std(0) > 0.9) & (z.std(0) < 1.05))[varies].all())
    assert float(z.std(0).max()) < 1.05


def test_the_learning_rate_rises_and_falls_to_nothing_and_is_the_kinds() -> None:
    model = RewardModel(random_policy(), settings("full", epochs=4, batch=2, learning_rate=0.003))
    training = reward_training.Training(model, encode_orderings(model, pairs(20)))
    assert training.steps == 40
    rates = [training._rate(number) for number in range(40)]
    assert rates[:4] == pytest.approx([0.25 * 1, 0.5 * 39 / 40, 0.75 * 38 / 40, 37 / 40])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 40)
    training._step(3, [0, 1])
    heads, trunk = training._optimizer.param_groups
    assert (heads["lr"], trunk["lr"]) == (pytest.approx(0.01 * 37 / 40), pytest.approx(0.003 * 37 / 40))
    frozen = RewardModel(random_policy(), settings(learning_rate=0.02))
    only = reward_training.Training(frozen, encode_orderings(frozen, pairs(4)))._optimizer.param_groups
    assert [group["rate"] for group in only] == [0.02]


def test_the_loss_that_is_reported_is_the_mean_over_the_last_epoch() -> None:
    seen: list[float] = []
    model = RewardModel(random_policy(), settings(epochs=2, batch=8))
    orderings = [o for o in pairs(30) if not held_out(o.prompt)][:20]
    report = train(model, orderings, progress=lambda step, steps, loss: seen.append(loss))
    assert (report.steps, len(seen)) == (6, 6)
    assert report.loss == pytest.approx((8 * seen[3] + 8 * seen[4] + 4 * seen[5]) / 20)
    assert report.loss < (8 * seen[0] + 8 * seen[1] + 4 * seen[2]) / 20


def test_an_untrained_one_before_is_nothing_to_drift_from() -> None:
    first = RewardModel(random_policy(), settings(epochs=1))
    assert train(first.successor(), pairs(30), before=first).drift is None


def test_held_out_prompts_are_never_trained_on(monkeypatch) -> None:
    trained: list[str] = []
    encode = encode_orderings

    def spy(model, orderings, *rest):
        orderings = list(orderings)
        trained.append("".join(sorted({str(held_out(o.prompt)) for o in orderings})))
        return encode(model, orderings, *rest)

    monkeypatch.setattr(reward_training, "encode_orderings", spy)
    every = pairs(100)
    secret = sum(held_out(o.prompt) for o in every)
    model = RewardModel(random_policy(), settings(epochs=1))
    report = train(model, every)
    assert trained == ["False", "True"]
    assert (report.orderings, report.held_out.pairs) == (100 - secret, secret)
    flipped = [
        Ordering(prompt=o.prompt, tiers=o.tiers[::-1] if held_out(o.prompt) else o.tiers, source=o.source)
        for o in every
    ]
    other = RewardModel(random_policy(), settings(epochs=1))
    again = train(other, flipped)
    assert torch.equal(model.score(ROWS), other.score(ROWS))
    assert again.held_out.accuracy == pytest.approx(1 - report.held_out.accuracy)


def test_only_held_out_prompts_are_nothing_to_train_on() -> None:
    secret = [o for o in pairs(60) if held_out(o.prompt)]
    with pytest.raises(InputFileError, match=f"of {len(secret)} orderings none is left to train on"):
        train(RewardModel(random_policy()), secret)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_micro_batches_do_not_change_a_gradient(kind: str) -> None:
    found = []
    for tokens in (40, 10_000):
        model = RewardModel(random_policy(), settings(kind, epochs=1, batch=64), budget=Budget(tokens))
        rankings = [Ordering(prompt="1+1=", tiers=[["2"], ["3", "44"], ["555"]], source="r")]
        examples = encode_orderings(model, [o for o in pairs(20) if not held_out(o.prompt)] + rankings)
        training = reward_training.Training(model, examples)
        loss = training._backward(range(len(examples.all)))
        found.append((loss, [p.grad.clone() for p in training._parameters if p.grad is not None]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert len(found[0][1]) == len(found[1][1]) > 2
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(one, other, atol=2e-4 * max(1.0, float(other.abs().max())))


def test_training_is_the_same_again_and_may_be_stopped_between_any_two_minibatches() -> None:
    scores = []
    for _ in range(2):
        model = RewardModel(random_policy(), settings(epochs=1))
        train(model, pairs(40))
        scores.append(model.score(ROWS))
    assert torch.equal(*scores)

    class Stop(Exception):
        pass

    steps: list[int] = []

    def progress(step: int, steps_: int, loss: float) -> None:
        steps.append(step)

    def safe_point() -> None:
        if steps and steps[-1] == 2:
            raise Stop

    first = RewardModel(random_policy(), settings(epochs=1))
    train(first, pairs(40))
    before = first.score(ROWS)
    with pytest.raises(Stop):
        train(first.successor(), pairs(40), before=first, safe_point=safe_point, progress=progress)
    assert steps == [1, 2]
    assert torch.equal(first.score(ROWS), before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_successor_begins_where_the_first_began_and_leaves_it_alone(kind: str) -> None:
    policy = random_policy()
    start = whole(policy)
    first = RewardModel(policy, settings(kind, epochs=1), weights=lambda: start)
    untrained = first.score(ROWS)
    report = train(first, pairs(40))
    trained = first.score(ROWS)
    second = first.successor()
    assert torch.equal(second.score(ROWS), untrained)
    assert not torch.equal(trained, untrained)
    third = first.successor()
    train(third, pairs(40, seed=3), before=first)
    assert not torch.equal(third.score(ROWS), trained)
    assert torch.equal(second.score(ROWS), untrained)
    again = train(second, pairs(40), before=first)
    assert torch.equal(second.score(ROWS), trained)
    assert torch.equal(first.score(ROWS), trained)
    assert (report.version, report.drift, again.version, again.drift) == (1, None, 2, 0.0)
    assert [r.version for r in second.state.reports] == [1, 2]
    assert [r.version for r in first.state.reports] == [1]
    assert second.state.trained == again.orderings


def test_drift_is_how_far_scores_of_the_reference_moved_in_deviations() -> None:
    first = RewardModel(random_policy(), settings(epochs=1))
    train(first, pairs(40), reference=ROWS)
    second = first.successor()
    report = train(second, pairs(60, seed=5), reference=ROWS, before=first)
    moved = (second.score(ROWS).mean(0) - first.score(ROWS).mean(0)).square().mean().sqrt()
    assert report.drift == pytest.approx(float(moved), rel=1e-4)
    assert report.drift > 0.01
    assert torch.allclose(second.score(ROWS).mean(1), torch.zeros(4), atol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    model = RewardModel(random_policy())
    with torch.no_grad():
        model.heads.weight.fill_(float("nan"))
    with pytest.raises(SessionError, match=r"not finite at step 1 of .*; lower its learning rate \(it was 0.01\)"):
        train(model, pairs(20))


def test_orderings_that_do_not_fit_the_context_are_left_out_and_counted() -> None:
    long = Ordering(prompt="1+1=", tiers=[["2"], ["3" * 200]], source="x")
    assert not held_out(long.prompt)
    report = train(RewardModel(random_policy(), settings(epochs=1)), [*pairs(20), long])
    assert report.left_out == 1


def test_more_ties_than_can_be_averaged_over_are_named() -> None:
    many = Ordering(prompt="1+1=", tiers=[[str(i) for i in range(11)], ["x"]], source="f:7")
    with pytest.raises(InputFileError, match="preferences f:7: 11 tied responses"):
        train(RewardModel(random_policy(), settings(ties="average")), [many])
    train(RewardModel(random_policy(), settings(epochs=1)), [many])


# ------------------------------------------------------------------------------------------- measuring


def test_too_few_held_out_preferences_are_no_figure() -> None:
    report = train(RewardModel(random_policy(), settings(epochs=1)), [o for o in pairs(30) if not held_out(o.prompt)])
    held = report.held_out
    assert held.pairs == 0
    assert [held.accuracy, held.log_loss, held.calibration, held.length_correlation, held.agreement] == [None] * 5
    assert set(report.metrics()) == {"reward_model/version", "reward_model/loss"}
    model = RewardModel(random_policy())
    nine = figures(model, encode_orderings(model, pairs(9)))
    assert (nine.pairs, nine.accuracy, nine.calibration) == (9, None, None)
    ten = figures(model, encode_orderings(model, pairs(10)))
    assert ten.accuracy is not None
    assert ten.calibration is None


def test_figures_are_those_of_pairs_looked_at_one_by_one() -> None:
    model = RewardModel(random_policy())
    with torch.no_grad():
        model.heads.weight.mul_(20)  # heads that disagree
    every = [*pairs(30), Ordering(prompt="5+5=", tiers=[["1", "22"], ["333"]], source="r")]
    examples = encode_orderings(model, every)
    model.normalise(model.states(examples.rows))
    found = figures(model, examples)
    right, logs, agreed, count = 0.0, 0.0, 0, 0
    for ordering in every:
        for better, worse in itertools.product(ordering.tiers[0], ordering.tiers[1]):
            two = [model.encode(ordering.prompt, text) for text in (better, worse)]
            scores = model.score(two).double()
            raw = scores / torch.tensor(model.state.gains)[:, None]
            right += float(scores[:, 0].mean() > scores[:, 1].mean())
            logs -= float((raw[:, 0] - raw[:, 1]).sigmoid().mean().log())
            agreed += len({bool(r[0] > r[1]) for r in raw}) == 1
            count += 1
    assert (found.pairs, count) == (32, 32)
    assert found.accuracy == pytest.approx(right / count)
    assert found.log_loss == pytest.approx(logs / count, rel=1e-4)
    assert found.agreement == pytest.approx(agreed / count)


def test_calibration_is_the_gap_between_how_sure_it_is_and_how_often_right() -> None:
    assert calibration_error([0.9] * 9 + [0.1]) == pytest.approx(0)  # sure by 0.9, right nine times in ten
    assert calibration_error([0.9] * 5 + [0.1] * 5) == pytest.approx(0.4)
    assert calibration_error([1.0] * 4) == 0
    assert calibration_error([0.5] * 4) == 0
    assert calibration_error([0.7] * 10 + [0.95] * 10) == pytest.approx((0.3 + 0.05) / 2)
    assert calibration_error([0.55] * 10 + [0.35] * 10) == pytest.approx((0.45 + 0.65) / 2)


def test_the_length_correlation_is_that_of_scores_and_tokens() -> None:
    model = RewardModel(load_policy(TINY, make_accelerator("cpu", "fp32")), settings(epochs=10), own=True)
    report = train(model, pairs(250))
    assert -1 <= report.held_out.length_correlation < -0.4


# -------------------------------------------------------------------------------------------- keeping


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_makes_it_again(kind: str) -> None:
    policy = random_policy()
    model = RewardModel(policy, settings(kind, epochs=1))
    train(model, pairs(40))
    kept = {name: t.clone() for name, t in model.tensors().items()}
    state = msgspec.json.decode(msgspec.json.encode(model.state), type=type(model.state))
    again = RewardModel(policy, state.settings)
    assert not torch.equal(again.score(ROWS), model.score(ROWS))
    again.load(kept, state)
    assert torch.equal(again.score(ROWS), model.score(ROWS))
    sizes = {
        "head": {"heads"},
        "lora": {"heads", "adapter"},
        "full": {"heads", "trunk"},
    }
    assert {name.partition(".")[0] for name in kept} == sizes[kind]


def test_what_was_kept_of_another_model_is_refused() -> None:
    model = RewardModel(random_policy())
    for wrong in (
        RewardModel(random_policy(hidden=32)).tensors(),
        RewardModel(random_policy(), settings(heads=3)).tensors(),
        RewardModel(random_policy(), settings("full")).tensors(),
        {},
    ):
        with pytest.raises(SessionError, match="of another model or kind: "):
            model.load(wrong, model.state)
    for gains in ([1.0], [1.0, 1.0, 1.0, float("nan")], [0.0] * 4):
        with pytest.raises(SessionError, match="gains and biases"):
            model.load(model.tensors(), msgspec.structs.replace(model.state, gains=gains))


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_holds_all_of_it(kind: str, tmp_path: Path) -> None:
    policy = random_policy()
    model = RewardModel(policy, settings(kind, epochs=1))
    train(model, pairs(40))
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(0.1)
    model.save(tmp_path / "rm")
    again = load_reward_model(tmp_path / "rm", make_accelerator("cpu", "fp32"))
    assert torch.allclose(again.score(ROWS), model.score(ROWS), atol=1e-5)
    assert again.state == model.state
    assert {p.suffix for p in (tmp_path / "rm").iterdir()} == {".json", ".safetensors"}
    assert list(tmp_path.iterdir()) == [tmp_path / "rm"]
    again.save(tmp_path / "copy")
    copied = load_reward_model(tmp_path / "copy", make_accelerator("cpu", "fp32"))
    assert torch.equal(copied.score(ROWS), again.score(ROWS))
    with pytest.raises(InputFileError, match="is there already"):
        model.save(tmp_path / "rm")


def test_a_save_that_fails_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reward_model, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        RewardModel(random_policy()).save(tmp_path / "rm")
    assert list(tmp_path.iterdir()) == []


def poison(folder: Path) -> None:
    path = folder / "heads.safetensors"
    tensors = load_file(path)
    tensors["heads.weight"][0, 0] = float("nan")
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "reward_model.json").unlink(), "reward_model.json cannot be read \\(No such file"),
        (lambda f: (f / "reward_model.json").write_text("{"), "reward_model.json is not what it should be"),
        (lambda f: (f / "reward_model.json").write_text('{"settings": {"kind": "x"}}'), "kind: 'x' is none of head"),
        (lambda f: (f / "reward_model.json").write_text('{"settings": {"heads": -1}}'), "heads: -1 is out of bounds"),
        (lambda f: (f / "reward_model.json").write_bytes(b" " * 2**23), "more than 4,194,304 bytes"),
        (lambda f: (f / "heads.safetensors").unlink(), "No such file"),
        (lambda f: (f / "heads.safetensors").write_bytes(b"\x80pickle"), "reward model .*; give a folder of"),
        (lambda f: change(f, gains=[1.0]), "not as many gains and biases as heads"),
        (poison, "numbers that are not finite"),
        (lambda f: change(f, gains=[0.0] * 4), "gains and biases are not numbers"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_line(tmp_path: Path, damage, message: str) -> None:
    folder = tmp_path / "rm"
    RewardModel(random_policy()).save(folder)
    damage(folder)
    with pytest.raises(InputFileError, match=message) as raised:
        load_reward_model(folder, make_accelerator("cpu", "fp32"))
    assert "\n" not in str(raised.value)


def change(folder: Path, **values: object) -> None:
    path = folder / "reward_model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# ------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "tail"}, "kind: 'tail' is none of head, lora, full"),
        ({"ties": "break"}, "ties: 'break' is none of skip, average"),
        ({"heads": 0}, "heads: 0 is out of bounds"),
        ({"epochs": -1}, "epochs: -1 is out of bounds"),
        ({"batch": 0}, "batch: 0 is out of bounds"),
        ({"learning_rate": float("nan")}, "learning_rate: nan is out of bounds"),
        ({"learning_rate": 2.0}, "learning_rate: 2 is out of bounds; allowed: 0 to 1"),
        ({"centering": -1.0}, "centering: -1 is out of bounds"),
    ],
)
def test_settings_that_cannot_be_used_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        RewardModel(random_policy(), RewardModelSettings(**values))


def test_defaults_are_those_of_the_kind_and_are_written_down() -> None:
    assert RewardModel(random_policy()).state.settings.epochs == 30
    full = RewardModel(random_policy(), settings("full", learning_rate=0.5)).state.settings
    assert (full.epochs, full.learning_rate) == (1, 0.5)


def test_another_kind_does_not_follow() -> None:
    with pytest.raises(UsageError, match="of kind head is not followed by one of kind full"):
        RewardModel(random_policy()).successor(settings("full"))


def test_adapters_without_peft_are_one_line(monkeypatch) -> None:
    monkeypatch.setattr(reward_model, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the package peft; `pip install 'rl-workbench\[lora\]'` brings it"):
        RewardModel(random_policy(), settings("lora"))


def test_only_adapters_train_beside_the_heads_of_kind_lora_and_begin_at_nothing() -> None:
    policy = random_policy()
    model = RewardModel(policy, settings("lora", epochs=1))
    plain = RewardModel(policy)
    assert torch.allclose(model.states(ROWS), plain.states(ROWS), atol=1e-6)
    base = {n: t.clone() for n, t in model._trunk.state_dict().items() if "lora_" not in n}
    train(model, pairs(40))
    assert all(torch.equal(t, base[n]) for n, t in model._trunk.state_dict().items() if n in base)
    assert not torch.allclose(model.states(ROWS), plain.states(ROWS), atol=1e-4)


def test_a_row_of_a_batch_ends_where_its_last_token_is() -> None:
    batch = make_batch([[5, 6]], [[7, 8, 0]], [1.0], 0, torch.device("cpu"))
    assert batch.source[0, -1].item() == 3  # what the reward model relies on: the state before the added token
