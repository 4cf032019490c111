"""``race``: asked for, followed, left alone, compared."""

from __future__ import annotations

import argparse
import json
import signal

import pytest

from sessions.errors import UsageError
from sessions.folders import session_folder
from tests.workbench.conftest import Workbench, poll
from workbench.commands_race import race_command


def asked(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**{"algorithms": "grpo,ppo", "steps": 3, "at": None, "sets": None} | given)


def test_the_words_of_the_command_line_are_those_of_the_engine() -> None:
    command = race_command(asked(algorithms="grpo,ppo,trpo", at=0, sets=["temperature=0.5", "group_size=4"]))
    assert (command.algorithms, command.steps, command.step) == (["grpo", "ppo", "trpo"], 3, 0)
    assert command.values == {"temperature": 0.5, "group_size": 4}
    assert race_command(asked()).step == -1


@pytest.mark.parametrize(
    "given", [{"algorithms": "grpo"}, {"algorithms": "grpo,grpo"}, {"algorithms": "grpo,sft"}, {"sets": ["nothing=1"]}]
)
def test_a_race_that_cannot_be(given: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        race_command(asked(**given))


def test_a_race_in_a_session_that_runs(workbench: Workbench) -> None:
    with workbench.running("s") as folder:
        poll(lambda: workbench.now("s")["finished_steps"] >= 2)
        done = workbench("race", "s", "--algorithms", "grpo,ppo", "--steps", "4")
        assert done.returncode == 0, done.stderr
        assert folder.running()  # it was not started for the race
        assert "s: race-1-grpo and race-1-ppo part after step" in done.stdout
        lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.startswith("race-1-")}
        assert set(lines) == {"race-1-grpo", "race-1-ppo"}
        assert ["algorithm", "grpo", "ppo"] in [line.split() for line in done.stdout.splitlines()]
        assert "race-1-grpo 0 of 1 right (0%), race-1-ppo 1 of 1 right (100%)" in done.stdout
        assert "race-1-ppo begins at step" in done.stderr
        assert "race 1 is over" in done.stderr


def test_an_engine_is_started_and_stopped_for_it_and_the_session_stays_as_it_was(workbench: Workbench) -> None:
    workbench("run", "--headless", "--steps", "3", "--name", "s")
    before = session_folder("s").settings()
    done = workbench("race", "s", "--algorithms", "grpo,ppo,trpo", "--steps", "2", "--json", "--metric", "kl/k3")
    assert done.returncode == 0, done.stderr
    folder = session_folder("s")
    assert not folder.running()
    assert folder.settings() == before
    *steps, comparison = map(json.loads, done.stdout.splitlines())
    assert [(s["branch"], s["step"]) for s in steps] == [
        (f"race-1-{algorithm}", step) for algorithm in ("grpo", "ppo", "trpo") for step in (4, 5)
    ]
    assert comparison["parted"] == 3
    assert [info["branch"]["name"] for info in comparison["branches"]] == ["race-1-grpo", "race-1-ppo", "race-1-trpo"]
    assert list(comparison["series"]) == ["kl/k3"]


def test_what_the_engine_refuses(workbench: Workbench) -> None:
    with workbench.running("s"):
        first = workbench.start("race", "s", "--algorithms", "grpo,ppo", "--steps", "100000")
        poll(lambda: workbench.now("s")["branch"] == "race-1-grpo")
        second = workbench("race", "s", "--algorithms", "grpo,ppo", "--steps", "3")
        assert second.returncode == 1
        assert "rejected: a race is under way" in second.stderr
        assert workbench("send", "s", "race", "stop").returncode == 0
        out, err = workbench.finish(first)
        assert first.returncode == 1
        assert "the race was given up" in err
        assert out == ""  # one branch is nothing to compare


def left_alone(workbench: Workbench, words: list[str]) -> str:
    """Start a race, leave it with ctrl+c when it is under way, and give what was said."""
    process = workbench.start(*words, "--json")
    assert process.stdout is not None
    for line in process.stdout:  # the racing client has heard of it, not only the engine
        if json.loads(line).get("branch") == "race-1-grpo":
            break
    process.send_signal(signal.SIGINT)
    _, err = workbench.finish(process)
    assert process.returncode == 0, err
    return err


def test_ctrl_c_leaves_the_race_to_the_engine(workbench: Workbench) -> None:
    with workbench.running("s"):
        said = left_alone(workbench, ["race", "s", "--algorithms", "grpo,ppo", "--steps", "100000"])
        assert "the race goes on in s: `workbench attach s` (b)" in said
        assert "`workbench compare s race-1-grpo`" in said
        assert "`workbench send s race stop` gives it up" in said
        assert json.loads(workbench("status", "s", "--json").stdout)["branch"] == "race-1-grpo"


def test_ctrl_c_leaves_an_engine_that_was_started_for_it(workbench: Workbench) -> None:
    workbench("run", "--headless", "--steps", "3", "--name", "s")
    folder = session_folder("s")
    left_alone(workbench, ["race", "s", "--algorithms", "grpo,ppo", "--steps", "100000"])
    assert folder.running()
    workbench("stop", "s")


def test_an_engine_that_dies_in_the_race_is_told(workbench: Workbench) -> None:
    workbench("run", "--headless", "--steps", "3", "--name", "s")
    done = workbench("race", "s", "--algorithms", "grpo,ppo", "--steps", "2", fate="race-kill")
    assert done.returncode == 1
    assert "the engine of 's' ended in the race" in done.stderr
    assert "`workbench run --name s` goes on" in done.stderr


def test_an_engine_that_has_just_started_is_asked_again(workbench: Workbench) -> None:
    workbench("run", "--headless", "--steps", "3", "--name", "s")
    done = workbench("race", "s", "--algorithms", "grpo,ppo", "--steps", "2", fate="race-late")
    assert done.returncode == 0, done.stderr
    assert "race 1 is over" in done.stderr


def test_branches_and_probes_are_printed_as_people_read_them(workbench: Workbench) -> None:
    with workbench.running("s"):
        poll(lambda: workbench.now("s")["finished_steps"] >= 2)
        assert workbench("race", "s", "--algorithms", "grpo,ppo", "--steps", "2").returncode == 0
        text = workbench("send", "s", "branches").stdout.splitlines()
        assert text[0].split()[:4] == ["branch", "from", "steps", "tip"]
        assert [line.split()[0] for line in text[1:]] == ["main", "race-1-grpo", "race-1-ppo"]
        assert text[2].startswith("  race-1-grpo")  # under the branch that it left
        assert "active" in text[1]
        answers = workbench("send", "s", "probes", "race-1-ppo").stdout
        assert "1 of 1 right" in answers
        assert "5+7=" in answers
        assert json.loads(workbench("send", "s", "probes", "race-1-ppo", "--json").stdout)[0]["text"] == "12"
