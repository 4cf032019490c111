"""The engine and the sessions from a script: the examples of the page, run as they stand, and what they promise."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import make_learner, make_policy, make_task
from engine.library import Reward
from sessions import open_session, session_names
from sessions.errors import InvalidValue, NoSuchSession, Refused, SessionError, UnknownName, UsageError
from sessions.folders import SessionFolder
from tests.engine.live import live, session
from tests.engine.small import random_policy

PAGE = (Path(__file__).parents[1] / "docs" / "library.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SMALL: dict[str, Any] = {"prompts_per_step": 2, "group_size": 2, "max_new_tokens": 4}


@contextlib.asynccontextmanager
async def served(folder: SessionFolder) -> AsyncIterator[None]:
    """The lock that an engine's process holds."""
    lock = folder.lock()
    try:
        yield
    finally:
        os.close(lock)


def brevity(completions: list[str], **columns: Any) -> list[float]:
    return [-len(text) / 12 for text in completions]


def test_the_example_of_the_page_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert len([line for line in EXAMPLES[0].splitlines() if line]) <= 16
    exec(compile(EXAMPLES[0].replace("range(10)", "range(2)"), "library.md", "exec"), {"__name__": "script"})
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:2]] == ["1", "2"]
    assert "eval/pass@4" in said[2]
    again = make_policy("my-model")  # what it saved is a model
    assert again.vocabulary == make_policy().vocabulary


async def test_the_example_of_the_page_reads_a_session_and_speaks_to_its_engine(capsys: Any) -> None:
    """In a thread of its own, while the engine's loop runs here: as in another process."""
    code = compile(EXAMPLES[1], "library.md", "exec")
    async with live(session("arithmetic-1", steps=9)) as tested, served(tested.engine.folder):
        await tested.step(3)
        reading = asyncio.create_task(asyncio.to_thread(exec, code, {}))
        await asyncio.sleep(0)
        await tested.first("resume")  # the change is applied when the next step begins
        await reading
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "['arithmetic-1']"
    assert [line.split()[0] for line in said[2:-1]] == [f"{step}.{n}" for step in (2, 3) for n in (1, 2, 3, 4)]
    assert said[-1].startswith("applied at step ")


def test_importing_the_packages_brings_neither_torch_nor_a_screen() -> None:
    code = "import engine, sessions, sys; print([m for m in ('torch', 'textual', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rewards_are_words_and_functions_with_their_weights() -> None:
    task = make_task(held_out=3, rewards=["task", "length target=4 unit=characters weight=0.5", (brevity, 0.1)])
    assert {name: c.weight for name, c in task.components.items()} == {"exact": 1.0, "length": 0.5, "brevity": 0.1}
    assert len(task.evaluation) == 3
    assert list(make_task(rewards=[brevity]).components) == ["brevity"]
    assert list(make_task().components) == ["exact"]


def test_the_whole_reward_lies_between_the_sums_of_what_its_parts_can_be() -> None:
    assert make_task(rewards=["task", (brevity, 0.1)]).reward_range == pytest.approx((0.0, 1.1))
    assert make_task(rewards=["length target=4 weight=0.5", (brevity, -2.0)]).reward_range == pytest.approx((-2.5, 0.0))
    assert make_task(rewards=[brevity], reward_range=(-3.0, 0.0)).reward_range == (-3.0, 0.0)


def test_a_data_set_without_answers_needs_no_more_than_a_function(tmp_path: Path) -> None:
    rows = tmp_path / "x.jsonl"
    rows.write_text('{"prompt": "1+1="}\n{"prompt": "2+2="}\n{"prompt": "3+3="}\n')
    assert list(make_task(str(rows), rewards=[brevity]).components) == ["brevity"]
    with pytest.raises(UsageError):
        make_task(str(rows))


@pytest.mark.parametrize("rewards", [[brevity, brevity], ["exact name=brevity", brevity]])
def test_two_rewards_of_one_name_are_refused(rewards: list[Reward]) -> None:
    with pytest.raises(UsageError, match="two rewards are called brevity"):
        make_task(rewards=rewards)


def test_a_learner_is_what_the_hyperparameters_say(tmp_path: Path) -> None:
    task, policy = make_task(held_out=2), random_policy()
    learner = make_learner(policy, task, "trpo", cg_iterations=3, folder=tmp_path / "f", **SMALL)
    values = learner.knobs.values
    assert (values["algorithm"], values["cg_iterations"], values["kl_placement"]) == ("trpo", 3, "reward")
    assert values["learning_rate"] == 1e-4, "the task's"
    assert (tmp_path / "f" / "0" / "policy").is_dir()
    with pytest.raises(InvalidValue, match="holds the start of another training"):
        make_learner(policy, task, folder=tmp_path / "f")
    assert make_learner(policy, task, preset="dapo", **SMALL).knobs.values["clip_high"] == 0.28


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"learning_rat": 1.0}, UnknownName),
        ({"group_size": 1}, InvalidValue),
        ({"top_p": 0.5}, InvalidValue),
        ({"reward_weight.nothing": 1.0}, UnknownName),
        ({"algorithm": "dpo"}, InvalidValue),
    ],
)
def test_what_is_not_allowed_is_refused_as_on_the_command_line(values: dict[str, Any], error: type) -> None:
    with pytest.raises(error):
        make_learner(random_policy(), make_task(held_out=2), **values)


def test_a_task_whose_held_out_prompts_have_ids_of_the_others_is_refused() -> None:
    """They would be asked the others' questions, whose tokens are kept by id."""
    task = make_task("arithmetic", held_out=4)
    mixed = replace(task, evaluation=[replace(prompt, id=task.prompts[0].id) for prompt in task.evaluation[:1]])
    with pytest.raises(UsageError, match="is there twice; each prompt needs its own, and so do held-out ones"):
        make_learner(random_policy(), mixed, **SMALL)


def test_the_temporary_folder_goes_with_its_learner() -> None:
    learner = make_learner(random_policy(), make_task(held_out=2), **SMALL)
    place = learner.folder
    assert (place / "0").is_dir()
    del learner
    import gc

    gc.collect()
    assert not place.exists()


def test_the_same_seed_gives_the_same_steps() -> None:
    one, other, another = (
        make_learner(random_policy(), make_task(held_out=2), seed=seed, kl_coefficient=0, **SMALL) for seed in (1, 1, 2)
    )
    metrics = [learner.run_step() for learner in (one, other, another)]
    assert metrics[0]["entropy"] == metrics[1]["entropy"] != metrics[2]["entropy"]
    assert all(torch.equal(a, b) for a, b in zip(one.policy.parameters, other.policy.parameters, strict=True))


async def test_a_session_is_read_and_spoken_to(home: Path) -> None:
    with pytest.raises(NoSuchSession):
        open_session("none")
    async with live(session("s", steps=5)) as tested, served(tested.engine.folder):
        await tested.step(2)

        def look() -> None:
            with open_session("s") as found:
                assert (session_names(), found.branch, found.running) == (["s"], "main", True)
                assert list(found.metric("reward/mean")) == [1, 2]
                assert [s.step for s in found.steps()][-2:] == [1, 2]
                assert found.group("2.1").responses[0].tokens
                assert len(list(found.groups(2))) == 4
                assert found.evaluation(99) is None
                assert found.query("status")["session"] == "s"
                with pytest.raises(Refused, match="no group"):
                    found.query("group 99.1")
                with pytest.raises(SessionError, match="has measured no 'reward/mena'"):
                    found.metric("reward/mena")

        await asyncio.to_thread(look)
    with open_session("s") as found, pytest.raises(SessionError, match="has no engine"):
        found.send("pause")
