"""``workbench rate`` and the export of what it made, as people run them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sessions import commands as c
from sessions.folders import new_session
from sessions.rating_file import RatingFile
from sessions.records import SessionSettings
from tests.test_walls import HEAVY, imported
from workbench.cli import main


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"prompt": "2+2?", "responses": ["4", "5"]}) + "\n")
    return path


def give(path: Path, output: Path | None = None) -> None:
    file = RatingFile(path, "ann", output)
    for letter, value in (("A", 5.0), ("B", 1.0)):
        answer, _ = file.command(c.Rate(who="ann", group="0.1", mode="likert", values={letter: value}))
        assert answer.status == "applied"
    file.close()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["none.jsonl"], 2, "none.jsonl: cannot be read (No such file or directory)"),
        (["bad.jsonl"], 2, "bad.jsonl, line 1: not a JSON object"),
        (["answers.jsonl", "--mode", "stars"], 2, "unknown rating mode 'stars'; known: critique, edit"),
        (["answers.jsonl", "--rule", "best"], 2, "rating_rule"),
        (["answers.jsonl", "--as", "a/b"], 2, "--as: 'a/b' is not a name"),
        (["answers.jsonl", "--output", "answers.jsonl"], 2, "that is the file to rate; give another"),
        (["answers.jsonl", "--output", "none/x.jsonl"], 2, "none/x.jsonl: cannot be written (No such file"),
        (["answers.jsonl", "--output", "bad.jsonl"], 2, "bad.jsonl: is not a file of ratings"),
        ([], 2, "the following arguments are required: FILE.jsonl"),
    ],
)
def test_a_wrong_request_is_one_line(answers: Path, monkeypatch, capsys, words, code, message) -> None:
    monkeypatch.chdir(answers.parent)
    monkeypatch.setattr("workbench.commands_rate.need_terminal", lambda instead: None)
    Path("bad.jsonl").write_text("no\n")
    assert main(["rate", *words]) == code
    said = capsys.readouterr()
    assert said.out == ""
    [line] = said.err.splitlines()
    assert message in line
    assert sorted(p.name for p in answers.parent.iterdir()) == ["answers.jsonl", "bad.jsonl"]


def test_without_a_terminal_it_says_so_and_makes_no_file(answers: Path, capsys) -> None:
    assert main(["rate", str(answers)]) == 2
    assert "is not a terminal; " in capsys.readouterr().err
    assert len(list(answers.parent.iterdir())) == 1


RATE = """
import json, sys
import workbench.output, workbench.commands_run, workbench.cli
import workbench.commands_rate as r
r.need_terminal = lambda instead: None
seen = []
import screens.app
screens.app.run_app = lambda folder, **o: (o["file"].snapshot(), o["file"].close(), "bye")[-1]
workbench.cli.main(sys.argv[1:])
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_it_brings_no_torch(answers: Path, home: Path) -> None:
    assert imported(RATE, "rate", str(answers)) & {*HEAVY, "engine"} == set()
    assert (answers.parent / "answers.jsonl.ratings.jsonl").exists()
    assert not (home / "sessions").exists()


def test_a_rated_file_is_exported_by_its_name(answers: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    give(answers)
    monkeypatch.chdir(answers.parent)
    assert main(["export", "answers.jsonl", "--to", "preferences", "out"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "workbench: preferences.jsonl: 1 row",
        "workbench: unpaired.jsonl: 2 rows",
        "workbench: demonstrations.jsonl: 0 rows",
        f"workbench: answers.jsonl is in {tmp_path / 'out'}",
    ]
    [pair] = map(json.loads, (tmp_path / "out" / "preferences.jsonl").read_text().splitlines())
    assert (pair["prompt"], pair["chosen"], pair["rejected"], pair["who"]) == ("2+2?", "4", "5", "ann")


def test_a_session_of_the_same_name_is_meant_unless_a_path_is_given(answers: Path, monkeypatch, capsys) -> None:
    give(answers, answers.parent / "mine.jsonl")
    new_session("answers.jsonl", SessionSettings(name="answers.jsonl"))
    monkeypatch.chdir(answers.parent)
    words = ["--to", "jsonl", "out", "--ratings", "mine.jsonl"]
    assert main(["export", "answers.jsonl", *words]) == 2
    assert "--ratings is of a rated file" in capsys.readouterr().err
    assert main(["export", f".{os.sep}answers.jsonl", *words, "--json"]) == 0
    assert [f["file"] for f in json.loads(capsys.readouterr().out)["files"]] == ["ratings.jsonl", "skips.jsonl"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "model"], "a rated file is exported --to preferences or jsonl; model is for sessions"),
        (["--to", "preferences", "--branch", "main"], "--branch is for sessions, not for a rated file"),
        (["--to", "preferences", "--steps", "1:2"], "--steps is for sessions, not for a rated file"),
        (["--to", "preferences", "--ratings", "none"], "has no ratings yet (none is not there)"),
    ],
)
def test_what_a_rated_file_has_not_is_refused(answers: Path, tmp_path: Path, capsys, words, message) -> None:
    give(answers)
    assert main(["export", str(answers), *words, str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
