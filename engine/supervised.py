"""Supervised fine-tuning: from prompts and completions to optimizer steps.

    loss = - 1/N  sum over the N completion tokens of the examples of a step of  log p(token | what comes before)

The end token that closes a completion is one of the N; prompts are not. N is over the whole step and all processes, so
neither the cut into micro-batches nor the number of processes changes a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.batches import make_batch, padded_micro_batches
from engine.passes import LOGITS_LIMIT
from engine.policy import Policy
from engine.randomness import permutation
from engine.tally import Tally
from sessions.errors import InputFileError, SessionError
from sessions.examples import Example, Message

MAX_GRAD_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Lesson:
    """An example as tokens: what is given, and what is to be said."""

    prompt: list[int]
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class Lessons:
    """The examples of a file as tokens.

    :ivar cut: completions that lost their end because they did not fit the model's context.
    :ivar left_out: examples whose prompt alone fills it.
    :ivar held_out: examples left out because they ask a held-out question of the task.
    """

    rows: list[Lesson]
    cut: int = 0
    left_out: int = 0
    held_out: int = 0

    def describe(self) -> str:
        """``8,990 examples, 10 held-out questions left out``."""
        parts = [f"{len(self.rows):,} examples"]
        parts += [f"{self.held_out:,} with held-out questions left out"] if self.held_out else []
        parts += [f"{self.cut:,} cut at the model's context length"] if self.cut else []
        parts += [f"{self.left_out:,} with longer prompts left out"] if self.left_out else []
        return ", ".join(parts)


def end_token(policy: Policy) -> int:
    """The token that a completion is closed with: the tokenizer's, or the first that ends a response."""
    named = policy.tokenizer.eos_token_id
    return int(named) if named in policy.end_tokens else min(policy.end_tokens)


def encode(policy: Policy, example: Example, where: str) -> Lesson:
    """An example as tokens, its prompt encoded as those of RL are.

    A text goes the way of a task's question: with a chat template it is the user's message. The completion is what
    follows, closed by an end token.

    :param where: names the file in errors.
    :raises InputFileError: if it is a conversation and the model has no chat template, or the prompt has no tokens.
    """
    return encode_texts(policy, example.prompt, example.completion, f"warm-up {where}, line {example.line}")


def encode_texts(policy: Policy, prompt: str | list[Message], completion: str | list[Message], where: str) -> Lesson:
    """The same from the two themselves; they are both texts or both conversations.

    :param where: begins errors.
    """
    if isinstance(prompt, str) or isinstance(completion, str):
        given, tokens = policy.encode_prompt(str(prompt)), _tokens(policy, str(completion))
    else:
        if not policy.uses_chat_template:
            raise InputFileError(
                f"{where}: a conversation, and there is no chat template to write it with; give texts instead of "
                "messages, or a model with a template"
            )
        before, after = _written(policy, prompt, completion)
        given, tokens = _tokens(policy, before), _tokens(policy, after)
        ends = [i for i, token in enumerate(tokens) if token in policy.end_tokens]
        last = ends[0 if len(completion) == 1 else -1] if ends else len(tokens)
        tokens = tokens[: last + 1]  # what a template puts after it is never sampled
    if not given:
        raise InputFileError(f"{where}: its prompt has no tokens; remove the line")
    closed = bool(tokens) and tokens[-1] in policy.end_tokens
    return Lesson(given, tokens if closed else [*tokens, end_token(policy)])


def _tokens(policy: Policy, text: str) -> list[int]:
    return policy.encode_text(text)


def _written(policy: Policy, prompt: list[Message], completion: list[Message]) -> tuple[str, str]:
    """A conversation as the template writes it: what the model is given, and what follows."""
    before = policy.render(prompt, answer=True)
    whole = policy.render([*prompt, *completion], answer=False)
    if whole.startswith(before):
        return before, whole[len(before) :]
    return before, completion[0]["content"]


def encode_all(
    policy: Policy,
    examples: Iterable[Example],
    where: str,
    held_out: Iterable[str | Sequence[Mapping[str, str]]] = (),
    safe_point: Callable[[], None] = lambda: None,
) -> Lessons:
    """The examples as tokens, cut to the model's context.

    :param held_out: the task's held-out questions, which must never be learned from: texts, and the chat messages that
        ask them, where there are any.
    :raises InputFileError: if an example cannot be used, or none is left.
    """
    context = policy.context or 2**31
    asked = list(held_out)
    secret = {tuple(policy.encode_prompt(one)) for one in asked}
    texts = {one.strip() for one in asked if isinstance(one, str)}
    rows: list[Lesson] = []
    cut = left_out = hidden = 0
    for example in examples:
        safe_point()
        row = encode(policy, example, where)
        if tuple(row.prompt) in secret or _question(example.prompt).strip() in texts:
            hidden += 1
        elif len(row.prompt) >= context:
            left_out += 1
        else:
            cut += len(row.prompt) + len(row.tokens) > context
            rows.append(Lesson(row.prompt, row.tokens[: context - len(row.prompt)]))
    if not rows:
        why = "asks a held-out question of the task" if hidden else f"is longer than the model's {context} tokens"
        raise InputFileError(f"warm-up {where}: every example {why}, so nothing is left to learn from; give others")
    return Lessons(rows, cut, left_out, hidden)


def _question(prompt: str | list[Message]) -> str:
    """What is asked: of a conversation its last message, whatever a system message before it says."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def loss(logprobs: Tensor, mask: Tensor, tokens: int) -> Tensor:
    """The share of a micro-batch in the loss of its step.

    :param logprobs: [rows, T] of the completion tokens.
    :param mask: [rows, T], true on real tokens.
    :param tokens: completion tokens of the whole step, on all processes.
    """
    return -torch.where(mask, logprobs, 0.0).sum() / tokens


Plan = Callable[[int], Sequence[int]]
"""The number of an optimizer step, from 1, to the examples it learns from."""


def epochs_plan(examples: int, batch: int, seed: int, epochs: int) -> tuple[Plan, int]:
    """Every epoch goes through all examples in a seeded order of its own; its last batch may be smaller.

    :returns: the plan, and how many steps it has.
    """
    each = -(-examples // batch)

    def plan(step: int) -> Sequence[int]:
        epoch, place = divmod(step - 1, each)
        order = permutation("warm-up", seed, epoch, n=examples)
        return [int(i) for i in order[place * batch : (place + 1) * batch]]

    return plan, each * epochs


class FineTuning:
    """AdamW on a policy's weights, its learning rate rising linearly and then constant.

    :param steps: of the plan.
    :param micro_tokens: prompt and completion tokens, padding included, that one forward and backward may hold.
    :param rise: steps over which the learning rate rises.
    :param safe_point: called before each micro-batch; it may block or raise.
    """

    def __init__(
        self,
        policy: Policy,
        rows: Sequence[Lesson],
        plan: Plan,
        steps: int,
        *,
        learning_rate: float,
        micro_tokens: int,
        rise: int,
        safe_point: Callable[[], None] = lambda: None,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        self.steps = steps
        self._policy, self._rows, self._plan = policy, rows, plan
        self._learning_rate, self._micro_tokens, self._safe_point = learning_rate, micro_tokens, safe_point
        self._rise = rise
        accelerator = policy.accelerator
        self._rank, self._ranks = accelerator.process_index, accelerator.num_processes
        fused = policy.device.type in {"cpu", "cuda"}
        plain = torch.optim.AdamW(policy.parameters, lr=0.0, betas=betas, weight_decay=weight_decay, fused=fused)
        self._optimizer: Any = accelerator.prepare_optimizer(plain)

    def step(self, number: int) -> dict[str, float]:
        """One optimizer step.

        :param number: from 1.
        :returns: its metrics, and ``tokens``: prompt and completion tokens, on all processes.
        :raises SessionError: if loss or gradient is not finite; no weight has changed by it.
        """
        rows = [self._rows[i] for i in self._plan(number)]
        try:
            value = self._backward(rows)
            norm = float(self._policy.accelerator.clip_grad_norm_(self._policy.parameters, MAX_GRAD_NORM))
            if not math.isfinite(value) or not math.isfinite(norm):
                what = "loss" if not math.isfinite(value) else "gradient"
                raise SessionError(
                    f"the warm-up's {what} is not finite at step {number} of {self.steps}; start another session with "
                    f"a lower --warm-up-learning-rate (it was {self._learning_rate:g}), and look at the examples"
                )
            rate = self._learning_rate * min(1.0, number / self._rise)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.step()
        finally:
            self._optimizer.zero_grad(set_to_none=True)
        return {
            "warmup/loss": value,
            "warmup/grad_norm": norm,
            "warmup/learning_rate": rate,
            "tokens": float(sum(len(row.prompt) + len(row.tokens) for row in rows)),
        }

    def _backward(self, rows: Sequence[Lesson]) -> float:
        """The gradient of a step's loss, and that loss."""
        tokens = sum(len(row.tokens) for row in rows)
        accelerator, policy = self._policy.accelerator, self._policy
        mine = rows[self._rank :: self._ranks]
        batches = list(padded_micro_batches(mine, self._micro_tokens, LOGITS_LIMIT // policy.vocabulary))
        tally = Tally()
        tally.total("loss", 0.0)
        if not batches:  # a process without a share still takes part in the reduction of gradients
            accelerator.backward(self._part(rows[:1], tokens) * 0.0)
        for i, batch in enumerate(batches):
            self._safe_point()
            with nullcontext() if i + 1 == len(batches) else accelerator.no_sync(policy.scorer):
                part = self._part(batch, tokens)
                # the reduction over processes is a mean, and the denominator is already that of all
                accelerator.backward(part * self._ranks)
            tally.total("loss", float(part.detach()))
        return tally.results(accelerator)["loss"]

    def _part(self, rows: Sequence[Lesson], tokens: int) -> Tensor:
        policy = self._policy
        batch = make_batch(
            [row.prompt for row in rows], [row.tokens for row in rows], [1.0] * len(rows), policy.pad, policy.device
        )
        return loss(policy.scorer(batch).logprobs, batch.mask, tokens)
