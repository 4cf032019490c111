"""Tasks: prompts, reward components with a range, a held-out set and its judge."""

from __future__ import annotations

from pathlib import Path

from engine.tasks.arithmetic import arithmetic
from engine.tasks.file import task_from_file
from engine.tasks.task import Prompt, Task
from sessions.errors import InputFileError, UnknownName

BUILT_IN = {"arithmetic": arithmetic}
"""Tasks by name; anything else is the path of a file."""


def load_task(name: str, seed: int, evaluation_rows: int = 0) -> Task:
    """A task by name, or from a JSON-lines file.

    :param evaluation_rows: held-out prompts; 0: as many as the task proposes.
    :raises UnknownName: if it is neither a built-in task nor looks like a file.
    :raises InputFileError: if the file cannot be used.
    """
    if name in BUILT_IN:
        return BUILT_IN[name](evaluation_rows)
    if Path(name).suffix.lower() not in {".jsonl", ".json"} and "/" not in name:
        raise UnknownName("task", name, BUILT_IN)
    if not Path(name).is_file():
        raise InputFileError(f"task {name}: no such file; give a JSON-lines file or one of: {', '.join(BUILT_IN)}")
    return task_from_file(Path(name), seed, evaluation_rows)


__all__ = ["BUILT_IN", "Prompt", "Task", "load_task"]
