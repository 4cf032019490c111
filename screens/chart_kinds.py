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
    :ivar distribution: whether the left two thirds are the histogram of the last step's advantages.
    """

    name: str
    metrics: tuple[str, ...]
    readings: tuple[Reading, ...]
    best: bool = False
    distribution: bool = False


CHARTS = (
    ChartKind("reward", ("reward/mean",), (Reading("reward", ("reward/mean",)),), best=True),
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
)
"""In the order of the grid: two a row."""
IMPORTANCE = ("reward", "kl", "advantage", "length", "entropy", "loss")
"""Which charts are shown first where there is no room for all."""
PANELS = ("parameters", "groups", "machine")
