"""The one line that a watch is written as, and read from.

::

    [NAME:] CONDITION [unless KNOB=VALUE [or METRIC=VALUE|absent ...]]
        [in fp32|bf16] [warn|error] [notify|pause|checkpoint]

    [abs] METRIC > >= < <= or == NUMBER [for STEPS]        kl/k3 > 0.2 for 3 pause
    METRIC jumps FACTORx [floor NUMBER] [after STEPS]      kl/k3 jumps 5x floor 0.02 after 20
    METRIC falls PERCENT%                                  entropy falls 50%
    METRIC is not finite                                   anything is not finite pause
    METRIC over its bound                                  advantage/abs_max over its bound error
    METRIC rises|falls while METRIC rises|falls over STEPS [by NUMBER]
                                        reward/mean rises while eval/accuracy falls over 20 by 0.02
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Literal, cast, get_args

import msgspec

from sessions.errors import InvalidValue, UnknownName, UsageError
from sessions.hyperparameters import HYPERPARAMETERS, Value
from sessions.metrics import METRICS
from sessions.toml_text import short as short
from sessions.watches import (
    ABSENT,
    LONGEST,
    Action,
    Apart,
    Bound,
    Condition,
    Fall,
    Jump,
    Limit,
    NonFinite,
    Precision,
    Sign,
    Watch,
    Way,
    metrics_of,
)

EXAMPLE = "kl/k3 > 0.2 for 3 pause"
ANYTHING = "anything"
BOUNDED = "advantage/abs_max"
_SIGNS = get_args(Sign)
_WAYS = get_args(Way)
_NAME = re.compile(r"^[^:\s][^:\n]{0,79}$")
_Severity = Literal["warn", "error"]


# ------------------------------------------------------------------------------------------------- writing


def condition_words(condition: Condition) -> str:
    """A condition as people write it."""
    match condition:
        case Limit(metric=metric, sign=sign, level=level, steps=steps, absolute=absolute):
            steps_words = f" for {steps}" if steps > 1 else ""
            return f"{'abs ' if absolute else ''}{metric} {sign} {short(level)}{steps_words}"
        case Jump(metric=metric, factor=factor, floor=floor, after=after):
            floor_words = f" floor {short(floor)}" if floor else ""
            return f"{metric} jumps {short(factor)}x{floor_words} after {after}"
        case Fall(metric=metric, percent=percent):
            return f"{metric} falls {short(percent)}%"
        case NonFinite(metric=metric):
            return f"{metric or ANYTHING} is not finite"
        case Bound(metric=metric):
            return f"{metric} over its bound"
        case Apart(metric=metric, way=way, other=other, other_way=other_way, steps=steps, margin=margin):
            margin_words = f" by {short(margin)}" if margin else ""
            return f"{metric} {way} while {other} {other_way} over {steps}{margin_words}"


def watch_words(watch: Watch) -> str:
    """The rule of a watch in one line, without its name."""
    words = [condition_words(watch.condition)]
    if watch.unless:
        values = (f"{name}={_value_words(value)}" for name, value in watch.unless.items())
        words.append("unless " + " or ".join(values))
    if watch.precision:
        words.append(f"in {watch.precision}")
    if watch.severity == "error":
        words.append("error")
    if watch.action != "notify":
        words.append(watch.action)
    return " ".join(words)


def _value_words(value: Value) -> str:
    return value.replace(" ", ":") if isinstance(value, str) else short(value)


# ------------------------------------------------------------------------------------------------- reading


def parse_watch(text: str, components: Iterable[str] | None = None, *, check: bool = True) -> tuple[Watch, bool]:
    """Read a watch.

    :param components: of the task's reward; None: whatever follows ``reward/`` is taken for one.
    :param check: that the metrics it names are known ones.
    :returns: the watch, and whether the line names it; a name is made up if it does not.
    :raises UsageError: saying what is wrong with the line.
    :raises UnknownName: for a metric that there is not, offering the nearest.
    """
    name, colon, rule = text.partition(":")
    if not colon or any(mark in name for mark in "<>="):
        name, rule = "", text
    name = " ".join(name.split())
    if colon and rule is not text and not _NAME.match(name):
        raise InvalidValue(f"{name!r} is no name for a watch; give at most 80 characters before the colon")
    rest = _Rest(re.sub(r"\s*(>=|<=|==|>|<)\s*", r" \1 ", rule).split())
    if not rest.words:
        raise UsageError(f"watch needs a rule: watch {EXAMPLE}")
    watch = _read(rest)
    if check:
        sleeps = [name for name in watch.unless if name not in HYPERPARAMETERS]
        for metric in [*metrics_of(watch.condition), *sleeps]:
            check_metric(metric, components)
    return msgspec.structs.replace(watch, name=name or _made_up(watch.condition)), bool(name)


def check_metric(name: str, components: Iterable[str] | None) -> None:
    """Refuse a name that is no metric.

    :raises UnknownName: offering the nearest.
    """
    if name in METRICS or (components is None and name.startswith("reward/")):
        return
    known = [*METRICS, *(f"reward/{c}" for c in components or ())]
    if name not in known:
        raise UnknownName("metric", name, known)


def _made_up(condition: Condition) -> str:
    """A name for a watch that a person did not name: ``kl/k3 high``."""
    metric = condition.metric or ANYTHING
    match condition:
        case Limit(sign=sign, absolute=absolute):
            how = "high" if sign in (">", ">=") else "low" if sign in ("<", "<=") else "equal"
            return f"{'abs ' if absolute else ''}{metric} {how}"
        case Jump():
            return f"{metric} jump"
        case Fall():
            return f"{metric} fall"
        case NonFinite():
            return f"{metric} not finite"
        case Bound():
            return f"{metric} bound"
        case Apart(other=other):
            return f"{metric} against {other}"


class _Rest:
    """The words still to be read."""

    def __init__(self, words: Sequence[str]) -> None:
        self.all, self.words = list(words), list(words)

    def next(self, what: str) -> str:
        """Take a word.

        :param what: it should be, for people.
        :raises UsageError: if there is none.
        """
        if not self.words:
            raise self.wrong(f"{what} is missing at its end")
        return self.words.pop(0)

    def took(self, *words: str) -> bool:
        """Take these words if they come next."""
        if self.words[: len(words)] != list(words):
            return False
        del self.words[: len(words)]
        return True

    def one_of(self, words: Iterable[str]) -> str:
        """Take the next word if it is one of these; else nothing."""
        return self.words.pop(0) if self.words and self.words[0] in words else ""

    def number(self, what: str, suffix: str = "", *, low: float = -math.inf) -> float:
        """Take a finite number above ``low``."""
        word = self.next(what)
        try:
            value = float(word.removesuffix(suffix))
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value <= low:
            above = f" above {short(low)}" if low > -math.inf else ""
            raise self.wrong(f"{what} should be a number{above}, not {word!r}")
        return value

    def steps(self, what: str) -> int:
        """Take a number of steps."""
        word = self.next(what)
        if not re.fullmatch("[0-9]{1,6}", word) or not 1 <= int(word) <= LONGEST:
            raise self.wrong(f"{what} should be 1 to {LONGEST} steps, not {word!r}")
        return int(word)

    def wrong(self, why: str) -> UsageError:
        return UsageError(f"cannot read {' '.join(self.all)!r}: {why}; a rule reads like: {EXAMPLE}")


def _read(rest: _Rest) -> Watch:
    condition = _condition(rest)
    unless = _unless(rest) if rest.took("unless") else {}
    precision = ""
    if rest.took("in"):
        precision = rest.next("a precision")
        if precision not in ("fp32", "bf16"):
            raise rest.wrong(f"{precision!r} is neither fp32 nor bf16")
    severity = rest.one_of(get_args(_Severity)) or "warn"
    action = rest.one_of(get_args(Action)) or "notify"
    if rest.words:
        raise rest.wrong(f"{rest.words[0]!r} has no place there")
    return Watch(
        name="",
        condition=condition,
        action=cast(Action, action),
        severity=cast(_Severity, severity),
        unless=unless,
        precision=cast(Precision, precision),
        own=True,
    )


def _condition(rest: _Rest) -> Condition:
    absolute = rest.took("abs")
    metric = rest.next("a metric")
    if sign := rest.one_of(_SIGNS):
        level = rest.number("the level")
        steps = rest.steps("what follows `for`") if rest.took("for") else 1
        return Limit(metric=metric, sign=cast(Sign, sign), level=level, steps=steps, absolute=absolute)
    if absolute:
        raise rest.wrong("abs goes with > >= < <= and ==")
    if rest.took("jumps"):
        factor = rest.number("the factor", "x", low=1)
        floor = rest.number("the floor", low=0) if rest.took("floor") else 0.0
        after = rest.steps("what follows `after`") if rest.took("after") else 20
        return Jump(metric=metric, factor=factor, floor=floor, after=after)
    if rest.took("is", "not", "finite"):
        return NonFinite(metric="" if metric == ANYTHING else metric)
    if rest.took("over", "its", "bound"):
        if metric != BOUNDED:
            raise rest.wrong(f"only {BOUNDED} has a bound")
        return Bound(metric=metric)
    if way := rest.one_of(_WAYS):
        return _movement(rest, metric, way)
    found = f", not {rest.words[0]!r}" if rest.words else ""
    signs = " ".join(_SIGNS)
    raise rest.wrong(f"after the metric comes {signs}, jumps, falls, rises, is not finite or over its bound{found}")


def _movement(rest: _Rest, metric: str, way: str) -> Condition:
    """What follows ``METRIC falls`` or ``METRIC rises``."""
    if not rest.took("while"):
        if way == "rises":
            raise rest.wrong("`rises` goes with `while METRIC falls over STEPS`")
        percent = rest.number("the fall in percent", "%", low=0)
        if percent >= 100:
            raise rest.wrong(f"nothing falls by {short(percent)}%")
        return Fall(metric=metric, percent=percent)
    other = rest.next("a second metric")
    other_way = rest.one_of(_WAYS)
    if not other_way or not rest.took("over"):
        raise rest.wrong(f"after {other} comes `rises over STEPS` or `falls over STEPS`")
    steps = rest.steps("what follows `over`")
    margin = rest.number("the margin", low=0) if rest.took("by") else 0.0
    return Apart(
        metric=metric, way=cast(Way, way), other=other, other_way=cast(Way, other_way), steps=steps, margin=margin
    )  # fmt: skip


def _unless(rest: _Rest) -> dict[str, Value]:
    found: dict[str, Value] = {}
    while True:
        name, equals, value = rest.next("a hyperparameter").partition("=")
        if not equals or not value:
            raise rest.wrong("after `unless` comes NAME=VALUE")
        if name in HYPERPARAMETERS:
            found[name] = HYPERPARAMETERS[name].parse(value)
        elif value == ABSENT:
            found[name] = value
        else:
            try:
                found[name] = float(value)
            except ValueError:
                raise UnknownName("hyperparameter", name, HYPERPARAMETERS) from None
        if not rest.took("or"):
            return found
