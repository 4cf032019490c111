"""Two-digit addition: ``37+48=`` is answered ``85``.

All 10,000 pairs of numbers from 0 to 99; 1,000 of them are held out for evaluation and never trained on, neither in
the warm-up nor in RL.
"""

from __future__ import annotations

from engine.randomness import permutation
from engine.rewards import Component, exact_match
from engine.tasks.task import Prompt, Task
from sessions.task_kinds import TASK_KINDS

HELD_OUT = 1000
_SPLIT_SEED = 1
"""Of the split itself, which is the same in every session."""


def _prompt(index: int) -> Prompt:
    a, b = divmod(index, 100)
    return Prompt(id=f"{a}+{b}", text=f"{a}+{b}=", answer=str(a + b))


def arithmetic(evaluation_rows: int = 0) -> Task:
    """The embedded default.

    :param evaluation_rows: how many of the held-out pairs to evaluate on; 0: all.
    """
    order = permutation("arithmetic", _SPLIT_SEED, n=10_000)
    held_out, train = order[:HELD_OUT], order[HELD_OUT:]
    return Task(
        name="arithmetic",
        prompts=[_prompt(int(i)) for i in train],
        evaluation=[_prompt(int(i)) for i in held_out[: evaluation_rows or HELD_OUT]],
        components={"exact": Component(exact_match)},
        reward_range=(0.0, 1.0),
        judge=lambda prompt, text: text.strip() == prompt.answer,
        defaults=TASK_KINDS["arithmetic"].defaults,
    )
