"""What reloaded reward code would change, before it is used."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sessions.records import Record

LARGEST = 5
"""Responses that are named of a component: those whose value changes most."""


class Moved(Record):
    """One response whose value changes.

    :ivar before: None: the component did not apply, or failed.
    """

    name: str
    before: float | None = None
    after: float | None = None


class ComponentChange(Record):
    """What becomes of one reward component.

    :ivar code: hash of its new code, and ``old_code``: of that in use.
    :ivar responses: that were scored again.
    :ivar changed: of them, whose value is another.
    :ivar before: mean of the values in use, and ``after``: of the new ones; None where there are none.
    :ivar failed_before: responses that it failed on, and ``failed``: fails on now.
    :ivar why: of the first that fails now.
    """

    name: str
    code: str = ""
    old_code: str = ""
    responses: int = 0
    changed: int = 0
    before: float | None = None
    after: float | None = None
    failed_before: int = 0
    failed: int = 0
    why: str = ""
    largest: list[Moved] = []

    def describe(self) -> list[str]:
        """Lines for people."""
        code = f"code {self.old_code or '?'} -> {self.code or '?'}"
        lines = [f"{self.name}: " + (f"{code}" if self.code != self.old_code else f"the same code ({self.code})")]
        if not self.responses:
            return lines
        means = f"mean {_shown(self.before)} -> {_shown(self.after)}"
        lines.append(f"  {self.changed} of {self.responses} responses change; {means}")
        if self.failed or self.failed_before:
            why = f": {self.why}" if self.why else ""
            lines.append(f"  fails on {self.failed} (before: {self.failed_before}){why}")
        if self.largest:
            lines.append("  " + "  ".join(f"{m.name} {_shown(m.before)} -> {_shown(m.after)}" for m in self.largest))
        return lines


class RewardReload(Record):
    """Reloaded code, tried on responses that are scored already.

    :ivar step: of those responses; 0: there are none yet.
    :ivar waiting: whether they still wait for their update, so that using the code changes what it learns.
    """

    step: int = 0
    waiting: bool = False
    components: list[ComponentChange] = []

    def describe(self) -> str:
        """Lines for people."""
        lines = [line for component in self.components for line in component.describe()]
        if not self.step:
            return "\n".join([*lines, "no response has been scored yet to try it on", "not in use yet: `reload use`"])
        of = f"the responses of step {self.step}"
        ending = "which wait for their update: with `reload use` they get the new rewards"
        if not self.waiting:
            ending = "which are learned and stay as they are: with `reload use` the next ones are scored by it"
        return "\n".join([*lines, f"tried on {of},", ending])


def component_change(
    name: str,
    before: Sequence[tuple[str, float | None, str]],
    after: Sequence[tuple[float | None, str]],
    codes: tuple[str, str],
) -> ComponentChange:
    """Compare a component's values.

    :param before: (name of the response, value, reason of its failure or empty), and ``after``: (value, reason).
    :param codes: hash of the code in use, and of the new one.
    """
    rows = list(zip(before, after, strict=True))
    moved = [
        Moved(name=response, before=None if was else old, after=None if why else new)
        for (response, old, was), (new, why) in rows
        if (old, bool(was)) != (new, bool(why))
    ]
    return ComponentChange(
        name=name,
        old_code=codes[0],
        code=codes[1],
        responses=len(rows),
        changed=len(moved),
        before=_mean([old for (_, old, was), _ in rows if old is not None and not was]),
        after=_mean([new for _, (new, why) in rows if new is not None and not why]),
        failed_before=sum(bool(was) for (_, _, was), _ in rows),
        failed=sum(bool(why) for _, (_, why) in rows),
        why=next((why for _, (_, why) in rows if why), ""),
        largest=sorted(moved, key=lambda m: -_size(m))[:LARGEST],
    )


def _size(moved: Moved) -> float:
    if moved.before is None or moved.after is None:
        return math.inf
    return abs(moved.after - moved.before)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
