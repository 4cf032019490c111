"""Whether a model can read what a built-in task asks: a small tokenizer does not have every character."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.tasks.task import Task
from sessions.errors import UsageError

if TYPE_CHECKING:
    from engine.policy import Policy

LOOKED_AT = 64
"""Prompts that are read, spread over all."""


def check_characters(task: Task, policy: Policy, words: str, model: str) -> None:
    """Refuse a task of which the tokenizer makes its unknown token.

    :param words: of the task, and ``model``: its name, for the error.
    :raises UsageError: naming the characters.
    """
    unknown = policy.tokenizer.unk_token_id
    if unknown is None:
        return
    texts = [prompt.text for prompt in task.prompts[:: max(1, len(task.prompts) // LOOKED_AT)]]
    missing = [c for c in sorted(set("".join(texts))) if unknown in policy.encode_text(c)]
    if missing and any(unknown in policy.encode_text(text) for text in texts):
        some = " ".join(missing[:8]) + (" ..." if len(missing) > 8 else "")
        raise UsageError(
            f"task {words}: the tokenizer of model {model} does not have {some}; give other options of the task "
            "(docs/tasks-built-in.md), or another model"
        )
