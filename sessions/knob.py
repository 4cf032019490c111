"""What a hyperparameter is: its type, bounds, boundary and users, and how its values are read and shown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sessions.errors import InvalidValue

Value = float | int | str
Boundary = Literal["minibatch", "update", "rollout", "restart"]
Kind = Literal["float", "int", "choice", "gate"]
NONE = "none"


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One knob.

    :ivar boundary: the point of the loop at which a change takes effect.
    :ivar algorithms: who reads it; empty means every algorithm.
    :ivar unless: (algorithm, name, value): that algorithm reads it only while the other knob has that value.
    :ivar depends: (name, its value -> default): the default where another knob has that value.
    :ivar later: (name, value, boundary): the boundary while another knob has that value.
    :ivar optional: whether a number may also be ``none``.
    :ivar healthy: what to set it to and what to watch, for help.
    :ivar low: least value allowed (numbers), inclusive.
    :ivar high: greatest value allowed (numbers), inclusive.
    :ivar risky: whether a change of it may undo what was learned or exhaust the memory: a checkpoint is written first.
    :ivar nudge: what ``+`` and ``-`` do on the parameters screen: a factor for ``scale``, a step for ``add``.
    """

    name: str
    symbol: str
    kind: Kind
    default: Value
    boundary: Boundary
    help: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()
    unless: tuple[str, str, Value] | None = None
    depends: tuple[str, Mapping[str, Value]] | None = None
    later: tuple[str, str, Boundary] | None = None
    optional: bool = False
    healthy: str = ""
    risky: bool = False
    nudge: tuple[Literal["scale", "add"], float] = ("scale", 2.0)

    def parse(self, given: object) -> Value:
        """Turn text or a number into a valid value.

        :raises InvalidValue: naming the knob, what was given and what is allowed.
        """
        if self.kind == "choice":
            if str(given) not in self.choices:
                raise InvalidValue(f"{self.name}: {given!r} is not one of {', '.join(self.choices)}")
            return str(given)
        if self.kind == "gate":
            return _gate(self.name, str(given))
        if self.optional and str(given).strip() == NONE:
            return NONE
        return self._number(given)

    def _number(self, given: object) -> float | int:
        if isinstance(given, bool) or not isinstance(given, str | int | float):
            raise InvalidValue(f"{self.name}: {given!r} is not a number; allowed: {self.range_text}")
        try:
            number = float(given)
        except (ValueError, OverflowError):
            raise InvalidValue(f"{self.name}: {given!r} is not a number; allowed: {self.range_text}") from None
        if not math.isfinite(number) or not self.low <= number <= self.high:
            raise InvalidValue(f"{self.name}: {given} is out of bounds; allowed: {self.range_text}")
        if self.kind == "float":
            return number
        if number != int(number):
            raise InvalidValue(f"{self.name}: {given} is not a whole number; allowed: {self.range_text}")
        return int(number)

    @property
    def range_text(self) -> str:
        """What is allowed, in words for a table."""
        if self.kind == "choice":
            return "|".join(self.choices)
        if self.kind == "gate":
            return "async | wait n | timeout s"
        none = f"{NONE} | " if self.optional else ""
        return f"{none}{_short(self.low)} .. {_short(self.high)}" + (f" {self.unit}" if self.unit else "")

    def show(self, value: Value) -> str:
        """A value as people write it: ``1e-06`` as ``1e-6``, whole numbers without a point."""
        return _short(value) if isinstance(value, int | float) else value

    def nudged(self, value: Value, direction: int) -> Value:
        """The value one ``+`` (direction 1) or ``-`` (direction -1) away, kept inside the bounds."""
        if self.kind == "choice":
            at = (self.choices.index(str(value)) + direction) % len(self.choices)
            return self.choices[at]
        if self.optional and value == NONE and direction > 0:
            value = 0
        if self.kind == "gate" or not isinstance(value, int | float):
            return value
        how, amount = self.nudge
        if how == "scale":
            moved = value * amount**direction
            if value == 0:
                moved = 10.0 ** math.floor(math.log10(self.high) - 4) if direction > 0 else 0.0
        else:
            moved = value + amount * direction
        moved = min(max(moved, self.low), self.high)
        return round(moved) if self.kind == "int" else float(f"{moved:.6g}")

    def clamped(self, number: float) -> float:
        """The number, or the bound that it passes."""
        return min(max(number, self.low), self.high)

    def used_by(self, algorithm: str, values: Mapping[str, Value] | None = None) -> bool:
        """Whether the running algorithm reads this knob.

        :param values: of the other knobs; without them a knob that it may read counts as read.
        """
        if self.algorithms and algorithm not in self.algorithms:
            return False
        if values is None or self.unless is None or self.unless[0] != algorithm:
            return True
        return values.get(self.unless[1]) == self.unless[2]

    def boundary_under(self, values: Mapping[str, Value]) -> Boundary:
        """The boundary beside these values of the other knobs."""
        if self.later is not None and values.get(self.later[0]) == self.later[1]:
            return self.later[2]
        return self.boundary

    def default_under(self, values: Mapping[str, Value]) -> Value:
        """The default beside these values of the other knobs."""
        if self.depends is None:
            return self.default
        return self.depends[1].get(str(values.get(self.depends[0])), self.default)


def _short(number: float) -> str:
    text = f"{number:.6g}"
    return re.sub(r"e([+-])0*(\d)", lambda m: f"e{'-' if m[1] == '-' else ''}{m[2]}", text)


_GATE = re.compile(r"^(async|wait|timeout)(?:[ :]+([0-9]+(?:\.[0-9]+)?))?$")


def _gate(name: str, text: str) -> str:
    """``async``, ``wait n`` (n groups, 1 to 1000) or ``timeout s`` (seconds, to a day); ``wait:2`` is ``wait 2``."""
    allowed = "allowed: async, wait n (groups), timeout s (seconds)"
    match = _GATE.match(text.strip())
    if match is None or (match[1] == "async") != (match[2] is None):
        raise InvalidValue(f"{name}: {text!r} is not a gate; {allowed}")
    if match[1] == "async":
        return "async"
    amount = float(match[2])
    whole_groups = match[1] == "timeout" or (amount == int(amount) and amount <= 1000)
    if amount <= 0 or not whole_groups or amount > 86_400:
        raise InvalidValue(f"{name}: {text!r} is out of bounds; {allowed}")
    return f"{match[1]} {_short(amount)}"


def gate_parts(gate: str) -> tuple[str, float]:
    """A gate as (kind, amount): ``("wait", 2.0)``; the amount of ``async`` is 0."""
    kind, _, amount = gate.partition(" ")
    return kind, float(amount or 0)
