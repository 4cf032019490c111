"""Hyperparameters that a metric should be read against, as curves: ``trust_region`` beside ``trpo/kl_realised``."""

from __future__ import annotations

from screens.live import Live

LIMITS = {"trpo/kl_realised": "trust_region"}
"""Metric -> the knob that bounds it."""


def knob_points(live: Live, name: str, first: int, last: int) -> tuple[list[int], list[float | None]]:
    """The value of a knob over the steps from ``first`` to ``last``: level, with a jump at each change."""
    changes = sorted(
        (c for c in live.changes.values() if c.name == name and c.status == "applied"), key=lambda c: c.applied_step
    )
    value = changes[0].old if changes else live.values.get(name)
    steps: list[int] = [first]
    values: list[float | None] = [_number(value)]
    for change in changes:
        if change.applied_step <= first:
            values[-1] = _number(change.new)
        elif change.applied_step <= last:
            steps += [change.applied_step - 1, change.applied_step]
            values += [values[-1], _number(change.new)]
    return [*steps, last], [*values, values[-1]]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
