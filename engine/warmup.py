"""The warm-up that makes the embedded model: supervised fine-tuning of a tiny Llama on two-digit addition.

The steps are those of :mod:`engine.supervised`, on the task's own questions and answers: AdamW, learning rate 1e-3
after 50 steps of linear rise, batch 128; the held-out pairs are never seen. It takes about a
minute on one core and answers some 58 % of the held-out questions: good enough to be rewarded now and then, with plenty
left for RL to learn. Everything is seeded: the same recipe gives the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers import logging as transformers_logging

from engine.policy import Policy, make_accelerator
from engine.randomness import stream
from engine.sampling import sample
from engine.supervised import FineTuning, encode_all
from engine.tasks.arithmetic import arithmetic
from engine.tasks.task import Task
from sessions.examples import Example

transformers_logging.disable_progress_bar()

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
CHARACTERS = "0123456789+-*/=()<>,.?:;! '\nabcdefghijklmnopqrstuvwxyz"
VOCABULARY = 64
LEARNING_RATE, RISE, BATCH, MICRO_TOKENS = 1e-3, 50, 128, 16_384


@dataclass(frozen=True, slots=True)
class Warmed:
    """A finished warm-up.

    :ivar accuracy: (step, share of held-out answers that are right, greedy), in order.
    """

    model: Any
    tokenizer: Any
    accuracy: list[tuple[int, float]]


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character: 64 of them, padded with names that never occur in text."""
    names = [*SPECIAL, *CHARACTERS]
    names += [f"<r{i}>" for i in range(VOCABULARY - len(names))]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=128,
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast, hidden: int = 128, layers: int = 4) -> LlamaConfig:
    """A Llama of about a million parameters."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=4 * hidden,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def warm_up(
    steps: int = 480,
    seed: int = 0,
    *,
    hidden: int = 128,
    layers: int = 4,
    evaluate_every: int = 100,
    report: Callable[[int, float, float], None] = lambda step, loss, accuracy: None,
) -> Warmed:
    """Train the tiny model from nothing.

    :param report: called every ``evaluate_every`` steps with (step, loss, held-out accuracy).
    """
    task = arithmetic()
    policy = _fresh(seed, hidden, layers)
    examples = [Example(i, p.text, p.answer) for i, p in enumerate(task.prompts, 1)]
    rows = encode_all(policy, examples, task.name, (p.text for p in task.evaluation)).rows
    order = stream("warm-up order", seed)
    training = FineTuning(
        policy,
        rows,
        lambda step: [int(i) for i in order.integers(len(rows), size=BATCH)],
        steps,
        learning_rate=LEARNING_RATE,
        micro_tokens=MICRO_TOKENS,
        rise=RISE,
        betas=(0.9, 0.95),
        weight_decay=0.01,
    )
    accuracy: list[tuple[int, float]] = []
    for step in range(1, steps + 1):
        measured = training.step(step)
        if step % evaluate_every == 0 or step == steps:
            accuracy.append((step, _accuracy(policy, task)))
            report(step, measured["warmup/loss"], accuracy[-1][1])
    return Warmed(policy.model, policy.tokenizer, accuracy)


def save(warmed: Warmed, folder: Path) -> None:
    """Write the model (bf16, about 2 MB) and its tokenizer as a folder that transformers loads."""
    folder.mkdir(parents=True, exist_ok=True)
    warmed.model.to(torch.bfloat16).save_pretrained(folder)
    warmed.tokenizer.save_pretrained(folder)


def _fresh(seed: int, hidden: int, layers: int) -> Policy:
    """A policy with random weights."""
    tokenizer = character_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(stream("warm-up weights", seed).integers(2**63)))
        model: Any = LlamaForCausalLM(tiny_config(tokenizer, hidden, layers))
    return Policy(model, tokenizer, make_accelerator("cpu", "fp32"))


def _accuracy(policy: Policy, task: Task) -> float:
    """Share of held-out questions answered rightly, greedy."""
    right, judge = 0, task.judge
    assert judge is not None
    for start in range(0, len(task.evaluation), 250):
        prompts = task.evaluation[start : start + 250]
        encoded = [policy.encode_prompt(p.text) for p in prompts]
        samples = sample(policy, encoded, 1, int(task.defaults["max_new_tokens"]), 1.0, None)
        right += sum(judge(p, policy.decode(t)) for p, t in zip(prompts, samples.tokens, strict=True))
    return right / len(task.evaluation)
