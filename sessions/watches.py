"""Watches: rules over the metrics of the steps, as plain data, and the ones that every session starts with.

A watch is a condition and what to do when it comes true. Once its alarm has been raised it is quiet while the
condition holds, and for :data:`COOL_DOWN` steps after it has cleared; a limit has cleared when the metric is back by
:data:`HYSTERESIS` of it. The alarm stands until somebody acknowledges it. :mod:`sessions.watch_words` writes a watch
as one line and reads it; ``engine/conditions.py`` evaluates.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from sessions.hyperparameters import Value

COOL_DOWN = 20
"""Steps after its condition has cleared in which a watch raises no alarm."""
HYSTERESIS = 0.1
"""How far, as a share of its level, a metric must come back before the condition counts as cleared."""
LONGEST = 200
"""Most steps that a condition may look back."""
ABSENT = "absent"
"""What a watch that sleeps where a metric was not measured has in place of its value."""

Sign = Literal[">", ">=", "<", "<=", "=="]
Way = Literal["rises", "falls"]
Precision = Literal["", "fp32", "bf16"]
Action = Literal["notify", "pause", "checkpoint"]


class Data(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """Base of what follows: a record that nobody changes."""


# ---------------------------------------------------------------------------------------------- conditions


class Limit(Data, tag="limit", frozen=True):
    """The metric is beyond a level in its newest ``steps`` measurements; of its absolute value if ``absolute``."""

    metric: str
    sign: Sign
    level: float
    steps: int = 1
    absolute: bool = False


class Jump(Data, tag="jump", frozen=True):
    """The metric exceeds ``factor`` x the mean of its last ``after`` measurements, and ``floor``.

    It needs ``after`` steps of history.
    """

    metric: str
    factor: float
    floor: float = 0.0
    after: int = 20


class Fall(Data, tag="fall", frozen=True):
    """The metric has fallen by ``percent`` from the first value that the session measured."""

    metric: str
    percent: float


class NonFinite(Data, tag="non_finite", frozen=True):
    """The metric is NaN or infinite; any metric if the name is empty."""

    metric: str = ""


class Bound(Data, tag="bound", frozen=True):
    """The metric, a largest abs advantage, exceeds (n - 1)/sqrt(n) + 1e-3 for n responses a group.

    No advantage can while they are group-relative and divided by the group's standard deviation; elsewhere the
    condition never holds.
    """

    metric: str


class Apart(Data, tag="apart", frozen=True):
    """Two metrics have moved by more than ``margin`` in their ways over ``steps`` steps or a few more.

    Each is a mean over up to ten steps, because one step is luck with its prompts. The second must also have moved by
    twice what chance makes of it: for held-out accuracy what two evaluations differ by, else what two such means do.
    """

    metric: str
    way: Way
    other: str
    other_way: Way
    steps: int = 20
    margin: float = 0.0


Condition = Limit | Jump | Fall | NonFinite | Bound | Apart


def metrics_of(condition: Condition) -> list[str]:
    """The metrics that a condition looks at; none where it looks at all of them."""
    other = [condition.other] if isinstance(condition, Apart) else []
    return [name for name in (condition.metric, *other) if name]


class Watch(Data, frozen=True):
    """A condition and what to do when it comes true.

    :ivar unless: hyperparameters and metrics; while one has the value given here the watch sleeps;
        with :data:`ABSENT` for a value, while the step did not measure that metric.
    :ivar precision: of the computation that it is meant for; empty: any.
    :ivar remedy: what to try, one line.
    :ivar says: the alarm's message, with ``{value}`` and any ``{metric}`` put in; empty: the condition's own words.
    :ivar own: whether a person made it.
    :ivar since: when; it does not look at steps before.
    """

    name: str
    condition: Condition
    action: Action = "notify"
    severity: Literal["warn", "error"] = "warn"
    unless: dict[str, Value] = {}
    precision: Precision = ""
    remedy: str = ""
    says: str = ""
    own: bool = False
    since: float = 0.0


# ----------------------------------------------------------------------------------------------- the table

_DIFFERS = "the training forward differs from the sampler: dropout, mask, padding or temperature"
_ROSE = "read the responses whose reward rose most (:rose); rate some of them"
_GENTLER = "lower learning_rate or raise kl_coefficient"

DEFAULT_WATCHES: tuple[Watch, ...] = (
    Watch(
        name="non-finite", condition=NonFinite(), severity="error", action="pause",
        remedy="lower learning_rate; look at the newest groups",
    ),
    Watch(
        name="invariants", condition=Limit(metric="invariants/broken", sign=">", level=0), severity="error",
        says="{value:.0f} broken", remedy="a bug in sampling or batching: please report it",
    ),
    Watch(
        name="dead groups", condition=Limit(metric="groups/dead_fraction", sign=">", level=0.8, steps=3),
        says="{value:.0%} of groups are dead ({groups/all_right_fraction:.0%} all right, "
        "{groups/all_wrong_fraction:.0%} all wrong)",
        remedy="raise temperature or group_size, or use prompts of another difficulty",
    ),
    Watch(
        name="advantage bound", condition=Bound(metric="advantage/abs_max"), severity="error",
        remedy="a bug: please report it",
    ),
    Watch(name="kl jump", condition=Jump(metric="kl/k3", factor=5, floor=0.02), remedy=_GENTLER),
    Watch(name="full kl jump", condition=Jump(metric="kl/full", factor=5, floor=0.02), remedy=_GENTLER),
    Watch(
        name="update jump", condition=Jump(metric="kl/old_new", factor=5, floor=0.02),
        remedy="lower learning_rate, epochs or minibatches",
    ),
    Watch(
        name="gradient spike", condition=Jump(metric="grad/norm", factor=10, floor=1),
        remedy="lower learning_rate or max_grad_norm; look at the newest groups",
    ),
    Watch(
        name="entropy", condition=Fall(metric="entropy", percent=50),
        remedy="lower learning_rate, or raise temperature or clip_high",
    ),
    Watch(
        name="ratio error", condition=Limit(metric="ratio/first_error", sign=">", level=1e-3), precision="fp32",
        says="ratio is {value:.4f} off 1 before the first step", remedy=_DIFFERS,
    ),
    Watch(
        name="ratio error", condition=Limit(metric="ratio/first_error", sign=">", level=5e-2), precision="bf16",
        says="ratio is {value:.4f} off 1 before the first step", remedy=_DIFFERS,
    ),
    Watch(
        name="sampler gap", condition=Limit(metric="sampler_gap/max", sign=">", level=1e-3), precision="fp32",
        says="sampler_gap/max {value:.4f}", remedy=_DIFFERS,
    ),
    Watch(
        name="sampler gap", condition=Limit(metric="sampler_gap/mean", sign=">", level=0.05), precision="bf16",
        says="sampler_gap/mean {value:.4f}", remedy=_DIFFERS,
    ),
    Watch(
        name="no gradient", condition=Limit(metric="grad/norm", sign="==", level=0), severity="error",
        unless={"learning_rate": 0.0}, says="the gradient is 0", remedy="check which parameters are trainable",
    ),
    Watch(
        name="nothing trains", condition=Limit(metric="update/relative_size", sign="==", level=0), severity="error",
        # a TRPO step that was rejected changes nothing on purpose
        unless={"learning_rate": 0.0, "trpo/step_fraction": 0.0}, says="the update changed nothing",
        remedy="check learning_rate and which parameters are trainable",
    ),
    Watch(
        name="all truncated", condition=Limit(metric="response/truncated_fraction", sign=">=", level=1, steps=2),
        says="every response is cut at max_new_tokens", remedy="raise max_new_tokens",
    ),
    Watch(
        name="truncated", condition=Limit(metric="response/truncated_fraction", sign=">", level=0.3, steps=3),
        says="{value:.0%} of responses are cut", remedy="raise max_new_tokens",
    ),
    Watch(  # for three steps: in one step it can be chance
        name="length",
        condition=Limit(metric="reward/length_correlation", sign=">", level=0.8, steps=3, absolute=True),
        says="reward follows length ({value:+.2f})",
        remedy="look at the longest and shortest responses of the newest groups",
    ),
    Watch(  # a little under 0 for a step is what a constant guess has by chance
        name="value model", condition=Limit(metric="value/explained_variance", sign="<", level=-0.05, steps=3),
        # while the value model trains alone, which it does to get over 0, the policy has no gradient
        unless={"grad/norm": ABSENT}, says="explained variance {value:.3f}: below a constant guess",
        remedy="raise gae_lambda to 1, lengthen value_warmup_steps, or change value_learning_rate",
    ),
    Watch(
        name="trpo rejected", condition=Limit(metric="trpo/step_fraction", sign="==", level=0, steps=3),
        says="the line search rejects every step",
        remedy="raise damping, lower trust_region, or raise prompts_per_step",
    ),
    Watch(
        name="fisher products", condition=Limit(metric="trpo/product_error", sign=">", level=1e-2),
        says="the Fisher products disagree by {value:.3f}",
        remedy="set fisher_product exact; where it is already, please report it",
    ),
    Watch(
        name="reward hacking",
        condition=Apart(
            metric="reward/mean", way="rises", other="eval/accuracy", other_way="falls", steps=20, margin=0.02
        ),
        remedy=_ROSE,
    ),
    Watch(
        name="human agreement",
        condition=Apart(
            metric="reward/automatic", way="rises", other="ratings/reward_agreement", other_way="falls", steps=20,
            margin=0.1,
        ),
        remedy=_ROSE,
    ),
    Watch(
        name="reward model",
        condition=Apart(
            metric="reward/automatic", way="rises", other="reward/reward_model", other_way="falls", steps=20,
            margin=0.1,
        ),
        remedy=_ROSE,
    ),
    Watch(  # for three steps, as for length
        name="repetition", condition=Limit(metric="reward/repetition_correlation", sign=">", level=0.8, steps=3),
        says="reward follows repetition ({value:+.2f})", remedy=_ROSE,
    ),
    Watch(
        name="reward model accuracy", condition=Limit(metric="reward_model/accuracy", sign="<", level=0.55),
        says="its held-out accuracy is {value:.0%}, hardly better than a coin's",
        remedy="rate more prompts before giving it weight, or set reward_model_kind lora or full",
    ),
    Watch(
        name="reward model length",
        condition=Limit(metric="reward_model/length_correlation", sign=">", level=0.8, absolute=True),
        says="the reward model follows length ({value:+.2f})",
        remedy="rate pairs of equal length, or set overlong_penalty; at its weight the policy will follow",
    ),
    Watch(
        name="self-agreement", condition=Limit(metric="ratings/self_agreement", sign="<", level=0.6),
        says="people answer the same question otherwise the second time (self-agreement {value:.2f})",
        remedy="rest, or make the guide clearer; read the responses again before more ratings are used",
    ),
    Watch(
        name="reward failed", condition=Limit(metric="response/failed", sign=">", level=0),
        says="a reward function failed on {value:.0f} responses",
        remedy="open one of them: it names the function and the reason",
    ),
    Watch(
        name="reward failures", condition=Limit(metric="response/failed_fraction", sign=">", level=0.5, steps=3),
        severity="error", says="reward functions fail on {value:.0%} of the responses, the third step in a row",
        remedy="mend the function (a failed response names the reason), then `reload`: it shows what that changes",
    ),
    Watch(
        name="loop lag", condition=Limit(metric="loop/lag", sign=">", level=0.5),
        says="the event loop stood still for {value:.1f} s", remedy="fewer clients",
    ),
)  # fmt: skip
"""What every session watches; where two have one name, the precision of the computation picks."""


def held_out_check(component: str) -> Watch:
    """What watches a reward component of weight 0: the reward rises while what does not teach falls."""
    return Watch(
        name=f"check {component}".replace(":", " ")[:80],
        condition=Apart(
            metric="reward/automatic", way="rises", other=f"reward/{component}", other_way="falls", steps=20,
            margin=0.02,
        ),
        remedy=_ROSE,
    )  # fmt: skip


def default_watches(precision: Precision, checks: Iterable[str] = ()) -> list[Watch]:
    """The defaults that are meant for a precision; their names differ.

    :param checks: reward components of weight 0; each gets a watch of its own.
    """
    watches = [w for w in DEFAULT_WATCHES if w.precision in ("", precision)]
    seen = {name for w in watches for name in metrics_of(w.condition)}
    return [*watches, *(held_out_check(name) for name in checks if f"reward/{name}" not in seen)]
