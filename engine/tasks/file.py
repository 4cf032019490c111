"""A task from a JSON-lines file of questions and answers, such as GSM8K.

Each line is an object with a question (``question``, ``prompt`` or ``problem``) and an answer (``answer`` or
``solution``). Where the answer is worked out, the reference is what follows ``####``. The reward is 1 when the last
number of the response equals the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from engine.randomness import permutation
from engine.rewards import Component, last_number, last_number_reward, reference_of
from engine.tasks.task import Prompt, Task
from sessions.errors import InputFileError

QUESTION_COLUMNS = ("question", "prompt", "problem")
ANSWER_COLUMNS = ("answer", "solution")
HELD_OUT = 32
"""Proposed size of the held-out set; at most a tenth of the rows."""


def task_from_file(path: Path, seed: int, evaluation_rows: int = 0) -> Task:
    """Read a task.

    :param seed: of the choice of held-out rows.
    :raises InputFileError: naming the line and what is missing there.
    """
    prompts = _read(path)
    if len(prompts) < 2:
        raise InputFileError(f"{path}: {len(prompts)} usable rows; at least 2 are needed, one of them held out")
    held = min(evaluation_rows or HELD_OUT, max(1, len(prompts) // 10))
    order = permutation("held out", seed, n=len(prompts))
    return Task(
        name=path.stem,
        prompts=[prompts[int(i)] for i in sorted(order[held:])],
        evaluation=[prompts[int(i)] for i in sorted(order[:held])],
        components={"last_number": Component(last_number_reward)},
        reward_range=(0.0, 1.0),
        judge=lambda prompt, text: last_number(text) == last_number(prompt.answer),
    )


def _read(path: Path) -> list[Prompt]:
    prompts: list[Prompt] = []
    seen: set[str] = set()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                prompt = _prompt(path, number, line)
                if prompt.text not in seen:  # a repeated question could sit on both sides of the split
                    seen.add(prompt.text)
                    prompts.append(prompt)
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror})") from None
    return prompts


def _prompt(path: Path, number: int, line: bytes) -> Prompt:
    try:
        row = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InputFileError(f"{path}, line {number}: not a JSON object ({error})") from None
    question = _column(path, number, row, QUESTION_COLUMNS)
    answer = reference_of(_column(path, number, row, ANSWER_COLUMNS))
    if last_number(answer) is None:
        raise InputFileError(f"{path}, line {number}: its answer holds no number to compare with")
    used = {*QUESTION_COLUMNS, *ANSWER_COLUMNS, "prompts", "completions"}  # names a reward function has already
    columns = {name: value for name, value in row.items() if name not in used}
    return Prompt(id=f"{path.stem}:{number}", text=question, answer=answer, columns=columns)


def _column(path: Path, number: int, row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        value = row.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value.strip()
    raise InputFileError(f"{path}, line {number}: no text in any of the columns {', '.join(names)}")
