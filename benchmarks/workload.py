"""Work of a known size: Llamas of any shape with random weights, responses of one length, groups that all teach."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from engine.control import Control
from engine.knobs import Knobs
from engine.learner import Learner
from engine.policy import Policy, make_accelerator
from engine.rewards import Component
from engine.tasks import Prompt, Task
from engine.warmup import character_tokenizer
from sessions.hyperparameters import Value, defaults
from sessions.records import SessionSettings


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a Llama.

    :ivar tied: whether the output layer is the embedding.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool = True

    @classmethod
    def of(cls, model: Any) -> Shape:
        """The shape of a model of transformers."""
        config = model.config.get_text_config()
        return cls(
            config.hidden_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.intermediate_size,
            config.vocab_size,
            bool(config.tie_word_embeddings),
        )


TINY = Shape(128, 4, 4, 4, 512, 64)
"""The embedded model's."""
BILLION = Shape(2048, 16, 32, 8, 8192, 49_152)
"""About 1.1 billion parameters, with the vocabulary of SmolLM2."""


def random_policy(shape: Shape, positions: int, device: str = "cpu", precision: str = "fp32") -> Policy:
    """A Llama of that shape with random weights and the character tokenizer.

    :param positions: of its longest sequence.
    """
    tokenizer = character_tokenizer()
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=positions,
        tie_word_embeddings=shape.tied,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    return Policy(model, tokenizer, make_accelerator(device, precision))


def never_ends(policy: Policy) -> None:
    """Let no token end a response, so that every one has ``max_new_tokens``."""
    policy.end_tokens = frozenset({policy.vocabulary})


def scattered(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float | None]:
    """A reward in [0, 1] that has nothing to do with the text but differs between texts."""
    return [hashlib.sha256(text.encode()).digest()[0] / 255 for text in completions]


def task(prompt_characters: int) -> Task:
    """Prompts of so many characters, no two alike."""
    every = [Prompt(id=f"p{i}", text=f"{i:0{prompt_characters}d}"[-prompt_characters:], answer="0") for i in range(256)]
    return Task(
        name="scattered",
        prompts=every,
        evaluation=every[:1],
        components={"scattered": Component(scattered)},
        reward_range=(0.0, 1.0),
        judge=lambda prompt, text: text == prompt.answer,
    )


def make_learner(policy: Policy, asked: Task, folder: Path, **values: Value) -> Learner:
    """A learner of GRPO with kl_coefficient 0 and the defaults, others laid over; never evaluates nor saves."""
    quiet: dict[str, Value] = {"evaluate_every": 0, "checkpoint_steps": 0, "kl_coefficient": 0.0, "learning_rate": 1e-6}
    knobs = Knobs(defaults(asked.defaults, quiet, values))
    return Learner(SessionSettings(name="benchmark"), asked, policy, knobs, Control(), folder)


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds of one step.

    :ivar sampling: decoding, and scoring what was decoded.
    :ivar updating: from advantages to the optimizer's step.
    :ivar tokens: of all responses.
    """

    sampling: float
    updating: float
    tokens: int

    @property
    def step(self) -> float:
        return self.sampling + self.updating


def clock(device: torch.device) -> Callable[[], float]:
    """Processor seconds of this thread on a CPU, which a busy machine does not stretch; elsewhere wall-clock seconds
    up to when the device has done all it was given."""
    if device.type == "cpu":
        return time.thread_time

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def timed_step(learner: Learner) -> Phases:
    """One step of :meth:`engine.learner.Learner.run_step`, its phases apart."""
    now, step = clock(learner.policy.device), learner.step + 1
    learner.knobs.begin_step(step)
    learner.control.begin_step(step)
    learner.knobs.apply("rollout", step)
    began = now()
    groups = learner.sample(step)
    sampled = now()
    learner.control.begin("updating")
    learner.knobs.apply("update", step)
    learner.measure_reference(step, groups)
    learner.advantages(groups, {})
    learner.update(step, groups, lambda: None)
    updated = now()
    tokens = sum(r.length for g in groups for r in g.record.responses)
    return Phases(sampled - began, updated - sampled, tokens)
