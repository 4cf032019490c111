"""The watchdog: looks at every step with the session's watches, and raises their alarms.

An alarm is raised once when its watch's condition comes true. The watch is then quiet while the condition holds
(a limit until the metric is back by :data:`~sessions.watches.HYSTERESIS` of it) and for
:data:`~sessions.watches.COOL_DOWN` steps after it has cleared. If it comes true again before anybody has
acknowledged the alarm, that alarm is told again and no second one is raised.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from engine.blame import blamed
from engine.conditions import Finding, Past, asleep, eased, holds
from engine.invariants import Broken, say_broken
from sessions.commands import new_id
from sessions.records import Alarm, Group, StepRecord
from sessions.watches import COOL_DOWN, Watch, metrics_of

HISTORY = 512
"""Newest steps that conditions can look back at."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a step leaves for alarms to point at.

    :ivar groups: that it learned from.
    :ivar broken: the invariants that it broke.
    :ivar named: metric -> names of responses, of metrics that the groups do not show.
    """

    groups: Sequence[Group] = ()
    broken: Sequence[Broken] = ()
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class _Watching:
    """One watch and how it stands.

    :ivar holding: its condition came true and has not cleared yet.
    :ivar quiet_until: the step up to which it raises no alarm.
    :ivar fired: the last step at which it did.
    """

    watch: Watch
    holding: bool = False
    quiet_until: int = 0
    fired: int = 0


@dataclass
class Watchdog:
    """Looks at every step.

    :ivar prompts: held-out prompts.
    """

    watches: Iterable[Watch]
    prompts: int = 0
    _steps: list[StepRecord] = field(default_factory=list)
    _first: dict[str, float] = field(default_factory=dict)
    _watching: dict[str, _Watching] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.use(self.watches)

    def use(self, watches: Iterable[Watch]) -> None:
        """Watch with these from the next step on; a watch that has not changed stands as it stood."""
        before = self._watching
        self._watching = {w.name: _Watching(w) for w in watches}
        for name, watching in before.items():
            if name in self._watching and self._watching[name].watch == watching.watch:
                self._watching[name] = watching

    def remember(self, records: Sequence[StepRecord], first: Mapping[str, float] = {}) -> None:
        """Take in the steps of an earlier engine, in order; what they set off was said then.

        :param records: the newest; those before the last :data:`HISTORY` are not looked at.
        :param first: metric -> the first value that was measured of it, of however long ago.
        """
        self._first = {**first, **self._first}
        for record in records[-HISTORY:]:
            self._findings(record, told_before=True)

    def look(
        self, record: StepRecord, evidence: Evidence = Evidence(), standing: Iterable[Alarm] = ()
    ) -> list[tuple[Watch, Alarm]]:
        """Alarms that this step sets off.

        :param standing: alarms that nobody has acknowledged.
        """
        latched = {alarm.rule: alarm.id for alarm in standing if not alarm.acknowledged}
        return [
            (watch, _alarm(watch, record, finding, evidence, latched))
            for watch, finding in self._findings(record, told_before=False)
        ]

    def _findings(self, record: StepRecord, *, told_before: bool) -> list[tuple[Watch, Finding]]:
        """Move every watch on by a step; those that come true.

        :param told_before: whether it is a step of an earlier engine, which a watch may be younger than. A new one
            comes after every watch there is, whatever the clock says.
        """
        self._note_first(record)
        self._steps.append(msgspec.structs.replace(record, advantages=[]))
        del self._steps[:-HISTORY]
        past = Past(self._steps, self._first, self.prompts)
        found = []
        for watching in self._watching.values():
            if told_before and record.time < watching.watch.since:
                continue
            if finding := self._comes_true(watching, past):
                found.append((watching.watch, finding))
        return found

    def state(self, name: str) -> tuple[str, int]:
        """How a watch stands, as :class:`~sessions.watches.WatchState` says it, and when it last raised an alarm."""
        watching = self._watching.get(name)
        if watching is None:
            return "off", 0
        cooling = self._steps and self._steps[-1].step < watching.quiet_until
        return "holds" if watching.holding else "cools down" if cooling else "quiet", watching.fired

    def _note_first(self, record: StepRecord) -> None:
        for name, value in record.metrics.items():
            if value is not None:
                self._first.setdefault(name, value)

    @staticmethod
    def _comes_true(watching: _Watching, past: Past) -> Finding | None:
        """Move a watch on by a step: its finding if that is worth an alarm."""
        watch, step = watching.watch, past.now.step
        if asleep(watch.unless, past.now):
            watching.holding = False
            return None
        if watching.holding:
            measured = all(name in past.now.metrics for name in metrics_of(watch.condition))
            if not measured or holds(eased(watch.condition), past):
                watching.quiet_until = step + COOL_DOWN
                return None
            watching.holding = False
        finding = holds(watch.condition, past)
        if finding is None:
            return None
        news = step > watching.quiet_until
        watching.holding, watching.quiet_until = True, step + COOL_DOWN
        if news:
            watching.fired = step
        return finding if news else None


def _alarm(watch: Watch, record: StepRecord, finding: Finding, evidence: Evidence, latched: Mapping[str, str]) -> Alarm:
    message = finding.words
    if watch.says:
        known = {name: number for name, number in record.metrics.items() if number is not None}
        message = watch.says.format_map(_Shown(known, value=finding.value))
    responses = blamed(watch.condition, evidence.groups, evidence.named)
    if watch.condition.metric == "invariants/broken" and evidence.broken:
        message, responses = say_broken(evidence.broken)
    return Alarm(
        id=latched.get(watch.name) or new_id(),
        time=time.time(),
        step=record.step,
        rule=watch.name,
        message=f"{message} @{record.step}",
        level=watch.severity,
        responses=responses,
        remedy=watch.remedy,
    )


class _Shown(dict[str, float]):
    """Metrics to put into a message; one that was not measured is shown as nan."""

    def __missing__(self, name: str) -> float:
        return float("nan")
