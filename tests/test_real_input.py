"""What people bring, through the command line on the embedded model: `make test-real`.

Data and rewards as TRL's documentation lays them out, a person's own model, and tasks whose reward rises.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.loading import TINY
from sessions.folders import sessions_home
from sessions.library import open_session
from tests.engine import trl_rewards

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.timeout(1200)]
TRL_FILE = Path(trl_rewards.__file__)
ANSWERS = """
def closeness(completions, answer, **kwargs):
    numbers = [int(text) if text.isdecimal() else 1000 for text in completions]
    return [1 / (1 + abs(number - int(right))) for number, right in zip(numbers, answer)]
"""
"""A person's reward: 1 for a right number, and something for one that is near."""


def workbench(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command that has to succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "workbench", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done


def steps_of(done: subprocess.CompletedProcess[str]) -> dict[int, dict[str, float]]:
    """Step -> metrics."""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["state"] == "DONE"
    return {line["step"]: line["metrics"] for line in lines if line["event"] == "step"}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------ as TRL has them


def pairs() -> list[tuple[int, int]]:
    return [(a, b) for a in range(20, 30) for b in range(40, 45)]


def expected(function: Callable[..., Any], group: Any, columns: Mapping[str, Any], conversational: bool) -> list[Any]:
    """What a reward function gives when it is called as TRL calls it."""
    texts = [response.text for response in group.responses]
    n = len(texts)
    given: dict[str, Any] = {
        "prompts": [group.messages or group.prompt] * n,
        "completions": [[{"role": "assistant", "content": text}] for text in texts] if conversational else texts,
        "completion_ids": [response.tokens for response in group.responses],
        **{name: [value] * n for name, value in columns.items()},
    }
    values = function(**given)
    return list(asyncio.run(values) if inspect.isawaitable(values) else values)


def test_a_standard_dataset_and_reward_functions_of_trl(tmp_path: Path) -> None:
    rows = [{"prompt": f"{a}+{b}=", "ground_truth": str(a + b), "task": ("math", "other")[b % 2]} for a, b in pairs()]
    names = ("tokens_reward", "characters_reward", "accuracy_reward", "math_reward", "async_reward", "logging_reward")
    done = workbench(
        *("run", "--headless", "--json", "--no-nice", "--steps", "2", "--name", "standard"),
        *("--task", str(write_rows(tmp_path / "train.jsonl", rows))),
        *(word for name in names for word in ("--reward", f"{TRL_FILE}:{name} weight=0.5")),
        *("--set", "max_new_tokens=8", "--set", "learning_rate=1e-4"),
    )
    steps = steps_of(done)
    assert steps[1]["response/failed"] == steps[2]["response/failed"] == 0
    assert steps[2]["grad/norm"] > 0
    assert "logged/accuracy" in steps[2]
    of = {row["prompt"]: row for row in rows}
    seen = set()
    for group in open_session("standard").groups(tokens=True):
        columns = {name: of[group.prompt][name] for name in ("ground_truth", "task")}
        seen.add(columns["task"])
        for name in names[:-1]:  # the last one asks for the state of the run
            found = [response.components[name] for response in group.responses]
            assert found == pytest.approx(expected(getattr(trl_rewards, name), group, columns, False)), name
        for response in group.responses:
            right = float(response.text == columns["ground_truth"])
            assert response.components["logging_reward"] == pytest.approx(right * (1 + (group.step - 1) / 2))
            parts = [0.5 * value for value in response.components.values() if value is not None]
            assert response.reward == pytest.approx(sum(parts))
    assert seen == {"math", "other"}, "one of the functions applies to one kind of row"


def test_a_conversational_dataset_and_reward_functions_of_trl(tmp_path: Path) -> None:
    model = tmp_path / "chat"
    shutil.copytree(TINY, model)
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    rows = [{"prompt": [{"role": "user", "content": f"{a}+{b}="}], "ground_truth": str(a + b)} for a, b in pairs()]
    done = workbench(
        *("run", "--headless", "--json", "--no-nice", "--steps", "2", "--name", "chat", "--model", str(model)),
        *("--task", str(write_rows(tmp_path / "train.jsonl", rows))),
        *("--reward", f"{TRL_FILE}:format_reward", "--reward", f"{TRL_FILE}:tokens_reward"),
        *("--set", "max_new_tokens=8", "--set", "learning_rate=1e-4"),
    )
    steps = steps_of(done)
    assert steps[1]["response/failed"] == steps[2]["response/failed"] == 0
    assert steps[2]["grad/norm"] > 0
    for group in open_session("chat").groups(tokens=True):
        assert {"prompt": group.messages} in [{"prompt": row["prompt"]} for row in rows]
        for name in ("format_reward", "tokens_reward"):
            found = [response.components[name] for response in group.responses]
            assert found == expected(getattr(trl_rewards, name), group, {}, True), name


# ------------------------------------------------------------------------------------------------ two minutes


def test_a_newcomer_with_a_model_rows_and_a_reward(tmp_path: Path) -> None:
    """Three commands in an empty home: the settings, the training, and the model for other programs."""
    from transformers import AutoModelForCausalLM

    assert not sessions_home().exists()
    shutil.copytree(TINY, tmp_path / "my-model")
    write_rows(tmp_path / "train.jsonl", [{"question": f"{a}+{b}=", "answer": str(a + b)} for a, b in pairs()])
    (tmp_path / "rewards.py").write_text(ANSWERS)
    began = time.monotonic()
    bring = ("--model", "./my-model", "--task", "train.jsonl", "--reward", "rewards.py:closeness")
    workbench("new", "my.toml", *bring, "--set", "learning_rate=1e-4", folder=tmp_path)
    done = workbench("run", "my.toml", "--headless", "--json", "--steps", "20", folder=tmp_path)
    steps = steps_of(done)
    (name,) = (folder.name for folder in sessions_home().iterdir())
    workbench("export", name, "--to", "model", "trained", folder=tmp_path)
    print(f"three commands, 20 steps: {time.monotonic() - began:.0f} s")
    rewards = [steps[step]["reward/mean"] for step in range(1, 21)]
    print(f"reward {sum(rewards[:5]) / 5:.2f} -> {sum(rewards[-5:]) / 5:.2f}")
    assert sum(rewards[-5:]) > sum(rewards[:5])
    before, after = (
        AutoModelForCausalLM.from_pretrained(tmp_path / folder, local_files_only=True).get_input_embeddings().weight
        for folder in ("my-model", "trained")
    )
    assert not before.equal(after)


# ------------------------------------------------------------------------------------------------ rewards that rise


def learn(seed: int, task: str, steps: int, *sets: str) -> tuple[float, float, float]:
    """Mean reward over the first and the last tenth of the steps, and the held-out accuracy at the end."""
    done = workbench(
        *("run", "--headless", "--json", "--no-nice", "--seed", str(seed), "--steps", str(steps), "--task", task),
        *(word for text in ("evaluate_every=0", *sets) for word in ("--set", text)),
    )
    (name,) = (folder.name for folder in sessions_home().iterdir())
    accuracy = json.loads(workbench("evaluate", name, "--json").stdout)["metrics"]["eval/accuracy"]
    measured = steps_of(done)
    assert all(measured[step]["response/failed"] == 0 for step in range(1, steps + 1))
    rewards = [measured[step]["reward/mean"] for step in range(1, steps + 1)]
    n = steps // 10
    tenths = [sum(rewards[i : i + n]) / n for i in range(0, steps, n)]
    print(f"{task}, seed {seed}: reward by tenths {[round(r, 2) for r in tenths]}, held-out accuracy {accuracy:.2f}")
    return tenths[0], tenths[-1], accuracy


def test_the_reward_of_mazes_rises() -> None:
    first, last, accuracy = learn(0, "maze size=4-6 rows=1", 120)
    assert last > first + 0.15
    assert accuracy > 0.2


def test_the_reward_of_a_task_of_reasoning_gym_rises() -> None:
    """Of greatest common divisors: it learns to answer at all, and with the numbers that are right most often."""
    sets = ("learning_rate=3e-4", "entropy_bonus=0.01", "max_new_tokens=4")
    first, last, accuracy = learn(0, "reasoning-gym:gcd max_value=50 size=1000", 60, *sets)
    assert last > first + 0.06
    assert accuracy > 0.1
