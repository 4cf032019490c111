"""Our side of the comparisons with peers: the learner as a library, one whole step after the other.

    python benchmarks/ours.py JOB.json

Prints the outcome as one line of JSON. ``Learner.run_step`` computes every metric of a step that the screens show;
what an engine adds to it (records, socket, store) is what engine_overhead.py measures. The divergence that the
engine measures now and then without using it is off (``reference_every`` 0): the peers have nothing like it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import versions
from benchmarks.peers.clock import Clock
from benchmarks.peers.job import Job, Outcome, peak_megabytes
from benchmarks.peers.rewards import REWARDS
from benchmarks.questions import task_of
from engine.control import Control
from engine.knobs import Knobs
from engine.learner import Learner
from engine.loading import load_policy
from engine.policy import Policy, make_accelerator
from engine.rewards import Component
from engine.rollout import RolloutGroup
from engine.sampling import sample
from engine.tasks import Prompt
from sessions.hyperparameters import Value, defaults
from sessions.records import SessionSettings
from sessions.shortcuts import active

METRICS = (
    "reward/mean",
    "response/length",
    "response/truncated_fraction",
    "entropy",
    "grad/norm",
    "kl/k3",
    "clip/low",
    "clip/high",
    "groups/dead_fraction",
    "value/explained_variance",
)
"""Those kept of a step; the loss besides, which is the sum of its parts."""


def values(job: Job) -> dict[str, Value]:
    """The job's settings as hyperparameters, and what makes the two sides alike."""
    shared: dict[str, Value] = {
        "algorithm": job.algorithm,
        "prompts_per_step": job.prompts_per_step,
        "group_size": job.group_size,
        "max_new_tokens": job.max_new_tokens,
        "temperature": 1.0,
        "epochs": job.epochs,
        "minibatches": 1,
        "learning_rate": job.learning_rate,
        "lr_warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": job.max_grad_norm,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "clip_low": 0.2,
        "clip_high": 0.2,
        "kl_coefficient": job.kl_coefficient,
        "reference_every": 0,
        "evaluate_every": 0,
        "checkpoint_steps": 0,
    }
    if job.algorithm == "grpo":
        return shared | {
            "loss_aggregation": "token",
            "advantage_scale": "group",
            "ratio_level": "token",
            "kl_placement": "loss",
            "kl_estimator": "k3",
            "entropy_bonus": 0.0,
        }
    return shared | {
        "kl_placement": "reward",
        "kl_estimator": "k1",
        "gamma": 1.0,
        "gae_lambda": 0.95,
        "value_model": str(job.options["value_model"]),
        "value_learning_rate": job.learning_rate,
        "value_coefficient": 0.1,
        "value_clip": 0.2,
        "value_warmup_steps": 0,
        "stop_kl": 0.0,
    }


def watch(learner: Learner, clock: Clock) -> list[list[RolloutGroup]]:
    """Time the learner's phases, and keep its newest rollout, alone in the list."""
    newest: list[list[RolloutGroup]] = []
    sample_groups = learner.sample

    def sampled(*args: Any, **kwargs: Any) -> list[RolloutGroup]:
        with clock.phase("sampling"):
            newest[:] = [sample_groups(*args, **kwargs)]
        return newest[0]

    learner.sample = sampled  # type: ignore[method-assign]
    clock.wrap(learner, "measure_reference", "old and reference")
    clock.wrap(learner, "advantages", "advantages")
    clock.wrap(learner.training, "update", "update")
    clock.wrap(learner.optimizer, "step", "optimizer")
    return newest


def run(job: Job) -> Outcome:
    """Train and answer."""
    outcome = Outcome(versions("torch", "transformers"))
    clock = Clock()
    reward = Component(clock.timed("scoring", REWARDS[job.reward]))
    task = replace(task_of(job.task), components={job.reward: reward})
    settings = SessionSettings(name="benchmark", seed=job.seed, threads=1, plain=list(job.options.get("plain", [])))
    policy = load_policy(Path(job.model), make_accelerator("cpu", "fp32"), shortcuts=active(settings.plain))
    knobs = Knobs(defaults(task.defaults, values(job)))
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(settings, task, policy, knobs, Control(), Path(folder))
        learner.save("start of RL")
        newest = watch(learner, clock)
        outcome.memory_before = peak_megabytes()
        clock.begin()
        reported = []
        for _ in range(job.steps):
            reported.append(learner.run_step())
            clock.lap(sum(r.length for group in newest[0] for r in group.record.responses))
            if not outcome.asked:
                outcome.asked = [group.record.prompt_tokens for group in newest[0]]
        outcome.memory = peak_megabytes()
    outcome.steps = clock.steps
    for step, metrics in zip(outcome.steps, reported, strict=True):
        step.metrics = {name: metrics[name] for name in METRICS if name in metrics}
        step.metrics["loss"] = sum(metrics.get(f"loss/{part}", 0.0) for part in ("policy", "kl"))
    outcome.answers = answers(policy, task.evaluation[: len(job.held_out)], job.max_new_tokens)
    return outcome


def answers(policy: Policy, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
    """Greedy answers, one text a prompt."""
    found = []
    for start in range(0, len(prompts), 250):
        asked = [policy.encode_prompt(prompt.text) for prompt in prompts[start : start + 250]]
        found += [policy.decode(t) for t in sample(policy, asked, 1, max_new_tokens, 1.0, None).tokens]
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)  # as an engine does on a CPU
    print(run(Job.read(Path(sys.argv[1]).read_text())).dump())
