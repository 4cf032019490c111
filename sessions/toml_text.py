"""Values as TOML writes them."""

from __future__ import annotations

import json
import re


def toml_value(value: object) -> str:
    """A text, number, switch or list of them, as it reads back."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML does not allow a bare DEL
    return number_text(value) if isinstance(value, float) else str(value)


def number_text(number: float) -> str:
    """A number as people write it that stays one with a point in TOML: ``5e-5``, ``60.0``."""
    return re.sub(r"e([+-])0*(\d)", lambda m: f"e{'-' if m[1] == '-' else ''}{m[2]}", repr(float(number)))


def short(number: float) -> str:
    """A number that reads back as the same one, without ``.0`` and ``e-05``."""
    return number_text(number).removesuffix(".0")
