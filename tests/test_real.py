"""A real model on real questions: `make test-real GSM8K=PATH`.

Without a path the 64 questions that travel with the tests are used.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sessions.folders import cache_home, session_folder
from sessions.library import open_session

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.timeout(1200)]
MODELS = cache_home()
"""Where the real model is, before the tests get a home of their own."""
OWN = Path(__file__).parent / "data" / "gsm8k_64.jsonl"


@pytest.fixture(autouse=True)
def models(home: Path) -> None:
    home.mkdir()
    (home / "models").symlink_to(MODELS)


def train(task: str, *arguments: str) -> dict[int, dict[str, Any]]:
    """Step -> metrics of two steps of SmolLM2."""
    return run(
        *("--model", "smollm2", "--task", task, "--steps", "2", *arguments),
        *("--set", "prompts_per_step=2", "--set", "group_size=4", "--set", "max_new_tokens=48"),
    )


def run(*arguments: str) -> dict[int, dict[str, Any]]:
    """Step -> metrics of a session that ends by itself."""
    command = [sys.executable, "-m", "workbench", "run", *arguments, "--headless", "--json", "--no-nice"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["state"] == "DONE"
    steps = {line["step"]: line["metrics"] for line in lines if line["event"] == "step"}
    for metrics in steps.values():
        shown = ("time/", "memory/", "eval/", "reward/mean", "groups/dead", "trpo/", "value/", "kl/")
        print({name: round(value, 3) for name, value in metrics.items() if name.startswith(shown)})
    return steps


def test_smollm2_runs_two_steps_on_gsm8k() -> None:
    steps = train(os.environ.get("GSM8K") or str(OWN))
    assert set(steps) == {0, 1, 2}
    for step in (1, 2):
        assert 0 <= steps[step]["reward/mean"] <= 1
        assert 1 <= steps[step]["response/length"] <= 48
        assert abs(steps[step]["kl/k3"]) < 0.1


def sums(folder: Path) -> str:
    """A file of sums that the model gets right now and then."""
    rows = [
        {"question": f"Compute {a}+{b}. Answer with the number only.", "answer": str(a + b)}
        for a in range(2, 20)
        for b in range(2, 20)
    ]
    task = folder / "sums.jsonl"
    task.write_text("\n".join(map(json.dumps, rows)))
    return str(task)


def test_smollm2_learns_from_sums_that_it_gets_right_now_and_then(tmp_path: Path) -> None:
    steps = train(sums(tmp_path), "--set", "evaluate_every=0")
    trained = [metrics for metrics in steps.values() if metrics["groups/dead_fraction"] < 1]
    assert trained, "every group was dead: nothing was trained"
    for metrics in trained:
        assert metrics["grad/norm"] > 0
        assert metrics["update/relative_size"] > 0
        assert metrics["sampler_gap/max"] < 1e-3


@pytest.mark.parametrize("kind", ["head", "separate"])
def test_smollm2_with_ppo(tmp_path: Path, kind: str) -> None:
    given = ("--set", "evaluate_every=0", "--set", "value_warmup_steps=1", "--set", f"value_model={kind}")
    steps = train(sums(tmp_path), "--algorithm", "ppo", *given)
    assert "grad/norm" not in steps[1]
    assert steps[1]["value/loss"] > 0
    assert steps[2]["grad/norm"] > 0
    assert steps[2]["update/relative_size"] > 0
    assert steps[2]["ratio/first_error"] < 1e-3


@pytest.mark.parametrize("product", ["exact", "difference"])
def test_smollm2_with_trpo(tmp_path: Path, product: str) -> None:
    given = ("--set", "evaluate_every=0", "--set", f"fisher_product={product}", "--set", "cg_iterations=3")
    steps = train(sums(tmp_path), "--preset", "trpo", *given)
    trained = [metrics for metrics in steps.values() if metrics.get("grad/norm")]
    assert trained, "every group was dead: nothing was trained"
    for metrics in trained:
        assert metrics["trpo/step_fraction"] > 0
        assert metrics["trpo/kl_realised"] <= 0.01
        assert metrics["trpo/gain_actual"] > 0
    assert trained[0]["trpo/product_error"] < 1e-2


def test_smollm2_is_what_is_said_of_it() -> None:
    from engine.loading import load_policy, model_folder
    from engine.policy import make_accelerator

    policy = load_policy(model_folder("smollm2"), make_accelerator("cpu", "fp32"))
    assert sum(p.numel() for p in policy.parameters) == 134_515_008
    assert policy.model.get_input_embeddings().weight is policy.model.get_output_embeddings().weight
    named = {policy.tokenizer.convert_ids_to_tokens(token) for token in policy.end_tokens}
    assert "<|im_end|>" in named
    assert (policy.context, policy.vocabulary, policy.merges_system) == (8192, 49152, False)
    prompt = policy.tokenizer.decode(
        policy.encode_prompt([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}])
    )
    assert prompt == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"


# ------------------------------------------------------------------------------------------------ with adapters


ADAPTED = """
model = "smollm2"
name = "adapted"
algorithm = "{algorithm}"
preset = "{preset}"
steps = {steps}

[task]
use = "gsm8k"
path = {path}
system = "Solve the problem. The last line is #### and the number."

[lora]
r = 16

[[reward]]
use = "task"

[[reward]]
use = "length"
unit = "characters"
target = 0
limit = 400

[hyperparameters]
prompts_per_step = 2
group_size = 4
max_new_tokens = 48
learning_rate = 5e-4
kl_coefficient = 0.04
evaluate_every = 0
checkpoint_steps = 1
{more}
"""
"""The model gets nearly no question right within 48 tokens: its length in characters is what differs and teaches."""


def train_adapters(folder: Path, algorithm: str, preset: str, steps: int, *more: str) -> dict[int, dict[str, Any]]:
    """Metrics of the steps on GSM8K, which are checked as far as they hold for all algorithms."""
    path = json.dumps(os.environ.get("GSM8K") or str(OWN))
    settings = folder / "adapted.toml"
    text = ADAPTED.format(algorithm=algorithm, preset=preset, steps=steps, path=path, more="\n".join(more))
    settings.write_text(text, encoding="utf-8")
    measured = run(str(settings))
    assert set(measured) >= set(range(1, steps + 1))
    for step in range(1, steps + 1):
        assert all(math.isfinite(value) for value in measured[step].values())
        assert measured[step]["reward/length"] < 0
        assert measured[step]["groups/dead_fraction"] == 0
        assert measured[step]["response/failed"] == 0
        assert measured[step]["grad/norm"] > 0
        assert measured[step]["sampler_gap/max"] < 1e-3
    return measured


def adapters(step: int) -> Path:
    """The policy of a checkpoint, in which there is nothing but adapters."""
    folder = session_folder("adapted").path / "checkpoints" / str(step) / "policy"
    assert [path.name for path in folder.glob("*.safetensors")] == ["adapter_model.safetensors"]
    return folder


def loaded(step: int) -> Any:
    """What peft makes of it, on the model as it is on the disk."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(MODELS / "smollm2", local_files_only=True)
    return PeftModel.from_pretrained(base, str(adapters(step))).eval()


def moved(steps: int) -> dict[str, float]:
    """The largest change of each trained matrix from the start to a step."""
    from safetensors.torch import load_file

    first, last = (load_file(adapters(step) / "adapter_model.safetensors") for step in (0, steps))
    assert set(first) == set(last)
    assert all(".lora_A." in name or ".lora_B." in name for name in first)
    assert not any(first[name].any() for name in first if ".lora_B." in name)
    return {name: (last[name] - first[name]).abs().max().item() for name in first}


def test_smollm2_with_adapters_and_grpo(tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    train_adapters(tmp_path, "grpo", "", 2)
    assert min(moved(2).values()) > 0, "every matrix of the adapters has moved"
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "smollm2", local_files_only=True)
    model = loaded(1)
    farthest = 0.0
    for group in open_session("adapted").groups(2, 2, tokens=True):
        assert [message["role"] for message in group.messages] == ["system", "user"]
        prompt = tokenizer.apply_chat_template(group.messages, add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
        for response in group.responses:
            assert len(response.tokens) == len(response.logprobs) == len(response.reference_logprobs) > 0
            row, answered = torch.tensor([[*prompt, *response.tokens]]), torch.tensor(response.tokens)
            with torch.no_grad():
                given = [model(row).logits]
                with model.disable_adapter():
                    given.append(model(row).logits)
            own, base = (
                logits[0, len(prompt) - 1 : -1].log_softmax(-1).gather(1, answered[:, None])[:, 0] for logits in given
            )
            assert (own - torch.tensor(response.logprobs)).abs().max() < 2e-3, "sampled from the adapters of step 1"
            assert (base - torch.tensor(response.reference_logprobs)).abs().max() < 2e-3, "the base has not moved"
            farthest = max(farthest, (own - base).abs().max().item())
    assert farthest > 0.02, "the adapters say nothing: the comparison above proves nothing"


def test_smollm2_with_adapters_and_ppo(tmp_path: Path) -> None:
    steps = train_adapters(tmp_path, "ppo", "", 2, "value_warmup_steps = 0")
    assert steps[2]["value/loss"] > 0
    assert steps[2]["ratio/first_error"] < 1e-3
    assert min(moved(2).values()) > 0
    assert loaded(2).peft_config["default"].r == 16


def test_smollm2_with_adapters_and_trpo(tmp_path: Path) -> None:
    (step,) = (m for s, m in train_adapters(tmp_path, "trpo", "trpo", 1, "cg_iterations = 3").items() if s == 1)
    assert step["trpo/step_fraction"] > 0
    assert step["trpo/kl_realised"] <= 0.01
    assert step["trpo/gain_actual"] > 0
    assert step["trpo/product_error"] < 1e-2
    changes = moved(1)
    assert all((change > 0) == (".lora_B." in name) for name, change in changes.items()), "A has no gradient yet"
    assert loaded(1).peft_config["default"].r == 16
