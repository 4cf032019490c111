r"""Reward components that come from a response's length and not from the task.

``overlong`` (GRPO, from DAPO, with c = ``overlong_penalty`` and L = ``max_new_tokens``):

.. math:: 0 \text{ up to } L - c, \qquad \frac{(L - c) - |o|}{c} \text{ beyond: } -1 \text{ at the limit}

``truncation`` (PPO, and TRPO with a value model): minus ``truncation_penalty`` where no end token came.

Both have weight 1 and are shown beside the task's components.

Source: DAPO (arXiv 2503.14476) equation 13; the penalty for a missing end: Stiennon et al. (arXiv 2009.01325).
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.knobs import Knobs
from engine.rollout import RolloutGroup
from sessions.hyperparameters import hyperparameter
from sessions.records import Response

OVERLONG = "overlong"
TRUNCATION = "truncation"


def overlong(length: int, limit: int, margin: int) -> float:
    """The penalty of a response of ``length`` tokens: 0 up to limit - margin, then falling to -1 at the limit."""
    return -max(0, length - (limit - margin)) / margin


def shape_rewards(groups: Iterable[RolloutGroup], knobs: Knobs) -> None:
    """Bring the length components of every response, and with them its automatic reward, to the present settings.

    Doing it again changes nothing. A response without a reward keeps none.
    """
    algorithm, values = knobs.text("algorithm"), knobs.values
    margin = knobs.whole("overlong_penalty") if hyperparameter("overlong_penalty").used_by(algorithm, values) else 0
    used = hyperparameter("truncation_penalty").used_by(algorithm, values)
    penalty = knobs.number("truncation_penalty") if used else 0.0
    limit = knobs.whole("max_new_tokens")
    for group in groups:
        for response in group.record.responses:
            wanted: dict[str, float] = {}
            if margin:
                wanted[OVERLONG] = overlong(response.length, limit, margin)
            if penalty:
                wanted[TRUNCATION] = 0.0 if response.ended else -penalty
            _shape(response, wanted)


def _shape(response: Response, wanted: dict[str, float]) -> None:
    present = {name: v for name in (OVERLONG, TRUNCATION) if (v := response.components.get(name)) is not None}
    if present == wanted or response.reward is None:
        return
    rest = {name: value for name, value in response.components.items() if name not in (OVERLONG, TRUNCATION)}
    response.components = {**rest, **wanted}
    response.reward += sum(wanted.values()) - sum(present.values())
