"""What one step says of the next: its lengths, its work, and what that took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from engine import work
from engine.knobs import Knobs
from engine.rollout import RolloutGroup
from engine.statistics import is_dead
from engine.work import Rollout, Search
from sessions.records import TrustRegionStep

PHASES = ("sampling", "scoring", "updating", "saving")
"""Those of a step whose seconds are planned; waiting for people is not."""


@dataclass(frozen=True)
class Observed:
    """A step that was made.

    :ivar rollout: that was learned from.
    :ivar lengths: of every response sampled.
    :ivar prompts: lengths of theirs.
    :ivar dead: share of the groups sampled whose rewards are alike.
    :ivar work: phase -> counts of it.
    :ivar seconds: phase -> what it took.
    """

    algorithm: str
    rollout: Rollout
    lengths: list[int]
    ended: list[bool]
    prompts: list[int]
    dead: float
    search: Search | None
    evaluation_length: float | None
    work: dict[str, list[float]]
    seconds: dict[str, float]


def observe(
    step: int,
    knobs: Knobs,
    sampled: Sequence[RolloutGroup],
    metrics: Mapping[str, float],
    searched: TrustRegionStep | None,
    micro_tokens: int,
    shortcuts: Set[str],
    evaluated: int,
) -> Observed | None:
    """A step as it was; None where nothing was learned from, which says nothing of steps that are.

    :param sampled: its groups, the replaced ones too; those of this process count.
    :param metrics: of the step, with its times.
    :param searched: how TRPO found its step.
    :param evaluated: held-out prompts that this process answers in an evaluation.
    """
    own = [group for group in sampled if group.own]
    responses = [r for group in own for r in group.record.responses if r.length]
    if not responses or metrics.get("update/optimizer_steps") == 0:
        return None
    learned = [group for group in own if group.record.status != "replaced"]
    prompts = [len(group.record.prompt_tokens) for group in own]
    lengths = [r.length for r in responses]
    dead = {group.record.number for group in own if is_dead(group)}
    rollout = Rollout(
        groups=len(learned),
        group_size=len(responses) / len(own),
        prompt=sum(prompts) / len(prompts),
        width=max(prompts),
        response=sum(lengths) / len(lengths),
        longest=max(lengths),
        dead=sum(group.record.number in dead for group in learned) / max(len(learned), 1),
    )
    search = None
    if searched is not None and searched.residuals:
        search = Search(len(searched.residuals), len(searched.tries), searched.product != "difference")
    every = knobs.whole("reference_every")
    update = work.learning(
        rollout,
        knobs,
        micro_tokens,
        shortcuts,
        compares=float(every > 0 and step % every == 0),
        value_only=metrics.get("value/warmup_left", 0.0) > 0,
        search=search,
    )
    evaluation = metrics.get("eval/length")
    asked = len(own) / max(len(learned), 1)  # groups sampled for each that was learned from
    return Observed(
        algorithm=knobs.text("algorithm"),
        rollout=rollout,
        lengths=lengths,
        ended=[r.ended for r in responses],
        prompts=prompts,
        dead=len(dead) / len(own),
        search=search,
        evaluation_length=evaluation,
        work={
            "sampling": [rollout.longest, rollout.sampled * asked, rollout.groups * asked * rollout.width],
            "scoring": [rollout.rows * asked],
            "updating": [update.tokens, update.calls, update.steps],
            "saving": [1.0, rollout.rows, evaluated * (evaluation or 0.0)],
        },
        seconds={phase: metrics.get(f"time/{phase}", 0.0) for phase in PHASES},
    )
