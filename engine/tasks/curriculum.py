"""A curriculum: the level that the next prompts come from follows the measured success.

For each group of level l that a finished step asked, in order, with s the share of its responses that the judge calls
right, and n groups of that level before it:

    p_l <- p_l + a (s - p_l)      a = max(1 / (n + 2), RATE)      p_l = 1/2 at first

so p_l is the mean of what was measured and of 1/2, and later a moving average. The next prompt is of level l with
probability

    q_l = FLOOR / L + (1 - FLOOR) w_l / sum_k w_k      w_l = p_l (1 - p_l)

w_l is the variance of right and wrong at that level: 0 where every response earns the same, so that a group teaches
nothing, and largest at one right answer in two ("learnability": Rutherford et al. 2024; Foster et al. 2025, who sample
prompts for GRPO by it). Chen et al. 2025 (SEC) and Sun et al. 2025 (CurES) come to weights with the same ends and the
same middle from the absolute advantage and from the gradient's size. A threshold that raises the level would never
come back to one that was forgotten; the floor keeps every level measured, also those that have no success yet.

A finished step moves the averages, so all prompts of a step are chosen with the same ones, whatever was dropped or
replaced in it. With the seed and the cursor they say everything: nothing is drawn from a generator that goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from engine.randomness import permutation, stream
from engine.tasks.task import Prompt, Task
from sessions.checkpoints import CurriculumState

if TYPE_CHECKING:
    from engine.rollout import RolloutGroup

RATE = 0.05
"""Weight of the newest group once twenty were measured."""
FLOOR = 0.2
"""Share of the prompts that is spread evenly over the levels."""
HYSTERESIS = 1.5
"""By how much another level's weight has to be larger before it is said to be the one asked most."""


class Curriculum:
    """Which prompts of a task come next.

    :ivar state: what was measured so far; replaced and never changed, so a checkpoint may hold on to it.
    :ivar moved: how the level that is asked most moved with the newest step; empty if it stayed.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._levels: dict[int, list[Prompt]] = {}
        for prompt in task.prompts:
            self._levels.setdefault(prompt.level, []).append(prompt)
        self._levels = dict(sorted(self._levels.items()))
        self._by_id = {prompt.id: prompt for prompt in task.prompts}
        self.state = CurriculumState(most=next(iter(self._levels)))
        self.moved = ""

    def begin(self, state: CurriculumState | None) -> None:
        """Go on from what a checkpoint knew; None: from nothing."""
        self.state = state or CurriculumState(most=next(iter(self._levels)))
        self.moved = ""

    def success(self, level: int) -> float:
        """p_l."""
        return self.state.success.get(level, 0.5)

    def shares(self) -> dict[int, float]:
        """q_l, by level."""
        weights = self._weights()
        total = sum(weights.values())
        even = 1 / len(weights)
        return {
            level: FLOOR * even + (1 - FLOOR) * (weight / total if total > 0 else even)
            for level, weight in weights.items()
        }

    def _weights(self) -> dict[int, float]:
        return {level: (p := self.success(level)) * (1 - p) for level in self._levels}

    def take(self, seed: int, cursor: int, count: int) -> list[Prompt]:
        """The ``count`` prompts from ``cursor`` on, as things are: a level by its share, then the next of its prompts.

        :param cursor: prompts taken before.
        """
        levels, bounds = list(self._levels), list(accumulate(self.shares().values()))
        orders: dict[tuple[int, int], Sequence[int]] = {}
        taken = []
        for at in range(cursor, cursor + count):
            drawn = stream("curriculum", seed, at).random() * bounds[-1]
            level = next(level for level, bound in zip(levels, bounds, strict=True) if drawn < bound)
            prompts = self._levels[level]
            epoch, place = divmod(at, len(prompts))
            if (level, epoch) not in orders:
                orders[level, epoch] = permutation("curriculum", seed, level, epoch, n=len(prompts))  # type: ignore[assignment]
            taken.append(prompts[int(orders[level, epoch][place])])
        return taken

    # ---- learning

    def measure(self, groups: Iterable[RolloutGroup]) -> list[tuple[int, float]]:
        """Level and share of right responses of each group that this step asked, in the order of their numbers."""
        asked = sorted((group.record for group in groups if not group.late), key=lambda record: record.number)
        judge, found = self._task.judge, []
        for record in asked if judge is not None else ():
            prompt = self._by_id.get(record.prompt_id)
            if prompt is None or not record.responses:
                continue
            right = sum(bool(judge and judge(prompt, response.text)) for response in record.responses)
            found.append((prompt.level, right / len(record.responses)))
        return found

    def learn(self, measured: Sequence[tuple[int, float]]) -> dict[str, float]:
        """Take up the groups of a finished step.

        :param measured: what :meth:`measure` found.
        :returns: the step's metrics.
        """
        success, groups = dict(self.state.success), dict(self.state.groups)
        for level, share in measured:
            before, count = success.get(level, 0.5), groups.get(level, 0)
            success[level] = before + max(1 / (count + 2), RATE) * (share - before)
            groups[level] = count + 1
        old = self.state.most
        self.state = CurriculumState(success=success, groups=groups, most=old)
        weights = self._weights()
        most = max(weights, key=lambda level: weights[level])
        self.moved = ""
        if weights[most] > HYSTERESIS * weights.get(old, 0.0):
            self.state = CurriculumState(success=success, groups=groups, most=most)
            self.moved = (
                f"level {most} is asked most from here on, {self.shares()[most]:.0%} of the prompts: "
                f"its success is {self.success(most):.2f}, that of level {old} {self.success(old):.2f}"
            )
        metrics = {f"curriculum/success_{level}": success[level] for level in sorted(success)}
        if measured:
            metrics["curriculum/level"] = sum(level for level, _ in measured) / len(measured)
        return metrics


def level_accuracy(levels: Sequence[int], right: Sequence[bool]) -> Mapping[int, float]:
    """Share of right answers by level; empty where all are of one level."""
    seen = sorted(set(levels))
    if len(seen) < 2:
        return {}
    by: dict[int, list[bool]] = {level: [] for level in seen}
    for level, good in zip(levels, right, strict=True):
        by[level].append(good)
    return {level: sum(answers) / len(answers) for level, answers in by.items()}
