"""Which evaluations of a branch are shown beside each other."""

from __future__ import annotations

import bisect

from sessions.errors import InvalidValue
from sessions.evaluations import EvaluationView, view
from sessions.store import Store


def evaluation_view(store: Store, branch: str, step: int = -1, earlier: int = -1, upto: int = -1) -> EvaluationView:
    """The evaluation after a step, or the newest before it, beside an earlier one.

    :param step: -1: the newest.
    :param earlier: -1: the one before it.
    :param upto: what comes after this step is not known yet; -1: everything is.
    :raises InvalidValue: where there is none, saying which there are.
    """
    steps = [at for at in store.held_out_steps(branch) if upto < 0 or at <= upto]
    if not steps:
        raise InvalidValue("no evaluation is on record yet: `evaluate` makes one, evaluate_every makes them regularly")
    at = len(steps) - 1 if step < 0 else bisect.bisect_right(steps, step) - 1
    if at < 0:
        raise InvalidValue(f"no evaluation up to step {step}; the first is of step {steps[0]}")
    before = at - 1 if earlier < 0 else bisect.bisect_right(steps, earlier) - 1
    if earlier >= 0 and not 0 <= before < at:
        raise InvalidValue(f"no evaluation up to step {earlier} to compare with that of step {steps[at]}")
    now = store.held_out(branch, steps[at])
    assert now is not None
    return view(now, store.held_out(branch, steps[before]) if before >= 0 else None, steps)
