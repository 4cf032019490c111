"""What a TRPO update costs, in GRPO updates on the same rollout, and where it goes.

    python benchmarks/trpo_cost.py [--prompts 16] [--group 8] [--repeats 3]

The embedded model, one thread, processor time; every variant makes the update of the same first rollout and is put
back. ``hessian`` is the textbook product, differentiating the KL's gradient once more; it is no choice of the
product and only here for comparison.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.control import Control
from engine.fisher import DifferenceProduct, ExactProduct, flatten, relative_difference, unflatten
from engine.knobs import Knobs
from engine.learner import Learner
from engine.loading import TINY, load_policy
from engine.old_policy import OldPolicy
from engine.optimizer import Saved
from engine.passes import batch_of
from engine.policy import Batch, Policy, make_accelerator
from engine.tasks import load_task
from sessions.hyperparameters import Value, defaults
from sessions.presets import preset
from sessions.records import SessionSettings

TRPO: dict[str, Value] = {"algorithm": "trpo", "fisher_product": "exact"}
VARIANTS: dict[str, dict[str, Value]] = {
    "grpo, one step": {"algorithm": "grpo", "kl_coefficient": 0.0},
    "trpo, defaults": TRPO,
    "trpo, difference products": {**TRPO, "fisher_product": "difference"},
    "trpo, 5 iterations": {**TRPO, "cg_iterations": 5},
    "trpo, damping 0.1": {**TRPO, "damping": 0.1},
    "trpo, damping 1": {**TRPO, "damping": 1.0},
    "trpo, damping 1, half of the groups": {**TRPO, "damping": 1.0, "fisher_fraction": 0.5},
    "trpo, damping 1, a quarter (preset)": dict(preset("trpo").values),
}


def cpu_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median processor seconds."""
    took = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return statistics.median(took)


def make(values: dict[str, Value], prompts: int, group: int, folder: Path) -> Learner:
    task = load_task("arithmetic", 0, 10)
    size = {"evaluate_every": 0, "checkpoint_steps": 0, "prompts_per_step": prompts, "group_size": group}
    knobs = Knobs(defaults(task.defaults, size, values))
    policy = load_policy(TINY, make_accelerator("cpu", "fp32"))
    learner = Learner(SessionSettings(name="b"), task, policy, knobs, Control(), folder)
    learner.save("start of RL")
    return learner


def measure(values: dict[str, Value], prompts: int, group: int, repeats: int) -> tuple[float, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        learner = make(values, prompts, group, Path(folder))
        groups = learner.sample(1)
        learner.measure_reference(1, groups)
        learner.advantages(groups, {})
        saved = Saved(learner.optimizer)
        metrics: dict[str, float] = {}

        def update() -> None:
            metrics.update(learner.training.update(1, 0, groups, lambda: None))
            saved.restore()

        update()  # with the self-check, which runs once
        return cpu_seconds(update, repeats), metrics


def hessian_product(policy: Policy, batch: Batch, tokens: int) -> Callable[[Tensor], Tensor]:
    """The KL's gradient, kept, and differentiated along v."""
    with sdpa_kernel(SDPBackend.MATH):
        logits = policy.plain_scorer(batch, keep_logits=True).logits
    assert logits is not None
    new = logits.log_softmax(-1)
    old = new.detach()
    kl = torch.where(batch.mask, (old.exp() * (old - new)).sum(-1), 0.0).sum() / tokens
    gradient = torch.autograd.grad(kl, policy.parameters, create_graph=True)

    def product(v: Tensor) -> Tensor:
        parts = torch.autograd.grad(gradient, policy.parameters, unflatten(v, policy.parameters), retain_graph=True)
        return flatten(parts, policy.parameters)

    return product


def products(prompts: int, group: int, repeats: int, unit: float) -> None:
    """The three products along one vector."""
    with tempfile.TemporaryDirectory() as folder:
        learner = make(TRPO, prompts, group, Path(folder))
        rows = [row for g in learner.sample(1) for row in g.rows()]
        policy, batch = learner.policy, batch_of(learner.policy, rows)
        tokens = int(batch.mask.sum())
        v = torch.randn(sum(p.numel() for p in policy.parameters), generator=torch.Generator().manual_seed(0))
        exact = ExactProduct(policy, [batch], tokens, lambda: None)
        hessian = hessian_product(policy, batch, tokens)
        want = exact(v)
        print(
            f"\n{tokens} response tokens, {len(v):,} parameters\n\n| product | in GRPO updates | error |\n|---|---|---|"
        )
        for name, product in (("exact (Gauss-Newton)", exact), ("hessian", hessian)):
            error = relative_difference(product(v), want)
            print(f"| {name} | {cpu_seconds(lambda p=product: p(v), repeats) / unit:.2f} | {error:.1e} |")
        graph = cpu_seconds(lambda: ExactProduct(policy, [batch], tokens, lambda: None), repeats)
        print(f"| its graph, once | {graph / unit:.2f} | |")
        difference = DifferenceProduct(OldPolicy(policy, [batch]), tokens, lambda: None)
        error = relative_difference(difference(v), want)
        print(f"| difference | {cpu_seconds(lambda: difference(v), repeats) / unit:.2f} | {error:.1e} |")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--prompts", type=int, default=16)
    arguments.add_argument("--group", type=int, default=8)
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print("| update | in GRPO updates | CG iterations | residual | KL realised | gain |\n|---|---|---|---|---|---|")
    unit = 0.0
    for name, values in VARIANTS.items():
        seconds, found = measure(values, given.prompts, given.group, given.repeats)
        unit = unit or seconds
        rest = ("trpo/cg_iterations", "trpo/cg_residual", "trpo/kl_realised", "trpo/gain_actual")
        shown = [f"{found[m]:.3g}" if m in found else "" for m in rest]
        print(f"| {name} | {seconds / unit:.1f} | " + " | ".join(shown) + " |", flush=True)
    products(given.prompts, given.group, given.repeats, unit)


if __name__ == "__main__":
    main()
