"""Prompts that do not fit into the model's context together with their answer are left out before training.

A token is at least one byte of text, so most prompts fit by their length alone; only the others are made into tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from engine.policy import Policy
from engine.tasks.dataset import PER_MESSAGE, PromptRows
from engine.tasks.task import Prompt, Task
from engine.words import one_line
from sessions.errors import UsageError, WorkbenchError

MOST_BYTES = 20_000_000
"""Of prompts that are made into tokens to be measured, the longest first: some ten seconds."""
ROUGHLY = 16
"""Tokens that a tokenizer may put around a text."""


def fit(task: Task, policy: Policy, answer: int) -> Task:
    """The task without the prompts that are too long for the model.

    :param answer: tokens that are kept free for a response, ``max_new_tokens``.
    :raises UsageError: if none fits, or the model's chat template does not take them.
    """
    overhead = _overhead(task, policy)
    context = policy.context
    if context is None:
        return task
    room = context - answer
    kept, shortest = _fitting(task.prompts, policy, room, overhead)
    if not kept.any():
        raise UsageError(
            f"task {task.name}: none of its {len(kept):,} prompts fits into the model's context of {context:,} tokens "
            f"with max_new_tokens={answer:,} (the shortest has {shortest:,}); lower that, or take another model"
        )
    held, _ = _fitting(task.evaluation, policy, room, overhead)
    if kept.all() and held.all():
        return task
    left = [f"{int((~some).sum()):,} {what}" for what, some in (("prompts", kept), ("held-out prompts", held))
            if not some.all()]  # fmt: skip
    note = (
        f"{' and '.join(left)} left out: longer than the model's context of {context:,} tokens less the "
        f"{answer:,} of max_new_tokens"
    )
    return replace(
        task, prompts=_only(task.prompts, kept), evaluation=_only(task.evaluation, held), notes=(*task.notes, note)
    )


def _overhead(task: Task, policy: Policy) -> int:
    """Tokens that stand around a text: what a short prompt has beyond its own bytes, and some more."""
    first = [*task.prompts[:1], *task.evaluation[:1]]
    try:
        for prompt in first:
            policy.encode_prompt(prompt.messages or prompt.text)
        around = len(policy.encode_prompt([{"role": "user", "content": "1"}])) if policy.uses_chat_template else 0
    except WorkbenchError:
        raise
    except Exception as error:  # noqa: BLE001 - a chat template is a program and may raise anything
        system = any(m["role"] == "system" for p in first for m in p.messages)
        remedy = "; it may know no system message: leave it out" if system else ""
        what = "chat template does not take" if policy.uses_chat_template else "tokenizer cannot encode"
        raise UsageError(f"task {task.name}: the model's {what} its prompts ({one_line(error)}){remedy}") from None
    return around + ROUGHLY


def _fitting(prompts: Sequence[Prompt], policy: Policy, room: int, overhead: int) -> tuple[npt.NDArray[np.bool_], int]:
    """Which prompts fit, and the tokens of the shortest that was measured and does not.

    The longest are measured, up to :data:`MOST_BYTES`; of the rest those fit that would even with the most tokens a
    byte that any of the measured had.
    """
    sizes = _sizes(prompts)
    fits = sizes + overhead <= room
    doubtful = np.flatnonzero(~fits)
    doubtful = doubtful[np.argsort(-sizes[doubtful], kind="stable")]
    shortest, density, measured = 0, 0.0, 0
    for place, index in enumerate(doubtful):
        if measured > MOST_BYTES:
            rest = doubtful[place:]
            fits[rest] = sizes[rest] * density + overhead <= room
            break
        prompt = prompts[int(index)]
        tokens = len(policy.encode_prompt(prompt.messages or prompt.text))
        measured += int(sizes[index]) + overhead
        density = max(density, (tokens - overhead) / max(1, int(sizes[index])))
        fits[index] = tokens <= room
        if tokens > room:
            shortest = min(shortest or tokens, tokens)
    return fits, shortest


def _sizes(prompts: Sequence[Prompt]) -> npt.NDArray[np.int64]:
    """Bytes of each, generously."""
    if isinstance(prompts, PromptRows):
        return prompts.sizes.astype(np.int64)
    return np.array([_size(prompt) for prompt in prompts], dtype=np.int64)


def longest(prompts: Sequence[Prompt], most: int) -> list[Prompt]:
    """Those with the most text, so many."""
    return [prompts[int(index)] for index in np.argsort(-_sizes(prompts), kind="stable")[:most]]


def _size(prompt: Prompt) -> int:
    if prompt.messages:
        return sum(len(message["content"].encode()) + PER_MESSAGE for message in prompt.messages)
    return len(prompt.text.encode())


def _only(prompts: Sequence[Prompt], which: npt.NDArray[np.bool_]) -> Sequence[Prompt]:
    if which.all():
        return prompts
    if isinstance(prompts, PromptRows):
        return prompts.only(which)
    return [prompt for prompt, kept in zip(prompts, which, strict=True) if kept]
