"""What every benchmark needs: facts of the machine, runs in processes of their own, ratios of pairs, tables, results.

A time means little alone: the machine may be busy, and another machine is another number. So the two things to
compare run in turn, a1 b1 a2 b2 ..., each in a fresh process, and what is reported is the median over the pairs of
b_i / a_i with the smallest and the largest.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

Result = TypeVar("Result")

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
"""What a measured process has in its environment."""


class RunFailed(Exception):
    """A measured process ended badly; the message has the end of what it wrote to stderr."""


# ---------------------------------------------------------------------------------------------------- statistics


@dataclass(frozen=True, slots=True)
class Ratio:
    """A quotient of two sides over pairs of runs: its median, smallest and largest, and the number of pairs."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})" if self.pairs > 1 else f"{self.median:.2f}"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """theirs_i / ours_i over pairs that ran one after the other: with seconds, how many times faster ours is.

    :raises ValueError: if the sides differ in number, are empty or one of ours is not above 0.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} of ours and {len(theirs)} of theirs make no pairs")
    if min(ours) <= 0:
        raise ValueError(f"ours has a {min(ours)}, and nothing can be divided by that")
    each = [b / a for a, b in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(each), min(each), max(each), len(each))


def warm(values: Sequence[Result], dropped: int) -> list[Result]:
    """Without the first ``dropped``, which pay for caches and lazy imports; at least one stays."""
    return list(values[min(dropped, len(values) - 1) :]) if values else []


# ---------------------------------------------------------------------------------------------------- running


def alternate(rounds: int, sides: Mapping[str, Callable[[int], Result]]) -> dict[str, list[Result]]:
    """Every side in turn, round after round: a(0), b(0), a(1), b(1), ...

    :param sides: name -> what runs one round of it, given the number of the round.
    :returns: name -> its results, one a round.
    """
    found: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, run in sides.items():
            found[name].append(run(number))
    return found


def run_json(command: Sequence[str | os.PathLike[str]], environment: Mapping[str, str] | None = None) -> Any:
    """Run one process on one thread, with the repository importable, and read the last line it prints as JSON.

    :raises RunFailed: if it exits with an error or prints no JSON.
    """
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    surroundings = {**os.environ, **ONE_THREAD, "PYTHONPATH": path, **(environment or {})}
    done = subprocess.run(
        [os.fspath(c) for c in command], env=surroundings, capture_output=True, text=True, check=False
    )
    shown = " ".join(os.fspath(c) for c in command)
    if done.returncode:
        raise RunFailed(f"{shown}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    lines = done.stdout.strip().splitlines()
    try:
        return json.loads(lines[-1] if lines else "")
    except ValueError as error:
        raise RunFailed(f"{shown}: its last line is no JSON\n{done.stderr[-2000:]}") from error


# ------------------------------------------------------------------------------------------- facts and results


def facts() -> dict[str, Any]:
    """Of this machine and this checkout: processor, cores, memory, system, versions, commit, date (UTC)."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions("torch", "transformers", "textual"),
    }


def versions(*names: str) -> dict[str, str]:
    """Of installed distributions; those that are not installed are left out."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The checkout's commit, with + if tracked files differ from it; empty outside a checkout."""
    done = subprocess.run(
        ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Plain text: a header, a rule, one line a row; columns of numbers are flush right. A missing cell is empty."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    right = [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns]

    def line(texts: Sequence[str]) -> str:
        parts = (t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True))
        return "  ".join(parts).rstrip()

    return "\n".join([line(columns), "  ".join("-" * w for w in widths), *map(line, cells)])


def markdown(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """The same as a markdown table."""
    lines = [list(columns), ["---"] * len(columns), *([_cell(row.get(c)) for c in columns] for row in rows)]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)


def _cell(value: object) -> str:
    """Three significant digits, never an exponent where a whole number will do."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def write(name: str, payload: Mapping[str, Any], text: str, folder: Path = RESULTS) -> None:
    """Keep a benchmark's figures as ``NAME.json`` and its account of them, markdown, as ``NAME.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", payload)
    (folder / f"{name}.md").write_text(text.rstrip("\n") + "\n")


def write_json(path: Path, payload: Mapping[str, Any]) -> None:
    """Keep figures as a file, to six digits; numbers that JSON does not know as null."""
    parts = [f" {json.dumps(name)}: {json.dumps(_finite(part), allow_nan=False)}" for name, part in payload.items()]
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(v) for name, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value
