"""TRL's side of grpo_vs_trl.py: its GRPOTrainer, built as a user builds it, with every setting said.

    python benchmarks/peers/trl_grpo.py JOB.json

Prints the outcome as one line of JSON. The prompts are not shuffled, so that both sides ask the same in the same
step. ``use_bias_correction_kl=False`` makes the divergence plain k3. TRL's methods are timed from outside; none is
changed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.measure import versions
from benchmarks.peers.clock import Clock
from benchmarks.peers.greedy import answers, rendered
from benchmarks.peers.job import Job, Outcome, peak_megabytes
from benchmarks.peers.rewards import REWARDS

METRICS = {
    "reward": "reward/mean",
    "completions/mean_length": "response/length",
    "completions/clipped_ratio": "response/truncated_fraction",
    "entropy": "entropy",
    "grad_norm": "grad/norm",
    "loss": "loss",
    "kl": "kl/k3",
    "clip_ratio/low_mean": "clip/low",
    "clip_ratio/high_mean": "clip/high",
}
"""TRL's names -> ours."""


def config(job: Job, folder: str) -> GRPOConfig:
    """The job's settings in TRL's words, and what makes the two sides alike."""
    responses = job.prompts_per_step * job.group_size
    return GRPOConfig(
        output_dir=folder,
        seed=job.seed,
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=responses,
        gradient_accumulation_steps=1,
        max_steps=job.steps * job.epochs,
        num_iterations=job.epochs,
        num_generations=job.group_size,
        max_completion_length=job.max_new_tokens,
        shuffle_dataset=False,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        loss_type="dapo",
        scale_rewards="group",
        importance_sampling_level="token",
        epsilon=0.2,
        epsilon_high=0.2,
        beta=job.kl_coefficient,
        use_bias_correction_kl=False,
        disable_dropout=True,
        learning_rate=job.learning_rate,
        lr_scheduler_type="constant",
        warmup_steps=0,
        optim="adamw_torch_fused",
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=0.0,
        max_grad_norm=job.max_grad_norm,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        log_level="error",
    )


class Laps(TrainerCallback):
    """A step ends with the last optimizer step on its rollout."""

    def __init__(self, clock: Clock, outcome: Outcome, epochs: int) -> None:
        self.clock, self.outcome, self.epochs = clock, outcome, epochs
        self.tokens = 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.outcome.memory_before = peak_megabytes()
        self.clock.begin()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.clock.enter("optimizer")

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.clock.leave()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.epochs == 0:
            self.clock.lap(self.tokens)


def watch(trainer: GRPOTrainer, clock: Clock, laps: Laps) -> None:
    """Time the trainer's phases, and note its first prompts and how much it sampled."""
    clock.wrap(trainer, "training_step", "update")
    clock.wrap(trainer, "_generate", "sampling")
    clock.wrap(trainer, "_calculate_rewards", "scoring")
    logprobs = trainer._get_per_token_logps_and_entropies
    prepare = trainer._generate_and_score_completions

    def logprobs_timed(*args: Any, **kwargs: Any) -> Any:
        with clock.phase("update" if torch.is_grad_enabled() else "old and reference"):
            return logprobs(*args, **kwargs)

    def prepare_timed(*args: Any, **kwargs: Any) -> Any:
        with clock.phase("preparing"):
            batch = prepare(*args, **kwargs)
        laps.tokens = int(batch["completion_mask"].sum())
        if not laps.outcome.asked:
            real = batch["prompt_mask"].bool()
            rows = range(0, len(real), trainer.num_generations)
            laps.outcome.asked = [batch["prompt_ids"][i][real[i]].tolist() for i in rows]
        return batch

    trainer._get_per_token_logps_and_entropies = logprobs_timed
    trainer._generate_and_score_completions = prepare_timed


def metrics(history: list[dict[str, float]], epochs: int) -> list[dict[str, float]]:
    """One step's, the mean over its optimizer steps of what each of them reports."""
    logged = [entry for entry in history if "grad_norm" in entry]
    steps = []
    for start in range(0, len(logged), epochs):
        entries = logged[start : start + epochs]
        found = {ours: [float(e[name]) for e in entries if name in e] for name, ours in METRICS.items()}
        steps.append({name: sum(values) / len(values) for name, values in found.items() if values})
    return steps


def run(job: Job) -> Outcome:
    """Train and answer."""
    outcome = Outcome(versions("trl", "transformers", "torch", "datasets"))
    transformers.logging.disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(job.model)
    if job.steps:
        reward = REWARDS[job.reward]

        def rewarded(prompts: list[str], completions: list[str], answer: list[str], **_: Any) -> Any:
            return reward(prompts, completions, answer)

        rows = [{"prompt": rendered(tokenizer, q.text), "answer": q.answer} for q in job.prompts]
        clock = Clock()
        laps = Laps(clock, outcome, job.epochs)
        with tempfile.TemporaryDirectory() as folder:
            trainer = GRPOTrainer(
                model=model,
                reward_funcs=rewarded,
                args=config(job, folder),
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
                callbacks=[laps],
            )
            trainer.remove_callback(PrinterCallback)
            watch(trainer, clock, laps)
            trainer.train()
        outcome.steps = clock.steps
        for step, reported in zip(outcome.steps, metrics(trainer.state.log_history, job.epochs), strict=True):
            step.metrics = reported
        outcome.memory = peak_megabytes()
    outcome.answers = answers(model, tokenizer, job.held_out, job.max_new_tokens)
    return outcome


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(run(Job.read(Path(sys.argv[1]).read_text())).dump())
