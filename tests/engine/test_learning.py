"""GRPO, PPO and TRPO raise the embedded model's held-out accuracy; the full form is ``make test-learning``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.learner import Learner
from engine.loading import TINY, load_policy
from engine.policy import make_accelerator
from engine.tasks import load_task
from sessions.hyperparameters import defaults
from sessions.presets import preset
from tests.engine.small import make_knobs, make_learner

SMALL = {"prompts_per_step": 4, "group_size": 4, "learning_rate": 2e-5}
"""16 responses a step: quick, and so noisy that steps have to be small."""
ALGORITHMS: dict[str, dict[str, Any]] = {
    "grpo": {"algorithm": "grpo"},
    "ppo": {"algorithm": "ppo", "value_warmup_steps": 2},
    "trpo": {**preset("trpo").values, "trust_region": 0.002, "cg_iterations": 4, "fisher_fraction": 1.0},
}


def arithmetic_learner(folder: Path, seed: int, held_out: int, values: dict[str, Any]) -> Learner:
    task = load_task("arithmetic", seed, held_out)
    policy = load_policy(TINY, make_accelerator("cpu", "fp32"))
    every = {"evaluate_every": 0, "checkpoint_steps": 0}
    knobs = make_knobs(**defaults(task.defaults, every, values))
    return make_learner(folder, policy=policy, task=task, knobs=knobs, seed=seed)


def learns(learner: Learner, bar: float, steps: int, every: int) -> list[float]:
    """Held-out accuracy every so many steps, until it has risen by ``bar``.

    :raises pytest.fail.Exception: if it has not after ``steps``.
    """
    accuracy = [learner.evaluate().accuracy]
    while accuracy[-1] < accuracy[0] + bar:
        if learner.step >= steps:
            pytest.fail(f"held-out accuracy {accuracy} in {steps} steps")
        for _ in range(every):
            learner.run_step()
        accuracy.append(learner.evaluate().accuracy)
    return accuracy


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.learning) for seed in (1, 2))])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_it_raises_held_out_accuracy(tmp_path: Path, algorithm: str, seed: int) -> None:
    learner = arithmetic_learner(tmp_path, seed, 300, {**SMALL, **ALGORITHMS[algorithm]})
    learns(learner, bar=0.07, steps=80, every=10)


@pytest.mark.learning
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "values", "bar"),
    [
        ("grpo", {}, 0.2),
        ("ppo", {"algorithm": "ppo"}, 0.2),
        ("ppo preset", dict(preset("ppo").values), 0.15),
        ("trpo", {"algorithm": "trpo"}, 0.1),
        ("trpo preset", dict(preset("trpo").values), 0.2),
        ("trpo value baseline", {**preset("trpo").values, "baseline": "value"}, 0.2),
        ("dapo", dict(preset("dapo").settings(12)), 0.15),
        ("dr-grpo", dict(preset("dr-grpo").settings(12)), 0.15),
        ("gspo", dict(preset("gspo").settings(12)), 0.05),
    ],
)
def test_it_learns_at_full_size(tmp_path: Path, name: str, values: dict[str, Any], bar: float, seed: int) -> None:
    """16 x 8 at the defaults, 1,000 held-out problems, 60 steps."""
    accuracy = learns(arithmetic_learner(tmp_path, seed, 1000, values), bar=bar, steps=60, every=10)
    print(f"{name}, seed {seed}: {accuracy}")
