"""A real model on real questions: `make test-real GSM8K=PATH`.

Without a path the 64 questions that travel with the tests are used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sessions.folders import cache_home

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.timeout(1200)]
MODELS = cache_home()
"""Where the real model is, before the tests get a home of their own."""
OWN = Path(__file__).parent / "data" / "gsm8k_64.jsonl"


def test_smollm2_trains_two_steps_on_gsm8k(home: Path) -> None:
    home.mkdir()
    (home / "models").symlink_to(MODELS)
    task = os.environ.get("GSM8K") or str(OWN)
    command = [
        *(sys.executable, "-m", "workbench", "run", "--headless", "--json"),
        *("--model", "smollm2", "--task", task, "--steps", "2"),
        *("--set", "prompts_per_step=2", "--set", "group_size=4", "--set", "max_new_tokens=48"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["state"] == "DONE"
    steps = {line["step"]: line["metrics"] for line in lines if line["event"] == "step"}
    assert set(steps) == {0, 1, 2}
    for step in (1, 2):
        metrics = steps[step]
        print({name: round(value, 3) for name, value in metrics.items() if name.startswith(("time/", "memory/"))})
        assert 0 <= metrics["reward/mean"] <= 1
        assert 1 <= metrics["response/length"] <= 48
        assert abs(metrics["kl/k3"]) < 0.1
        if "sampler_gap/max" in metrics:  # absent when every group was dead and nothing was trained
            assert metrics["sampler_gap/max"] < 1e-3
    session = next(line["session"] for line in lines if line["event"] == "end")
    group = subprocess.run(
        [sys.executable, "-m", "workbench", "attach", session], capture_output=True, text=True
    )  # output is no terminal: refused in one line
    assert group.returncode == 2
    assert len(group.stderr.splitlines()) == 1
