"""TRL's side of ppo_vs_trl.py: its experimental PPOTrainer, with every setting said.

    python benchmarks/peers/trl_ppo.py JOB.json

Prints the outcome as one line of JSON. The trainer asks a reward model for scores and shuffles its prompts; here a
rule answers in the reward model's place, and the data loader keeps the order, so that both sides ask the same in the
same step. Everything else is TRL's own, timed from outside.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from benchmarks.measure import versions
from benchmarks.peers.clock import COLLECTING, Clock
from benchmarks.peers.greedy import answers, rendered
from benchmarks.peers.job import Job, Outcome, peak_megabytes
from benchmarks.peers.rewards import REWARDS, Reward

METRICS = {
    "objective/scores": "reward/mean",
    "policy/clipfrac_avg": "clip/fraction",
    "loss/policy_avg": "loss/policy",
    "loss/value_avg": "value/loss",
}
"""TRL's names -> ours; its entropy is the mean over padding too and compares with nothing of ours."""


def config(job: Job, folder: str) -> PPOConfig:
    """The job's settings in TRL's words, and what makes the two sides alike."""
    responses = job.prompts_per_step * job.group_size
    return PPOConfig(
        output_dir=folder,
        seed=job.seed,
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=responses,
        gradient_accumulation_steps=1,
        num_mini_batches=1,
        local_rollout_forward_batch_size=responses,
        total_episodes=job.steps * responses,
        num_ppo_epochs=job.epochs,
        response_length=job.max_new_tokens,
        stop_token="eos",
        temperature=1.0,
        whiten_rewards=False,
        kl_coef=job.kl_coefficient,
        kl_estimator="k1",
        cliprange=0.2,
        cliprange_value=0.2,
        vf_coef=0.1,
        gamma=1.0,
        lam=0.95,
        num_sample_generations=0,
        learning_rate=job.learning_rate,
        lr_scheduler_type="constant",
        warmup_steps=0,
        optim="adamw_torch_fused",
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=0.0,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        log_level="error",
    )


class Rule(nn.Module):
    """A reward function in the place of a reward model.

    :ivar tokens: of the responses scored since it was last set to 0, end tokens included.
    :ivar asked: the prompts of the first scores, without padding.
    """

    def __init__(self, tokenizer: Any, reward: Reward, job: Job) -> None:
        super().__init__()
        self.tokenizer, self.reward = tokenizer, reward
        self.answers = {rendered(tokenizer, q.text): q.answer for q in job.prompts}
        self.tokens = 0
        self.asked: list[list[int]] = []

    def scores(self, ids: Tensor, pad: int, context: int) -> Tensor:
        """Of prompts and responses [rows, context + T], padded on both sides."""
        prompts = [row[row != pad].tolist() for row in ids[:, :context]]
        responses = [row[row != pad].tolist() for row in ids[:, context:]]
        self.asked = self.asked or prompts
        self.tokens += sum(map(len, responses))
        texts = self.tokenizer.batch_decode(prompts, skip_special_tokens=True)
        said = self.tokenizer.batch_decode(responses, skip_special_tokens=True)
        found = self.reward(texts, said, [self.answers[text] for text in texts])
        return torch.tensor([float(value or 0.0) for value in found])


class Laps(TrainerCallback):
    """A step ends with TRL's."""

    def __init__(self, clock: Clock, outcome: Outcome, rule: Rule) -> None:
        self.clock, self.outcome, self.rule = clock, outcome, rule
        self.norms: list[list[float]] = [[]]
        self.lengths: list[int] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.outcome.memory_before = peak_megabytes()
        self.clock.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.lap(self.rule.tokens)
        self.rule.tokens = 0
        self.norms.append([])


def watch(trainer: PPOTrainer, clock: Clock, laps: Laps, rule: Rule) -> None:
    """Time the phases, put the rule in the reward model's place, and take the policy's gradient norm.

    The norm is what our side reports too; TRL neither takes it nor clips.
    """
    forward, get_reward = ppo_trainer.forward, ppo_trainer.get_reward

    def forward_timed(model: Any, *args: Any, **kwargs: Any) -> Any:
        with clock.phase("old and reference" if model is trainer.ref_model else "update"):
            return forward(model, *args, **kwargs)

    def reward_or_value(model: Any, ids: Tensor, pad: int, context: int) -> Any:
        if model is rule:
            with clock.phase("scoring"):
                return None, rule.scores(ids, pad, context), None
        with clock.phase("values"):
            return get_reward(model, ids, pad, context)

    def norm(*_: Any) -> None:
        laps.norms[-1].append(float(nn.utils.get_total_norm([p.grad for p in policy if p.grad is not None])))

    policy = list(trainer.policy_model.parameters())
    ppo_trainer.gc = SimpleNamespace(collect=clock.timed(COLLECTING, gc.collect))
    clock.wrap(ppo_trainer, "batch_generation", "sampling")
    clock.wrap(trainer.accelerator, "backward", "update")
    clock.wrap(trainer.optimizer, "step", "optimizer")
    trainer.optimizer.optimizer.register_step_pre_hook(norm)
    ppo_trainer.forward, ppo_trainer.get_reward = forward_timed, reward_or_value


def train(job: Job, model: Any, tokenizer: Any, outcome: Outcome) -> None:
    """Train the model, and write what happened into the outcome."""
    value: Any = AutoModelForSequenceClassification.from_pretrained(job.model, dtype=torch.float32, num_labels=1)
    reference: Any = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
    tokenizer.padding_side = "left"
    rule = Rule(tokenizer, REWARDS[job.reward], job)
    special = not tokenizer.chat_template  # a template brings its own
    prompts = [tokenizer(rendered(tokenizer, q.text), add_special_tokens=special)["input_ids"] for q in job.prompts]
    rows = [{"input_ids": prompt} for prompt in prompts for _ in range(job.group_size)]
    dataset = Dataset.from_list(rows)
    clock = Clock()
    laps = Laps(clock, outcome, rule)
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=config(job, folder),
            processing_class=tokenizer,
            model=model,
            ref_model=reference,
            reward_model=rule,
            value_model=value,
            train_dataset=dataset,
            eval_dataset=dataset.select(range(1)),
            callbacks=[laps],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.dataloader = DataLoader(
            dataset, batch_size=job.prompts_per_step * job.group_size, collate_fn=trainer.data_collator
        )
        watch(trainer, clock, laps, rule)
        trainer.train()
    outcome.asked = rule.asked[:: job.group_size]
    outcome.memory = peak_megabytes()
    outcome.steps = clock.steps
    logged = [entry for entry in trainer.state.log_history if "objective/scores" in entry]
    responses = job.prompts_per_step * job.group_size
    for step, norms, entry in zip(outcome.steps, laps.norms, logged, strict=False):
        step.metrics = {ours: float(entry[name]) for name, ours in METRICS.items()}
        step.metrics["grad/norm"] = sum(norms) / len(norms)
        step.metrics["response/length"] = step.tokens / responses


def run(job: Job) -> Outcome:
    """Train and answer."""
    outcome = Outcome(versions("trl", "transformers", "torch", "datasets"))
    transformers.logging.disable_progress_bar()
    torch.manual_seed(job.seed)  # the value model's head is drawn
    model: Any = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(job.model)
    ends = model.generation_config.eos_token_id
    if job.steps:
        train(job, model, tokenizer, outcome)
    model.generation_config.eos_token_id = ends
    outcome.answers = answers(model, tokenizer, job.held_out, job.max_new_tokens)
    return outcome


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(run(Job.read(Path(sys.argv[1]).read_text())).dump())
