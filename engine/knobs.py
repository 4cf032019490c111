"""The hyperparameters of a running session: what they are now, what they will be, and when.

A change is accepted at any time and takes effect at the next point of the loop of its own kind (its *boundary*).
Accepting happens on the event loop, applying on the compute thread; a lock keeps them apart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

import msgspec

from sessions.commands import Set, new_id
from sessions.errors import InvalidValue, Refused
from sessions.hyperparameters import (
    NONE,
    Assignment,
    Boundary,
    Value,
    check_sampler,
    check_together,
    hyperparameter,
    switched,
)
from sessions.records import Change

SCHEDULED = "--set"
"""Who made a change that the schedule asked for."""


class Knobs:
    """The current values, and the changes on their way.

    :param values: at the start.
    :param schedule: values to be set before a step, as ``--set name=value@STEP`` asks.
    :param mismatch: whether training may sample from another distribution than the policy's.
    """

    def __init__(
        self, values: Mapping[str, Value], schedule: Iterable[Assignment] = (), *, mismatch: bool = False
    ) -> None:
        self._mismatch = mismatch
        self._values = dict(values)
        self._pending: list[Change] = []
        self._again: list[tuple[int, Change]] = []
        self._passed: dict[str, int] = {}
        self._schedule = sorted((a for a in schedule if a.step is not None), key=lambda a: a.step or 0)
        self._lock = threading.Lock()

    @property
    def values(self) -> dict[str, Value]:
        """A copy of the current values."""
        with self._lock:
            return dict(self._values)

    @property
    def pending(self) -> list[Change]:
        """Changes accepted and not yet applied."""
        with self._lock:
            return list(self._pending)

    def number(self, name: str) -> float:
        return float(self._values[name])

    def whole(self, name: str) -> int:
        return int(self._values[name])

    def text(self, name: str) -> str:
        return str(self._values[name])

    def optional(self, name: str) -> float | None:
        """A number, or None where it is ``none``."""
        return None if self._values[name] == NONE else self.number(name)

    def adapt(self, name: str, value: float) -> None:
        """Move a value that an algorithm steers by itself; inside the knob's bounds, and no change of a person's."""
        with self._lock:
            self._values[name] = hyperparameter(name).clamped(value)

    def request(self, command: Set, step: int) -> tuple[list[Change], list[Change]]:
        """Accept a change of one or more knobs.

        :param step: the step in progress.
        :returns: the new changes (none for a knob that has the value already), and earlier ones they supersede.
        :raises InvalidValue: if a value is out of bounds, or does not go with the others.
        :raises Refused: if a knob does not have the value that the command expects to replace.
        """
        with self._lock:
            due = {**self._values, **{c.name: c.new for c in self._pending}}
            wanted: dict[str, Value] = {}
            for name, value in command.values.items():
                knob = hyperparameter(name)
                if knob.boundary == "restart":
                    raise InvalidValue(f"{knob.name} cannot change in a running session; start a new one")
                wanted[knob.name] = knob.parse(value)
            for name, expected in command.expect.items():
                knob = hyperparameter(name)
                if due[knob.name] != knob.parse(expected):
                    raise Refused(
                        f"{knob.name} is {knob.show(due[knob.name])} now, not {knob.show(knob.parse(expected))}: "
                        "somebody else has changed it; look again"
                    )
            wanted = switched(due, wanted)
            self._check({**due, **wanted})
            return self._accept(wanted, due, command.who, command.id, step)

    def _check(self, values: Mapping[str, Value]) -> None:
        check_together(values)
        check_sampler(values, mismatch=self._mismatch)

    def _accept(
        self, wanted: Mapping[str, Value], due: Mapping[str, Value], who: str, command: str, step: int
    ) -> tuple[list[Change], list[Change]]:
        new, superseded = [], []
        together = {**due, **wanted}
        waits = together["algorithm"] != due["algorithm"] or not self._goes_now(wanted)
        for name, value in wanted.items():
            knob = hyperparameter(name)
            leader = knob.depends[0] if knob.depends is not None else ""
            if waits:  # what comes with another algorithm goes with it, not a phase before
                boundary: Boundary = "rollout"
            elif leader and together[leader] != self._values[leader]:  # and so does what comes after it
                boundary = hyperparameter(leader).boundary
            else:
                boundary = knob.boundary_under(together)
            for earlier in [c for c in self._pending if c.name == name]:
                self._pending.remove(earlier)
                superseded.append(msgspec.structs.replace(earlier, status="superseded"))
            if value == self._values[name]:
                continue
            change = Change(
                id=new_id(),
                time=time.time(),
                who=who,
                command=command,
                name=name,
                old=self._values[name],
                new=value,
                boundary=boundary,
                accepted_step=step,
                passed_step=self._passed.get(boundary, 0),
            )
            self._pending.append(change)
            new.append(change)
        return new, superseded

    def _goes_now(self, wanted: Mapping[str, Value]) -> bool:
        """Whether values go together before those that wait for the next rollout are there."""
        early = {c.name: c.new for c in self._pending if c.boundary != "rollout"}
        early |= {name: v for name, v in wanted.items() if hyperparameter(name).boundary != "rollout"}
        try:
            check_together({**self._values, **early})
        except InvalidValue:
            return False
        return True

    def take_up(self, changes: Iterable[Change], step: int) -> None:
        """Go on with the changes of an earlier engine: those that wait, and those of steps that run again.

        :param changes: as recorded, oldest first.
        :param step: the newest step that does not run again; what was applied by then is in the values.
        """
        with self._lock:
            for change in changes:
                if change.name not in self._values or change.who == SCHEDULED:
                    continue
                if change.status == "applied" and change.applied_step > step:
                    self._again.append((change.applied_step, change))
                elif change.status == "pending" and change.passed_step > step:
                    self._again.append((change.passed_step + 1, change))
                elif change.status == "pending":
                    self._pending.append(change)

    def begin_step(self, step: int) -> list[Change]:
        """Accept what is to be set in this step, and return it, after the changes that it supersedes.

        That is what the schedule holds, and what was set in this step before an engine went back to its checkpoint.

        :raises InvalidValue: if a scheduled value does not go with the others; what was scheduled is left out then,
            and calling again does the rest.
        """
        with self._lock:
            now = [a for a in self._schedule if a.step is not None and a.step <= step]
            self._schedule = [a for a in self._schedule if a not in now]
            due = {**self._values, **{c.name: c.new for c in self._pending}}
            wanted = switched(due, {a.name: a.value for a in now})
            self._check({**due, **wanted})
            new, superseded = self._accept(wanted, due, SCHEDULED, "", step)
            accepted = [*superseded, *new]
            for entry in [entry for entry in self._again if entry[0] <= step]:
                self._again.remove(entry)
                change = entry[1]
                waits = msgspec.structs.replace(change, status="pending", applied_step=0)
                self._pending.append(waits)
                accepted.append(waits)
            return accepted

    def apply(self, boundary: Boundary, step: int) -> list[Change]:
        """Apply every change that waits for this boundary.

        :param step: the step it touches first.
        :returns: the changes, applied, in the order in which they were accepted.
        """
        with self._lock:
            applied = []
            self._passed[boundary] = step
            for change in [c for c in self._pending if c.boundary == boundary]:
                self._pending.remove(change)
                self._values[change.name] = change.new
                applied.append(msgspec.structs.replace(change, status="applied", applied_step=step))
            return applied
