"""What a session is refused for before its first step, and what is said of the model that it starts with."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
)

from engine import policy as policies
from engine.control import Control
from engine.learner import Learner
from engine.loading import TINY, load_policy
from engine.plan import Planner
from engine.policy import Policy, make_accelerator
from engine.soundness import Room, longest_prompt, why_not_causal
from engine.start import start
from engine.tasks import Prompt
from engine.warmup import character_tokenizer
from sessions.commands import Set
from sessions.errors import InputFileError, InvalidValue, UsageError
from sessions.folders import all_sessions
from sessions.wire import AlarmRaised
from tests.engine.live import live, session
from tests.engine.small import make_learner, random_policy, small_task

TINY_CONFIG = {"vocab_size": 64, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
               "intermediate_size": 8, "max_position_embeddings": 32, "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def load(folder: Path) -> Policy:
    return load_policy(folder, make_accelerator("cpu", "fp32"))


def started(model: Path, *sets: str, **more: Any) -> Learner:
    sets = ("prompts_per_step=1", "group_size=2", *sets)
    folder = session(f"s{len(all_sessions())}", model=str(model), sets=list(sets), **more)
    return start(folder.settings(), Control(), folder)[0]


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    character_tokenizer().save_pretrained(folder)
    return folder


# ------------------------------------------------------------------------------------------------- the folder


def test_weights_that_would_be_made_up_are_refused(tmp_path: Path) -> None:
    folder = saved(LlamaModel(LlamaConfig(**TINY_CONFIG)), tmp_path / "headless")
    with pytest.raises(InputFileError, match=r"its folder lacks the weights lm_head\.weight, which would be random"):
        load(folder)


def test_weights_of_another_shape_are_one_line(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"intermediate_size": 100}))
    with pytest.raises(InputFileError, match=r"model .*: ") as caught:
        load(model)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_model_is_refused(model: Path, tmp_path: Path) -> None:
    small = saved(LlamaForCausalLM(LlamaConfig(**{**TINY_CONFIG, "vocab_size": 40})), tmp_path / "small")
    with pytest.raises(InputFileError, match=r"tokenizer is not its own: it has tokens up to 63, .* embeddings for 40"):
        load(small)


def test_tokens_that_were_added_and_never_embedded_are_let_pass(tmp_path: Path) -> None:
    folder = saved(LlamaForCausalLM(LlamaConfig(**TINY_CONFIG)), tmp_path / "padded")
    tokenizer = character_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    policy = load(folder)
    assert policy.tokenizer.pad_token_id == 64
    assert policy.pad == 2


# ------------------------------------------------------------------------------------------------ the model


def test_a_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    config = {k: v for k, v in TINY_CONFIG.items() if k != "eos_token_id"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertLMHeadModel(BertConfig(**config, initializer_range=1.0))
    model.config.eos_token_id = 2
    with pytest.raises(UsageError, match=r"is not a causal language model .* depends on the tokens after it"):
        started(saved(model, tmp_path / "bert"), "max_new_tokens=4")
    assert why_not_causal(random_policy()) == ""


def test_a_model_without_an_end_is_refused(tmp_path: Path) -> None:
    folder = saved(LlamaForCausalLM(LlamaConfig(**{**TINY_CONFIG, "eos_token_id": None})), tmp_path / "endless")
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UsageError, match="the model names no end token"):
        load(folder)


# ---------------------------------------------------------------------------------------------- the context


def test_a_context_that_is_too_short_is_refused_with_the_numbers(model: Path) -> None:
    with pytest.raises(UsageError, match="fits into the model's context of 128 tokens with max_new_tokens=127"):
        started(model, "max_new_tokens=127")
    with pytest.raises(InvalidValue, match=r"max_new_tokens 125: prompt \S+ has \d+ tokens, .* the 128 of") as caught:
        started(model, "max_new_tokens=8", "max_new_tokens=125@5")
    most = int(str(caught.value).rpartition("set max_new_tokens to ")[2].split()[0])
    longest = int(str(caught.value).partition(" has ")[2].split()[0])
    assert most == 128 - longest
    with pytest.raises(InvalidValue, match=f"max_new_tokens {most + 1}: "):
        started(model, "max_new_tokens=8", f"max_new_tokens={most + 1}@5")
    learner = started(model, f"max_new_tokens={most}", "max_new_tokens=9@3", f"max_new_tokens={most}@5")
    with pytest.raises(InvalidValue, match=f"set max_new_tokens to {most} at most"):
        learner.knobs.request(Set(values={"max_new_tokens": most + 1}), 1)
    learner.knobs.request(Set(values={"max_new_tokens": most - 1}), 1)


def test_where_nobody_asked_for_a_length_the_default_is_half_the_context_at_most(model: Path, tmp_path: Path) -> None:
    task = tmp_path / "task.jsonl"
    task.write_text("".join(f'{{"question": "{n}+1=", "answer": "{n + 1}"}}\n' for n in range(20)))
    assert started(model, task=str(task)).knobs.whole("max_new_tokens") == 64
    assert started(model, "max_new_tokens=7", task=str(task)).knobs.whole("max_new_tokens") == 7
    with pytest.raises(UsageError, match="with max_new_tokens=256"):
        started(model, "max_new_tokens=256", task=str(task))


def test_a_prompt_that_fills_the_context_cannot_be_helped_by_shorter_answers() -> None:
    with pytest.raises(InvalidValue, match="prompt p9 has 40 tokens and the model's context only 40; leave the prompt"):
        Room(40, 40, "p9").check(1)
    Room(40, 39, "p9").check(1)
    Room(None).check(10**9)


def test_the_longest_prompt_is_among_those_with_the_most_characters(small: Policy) -> None:
    prompts = [Prompt(id=f"p{i}", text="1" * (1 + (37 * i) % 101), answer="") for i in range(101)]
    assert longest_prompt(small, prompts) == (101, next(p.id for p in prompts if len(p.text) == 101))
    assert longest_prompt(small, []) == (0, "")
    plain = random_policy()
    plain.tokenizer.chat_template = "{% for m in messages %}({{ m.content }}){% endfor %}"
    templated = Policy(plain.model, plain.tokenizer, plain.accelerator)
    assert longest_prompt(templated, prompts)[0] == 103
    messages = [{"role": "user", "content": "1" * 60}] * 2
    assert longest_prompt(templated, [*prompts, Prompt(id="m", text="1", answer="", messages=messages)]) == (124, "m")


async def test_a_prompt_that_is_too_long_is_met_while_sampling_and_the_session_goes_on() -> None:
    """One that the look at the longest has not seen."""
    prompts = [Prompt(id="long", text="1" * 120, answer=""), *small_task(3).prompts]
    task = dataclasses.replace(small_task(), prompts=prompts)
    async with live(task=task, max_new_tokens=20, prompts_per_step=4) as tested:
        await tested.first("resume")
        await tested.paused_again()
        (alarm,) = [event.alarm for event in tested.of(AlarmRaised)]
        assert "prompt long has 120 tokens, and the model's context of 128 leaves no room" in alarm.message


# ------------------------------------------------------------------------------------------- what is said of it


def test_the_model_is_described_in_one_line(tmp_path: Path) -> None:
    policy = load(TINY)
    learner = make_learner(tmp_path, policy=policy, kl_coefficient=0.1)
    said = Planner(learner).plan({}).model
    total = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(TINY).parameters())
    assert said.startswith(f"llama, 4 layers, {total / 1e6:.1f}M parameters, 8.2k of them tied ")
    assert "(input and output embeddings); stored in bf16, fp32 weights computed in fp32 on cpu; " in said
    size = f"{4 * total / 1e9:.2g}"
    assert f"weights {size}, gradients {size}, optimizer {8 * total / 1e9:.2g}, reference {size} GB" in said
    assert said.endswith("vocabulary 64, context 128; a response ends with <eos>; no chat template")
    assert "\n" not in said


def test_tied_and_frozen_parameters_are_counted(tmp_path: Path) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=8, n_layer=1, n_head=1, n_positions=64, eos_token_id=2))
    for parameter in model.transformer.h.parameters():
        parameter.requires_grad_(False)
    policy = Policy(model, character_tokenizer(), make_accelerator("cpu", "fp32"))
    said = Planner(make_learner(tmp_path, policy=policy)).model()
    trained = 64 * 8 + 64 * 8 + 2 * 8
    frozen = sum(p.numel() for p in model.transformer.h.parameters())
    assert f"gpt2, 1 layer, {(trained + frozen) / 1e3:.1f}k parameters, {trained / 1e3:.1f}k trained, 512 of" in said
    assert "tied (input and output embeddings)" in said


async def test_it_is_a_note_of_the_session_before_the_first_step() -> None:
    async with live() as tested:
        (note,) = [event for event in await tested.query("events 50") if event.get("kind") == "model"]
        assert note["step"] == 0
        assert note["text"].startswith("tiny: llama, 1 layer, ")
        assert tested.engine.learner.planner is not None
        assert note["text"] == f"tiny: {tested.engine.learner.planner.model()}"


# ------------------------------------------------------------------------------------------ device and precision


class Cuda(SimpleNamespace):
    """What torch would say of a GPU."""

    def is_available(self) -> bool:
        return bool(self.there)

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return bool(self.bf16 or including_emulation)


@pytest.mark.parametrize(
    ("cuda", "bf16", "mps", "device", "precision", "expected"),
    [
        (True, True, False, "auto", "auto", ("bf16", False)),
        (True, True, False, "cuda", "fp32", ("no", False)),
        (True, False, False, "auto", "auto", ("no", False)),  # a GPU that would emulate it
        (True, True, False, "cpu", "auto", ("no", True)),
        (False, False, True, "auto", "auto", ("no", False)),
        (False, False, True, "mps", "fp32", ("no", False)),
        (False, False, True, "cpu", "bf16", ("bf16", True)),
        (False, False, False, "auto", "auto", ("no", False)),
        (False, False, False, "auto", "bf16", ("bf16", False)),
        (True, False, False, "auto", "bf16", "this GPU has no bf16 units; use --precision fp32"),
        (False, False, True, "auto", "bf16", "is not used on an Apple GPU; use --precision fp32"),
        (False, False, True, "mps", "bf16", "is not used on an Apple GPU"),
        (False, False, False, "mps", "auto", "torch sees no Apple GPU"),
        (False, False, True, "cuda", "auto", "torch sees no CUDA device"),
    ],
)
def test_the_device_and_the_precision_that_are_chosen(
    cuda: bool, bf16: bool, mps: bool, device: str, precision: str, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(policies.torch, "cuda", Cuda(there=cuda, bf16=bf16))
    monkeypatch.setattr(policies.torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(policies, "Accelerator", lambda **options: made.update(options))
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected):
            make_accelerator(device, precision)
        return
    make_accelerator(device, precision)
    assert (made["mixed_precision"], made["cpu"]) == expected
