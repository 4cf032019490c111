"""Every metric, once: its name, unit, formula in words and which way is good.

The names are the same in the engine, the store, the wire and on the screen; TRL's and CleanRL's where they exist.
Statistics are over real tokens only, never padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured quantity of a step.

    :ivar title: the few words a chart's border has room for.
    :ivar good: ``up`` or ``down`` where one way is better, else empty.
    :ivar why_empty: what a chart says when there are no points.
    """

    name: str
    title: str
    unit: str
    formula: str
    good: Literal["up", "down", ""] = ""
    why_empty: str = "no step has finished yet"


_WARM_UP = "the session has no warm-up"
_REFERENCE = "measured when kl_coefficient > 0, else every reference_every steps"

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("reward/mean", "reward", "", "mean reward of the step's responses, ratings included", "up"),
        Metric("reward/std", "reward std", "", "standard deviation (n - 1) of the rewards over the whole step"),
        Metric("reward/automatic", "reward auto", "", "mean automatic reward, before ratings", "up"),
        Metric("groups/dead_fraction", "dead", "", "share of groups whose rewards have std < 1e-6: they teach nothing", "down"),
        Metric("groups/all_right_fraction", "all right", "", "share of groups that are dead at the top of the reward range"),
        Metric("groups/all_wrong_fraction", "all wrong", "", "share of groups that are dead at the bottom of the reward range"),
        Metric("groups/late", "late groups", "", "groups of earlier steps that joined this update because a person rated them"),
        Metric("advantage/mean", "adv mean", "", "mean advantage over responses; 0 up to rounding for group-relative advantages"),
        Metric("advantage/std", "adv std", "", "standard deviation of the responses' advantages"),
        Metric("advantage/abs_max", "adv max", "", "largest |advantage|; at most (n - 1)/sqrt(n) with group scaling"),
        Metric("kl/k1", "kl k1", "nats/token", "mean of log pi - log ref on sampled tokens: unbiased, may be negative", why_empty=_REFERENCE),
        Metric("kl/k2", "kl k2", "nats/token", "mean of half the squared log-ratio to the reference: biased, never negative", why_empty=_REFERENCE),
        Metric("kl/k3", "kl", "nats/token", "mean of exp(-L) - 1 + L with L = log pi - log ref: unbiased, never negative", "down", _REFERENCE),
        Metric("kl/old_new", "kl update", "nats/token", "mean of (rho - 1) - log rho over the update: how far it moved the policy; 0 with one optimizer step a rollout, where it is read before the step"),
        Metric("entropy", "entropy", "nats/token", "mean entropy of the policy's distribution at each response token"),
        Metric("loss/policy", "policy loss", "", "the surrogate to minimise. About 0 with one optimizer step a rollout, because rho = 1 and advantages sum to 0: its gradient is not 0"),
        Metric("loss/kl", "kl loss", "", "kl_coefficient times the divergence, as far as it is in the loss"),
        Metric("clip/low", "clip low", "", "share of tokens whose ratio is below 1 - clip_low with a negative advantage", "down"),
        Metric("clip/high", "clip high", "", "share of tokens whose ratio is above 1 + clip_high with a positive advantage", "down"),
        Metric("ratio/max", "ratio max", "", "largest importance ratio"),
        Metric("ratio/first_error", "ratio error", "", "largest |rho - 1| before the first optimizer step, where the old log-probabilities come from another pass", "down"),
        Metric("sampler_gap/mean", "gap mean", "nats", "mean |log pi - log sampler| at the first training forward; healthy 1e-5 in fp32, 1e-2 in bf16", "down"),
        Metric("sampler_gap/max", "gap max", "nats", "largest |log pi - log sampler|; large values mean dropout, mask, padding, position or temperature is wrong", "down"),
        Metric("grad/norm", "grad norm", "", "norm of the gradient before clipping; absent when every group is dead"),
        Metric("update/relative_size", "update size", "", "norm of the weights' change over their norm, on a fixed sample of 100,000 parameters"),
        Metric("response/length", "length", "tokens", "mean number of tokens, the end token included"),
        Metric("response/truncated_fraction", "truncated", "", "share of responses cut at max_new_tokens", "down"),
        Metric("response/failed", "failed", "", "responses left out because a reward function failed on them", "down"),
        Metric("reward/length_correlation", "length corr", "", "Spearman correlation of reward and length inside groups, averaged over groups that have one"),
        Metric("invariants/broken", "broken", "", "invariants that the step's rollout broke: an end token closes a response exactly if it ended, cut responses are max_new_tokens long, lengths agree, masks cover exactly the response tokens, parameters are trainable", "down"),
        Metric("eval/accuracy", "held-out", "", "share of held-out prompts answered rightly, greedy; never trained on", "up", "evaluate_every is 0, or none has run"),
        Metric("eval/length", "held-out length", "tokens", "mean length of the greedy held-out responses"),
        Metric("speed/tokens_per_second", "tok/s", "tokens/s", "response tokens over the time of the step, waiting left out", "up"),
        Metric("time/step", "step time", "s", "wall-clock time of the step, pauses and waiting left out"),
        Metric("time/sampling", "sampling", "s", "time spent sampling"),
        Metric("time/scoring", "scoring", "s", "time spent in reward functions"),
        Metric("time/waiting", "waiting", "s", "time spent waiting for ratings at the gate"),
        Metric("time/updating", "updating", "s", "time spent in forward, backward and optimizer"),
        Metric("time/saving", "saving", "s", "time spent on records, evaluation and checkpoints after the update"),
        Metric("memory/peak", "memory peak", "GB", "largest resident (CPU) or allocated (GPU) memory of the engine so far"),
        Metric("loop/lag", "loop lag", "s", "longest delay of the engine's event loop during the step", "down"),
        Metric("learning_rate", "lr", "", "the learning rate of the step's last optimizer step, warm-up applied"),
        Metric("ratings/used", "ratings used", "", "ratings that entered this update"),
        Metric("warmup/loss", "warm-up loss", "nats/token", "mean of -log p over the completion tokens of the optimizer step's examples, end tokens included, before the step", "down", _WARM_UP),
        Metric("warmup/accuracy", "held-out", "", "share of held-out prompts answered rightly, greedy, during the warm-up; never trained on", "up", "evaluate_every is 0, or the session has no warm-up"),
        Metric("warmup/grad_norm", "grad norm", "", "norm of the warm-up's gradient before it is clipped to 1", why_empty=_WARM_UP),
        Metric("warmup/learning_rate", "lr", "", "the learning rate of the warm-up's step, its rise applied", why_empty=_WARM_UP),
        Metric("warmup/tokens_per_second", "tok/s", "tokens/s", "prompt and completion tokens over the time of the warm-up's step, pauses left out", "up", _WARM_UP),
    )
}  # fmt: skip
"""The table. A reward component ``c`` adds ``reward/c``."""
WARM_UP_PREFIX = "warmup/"
"""Begins the names of what is measured over the warm-up's own steps."""


def metric(name: str) -> Metric:
    """The definition of ``name``; a reward component's metric is made on the fly."""
    if name in METRICS:
        return METRICS[name]
    if name.startswith("reward/"):
        component = name.removeprefix("reward/")
        return Metric(name, component, "", f"mean of the reward component {component}, unweighted", "up")
    return Metric(name, name, "", name)
