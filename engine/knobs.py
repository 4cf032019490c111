"""The hyperparameters of a running session: what they are now, what they will be, and when.

A change is accepted at any time and takes effect at the next point of the loop of its own kind (its *boundary*).
Accepting happens on the event loop, applying on the compute thread; a lock keeps them apart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from sessions.commands import Set, new_id
from sessions.errors import InvalidValue, Refused, UnknownName
from sessions.hyperparameters import (
    NONE,
    REWARD_WEIGHT,
    Assignment,
    Boundary,
    Hyperparameter,
    Value,
    check_sampler,
    check_together,
    hyperparameter,
    switched,
)
from sessions.records import MAIN, Change

SCHEDULED = "--set"
"""Who made a change that the schedule asked for."""


class Knobs:
    """The current values, and the changes on their way.

    :param values: at the start.
    :param schedule: values to be set before a step, as ``--set name=value@STEP`` asks.
    :param mismatch: whether training may sample from another distribution than the policy's.
    :ivar branch: that changes are made on.
    :ivar checks: others that values have to pass, which depend on the model; each raises InvalidValue.
    """

    def __init__(
        self, values: Mapping[str, Value], schedule: Iterable[Assignment] = (), *, mismatch: bool = False
    ) -> None:
        self._mismatch = mismatch
        self._values = dict(values)
        self._pending: list[Change] = []
        self._again: list[Change] = []
        self._until = self._begun = 0
        self._ended = dict(values)
        self._passes: dict[str, tuple[int, int]] = {}
        self._order: dict[str, int] = {}
        self._taken: dict[str, int] = {}
        self._newest: dict[str, Change] = {}
        self._schedule = _scheduled(schedule)
        self._lock = threading.Lock()
        self.branch = MAIN
        self.checks: list[Callable[[Mapping[str, Value]], None]] = []

    @property
    def values(self) -> dict[str, Value]:
        """A copy of the current values."""
        with self._lock:
            return dict(self._values)

    def values_after(self, step: int) -> dict[str, Value]:
        """The values that the newest finished step ended with: without what the step in progress has changed."""
        with self._lock:
            return dict(self._ended if self._begun > step else self._values)

    @property
    def pending(self) -> list[Change]:
        """Changes accepted and not yet applied."""
        with self._lock:
            return [*self._again, *self._pending]

    def _coming(self) -> dict[str, Value]:
        """The values once everything that is on its way has been applied."""
        return {**self._values, **{c.name: c.new for c in (*self._again, *self._pending)}}

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
            due = self._coming()
            wanted: dict[str, Value] = {}
            for name, value in command.values.items():
                knob = self._known(name)
                if knob.boundary == "restart":
                    raise InvalidValue(f"{knob.name} cannot change in a running session; start a new one")
                wanted[knob.name] = knob.parse(value)
            for name, expected in command.expect.items():
                knob = self._known(name)
                if due[knob.name] != knob.parse(expected):
                    now, not_this = knob.show(due[knob.name]), knob.show(knob.parse(expected))
                    raise Refused(f"{knob.name} is {now} now{self._by(knob.name)}, not {not_this}; look again")
            wanted = switched(due, wanted)
            self._check({**due, **wanted})
            return self._accept(wanted, due, command.who, command.id, step)

    def _known(self, name: str) -> Hyperparameter:
        """:raises UnknownName: if there is no such knob, or no such reward component here."""
        knob = hyperparameter(name)
        if knob.name not in self._values:
            own = [n.removeprefix(REWARD_WEIGHT) for n in self._values if n.startswith(REWARD_WEIGHT)]
            raise UnknownName("reward component", knob.name.removeprefix(REWARD_WEIGHT), own)
        return knob

    def reward_weights(self) -> dict[str, float]:
        """Reward component -> its weight now."""
        return _weights(self.values)

    def rewarding(self, step: int) -> tuple[dict[str, float], float]:
        """Weights of the components and of the reward model with which the responses of the step in progress were
        scored; or those of the one that comes, by an engine that ended: what it applied there will be again.
        """
        with self._lock:
            again = [c for c in self._again if (c.boundary, c.applied_step) == ("rollout", step)]
            values = {**self._values, **{c.name: c.new for c in again}}
        return _weights(values), float(values["reward_model_weight"])

    def _by(self, name: str) -> str:
        """Who has given a knob the value that it has or will have, and when, as far as that is known."""
        newest = self._newest.get(name)
        return f" ({newest.who}, step {newest.applied_step or newest.accepted_step})" if newest is not None else ""

    def _check(self, values: Mapping[str, Value]) -> None:
        check_together(values)
        check_sampler(values, mismatch=self._mismatch)
        for check in self.checks:
            check(values)

    def _accept(
        self, wanted: Mapping[str, Value], due: Mapping[str, Value], who: str, command: str, step: int
    ) -> tuple[list[Change], list[Change]]:
        new, superseded = [], []
        before = {**self._values, **{c.name: c.new for c in self._again}}
        together = {**due, **wanted}
        waits = together["algorithm"] != due["algorithm"] or not self._goes_now(wanted)
        for name, value in wanted.items():
            knob = hyperparameter(name)
            leader = knob.depends[0] if knob.depends is not None else ""
            if waits:  # what comes with another algorithm goes with it, not a phase before
                boundary: Boundary = "rollout"
            elif leader and together[leader] != before[leader]:  # and so does what comes after it
                boundary = hyperparameter(leader).boundary
            else:
                boundary = knob.boundary_under(together)
            for earlier in [c for c in self._pending if c.name == name]:
                self._pending.remove(earlier)
                superseded.append(msgspec.structs.replace(earlier, status="superseded"))
            if value == before[name]:
                if superseded and superseded[-1].name == name:  # whoever took it back has given it this value
                    self._newest[name] = msgspec.structs.replace(superseded[-1], who=who, accepted_step=step)
                continue
            change = Change(
                id=new_id(),
                time=time.time(),
                who=who,
                command=command,
                name=name,
                old=before[name],
                new=value,
                boundary=boundary,
                accepted_step=step,
                passed_step=self._passes.get(boundary, (0, 0))[0],
                passed_place=self._passes.get(boundary, (0, 0))[1],
                branch=self.branch,
            )
            self._pending.append(change)
            self._newest[name] = change
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

    def go_back(
        self,
        values: Mapping[str, Value],
        schedule: Iterable[Assignment],
        changes: Iterable[Change],
        step: int,
        until: int,
        branch: str = MAIN,
    ) -> None:
        """Begin again after a step of a branch, with what was changed from there on.

        Changes that were applied in later steps are applied again at the same boundaries; those that wait, and all
        that are made from now on, only after the steps that are computed again.

        :param values: that the step ended with.
        :param schedule: as the session was started with.
        :param changes: of the branch's line as recorded, in the order in which they were accepted.
        :param step: the newest step that does not run again.
        :param until: the newest that does.
        """
        with self._lock:
            self._values, self._until, self.branch = dict(values), until, branch
            self._pending, self._again, self._passes, self._newest = [], [], {}, {}
            changes = list(changes)
            self._order, self._taken = {change.id: i for i, change in enumerate(changes)}, {}
            self._begun = step
            accepted = until
            latest: dict[str, int] = {}  # a scheduled value that a knob had already left no change behind
            for change in changes:
                if change.name not in self._values:
                    continue
                latest[change.name] = max(latest.get(change.name, 0), change.accepted_step)
                if change.who == SCHEDULED:
                    accepted = max(accepted, change.accepted_step)
                if change.status != "superseded":
                    self._newest[change.name] = change
                if change.status == "applied" and change.applied_step > step:
                    self._again.append(change)
                elif change.status == "pending" and change.branch == branch:
                    self._pending.append(change)
            self._again.sort(key=lambda c: (c.applied_step, c.applied_place))
            self._schedule = [
                a
                for a in _scheduled(schedule)
                if a.step is not None and a.step > max(accepted, step, latest.get(a.name, 0))
            ]

    def begin_step(self, step: int) -> list[Change]:
        """Accept what the schedule wants set in this step, and return it, after the changes that it supersedes.

        :raises InvalidValue: if a scheduled value does not go with the others; what was scheduled is left out then,
            and calling again does the rest.
        """
        with self._lock:
            if step != self._begun:
                self._begun, self._ended = step, dict(self._values)
            now = [a for a in self._schedule if a.step is not None and a.step <= step]
            self._schedule = [a for a in self._schedule if a not in now]
            due = self._coming()
            wanted = switched(due, {a.name: a.value for a in now})
            self._check({**due, **wanted})
            new, superseded = self._accept(wanted, due, SCHEDULED, "", step)
            return [*superseded, *new]

    def apply(self, boundary: Boundary, step: int) -> list[Change]:
        """Apply every change that waits for this boundary.

        :param step: the step it touches first.
        :returns: the changes, applied, in the order in which they were accepted; those that are applied again just
            where they were are left out: they are recorded so.
        """
        with self._lock:
            of_step, passes = self._passes.get(boundary, (0, 0))
            here = step, passes if of_step == step else 0
            self._passes[boundary] = here[0], here[1] + 1
            applied = []
            for change in [c for c in self._again if c.boundary == boundary]:
                # a try that was dropped is not computed again, so only minibatches are counted
                due = change.applied_step, change.applied_place if boundary == "minibatch" else 0
                if due > here:
                    continue
                self._again.remove(change)
                if self._take(change) and step > self._until and change.applied_step != step:
                    applied.append(_applied(change, *here))
            if step <= self._until:
                return []
            for change in [c for c in self._pending if c.boundary == boundary]:
                if (change.passed_step, change.passed_place) > here:
                    continue
                self._pending.remove(change)
                self._take(change)
                applied.append(_applied(change, *here))
            return applied

    def _take(self, change: Change) -> bool:
        """Set a value, unless one that was accepted later is there already: tries that were dropped are not made
        again, so a boundary that the first of two changes waited for may come after that of the second."""
        order = self._order.get(change.id, len(self._order))
        if order < self._taken.get(change.name, 0):
            return False
        self._taken[change.name] = order
        self._values[change.name] = change.new
        return True

    def sampled(self, step: int) -> None:
        """The groups of a step are there: its rollout boundary has been passed, and what was applied there is again."""
        with self._lock:
            if step != self._begun:
                self._begun, self._ended = step, dict(self._values)
            of_step, passes = self._passes.get("rollout", (0, 0))
            self._passes["rollout"] = step, (passes if of_step == step else 0) + 1
            for change in [c for c in self._again if (c.boundary, c.applied_step) == ("rollout", step)]:
                self._again.remove(change)
                self._take(change)

    def minibatches(self, step: int) -> int:
        """Minibatches of a step that have begun, in dropped tries at it too."""
        with self._lock:
            of_step, passes = self._passes.get("minibatch", (0, 0))
            return passes if of_step == step else 0

    def passed(self, step: int) -> dict[str, int]:
        """Boundary -> how often a step has passed it, in dropped tries at it too."""
        with self._lock:
            return {boundary: passes for boundary, (of_step, passes) in self._passes.items() if of_step == step}

    def count_from(self, step: int, passes: Mapping[str, int]) -> None:
        """A step has passed boundaries so often, in dropped tries at it: what was applied in one counts in the next."""
        with self._lock:
            if step != self._begun:
                self._begun, self._ended = step, dict(self._values)
            for change in [c for c in self._again if (c.boundary, c.applied_step) == ("minibatch", step)]:
                if change.applied_place < passes.get("minibatch", 0):
                    self._again.remove(change)
                    self._values[change.name] = change.new
            self._passes |= {boundary: (step, count) for boundary, count in passes.items()}


def _weights(values: Mapping[str, Value]) -> dict[str, float]:
    return {n.removeprefix(REWARD_WEIGHT): float(v) for n, v in values.items() if n.startswith(REWARD_WEIGHT)}


def _scheduled(schedule: Iterable[Assignment]) -> list[Assignment]:
    return sorted((a for a in schedule if a.step is not None), key=lambda a: a.step or 0)


def _applied(change: Change, step: int, place: int) -> Change:
    return msgspec.structs.replace(change, status="applied", applied_step=step, applied_place=place)
