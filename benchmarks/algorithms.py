"""Held-out accuracy of GRPO, PPO and TRPO on the arithmetic task, after equal steps and after equal time.

    python benchmarks/algorithms.py [--steps 60] [--seeds 0 1 2] [--json results.json]

Every run starts from the embedded model with the same prompts and noise for the same seed. Time is the processor
time of the compute thread, evaluations left out, on one thread of torch, so that a busy machine does not count; a
run is measured at the last evaluation inside the time given. The table goes to stdout; docs/algorithms.md has it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from engine.control import Control
from engine.knobs import Knobs
from engine.learner import Learner
from engine.loading import TINY, load_policy
from engine.policy import make_accelerator
from engine.tasks import load_task
from sessions.hyperparameters import Value, defaults
from sessions.presets import preset
from sessions.records import SessionSettings

VARIANTS: dict[str, dict[str, Value]] = {
    "grpo": {"algorithm": "grpo"},
    "ppo": {"algorithm": "ppo"},
    "ppo (preset: 4 epochs)": dict(preset("ppo").values),
    "trpo": {"algorithm": "trpo"},
    "trpo (preset)": dict(preset("trpo").values),
    "trpo (preset), value baseline": {**preset("trpo").values, "baseline": "value"},
}


@dataclass
class Run:
    """One run: (steps, seconds, accuracy) at each evaluation."""

    variant: str
    seed: int
    points: list[tuple[int, float, float]] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    rejected: int = 0

    def after_steps(self, steps: int) -> float:
        return next(accuracy for at, _, accuracy in self.points if at == steps)

    def after_seconds(self, seconds: float) -> float:
        return [accuracy for _, at, accuracy in self.points if at <= seconds][-1]


def run(variant: str, seed: int, steps: int, every: int) -> Run:
    """Train and evaluate."""
    task = load_task("arithmetic", seed, 1000)
    knobs = Knobs(defaults(task.defaults, {"evaluate_every": 0, "checkpoint_steps": 0}, VARIANTS[variant]))
    policy = load_policy(TINY, make_accelerator("cpu", "fp32"))
    result, spent = Run(variant, seed), 0.0
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(SessionSettings(name="b", seed=seed), task, policy, knobs, Control(), Path(folder))
        learner.save("start of RL")
        result.points.append((0, 0.0, learner.evaluate().accuracy))
        for step in range(1, steps + 1):
            began = time.process_time()
            metrics = learner.run_step()
            took = time.process_time() - began
            spent += took
            result.step_seconds.append(took)
            result.rejected += metrics.get("trpo/step_fraction") == 0.0
            if step % every == 0 or step == steps:
                result.points.append((step, spent, learner.evaluate().accuracy))
    return result


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--steps", type=int, default=60)
    arguments.add_argument("--every", type=int, default=5)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    runs = []
    for seed in given.seeds:
        for variant in given.variants:
            runs.append(run(variant, seed, given.steps, given.every))
            print(f"{variant} {seed}: {[round(a, 3) for _, _, a in runs[-1].points]}", file=sys.stderr, flush=True)
            if given.json:
                given.json.write_text(json.dumps([asdict(r) for r in runs]))
    print(table(runs, given.steps))


def table(runs: list[Run], steps: int) -> str:
    """Markdown: a row a variant, the seeds in one cell."""
    quick = statistics.median(s for r in runs if r.variant == "grpo" for s in r.step_seconds)
    seconds = quick * steps
    lines = [
        f"| | at the start | after {steps} steps | after {seconds:.0f} s, the time of {steps} steps of grpo | "
        "a step, in steps of grpo |",
        "|---|---|---|---|---|",
    ]
    for variant in dict.fromkeys(r.variant for r in runs):
        mine = [r for r in runs if r.variant == variant]
        cost = statistics.median(s for r in mine for s in r.step_seconds) / quick
        cells = (
            " / ".join(f"{r.points[0][2]:.3f}" for r in mine),
            " / ".join(f"{r.after_steps(steps):.3f}" for r in mine),
            " / ".join(f"{r.after_seconds(seconds * 1.02):.3f}" for r in mine),
            f"{cost:.2f}",
        )
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
