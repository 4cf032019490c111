"""What a task is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.randomness import permutation
from engine.rewards import Component
from engine.rewards.named import NamedRewards
from engine.rewards.worker import RESERVED
from sessions.hyperparameters import Value
from sessions.records import TaskInfo

TAKEN = ("prompt", "completion", *RESERVED)
"""Names that no column can have for a reward function: they mean something else there, as in TRL."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question.

    :ivar id: names it for ever; the noise of its responses depends on it.
    :ivar text: what is asked, as people read it. A model with a chat template gets it as the user's message.
    :ivar answer: the reference answer; empty: there is none.
    :ivar columns: every column of its row but the prompt's, as it is there, for reward functions.
    :ivar messages: the same as chat messages, where the row has them: role, content. Then the model is given these,
        and reward functions get prompts and completions as messages too, as TRL has it.
    :ivar level: how hard it is, in a task that tells; 0: it does not.
    :ivar drawing: what the screens can draw of its responses, such as ``maze``; empty: nothing.
    """

    id: str
    text: str
    answer: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[Mapping[str, str]] = ()
    level: int = 0
    drawing: str = ""


LOOKED_AT = 100
"""Prompts whose columns are looked at: rows of one data set have the same."""


def given_columns(prompt: Prompt) -> dict[str, Any]:
    """What reward functions are given of a prompt's row, by name."""
    columns = {"answer": prompt.answer, **prompt.columns}
    return {name: value for name, value in columns.items() if name not in TAKEN}


def columns_of(prompts: Sequence[Prompt]) -> list[str]:
    """The columns of the first prompts, which reward functions are given by name."""
    return list(dict.fromkeys(name for prompt in prompts[:LOOKED_AT] for name in given_columns(prompt)))


@dataclass(frozen=True, slots=True)
class Task:
    """Prompts to learn from, how answers are rewarded, and prompts never learned from.

    :ivar reward_range: (lo, hi) of the automatic reward; ratings map onto it.
    :ivar judge: (prompt, response text) -> right or wrong, for evaluation; None: nothing is right or wrong, and the
        evaluation set is empty.
    :ivar defaults: hyperparameters that this task starts with.
    :ivar unrewarded: why it has no components of its own, one line, where it has none.
    :ivar notes: what people should know of how it was made, a line each.
    :ivar fingerprint: changes with the prompts it was made of; empty: nobody watches that.
    :ivar curriculum: whether the level that is asked next follows the success (:mod:`engine.tasks.curriculum`).
    :ivar named: the components that are functions of people's, where there are any.
    """

    name: str
    prompts: Sequence[Prompt]
    evaluation: Sequence[Prompt]
    components: Mapping[str, Component]
    reward_range: tuple[float, float]
    judge: Callable[[Prompt, str], bool] | None
    defaults: Mapping[str, Value] = field(default_factory=dict)
    unrewarded: str = ""
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    curriculum: bool = False
    named: NamedRewards | None = None

    def take(self, seed: int, cursor: int, count: int) -> list[Prompt]:
        """The ``count`` prompts from ``cursor`` on: each epoch goes through all of them in a seeded order of its own.

        :param cursor: prompts taken before.
        """
        n = len(self.prompts)
        orders = {epoch: _order(seed, epoch, n) for epoch in range(cursor // n, (cursor + count - 1) // n + 1)}
        return [self.prompts[int(orders[at // n][at % n])] for at in range(cursor, cursor + count)]

    def info(self) -> TaskInfo:
        return TaskInfo(
            name=self.name,
            reward_range=self.reward_range,
            components={name: c.weight for name, c in self.components.items()},
            prompts=len(self.prompts),
            evaluation_prompts=len(self.evaluation),
        )


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> npt.NDArray[np.unsignedinteger[Any]]:
    """The order of an epoch; of millions of prompts it is made once and not every step."""
    return permutation("prompts", seed, epoch, n=n).astype(np.uint32 if n < 2**32 else np.uint64)


def there_twice(prompts: Iterable[Prompt]) -> str | None:
    """An id that two prompts have, where each needs its own: the tokens of a prompt and its noise are known by it."""
    count = Counter(prompt.id for prompt in prompts)
    return next((name for name, times in count.items() if times > 1), None)


def interleaved(parts: Sequence[Sequence[Prompt]]) -> list[Prompt]:
    """The first of each part, the second of each, and so on: the beginning of it has something of all."""
    longest = max((len(part) for part in parts), default=0)
    return [part[i] for i in range(longest) for part in parts if i < len(part)]
