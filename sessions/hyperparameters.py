"""Every hyperparameter, once: type, bounds, boundary, who uses it and what it does.

Validation, the command line, the parameters screen and the documentation are all generated from
:data:`HYPERPARAMETERS`. Names, symbols and defaults follow the papers; a task may carry defaults of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sessions.errors import InvalidValue, UnknownName

Value = float | int | str
Boundary = Literal["minibatch", "update", "rollout", "restart"]
Kind = Literal["float", "int", "choice", "gate"]


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One knob.

    :ivar boundary: the point of the loop at which a change takes effect.
    :ivar algorithms: who reads it; empty means every algorithm.
    :ivar low: least value allowed (numbers), inclusive.
    :ivar high: greatest value allowed (numbers), inclusive.
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
        return f"{_short(self.low)} .. {_short(self.high)}" + (f" {self.unit}" if self.unit else "")

    def show(self, value: Value) -> str:
        """A value as people write it: ``1e-06`` as ``1e-6``, whole numbers without a point."""
        return _short(value) if isinstance(value, int | float) else value

    def nudged(self, value: Value, direction: int) -> Value:
        """The value one ``+`` (direction 1) or ``-`` (direction -1) away, kept inside the bounds."""
        if self.kind == "choice":
            at = (self.choices.index(str(value)) + direction) % len(self.choices)
            return self.choices[at]
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

    def used_by(self, algorithm: str) -> bool:
        """Whether the running algorithm reads this knob."""
        return not self.algorithms or algorithm in self.algorithms


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


_POLICY_GRADIENT = ("grpo",)

HYPERPARAMETERS: dict[str, Hyperparameter] = {
    knob.name: knob
    for knob in (
        Hyperparameter(
            "algorithm", "", "choice", "grpo", "rollout",
            "What turns rewards into an update.", choices=("grpo",),
        ),
        Hyperparameter(
            "learning_rate", "lr", "float", 1e-6, "minibatch",
            "Step size of AdamW. The optimizer's state is kept when it changes.",
            low=0.0, high=1.0, algorithms=_POLICY_GRADIENT,
        ),
        Hyperparameter(
            "lr_warmup_steps", "", "int", 0, "minibatch",
            "Optimizer steps over which the learning rate rises linearly from 0; constant afterwards.",
            low=0, high=1_000_000, algorithms=_POLICY_GRADIENT, nudge=("add", 10),
        ),
        Hyperparameter(
            "weight_decay", "", "float", 0.0, "minibatch",
            "AdamW's decoupled weight decay.", low=0.0, high=1.0, algorithms=_POLICY_GRADIENT,
        ),
        Hyperparameter(
            "max_grad_norm", "", "float", 1.0, "minibatch",
            "The gradient is scaled down to this norm before a step.",
            low=1e-6, high=1e6, algorithms=_POLICY_GRADIENT,
        ),
        Hyperparameter(
            "adam_beta1", "beta1", "float", 0.9, "minibatch",
            "Decay of AdamW's first moment.", low=0.0, high=0.9999, algorithms=_POLICY_GRADIENT,
            nudge=("add", 0.01),
        ),
        Hyperparameter(
            "adam_beta2", "beta2", "float", 0.999, "minibatch",
            "Decay of AdamW's second moment.", low=0.0, high=0.99999, algorithms=_POLICY_GRADIENT,
            nudge=("add", 0.001),
        ),
        Hyperparameter(
            "prompts_per_step", "", "int", 16, "rollout",
            "Prompts sampled in one step; each makes one group.", low=1, high=4096,
        ),
        Hyperparameter(
            "group_size", "G", "int", 8, "rollout",
            "Responses sampled for each prompt. Group-relative advantages need at least 2.", low=2, high=256,
        ),
        Hyperparameter(
            "max_new_tokens", "", "int", 256, "rollout",
            "A response that has not ended after this many tokens is cut (truncated).",
            unit="tokens", low=1, high=131_072,
        ),
        Hyperparameter(
            "temperature", "T", "float", 1.0, "rollout",
            "Logits are divided by it, when sampling and wherever a log-probability is taken. Lower values "
            "narrow exploration: a group whose responses are all alike teaches nothing.",
            low=0.05, high=5.0, nudge=("add", 0.1),
        ),
        Hyperparameter(
            "epochs", "mu", "int", 1, "update",
            "Passes over the rollout in one update.", low=1, high=64, algorithms=_POLICY_GRADIENT,
            nudge=("add", 1),
        ),
        Hyperparameter(
            "minibatches", "", "int", 1, "update",
            "Sets of whole groups the rollout is cut into; one optimizer step for each.",
            low=1, high=256, algorithms=_POLICY_GRADIENT, nudge=("add", 1),
        ),
        Hyperparameter(
            "clip_low", "eps low", "float", 0.2, "minibatch",
            "The importance ratio is clipped below 1 - clip_low. Without effect while the ratio is 1, which it "
            "is when each rollout takes one optimizer step.",
            low=0.0, high=1.0, algorithms=_POLICY_GRADIENT, nudge=("add", 0.01),
        ),
        Hyperparameter(
            "clip_high", "eps high", "float", 0.2, "minibatch",
            "The importance ratio is clipped above 1 + clip_high; larger than clip_low leaves rare tokens room "
            "to grow (clip-higher).",
            low=0.0, high=100.0, algorithms=_POLICY_GRADIENT, nudge=("add", 0.01),
        ),
        Hyperparameter(
            "kl_coefficient", "beta", "float", 0.04, "minibatch",
            "Weight of the divergence from the reference. With 0 the reference is only measured, every "
            "reference_every steps.",
            low=0.0, high=100.0,
        ),
        Hyperparameter(
            "kl_estimator", "", "choice", "k3", "update",
            "How the divergence from the reference is estimated on sampled tokens. In the loss: k3 (DeepSeekMath), "
            "k3_ratio or k2 (both with the exact reverse-KL gradient). In the reward: k1.",
            choices=("k1", "k2", "k3", "k3_ratio"),
        ),
        Hyperparameter(
            "kl_placement", "", "choice", "loss", "update",
            "Where the divergence enters: a term of the loss, or subtracted from the reward.",
            choices=("loss", "reward"),
        ),
        Hyperparameter(
            "reference_refresh_steps", "", "int", 0, "update",
            "Every so many steps the reference becomes the present policy (iterative GRPO); 0: never.",
            unit="steps", low=0, high=1_000_000, nudge=("add", 10),
        ),
        Hyperparameter(
            "reference_every", "", "int", 10, "update",
            "With kl_coefficient 0 the divergence is still measured every so many steps; 0: never.",
            unit="steps", low=0, high=1_000_000, nudge=("add", 1),
        ),
        Hyperparameter(
            "advantage_scale", "", "choice", "group", "update",
            "What the centred reward is divided by: the group's standard deviation, the batch's, or nothing "
            "(Dr. GRPO).",
            choices=("group", "batch", "none"), algorithms=("grpo",),
        ),
        Hyperparameter(
            "loss_aggregation", "", "choice", "response", "update",
            "How token losses become one number: mean of each response's mean (DeepSeekMath), one mean over "
            "all tokens (DAPO), or the sum over a constant (Dr. GRPO).",
            choices=("response", "token", "constant"), algorithms=("grpo",),
        ),
        Hyperparameter(
            "rating_gate", "", "gate", "async", "rollout",
            "Whether a step waits for ratings: async (never), wait n (until n groups are rated), timeout s "
            "(at most s seconds).",
        ),
        Hyperparameter(
            "human_weight", "w", "float", 1.0, "rollout",
            "How far a rating replaces the automatic reward of a response: 1 fully, 0 not at all.",
            low=0.0, high=1.0, nudge=("add", 0.1),
        ),
        Hyperparameter(
            "rating_max_kl", "", "float", 0.2, "rollout",
            "A group rated after its update joins the next one while the policy has moved by at most this much "
            "on its tokens (mean k3).",
            unit="nats", low=0.0, high=100.0,
        ),
        Hyperparameter(
            "evaluate_every", "", "int", 10, "rollout",
            "Steps between greedy evaluations on held-out prompts; 0: never.",
            unit="steps", low=0, high=1_000_000, nudge=("add", 5),
        ),
        Hyperparameter(
            "checkpoint_steps", "", "int", 50, "rollout",
            "Steps between checkpoints; 0: only on command and at the end.",
            unit="steps", low=0, high=1_000_000, nudge=("add", 10),
        ),
    )
}  # fmt: skip
"""The table. Its order is the order of the parameters screen."""


def hyperparameter(name: str) -> Hyperparameter:
    """The definition of ``name``; ``-`` may stand for ``_``.

    :raises UnknownName: offering the nearest name.
    """
    known = name.replace("-", "_")
    if known not in HYPERPARAMETERS:
        raise UnknownName("hyperparameter", name, HYPERPARAMETERS)
    return HYPERPARAMETERS[known]


def defaults(task_defaults: Mapping[str, Value] | None = None) -> dict[str, Value]:
    """Every knob at its default, with a task's own defaults laid over."""
    values: dict[str, Value] = {name: knob.default for name, knob in HYPERPARAMETERS.items()}
    for name, value in (task_defaults or {}).items():
        values[name] = hyperparameter(name).parse(value)
    return values


def check_together(values: Mapping[str, Value]) -> None:
    """Refuse values that are valid one by one but not with each other.

    :raises InvalidValue: naming both knobs and the remedy.
    """
    placement, estimator = values["kl_placement"], values["kl_estimator"]
    if placement == "reward" and estimator != "k1":
        raise InvalidValue(f"kl_placement reward goes with kl_estimator k1, not {estimator}; set both together")
    if placement == "loss" and estimator == "k1":
        raise InvalidValue(
            "kl_estimator k1 has no gradient as a loss; use k3, k3_ratio or k2, or set kl_placement reward too"
        )


@dataclass(frozen=True, slots=True)
class Assignment:
    """``name=value`` or ``name=value@STEP``: a value, and the step before which it is set (None: at once)."""

    name: str
    value: Value
    step: int | None = None


def parse_assignment(text: str) -> Assignment:
    """Read ``name=value[@STEP]`` as given to ``--set``.

    :raises InvalidValue: if it has no ``=`` or no valid step.
    :raises UnknownName: if there is no such knob.
    """
    name, equals, rest = text.partition("=")
    if not equals:
        raise InvalidValue(f"{text!r} should read name=value or name=value@STEP")
    value, at, step = rest.partition("@")
    knob = hyperparameter(name.strip())
    if not at:
        return Assignment(knob.name, knob.parse(value.strip()))
    if not step.strip().isdigit() or int(step) < 1:
        raise InvalidValue(f"{text!r}: the step after @ should be a whole number from 1")
    return Assignment(knob.name, knob.parse(value.strip()), int(step))
