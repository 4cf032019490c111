"""Whether a watch's condition holds: pure functions over the steps so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

from sessions.hyperparameters import Value
from sessions.records import StepRecord
from sessions.watch_words import condition_words
from sessions.watches import ABSENT, HYSTERESIS, Apart, Bound, Condition, Fall, Jump, Limit, NonFinite, Sign

_BEYOND: dict[Sign, Callable[[float, float], bool]] = {
    ">": lambda value, level: value > level,
    ">=": lambda value, level: value >= level,
    "<": lambda value, level: value < level,
    "<=": lambda value, level: value <= level,
    "==": lambda value, level: value == level,
}
SMOOTHED = 10
"""Steps that the two metrics of :class:`~sessions.watches.Apart` are averaged over."""


@dataclass(frozen=True, slots=True)
class Past:
    """What conditions look at.

    :ivar steps: the newest steps, oldest first; the last is the one that has just ended.
    :ivar first: metric -> the first value that the session measured.
    :ivar prompts: held-out prompts, which say how exact the accuracy is.
    """

    steps: Sequence[StepRecord]
    first: Mapping[str, float] = field(default_factory=dict)
    prompts: int = 0

    @property
    def now(self) -> StepRecord:
        return self.steps[-1]

    def measured(self, metric: str, count: int) -> list[float]:
        """The newest ``count`` measurements of a metric, newest first; none unless it was measured now.

        What is measured every tenth step counts in measurements, not in steps.
        """
        found: list[float] = []
        for record in reversed(self.steps):
            value = record.metrics.get(metric)
            if value is not None:
                found.append(value)
                if len(found) == count:
                    break
            elif record is self.now:
                break
        return found


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition holds: the metric's value now, and what is wrong, in words."""

    value: float
    words: str


def holds(condition: Condition, past: Past) -> Finding | None:
    """What is wrong, or None."""
    match condition:
        case Limit():
            return _limit(condition, past)
        case Jump():
            return _jump(condition, past)
        case Fall():
            return _fall(condition, past)
        case NonFinite(metric=metric):
            names = [name for name in past.now.nonfinite if metric in ("", name)]
            return Finding(math.nan, f"{', '.join(names[:3])} not finite") if names else None
        case Bound():
            return _bound(condition, past)
        case Apart():
            return _apart(condition, past)


def eased(condition: Condition) -> Condition:
    """The condition that must fail before an alarm's own counts as cleared: its level drawn back, for one step."""
    match condition:
        case Limit(sign=sign, level=level):
            towards = {">": -1, ">=": -1, "<": 1, "<=": 1}.get(sign, 0)
            return msgspec.structs.replace(condition, level=level + towards * HYSTERESIS * abs(level), steps=1)
        case Jump(factor=factor, floor=floor):
            return msgspec.structs.replace(condition, factor=factor * (1 - HYSTERESIS), floor=floor * (1 - HYSTERESIS))
        case Fall(percent=percent):
            return msgspec.structs.replace(condition, percent=percent * (1 - HYSTERESIS))
        case _:
            return condition


def asleep(unless: Mapping[str, Value], record: StepRecord) -> bool:
    """Whether a hyperparameter or metric has a value at which a watch sleeps."""
    return any(
        name not in record.metrics if value == ABSENT else record.values.get(name, record.metrics.get(name)) == value
        for name, value in unless.items()
    )


def _limit(condition: Limit, past: Past) -> Finding | None:
    newest = past.measured(condition.metric, condition.steps)
    compared = [abs(v) for v in newest] if condition.absolute else newest
    beyond = _BEYOND[condition.sign]
    if len(newest) < condition.steps or not all(beyond(v, condition.level) for v in compared):
        return None
    return Finding(newest[0], f"{condition.metric} {newest[0]:.4g}: {condition_words(condition)}")


def _jump(condition: Jump, past: Past) -> Finding | None:
    newest = past.measured(condition.metric, condition.after + 1)
    if len(newest) < 2 or len(past.steps) <= condition.after:
        return None
    now, *earlier = newest
    average = sum(earlier) / len(earlier)
    if now <= max(condition.factor * average, condition.floor):
        return None
    return Finding(now, f"{condition.metric} jump {now / max(average, 1e-9):.1f}x")


def _fall(condition: Fall, past: Past) -> Finding | None:
    first, newest = past.first.get(condition.metric), past.measured(condition.metric, 1)
    if first is None or not newest or not newest[0] < (1 - condition.percent / 100) * first:
        return None
    share = "half" if condition.percent == 50 else f"{condition.percent:g}% down from"
    of = " of its first" if share == "half" else " its first"
    return Finding(newest[0], f"{condition.metric} {newest[0]:.2f}, {share}{of} {first:.2f}")


def _bound(condition: Bound, past: Past) -> Finding | None:
    values, largest = past.now.values, past.now.metrics.get(condition.metric)
    n = values.get("group_size")
    algorithm = values.get("algorithm", "grpo")
    relative = algorithm == "grpo" or (algorithm == "trpo" and values.get("baseline") == "group")
    if largest is None or not isinstance(n, int) or not relative or values.get("advantage_scale") != "group":
        return None
    bound = (n - 1) / math.sqrt(n) + 1e-3
    return Finding(largest, f"advantage {largest:.2f} is over its bound {bound:.2f}") if largest > bound else None


def _apart(condition: Apart, past: Past) -> Finding | None:
    names, new = (condition.metric, condition.other), past.now
    if not _has(new, names):
        return None
    old = next((r for r in reversed(past.steps) if r.step <= new.step - condition.steps and _has(r, names)), None)
    if old is None:
        return None
    moved = []
    for name, way in ((condition.metric, condition.way), (condition.other, condition.other_way)):
        then, now = _smoothed(past, name, old.step), _smoothed(past, name, new.step)
        margin = condition.margin
        if name == "eval/accuracy":
            margin = max(margin, 2 * math.sqrt(2 * then * (1 - then) / max(past.prompts, 1)))
        elif name == condition.other:
            margin = max(margin, 2 * _chance(_near(past, name, old.step), _near(past, name, new.step)))
        if (now - then if way == "rises" else then - now) <= margin:
            return None
        moved.append(f"{name} {now - then:+.3g}")
    return Finding(new.metrics[names[0]] or 0.0, f"{moved[0]} while {moved[1]} over {new.step - old.step} steps")


def _has(record: StepRecord, metrics: Iterable[str]) -> bool:
    return all(record.metrics.get(name) is not None for name in metrics)


def _near(past: Past, name: str, step: int) -> list[float]:
    """What was measured in up to ten steps that end with ``step``."""
    near = [r.metrics.get(name) for r in past.steps if step - SMOOTHED < r.step <= step]
    return [v for v in near if v is not None]


def _smoothed(past: Past, name: str, step: int) -> float:
    """Mean over up to ten steps that end with ``step``, at which it was measured."""
    found = _near(past, name, step)
    return sum(found) / len(found)


def _chance(*samples: Sequence[float]) -> float:
    """Standard error of the difference of two means, from how neighbouring values of both differ: a trend is no chance.

    0 where each is of one value alone.
    """
    squares = sum((b - a) ** 2 / 2 for found in samples for a, b in pairwise(found))
    freedom = sum(len(found) - 1 for found in samples)
    return math.sqrt(squares / freedom * sum(1 / len(found) for found in samples)) if freedom else 0.0
