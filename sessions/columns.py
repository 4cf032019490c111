"""Which column of a dataset asks and which one answers: the names people use, and TRL's formats.

=====================  =================================================  ==========================================
format of TRL          columns                                            what becomes of it
=====================  =================================================  ==========================================
prompt-only            ``prompt``                                         trained on
language modeling      ``messages``                                       what comes before the last answer is asked
prompt-completion      ``prompt``, ``completion``                         refused: it is for fine-tuning
preference             ``chosen``, ``rejected``                           refused: it is for a reward model
unpaired preference    ``prompt``, ``completion``, ``label``              refused: it is for a reward model
stepwise supervision   ``prompt``, ``completions``, ``labels``            refused: nothing here learns from it
=====================  =================================================  ==========================================

Each may be plain text or chat messages. Where a column is named with ``prompt=``, nothing is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sessions.errors import InputFileError
from sessions.specs import OptionValue

PROMPTS = (
    "prompt", "question", "problem", "instruction", "query", "input", "messages", "conversations", "conversation"
)  # fmt: skip
"""Names of the column that asks, the surest first."""
ANSWERS = ("answer", "solution", "ground_truth", "target", "reference", "final_answer")
"""Names of the column with the reference answer, the surest first."""
UNANSWERED = "name it with answer=COLUMN, or say what a response is worth with --reward FILE.py:FUNCTION"
"""What to do where no reference answer is found."""
CONVERSATIONS = ("messages", "conversations", "conversation")
"""Columns whose last answer is not asked: it is what an answer may look like."""
SHOWN = 12
"""Columns that an error names."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The columns that a task reads itself.

    :ivar answer: empty: there is none.
    """

    prompt: str
    answer: str


def choose(columns: Sequence[str], options: Mapping[str, OptionValue], where: str) -> Chosen:
    """The column that asks and the one that answers: those that the options name, else the first that is known.

    :param where: for errors, such as the name of the file.
    :raises InputFileError: naming the columns there are, and the option that would help.
    """
    prompt, answer = str(options.get("prompt", "")), str(options.get("answer", ""))
    for option, name in (("prompt", prompt), ("answer", answer)):
        if name and name not in columns:
            raise InputFileError(f"{where}: {option}={name}: there is no such column; {listed(columns)}")
    if not prompt:
        if meant := _meant_for(set(columns)):
            raise InputFileError(f"{where}: {meant}; to train on its prompts alone, name their column: prompt=COLUMN")
        prompt = next((name for name in PROMPTS if name in columns), "")
    if not prompt:
        raise InputFileError(f"{where}: none of its columns asks; say which with prompt=COLUMN; {listed(columns)}")
    if not answer:
        answer = next((name for name in ANSWERS if name in columns and name != prompt), "")
    return Chosen(prompt, answer)


def listed(columns: Collection[str]) -> str:
    """``columns: a, b, c``, as errors say it."""
    names = [name if len(name) <= 40 else name[:39] + "…" for name in columns]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"columns: {', '.join(names[:SHOWN]) or 'none'}{more}"


def _meant_for(columns: set[str]) -> str:
    """What a dataset is for that is not for this; empty: nothing else."""
    if {"chosen", "rejected"} <= columns:
        return "its rows are preferences (chosen, rejected): give them to `workbench reward-model train`"
    if {"prompt", "completion", "label"} <= columns:
        return "its rows are judged completions (completion, label), which train reward models and not a policy"
    if {"prompt", "completion"} <= columns:
        return "its rows are for fine-tuning (prompt, completion): give them to `--warm-up`"
    if {"prompt", "completions", "labels"} <= columns:
        return "its rows are judged steps (completions, labels), from which nothing here learns"
    return ""
