"""What a completion says, whichever way it is handed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Completion = str | Sequence[Mapping[str, Any]]
"""A text, or chat messages, as TRL hands them to reward functions."""


def text_of(completion: Completion) -> str:
    """A text as it is; of chat messages the last that the assistant said, empty if there is none.

    Content in parts (``[{"type": "text", "text": ...}]``) is the text of its parts in a row.
    """
    if isinstance(completion, str):
        return completion
    for message in reversed(completion):
        if message.get("role", "assistant") == "assistant":
            return _content(message.get("content"))
    return ""


def texts_of(completions: Sequence[Completion]) -> list[str]:
    """The same of each."""
    return [text_of(completion) for completion in completions]


def after(mark: str, text: str) -> str | None:
    """What follows the last ``mark`` in a text, blanks around it aside; all of it where the mark is empty, None where
    the mark is missing."""
    if not mark:
        return text
    _, found, rest = text.rpartition(mark)
    return rest.strip() if found else None


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""
