"""The words of a filter over groups: ``flag:dead std<.1 reward>0.8 step:800.. text:"####" rated``.

All words must hold. ``mean``, ``std``, ``kl`` compare the group's numbers; ``reward`` holds if any response's does;
``step`` takes a number or a range with an open end; anything else is looked for in the prompt. ``-`` before a word
turns it round.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from sessions.errors import InvalidValue
from sessions.records import GroupHead

Test = Callable[[GroupHead], bool]
_COMPARE = re.compile(r"^(mean|std|kl|reward)(<=|>=|<|>|=)(-?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)$")
_RANGE = re.compile(r"^(\d*)(?:(\.\.)(\d*))?$")
_FLAGS = {"trunc": "truncated", "kl": "high_kl", "high": "high_kl"}
_OPERATIONS: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b + 1e-9,
    ">=": lambda a, b: a >= b - 1e-9,
    "=": lambda a, b: abs(a - b) < 0.005,  # as near as the table shows
}
FLAGS = ("dead", "truncated", "rated", "failed", "high_kl", "unrated")


def parse_filter(text: str) -> Test:
    """Read a filter.

    :raises InvalidValue: naming the word that cannot be read.
    """
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.replace('"', " ").replace("'", " ").split()  # a quote still being typed
    tests = [_word(word) for word in words]
    return lambda head: all(test(head) for test in tests)


def _word(word: str) -> Test:
    if word.startswith("-") and len(word) > 1:
        inner = _word(word[1:])
        return lambda head: not inner(head)
    compare = _COMPARE.match(word)
    if compare:
        return _number(compare[1], _OPERATIONS[compare[2]], float(compare[3]))
    kind, colon, value = word.partition(":")
    if not colon:
        if word in FLAGS:
            return _flag(word)
        return _text(word)
    if kind == "flag":
        return _flag(value)
    if kind == "step":
        return _steps(value)
    if kind == "text":
        return _text(value)
    return _text(word)


def _number(name: str, operation: Callable[[float, float], bool], limit: float) -> Test:
    def test(head: GroupHead) -> bool:
        values = head.rewards if name == "reward" else [{"mean": head.mean, "std": head.std, "kl": head.kl}[name]]
        return any(value is not None and operation(value, limit) for value in values)

    return test


def _flag(value: str) -> Test:
    name = _FLAGS.get(value, value)
    if name == "unrated":
        return lambda head: not head.ratings
    if not any(flag.startswith(name) for flag in FLAGS):
        raise InvalidValue(f"flag:{value}: the flags are {', '.join(FLAGS)}")
    return lambda head: any(flag.startswith(name) for flag in head.flags)


def step_range(value: str) -> tuple[int, int]:
    """``800``, ``800..``, ``..900`` or ``800..900`` as the first and last step.

    :raises InvalidValue: if it is none of these.
    """
    match = _RANGE.match(value)
    if match is None:
        raise InvalidValue(f"step:{value}: write step:800, step:800.. or step:700..800")
    first = int(match[1] or 0)
    last = int(match[3] or 2**53) if match[2] else (first if match[1] else 2**53)
    return first, last


def _steps(value: str) -> Test:
    first, last = step_range(value)
    return lambda head: first <= head.step <= last


def _text(value: str) -> Test:
    needle = value.casefold()
    return lambda head: needle in head.prompt.casefold()
