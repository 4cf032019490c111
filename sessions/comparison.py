"""Branches side by side: where they part, what differs, and how they stand since then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sessions.branches import END, Branch, BranchInfo, Probe, find_branch, line_of
from sessions.errors import InvalidValue
from sessions.hyperparameters import Value
from sessions.metrics import METRICS
from sessions.records import Record, SeriesData
from sessions.store import Store

COMPARED = ("reward/mean", "eval/accuracy", "kl/k3", "entropy", "response/length")
"""The metrics that a comparison has if nobody names any; those that were never measured are left out."""
Points = Mapping[int, float]
"""Step -> value, where there is one."""


class Standing(Record):
    """A metric of one branch; each of them is (step, value), None where it was not measured.

    :ivar parted: the newest at or before the step where the branches part.
    :ivar mean: over the steps after that one that all of the branches have.
    :ivar common: the newest of these steps.
    :ivar tip: its newest.
    :ivar best: its best since they parted: the least where lower is better, else the greatest; the last of equals.
    """

    metric: str
    branch: str
    parted: tuple[int, float] | None = None
    mean: float | None = None
    common: tuple[int, float] | None = None
    tip: tuple[int, float] | None = None
    best: tuple[int, float] | None = None


class ProbePair(Record):
    """What branches answered to one probe prompt, in their order; None: never asked."""

    place: int
    prompt: str
    answer: str
    answers: list[Probe | None]

    @property
    def agree(self) -> bool:
        """Whether all of them are right, or all wrong."""
        return len({found.right for found in self.answers if found is not None}) <= 1


class Comparison(Record):
    """Branches of a session side by side.

    :ivar parted: the last step that all of them share.
    :ivar common: the last step that all of them have reached.
    :ivar values: hyperparameters that differ at their tips: name -> one value a branch.
    :ivar series: metric -> one series a branch, over its whole line.
    """

    session: str
    branches: list[BranchInfo]
    parted: int
    common: int
    values: dict[str, list[Value | None]]
    standings: list[Standing]
    series: dict[str, list[SeriesData]]
    probes: list[ProbePair]


def shared_step(branches: Mapping[str, Branch], a: str, b: str) -> int:
    """The last step that the lines of two branches share; every one if they are the same, -1 if none."""
    shared = -1
    for one, other in zip(line_of(branches, a), line_of(branches, b), strict=False):
        if one.branch != other.branch:
            break
        shared = min(one.last, other.last)
    return shared


def parting(branches: Mapping[str, Branch], names: Sequence[str]) -> int:
    """The last step that the lines of all of them share."""
    return min((shared_step(branches, names[0], name) for name in names[1:]), default=END)


def standing(metric: str, branch: str, points: Points, parted: int, common: int) -> Standing:
    """How a branch stands in a metric.

    :param parted: the last step that it shares with the branches beside it.
    :param common: the last step that all of them have reached.
    """
    since = {step: value for step, value in points.items() if step > parted}
    beside = {step: value for step, value in since.items() if step <= common}
    sign = -1 if metric in METRICS and METRICS[metric].good == "down" else 1
    best = max(since, key=lambda step: (sign * since[step], step), default=None)
    return Standing(
        metric=metric,
        branch=branch,
        parted=_newest({step: value for step, value in points.items() if step <= parted}),
        mean=sum(beside.values()) / len(beside) if beside else None,
        common=_newest(beside),
        tip=_newest(points),
        best=(best, since[best]) if best is not None else None,
    )


def _newest(points: Points) -> tuple[int, float] | None:
    return (max(points), points[max(points)]) if points else None


def differing(values: Sequence[Mapping[str, Value]]) -> dict[str, list[Value | None]]:
    """Hyperparameters that are not the same in all of them: name -> one value each; None where it has none."""
    names = sorted({name for one in values for name in one})
    found = {name: [one.get(name) for one in values] for name in names}
    return {name: row for name, row in found.items() if any(value != row[0] for value in row)}


def paired(probes: Sequence[Iterable[Probe]]) -> list[ProbePair]:
    """The answers of several branches to the same probe prompts, in the order of these."""
    columns = [{(probe.place, probe.prompt): probe for probe in column} for column in probes]
    keys = sorted({key for column in columns for key in column})
    pairs = []
    for key in keys:
        answers = [column.get(key) for column in columns]
        asked = next(found for found in answers if found is not None)
        pairs.append(ProbePair(place=key[0], prompt=key[1], answer=asked.answer, answers=answers))
    return pairs


def compare(store: Store, session: str, names: Sequence[str], metrics: Sequence[str] = ()) -> Comparison:
    """Compare branches by what is recorded. Blocking.

    :param metrics: names; none: those of :data:`COMPARED` that were measured.
    :raises UnknownName: if there is no such branch.
    :raises InvalidValue: if there are not two of them, or a metric was never measured.
    """
    names = list(dict.fromkeys(names))
    if len(names) < 2:
        raise InvalidValue("a comparison needs two branches; `workbench send S branches` lists them")
    branches = store.branches()
    for name in names:
        find_branch(name, branches)
    by_name = {info.branch.name: info for info in store.branch_infos()}
    infos = [by_name[name] for name in names if name in by_name]
    lines = [store.series(name) for name in names]
    measured = {name for line in lines for name, series in line.items() if any(v is not None for v in series.values)}
    for name in metrics:
        if name not in measured:
            raise InvalidValue(f"no branch has measured {name!r}; there are: {', '.join(sorted(measured)) or 'none'}")
    chosen = list(dict.fromkeys(metrics)) or [name for name in COMPARED if name in measured]
    parted, common = parting(branches, names), min(info.tip for info in infos)
    series = {
        metric: [
            line[metric].data() if metric in line else SeriesData(name=metric, steps=[], values=[]) for line in lines
        ]
        for metric in chosen
    }
    standings = []
    for metric in chosen:
        for name, line in zip(names, lines, strict=True):
            whole = line.get(metric)
            points = {} if whole is None else _points(whole.steps, whole.values)
            standings.append(standing(metric, name, points, parted, common))
    return Comparison(
        session=session,
        branches=infos,
        parted=parted,
        common=common,
        values=differing([info.values for info in infos]),
        standings=standings,
        series=series,
        probes=paired([store.probes(name) for name in names]),
    )


def _points(steps: Sequence[int], values: Sequence[float | None]) -> Points:
    return {step: value for step, value in zip(steps, values, strict=True) if value is not None}
