"""Tasks: prompts, reward components with a range, a held-out set and its judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from engine.rewards import Component
from engine.rewards.loading import Surroundings, load_components, load_named
from engine.tasks.arithmetic import arithmetic
from engine.tasks.dataset import dataset, gsm8k
from engine.tasks.maze import maze
from engine.tasks.python import python_task
from engine.tasks.reasoning import reasoning_gym_task
from engine.tasks.task import Prompt, Task, columns_of
from engine.tasks.telling import TELL
from sessions.errors import InputFileError
from sessions.reward_kinds import check_answers, range_of, read_rewards
from sessions.specs import OptionValue, Spec, parse_spec, wholes
from sessions.task_kinds import GYM, task_kind

Options = Mapping[str, OptionValue]
Maker = Callable[[Spec, Options, int], Task]
"""(what it was called, its options, the session's seed) -> the task; ``held_out`` 0 leaves it its own number."""

MAKERS: dict[str, Maker] = {
    "arithmetic": lambda spec, options, seed: arithmetic(
        int(options["held_out"]), wholes(options["levels"]), curriculum=bool(options["curriculum"])
    ),
    "maze": lambda spec, options, seed: maze(
        wholes(options["size"]),
        float(options["wall_share"]),
        str(options["drawing"]),
        rows=int(options["rows"]),
        instructions=bool(options["instructions"]),
        curriculum=bool(options["curriculum"]),
        evaluation_rows=int(options["held_out"]),
    ),
    "gsm8k": gsm8k,
    GYM: reasoning_gym_task,
    "dataset": dataset,
    "python": python_task,
}
"""Kind of task (:mod:`sessions.task_kinds`) -> what makes it."""
LOOKED_AT = 1000
"""Prompts among which an answer, or a conversation, is looked for; of a large file the first so many."""


def load_task(
    text: str,
    seed: int,
    evaluation_rows: int = 0,
    rewards: list[str] | None = None,
    where: Surroundings | None = None,
    tell: Callable[[str], None] = lambda text: None,
    *,
    rewarded: bool = True,
) -> Task:
    """A task by its words: a name or a file, and options.

    :param evaluation_rows: held-out prompts, where its options do not say; 0: as many as the task proposes.
    :param rewards: words of the components to use instead of its own.
    :param where: those run.
    :param tell: takes a line now and then, where it takes long.
    :param rewarded: whether a task without components is refused.
    :raises UsageError: if there is no such task or reward, or what it is made of cannot be used.
    """
    spec = parse_spec(text, "task")
    kind = task_kind(spec)
    options = kind.read(spec, "task")
    if evaluation_rows and not options.get("held_out"):
        options["held_out"] = evaluation_rows
    before = TELL.set(tell)
    try:
        task = MAKERS[kind.name](spec, options, seed)
    finally:
        TELL.reset(before)
    if rewards:
        read, where = read_rewards(rewards), where or Surroundings()
        first = task.prompts[:LOOKED_AT]
        if not any(prompt.answer for prompt in first):
            check_answers(read, task.name)
        where = replace(where, talks=any(prompt.messages for prompt in first))
        named = load_named(read, columns_of(task.prompts), where)
        components = load_components(read, task.components, where, named)
        bounds = range_of(read, task.reward_range)
        task = replace(task, components=components, named=named, reward_range=bounds)
    if not task.components and rewarded:
        raise InputFileError(task.unrewarded or f"task {text}: nothing says what a response is worth; give --reward")
    return task


__all__ = ["MAKERS", "Component", "Prompt", "Task", "load_task"]
