"""Tasks: prompts, reward components with a range, a held-out set and its judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from engine.rewards import Component
from engine.rewards.loading import Surroundings, load_components
from engine.tasks.arithmetic import arithmetic
from engine.tasks.file import task_from_file
from engine.tasks.task import Prompt, Task
from sessions.errors import InputFileError
from sessions.reward_kinds import check_answers, read_rewards
from sessions.specs import OptionValue, Spec, parse_spec
from sessions.task_kinds import DATASET, TASK_KINDS, task_kind

Options = Mapping[str, OptionValue]
Maker = Callable[[Spec, Options, int], Task]
"""(what it was called, its options, the session's seed) -> the task; ``held_out`` 0 leaves it its own number."""

MAKERS: dict[str, Maker] = {
    "arithmetic": lambda spec, options, seed: arithmetic(int(options["held_out"])),
    "dataset": lambda spec, options, seed: task_from_file(_file(spec), seed, int(options["held_out"])),
}
"""Kind of task (:mod:`sessions.task_kinds`) -> what makes it."""


def load_task(
    text: str,
    seed: int,
    evaluation_rows: int = 0,
    rewards: list[str] | None = None,
    where: Surroundings | None = None,
) -> Task:
    """A task by its words: a name or a file, and options.

    :param evaluation_rows: held-out prompts, where its options do not say; 0: as many as the task proposes.
    :param rewards: words of the components to use instead of its own.
    :param where: those run.
    :raises UsageError: if there is no such task or reward, or what it is made of cannot be used.
    """
    spec = parse_spec(text, "task")
    kind = task_kind(spec)
    options = kind.read(spec, "task")
    if evaluation_rows and not options.get("held_out"):
        options["held_out"] = evaluation_rows
    task = MAKERS[kind.name](spec, options, seed)
    if rewards:
        read = read_rewards(rewards)
        if not any(prompt.answer for prompt in task.prompts):
            check_answers(read, task.name)
        task = replace(task, components=load_components(read, task.components, where))
    return task


def _file(spec: Spec) -> Path:
    path = Path(spec.use).expanduser()
    if path.suffix.lower() not in {".jsonl", ".json"} or not path.is_file():
        raise InputFileError(
            f"task {spec.use}: no such file; give a JSON-lines file or one of: {', '.join(TASK_KINDS)}"
        )
    return path


__all__ = ["DATASET", "MAKERS", "Component", "Prompt", "Task", "load_task"]
