"""What the comparisons with peers are trained on."""

from __future__ import annotations

from dataclasses import replace

from engine.rewards import last_number
from engine.tasks import Prompt, Task, load_task


def task_of(name: str) -> Task:
    """``arithmetic``, the embedded task; ``sums``, the same in words, for a model that talks."""
    task = load_task("arithmetic", 0)
    if name == "arithmetic":
        return task
    return replace(
        task,
        name="sums",
        prompts=[_in_words(prompt) for prompt in task.prompts],
        evaluation=[_in_words(prompt) for prompt in task.evaluation],
        judge=lambda prompt, text: (found := last_number(text)) is not None and found == last_number(prompt.answer),
    )


def _in_words(prompt: Prompt) -> Prompt:
    return replace(prompt, text=f"Compute {prompt.id}. Answer with the number only.")
