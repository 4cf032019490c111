"""Decoding behind a cache, for architectures that treat padding and the past differently; caches that have room."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from transformers.cache_utils import DynamicLayer

from engine.decoding import ROOM, GrowingDecoder, GrowingLayer, additive_mask, masks_alone, prefill
from engine.policy import Policy, make_accelerator
from engine.sampling import sample
from engine.warmup import character_tokenizer
from tests.engine.test_sampling import PROMPTS, G, noise_for, slowly

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 2,
}
GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "lfm2": {**SIZES, "layer_types": ["conv", "full_attention"]},
    "llama": SIZES,
    "qwen3": SIZES,
    "gpt2": GPT2,
    "gpt_neox": {k: v for k, v in SIZES.items() if k not in {"num_key_value_heads", "head_dim"}},
    "mistral": {**SIZES, "sliding_window": 4},
    "gemma3_text": {**SIZES, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "bloom": {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
}


def random_model(kind: str, **more: Any) -> Policy:
    tokenizer = character_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**ARCHITECTURES[kind], **more}))
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(8)
    model.generation_config.eos_token_id = [2, 10, 20, 30, 40, 50, 60]
    return Policy(model.eval(), tokenizer, make_accelerator("cpu", "fp32"))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_same_tokens_as_the_slow_loop_in_every_architecture(kind: str) -> None:
    policy = random_model(kind)
    noise = noise_for(len(PROMPTS) * G)
    samples = sample(policy, PROMPTS, G, 10, 1.0, noise)
    for row in range(len(PROMPTS) * G):
        tokens, logprobs, ended = slowly(policy, PROMPTS[row // G], noise[row], 1.0, 10)
        assert (samples.tokens[row], samples.ended[row]) == (tokens, ended)
        assert samples.logprobs[row] == pytest.approx(logprobs, abs=1e-4)


def test_eager_attention_takes_the_same_mask() -> None:
    plain, eager = random_model("llama"), random_model("llama", attn_implementation="eager")
    noise = noise_for(len(PROMPTS) * G)
    one, other = (sample(policy, PROMPTS, G, 10, 1.0, noise) for policy in (plain, eager))
    assert one.tokens == other.tokens


@pytest.mark.parametrize(("kind", "alone"), [("llama", True), ("qwen3", True), ("gpt_neox", True), ("gpt2", False)])
def test_only_rotary_models_that_see_their_whole_past_are_given_a_mask_of_scores(kind: str, alone: bool) -> None:
    model = random_model(kind).model
    assert masks_alone(model, DynamicCache(config=model.config)) is alone


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text", "bloom", "falcon"])
def test_windows_and_alibi_are_given_the_padding_mask(kind: str) -> None:
    model = random_model(kind).model
    assert not masks_alone(model, DynamicCache(config=model.config))


def test_flash_attention_is_given_the_padding_mask() -> None:
    model = random_model("llama").model
    model.config._attn_implementation = "flash_attention_2"
    assert not masks_alone(model, DynamicCache(config=model.config))


def test_prompts_of_one_length_need_no_mask(small: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = []
    forward = small.model.forward
    monkeypatch.setattr(
        small.model, "forward", lambda **given: (masks.append(given["attention_mask"]), forward(**given))[1]
    )
    sample(small, [[5, 6], [7, 8]], G, 3, 1.0, noise_for(2 * G, 3))
    assert [mask is None for mask in masks[1:]] == [True, True]
    masks.clear()
    sample(small, [[5, 6], [8]], G, 3, 1.0, noise_for(2 * G, 3))
    assert [tuple(mask.shape[1:]) for mask in masks[1:]] == [(1, 1, 3), (1, 1, 4)]


def test_the_mask_is_of_scores() -> None:
    mask = additive_mask(torch.tensor([[0, 1, 1], [1, 1, 1]]), torch.bfloat16)
    assert mask.dtype == torch.bfloat16
    assert mask.tolist() == [[[[torch.finfo(torch.bfloat16).min, 0, 0]]], [[[0, 0, 0]]]]


@given(
    st.lists(st.sampled_from(["grow", "grow", "grow", "keep"]), min_size=1, max_size=12),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2**16),
)
@settings(max_examples=40)
def test_a_layer_with_room_is_a_dynamic_layer(what: list[str], prompts: int, repeats: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    read, plain = DynamicLayer(), DynamicLayer()
    first = torch.randn(2, prompts, 2, 3, 4, generator=random)
    read.update(*first)
    plain.update(*first.repeat_interleave(repeats, 1))
    roomy = GrowingLayer(read, repeats, 1)
    rows = prompts * repeats
    for action in what:
        if action == "grow":
            states = torch.randn(2, rows, 2, 1, 4, generator=random)
            shown, expected = roomy.update(*states), plain.update(*states)
            assert all(torch.equal(a, b) for a, b in zip(shown, expected, strict=True))
        else:
            kept = (torch.rand(rows, generator=random) < 0.7).nonzero().squeeze(1)
            kept = kept if len(kept) else torch.tensor([rows - 1])
            rows = len(kept)
            roomy.reorder_cache(kept)
            plain.reorder_cache(kept)
        assert torch.equal(roomy.keys, plain.keys)
        assert torch.equal(roomy.values, plain.values)
        assert (roomy.get_seq_length(), roomy.get_mask_sizes(1)) == (plain.get_seq_length(), plain.get_mask_sizes(1))


def test_new_keys_are_written_in_place_until_the_room_is_used_up(small: Policy) -> None:
    with small.inference():
        read = prefill(small, PROMPTS, 2)
        decoder = GrowingDecoder(small, read, 1000)
        layer = decoder._cache.layers[0]
        begin, token = layer.keys.data_ptr(), torch.full((2 * len(PROMPTS),), 7)
        places = []
        for _ in range(ROOM + 1):
            decoder.step(token)
            places.append(layer.keys.data_ptr())
    assert places[:ROOM] == [begin] * ROOM
    assert places[ROOM] != begin
