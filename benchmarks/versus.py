"""The comparison of this engine with a peer: the same job for every side, in turn, each run a fresh process.

A round is one seed: our sides run, then the peer, then the next round. A step's seconds are everything from the end
of the step before to its own end; the first steps of a run are left out. What is reported are quotients of the runs
of a round, and beside them what was learned: the same held-out questions, answered greedily, judged by one function.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    ROOT,
    Ratio,
    RunFailed,
    alternate,
    facts,
    markdown,
    ratio,
    run_json,
    table,
    warm,
    write,
    write_json,
)
from benchmarks.peers.clock import COLLECTING
from benchmarks.peers.job import Job, Outcome, Question, Step
from benchmarks.questions import task_of
from sessions.errors import WorkbenchError
from sessions.shortcuts import active

PEER = "TRL"
OURS = ROOT / "benchmarks" / "ours.py"

AGREE = ("reward/mean", "response/length", "response/truncated_fraction", "entropy", "grad/norm", "loss")
"""What two sides with the same policy and prompts should report alike, sampling noise aside."""


class Unequal(Exception):
    """The two sides did not do the same, so their times say nothing."""


@dataclass(frozen=True)
class Side:
    """One of ours: its name in the tables, and options of the job that only it has."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One setting in which the sides are compared.

    :ivar job: without prompts and seed.
    :ivar dropped: first steps of a run that no figure counts.
    :ivar sides: ours; the peer has one.
    :ivar held_out: questions to answer before and after; None: as many as asked for.
    """

    name: str
    job: Job
    dropped: int
    sides: tuple[Side, ...] = (Side("ours"),)
    held_out: int | None = None


@dataclass
class Comparison:
    """A case, run.

    :ivar runs: side -> its outcome in each round.
    :ivar before: side -> share of held-out questions right before the first step, once.
    :ivar after: side -> the same after the last, in each round.
    """

    case: Case
    seeds: list[int]
    runs: dict[str, list[Outcome]]
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ours(self) -> list[str]:
        return [name for name in self.runs if name != PEER]

    def steps(self, side: str) -> list[list[Step]]:
        """The steps that count, of each round."""
        return [warm(outcome.steps, self.case.dropped) for outcome in self.runs[side]]

    def faster(self, side: str, clock: str) -> Ratio:
        """How many times faster a median step is than the peer's, ``clock`` being ``cpu`` or ``wall``."""
        ours, theirs = (
            [statistics.median(getattr(step, clock) for step in steps) for steps in self.steps(name)]
            for name in (side, PEER)
        )
        return ratio(ours, theirs)

    def collects(self) -> bool:
        """Whether the peer's trainer asks for garbage collections."""
        return any(COLLECTING in step.phases for steps in self.steps(PEER) for step in steps)

    def faster_but_collecting(self, side: str) -> Ratio:
        """How many times faster in processor seconds, the collections that the peer's trainer asks for left out."""
        ours, theirs = (
            [statistics.median(s.cpu - s.phases.get(COLLECTING, (0.0, 0.0))[1] for s in steps) for steps in runs]
            for runs in (self.steps(side), self.steps(PEER))
        )
        return ratio(ours, theirs)

    def faster_by_token(self, side: str) -> Ratio:
        """The same in processor seconds of all steps over their response tokens."""
        ours, theirs = (
            [sum(s.cpu for s in steps) / sum(s.tokens for s in steps) for steps in self.steps(name)]
            for name in (side, PEER)
        )
        return ratio(ours, theirs)

    def memory(self, side: str) -> Ratio:
        """Peak memory as a share of the peer's."""
        return ratio([r.memory for r in self.runs[PEER]], [r.memory for r in self.runs[side]])


# ------------------------------------------------------------------------------------------------------- running


def with_prompts(job: Job, seed: int, held_out: int) -> Job:
    """The job with what is asked: the prompts of all steps in our task's order for the seed."""
    task = task_of(job.task)
    count = job.steps * job.prompts_per_step
    prompts = task.take(seed, 0, count) if count else []
    asked, held = (
        [Question(prompt.text, prompt.answer) for prompt in some] for some in (prompts, task.evaluation[:held_out])
    )
    return replace(job, prompts=asked, held_out=held, seed=seed)


def run(job: Job, python: str | Path, script: Path) -> Outcome:
    """One run in a fresh process of that interpreter.

    :raises RunFailed: with the end of its stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "job.json")
        path.write_text(job.dump())
        outcome = Outcome.read(run_json([python, script, path]))
    said = f"{statistics.median(s.cpu for s in outcome.steps):.3f} cpu s a step" if outcome.steps else "evaluated"
    print(f"  {script.stem:10} {job.options or ''} seed {job.seed}: {said}", file=sys.stderr, flush=True)
    return outcome


def accuracy(job: Job, outcome: Outcome) -> float:
    """Share of the held-out questions answered right, by our task's judge."""
    task = task_of(job.task)
    held = task.evaluation[: len(job.held_out)]
    right = sum(task.judge(prompt, text) for prompt, text in zip(held, outcome.answers, strict=True))
    return right / max(len(held), 1)


def compare(case: Case, seeds: Sequence[int], python: Path, script: Path, held_out: int) -> Comparison:
    """Run a case: our sides and the peer in turn, a round for each seed.

    :raises Unequal: if the sides did not ask the same prompts, or do not answer alike before the first step.
    """
    print(case.name, file=sys.stderr, flush=True)
    held_out = held_out if case.held_out is None else case.held_out

    def ours(side: Side, job: Job) -> Outcome:
        return run(replace(job, options={**job.options, **side.options}), sys.executable, OURS)

    jobs = [with_prompts(case.job, seed, held_out) for seed in seeds]

    def round_of(side: Side) -> Callable[[int], Outcome]:
        return lambda number: ours(side, jobs[number])

    sides = {side.name: round_of(side) for side in case.sides}
    sides[PEER] = lambda number: run(jobs[number], python, script)
    untrained = with_prompts(replace(case.job, steps=0), seeds[0], held_out)
    before = {}
    if held_out:
        answered = {"ours": ours(case.sides[0], untrained), PEER: run(untrained, python, script)}
        before = {name: accuracy(untrained, outcome) for name, outcome in answered.items()}
        differing = sum(a != b for a, b in zip(*(o.answers for o in answered.values()), strict=True))
        if differing > 0.01 * held_out:
            raise Unequal(f"{case.name}: {differing} of {held_out} greedy answers differ before the first step")
    found = Comparison(case, list(seeds), alternate(len(seeds), sides), before)
    for name, outcomes in found.runs.items():
        for job, outcome, peer in zip(jobs, outcomes, found.runs[PEER], strict=True):
            if outcome.asked != peer.asked:
                raise Unequal(f"{case.name}, seed {job.seed}: {name} and {PEER} did not ask the same prompts")
        if held_out:
            found.after[name] = [accuracy(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
    return found


# ------------------------------------------------------------------------------------------------------ reporting


@dataclass(frozen=True)
class Agreement:
    """Means over steps of something both sides report, and how far apart they are.

    :ivar z: the mean of the steps' differences in its standard errors; NaN where there are too few to say.
    """

    ours: float
    theirs: float
    z: float
    steps: int


def agreement(ours: Sequence[float], theirs: Sequence[float]) -> Agreement:
    """Compare step by step: both sides ask the same prompts in the same step."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    spread = statistics.stdev(differences) if len(differences) > 1 else math.nan
    error = spread / math.sqrt(len(differences)) if differences else math.nan
    mean = statistics.fmean(differences) if differences else math.nan
    z = mean / error if error > 0 else (0.0 if mean == 0 and error == 0 else math.nan)
    return Agreement(statistics.fmean(ours or [math.nan]), statistics.fmean(theirs or [math.nan]), z, len(differences))


def agreements(found: Comparison, side: str, first_only: bool) -> dict[str, Agreement]:
    """Of every metric both report: of the first steps alone, where both still have the same policy, or of all."""
    result = {}
    for name in AGREE:
        pairs = [
            (a.metrics[name], b.metrics[name])
            for mine, theirs in zip(found.runs[side], found.runs[PEER], strict=True)
            for a, b in list(zip(mine.steps, theirs.steps, strict=True))[: 1 if first_only else None]
            if name in a.metrics and name in b.metrics
        ]
        if pairs:
            result[name] = agreement([a for a, _ in pairs], [b for _, b in pairs])
    return result


def speed_rows(found: Comparison) -> list[dict[str, object]]:
    """One row for each of our sides: how much faster, how much memory, and what was learned."""
    rows: list[dict[str, object]] = []
    for side in found.ours:
        seconds = [statistics.median(s.cpu for steps in found.steps(name) for s in steps) for name in (side, PEER)]
        accuracies = (" ".join(f"{a:.3f}" for a in found.after.get(name, [])) for name in (side, PEER))
        rows.append(
            {
                "case": found.case.name,
                "side": side,
                "pairs": len(found.seeds),
                "steps": found.case.job.steps,
                "cpu s a step, ours | TRL": " | ".join(f"{s:.3f}" for s in seconds),
                "times faster, cpu": str(found.faster(side, "cpu")),
                "same, its gc left out": str(found.faster_but_collecting(side)) if found.collects() else "",
                "wall": str(found.faster(side, "wall")),
                "by token, cpu": str(found.faster_by_token(side)),
                "memory / TRL's": str(found.memory(side)),
                "held-out before": " | ".join(f"{a:.3f}" for a in found.before.values()),
                "after, ours": next(accuracies),
                "after, TRL": next(accuracies),
            }
        )
    return rows


def phase_rows(found: Comparison) -> list[dict[str, object]]:
    """One row a side and phase: its share of the processor seconds of the steps that count."""
    rows: list[dict[str, object]] = []
    for side in found.runs:
        steps = [step for steps in found.steps(side) for step in steps]
        whole = sum(step.cpu for step in steps)
        shares: dict[str, float] = {}
        for step in steps:
            for phase, (_, cpu) in step.phases.items():
                shares[phase] = shares.get(phase, 0.0) + cpu / whole
        shown = ", ".join(f"{name} {share:.0%}" for name, share in sorted(shares.items(), key=lambda s: -s[1]))
        tokens = statistics.fmean(step.tokens for step in steps)
        before, peak = (statistics.median(getattr(r, m) for r in found.runs[side]) for m in ("memory_before", "memory"))
        rows.append(
            {
                "case": found.case.name,
                "side": side,
                "tokens a step": round(tokens, 1),
                "phases, share of cpu": shown,
                "MB before": round(before),
                "MB at most": round(peak),
            }
        )
    return rows


def agreement_rows(found: Comparison, first_only: bool) -> list[dict[str, object]]:
    """One row for each of our sides and each metric."""
    return [
        {
            "case": found.case.name,
            "side": side,
            "metric": name,
            "ours": agreed.ours,
            "TRL": agreed.theirs,
            "z": "" if math.isnan(agreed.z) else f"{agreed.z:+.1f}",
            "steps": agreed.steps,
        }
        for side in found.ours
        for name, agreed in agreements(found, side, first_only).items()
    ]


SPEED = (
    "case",
    "side",
    "pairs",
    "steps",
    "cpu s a step, ours | TRL",
    "times faster, cpu",
    "same, its gc left out",
    "wall",
    "by token, cpu",
    "memory / TRL's",
    "held-out before",
    "after, ours",
    "after, TRL",
)
PHASES = ("case", "side", "tokens a step", "phases, share of cpu", "MB before", "MB at most")
AGREEMENT = ("case", "side", "metric", "ours", "TRL", "z", "steps")


def report(
    name: str,
    notes: str,
    comparisons: Sequence[Comparison],
    checks: Sequence[Comparison],
    target: Path | None,
    *,
    over: bool = True,
) -> None:
    """Print the tables, and keep them with every run.

    :param notes: what differs between the sides, in markdown.
    :param checks: cases run with learning rate 0, in which every step compares the same policy.
    :param target: a file for the JSON alone; None: ``benchmarks/results/NAME.json`` and ``.md``.
    :param over: whether all cases have been run; the tables are only kept, not printed, while others are to come.
    """
    parts: list[tuple[str, list[dict[str, object]], Sequence[str]]] = [
        ("Speed", [row for c in comparisons for row in speed_rows(c)], SPEED),
        ("Where the time goes", [row for c in comparisons for row in phase_rows(c)], PHASES),
        ("First step, same policy and prompts", [r for c in comparisons for r in agreement_rows(c, True)], AGREEMENT),
        ("Learning rate 0, same policy and prompts", [r for c in checks for r in agreement_rows(c, False)], AGREEMENT),
    ]
    known = facts()
    peers = {n: v for c in [*comparisons, *checks] for n, v in c.runs[PEER][0].versions.items()}
    payload = {
        "facts": known,
        "peer": peers,
        "tables": {title: rows for title, rows, _ in parts},
        "comparisons": [asdict(c) for c in comparisons],
        "checks": [asdict(c) for c in checks],
    }
    text = [f"# {name}", "", notes, "", f"{known['processor']}, {known['cores']} cores, one thread a side; "]
    text[-1] += f"commit {known['commit']}, {known['date']}; {PEER} {peers.get('trl')}, torch {peers.get('torch')}."
    for title, rows, columns in parts:
        columns = [column for column in columns if any(row.get(column) != "" for row in rows)]
        if rows:
            if over:
                print(f"\n{title}\n{table(rows, columns)}")
            text += ["", f"## {title}", "", markdown(rows, columns)]
    for comparison in payload["comparisons"] + payload["checks"]:  # type: ignore[operator]
        _shorten(comparison)
    if target:
        write_json(target, payload)
    else:
        write(name, payload, "\n".join(text))


def _shorten(comparison: dict[str, Any]) -> None:
    """Leave out the prompts and the texts of the answers, which the settings and the seed give again, and where the
    model lies."""
    comparison["case"]["job"]["model"] = Path(comparison["case"]["job"]["model"]).name
    for question in ("prompts", "held_out"):
        comparison["case"]["job"].pop(question)
    for outcomes in comparison["runs"].values():
        for outcome in outcomes:
            outcome.pop("asked")
            outcome.pop("answers")


# ------------------------------------------------------------------------------------------------- command line


def arguments(what: str | None, cases: Sequence[str], environment: str) -> argparse.ArgumentParser:
    """What both comparisons can be told."""
    parser = argparse.ArgumentParser(description=(what or "").split("\n")[0])
    parser.add_argument("--short", action="store_true", help="a smoke run of minutes; its figures are no claim")
    parser.add_argument("--cases", nargs="+", choices=list(cases), metavar="CASE", help=f"of: {', '.join(cases)}")
    parser.add_argument("--seeds", type=int, nargs="+", help="one round each")
    parser.add_argument("--steps", type=int, help="of every run")
    parser.add_argument("--held-out", type=int, default=1000, help="questions to answer before and after; 0: none")
    parser.add_argument(
        "--ours-plain", nargs="+", default=[], metavar="NAME", help="also run ours without these shortcuts"
    )
    parser.add_argument("--no-check", action="store_true", help="leave out the runs with learning rate 0")
    parser.add_argument("--peer-python", type=Path, default=ROOT / environment / "bin" / "python")
    parser.add_argument("--json", type=Path, help="write the figures there, and no table")
    return parser


def guarded(main: Callable[[], None]) -> None:
    """Run a comparison; what goes wrong is one message."""
    try:
        main()
    except (RunFailed, Unequal, WorkbenchError) as error:
        raise SystemExit(str(error)) from None


def check_peer(python: Path) -> None:
    """End with what to do, if the peer's environment is not there."""
    if not python.is_file():
        raise SystemExit(f"{python}: no such interpreter; `make bench-peers` makes the peers' environments")


def plain_sides(case: Case, names: Sequence[str]) -> Case:
    """The case with each of our sides once more, without those shortcuts.

    :raises UnknownName: if there is no such shortcut.
    """
    active(names)
    more = [Side(f"{s.name}, plain {' '.join(names)}", {**s.options, "plain": list(names)}) for s in case.sides]
    return replace(case, sides=(*case.sides, *more)) if names else case
