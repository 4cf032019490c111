"""Every kind of task, once: its name, its options and what they do.

Validation, help, the documentation and ``workbench new`` come from here; ``engine/tasks`` makes the tasks.
"""

from __future__ import annotations

import re
from pathlib import Path

from sessions.errors import InputFileError, UnknownName
from sessions.specs import Kind, Option, Spec, kinds, parse_spec

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
"""Files of rows."""
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PYTHON = re.compile(r"(?P<where>.+):(?P<name>[A-Za-z_]\w*)")

_SYSTEM = Option("system", "text", "", "a system message before each question; needs a chat template")
_HELD_OUT = Option("held_out", "whole", 0, "prompts held out for evaluation; 0: as many as the task proposes", low=0)

TASK_KINDS = kinds(
    Kind(
        "arithmetic", "sums of two numbers, as the embedded model knows them", (_HELD_OUT,),
        defaults={"learning_rate": 1e-4, "max_new_tokens": 12},
    ),
)  # fmt: skip
"""Built-in tasks by name."""

DATASET = Kind(
    "dataset",
    "rows of a file, a folder of them, or a dataset of the hub",
    (
        Option("prompt", "text", "", "column of the question: text or chat messages (prompt, question, problem, ...)"),
        Option("answer", "text", "", "column of the reference answer (answer, solution, ...)"),
        Option("split", "text", "train", "split of a hub dataset or of a folder"),
        Option("config", "text", "", "configuration of a hub dataset"),
        Option("evaluation_split", "text", "", "split for evaluation; without: rows held out of the first"),
        _HELD_OUT,
        _SYSTEM,
    ),
)
PYTHON = Kind("python", "a function in a Python file or module that makes the task", (_HELD_OUT,))


def task_kind(spec: Spec) -> Kind:
    """What kind of task a spec names.

    :raises UnknownName: if nothing answers to it.
    """
    if spec.use in TASK_KINDS:
        return TASK_KINDS[spec.use]
    if _PYTHON.fullmatch(spec.use) and not Path(spec.use).exists():
        return PYTHON
    if is_file(spec.use) or (_HUB.fullmatch(spec.use) and "/" in spec.use):
        return DATASET
    raise UnknownName("task", spec.use, (*TASK_KINDS, "a file of rows", "org/name of a dataset"))


def is_file(use: str) -> bool:
    """Whether a spec names something on this disk, there or not."""
    path = Path(use).expanduser()
    return path.suffix.lower() in SUFFIXES or path.exists() or use.startswith(("/", "./", "../", "~"))


def check_task_spec(text: str) -> str:
    """A task's words with every option checked and paths absolute; what the rows hold is checked when they are read.

    :raises UsageError: one line that says what, where and what to do.
    """
    spec = parse_spec(text, "task")
    kind = task_kind(spec)
    spec = kind.canonical(spec, "task")
    if kind is DATASET and is_file(spec.use):
        path = Path(spec.use).expanduser()
        if not path.exists():
            raise InputFileError(f"task {spec.use}: no such file or folder")
        spec = Spec(str(path.resolve()), spec.options)
    return str(spec)
