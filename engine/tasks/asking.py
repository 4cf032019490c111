"""From a row to a prompt: its text or its chat messages, its reference answer, and the columns of the others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.rewards import last_number, reference_of
from engine.tasks.rows import Row
from engine.tasks.task import Prompt
from sessions.columns import CONVERSATIONS, Chosen, listed
from sessions.errors import InputFileError

_SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_NUMBER = re.compile(r"[-+]?\$?\s?(\d[\d,]*(\.\d*)?|\.\d+)\s?%?\.?")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a row asks.

    :ivar text: as people read it.
    :ivar messages: empty where it is plain text.
    :ivar answer: the reference; empty: it has none.
    :ivar numeric: whether that is a number and nothing else.
    """

    text: str
    messages: Sequence[Mapping[str, str]]
    answer: str
    numeric: bool


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the rows of one dataset.

    :ivar system: a message that is put before each question; empty: none.
    """

    chosen: Chosen
    system: str = ""

    def ask(self, row: Row, where: str) -> Asked:
        """What the row asks.

        :raises InputFileError: naming the column that is wrong.
        """
        name = self.chosen.prompt
        if name not in row:
            raise InputFileError(f"{where}: has no column {name}, which asks; {listed(row)}")
        given = row[name]
        said = ""
        if isinstance(given, list):
            messages = _messages(given, f"{where}: column {name}")
            if messages[-1]["role"] == "assistant":
                if name not in CONVERSATIONS:
                    raise InputFileError(f"{where}: column {name} ends with the assistant's message; leave that out")
                said = messages.pop()["content"]
                if not messages:
                    raise InputFileError(f"{where}: column {name} holds an answer and nothing that asks")
            text = readable(messages)
        else:
            messages, text = [], plain(given, f"{where}: column {name}")
        if self.system:
            if any(message["role"] == "system" for message in messages):
                raise InputFileError(f"{where}: column {name} has a system message of its own; leave system= out")
            messages = [{"role": "system", "content": self.system}, *(messages or [{"role": "user", "content": text}])]
        answer = self._answer(row) or reference_of(said)
        numeric = bool(_NUMBER.fullmatch(answer)) and last_number(answer) is not None
        return Asked(text, messages, answer, numeric)

    def _answer(self, row: Row) -> str:
        """The reference, as text; empty if there is none."""
        given = row.get(self.chosen.answer) if self.chosen.answer else None
        if given is None or isinstance(given, list | dict):
            return ""
        return reference_of(str(given))

    def why_unanswered(self, row: Row, where: str) -> str:
        """Why there is no reference in it: one line, without what to do."""
        name = self.chosen.answer
        if not name:
            return f"{where}: no column answers ({listed(row)})"
        if row.get(name) is None:
            return f"{where}: has no value in the column {name}, which answers"
        if isinstance(row[name], list | dict):
            return f"{where}: column {name} holds neither text nor a number"
        return f"{where}: column {name} is empty"

    def prompt(self, row: Row, where: str, number: str, columns: Sequence[str]) -> Prompt:
        """The row as a prompt.

        :param number: names it for ever.
        :param columns: of all rows; those that it has not are None.
        """
        asked = self.ask(row, where)
        others = {name: row.get(name) for name in columns if name != self.chosen.prompt}
        return Prompt(id=number, text=asked.text, answer=asked.answer, columns=others, messages=asked.messages)


def plain(given: Any, where: str) -> str:
    """A value of a column as text.

    :raises InputFileError: if it is empty, or neither text nor a number.
    """
    if isinstance(given, str | int | float) and not isinstance(given, bool):
        if text := str(given).strip():
            return text
        raise InputFileError(f"{where} is empty")
    kind = "nothing" if given is None else f"a {'true/false' if isinstance(given, bool) else type(given).__name__}"
    raise InputFileError(f"{where} holds {kind}; text or a list of chat messages is expected")


def readable(messages: Sequence[Mapping[str, str]]) -> str:
    """Chat messages as people read them: one of the user's as it is, several with who says them."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _messages(given: list[Any], where: str) -> list[dict[str, str]]:
    """Chat messages with their text; what else they hold is left out."""
    if not given:
        raise InputFileError(f"{where} is empty")
    messages = []
    for place, message in enumerate(given, 1):
        if isinstance(message, Mapping) and "from" in message and "value" in message:
            message = {"role": _SHAREGPT.get(str(message["from"]), message["from"]), "content": message["value"]}
        role, content = (message.get("role"), message.get("content")) if isinstance(message, Mapping) else (None, None)
        if not isinstance(role, str) or not role.strip():
            raise InputFileError(f"{where}: message {place} is none: {_short(message)}; give role and content")
        if isinstance(content, list):
            if any(not isinstance(part, Mapping) or part.get("type") != "text" for part in content):
                raise InputFileError(f"{where}: message {place} holds more than text, which cannot be asked here")
            content = "".join(str(part.get("text") or "") for part in content)
        if not isinstance(content, str) or not content.strip():
            raise InputFileError(f"{where}: message {place} ({role}) has no text")
        messages.append({"role": role, "content": content})
    return messages


def _short(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
