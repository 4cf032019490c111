"""How far the engine's plan is from what a change then takes.

    python benchmarks/plan.py [--model tiny|smollm2] [--steps 8] [--only NAME] [--json FILE]

Every change is made in a process of its own: so many steps as it was, then the plan, then so many pairs of a step with
the change and one without. Seconds are processor time on one thread; the measured ratio is the median of the pairs'.
Memory is the peak of the process. Prints a table, and a JSON line a change to a file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

Values = dict[str, Any]
ALL: Values = {"kl_coefficient": 0.04}
"""Every group is learned from, also one whose rewards are alike because all of it was cut."""
TINY: dict[str, tuple[Values, Values]] = {
    "nothing": ({}, {}),
    "group_size 8 -> 16": ({}, {"group_size": 16}),
    "group_size 8 -> 4": ({}, {"group_size": 4}),
    "prompts_per_step 16 -> 32": ({}, {"prompts_per_step": 32}),
    "prompts_per_step 16 -> 4": ({}, {"prompts_per_step": 4}),
    "max_new_tokens 12 -> 2": (ALL, {"max_new_tokens": 2}),
    "max_new_tokens 2 -> 12": ({**ALL, "max_new_tokens": 2}, {"max_new_tokens": 12}),
    "epochs 1 -> 4": ({}, {"epochs": 4}),
    "minibatches 1 -> 4": ({}, {"minibatches": 4}),
    "kl_coefficient 0 -> 0.04": ({}, {"kl_coefficient": 0.04}),
    "dynamic_sampling 0 -> 4": ({}, {"dynamic_sampling": 4}),
    "algorithm grpo -> ppo": ({}, {"algorithm": "ppo", "value_warmup_steps": 0}),
    "algorithm grpo -> trpo": ({}, {"algorithm": "trpo"}),
    "trpo: group_size 8 -> 16": ({"algorithm": "trpo"}, {"group_size": 16}),
    "trpo: cg_iterations 10 -> 5": ({"algorithm": "trpo"}, {"cg_iterations": 5}),
}
SMOLLM2: dict[str, tuple[Values, Values]] = {
    "max_new_tokens 24 -> 48": ({"max_new_tokens": 24}, {"max_new_tokens": 48}),
    "group_size 2 -> 4": ({"group_size": 2}, {"group_size": 4}),
}
START: dict[str, Values] = {
    "tiny": {"kl_coefficient": 0.0, "learning_rate": 1e-6, "evaluate_every": 0, "reference_every": 0},
    "smollm2": {
        "kl_coefficient": 0.0, "learning_rate": 1e-7, "evaluate_every": 0, "reference_every": 0,
        "prompts_per_step": 2, "group_size": 4, "max_new_tokens": 48,
    },
}  # fmt: skip


def one(model: str, before: Values, change: Values, steps: int, plain: list[str]) -> dict[str, float]:
    """Predicted and measured, in this process."""
    import torch

    from engine.control import Control
    from engine.knobs import Knobs
    from engine.learner import Learner
    from engine.loading import load_policy, model_folder
    from engine.memory import peak_memory
    from engine.plan import Planner
    from engine.policy import make_accelerator
    from engine.tasks import load_task
    from engine.times import Times
    from sessions.commands import Set
    from sessions.hyperparameters import defaults, switched
    from sessions.records import SessionSettings
    from sessions.shortcuts import active

    torch.set_num_threads(1)
    task = load_task("arithmetic", 0)
    knobs = Knobs(defaults(task.defaults, {**START[model], **before}))
    policy = load_policy(model_folder(model), make_accelerator("cpu", "fp32"), shortcuts=active(plain))
    control = Control()
    control.clock = time.process_time  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(SessionSettings(name="plan", plain=plain), task, policy, knobs, control, Path(folder))
        learner.save("start of RL")
        planner = learner.planner = Planner(learner)

        def step() -> float:
            """Processor seconds of a step."""
            number = learner.step + 1
            times = Times(control)
            knobs.begin_step(number)
            control.begin_step(number)
            for boundary in ("rollout", "update", "minibatch"):
                knobs.apply(boundary, number)  # type: ignore[arg-type]
            groups = learner.sample(number)
            times.mark("sampling", within=learner.sampler.scoring_seconds, name="scoring")
            for group in learner.replaced:
                group.record.status = "replaced"
            learner.measure_reference(number, groups)
            learner.advantages(groups, {})
            metrics = learner.update(number, groups, lambda: None)
            times.mark("updating")
            sampled = [*learner.replaced, *groups]
            metrics |= times.metrics(0)
            planner.record(number, knobs.values, sampled, metrics)
            return metrics["time/step"]

        for _ in range(steps):
            step()
        plan, old, pairs = planner.plan(change), knobs.values, []
        back = {name: old[name] for name in switched(old, change)}
        for _ in range(steps + 1):
            knobs.request(Set(values=change), learner.step)
            took = step()
            knobs.request(Set(values=back), learner.step)
            pairs.append((took, step()))
    if not (plan.seconds_now and plan.seconds_then and plan.seconds_least is not None and plan.seconds_most):
        raise SystemExit(plan.unknown)
    pairs = pairs[1:]  # what is made when it is first needed belongs to no step
    planned, measured = plan.seconds_then / plan.seconds_now, statistics.median(a / b for a, b in pairs)
    inside = [plan.seconds_least <= a <= plan.seconds_most for a, _ in pairs]
    return {
        "predicted_ratio": planned,
        "measured_ratio": measured,
        "error": planned / measured - 1,
        "inside": sum(inside) / len(inside),
        "predicted_gb": max(plan.memory_now, plan.memory_then) / 1e9,  # a peak does not go down again
        "measured_gb": peak_memory() / 1e9,
        "memory_error": max(plan.memory_now, plan.memory_then) / peak_memory() - 1,
    }


def main() -> None:
    """Every change, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=START, default="tiny")
    parser.add_argument("--steps", type=int, default=8, help="measured before and after a change")
    parser.add_argument("--only", default="", help="changes whose name holds this")
    parser.add_argument("--plain", action="append", default=[], help="a shortcut that is turned off")
    parser.add_argument("--json", type=Path, help="where a JSON line for each change goes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    changes = TINY if arguments.model == "tiny" else SMOLLM2
    if arguments.child:
        before, change = changes[arguments.child]
        print(json.dumps(one(arguments.model, before, change, arguments.steps, arguments.plain)))
        return
    print(f"{'change':<30}{'ratio: planned':>15}{'measured':>10}{'off by':>8}{'in range':>9}", end="")
    print(f"{'GB: planned':>13}{'measured':>10}{'off by':>8}")
    lines = []
    for name in [name for name in changes if arguments.only in name]:
        words = [sys.executable, __file__, "--child", name, "--model", arguments.model, "--steps", str(arguments.steps)]
        words += [word for shortcut in arguments.plain for word in ("--plain", shortcut)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
        found = json.loads(done.stdout.splitlines()[-1])
        lines.append(json.dumps({"change": name, "model": arguments.model, **found}))
        print(
            f"{name:<30}{found['predicted_ratio']:>15.2f}{found['measured_ratio']:>10.2f}{found['error']:>+8.0%}",
            end="",
        )
        print(f"{found['inside']:>9.0%}", end="")
        print(f"{found['predicted_gb']:>13.3f}{found['measured_gb']:>10.3f}{found['memory_error']:>+8.0%}", flush=True)
    if arguments.json:
        arguments.json.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
