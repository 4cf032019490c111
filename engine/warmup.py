"""The warm-up that makes the embedded model: supervised fine-tuning of a tiny Llama on two-digit addition.

    loss = - mean over answer tokens of log p(token | question, earlier answer tokens)

AdamW, learning rate 1e-3 after 50 steps of linear rise, batch 128; the held-out pairs are never seen. It takes about a
minute on one core and answers some 58 % of the held-out questions: good enough to be rewarded now and then, with plenty
left for RL to learn. Everything is seeded: the same recipe gives the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers import logging as transformers_logging

from engine.randomness import stream
from engine.tasks.arithmetic import arithmetic
from engine.tasks.task import Prompt

transformers_logging.disable_progress_bar()

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
CHARACTERS = "0123456789+-*/=()<>,.?:;! '\nabcdefghijklmnopqrstuvwxyz"
VOCABULARY = 64
LEARNING_RATE, RISE, BATCH = 1e-3, 50, 128


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
    steps: int = 460,
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
    tokenizer = character_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(stream("warm-up weights", seed).integers(2**63)))
        model: Any = LlamaForCausalLM(tiny_config(tokenizer, hidden, layers))
    ids, labels = _examples(task.prompts, tokenizer)
    held_ids, held_labels = _examples(task.evaluation, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    order = stream("warm-up order", seed)
    accuracy: list[tuple[int, float]] = []
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, step / RISE)
        rows = torch.from_numpy(order.integers(len(ids), size=BATCH))
        loss = _loss(model, ids[rows], labels[rows])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % evaluate_every == 0 or step == steps:
            accuracy.append((step, _accuracy(model, held_ids, held_labels)))
            report(step, loss.item(), accuracy[-1][1])
    return Warmed(model, tokenizer, accuracy)


def save(warmed: Warmed, folder: Path) -> None:
    """Write the model (bf16, about 2 MB) and its tokenizer as a folder that transformers loads."""
    folder.mkdir(parents=True, exist_ok=True)
    warmed.model.to(torch.bfloat16).save_pretrained(folder)
    warmed.tokenizer.save_pretrained(folder)


def _examples(prompts: Any, tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """Question and answer in one row; labels [rows, width] are -100 outside the answer and its end token."""
    vocabulary = tokenizer.get_vocab()
    end = tokenizer.eos_token_id
    width = max(len(p.text) + len(p.answer) for p in prompts) + 1
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    labels = torch.full((len(prompts), width), -100)
    for i, prompt in enumerate(prompts):
        question, answer = _encode(prompt, vocabulary)
        answer.append(end)
        ids[i, : len(question) + len(answer)] = torch.tensor(question + answer)
        labels[i, len(question) : len(question) + len(answer)] = torch.tensor(answer)
    return ids, labels


def _encode(prompt: Prompt, vocabulary: dict[str, int]) -> tuple[list[int], list[int]]:
    return [vocabulary[c] for c in prompt.text], [vocabulary[c] for c in prompt.answer]


def _loss(model: Any, ids: Tensor, labels: Tensor) -> Tensor:
    logits = model(input_ids=ids).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


@torch.no_grad()
def _accuracy(model: Any, ids: Tensor, labels: Tensor) -> float:
    """Share of rows whose every answer token is the likeliest one: the same as greedy decoding being right."""
    right = []
    for rows in torch.arange(len(ids)).split(250):
        guess = model(input_ids=ids[rows]).logits[:, :-1].argmax(-1)
        wanted = labels[rows, 1:]
        right.append(((guess == wanted) | (wanted == -100)).all(1))
    return float(torch.cat(right).float().mean())
