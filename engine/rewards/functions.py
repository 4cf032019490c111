"""The built-in reward functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def exact_match(
    prompts: Sequence[str], completions: Sequence[str], answer: Sequence[str], **_: Any
) -> list[float | None]:
    """1 when the response is the answer, blanks around it aside; else 0."""
    return [float(text.strip() == right) for text, right in zip(completions, answer, strict=True)]


def last_number(text: str) -> Decimal | None:
    """The last number of a text; thousands separators are ignored, ``18.0`` equals ``18``."""
    found = _NUMBER.findall(text[-4000:])
    if not found:
        return None
    try:
        return Decimal(found[-1].replace(",", ""))
    except InvalidOperation:
        return None


def last_number_reward(
    prompts: Sequence[str], completions: Sequence[str], answer: Sequence[str], **_: Any
) -> list[float | None]:
    """1 when the last number of the response equals the last number of the answer; else 0."""
    return [
        float((number := last_number(text)) is not None and number == last_number(right))
        for text, right in zip(completions, answer, strict=True)
    ]


def reference_of(answer: str) -> str:
    """The part of a worked answer that counts: what follows the last ``####``, else all of it."""
    return answer.rsplit("####", 1)[-1].strip()
