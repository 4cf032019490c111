"""Files of prompts and completions: what a warm-up learns from, a JSON object a line.

The format is TRL's *prompt-completion*: ``{"prompt": "37+48=", "completion": "85"}``, or conversational, with lists of
messages ``{"role": ..., "content": ...}`` in the place of the two texts. Other columns are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sessions.errors import InputFileError

ROLES = ("system", "user", "assistant", "tool")
FORMS = '{"prompt": "...", "completion": "..."}'
Message = dict[str, str]
Text = str | list[Message]
"""A text, or in a conversation the messages that it is."""


@dataclass(frozen=True, slots=True)
class Example:
    """One line.

    :ivar line: its number in the file, from 1.
    :ivar prompt: a text, or the messages so far.
    :ivar completion: a text, or the one message of the assistant that answers them.
    """

    line: int
    prompt: str | list[Message]
    completion: str | list[Message]


def read_examples(path: Path) -> list[Example]:
    """Every example of a file, in order; at least one.

    :raises InputFileError: naming the line, what is wrong there and what it should be.
    """
    examples = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    examples.append(_example(path, number, line))
    except OSError as error:
        raise InputFileError(f"warm-up {path}: cannot be read ({error.strerror})") from None
    if not examples:
        raise InputFileError(f"warm-up {path}: the file is empty; give {FORMS}, one a line")
    return examples


def _example(path: Path, number: int, line: bytes) -> Example:
    def wrong(what: str, remedy: str = f"give {FORMS}, one a line") -> InputFileError:
        return InputFileError(f"warm-up {path}, line {number}: {what}; {remedy}")

    try:
        row = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise wrong(f"not a JSON object ({error})") from None
    for column in ("prompt", "completion"):
        value = row.get(column)
        if column not in row:
            raise wrong(f"there is no {column!r}")
        if isinstance(value, str):
            if not value.strip():
                raise wrong(f"its {column} is empty", "remove the line, or fill it")
        elif not _is_conversation(value):
            raise wrong(
                f"its {column} is neither text nor a list of messages",
                'a message is {"role": "user", "content": "..."}, with one of the roles ' + ", ".join(ROLES),
            )
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) != isinstance(completion, str):
        raise wrong("of prompt and completion, one is text and one a conversation", "make both the same")
    if isinstance(completion, list):
        if len(completion) != 1 or completion[0]["role"] != "assistant":
            raise wrong(
                "its completion is not one message of the assistant", "what was said before it belongs in the prompt"
            )
        return Example(number, [_message(m) for m in prompt], [_message(m) for m in completion])
    return Example(number, prompt, completion)


def _is_conversation(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(m, dict) and m.get("role") in ROLES and isinstance(m.get("content"), str) and m["content"]
            for m in value
        )
    )


def _message(row: dict[str, Any]) -> Message:
    return {"role": row["role"], "content": row["content"]}
