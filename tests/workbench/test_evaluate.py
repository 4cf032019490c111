"""``workbench evaluate``: of a session, of its checkpoints, of any model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sessions.errors import InputFileError, UsageError
from sessions.folders import session_folder
from sessions.starts import read_starts
from sessions.store import Store
from workbench.cli import parser
from workbench.commands_evaluate import evaluate

SMALL = ("--set", "max_new_tokens=4", "--task", "arithmetic held_out=6")


def run(*words: str) -> int:
    arguments = parser().parse_args(["evaluate", *words])
    return evaluate(arguments)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "evaluate what"),
        (("s", "--model", "tiny"), "--model: session s has its own"),
        (("s", "--task", "arithmetic"), "--task: session s has its own"),
        (("s", "--set", "temperature=0.5"), "--set: session s has its own"),
        (("s", "--reward", "exact"), "--reward: session s has its own"),
        (("s", "--lora", "r=4"), "--lora: session s has its own"),
        (("s", "--step", "3", "--device", "cpu"), "--device: session s has its own"),
        (("s", "--best", "--precision", "fp32"), "--precision: session s has its own"),
        (("s", "--no-chat-template"), "--no-chat-template: session s has its own"),
        (("--task", "arithmetic"), "evaluate what"),
        (("--model", "tiny", "--step", "3"), "--step and --best are of a session"),
        (("--model", "tiny", "--best"), "--step and --best are of a session"),
        (("--model", "tinny"), "unknown model 'tinny'"),
        (("--model", "tiny", "--set", "eval_samples=-1"), "eval_samples"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_loaded(
    words: tuple[str, ...], said: str, home: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        run(*words)


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path, home: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(InputFileError, match="is there already"):
        run("--model", "tiny", "--save", str(tmp_path / "x"))
    (tmp_path / "y").symlink_to(tmp_path / "gone")
    with pytest.raises(InputFileError, match="is there already"):
        run("--model", "tiny", "--save", str(tmp_path / "y"))
    with pytest.raises(InputFileError, match="there is no folder"):
        run("--model", "tiny", "--save", str(tmp_path / "none" / "x"))


def test_a_model_is_evaluated_without_a_session(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model", "tiny", *SMALL, "--samples", "2", "--save", str(tmp_path / "a.jsonl"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert (found["of"], found["prompts"], len(rows)) == ("tiny", 6, 18)
    greedy = [row for row in rows if row["sample"] == 0]
    assert found["metrics"]["eval/accuracy"] == pytest.approx(sum(row["right"] for row in greedy) / 6)
    assert all(row["right"] == (row["completion"].strip() == row["answer"]) for row in rows)
    assert list(home.glob("sessions/*")) == []


def test_a_session_that_has_ended_is_evaluated_and_keeps_the_answers(home: Path) -> None:
    def said(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "workbench", *words], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout

    sets = ["max_new_tokens=4", "max_new_tokens=2@2", "prompts_per_step=2", "group_size=2", "evaluate_every=0"]
    words = [part for text in sets for part in ("--set", text)]
    said("run", "--headless", "--no-nice", "--steps", "2", "--name", "s", "--task", "arithmetic held_out=6", *words)
    figures = said("evaluate", "s", "--samples", "2")
    folder = session_folder("s")
    assert folder.running() is False
    store = Store(folder.database, read_only=True)
    assert [start.command[1] for start in read_starts(folder)] == ["run", "evaluate"]
    kept, record = store.held_out("main", 2), store.step("main", 2)
    store.close()
    assert kept is not None
    assert record is not None
    assert [len(a.samples) for a in kept.answers] == [2] * 6
    assert figures.startswith(f"s after step 2: held-out {kept.metrics['eval/accuracy']:.1%}, pass@1 ")
    assert record.metrics["eval/accuracy"] == kept.metrics["eval/accuracy"]
    found = json.loads(said("evaluate", "s", "--step", "2", "--json"))  # its checkpoint, asked elsewhere, answers alike
    assert (found["step"], found["metrics"]["eval/accuracy"]) == (2, kept.metrics["eval/accuracy"])
    assert found["metrics"]["eval/length"] == kept.metrics["eval/length"] <= 2  # with the values of that step
