"""Weights packed for few rows: what they compute, when they are taken, and that nothing of them stays."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import decode_weights
from engine.policy import Policy, _full_precision_head
from engine.sampling import sample
from sessions.shortcuts import SHORTCUTS
from tests.engine.small import random_policy
from tests.engine.test_sampling import PROMPTS, G, noise_for

ROWS, STEPS = 8, 20


@pytest.fixture
def packs_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if every layer and model were large enough to gain."""
    monkeypatch.setattr(decode_weights, "PACKED_LAYER", 1)
    monkeypatch.setattr(decode_weights, "PACKED_MODEL", 1)
    decode_weights.packing_works.cache_clear()
    yield
    decode_weights.packing_works.cache_clear()


def packed_layers(policy: Policy) -> list[nn.Linear]:
    return [m for m in policy.model.modules() if isinstance(m, nn.Linear) and "forward" in vars(m)]


@pytest.mark.usefixtures("packs_all")
@pytest.mark.parametrize("seed", range(3))
def test_packed_weights_change_nothing_but_rounding(seed: int) -> None:
    policy = random_policy(seed, hidden=32, layers=2, spread=8.0)
    noise = noise_for(len(PROMPTS) * G, STEPS, seed)
    packed = sample(policy, PROMPTS, G, STEPS, 0.9, noise)
    plain = sample(policy, PROMPTS, G, STEPS, 0.9, noise, shortcuts=set(SHORTCUTS) - {"decode_weights"})
    assert packed.tokens == plain.tokens
    assert len({len(tokens) for tokens in plain.tokens}) > 2
    for one, other in zip(packed.logprobs, plain.logprobs, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert packed.logprobs != plain.logprobs  # it is another kernel that made them


@pytest.mark.usefixtures("packs_all")
def test_the_head_is_packed_too_and_what_training_sees_is_as_before() -> None:
    policy = random_policy()
    before = {name: id(m.forward) if "forward" in vars(m) else None for name, m in policy.model.named_modules()}
    linears = [m for m in policy.model.modules() if isinstance(m, nn.Linear)]
    with decode_weights.decode_weights(policy, ROWS, STEPS):
        assert packed_layers(policy) == linears
        assert policy.model.get_output_embeddings() in packed_layers(policy)
    after = {name: id(m.forward) if "forward" in vars(m) else None for name, m in policy.model.named_modules()}
    assert after == before
    with pytest.raises(ZeroDivisionError), decode_weights.decode_weights(policy, ROWS, STEPS):
        raise ZeroDivisionError
    assert packed_layers(policy) == []


@pytest.mark.usefixtures("packs_all")
def test_weights_are_packed_anew_for_every_rollout() -> None:
    policy = random_policy()
    x = torch.linspace(-1, 1, policy.model.config.hidden_size).view(1, 1, -1)
    head = policy.model.get_output_embeddings()
    with policy.inference():
        for _ in range(2):
            with decode_weights.decode_weights(policy, ROWS, STEPS):
                assert torch.allclose(head(x), F.linear(x, head.weight), atol=1e-5)
            head.weight.mul_(-2.0)


@pytest.mark.usefixtures("packs_all")
def test_a_fixed_rule_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = random_policy()

    def packs(rows: int = ROWS, steps: int = STEPS) -> bool:
        with decode_weights.decode_weights(policy, rows, steps):
            return bool(packed_layers(policy))

    assert packs()
    assert packs(rows=decode_weights.PACKED_ROWS)
    assert not packs(rows=decode_weights.PACKED_ROWS + 1)
    assert packs(steps=decode_weights.PACKED_STEPS)
    assert not packs(steps=decode_weights.PACKED_STEPS - 1)
    count = sum(m.weight.numel() for m in policy.model.modules() if isinstance(m, nn.Linear))
    monkeypatch.setattr(decode_weights, "PACKED_MODEL", count)
    assert packs()
    monkeypatch.setattr(decode_weights, "PACKED_MODEL", count + 1)
    assert not packs()


def test_a_small_model_reads_its_weights_as_they_are(embedded: Policy) -> None:
    with decode_weights.decode_weights(embedded, ROWS, STEPS):
        assert packed_layers(embedded) == []


@pytest.mark.usefixtures("packs_all")
def test_only_plain_linear_layers_in_fp32_are_packed() -> None:
    class Odd(nn.Linear):
        pass

    policy = random_policy()
    block = policy.model.model.layers[0]
    block.mlp.up_proj = Odd(16, block.mlp.up_proj.out_features, bias=False)
    block.mlp.gate_proj.to(torch.bfloat16)
    own = block.mlp.down_proj
    own.forward = lambda x: x  # somebody else's
    with decode_weights.decode_weights(policy, ROWS, STEPS):
        packed = packed_layers(policy)
    assert block.self_attn.q_proj in packed
    assert not {block.mlp.up_proj, block.mlp.gate_proj} & set(packed)
    assert "forward" in vars(own)


def absent(*_: object) -> Tensor:
    raise AttributeError("no such operation: _linear_pointwise")


@pytest.mark.usefixtures("packs_all")
@pytest.mark.parametrize(
    ("broken", "why"), [(absent, "no such operation"), (lambda x, w, b: torch.zeros(5, 1, 96), "differ")]
)
def test_where_packing_is_missing_or_wrong_the_log_says_so_once_and_weights_are_read_as_they_are(
    broken: object, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decode_weights, "_apply", broken)
    policy = random_policy()
    noise = noise_for(len(PROMPTS) * G, STEPS)
    with caplog.at_level(logging.WARNING):
        samples = [sample(policy, PROMPTS, G, STEPS, 1.0, noise) for _ in range(2)]
    assert samples[0].tokens == samples[1].tokens
    assert [record.getMessage().count(why) for record in caplog.records] == [1]


def test_on_cuda_every_layer_but_the_fp32_head_reads_bf16_weights_that_stay_where_they_are() -> None:
    policy = random_policy()
    block = policy.model.model.layers[0].mlp
    block.up_proj = nn.Linear(16, block.up_proj.out_features, bias=True)
    _full_precision_head(policy.model)
    head = policy.model.get_output_embeddings()
    on_cuda: Any = SimpleNamespace(model=policy.model, device=SimpleNamespace(type="cuda"), bf16=True)
    linears = [m for m in policy.model.modules() if isinstance(m, nn.Linear) and m is not head]
    x, places = torch.linspace(-1, 1, 32).view(2, 1, 16), []
    with torch.no_grad():
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                expected = block.up_proj(x)
            kept = vars(head)["forward"]
            with decode_weights.decode_weights(on_cuda, 1, 1):
                assert [m for m in packed_layers(policy) if m is not head] == linears
                assert vars(head)["forward"] is kept
                assert torch.equal(block.up_proj(x), expected)
                assert block.up_proj(x).dtype == torch.bfloat16
                places.append([t.data_ptr() for m in linears for t in decode_weights._bf16[m] if t is not None])
            assert packed_layers(policy) == [head]
            block.up_proj.weight.mul_(-3.0)
            block.up_proj.bias.add_(1.0)
    assert places[0] == places[1]
    on_cuda.bf16 = False
    with decode_weights.decode_weights(on_cuda, 1, 1):
        assert packed_layers(policy) == [head]
