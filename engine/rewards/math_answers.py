"""Mathematical answers, compared as mathematics: the package ``math-verify`` reads LaTeX and asks sympy.

:func:`accuracy` is the reward, in the conventions of TRL's ``accuracy_reward``. Sympy may take for ever on what a
policy writes, and the time limits of math-verify are alarms, which only reach the main thread, and there only between
two steps of the interpreter. So :class:`MathReward` has it run in a process of its own, one response after the other,
and kills that where even the alarms do not help: then one response has failed, and not the group.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.rewards.component import Failed, Rewards
from engine.rewards.lines import NoAnswer, Program
from engine.rewards.texts import Completion, after, texts_of

PARSING, COMPARING = 5, 5
"""Seconds after which math-verify gives up on reading a text, and on comparing two expressions."""

LONGEST = 20.0
"""Seconds after which the process is killed: over both of the others."""


def accuracy(
    prompts: object, completions: Sequence[Completion], answer: Sequence[str], mark: str = "", **_: Any
) -> Rewards:
    """1 when the response's answer is mathematically the reference's, else 0; None where that cannot be read.

    The response's answer has to be LaTeX: in ``\\boxed{}``, which counts first, or said to be the answer ("The final
    answer is $5$"). The reference may also be a plain expression. Give it to a reward worker as
    ``engine.rewards.math_answers:accuracy``; in a thread other than the main one it has no time limits.

    :param mark: only what follows its last place in the response counts; without one the reward is 0.
    """
    return [verified(text, right, mark) for text, right in zip(texts_of(completions), answer, strict=True)]


def verified(text: str, right: str, mark: str = "") -> float | None:
    """The same for one response; what math-verify gives up on is wrong."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    given = after(mark, text)
    if given is None:
        return 0.0
    in_main = threading.current_thread() is threading.main_thread()
    parsing, comparing = (PARSING, COMPARING) if in_main else (None, None)
    for name in ("math_verify.parser", "math_verify.grader"):  # every text it gives up on is a warning there
        logging.getLogger(name).setLevel(logging.CRITICAL)
    gold = parse(right, parsing_timeout=parsing)
    if not gold:
        return None
    found = parse(
        given,
        extraction_config=[
            LatexExtractionConfig(
                normalization_config=NormalizationConfig(units=True),
                boxed_match_priority=0,
                try_extract_without_anchor=False,
            )
        ],
        extraction_mode="first_match",
        parsing_timeout=parsing,
    )
    return float(verify(gold, found, timeout_seconds=comparing))


class MathReward:
    """:func:`accuracy` in a process of its own.

    :param seconds: that a group may take; what has not been looked at by then has failed.
    """

    def __init__(self, *, mark: str = "", seconds: float = 60.0) -> None:
        root = str(Path(__file__).parents[2])
        code = f"import sys; sys.path.insert(0, {root!r}); from engine.rewards.math_answers import serve; serve()"
        self._program = Program([sys.executable, "-P", "-c", code])
        self._mark, self._seconds = mark, seconds

    def __call__(self, prompts: object, completions: Sequence[Completion], answer: Sequence[str], **_: Any) -> Rewards:
        end = time.monotonic() + self._seconds
        pairs = zip(texts_of(completions), answer, strict=True)
        return [self._one(text, right, end) for text, right in pairs]

    def close(self) -> None:
        """End the process."""
        self._program.close()

    def _one(self, text: str, right: str, end: float) -> float | Failed | None:
        left = min(LONGEST, end - time.monotonic())
        if left <= 0:
            return Failed(f"the {self._seconds:g} s for the group were over before it was looked at")
        try:
            said = self._program.ask(json.dumps([text, right, self._mark]).encode(), left)
        except NoAnswer as error:
            return Failed(str(error))
        told = json.loads(said)
        return Failed(told) if isinstance(told, str) else told


def serve() -> None:
    """Answer lines ``[response, reference, mark]`` with a reward, null, or what went wrong as text."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # antlr and sympy may print
    for line in sys.stdin:
        try:
            told: float | str | None = verified(*json.loads(line))
        except Exception as error:  # noqa: BLE001 - whatever sympy raises, it is about this response
            told = f"math-verify raised {type(error).__name__}: {str(error)[:200]}"
        print(json.dumps(told), file=answers, flush=True)
