"""The charts of the dashboard: what each draws, and the numbers in its title."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """A number in a chart's title.

    :ivar metrics: whose newest values are added.
    :ivar long: the label where there is room for more.
    :ivar share: written in percent.
    :ivar unless: left out while the chart of that name is shown beside.
    """

    label: str
    metrics: tuple[str, ...]
    share: bool = False
    unless: str = ""
    long: str = ""


@dataclass(frozen=True, slots=True)
class ChartKind:
    """What one chart of the dashboard is about.

    :ivar metrics: drawn as curves.
    :ivar readings: numbers in the title.
    :ivar best: whether the title names the best value.
    :ivar smooth: whether it is drawn smoothed at first.
    :ivar distribution: whether the left two thirds are the histogram of the last step's advantages.
    """

    name: str
    metrics: tuple[str, ...]
    readings: tuple[Reading, ...]
    best: bool = False
    distribution: bool = False
    smooth: bool = True


CHARTS = (
    ChartKind(
        "reward",
        ("reward/mean", "eval/reward"),
        (Reading("reward", ("reward/mean",)), Reading("held-out", ("eval/accuracy",), share=True)),
        best=True,
    ),
    ChartKind("kl", ("kl/k3",), (Reading("kl/k3", ("kl/k3",)),)),
    ChartKind(
        "advantage",
        ("advantage/std",),
        (
            Reading("adv std", ("advantage/std",), long="advantage  std"),
            Reading("dead", ("groups/dead_fraction",), share=True),
            Reading("|max|", ("advantage/abs_max",)),
        ),
        distribution=True,
    ),
    ChartKind(
        "entropy",
        ("entropy",),
        (Reading("entropy", ("entropy",)), Reading("clip frac", ("clip/low", "clip/high"))),
    ),
    ChartKind(
        "loss", ("loss/policy",), (Reading("policy loss", ("loss/policy",)), Reading("grad norm", ("grad/norm",)))
    ),
    ChartKind(
        "length",
        ("response/length",),
        (
            Reading("len", ("response/length",), long="length"),
            Reading("trunc", ("response/truncated_fraction",), share=True, long="truncated"),
            Reading("ent", ("entropy",), unless="entropy"),
        ),
    ),
    ChartKind(
        "explained",
        ("value/explained_variance",),
        (
            Reading("expl var", ("value/explained_variance",), long="explained variance"),
            Reading("value", ("value/mean",), long="mean value"),
        ),
    ),
    ChartKind(
        "value_loss",
        ("value/loss",),
        (Reading("value loss", ("value/loss",)), Reading("clip", ("value/clip_fraction",), share=True)),
    ),
    ChartKind(
        "trust",
        ("trpo/kl_realised",),
        (Reading("KL(old,new)", ("trpo/kl_realised",)), Reading("ratio max", ("ratio/max",))),
    ),
    ChartKind(
        "step",
        ("trpo/step_fraction",),
        (
            Reading("step", ("trpo/step_fraction",), long="step fraction"),
            Reading("gain ratio", ("trpo/gain_ratio",)),
        ),
    ),
    ChartKind(
        "cg",
        ("trpo/cg_residual",),
        (Reading("cg residual", ("trpo/cg_residual",)), Reading("iter", ("trpo/cg_iterations",))),
    ),
)
WARM_UP_CHARTS = (
    ChartKind("warm-up-loss", ("warmup/loss",), (Reading("warm-up loss", ("warmup/loss",)),)),
    ChartKind(
        "warm-up-accuracy", ("warmup/accuracy",), (Reading("held-out", ("warmup/accuracy",)),), best=True, smooth=False
    ),
    ChartKind("warm-up-gradient", ("warmup/grad_norm",), (Reading("grad norm", ("warmup/grad_norm",)),)),
    ChartKind("warm-up-speed", ("warmup/tokens_per_second",), (Reading("tok/s", ("warmup/tokens_per_second",)),)),
)
"""In the place of the others until RL has begun, over the warm-up's own steps."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the dashboard shows while an algorithm runs.

    :ivar grid: names of charts, two a row.
    :ivar importance: the same, those first that are shown where there is no room for all.
    :ivar panels: names of panes, one a row.
    """

    grid: tuple[str, ...]
    importance: tuple[str, ...]
    panels: tuple[str, ...]


_LAYOUTS = {
    "grpo": Layout(
        ("reward", "kl", "advantage", "entropy", "loss", "length"),
        ("reward", "kl", "advantage", "length", "entropy", "loss"),
        ("parameters", "groups", "machine"),
    ),
    "ppo": Layout(
        ("reward", "kl", "explained", "advantage", "value_loss", "entropy", "loss", "length"),
        ("reward", "kl", "explained", "advantage", "length", "entropy", "value_loss", "loss"),
        ("parameters", "groups", "value", "machine"),
    ),
    "trpo": Layout(
        ("reward", "kl", "trust", "advantage", "step", "entropy", "cg", "length"),
        ("reward", "kl", "trust", "advantage", "step", "length", "cg", "entropy"),
        ("parameters", "groups", "search", "machine"),
    ),
}
ALGORITHMS = tuple(_LAYOUTS)


def layout(algorithm: str) -> Layout:
    """Of an algorithm; of GRPO while none is known."""
    return _LAYOUTS.get(algorithm, _LAYOUTS["grpo"])


WARM_UP = Layout(
    tuple(kind.name for kind in WARM_UP_CHARTS), tuple(kind.name for kind in WARM_UP_CHARTS), ("parameters", "machine")
)
