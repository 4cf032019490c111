"""What one run is asked to do and what it gives back: the same two records for every side.

Nothing here but the standard library: each side reads it in an environment of its own.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Question:
    """What is asked, before any chat template, and the answer."""

    text: str
    answer: str


@dataclass(frozen=True)
class Job:
    """One run: the settings that every side takes, by this project's names.

    :ivar task: of :func:`benchmarks.questions.task_of`, for the side that can load it.
    :ivar model: its folder.
    :ivar prompts: of that task, in the order in which they are asked, ``prompts_per_step`` a step.
    :ivar reward: which of :mod:`benchmarks.peers.rewards` to learn from.
    :ivar held_out: to be answered greedily after the last step; with no steps, before the first.
    :ivar options: of one side alone.
    """

    algorithm: str
    task: str
    model: str
    reward: str
    prompts: list[Question]
    held_out: list[Question]
    steps: int
    prompts_per_step: int
    group_size: int
    max_new_tokens: int
    learning_rate: float
    kl_coefficient: float
    epochs: int
    max_grad_norm: float
    seed: int
    options: dict[str, Any] = field(default_factory=dict)

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def read(text: str) -> Job:
        """Undo :meth:`dump`."""
        given = json.loads(text)
        for name in ("prompts", "held_out"):
            given[name] = [Question(**question) for question in given[name]]
        return Job(**given)


@dataclass
class Step:
    """One step: every second from the end of the step before to its own end.

    :ivar wall: seconds.
    :ivar cpu: seconds of the processor, of the whole process.
    :ivar phases: name -> (wall, cpu); they add up to the step.
    :ivar tokens: of the responses, the end token included.
    :ivar metrics: what the side reports, by this project's names.
    """

    wall: float
    cpu: float
    phases: dict[str, tuple[float, float]]
    tokens: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Outcome:
    """What a run gives back.

    :ivar asked: the tokens of the first step's prompts, which have to be the same on every side.
    :ivar answers: greedy answers to the held-out questions, to be judged by one function for all.
    :ivar memory_before: most megabytes resident by the time the first step began: libraries and weights.
    :ivar memory: most megabytes resident by the end of the last step.
    """

    versions: dict[str, str]
    steps: list[Step] = field(default_factory=list)
    asked: list[list[int]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    memory_before: float = 0.0
    memory: float = 0.0

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def read(given: dict[str, Any]) -> Outcome:
        """Undo :meth:`dump`, the JSON already parsed."""
        return Outcome(**{**given, "steps": [Step(**step) for step in given["steps"]]})


def peak_megabytes() -> float:
    """Most memory that this process has had resident."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
