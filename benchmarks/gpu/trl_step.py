"""TRL's GRPO step of the same sizes as :mod:`benchmarks.gpu.step`; runs in whichever Python has trl.

    python -m benchmarks.gpu.trl_step JOB        JOB: {"model", "sizes", "steps", "device"} as JSON

Prints the median seconds of a step as one line of JSON. Responses cannot end early there either.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.gpu.step import NAMED
from benchmarks.workload import random_policy, scattered, task


class Laps(TrainerCallback):  # type: ignore[misc]
    """When each step ended, the device idle."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._now()

    def _now(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Train so many steps and one more first, which does not count."""
    sizes, cpu = job["sizes"], job["device"] == "cpu"
    if job["model"] in NAMED:
        policy = random_policy(NAMED[job["model"]], sizes["prompt"] + sizes["length"], "cpu")
        model, tokenizer = policy.model, policy.tokenizer
    else:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(job["model"], local_files_only=True)
    rows = sizes["prompts"] * sizes["group"]
    laps = Laps()
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=scattered,
            args=GRPOConfig(
                output_dir=folder, use_cpu=cpu, bf16=not cpu, per_device_train_batch_size=rows,
                gradient_accumulation_steps=1, max_steps=job["steps"] + 1, num_generations=sizes["group"],
                max_completion_length=sizes["length"], generation_kwargs={"min_new_tokens": sizes["length"]},
                temperature=1.0, top_p=1.0, top_k=0, beta=0.0, learning_rate=1e-6, lr_scheduler_type="constant",
                weight_decay=0.0, optim="adamw_torch_fused", gradient_checkpointing=False,
                dataloader_pin_memory=False, logging_steps=1, report_to="none", save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([{"prompt": prompt.text} for prompt in task(sizes["prompt"]).prompts]),
            processing_class=tokenizer,
            callbacks=[laps],
        )  # fmt: skip
        trainer.train()
    taken = [b - a for a, b in zip(laps.times, laps.times[1:])][1:]
    lengths = [
        entry["completions/mean_length"] for entry in trainer.state.log_history if "completions/mean_length" in entry
    ]
    return {"step s": statistics.median(taken), "from": min(taken), "to": max(taken), "tokens a response": lengths[-1]}


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
