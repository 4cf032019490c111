"""Every mistake gets one line on stderr that names it and the way out, the right exit code, and changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sessions.folders import EngineInfo, new_session
from sessions.records import SessionSettings
from workbench.cli import main

HEADLESS = ["run", "--headless"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files to be wrong with, in the working directory, and one session that never ran."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "broken.jsonl").write_text("{\n")
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "good.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    (tmp_path / "sums.jsonl").write_text('{"prompt": "1+1=", "completion": "2"}\n')
    (tmp_path / "task.csv").write_text("a,b\n")
    (tmp_path / "model").mkdir()
    new_session("mine", SessionSettings(name="mine", steps=5, sets=["temperature=0.9"]))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nonsense"], 2, "invalid choice: 'nonsense'"),
        (["run", "--nonsense"], 2, "unrecognized arguments: --nonsense"),
        (["status"], 2, "the following arguments are required: S"),
        ([], 2, "the input is not a terminal; `workbench list` prints the sessions"),
        (["run"], 2, "not a terminal; add --headless to train without screens"),
        (["attach", "mine"], 2, "not a terminal; `workbench follow S` prints what happens"),
        (["run", "--json"], 2, "add --headless"),
        (
            [*HEADLESS, "--set", "learning_rat=1"],
            2,
            "unknown hyperparameter 'learning_rat'; did you mean learning_rate?",
        ),
        ([*HEADLESS, "--set", "learning_rate=fast"], 2, "learning_rate: 'fast' is not a number; allowed: 0 .. 1"),
        ([*HEADLESS, "--set", "learning_rate"], 2, "'learning_rate' should read name=value"),
        ([*HEADLESS, "--set", "group_size=1"], 2, "group_size: 1 is out of bounds; allowed: 2 .. 256"),
        ([*HEADLESS, "--set", "group_size=4@x"], 2, "the step after @ should be a whole number"),
        ([*HEADLESS, "--set", "kl_estimator=k1"], 2, "k1 has no gradient as a loss"),
        ([*HEADLESS, "--set", "kl_placement=reward@9"], 2, "kl_placement reward goes with kl_estimator k1"),
        (
            [*HEADLESS, "--algorithm", "ppo", "--preset", "dapo"],
            2,
            "--algorithm ppo does not go with --preset dapo, which is for grpo; leave one out",
        ),
        (
            [*HEADLESS, "--set", "algorithm=ppo", "--algorithm", "trpo"],
            2,
            "--algorithm trpo does not go with --set algorithm=ppo, which is for ppo; leave one out",
        ),
        ([*HEADLESS, "--algorithm", "ppp"], 2, "algorithm: 'ppp' is not one of grpo, ppo, trpo"),
        ([*HEADLESS, "--set", "rating_gate=wait"], 2, "rating_gate: 'wait' is not a gate"),
        ([*HEADLESS, "--model", "tinny"], 2, "unknown model 'tinny'; did you mean tiny?"),
        ([*HEADLESS, "--model", "smollm2"], 2, "`workbench fetch smollm2` gets it"),
        ([*HEADLESS, "--model", "model"], 2, "model model: no config.json there"),
        ([*HEADLESS, "--model", "/nowhere/at/all"], 2, "no config.json there"),
        ([*HEADLESS, "--task", "aritmetic"], 2, "unknown task 'aritmetic'; did you mean arithmetic?"),
        ([*HEADLESS, "--task", "missing.jsonl"], 2, "task missing.jsonl: no such file or folder"),
        ([*HEADLESS, "--task", "empty.jsonl"], 2, "the file is empty"),
        ([*HEADLESS, "--task", "broken.jsonl"], 2, "its first line is not JSON"),
        ([*HEADLESS, "--task", "list.jsonl"], 2, "begins a JSON array; name it .json"),
        ([*HEADLESS, "--task", "./task.csv"], 2, "none of its columns asks"),
        ([*HEADLESS, "--warm-up", "missing.jsonl"], 2, "warm-up missing.jsonl: cannot be read (No such file"),
        ([*HEADLESS, "--warm-up", "good.jsonl"], 2, "warm-up good.jsonl, line 1: there is no 'prompt'; give {"),
        ([*HEADLESS, "--warm-up", "sums.jsonl", "--warm-up-epochs", "0"], 2, "'0' is not a whole number from 1"),
        ([*HEADLESS, "--warm-up", "sums.jsonl", "--warm-up-batch", "x"], 2, "'x' is not a whole number from 1"),
        (
            [*HEADLESS, "--warm-up", "sums.jsonl", "--warm-up-learning-rate", "0"],
            2,
            "0 is out of bounds; allowed: above",
        ),
        ([*HEADLESS, "--warm-up", "sums.jsonl", "--warm-up-learning-rate", "nan"], 2, "nan is out of bounds"),
        (
            [*HEADLESS, "--warm-up-epochs", "2"],
            2,
            "--warm-up-epochs: there is no warm-up; give its file with --warm-up",
        ),
        ([*HEADLESS, "--name", "mine", "--warm-up", "sums.jsonl"], 2, "was started with no --warm-up, not --warm-up /"),
        ([*HEADLESS, "--name", "a b"], 2, "'a b' cannot name a session"),
        ([*HEADLESS, "--name", "../x"], 2, "cannot name a session"),
        ([*HEADLESS, "--name", "mine", "--steps", "-1"], 2, "'-1' is not a whole number"),
        (
            [*HEADLESS, "--name", "mine", "--set", "temperature=1"],
            2,
            "with --set temperature=0.9, not --set temperature=1",
        ),
        ([*HEADLESS, "--name", "mine", "--threads", "2"], 2, "was started with no --threads, not --threads 2"),
        ([*HEADLESS, "--name", "mine", "--seed", "2"], 2, "was started with --seed 0, not --seed 2"),
        ([*HEADLESS, "--name", "mine", "--no-nice"], 2, "was started with no --no-nice, not --no-nice"),
        ([*HEADLESS, "--name", "mine", "--task", "good.jsonl"], 2, "was started with --task arithmetic, not --task /"),
        ([*HEADLESS, "--steps", "ten"], 2, "'ten' is not a whole number from 0"),
        ([*HEADLESS, "--seed", "-1"], 2, "'-1' is not a whole number from 0"),
        ([*HEADLESS, "--seed", "1.5"], 2, "argument --seed: '1.5' is not a whole number from 0"),
        ([*HEADLESS, "--device", "tpu"], 2, "invalid choice: 'tpu'"),
        ([*HEADLESS, "--name", "\udcff"], 2, "is not UTF-8 text"),
        (["status", "mien"], 2, "no session named 'mien'; did you mean mine?"),
        (["status", "a/b"], 2, "cannot name a session"),
        (["follow", "other"], 2, "no session named 'other'; `workbench list` shows those there are"),
        (["follow", "mine"], 1, "session 'mine' has no engine; `workbench run --name mine` starts one"),
        (["send", "mine", "pause"], 1, "session 'mine' has no engine"),
        (["send", "mine", "pose"], 2, "unknown command 'pose'"),
        (["send", "mine"], 2, "no command; there are: pause"),
        (["send", "mine", "set", "temperature=9"], 2, "temperature: 9 is out of bounds"),
        (["send", "nobody", "pause"], 2, "no session named 'nobody'"),
        (["stop", "nobody"], 2, "no session named 'nobody'"),
        (["fetch", "gpt"], 2, "invalid choice: 'gpt'"),
        (["warm-up", "--out", "model/.."], 2, "is there already; give a new or empty folder"),
        (["warm-up", "--steps", "0"], 2, "is not a whole number from 1"),
    ],
    ids=lambda value: " ".join(value).encode("ascii", "replace").decode() if isinstance(value, list) else None,
)
def test_mistakes(
    inputs: Path, home: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    before = files(inputs.parent) | files(home)
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("workbench: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert files(inputs.parent) | files(home) == before


def test_a_home_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "file"))
    assert main(["run", "--headless"]) == 1
    assert "cannot make a session there" in capsys.readouterr().err
    assert main(["list"]) == 0
    assert main(["status", "x"]) == 2


def test_a_running_session_is_not_run_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new_session("busy", SessionSettings(name=""))
    lock = folder.lock()
    assert main(["run", "--headless", "--name", "busy"]) == 1
    assert "session 'busy' is running; `workbench attach busy` shows it" in capsys.readouterr().err
    monkeypatch.setattr("workbench.commands_session.PATIENCE_SECONDS", 0.0)
    assert main(["send", "busy", "pause"]) == 1
    assert "does not listen yet" in capsys.readouterr().err
    folder.write_engine(EngineInfo(pid=4711, socket="/nowhere", started=1.0, version="x"))
    monkeypatch.setattr("workbench.commands_session.HANG_SECONDS", 0.05)
    assert main(["stop", "busy"]) == 1
    assert "it may hang: `kill 4711` ends it" in capsys.readouterr().err
    os.close(lock)


def test_attach_without_a_name(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("workbench.commands_run.need_terminal", lambda _: None)
    assert main(["attach"]) == 1
    assert "no session is running" in capsys.readouterr().err
    locks = [new_session(name, SessionSettings(name="")).lock() for name in ("one", "two")]
    assert main(["attach"]) == 2
    assert "several sessions are running; name one of them: one, two" in capsys.readouterr().err
    for lock in locks:
        os.close(lock)
