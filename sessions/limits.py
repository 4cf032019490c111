"""What may come over the socket: how deep, how long and how large, one definition for every command.

A command is refused by the name of the field that is over. The whole line is bounded before it is read
(:data:`sessions.wire.LINE_LIMIT`); what an engine sends is bounded by that line and by :data:`ANSWER`.
"""

from __future__ import annotations

import math
import re

import msgspec

from sessions.errors import InvalidValue, MalformedFrame
from sessions.records import Record

COMMAND = 2**20
"""Bytes of a command or a hello."""
DEPTH = 16
"""Lists and objects inside each other, in a command or a hello; none that there is has more than 7."""
NAME = 200
"""Characters of a text that has no limit of its own: names, ids, who asks."""
TEXTS = {
    "comment": 4000, "text": 200_000, "reason": 1000, "rule": 500, "values": 1000, "expect": 1000,
    "prompt": COMMAND, "tiers": COMMAND, "texts": COMMAND,
}  # fmt: skip
"""Field -> characters of it, or of each text in it; a comment or a reason is what a person wrote, and texts that are
imported with a preference may be as long as the command."""
ITEMS = 1000
"""Values of a rating or a change, letters of an order, names of series, preferences of an import."""
WHOLE = 2**63 - 1
"""Whole numbers go from -1 to here, as far as SQLite's; values by name, whose definition bounds them, from -2**63."""
ANSWER = 256 * 2**20
"""Characters of an answer in all its pages."""
TITLE = 64
"""Characters of a client's name, and of its terminal's."""

_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def check_line(line: bytes) -> None:
    """Refuse a line of a client's that is too long or nested too deep, before it is decoded.

    :raises MalformedFrame: saying which.
    """
    if len(line) > COMMAND:
        raise MalformedFrame(f"{len(line):,} bytes are more than a command's {COMMAND:,}")
    if line.count(b"[") + line.count(b"{") <= DEPTH:
        return
    depth = 0
    for match in _BRACKETS.finditer(line):
        if match[0] in (b"[", b"{"):
            depth += 1
            if depth > DEPTH:
                raise MalformedFrame(f"nested deeper than {DEPTH} lists and objects")
        elif match[0] in (b"]", b"}"):
            depth -= 1


def check_fields(command: msgspec.Struct) -> None:
    """Refuse a command with a field over its limit.

    :raises InvalidValue: naming the field.
    """
    for name in command.__struct_fields__:
        _check(name, getattr(command, name), TEXTS.get(name, NAME))


def _check(name: str, value: object, characters: int, lowest: int = -1) -> None:
    match value:
        case bool() | None:
            pass
        case str():
            if len(value) > characters:
                raise InvalidValue(f"{name}: {len(value):,} characters; at most {characters:,} are taken")
        case int():
            if not lowest <= value <= WHOLE:
                raise InvalidValue(f"{name}: {_shown(value)} is out of bounds; allowed: {lowest} to {WHOLE}")
        case float():
            if not math.isfinite(value):
                raise InvalidValue(f"{name}: {value} is not a number that can be taken")
        case list():
            _check_size(name, len(value))
            for item in value:
                _check(name, item, characters)
        case Record():
            check_fields(value)
        case dict():
            _check_size(name, len(value))
            for key, item in value.items():
                _check(f"a name in {name}", key, NAME)
                _check(name, item, characters, -WHOLE - 1)
        case _:
            raise InvalidValue(f"{name}: {type(value).__name__} is not taken here")


def _check_size(name: str, count: int) -> None:
    if count > ITEMS:
        raise InvalidValue(f"{name}: {count:,} values; at most {ITEMS:,} are taken")


def _shown(value: int) -> str:
    return str(value) if abs(value) < 10**20 else "a number of more than 20 digits"


def title(text: str) -> str:
    """What a client calls itself, fit to be shown: short, and with nothing in it that a terminal would obey."""
    cut = text if len(text) <= TITLE else text[: TITLE - 2] + ".."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
