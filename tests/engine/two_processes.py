"""One of several processes of a learner: ``python -m tests.engine.two_processes FOLDER``; rank 0 writes the outcome."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from engine.learner import Learner
from engine.rollout import RolloutGroup
from engine.supervised import FineTuning, encode_all, epochs_plan
from sessions.examples import Example
from tests.engine.small import make_learner
from tests.sessions.samples import rating

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "minibatches": {"epochs": 2, "minibatches": 2},
    "one_prompt": {"prompts_per_step": 1},
    "ppo": {
        "algorithm": "ppo",
        "kl_placement": "reward",
        "kl_estimator": "k1",
        "kl_coefficient": 0.1,
        "value_warmup_steps": 1,
        "epochs": 2,
        "minibatches": 2,
        "value_model": "shared",
    },
    "separate": {
        "algorithm": "ppo",
        "kl_placement": "reward",
        "kl_estimator": "k1",
        "value_warmup_steps": 0,
        "value_model": "separate",
        "value_learning_rate": 1e-3,
    },
    "trpo": {
        "algorithm": "trpo",
        "kl_placement": "reward",
        "kl_estimator": "k1",
        "fisher_product": "exact",
        "cg_iterations": 4,
        "fisher_fraction": 0.75,
    },
    "full": {"kl_estimator": "full", "kl_coefficient": 0.3, "entropy_bonus": 0.01, "ratio_level": "sequence"},
    "warm_up": {},
    "reward": {"kl_placement": "reward", "kl_estimator": "k1", "kl_coefficient": 0.3},
}


def two_steps(folder: Path, case: str) -> dict[str, torch.Tensor]:
    """The weights and the metrics after two steps, or one of trpo."""
    learner = make_learner(folder / case, micro_tokens=40, save=False, **CASES[case])
    if learner.rank == 0:
        learner.save("start of RL")
    learner.policy.accelerator.wait_for_everyone()
    if case == "warm_up":
        return warm_up(learner)
    metrics = learner.run_step()
    if case == "plain":  # a rating, which only rank 0 knows, brings a late group into the second step
        groups = learner.sample(2)
        records = [g.record for g in groups[:1]] if learner.rank == 0 else []
        late: list[RolloutGroup] = learner.late_groups(records)
        late[0].record.number = 9
        said = {"2.9": [rating(2, 9, values={"A": 5.0, "B": 1.0})]} if learner.rank == 0 else {}
        learner.measure_reference(2, [*groups, *late])
        learner.advantages([*groups, *late], said)
        metrics = learner.update(2, [*groups, *late], lambda: None)
        evaluation = learner.evaluate()
        metrics |= {"eval/accuracy": evaluation.accuracy, "eval/length": evaluation.length}
    elif case != "trpo":  # whose conjugate gradient multiplies rounding: a second step may sample another token by it
        metrics = learner.run_step()
    del metrics["memory/peak"]
    tensors = {f"weight.{i}": p.detach().clone() for i, p in enumerate(learner.policy.parameters)}
    return tensors | {f"metric.{name}": torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}


def warm_up(learner: Learner) -> dict[str, torch.Tensor]:
    """The weights and the metrics after steps on three examples and on one, which leaves a process without a share."""
    texts = [("1+1=", "2"), ("12+3=", "fifteen"), ("what is 40+40?", "80"), ("2=", "two")]
    rows = encode_all(learner.policy, [Example(i, *pair) for i, pair in enumerate(texts)], "f").rows
    plan, steps = epochs_plan(len(rows), 3, 0, 2)
    training = FineTuning(learner.policy, rows, plan, steps, learning_rate=1e-3, micro_tokens=24, rise=1)
    metrics = [training.step(number) for number in range(1, steps + 1)]
    tensors = {f"weight.{i}": p.detach().clone() for i, p in enumerate(learner.policy.parameters)}
    for number, measured in enumerate(metrics):
        for name, value in measured.items():
            tensors[f"metric.{number}.{name}"] = torch.tensor(value, dtype=torch.float64)
    return tensors


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for case in CASES:
        tensors = two_steps(folder, case)
        if torch.distributed.get_rank() == 0:
            save_file(tensors, folder / f"{case}.safetensors")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
