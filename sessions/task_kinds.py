"""Every kind of task, once: its name, its options and what they do.

Validation, help, the documentation and ``workbench new`` come from here; ``engine/tasks`` makes the tasks.
"""

from __future__ import annotations

import re
from pathlib import Path

from sessions.errors import InputFileError, InvalidValue, UnknownName, UsageError
from sessions.extras import need
from sessions.maze import DRAWINGS
from sessions.paths import expanded
from sessions.specs import Kind, Option, Spec, kinds, parse_spec

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
"""Files of rows."""
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_PYTHON = re.compile(r"(?P<where>.+):(?P<name>[A-Za-z_]\w*)")
GYM = "reasoning-gym"
_GYM = re.compile(rf"{GYM}(:(?P<name>\w+))?", re.ASCII)

_SYSTEM = Option("system", "text", "", "a system message before each question; needs a chat template")
_HELD_OUT = Option("held_out", "whole", 0, "prompts held out for evaluation; 0: as many as the task proposes", low=0)
_CURRICULUM = Option("curriculum", "switch", False, "the level that is asked next follows the success at each")
MOST_SIZE = 12
"""Cells a side of the largest maze: what the samples screen can show beside a response."""

GYM_KIND = Kind(
    GYM,
    "a procedural task of the package reasoning-gym with its own scoring: reasoning-gym:NAME; NAME's own options too",
    (
        Option("size", "whole", 500, "questions to train on; repeated ones are left out", low=1, high=100_000),
        Option("seed", "whole", -1, "of the questions; -1: the session's", low=-1, high=1_000_000_000),
        Option("tags", "switch", False, "only what stands in <answer> tags counts; without: all, if there are none"),
        _HELD_OUT,
        Option("system", "text", "", "a system message, or default, DeepSeekZero, simple, direct: the package's own"),
    ),
    needs=GYM,
    others="are handed to the task of that name",
)
TASK_KINDS = kinds(
    Kind(
        "arithmetic",
        "sums of two-digit numbers, as the embedded model knows them, and other levels",
        (
            Option(
                "levels",
                "wholes",
                "2",
                "such as 1-3: 1 one digit, 2 two digits, 3 subtraction, 4 three digits, 5 three terms, 6 products",
                low=1,
                high=6,
            ),
            _CURRICULUM,
            _HELD_OUT,
        ),
        defaults={"learning_rate": 1e-4, "max_new_tokens": 12},
    ),
    Kind(
        "maze",
        "a robot's way out of a maze that the prompt draws",
        (
            Option("size", "wholes", "3", "cells wide, such as 3 or 2-5; a width is a level", low=2, high=MOST_SIZE),
            Option("rows", "whole", 0, "cells high; 0: as many as wide, 1: a corridor", low=0, high=MOST_SIZE),
            Option("wall_share", "number", 0.3, "share of the cells that are walls, about", low=0.0, high=0.6),
            Option(
                "drawing",
                "text",
                "stars",
                "characters of wall, floor, start and exit: stars *.se, hashes #.SE",
                choices=tuple(DRAWINGS),
            ),
            Option(
                "instructions",
                "switch",
                False,
                "words around the drawing that say what is asked, as a chat model needs",
            ),
            _CURRICULUM,
            _HELD_OUT,
        ),
        defaults={"learning_rate": 1e-4, "max_new_tokens": 12, "entropy_bonus": 0.01},
    ),
    Kind(
        "gsm8k",
        "a local file in the format of GSM8K: question, and an answer that ends in #### and a number",
        (Option("path", "path", None, "the file, such as train.jsonl"), _HELD_OUT, _SYSTEM),
    ),
    GYM_KIND,
)
"""Built-in tasks by name."""

DATASET = Kind(
    "dataset",
    "rows of a file, a folder of them, or a dataset of the hub",
    (
        Option("prompt", "text", "", "column of the question: text or chat messages (prompt, question, problem, ...)"),
        Option("answer", "text", "", "column of the reference answer (answer, solution, ground_truth, ...)"),
        Option("split", "text", "", "split of a folder or a hub dataset (train)"),
        Option("config", "text", "", "configuration of a hub dataset; of a folder: a folder in it"),
        Option("evaluation_split", "text", "", "split for evaluation, or a file; without: rows held out of the first"),
        _HELD_OUT,
        _SYSTEM,
    ),
)
PYTHON = Kind(
    "python",
    "a function in a Python file or module that returns an engine.tasks.Task: FILE.py:FUNCTION",
    (_HELD_OUT,),
    others="are arguments of the function",
)
ALL_KINDS = {**TASK_KINDS, DATASET.name: DATASET, PYTHON.name: PYTHON}
"""Every kind by its name, also those that are named by a path."""


def task_kind(spec: Spec) -> Kind:
    """What kind of task a spec names.

    :raises UnknownName: if nothing answers to it.
    """
    if _GYM.fullmatch(spec.use):
        return GYM_KIND
    if spec.use in TASK_KINDS:
        return TASK_KINDS[spec.use]
    if _PYTHON.fullmatch(spec.use) and not _is_there(spec.use):
        return PYTHON
    if is_file(spec.use) or _HUB.fullmatch(spec.use):
        return DATASET
    raise UnknownName("task", spec.use, (*TASK_KINDS, "a file of rows", "org/name of a dataset"))


def gym_name(spec: Spec) -> str:
    """The name after ``reasoning-gym:``.

    :raises InvalidValue: if there is none.
    """
    found = _GYM.fullmatch(spec.use)
    if found is None or not found["name"]:
        raise InvalidValue(f"task {spec.use}: of which name? {GYM}:NAME; `workbench tasks {GYM}` lists them")
    return found["name"]


def python_parts(use: str) -> tuple[str, str]:
    """``FILE.py:FUNCTION`` or ``module:FUNCTION`` as its two parts.

    :raises InvalidValue: if it is neither.
    """
    found = _PYTHON.fullmatch(use)
    if found is None:
        raise InvalidValue(f"task {use!r} should read FILE.py:FUNCTION")
    return found["where"], found["name"]


def is_file(use: str) -> bool:
    """Whether a spec names something on this disk, there or not."""
    path = expanded(use)
    return path.suffix.lower() in SUFFIXES or _is_there(use) or use.startswith(("/", "./", "../", "~"))


def check_task_spec(text: str) -> str:
    """A task's words with every option checked and paths absolute; what the rows hold is checked when they are read.

    :raises UsageError: one line that says what, where and what to do.
    """
    spec = parse_spec(text, "task")
    kind = task_kind(spec)
    spec = kind.canonical(spec, "task")
    where = f"task {spec.use}"
    if kind.needs:
        need(kind.needs, where)
    if kind is GYM_KIND:
        gym_name(spec)
    elif kind is PYTHON:
        spec = Spec(_absolute_python(spec.use), spec.options)
    elif kind.name == "gsm8k":
        if not Path(spec.options["path"]).is_file():
            raise InputFileError(f"{where}: path {spec.options['path']}: there is no such file")
    elif kind is DATASET:
        spec = _checked_dataset(spec, where)
    return str(spec)


def _checked_dataset(spec: Spec, where: str) -> Spec:
    if not is_file(spec.use):
        need("datasets", where)
        return spec
    path = expanded(spec.use)
    if not path.exists():
        raise InputFileError(f"{where}: no such file or folder")
    if not path.is_file() and not path.is_dir():
        raise InputFileError(f"{where}: is neither a file nor a folder; rows are read several times, so give a file")
    options = dict(spec.options)
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise InputFileError(f"{where}: rows are read from files that end in {', '.join(SUFFIXES)}")
        for name in ("split", "config"):
            if options.get(name):
                raise UsageError(f"{where}: {name} is for folders and hub datasets; leave {name}=... out")
        if other := options.get("evaluation_split"):
            if not expanded(other).is_file():
                raise InputFileError(f"{where}: evaluation_split {other}: beside a file it should be another file")
            if Path(other).suffix.lower() not in SUFFIXES:
                raise InputFileError(
                    f"{where}: evaluation_split {other}: rows are read from files that end in {', '.join(SUFFIXES)}"
                )
            if expanded(other).samefile(path):
                raise InputFileError(f"{where}: evaluation_split is the file that is trained on; give another")
            options["evaluation_split"] = str(expanded(other).resolve())
        if path.suffix.lower() == ".parquet":
            need("parquet", where)
    elif any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        need("datasets", where)
    return Spec(str(path.resolve()), options)


def _absolute_python(use: str) -> str:
    where, function = python_parts(use)
    if not where.endswith(".py"):
        return use
    path = expanded(where)
    if not path.is_file():
        raise InputFileError(f"task {use}: no such file")
    return f"{path.resolve()}:{function}"


def _is_there(use: str) -> bool:
    try:
        return expanded(use).exists()
    except OSError:  # too long for a name
        return False


def listed_task(words: str) -> str:
    """A task as a list shows it: of the path of a file its name, which is what a narrow column has room for."""
    try:
        use = parse_spec(words, "task").use
    except UsageError:
        return words
    return words.replace(use, Path(use).name, 1) if Path(use).is_absolute() else words
