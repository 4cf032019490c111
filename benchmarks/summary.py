"""One table of all promises: floor, goal, what was measured, and the command that measures it again.

    python -m benchmarks.summary [FOLDER]

Reads the JSON that the benchmarks have left in ``benchmarks/results`` and writes ``README.md`` beside it. A benchmark
that has run in full counts before its short form, which is marked.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import promises
from benchmarks.measure import RESULTS, markdown
from benchmarks.promises import Promise

OWN = ("engine_overhead", "screen", "replay")
"""Benchmarks that write their promises themselves."""
SHORT = "-short"
NOTE = """# What the workbench promises, and what was measured

Written by `make bench` (`python -m benchmarks.summary`). A row counts a benchmark that ran in full; where only its
short form has run, the command says `--short`, and its figure is a smoke test more than a claim. `goal` means that
the goal is reached, `floor` that the floor holds, `missed` that it does not. Each benchmark's own page stands beside
this one, and its JSON has every run."""


def newest(folder: Path, name: str) -> tuple[dict[str, Any], str] | None:
    """A benchmark's figures and how it was asked for them: in full if that has run, else its short form."""
    for form, words in ((name, ""), (name + SHORT, " --short")):
        path = folder / f"{form}.json"
        if path.is_file():
            return json.loads(path.read_text()), f"python -m benchmarks.{name}{words}"
    return None


def row(found: Mapping[str, Any], command: str) -> dict[str, object]:
    """A promise, measured, as a row of the table."""
    spread = f" ({found['spread']})" if found["spread"] else ""
    bar = "at least" if found["better"] == "more" else "at most"
    return {
        "promise": found["what"],
        "floor": f"{bar} {found['floor']:g} {found['unit']}",
        "goal": f"{found['goal']:g} {found['unit']}",
        "measured": f"{found['measured']:.3g} {found['unit']}{spread}",
        "": found["verdict"],
        "command": f"`{command}`",
    }


def versus_rows(speed: Sequence[Mapping[str, Any]], command: str) -> Iterator[dict[str, object]]:
    """The promises among the rows of a comparison with TRL: the worst of the cases that a promise is about.

    :param speed: rows with ``case``, and quotients such as ``2.31 (2.20 to 2.42)``.
    """
    plain = [r for r in speed if r.get("side", "ours") == "ours"]
    about: list[tuple[Promise, str, list[Mapping[str, Any]]]] = [
        (promises.GRPO, "times faster, cpu", [r for r in plain if r["case"] == "tiny, kl 0, 1 epoch"]),
        (
            promises.GRPO_REFERENCE,
            "times faster, cpu",
            [r for r in plain if r["case"].startswith("tiny") and r["case"] != "tiny, kl 0, 1 epoch"],
        ),
        (promises.SMOLLM2, "by token, cpu", [r for r in plain if r["case"].startswith("smollm2")]),
        (promises.SMOLLM2_MEMORY, "memory / TRL's", [r for r in plain if r["case"].startswith("smollm2")]),
    ]
    for promise, column, rows in about:
        if rows:
            worst = (min if promise.better == "more" else max)(rows, key=lambda r: leading(r[column]))
            value, spread = leading(worst[column]), str(worst[column]).partition("(")[2].rstrip(")")
            yield row(promise.measured(value, f"{worst['case']}: {spread}" if spread else worst["case"]), command)


def speed_of(folder: Path, name: str) -> tuple[list[dict[str, Any]], str]:
    """The rows of a comparison with TRL, of all cases that have been run, together or one alone; and its command."""
    found = newest(folder, name)
    rows = list(found[0]["tables"]["Speed"]) if found else []
    for path in sorted(folder.glob(f"{name}-*.json")):
        if path.stem != name + SHORT:
            alone = json.loads(path.read_text())["tables"]["Speed"]
            rows += [row for row in alone if row["case"] not in {other["case"] for other in rows}]
    return rows, found[1] if found else f"python -m benchmarks.{name}"


def leading(text: str) -> float:
    """The number that a cell begins with.

    :raises ValueError: if it begins with none.
    """
    match = re.match(r"[-+]?[0-9]*\.?[0-9]+", str(text))
    if match is None:
        raise ValueError(f"no number at the start of {text!r}")
    return float(match[0])


def tables(folder: Path) -> str:
    """All of the page."""
    rows: list[dict[str, object]] = []
    rows += versus_rows(*speed_of(folder, "grpo_vs_trl"))
    for name in OWN:
        found = newest(folder, name)
        if found:
            rows += [row(promise, found[1]) for promise in found[0]["promises"]]
    parts = [NOTE, "", markdown(rows, list(rows[0])) if rows else "Nothing has been measured yet."]
    overhead = newest(folder, "engine_overhead")
    if overhead:
        parts += ["", "## Training with screens attached", "", _slow_down(overhead[0]["rows"])]
    for algorithm in ("grpo", "ppo"):
        speed, command = speed_of(folder, f"{algorithm}_vs_trl")
        if speed:
            columns = ["case", "side", "times faster, cpu", "by token, cpu", "memory / TRL's"]
            parts += ["", f"## {algorithm.upper()} beside TRL's (`{command}`)", "", markdown(speed, columns)]
    scaling = newest(folder, "scaling")
    if scaling:
        exponents = scaling[0]["exponents"]
        parts += ["", f"## How a step grows (`{scaling[1]}`)", "", markdown(exponents, list(exponents[0]))]
    dates = [json.loads(path.read_text()).get("facts", {}) for path in sorted(folder.glob("*.json"))]
    machines = sorted({f"{f['processor']}, {f['cores']} cores, commit {f['commit']}, {f['date']}" for f in dates if f})
    return "\n".join([*parts, "", "## Measured on", "", *(f"- {machine}" for machine in machines)])


def _slow_down(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = ("screens", "steps/s", "engine's share, %", "slow-down, %", "slow-down from, to", "a screen, % of a core")
    return markdown(rows, shown)


def main(words: Sequence[str]) -> None:
    folder = Path(words[0]) if words else RESULTS
    text = tables(folder)
    (folder / "README.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
