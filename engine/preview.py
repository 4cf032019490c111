"""What-if: the update that a sampled and scored step would make, computed on a copy and thrown away.

The policy, the value model and their optimizers are copied, the copy is updated, and what it says of every response is
compared with what the policy says. The weights that train are never touched, so they are what they were, bit for bit.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence

from engine.control import Control
from engine.knobs import Knobs
from engine.memory import check_memory
from engine.passes import score
from engine.rollout import RolloutGroup, Row
from engine.training import Ratings, Training
from sessions.errors import Refused
from sessions.hyperparameters import Value, check_together, switched
from sessions.records import Preview, PreviewedResponse


class Unpaused(Control):
    """Safe points for work that goes on while the run is paused: they end it when the step or the session ends."""

    def __init__(self, outer: Control) -> None:
        super().__init__()
        self._outer = outer

    def safe_point(self) -> None:
        self._outer.raise_wishes()


def hypothetical(values: Mapping[str, Value], algorithm: str) -> dict[str, Value]:
    """The values that a switch to ``algorithm`` would leave; the present ones where it is empty.

    :raises InvalidValue: if the present ones do not go with it.
    """
    wanted: dict[str, Value] = {"algorithm": algorithm} if algorithm else {}
    together = {**values, **switched(values, wanted)}
    check_together(together)
    return together


def preview(
    training: Training,
    step: int,
    seed: int,
    rollout: Callable[[Training], Sequence[RolloutGroup]],
    ratings: Ratings,
    algorithm: str = "",
    values: Mapping[str, Value] | None = None,
) -> Preview:
    """Compute the update of a step without making it.

    :param rollout: given the copy, makes the groups that it learns from; they are the preview's own.
    :param ratings: group name -> its standing ratings.
    :param algorithm: whose update; empty: the running one's.
    :param values: hyperparameters to use; None: the present ones.
    :raises Refused: if it needs a value model and there is none, or more memory than there is.
    """
    began = time.monotonic()
    present = values if values is not None else training.knobs.values
    knobs = Knobs(hypothetical(present, algorithm))
    copied_for = knobs.text("algorithm")
    check_memory(copied_for, training.policy)
    trial = training.shadow(knobs, Unpaused(training.control))
    switching = copied_for != training.algorithm
    if trial.needs_values and trial.value_model is None and switching:
        raise Refused(
            f"{copied_for} needs a value model, and there is none yet: it is made in the first step that {copied_for} "
            "learns from"
        )
    groups = rollout(trial)
    trial.measure_reference(step, groups)
    trial.advantages(groups, ratings)
    rows = [row for group in groups for row in group.rows()]
    before = _logprobs(trial, rows)
    metrics = trial.update(step, seed, groups, lambda: None)
    after = _logprobs(trial, rows)
    found = trial.trust_region
    loss = [metrics[name] for name in ("loss/policy", "loss/kl") if name in metrics]
    return Preview(
        step=step,
        algorithm=copied_for,
        loss=sum(loss) if loss else None,
        kl_old_new=_moved(before, after),
        ratio_min=_extreme(before, after, min),
        ratio_max=_extreme(before, after, max),
        grad_norm=metrics.get("grad/norm"),
        trust_region=found,
        note=_note(metrics, found.note if found else "", knobs.text("algorithm")),
        metrics={name: value if math.isfinite(value) else None for name, value in metrics.items()},
        responses=[
            PreviewedResponse(
                name=row.name,
                reward=row.response.reward if row.response.rated_reward is None else row.response.rated_reward,
                advantage=row.group.advantages[row.place],
                logprob=math.fsum(old),
                change=math.fsum(new) - math.fsum(old),
            )
            for row, old, new in zip(rows, before, after, strict=True)
        ],
        seconds=time.monotonic() - began,
    )


def _note(metrics: Mapping[str, float], note: str, algorithm: str) -> str:
    left = metrics.get("value/warmup_left")
    if "grad/norm" in metrics or note:
        return note
    if left is not None:
        return f"the value model is still trained alone ({left:.0f} more steps): the policy would not move"
    return f"no gradient: every group is dead, so {algorithm} would not move the policy"


def own_copies(groups: Sequence[RolloutGroup]) -> list[RolloutGroup]:
    """Groups that a preview may write into."""
    return copy.deepcopy(list(groups))


def _logprobs(training: Training, rows: Sequence[Row]) -> list[list[float]]:
    """Log-probabilities of every row's tokens, in the order of the rows."""
    places = {(id(row.group), row.place): i for i, row in enumerate(rows)}
    found: list[list[float]] = [[] for _ in rows]

    def note(part: list[Row]) -> None:
        training.control.safe_point()
        for row, values in zip(part, score(training.policy, training.policy.plain_scorer, part), strict=True):
            found[places[id(row.group), row.place]] = values

    training.budget.each(training.policy, rows, note)
    return found


def _ratios(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> list[float]:
    pairs = [(b, a) for old, new in zip(before, after, strict=True) for b, a in zip(old, new, strict=True)]
    return [math.exp(min(max(a - b, -20.0), 20.0)) for b, a in pairs]


def _moved(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> float | None:
    """The mean of (rho - 1) - log rho over tokens: KL(old, new) as it would be after the update."""
    ratios = _ratios(before, after)
    return math.fsum(r - 1 - math.log(r) for r in ratios) / len(ratios) if ratios else None


def _extreme(
    before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], which: Callable[[list[float]], float]
) -> float | None:
    ratios = _ratios(before, after)
    return which(ratios) if ratios else None
