"""What is counted of a model, against the tensors themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from engine.batches import pack_batch
from engine.memory import MOMENTS, SAVED
from engine.optimizer import Saved
from engine.sizes import cache_bytes, count
from engine.value_model import ValueModel
from tests.engine.small import make_knobs, make_learner, random_policy, weights_of


def size(tensors: list[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def test_weights_and_parameters_are_those_of_the_model() -> None:
    policy = random_policy(hidden=32, layers=2)
    sizes = count(policy)
    assert sizes.parameters == sum(p.numel() for p in policy.model.parameters())
    assert sizes.trainable == size(list(policy.model.parameters()))  # tied weights once
    assert sizes.weights == sizes.trainable + size(list(policy.model.buffers()))
    assert sizes.trunk == size(list(policy.model.model.parameters()))


def test_frozen_weights_have_no_gradient_to_count() -> None:
    policy = random_policy()
    before = count(policy)
    frozen = policy.parameters[1:]
    for parameter in frozen:
        parameter.requires_grad_(False)
    policy.parameters = policy.parameters[:1]
    after = count(policy)
    assert after.weights == before.weights
    assert after.trainable == before.trainable - size(frozen)


def test_optimizer_and_saved_copies_are_as_large_as_counted(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    sizes = count(learner.policy)
    learner.run_step()
    state = learner.optimizer.tensors()
    counters = size([t for name, t in state.items() if name.endswith("step")])
    assert size(list(state.values())) - counters == MOMENTS * sizes.trainable
    saved = Saved(learner.optimizer)
    assert size([*saved._parameters, *saved._state.values()]) - counters == SAVED * sizes.trainable


def test_a_separate_value_model_is_trunk_and_head() -> None:
    policy = random_policy()
    sizes = count(policy)
    value_model = ValueModel("separate", policy, make_knobs())
    assert size(value_model.optimizer.parameters) == sizes.trunk + sizes.head
    assert size(ValueModel("head", policy, make_knobs()).optimizer.parameters) == sizes.head


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_the_cache_is_as_large_as_a_real_one_also_where_heads_share_keys(shared: int) -> None:
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=16, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=shared, head_dim=12,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    cache = DynamicCache(config=config)
    with torch.no_grad():
        model(input_ids=torch.ones(5, 7, dtype=torch.long), past_key_values=cache, use_cache=True)
    real = size([t for layer in cache.layers for t in (layer.keys, layer.values)])
    assert 5 * 7 * cache_bytes(config, 4) == real


def test_what_a_forward_pass_keeps_grows_as_counted() -> None:
    """Against all that a larger batch keeps, padding and several rows included."""
    policy = random_policy(hidden=32, layers=2)
    sizes = count(policy)
    own = {p.untyped_storage().data_ptr() for p in (*policy.model.parameters(), *policy.model.buffers())}
    prompts = [[5, n] * n for n in (4, 6, 7, 8) for _ in range(4)]
    responses = [[6 + i] * n for i, n in enumerate((30, 22, 9, 24) * 4)]
    batch = pack_batch(prompts, responses, [1.0] * 16, policy.pad, policy.device)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = policy.plain_scorer(batch)
    real = sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in own)
    assert scores.logprobs.requires_grad
    gradients = 2 * 4 * policy.vocabulary * batch.targets.numel()  # counted, and not kept by the forward pass
    counted = batch.ids.numel() * sizes.activation + batch.targets.numel() * sizes.logits - gradients
    assert counted == pytest.approx(real, rel=0.1)


def test_counting_leaves_no_trace() -> None:
    policy = random_policy()
    before, stream = weights_of(policy), torch.get_rng_state()
    count(policy)
    assert all(torch.equal(a, b) for a, b in zip(before, weights_of(policy), strict=True))
    assert torch.equal(stream, torch.get_rng_state())
    assert all(p.grad is None for p in policy.parameters)
