"""Small things to train: a random Llama, a task with graded rewards, a learner, and groups made by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from engine.control import Control
from engine.knobs import Knobs
from engine.learner import Learner
from engine.policy import Policy, make_accelerator
from engine.rewards import Component
from engine.rollout import RolloutGroup
from engine.tasks import Prompt, Task
from engine.warmup import character_tokenizer, tiny_config
from sessions.hyperparameters import defaults, parse_assignment
from sessions.records import Group, Response, SessionSettings, letters

SMALL = {
    "prompts_per_step": 4,
    "group_size": 4,
    "max_new_tokens": 6,
    "learning_rate": 1e-3,
    "evaluate_every": 0,
    "checkpoint_steps": 0,
}


def random_policy(seed: int = 0, hidden: int = 16, layers: int = 1, spread: float = 20.0) -> Policy:
    """A Llama with random weights and the character tokenizer.

    :param spread: multiplies its weights: far enough from uniform for a wrong mask or position to show.
    """
    tokenizer = character_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(tiny_config(tokenizer, hidden, layers))
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(spread)
        embedding = model.get_input_embeddings().weight.data
        embedding[tokenizer.pad_token_id] = embedding[1].flip(0)  # not 0, around which a normalised state is not smooth
    model.generation_config.eos_token_id = [2, 10, 20, 30, 40, 50, 60]  # responses of different lengths
    return Policy(model, tokenizer, make_accelerator("cpu", "fp32"))


def newest_checkpoint(folder: Path) -> Path:
    """The checkpoint of the latest step."""
    return folder / str(max(int(p.name) for p in folder.iterdir() if p.name.isdigit()))


def early_letters(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float | None]:
    """A graded reward that a random policy spreads over: how early in the alphabet its characters are."""
    return [sum((128 - ord(c)) / 128 for c in text) / max(len(text), 1) for text in completions]


def small_task(prompts: int = 12, function: Callable[..., Any] = early_letters, **components: Component) -> Task:
    """Sums as questions of different lengths; the reward has nothing to do with them."""
    every = [Prompt(id=f"p{i}", text=f"{i * i * i}+{i}=", answer=str(i)) for i in range(prompts + 4)]
    return Task(
        name="small",
        prompts=every[:prompts],
        evaluation=every[prompts:],
        components={"early": Component(function), **components},
        reward_range=(0.0, 1.0),
        judge=lambda prompt, text: text.strip() == prompt.answer,
    )


def make_knobs(*sets: str, **values: Any) -> Knobs:
    """The small values, others laid over, and a schedule of ``name=value@STEP``."""
    return Knobs({**defaults(), **SMALL, **values}, [parse_assignment(text) for text in sets])


def make_learner(
    folder: Path,
    *,
    policy: Policy | None = None,
    task: Task | None = None,
    knobs: Knobs | None = None,
    seed: int = 0,
    micro_tokens: int = 16_384,
    save: bool = True,
    **values: Any,
) -> Learner:
    """A learner on a random policy, with checkpoint 0 on disk."""
    learner = Learner(
        SessionSettings(name="t", seed=seed, micro_tokens=micro_tokens),
        task or small_task(),
        policy or random_policy(),
        knobs or make_knobs(**values),
        Control(),
        folder,
    )
    if save:
        learner.save("start of RL")
    return learner


def weights_of(policy: Policy) -> list[torch.Tensor]:
    return [p.detach().clone() for p in policy.parameters]


def same_weights(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool:
    """Bit for bit."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def rollout_group(
    rewards: Sequence[float | None] = (1.0, 0.0),
    lengths: Sequence[int] | None = None,
    *,
    step: int = 1,
    number: int = 1,
    prompt_tokens: Sequence[int] = (5, 6, 7),
    **more: Any,
) -> RolloutGroup:
    """A group with made-up tokens."""
    lengths = lengths or [3] * len(rewards)
    responses = [
        Response(
            letter=letters(i),
            text="x" * n,
            length=n,
            ended=True,
            components={"early": reward},
            reward=reward,
            tokens=[(7 * i + 3 * t + number) % 50 + 4 for t in range(n)],
            ends=list(range(1, n + 1)),
            logprobs=[-1.0] * n,
        )
        for i, (reward, n) in enumerate(zip(rewards, lengths, strict=True))
    ]
    record = Group(
        branch="main",
        step=step,
        number=number,
        prompt_id=f"p{number}",
        prompt="1+1=",
        answer="2",
        temperature=1.0,
        responses=responses,
        prompt_tokens=list(prompt_tokens),
    )
    return RolloutGroup(record, **more)


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Poll from a thread until it holds.

    :raises TimeoutError: if it does not within ``seconds``.
    """
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("it did not come true")
        time.sleep(0.002)
