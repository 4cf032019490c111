"""How a step's time grows with the group, the length of responses and the model: a fitted exponent for each.

    python -m benchmarks.scaling [--short] [--repeats 5] [--only group length model]

Random Llamas whose responses never end, so that the work is exactly what was asked for; GRPO, one thread, processor
seconds of the thread that computes. Each axis varies alone; the sizes of an axis run in turn, round after round, and
each is represented by its median. The exponent is the slope of the least-squares line through log seconds over log
size: 1 is proportional, less means that a larger step is cheaper by the piece. The last exponent is that between the
two largest sizes, where what does not grow with the size weighs least.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import facts, table, write
from benchmarks.workload import TINY, Phases, Shape, make_learner, never_ends, random_policy, task, timed_step
from engine.learner import Learner

PROMPT = 12
"""Tokens of a prompt."""
PHASES = ("sampling", "updating", "step")
MODELS = {
    "0.06M": Shape(32, 4, 4, 4, 128, 64),
    "0.3M": Shape(64, 4, 4, 4, 256, 64),
    "1.1M": TINY,
    "4.2M": Shape(256, 4, 4, 4, 1024, 64),
    "17M": Shape(512, 4, 4, 4, 2048, 64),
}


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of the least-squares line through (log size, log seconds): b of seconds = a size^b.

    :raises ValueError: unless there are two sizes that differ.
    """
    if len(set(sizes)) < 2 or len(sizes) != len(seconds):
        raise ValueError(f"no line goes through {len(sizes)} sizes and {len(seconds)} times")
    x, y = [math.log(size) for size in sizes], [math.log(s) for s in seconds]
    return float(statistics.linear_regression(x, y).slope)


def learner(folder: Path, shape: Shape, group: int, length: int, prompts: int) -> Learner:
    """Ready to step."""
    policy = random_policy(shape, PROMPT + length)
    never_ends(policy)
    sizes = {"prompts_per_step": prompts, "group_size": group, "max_new_tokens": length}
    return make_learner(policy, task(PROMPT), folder, **sizes)


def cases(short: bool) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    """Axis -> (size, what to make) for each of its sizes."""
    base = {"shape": TINY, "group": 8, "length": 16, "prompts": 4}
    groups = (2, 4, 8, 16) if short else (2, 4, 8, 16, 32, 64)
    lengths = (8, 16, 32, 64) if short else (8, 16, 32, 64, 128, 256)
    models = list(MODELS.values())[: 4 if short else None]
    return {
        "group": [(n, {**base, "group": n}) for n in groups],
        "length": [(n, {**base, "length": n}) for n in lengths],
        "model": [(parameters(shape), {**base, "shape": shape}) for shape in models],
    }


def parameters(shape: Shape) -> int:
    """Of the model without its embedding: two norms and seven matrices a layer, and a last norm."""
    kv = shape.hidden * shape.kv_heads // shape.heads
    matrices = 2 * shape.hidden**2 + 2 * shape.hidden * kv + 3 * shape.hidden * shape.intermediate
    return shape.layers * (matrices + 2 * shape.hidden) + shape.hidden


def measure(sizes: Sequence[tuple[float, Mapping[str, Any]]], repeats: int) -> list[Phases]:
    """The sizes in turn, so many times after a first one that does not count; the medians."""
    with tempfile.TemporaryDirectory() as folder:
        learners = [learner(Path(folder, str(i)), **what) for i, (_, what) in enumerate(sizes)]
        for ready in learners:
            timed_step(ready)
        rounds = [[timed_step(ready) for ready in learners] for _ in range(repeats)]
    return [_median([phases[i] for phases in rounds]) for i in range(len(sizes))]


def _median(phases: Sequence[Phases]) -> Phases:
    def of(name: str) -> float:
        return float(statistics.median(getattr(p, name) for p in phases))

    return replace(phases[0], sampling=of("sampling"), updating=of("updating"))


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer sizes, about a minute")
    parser.add_argument("--repeats", type=int, help="rounds that count (5; short: 3)")
    parser.add_argument("--only", nargs="+", choices=["group", "length", "model"])
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    repeats = given.repeats or (3 if given.short else 5)
    rows: list[dict[str, Any]] = []
    fits: list[dict[str, Any]] = []
    for axis, sizes in cases(given.short).items():
        if given.only and axis not in given.only:
            continue
        found = measure(sizes, repeats)
        for (size, _), phases in zip(sizes, found, strict=True):
            seconds = {f"{name} ms": 1000 * getattr(phases, name) for name in PHASES}
            rows.append({"axis": axis, "size": f"{size:,.0f}", "tokens": phases.tokens, **seconds})
        for name in PHASES:
            x, y = [size for size, _ in sizes], [float(getattr(p, name)) for p in found]
            fits.append({"axis": axis, "phase": name, "exponent": exponent(x, y), "last": exponent(x[-2:], y[-2:])})
        print(f"  {axis}: done", file=sys.stderr, flush=True)
    payload = {"command": "python -m benchmarks.scaling", "facts": facts(), "rows": rows, "exponents": fits}
    name = "scaling-short" if given.short else "scaling"
    parts = [f"# {name}", "", "How a step's time grows, by `python -m benchmarks.scaling`."]
    parts += ["Base: 4 prompts of 12 tokens, groups of 8, 16 tokens a response, the embedded model's shape; GRPO."]
    for title, what in (("Processor time of a step", rows), ("Exponents", fits)):
        text = table(what, list(what[0]))
        print(f"\n{title}\n{text}")
        parts.extend(["", f"## {title}", "", "```", text, "```"])
    write(name, payload, "\n".join(parts))


if __name__ == "__main__":
    main(sys.argv[1:])
