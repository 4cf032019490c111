"""What staged changes would take, as far as the engine has told: the lines of the effect pane. No Textual in it."""

from __future__ import annotations

from collections.abc import Mapping

from sessions.hyperparameters import Value
from sessions.plans import Plan, gigabytes


class Forecast:
    """The newest question about staged values, and its answer."""

    def __init__(self) -> None:
        self._wanted: dict[str, Value] | None = None
        self._step = 0
        self._plan: Plan | None = None
        self._why = ""

    def begin(self, wanted: Mapping[str, Value], step: int) -> bool:
        """Whether the engine is to be asked; then what it said of other values is forgotten.

        :param wanted: the staged values.
        :param step: finished steps: what the engine could not say before one it may say after it.
        """
        known = self._plan is not None and not self._plan.unknown
        if self._wanted == wanted and (known or self._step == step):
            return False
        if self._wanted != wanted:
            self._plan, self._why = None, ""
        self._wanted, self._step = dict(wanted), step
        return True

    def told(self, wanted: Mapping[str, Value], plan: Plan) -> None:
        """The engine has answered."""
        if self._wanted == wanted:
            self._plan, self._why = plan, ""

    def failed(self, wanted: Mapping[str, Value], why: str) -> None:
        """There is no answer."""
        if self._wanted == wanted:
            self._plan, self._why = None, why

    def forget(self) -> None:
        """Nothing is staged."""
        self._wanted = self._plan = None

    def lines(self) -> list[tuple[str, str]]:
        """(line, tone): the estimate, and a warning where there is one."""
        if self._plan is None:
            return [(f"memory and step time: {self._why or 'the engine is asked'}", "dim")]
        plan = self._plan
        line = plan.line() if plan.values else "memory and step time: nothing would change"
        lines = [(line, "")]
        if plan.warning:
            lines.append((f"! {plan.warning}", "bad" if plan.memory_then > plan.memory_available else "warn"))
        return lines

    def basis(self) -> list[tuple[str, str]]:
        """(line, tone): the range, and what it is based on."""
        plan = self._plan
        if plan is None:
            return []
        parts = []
        if plan.seconds_least is not None and plan.seconds_most is not None:
            parts.append(f"step {plan.seconds_least:.2g} to {plan.seconds_most:.2g} s")
        if plan.memory_most > 1.05 * plan.memory_then:
            parts.append(f"memory up to {gigabytes(plan.memory_most)} GB")
        said = f"{', '.join(parts)}: " if parts else ""
        lines = [(f"{said}{plan.basis}", "dim")]
        return [*lines, (plan.model, "dim")] if plan.model else lines
