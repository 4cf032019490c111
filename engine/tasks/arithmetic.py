"""Arithmetic: ``37+48=`` is answered ``85``; six levels.

    1  3+4=        2  37+48=      3  48-37=      4  137+48=     5  3+48+12=    6  7*48=

Level 2 alone is the embedded default: all 10,000 pairs of numbers from 0 to 99, of which 1,000 are held out for
evaluation and never trained on, neither in the warm-up nor in RL. Level 1 is those pairs of one digit, held out as
there, and a level 2 beside it is the others. Of the other levels a tenth is held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from engine.randomness import permutation, stream
from engine.rewards import Component, exact_match
from engine.tasks.task import Prompt, Task, interleaved
from sessions.task_kinds import TASK_KINDS

HELD_OUT = 1000
MOST = 10_000
"""Problems of a level that has more of them."""
_SPLIT_SEED = 1
"""Of the split itself, which is the same in every session."""


def _sum(index: int, level: int = 2) -> Prompt:
    a, b = divmod(index, 100)
    return Prompt(id=f"{a}+{b}", text=f"{a}+{b}=", answer=str(a + b), level=level)


def _sums(levels: Sequence[int]) -> Iterator[tuple[list[Prompt], list[Prompt]]]:
    """Levels 1 and 2: prompts to learn from, and those held out."""
    order = [int(i) for i in permutation("arithmetic", _SPLIT_SEED, n=10_000)]
    for level in sorted({1, 2} & set(levels)):
        of_it = [i for i in order if 1 not in levels or (max(divmod(i, 100)) < 10) == (level == 1)]
        held = set(order[:HELD_OUT])
        yield (
            [_sum(i, level) for i in of_it if i not in held],
            [_sum(i, level) for i in of_it if i in held],
        )


def _three_digits(draw: Callable[[int], int]) -> str:
    a, b = 100 + draw(900), draw(1000)
    return f"{a}+{b}" if draw(2) else f"{b}+{a}"


_OTHERS: Mapping[int, Callable[[Callable[[int], int]], str]] = {
    3: lambda draw: "{1}-{0}".format(*sorted((draw(100), draw(100)))),
    4: _three_digits,
    5: lambda draw: f"{draw(100)}+{draw(100)}+{draw(100)}",
    6: lambda draw: f"{draw(10)}*{draw(100)}",
}
"""Level -> a problem, from a function that draws a whole number below its argument. No answer is negative."""


def _worked_out(problem: str) -> int:
    if "*" in problem:
        a, b = problem.split("*")
        return int(a) * int(b)
    if "-" in problem:
        a, b = problem.split("-")
        return int(a) - int(b)
    return sum(map(int, problem.split("+")))


def _drawn(level: int) -> tuple[list[Prompt], list[Prompt]]:
    """One of the other levels: different problems in a seeded order."""
    numbers = stream("arithmetic", _SPLIT_SEED, level)
    problems = dict.fromkeys(_OTHERS[level](lambda n: int(numbers.integers(n))) for _ in range(MOST))
    prompts = [Prompt(id=p, text=f"{p}=", answer=str(_worked_out(p)), level=level) for p in problems]
    held = len(prompts) // 10
    return prompts[held:], prompts[:held]


def arithmetic(evaluation_rows: int = 0, levels: Sequence[int] = (2,), *, curriculum: bool = False) -> Task:
    """The embedded default, or other levels.

    :param evaluation_rows: how many of the held-out problems to evaluate on, of all levels; 0: 1,000 at most.
    :param curriculum: whether the level that comes next follows the success.
    """
    parts = [*_sums(levels), *(_drawn(level) for level in levels if level in _OTHERS)]
    return Task(
        name="arithmetic",
        prompts=[prompt for train, _ in parts for prompt in train],
        evaluation=interleaved([held for _, held in parts])[: evaluation_rows or HELD_OUT],
        components={"exact": Component(exact_match)},
        reward_range=(0.0, 1.0),
        judge=lambda prompt, text: text.strip() == prompt.answer,
        defaults=TASK_KINDS["arithmetic"].defaults,
        curriculum=curriculum,
    )
