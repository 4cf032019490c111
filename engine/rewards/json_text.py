"""The reward of an answer in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine.rewards.component import RewardFunction, Rewards
from engine.rewards.schema import Check, compile_schema
from engine.rewards.texts import Completion, texts_of
from sessions.errors import InputFileError

_FENCE = re.compile(r"^[ \t]*```([^\n`]*)\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_DIGITS = 4000
"""Of a whole number that Python still reads quickly."""


def valid_json(
    *, part: str = "whole", keys: Sequence[str] = (), schema: str = "", partial: float = 0.0
) -> RewardFunction:
    """1 for JSON with the keys and of the schema that are asked for, ``partial`` for other JSON, else 0.

    :param part: ``whole``: the response, blanks around it aside; ``fence``: its first fenced block that names no
        language or json.
    :param keys: that have to be there; any make it an object.
    :param schema: a file.
    :raises InputFileError: if the schema cannot be used.
    """
    check = read_schema(schema) if schema else None

    def one(text: str) -> float:
        found = text if part == "whole" else fenced(text)
        if found is None:
            return 0.0
        try:
            value = strict_json(found)
            fits = all(isinstance(value, dict) and key in value for key in keys) and (check is None or check(value))
        except (ValueError, RecursionError):  # deeper than a reader can follow is as good as broken
            return 0.0
        return 1.0 if fits else partial

    def reward(prompts: object, completions: Sequence[Completion], **_: Any) -> Rewards:
        return [one(text) for text in texts_of(completions)]

    return reward


def strict_json(text: str) -> Any:
    """A value as RFC 8259 has it; NaN and infinities are none.

    :raises ValueError: if the text is not JSON.
    :raises RecursionError: if it is too deep.
    """
    return json.loads(text, parse_constant=_no_constant, parse_int=_whole)


def fenced(text: str) -> str | None:
    """What stands in the first Markdown fence that may hold JSON."""
    for found in _FENCE.finditer(text):
        if found[1].strip().lower() in ("", "json"):
            return found[2]
    return None


def read_schema(path: str) -> Check:
    """A schema from a file.

    :raises InputFileError: naming the file, and what in it is not understood.
    """
    try:
        return compile_schema(json.loads(Path(path).read_bytes()))
    except OSError as error:
        raise InputFileError(f"reward json: schema {path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputFileError(f"reward json: schema {path}: {error}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)
