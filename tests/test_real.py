"""A real model on real questions: `make test-real GSM8K=PATH`.

Without a path the 64 questions that travel with the tests are used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sessions.folders import cache_home

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
    command = [
        *(sys.executable, "-m", "workbench", "run", "--headless", "--json", "--no-nice"),
        *("--model", "smollm2", "--task", task, "--steps", "2", *arguments),
        *("--set", "prompts_per_step=2", "--set", "group_size=4", "--set", "max_new_tokens=48"),
    ]
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
