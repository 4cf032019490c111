"""``run --headless``: the same engine, told about in lines."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from sessions.folders import SessionFolder, all_sessions, session_folder
from sessions.records import WARM_UP, StepRecord
from tests.sessions.samples import status, step_record
from tests.workbench.conftest import Workbench, poll
from workbench.headless import progress_text, step_json


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_to_its_end(workbench: Workbench) -> None:
    words = ["run", "--headless", "--json", "--steps", "6", "--seed", "3", "--set", "temperature=0.9@2"]
    done = workbench(*words, step=0.2)  # its status, with the number of steps, comes well before its last
    assert done.returncode == 0, done.stderr
    *steps, end = lines(done.stdout)
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[4]["metrics"]["reward/mean"] == 0.05
    assert all(step["event"] == "step" and step["session"] == "arithmetic-1" for step in steps)
    assert end == {"event": "end", "state": "DONE", "session": "arithmetic-1", "step": 6}
    assert "workbench: session arithmetic-1\n" in done.stderr
    assert "step 2: kl is high; wait" in done.stderr
    assert "step 6/6  reward 0.060  KL 0.0010  1,234 tok/s" in done.stderr
    settings = session_folder("arithmetic-1").settings()
    assert (settings.seed, settings.steps, settings.sets) == (3, 6, ["temperature=0.9@2"])


def test_without_json_stdout_stays_empty(workbench: Workbench) -> None:
    done = workbench("run", "--headless", "--steps", "3", "--name", "s")
    assert (done.returncode, done.stdout) == (0, "")
    assert "s ended after step 3; `workbench run --name s --steps 6` continues it" in done.stderr


def test_an_ended_session_is_continued_and_only_new_steps_are_printed(workbench: Workbench) -> None:
    with workbench.running("s", "--seed", "7") as folder:
        poll(lambda: workbench.now("s")["finished_steps"] >= 3)
    before = lines(workbench("list", "--json").stdout)[0]["finished_steps"]
    again = workbench.start("run", "--headless", "--json", "--name", "s", "--seed", "7")
    assert again.stdout is not None
    first = json.loads(again.stdout.readline())
    assert first["step"] == before + 1
    assert workbench("stop", "s").returncode == 0
    rest, _ = workbench.finish(again)
    assert [line["step"] for line in lines(rest)[:-1]] == list(range(before + 2, lines(rest)[-1]["step"] + 1))
    assert not folder.running()


def test_a_session_that_did_its_steps_goes_on_to_a_larger_number(workbench: Workbench) -> None:
    assert workbench("run", "--headless", "--steps", "2", "--name", "s").returncode == 0
    done = workbench("run", "--headless", "--json", "--name", "s", "--steps", "4")
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in lines(done.stdout)] == [3, 4, 4]
    assert session_folder("s").settings().steps == 4


def test_a_session_with_nothing_left_to_do(workbench: Workbench) -> None:
    assert workbench("run", "--headless", "--steps", "2", "--name", "s").returncode == 0
    done = workbench("run", "--headless", "--json", "--name", "s")
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout) == [{"event": "end", "state": "DONE", "session": "s", "step": 2}]


def test_an_engine_that_dies_while_training(workbench: Workbench) -> None:
    done = workbench("run", "--headless", "--json", "--name", "s", fate="kill")
    assert done.returncode == 1
    *steps, end = lines(done.stdout)
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert end == {"event": "end", "state": "FAILED", "session": "s", "step": 3, "cause": "killed by SIGKILL"}
    assert "the engine of s ended after step 3: killed by SIGKILL; its log: " in done.stderr
    assert session_folder("s").engine() is None
    shown = json.loads(workbench("status", "s", "--json").stdout)
    assert (shown["state"], shown["cause"], shown["finished_steps"]) == ("FAILED", "killed by SIGKILL", 3)
    assert workbench("run", "--headless", "--name", "s", fate="raise").returncode == 1
    assert json.loads(workbench("status", "s", "--json").stdout)["cause"] == "exit code 1: ValueError: in the middle"


@pytest.mark.parametrize(
    ("fate", "code", "message"),
    [
        ("usage", 2, "workbench: error: model x: cannot be loaded (nothing in it)\n"),
        ("error", 1, "ended while loading: model x: cannot be loaded (nothing in it); its log: "),
        ("trace", 1, "ended while loading: exit code 1: ValueError: the weights are upside down; its log: "),
    ],
)
def test_an_engine_that_dies_while_loading(
    workbench: Workbench, home: Path, fate: str, code: int, message: str
) -> None:
    done = workbench("run", "--headless", "--name", "s", fate=fate)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert all_sessions() == []
    assert list((home / "sessions").iterdir()) == []
    assert (home / "failed-start.log").exists()


def test_an_old_session_survives_an_engine_that_dies_while_loading(workbench: Workbench) -> None:
    workbench("run", "--headless", "--steps", "2", "--name", "s")
    done = workbench("run", "--headless", "--name", "s", fate="error")
    assert done.returncode == 1
    assert str(session_folder("s").log) in done.stderr


def test_interrupting_stops_after_a_checkpoint(workbench: Workbench) -> None:
    process = workbench.start("run", "--headless", "--json", "--name", "s")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = workbench.finish(process)
    assert process.returncode == 0, err
    assert "stopping after a checkpoint; ctrl+c again leaves it running" in err
    assert lines(out)[-1]["state"] == "DONE"
    assert not session_folder("s").running()


def test_interrupting_twice_leaves_it_running(workbench: Workbench) -> None:
    process = workbench.start("run", "--headless", "--json", "--name", "s", fate="deaf")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    while "ctrl+c again" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = workbench.finish(process)
    assert process.returncode == 0
    assert "left s to itself; `workbench status s` tells how it goes on" in err
    assert session_folder("s").running()


def test_interrupting_while_loading_leaves_nothing(workbench: Workbench) -> None:
    process = workbench.start("run", "--headless", "--name", "s", fate="stay")
    poll(lambda: [f for f in all_sessions() if f.engine() is not None])
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted while the engine was loading; it was stopped" in err
    assert all_sessions() == []


def test_the_engine_outlives_its_front_door(workbench: Workbench) -> None:
    process = workbench.start("run", "--headless", "--json", "--name", "s")
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    folder = session_folder("s")
    seen = json.loads(workbench("status", "s", "--json").stdout)["finished_steps"]
    poll(lambda: workbench.now("s")["finished_steps"] > seen + 2)
    assert workbench("stop", "s").returncode == 0
    assert not folder.running()


def test_a_reader_that_leaves(workbench: Workbench) -> None:
    process = workbench.start("run", "--headless", "--json", "--name", "s")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    folder: SessionFolder = session_folder("s")
    assert folder.running()
    workbench("stop", "s")


def test_lines_of_a_warm_up() -> None:
    record = StepRecord(branch=WARM_UP, step=3, time=1.0, metrics={"warmup/loss": 0.5})
    shown = json.loads(step_json("s", record))
    assert (shown["event"], shown["step"], shown["metrics"]) == ("warm-up", 3, {"warmup/loss": 0.5})
    at = {"branch": WARM_UP, "phase": "warming up", "done": 3, "total": 80, "left": 61.0, "tokens_per_second": 1234.0}
    text = progress_text(None, status(**at, note="loss 0.500, held-out 12.0%"))
    assert text == "warming up 3/80  loss 0.500, held-out 12.0%  1,234 tok/s  ETA 1:01"
    paused = progress_text(None, status("PAUSED", **at, note="ann paused"))
    assert paused == "warming up 3/80  1,234 tok/s  PAUSED: ann paused"


def test_lines() -> None:
    record: StepRecord = step_record(12, **{"kl/k3": None, "speed/tokens_per_second": 1234.5})
    record.nonfinite = ["kl/k3"]
    shown = json.loads(step_json("s", record))
    assert (shown["step"], shown["metrics"]["kl/k3"], shown["nonfinite"]) == (12, None, ["kl/k3"])
    assert progress_text(None, None) == ""
    text = progress_text(record, status(steps=100, left=3661.0))
    assert text == "step 12/100  reward 0.512  1,234 tok/s  ETA 1:01:01"
    assert progress_text(None, status("PAUSED", note="ann paused")) == "PAUSED: ann paused"
