"""``workbench tasks``: what ``--task`` takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessions.columns import ANSWERS, PROMPTS
from sessions.specs import Kind
from sessions.task_kinds import ALL_KINDS
from workbench.cli import main

DOCS = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()


def test_every_kind_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(ALL_KINDS)]] == list(ALL_KINDS)
    assert main(["tasks", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["kind"] for row in rows] == list(ALL_KINDS)
    gsm8k = next(row for row in rows if row["kind"] == "gsm8k")
    assert {"name": "path", "default": None, "allowed": "a path"}.items() <= gsm8k["options"][0].items()


def test_the_options_of_a_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "dataset"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{option.name} " in text for option in ALL_KINDS["dataset"].options)
    assert main(["tasks", "gsm8k"]) == 0
    assert "path      needed   a path  " in capsys.readouterr().out
    assert main(["tasks", "maze"]) == 0
    assert "size          3        whole numbers, such as 2-4 or 2,5  cells wide" in capsys.readouterr().out


def test_the_names_and_options_of_reasoning_gym(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "reasoning-gym", "--json"]) == 0
    assert {"chain_sum", "sudoku"} <= set(json.loads(capsys.readouterr().out)["names"])
    assert main(["tasks", "reasoning-gym:chain_sum"]) == 0
    assert "min_terms" in capsys.readouterr().out
    assert main(["tasks", "reasoning-gym:chain_sum", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["own"]["min_terms"] == {"default": "2", "type": "int"}


@pytest.mark.parametrize(
    ("name", "words"),
    [("dataste", "did you mean dataset"), ("reasoning-gym:x", "unknown"), ("arithmetic:x", "unknown kind of task")],
)
def test_names_that_are_none(name: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", name]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("kind", [ALL_KINDS[name] for name in ("gsm8k", "reasoning-gym", "dataset", "python")])
def test_the_documentation_names_every_option(kind: Kind) -> None:
    assert [option.name for option in kind.options if f"`{option.name}" not in DOCS] == []


def test_the_documentation_names_every_known_column() -> None:
    assert [name for name in (*PROMPTS, *ANSWERS) if f"`{name}`" not in DOCS] == []
