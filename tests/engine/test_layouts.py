"""Which models are trained on trees: small random ones of several families, against scoring every row by itself."""

import copy

import pytest
import torch
import transformers
from transformers import (
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from engine.batches import make_batch, pack_batch
from engine.decoding import why_not_decoded
from engine.layouts import why_not_packed
from engine.policy import Policy, make_accelerator
from engine.warmup import character_tokenizer
from sessions.shortcuts import active

WIDE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
}
PACKED = {
    "llama": LlamaConfig(**WIDE),
    "qwen2": Qwen2Config(**WIDE),
    "qwen3": Qwen3Config(**WIDE, head_dim=8),
    "gemma": GemmaConfig(**WIDE, head_dim=8),
    "phi": PhiConfig(**WIDE),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, eos_token_id=2, bos_token_id=1),
    "mistral without a window": MistralConfig(**WIDE, sliding_window=None),
}
PADDED = {
    "mistral": (MistralConfig(**WIDE, sliding_window=16), "slides over 16 tokens"),
    "gemma2": (Gemma2Config(**WIDE, head_dim=8, sliding_window=16), "capped at 30"),
    "cohere": (CohereConfig(**{**WIDE, "logit_scale": 0.25}), "log-probabilities differ"),
    "bloom": (BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4, eos_token_id=2), ""),
    "mamba": (MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4, eos_token_id=2), ""),
}
CPU = torch.device("cpu")


def policy_of(config, plain: tuple[str, ...] = ()) -> Policy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config))
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(5)
    return Policy(model, character_tokenizer(), make_accelerator("cpu", "fp32"), shortcuts=active(plain))


ROWS = ([[5, 6, 7]] * 3 + [[8, 9]], [[9, 3, 4, 5], [9, 3, 7], [7], [4, 4, 4, 4, 4]], [1.0, 0.7, 1.0, 1.5])


@pytest.mark.parametrize("family", PACKED)
def test_a_family_with_full_attention_is_trained_on_trees(family: str) -> None:
    policy = policy_of(PACKED[family])
    assert (policy.packs, policy.why_padded) == (True, "")
    plain, packed = make_batch(*ROWS, 0, CPU), pack_batch(*ROWS, 0, CPU)
    want = policy_of(PACKED[family], plain=("all",)).scorer(plain).logprobs
    torch.testing.assert_close(policy.scorer(packed).logprobs[packed.mask], want[plain.mask], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("family", PADDED)
def test_a_family_that_would_be_wrong_on_trees_is_recognised_and_padded(family: str) -> None:
    config, why = PADDED[family]
    policy = policy_of(config)
    assert not policy.packs
    assert policy.why_padded
    if why:
        assert any(words in policy.why_padded for words in why.split("|"))
    batch = make_batch(*ROWS, 0, CPU)
    want = policy_of(config, plain=("all",)).scorer(batch).logprobs
    torch.testing.assert_close(policy.scorer(batch).logprobs[batch.mask], want[batch.mask], atol=1e-4, rtol=1e-5)


def test_an_attention_that_takes_no_mask_is_read_from_the_configuration() -> None:
    model = policy_of(PACKED["llama"]).model
    for attention, why in (("eager", ""), ("sdpa", ""), ("flash_attention_2", "takes no block mask")):
        model.config._attn_implementation_internal = attention
        assert (why in why_not_packed(model)) if why else why_not_packed(model) == ""


def test_a_switch_turns_trees_off_and_says_so() -> None:
    policy = policy_of(PACKED["llama"], plain=("tree",))
    assert not policy.packs
    assert "tree is turned off" in policy.why_padded
    assert policy.chunks_logits
    assert not policy_of(PACKED["llama"], plain=("all",)).chunks_logits


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_both_kinds_of_attention_take_the_mask(attention: str) -> None:
    config = copy.deepcopy(PACKED["llama"])
    config._attn_implementation = attention
    assert policy_of(config).packs


def test_a_model_that_takes_no_notice_of_the_cache_is_refused_before_it_is_sampled_without_its_past() -> None:
    assert why_not_decoded(policy_of(PADDED["mamba"][0]))
    for family in ("gemma2", "cohere", "bloom", "mistral"):
        assert why_not_decoded(policy_of(PADDED[family][0])) == ""
    for family in PACKED:
        assert why_not_decoded(policy_of(PACKED[family])) == ""
