"""A comparison of branches as text: tables, curves, and the answers to the probe prompts."""

from __future__ import annotations

from collections.abc import Sequence

from screens.branch_words import value_text
from screens.charts import draw
from screens.overlay import LETTERS, legend, overlay
from screens.probe_lines import probe_lines, score_words
from screens.terminal import Marks
from sessions.branches import Branch
from sessions.comparison import Comparison, Standing
from workbench.output import table

CHART_HEIGHT = 14


def comparison_text(
    comparison: Comparison,
    branches: dict[str, Branch],
    width: int,
    *,
    charts: Sequence[str] = (),
    marks: Marks = "ascii",
) -> str:
    """Everything that a comparison has to say.

    :param branches: every branch of the session, by name.
    :param charts: metrics that are drawn.
    :param width: cells of a line of the charts and the answers.
    """
    blocks = [_parting(comparison), _branches(comparison), _values(comparison)]
    blocks += [_standings(comparison, metric) for metric in comparison.series]
    blocks += [_chart(comparison, metric, branches, width, marks) for metric in charts]
    blocks.append(_probes(comparison, width))
    return "\n\n".join(block for block in blocks if block)


def names_of(comparison: Comparison) -> list[str]:
    """The branches, in their order."""
    return [info.branch.name for info in comparison.branches]


def _parting(comparison: Comparison) -> str:
    names = names_of(comparison)
    said = " and ".join([", ".join(names[:-1]), names[-1]])
    where = f"part after step {comparison.parted}" if comparison.parted >= 0 else "share no step"
    if comparison.common <= comparison.parted:
        return f"{comparison.session}: {said} {where}; there is no step yet that all of them have since then"
    return f"{comparison.session}: {said} {where}; all of them have reached step {comparison.common}"


def _branches(comparison: Comparison) -> str:
    rows = [["branch", "from", "own steps", "tip", "checkpoints", "what"]]
    for info in comparison.branches:
        branch = info.branch
        begun = f"{branch.parent} @{branch.step}" if branch.parent else "-"
        what = ["active"] if info.active else []
        what += ["abandoned"] if branch.abandoned else []
        what += [f"seed {branch.seed}"] if branch.seed is not None else []
        what += [branch.why] if branch.why else []
        rows.append([branch.name, begun, str(info.steps), str(info.tip), str(len(info.checkpoints)), ", ".join(what)])
    return table(rows, frozenset({2, 3, 4}))


def _values(comparison: Comparison) -> str:
    if not comparison.values:
        return "the same hyperparameters at their tips"
    rows = [["hyperparameter", *names_of(comparison)]]
    rows += [[name, *(value_text(name, value) for value in row)] for name, row in comparison.values.items()]
    return table(rows, frozenset(range(1, len(rows[0]))))


def _standings(comparison: Comparison, metric: str) -> str:
    parted, common = comparison.parted, comparison.common
    among = f"mean {parted + 1}..{common}" if common > parted else "mean"
    rows = [[metric, f"at {max(parted, 0)}", among, f"at {common}", "tip", "best since"]]
    for found in comparison.standings:
        if found.metric == metric:
            rows.append(_standing(found, parted, common))
    return table(rows, frozenset(range(1, 6)))


def _standing(found: Standing, parted: int, common: int) -> list[str]:
    return [
        found.branch,
        _point(found.parted, parted),
        _number(found.mean),
        _point(found.common, common),
        _point(found.tip),
        _point(found.best),
    ]


def _point(point: tuple[int, float] | None, expected: int = -1) -> str:
    """A value, and its step where the heading does not say it."""
    if point is None:
        return "-"
    return _number(point[1]) + ("" if point[0] == expected else f" @{point[0]}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _chart(comparison: Comparison, metric: str, branches: dict[str, Branch], width: int, marks: Marks) -> str:
    names = names_of(comparison)[: len(LETTERS)]
    lines = {
        name: (series.steps, series.values)
        for name, series in zip(names, comparison.series[metric], strict=False)
        if any(value is not None for value in series.values)
    }
    if not lines:
        return ""
    letters = dict(zip(names, LETTERS, strict=False))
    rows = draw(overlay(branches, lines, letters), width, CHART_HEIGHT, marks)
    words = "".join(text for text, _ in legend(lines, letters, max(10, width - len(metric) - 3)))
    return "\n".join([f"{metric}   {words}", *("".join(text for text, _ in row).rstrip() for row in rows)])


def _probes(comparison: Comparison, width: int) -> str:
    if not comparison.probes:
        return "none of them has been asked the probe prompts; evaluate_every has them asked"
    names = names_of(comparison)
    lines, _ = probe_lines(comparison.probes, names, width)
    text = ["".join(piece for piece, _ in line).rstrip() for line in lines]
    return "\n".join([f"probe prompts: {score_words(comparison.probes, names)}", "", *text]).rstrip()
