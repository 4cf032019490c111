"""Every hyperparameter, once: type, bounds, boundary, who uses it and what it does.

Validation, the command line, the parameters screen and the documentation are all generated from
:data:`HYPERPARAMETERS`. Names, symbols and defaults follow the papers; a task may carry defaults of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from sessions.errors import InvalidValue, UnknownName
from sessions.knob import NONE, Boundary, Hyperparameter, Value, gate_parts

__all__ = [
    "HYPERPARAMETERS",
    "NONE",
    "REWARD_WEIGHT",
    "Assignment",
    "Boundary",
    "Hyperparameter",
    "Value",
    "check_sampler",
    "check_together",
    "defaults",
    "gate_parts",
    "hyperparameter",
    "knobs_of",
    "parse_assignment",
    "reward_weight",
    "switched",
]

_GRADIENT = ("grpo", "ppo")
"""Those that step AdamW on the policy."""
_STEPPED = ("grpo", "ppo", "trpo")
"""Those that step any AdamW: with trpo that of the value model, where there is one."""
_VALUE = ("ppo", "trpo")
_WITH_VALUE = ("trpo", "baseline", "value")
_IN_REWARD: dict[str, Value] = {"ppo": "reward", "trpo": "reward"}

_MISMATCH = "The policy's own distribution stays whole: refused without --allow-sampler-mismatch."

HYPERPARAMETERS: dict[str, Hyperparameter] = {
    knob.name: knob
    for knob in (
        Hyperparameter(
            "algorithm", "", "choice", "grpo", "rollout",
            "What turns rewards into an update: grpo compares the responses of a group; ppo trains a value model "
            "beside the policy; trpo takes a natural-gradient step inside a trust region. Switching keeps the "
            "policy, the optimizer that grpo and ppo share, and the value model with its own.",
            choices=("grpo", "ppo", "trpo"),
            healthy="grpo where answers can be checked; ppo where a response's parts deserve different credit; trpo "
            "where a step must never move the policy further than trust_region.", risky=True,
        ),
        Hyperparameter(
            "learning_rate", "lr", "float", 1e-6, "minibatch",
            "Step size of AdamW. The optimizer's state is kept when it changes.",
            low=0.0, high=1.0, algorithms=_GRADIENT,
            healthy="1e-6 for a whole model, 5e-5 for adapters, 1e-4 for the embedded one. Too high: kl/k3 jumps, "
            "entropy falls, ratio/max leaves 1. Too low: reward/mean stays where it is.", risky=True,
        ),
        Hyperparameter(
            "lr_warmup_steps", "", "int", 0, "minibatch",
            "Optimizer steps over which the learning rate rises linearly from 0; constant afterwards.",
            low=0, high=1_000_000, algorithms=_STEPPED, unless=_WITH_VALUE, nudge=("add", 10),
        ),
        Hyperparameter(
            "weight_decay", "", "float", 0.0, "minibatch",
            "AdamW's decoupled weight decay.", low=0.0, high=1.0, algorithms=_STEPPED, unless=_WITH_VALUE,
        ),
        Hyperparameter(
            "max_grad_norm", "", "float", 1.0, "minibatch",
            "The gradient is scaled down to this norm before a step.",
            low=1e-6, high=1e6, algorithms=_STEPPED, unless=_WITH_VALUE,
        ),
        Hyperparameter(
            "adam_beta1", "beta1", "float", 0.9, "minibatch",
            "Decay of AdamW's first moment.", low=0.0, high=0.9999, algorithms=_STEPPED, unless=_WITH_VALUE,
            nudge=("add", 0.01),
        ),
        Hyperparameter(
            "adam_beta2", "beta2", "float", 0.999, "minibatch",
            "Decay of AdamW's second moment.", low=0.0, high=0.99999, algorithms=_STEPPED, unless=_WITH_VALUE,
            nudge=("add", 0.001),
        ),
        Hyperparameter(
            "prompts_per_step", "", "int", 16, "rollout",
            "Prompts sampled in one step; each makes one group.", low=1, high=4096, risky=True,
        ),
        Hyperparameter(
            "group_size", "G", "int", 8, "rollout",
            "Responses sampled for each prompt. Group-relative advantages need at least 2.", low=2, high=256,
            risky=True,
        ),
        Hyperparameter(
            "max_new_tokens", "", "int", 256, "rollout",
            "A response that has not ended after this many tokens is cut (truncated).",
            unit="tokens", low=1, high=131_072, risky=True,
        ),
        Hyperparameter(
            "temperature", "T", "float", 1.0, "rollout",
            "Logits are divided by it, when sampling and wherever a log-probability is taken. Lower values "
            "narrow exploration: a group whose responses are all alike teaches nothing.",
            low=0.05, high=5.0, nudge=("add", 0.1),
        ),
        Hyperparameter(
            "epochs", "mu", "int", 1, "update",
            "Passes over the rollout in one update. With trpo and baseline value: passes of the value model.",
            low=1, high=64, algorithms=_STEPPED, unless=_WITH_VALUE, nudge=("add", 1),
            healthy="1 for grpo, 1 to 4 for ppo: while clip/low + clip/high stay under 0.2 and kl/old_new under 0.02.",
            risky=True,
        ),
        Hyperparameter(
            "minibatches", "", "int", 1, "update",
            "Sets of whole groups the rollout is cut into; one optimizer step for each.",
            low=1, high=256, algorithms=_STEPPED, unless=_WITH_VALUE, nudge=("add", 1),
        ),
        Hyperparameter(
            "clip_low", "eps low", "float", 0.2, "minibatch",
            "The importance ratio is clipped below 1 - clip_low. Without effect while the ratio is 1, which it "
            "is when each rollout takes one optimizer step.",
            low=0.0, high=1.0, algorithms=_GRADIENT, nudge=("add", 0.01),
            healthy="0.2 for token ratios; about 3e-4 for ratio_level sequence. clip/low is the share it cuts.",
        ),
        Hyperparameter(
            "clip_high", "eps high", "float", 0.2, "minibatch",
            "The importance ratio is clipped above 1 + clip_high; larger than clip_low leaves rare tokens room "
            "to grow (clip-higher).",
            low=0.0, high=100.0, algorithms=_GRADIENT, nudge=("add", 0.01),
            healthy="0.2; 0.28 (DAPO) where entropy falls fast; about 4e-4 for ratio_level sequence.",
        ),
        Hyperparameter(
            "kl_coefficient", "beta", "float", 0.04, "minibatch",
            "Weight of the divergence from the reference. With 0 the reference is only measured, every "
            "reference_every steps. With kl_placement reward it takes effect at the next update.",
            low=0.0, high=100.0, depends=("algorithm", {"ppo": 0.05, "trpo": 0.05}),
            later=("kl_placement", "reward", "update"),
            healthy="0 to 0.1, while kl/k3 stays under about 0.1 nats; raise it when kl/k3 jumps, lower it when the "
            "reward is stuck close to the reference.",
        ),
        Hyperparameter(
            "kl_estimator", "", "choice", "k3", "update",
            "How the divergence from the reference is measured. In the loss: k3 (DeepSeekMath), k3_ratio or k2 "
            "(both with the exact reverse-KL gradient), or full (the exact sum over the vocabulary, which costs a "
            "forward pass of the reference in every epoch). In the reward, always with ppo and trpo: k1.",
            choices=("k1", "k2", "k3", "k3_ratio", "full"), depends=("algorithm", {"ppo": "k1", "trpo": "k1"}),
        ),
        Hyperparameter(
            "kl_placement", "", "choice", "loss", "update",
            "Where the divergence enters: a term of the loss, or subtracted from the reward (token by token where "
            "there is a value model; ppo and trpo have it there).",
            choices=("loss", "reward"), depends=("algorithm", _IN_REWARD),
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
            choices=("group", "batch", "none"), algorithms=("grpo", "trpo"), unless=("trpo", "baseline", "group"),
            healthy="group; none where hard prompts should weigh more; batch where groups are small.",
        ),
        Hyperparameter(
            "loss_aggregation", "", "choice", "response", "update",
            "How token losses become one number: mean of each response's mean (DeepSeekMath), one mean over "
            "all tokens (DAPO), or the sum over a constant (Dr. GRPO).",
            choices=("response", "token", "constant"), algorithms=("grpo",),
            healthy="response as published; token or constant where responses grow longer without getting better.",
        ),
        Hyperparameter(
            "ratio_level", "", "choice", "token", "update",
            "What the importance ratio is of: each token, or the whole sequence (GSPO: exp of the mean log-ratio, "
            "with loss_aggregation response and clip_low, clip_high of about 3e-4).",
            choices=("token", "sequence"), algorithms=("grpo",),
        ),
        Hyperparameter(
            "entropy_bonus", "", "float", 0.0, "update",
            "Weight of the policy's mean entropy, added to the objective: it keeps the policy exploring.",
            low=0.0, high=10.0, algorithms=("grpo",),
            healthy="0; 1e-3 to 1e-2 where entropy falls to half of its first value. Too high: entropy rises and "
            "the responses become noise.",
        ),
        Hyperparameter(
            "dynamic_sampling", "", "int", 0, "rollout",
            "A dead group is replaced by the next prompt's, at most so many times in a row for each place in the "
            "rollout (DAPO); the replaced prompts count as asked. 0: never.",
            unit="tries", low=0, high=64, algorithms=("grpo",), nudge=("add", 1),
            healthy="0 to 8; useful while groups/dead_fraction is over 0.5. Each try samples again.",
        ),
        Hyperparameter(
            "overlong_penalty", "c", "int", 0, "update",
            "The reward falls linearly to -1 over the last c tokens before max_new_tokens (DAPO), as the reward "
            "component overlong; 0: no penalty.",
            unit="tokens", low=0, high=131_072, algorithms=("grpo",), nudge=("add", 8),
        ),
        Hyperparameter(
            "gamma", "gamma", "float", 1.0, "update",
            "Discount: a token is credited with gamma^n of a reward n tokens later.",
            low=0.0, high=1.0, algorithms=_VALUE, unless=_WITH_VALUE, nudge=("add", 0.01),
            healthy="1 for responses that are scored once at their end.",
        ),
        Hyperparameter(
            "gae_lambda", "lambda", "float", 0.95, "update",
            "Generalised advantage estimation: 1 trusts the rewards that came (more variance), 0 the value model "
            "(more bias).",
            low=0.0, high=1.0, algorithms=_VALUE, unless=_WITH_VALUE, nudge=("add", 0.01),
            healthy="0.95; 1 while value/explained_variance is low or where answers can be checked.",
        ),
        Hyperparameter(
            "value_model", "", "choice", "head", "update",
            "What predicts the value of every prefix: a scalar head on the policy's trunk whose gradient stops there, "
            "the same with the gradient flowing on (shared), or a separate model. A change starts a new one.",
            choices=("head", "shared", "separate"), algorithms=_VALUE, unless=_WITH_VALUE,
            healthy="head costs next to nothing; shared and separate learn more where explained variance stays low.",
            risky=True,
        ),
        Hyperparameter(
            "value_learning_rate", "", "float", 1e-3, "minibatch",
            "Step size of the value model's own AdamW (1e-5 for a separate model, unless it was set).",
            low=0.0, high=1.0, algorithms=_VALUE, unless=_WITH_VALUE, depends=("value_model", {"separate": 1e-5}),
        ),
        Hyperparameter(
            "value_clip", "", "float", 0.2, "update",
            "A value moves at most this far from its old estimate before its loss stops counting; 0: no clipping.",
            low=0.0, high=1e6, algorithms=_VALUE, unless=_WITH_VALUE, nudge=("add", 0.05),
        ),
        Hyperparameter(
            "value_coefficient", "", "float", 0.1, "update",
            "Weight of the value loss in the trunk's gradient, with value_model shared.",
            low=0.0, high=100.0, algorithms=("ppo",),
        ),
        Hyperparameter(
            "value_warmup_steps", "", "int", 5, "update",
            "Steps in which a new value model is trained alone before the policy is.",
            unit="steps", low=0, high=100_000, algorithms=_VALUE, unless=_WITH_VALUE, nudge=("add", 1),
            healthy="enough for value/explained_variance to pass 0.",
        ),
        Hyperparameter(
            "stop_kl", "", "float", 0.02, "update",
            "An update stops before the minibatch in which the policy is found to have moved this far from the one "
            "that sampled (mean of (rho - 1) - log rho on the step's own groups); 0: never.",
            unit="nats/token", low=0.0, high=100.0, algorithms=("ppo",),
        ),
        Hyperparameter(
            "kl_target", "", "float", NONE, "update",
            "After each update kl_coefficient moves, by at most a fifth of its error, so that the divergence from "
            "the reference approaches this; none: it stays.",
            unit="nats/token", low=1e-6, high=100.0, algorithms=("ppo",), optional=True,
        ),
        Hyperparameter(
            "truncation_penalty", "", "float", 0.0, "update",
            "Subtracted from the score of a response that did not end, as the reward component truncation.",
            low=0.0, high=1000.0, algorithms=_VALUE, unless=_WITH_VALUE, nudge=("add", 0.1),
            healthy="0, or 1 where responses learn not to end.",
        ),
        Hyperparameter(
            "trust_region", "delta", "float", 0.01, "update",
            "Mean KL(old, new) over the whole vocabulary that an update may move the policy by.",
            unit="nats/token", low=1e-9, high=100.0, algorithms=("trpo",),
            healthy="1e-3 to 1e-2. trpo/kl_realised should come close to it; lower it when ratio/max passes 10.",
            risky=True,
        ),
        Hyperparameter(
            "cg_iterations", "", "int", 10, "update",
            "Most conjugate-gradient iterations; each costs one Fisher product.",
            low=1, high=1000, algorithms=("trpo",), nudge=("add", 1),
            healthy="10; fewer cost less, while trpo/cg_residual stays under about 0.5.",
        ),
        Hyperparameter(
            "cg_tolerance", "", "float", 0.1, "update",
            "Conjugate gradient stops when its residual has fallen to this share of the gradient.",
            low=0.0, high=1.0, algorithms=("trpo",),
        ),
        Hyperparameter(
            "damping", "", "float", 1e-3, "update",
            "Added to the Fisher matrix's diagonal, as a multiple of the curvature along the gradient.",
            low=0.0, high=1e3, algorithms=("trpo",),
            healthy="0.1 to 1 where the rollout has far fewer tokens than the model has parameters: better steps, "
            "and conjugate gradient converges in half the products (preset trpo has 1). Raise it when "
            "trpo/cg_residual stays over 0.5 or trpo/gain_ratio is far from 1.",
        ),
        Hyperparameter(
            "damping_scale", "", "choice", "curvature", "update",
            "What damping multiplies: the curvature along the gradient, or one (absolute, as other systems have it).",
            choices=("curvature", "absolute"), algorithms=("trpo",),
        ),
        Hyperparameter(
            "backtracks", "", "int", 10, "update",
            "Tries of the line search, each 0.8 of the step before it; after them the step is rejected.",
            low=1, high=100, algorithms=("trpo",), nudge=("add", 1),
        ),
        Hyperparameter(
            "fisher_product", "", "choice", "auto", "update",
            "How the Fisher matrix is multiplied with a vector: exact (by differentiating twice), difference (a "
            "central difference of the KL's gradient), or auto: exact where the attention kernel can.",
            choices=("exact", "difference", "auto"), algorithms=("trpo",),
        ),
        Hyperparameter(
            "fisher_fraction", "", "float", 1.0, "update",
            "Share of the rollout's groups that the Fisher products see; the gradient and the line search see all.",
            low=0.01, high=1.0, algorithms=("trpo",), nudge=("scale", 2.0),
            healthy="1 or, with a damping of 0.1 or more, 0.25, which makes the products four times cheaper.",
        ),
        Hyperparameter(
            "baseline", "", "choice", "group", "update",
            "What a response is compared with: the mean of its group, or the value model's estimates.",
            choices=("group", "value"), algorithms=("trpo",),
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
            "rating_rule", "", "choice", "newest", "rollout",
            "Which groups are put before a person first: newest; random (the control); uncertain (the reward model can "
            "tell two responses apart least); disagree (reward components order responses in opposite ways); spread "
            "(the rewards differ most).",
            choices=("newest", "random", "uncertain", "disagree", "spread"),
        ),
        Hyperparameter(
            "rating_repeats", "", "float", 0.05, "rollout",
            "Share of questions that are asked a second time, silently, to measure how far a person agrees with "
            "themselves.",
            low=0.0, high=0.5, nudge=("add", 0.05),
        ),
        Hyperparameter(
            "reward_model_weight", "", "float", 0.0, "rollout",
            "Weight of the reward model's score in the automatic reward; 0: it is measured and shown, and does not "
            "teach.",
            low=0.0, high=100.0, nudge=("add", 0.1),
        ),
        Hyperparameter(
            "reward_model_every", "", "int", 0, "rollout",
            "The reward model is trained anew whenever so many ratings have come; 0: only on command.",
            unit="ratings", low=0, high=1_000_000, nudge=("add", 10),
        ),
        Hyperparameter(
            "reward_model_kind", "", "choice", "head", "rollout",
            "What of a new reward model is trained: head (on the frozen start of RL), lora (adapters too) or full.",
            choices=("head", "lora", "full"),
        ),
        Hyperparameter(
            "evaluate_every", "", "int", 10, "rollout",
            "Steps between evaluations on held-out prompts; 0: never.",
            unit="steps", low=0, high=1_000_000, nudge=("add", 5),
        ),
        Hyperparameter(
            "eval_samples", "", "int", 0, "rollout",
            "Answers sampled for each held-out prompt beside the first, for pass@k: at eval_temperature, or at "
            "temperature while that is 0. Every evaluation draws the same random numbers, which are none of "
            "training's; 0: none.", low=0, high=256,
            healthy="8, with a small held-out set: an evaluation takes so many times longer.",
        ),
        Hyperparameter(
            "eval_temperature", "", "float", 0.0, "rollout",
            "Temperature of the held-out answers; 0: greedy, the likeliest token each time. Above 0 every evaluation "
            "draws the same random numbers, which are none of training's.",
            low=0.0, high=5.0, nudge=("add", 0.1),
        ),
        Hyperparameter(
            "eval_top_p", "", "float", 1.0, "rollout",
            "As top_p, for held-out answers with eval_temperature above 0; 1: from all.",
            low=1e-6, high=1.0, nudge=("add", 0.05),
        ),
        Hyperparameter(
            "eval_top_k", "", "int", 0, "rollout",
            "As top_k, for held-out answers with eval_temperature above 0; 0: from all.",
            unit="tokens", low=0, high=1_000_000, nudge=("add", 10),
        ),
        Hyperparameter(
            "eval_min_p", "", "float", 0.0, "rollout",
            "As min_p, for held-out answers with eval_temperature above 0; 0: from all.",
            low=0.0, high=1.0, nudge=("add", 0.01),
        ),
        Hyperparameter(
            "checkpoint_steps", "", "int", 50, "rollout",
            "Steps between checkpoints; 0: only on command and at the end.",
            unit="steps", low=0, high=1_000_000, nudge=("add", 10),
        ),
        Hyperparameter(
            "top_p", "", "float", 1.0, "rollout",
            "Tokens are sampled from the likeliest ones whose probabilities sum to this; 1: from all. " + _MISMATCH,
            low=1e-6, high=1.0, nudge=("add", 0.05),
        ),
        Hyperparameter(
            "top_k", "", "int", 0, "rollout",
            "Tokens are sampled from so many of the likeliest; 0: from all. " + _MISMATCH,
            unit="tokens", low=0, high=1_000_000, nudge=("add", 10),
        ),
        Hyperparameter(
            "min_p", "", "float", 0.0, "rollout",
            "Tokens are sampled from those at least this times as probable as the likeliest; 0: from all. " + _MISMATCH,
            low=0.0, high=1.0, nudge=("add", 0.01),
        ),
    )
}  # fmt: skip
"""The table. Its order is the order of the parameters screen."""


REWARD_WEIGHT = "reward_weight."
"""What the knobs of a session's own reward components begin with."""


@lru_cache(maxsize=1024)
def reward_weight(component: str) -> Hyperparameter:
    """The weight of one reward component; every component of a session has one."""
    return Hyperparameter(
        REWARD_WEIGHT + component, "", "float", 1.0, "rollout",
        f"Weight of the reward component {component} in the automatic reward; 0: it is measured and shown, and does "
        "not teach. The default is what the component was started with.",
        low=-1e6, high=1e6, nudge=("add", 0.1),
        healthy=f"Watch reward/{component} and reward/automatic. Responses that are scored already keep their reward.",
    )  # fmt: skip


def knobs_of(values: Mapping[str, Value]) -> dict[str, Hyperparameter]:
    """Every knob, and then a session's own.

    :param values: of the session.
    """
    own = {name: hyperparameter(name) for name in values if name.startswith(REWARD_WEIGHT)}
    return {**HYPERPARAMETERS, **own}


def hyperparameter(name: str) -> Hyperparameter:
    """The definition of ``name``; ``-`` may stand for ``_``.

    :raises UnknownName: offering the nearest name.
    """
    prefix, dot, component = name.partition(".")
    if dot and component and prefix.replace("-", "_") + dot == REWARD_WEIGHT:
        return reward_weight(component)
    known = name.replace("-", "_")
    if known not in HYPERPARAMETERS:
        raise UnknownName("hyperparameter", name, HYPERPARAMETERS)
    return HYPERPARAMETERS[known]


def defaults(*laid_over: Mapping[str, Value]) -> dict[str, Value]:
    """Every knob at its default, with others laid over: a task's own defaults, then what a person set.

    Defaults that depend on another knob (the divergence's, on the algorithm) follow what is laid over.
    """
    given = {hyperparameter(name).name: hyperparameter(name).parse(v) for over in laid_over for name, v in over.items()}
    values: dict[str, Value] = {name: knob.default for name, knob in HYPERPARAMETERS.items()}
    return values | switched(values, given)


def switched(values: Mapping[str, Value], wanted: Mapping[str, Value]) -> dict[str, Value]:
    """What is wanted, and what follows from it: a knob that has the default of the old algorithm (or value model)
    takes the default of the new one, and one that a person set to something else stays.

    :param values: before the change.
    :returns: ``wanted`` and the knobs that follow.
    """
    together = {**values, **wanted}
    following: dict[str, Value] = {}
    for name, knob in HYPERPARAMETERS.items():
        if knob.depends is None or name in wanted or knob.depends[0] not in wanted:
            continue
        new = knob.default_under(together)
        if values.get(name) == knob.default_under(values) and new != values.get(name):
            following[name] = new
    return {**wanted, **following}


def check_together(values: Mapping[str, Value]) -> None:
    """Refuse values that are valid one by one but not with each other.

    :raises InvalidValue: naming both knobs and the remedy.
    """
    placement, estimator, algorithm = values["kl_placement"], values["kl_estimator"], values["algorithm"]
    if placement == "loss" and algorithm in _IN_REWARD:
        raise InvalidValue(
            f"algorithm {algorithm} has the divergence in the reward; set kl_placement=reward and kl_estimator=k1 too"
        )
    if placement == "reward" and estimator != "k1":
        raise InvalidValue(f"kl_placement reward goes with kl_estimator k1, not {estimator}; set both together")
    if placement == "loss" and estimator == "k1":
        raise InvalidValue(
            "kl_estimator k1 has no gradient as a loss; use k3, k3_ratio, k2 or full, or set kl_placement reward too"
        )
    if values["kl_target"] != NONE and values["kl_coefficient"] == 0 and algorithm == "ppo":
        raise InvalidValue("kl_target steers kl_coefficient by factors: it needs one above 0; set kl_coefficient too")
    if values["ratio_level"] == "sequence" and values["loss_aggregation"] != "response":
        raise InvalidValue(
            f"ratio_level sequence goes with loss_aggregation response, not {values['loss_aggregation']}; set both"
        )
    overlong, longest = values["overlong_penalty"], values["max_new_tokens"]
    if isinstance(overlong, int) and isinstance(longest, int) and overlong >= longest:
        raise InvalidValue(
            f"overlong_penalty {overlong} is not less than max_new_tokens {longest}: every response would be too long"
        )


def check_sampler(values: Mapping[str, Value], *, mismatch: bool) -> None:
    """Refuse to train on samples of another distribution than the policy's.

    :param mismatch: whether the session allows it.
    :raises InvalidValue: saying why, and how to allow it.
    """
    for name in () if mismatch else ("top_p", "top_k", "min_p"):
        if values[name] != HYPERPARAMETERS[name].default:
            raise InvalidValue(
                f"{name} {HYPERPARAMETERS[name].show(values[name])} renormalises the sampler and not the policy that "
                f"learns from it; start the session with --allow-sampler-mismatch, or set eval_{name}"
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
    if not re.fullmatch("[0-9]{1,15}", step.strip()) or int(step) < 1:
        raise InvalidValue(f"{text!r}: the step after @ should be a whole number from 1")
    return Assignment(knob.name, knob.parse(value.strip()), int(step))
