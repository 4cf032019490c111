"""Small random models of many families: saved, loaded as a person's own, trained for a step, saved and loaded again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.loading import load_policy
from engine.policy import Policy, make_accelerator
from engine.warmup import character_tokenizer
from sessions.model_files import check_model_folder
from tests.engine.small import make_learner, same_weights, weights_of

WIDE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SMALL_HEADS = {**WIDE, "head_dim": 8}
EVEN = {**WIDE, "num_key_value_heads": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", WIDE),
    "llama, tied": ("Llama", {**WIDE, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", WIDE),
    "qwen2, tied": ("Qwen2", {**WIDE, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", SMALL_HEADS),
    "gemma": ("Gemma", SMALL_HEADS),
    "gemma2": ("Gemma2", {**SMALL_HEADS, "sliding_window": 8}),
    "gemma3": ("Gemma3Text", {**SMALL_HEADS, "sliding_window": 8,
                              "layer_types": ["sliding_attention", "full_attention"]}),
    "gpt2": ("GPT2", {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "eos_token_id": 2,
                      "bos_token_id": 1}),
    "phi": ("Phi", EVEN),
    "phi3": ("Phi3", EVEN),
    "mistral": ("Mistral", {**SMALL_HEADS, "sliding_window": 8}),
    "olmo2": ("Olmo2", WIDE),
    "granite": ("Granite", WIDE),
    "smollm3": ("SmolLM3", WIDE),
    "mixtral": ("Mixtral", {**SMALL_HEADS, "num_local_experts": 2, "num_experts_per_tok": 1}),
    "gpt-neox": ("GPTNeoX", {k: v for k, v in WIDE.items() if k != "num_key_value_heads"}),
    "opt": ("OPT", {"vocab_size": 64, "hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 24, "pad_token_id": 0,
                    "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
                    "bos_token_id": 1, "eos_token_id": 2}),
}  # fmt: skip
TIED = {"llama, tied", "qwen2, tied", "gemma", "gemma2", "gemma3", "gpt2", "smollm3", "opt"}


def made(folder: Path, family: str, **more: Any) -> Path:
    """The folder of a random model with the character tokenizer."""
    kind, given = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = transformers.AutoModelForCausalLM.from_config(
            getattr(transformers, f"{kind}Config")(**given, **more)
        )
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(5)
    model.save_pretrained(folder)
    character_tokenizer().save_pretrained(folder)
    return folder


def load(folder: Path) -> Policy:
    return load_policy(folder, make_accelerator("cpu", "fp32"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_loaded_trained_and_kept(family: str, tmp_path: Path) -> None:
    policy = load(made(tmp_path / "model", family))
    tied = policy.model.get_input_embeddings().weight is policy.model.get_output_embeddings().weight
    assert tied == (family in TIED)
    learner = make_learner(tmp_path, policy=policy, prompts_per_step=2, group_size=3, kl_coefficient=0.1)
    before = weights_of(policy)
    metrics = learner.run_step()
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["sampler_gap/max"] < 1e-4
    assert metrics["grad/norm"] > 0
    assert not same_weights(before, weights_of(policy))
    learner.save("test")

    kept = tmp_path / "1" / "policy"
    check_model_folder(kept, family)  # what is exported of a session can be started from
    again = load(kept)
    assert same_weights(weights_of(policy), weights_of(again))
    assert (again.end_tokens, again.pad, again.context) == (policy.end_tokens, policy.pad, policy.context)
    other = make_learner(tmp_path, policy=load(tmp_path / "model"), save=False, kl_coefficient=0.1,
                         prompts_per_step=2, group_size=3)  # fmt: skip
    other.load(tmp_path / "1")
    assert same_weights(weights_of(policy), weights_of(other.policy))
    assert other.run_step()["loss/policy"] == learner.run_step()["loss/policy"]


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_a_model_stored_in_half_precision_is_trained_in_fp32(stored: torch.dtype, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(made(tmp_path / "whole", "llama"))
    model.to(stored).save_pretrained(tmp_path / "half")
    character_tokenizer().save_pretrained(tmp_path / "half")
    policy = load(tmp_path / "half")
    assert policy.stored == {torch.bfloat16: "bf16", torch.float16: "fp16"}[stored]
    assert {p.dtype for p in policy.parameters} == {torch.float32}
    assert not policy.bf16
    learner = make_learner(tmp_path, policy=policy, learning_rate=1e-6)
    before = weights_of(policy)
    learner.run_step()
    moved = [float((a - b).abs().max()) for a, b in zip(weights_of(policy), before, strict=True)]
    assert 0 < max(moved) < 2e-6  # a step that bf16 would round away


def test_frozen_parts_stay_as_they_are(tmp_path: Path) -> None:
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(made(tmp_path / "model", "llama"))
    frozen = [model.model.embed_tokens.weight, *model.model.layers[0].parameters()]
    for parameter in frozen:
        parameter.requires_grad_(False)
    policy = Policy(model, character_tokenizer(), make_accelerator("cpu", "fp32"))
    before, trained = [p.clone() for p in frozen], weights_of(policy)
    learner = make_learner(tmp_path, policy=policy, weight_decay=0.1)
    metrics = learner.run_step()
    assert same_weights(before, frozen)
    assert not any(torch.equal(a, b) for a, b in zip(trained, [p.detach() for p in policy.parameters], strict=True))
    assert metrics["sampler_gap/max"] < 1e-4
    learner.save("test")
    assert same_weights([p.detach() for p in model.parameters()],
                        [p.detach() for p in load(tmp_path / "1" / "policy").model.parameters()])  # fmt: skip
