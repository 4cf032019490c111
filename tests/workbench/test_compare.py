"""``compare``: branches side by side, as text and as JSON, of sessions that run and that have ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sessions.branches import Branch, Probe
from sessions.folders import SessionFolder, new_session
from sessions.records import SessionSettings
from sessions.store import Store
from tests.sessions.samples import step_record
from tests.tmux import Tmux
from workbench.cli import main
from workbench.commands_compare import read_comparison
from workbench.comparison_text import comparison_text

PROMPT = "A train travels 180 km at 90 km/h.\x1b[2J"


@pytest.fixture
def folder(home: Path) -> SessionFolder:
    """An ended session: ``main`` of twelve steps, ``low`` forked at 6 with another rate, and what a rewind left."""
    made = new_session("s", SessionSettings(name=""))
    store = Store(made.database)
    learn(store, "main", range(1, 13), 1e-4, 0.02)
    store.set_aside("main", 9, "ann went back from 12")
    store.add_branch(Branch(name="low", parent="main", step=6, time=1.0, why="ann forked it", seed=7))
    learn(store, "low", range(7, 11), 5e-5, 0.03)
    for branch, right in (("main", True), ("low", False)):
        answer = "two hours" if right else "three hours"
        store.add_probes(
            [
                Probe(
                    branch=branch,
                    step=6 if right else 10,
                    place=0,
                    prompt=PROMPT,
                    answer="2 h",
                    text=answer,
                    right=right,
                )
            ]
        )
    store.close()
    return made


def learn(store: Store, branch: str, steps: range, rate: float, gain: float) -> None:
    for step in steps:
        metrics: dict[str, float | None] = {"reward/mean": step * gain, "kl/k3": step / 1000}
        record = msgspec.structs.replace(step_record(step, branch), metrics=metrics, values={"learning_rate": rate})
        store.add_step(record, [], 500)


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The table under a heading: first word of a line -> the others."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(heading))
    end = next((i for i in range(start, len(lines)) if not lines[i]), len(lines))
    return {line.split()[0]: line.split()[1:] for line in lines[start + 1 : end]}


def test_a_comparison_as_text(folder: SessionFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "s", "main", "low"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("s: main and low part after step 6; all of them have reached step 9\n")
    assert rows(text, "branch ") == {
        "main": ["-", "9", "9", "0"],
        "low": ["main", "@6", "4", "10", "0", "active,", "seed", "7,", "ann", "forked", "it"],
    }
    assert rows(text, "hyperparameter") == {"learning_rate": ["0.0001", "5e-5"]}
    assert rows(text, "reward/mean") == {  # at 6, mean of 7..9, at 9, tip, best since
        "main": ["0.12", "0.16", "0.18", "0.18", "@9", "0.18", "@9"],
        "low": ["0.12", "0.24", "0.27", "0.3", "@10", "0.3", "@10"],
    }
    assert rows(text, "kl/k3")["low"][-2:] == ["0.007", "@7"]  # the least is the best
    assert "eval/accuracy" not in text  # never measured
    assert "main 1 of 1 right (100%), low 0 of 1 right (0%); one is right and another wrong on 1" in text
    beside = next(line for line in text.splitlines() if "two hours" in line)
    assert beside.split() == ["two", "hours", "!", "three", "hours"]
    assert "\x1b" not in text  # what a model wrote is data, in a pipe too


def test_metrics_are_chosen_and_three_branches_compared(
    folder: SessionFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "s", "low", "main", "main~1", "--metric", "kl/k3"]) == 0
    text = capsys.readouterr().out
    assert "reward/mean" not in text
    assert list(rows(text, "kl/k3")) == ["low", "main", "main~1"]
    assert "main~1" in rows(text, "branch ")
    assert "abandoned," in rows(text, "branch ")["main~1"]
    assert sum("main @6  right" in line for line in text.splitlines()) == 1  # main~1 was asked nothing of its own
    assert sum("main~1 @6  right" in line for line in text.splitlines()) == 1


def test_json_is_one_line(folder: SessionFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "s", "main", "low", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    found = json.loads(lines[0])
    assert (found["session"], found["parted"], found["common"]) == ("s", 6, 9)
    assert found["values"] == {"learning_rate": [1e-4, 5e-5]}
    low = next(s for s in found["standings"] if (s["metric"], s["branch"]) == ("reward/mean", "low"))
    assert low["tip"] == [10, pytest.approx(0.3)]
    assert [series["steps"] for series in found["series"]["reward/mean"]] == [[*range(1, 10)], [*range(1, 11)]]
    assert [a["text"] for a in found["probes"][0]["answers"]] == ["two hours", "three hours"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["s", "main", "lo"], "unknown branch 'lo'; did you mean low?"),
        (["s", "main"], "a comparison needs two branches"),
        (
            ["s", "main", "low", "--metric", "entropy"],
            "no branch has measured 'entropy'; there are: kl/k3, reward/mean",
        ),
        (["t", "main", "low"], "no session named 't'"),
    ],
)
def test_what_cannot_be_compared(
    folder: SessionFolder, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    assert main(["compare", *words]) == 2
    assert error in capsys.readouterr().err


def test_a_session_without_records(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_session("s", SessionSettings(name=""))
    assert main(["compare", "s", "main", "low"]) == 1
    assert "has no records yet" in capsys.readouterr().err


def test_branches_that_have_no_step_since_they_parted(folder: SessionFolder) -> None:
    store = Store(folder.database)
    store.add_branch(Branch(name="new", parent="main", step=9, time=3.0))
    store.close()
    comparison, branches = read_comparison(folder, ["main", "new"])
    text = comparison_text(comparison, branches, 80, charts=["reward/mean"])
    assert "there is no step yet that all of them have since then" in text
    assert rows(text, "reward/mean")["new"] == ["0.18", "-", "-", "0.18", "@9", "-"]
    assert "the same hyperparameters at their tips" in text


def test_the_curves_are_drawn_with_letters(folder: SessionFolder) -> None:
    comparison, branches = read_comparison(folder, ["main", "low"])
    text = comparison_text(comparison, branches, 60, charts=["reward/mean"], marks="ascii")
    chart = text[text.index("A main .180   B low .300") :]
    plot = [line.partition("|")[2] for line in chart.splitlines() if "|" in line][:13]
    assert any("b" in line for line in plot)
    assert any("a" in line for line in plot)
    assert max(map(len, chart.split("\n\n")[0].splitlines())) <= 60
    without = comparison_text(comparison, branches, 60)
    assert "A main" not in without


def test_a_terminal_gets_the_curves(folder: SessionFolder, tmp_path: Path) -> None:
    terminal = Tmux(100, 60, {"PYTHONPATH": str(Path(__file__).parents[2])}, tmp_path)
    try:
        terminal.command(f"{sys.executable} -m workbench compare s main low")
        terminal.wait("A main .180   B low .300")
    finally:
        terminal.kill()


def test_it_reads_while_an_engine_writes(folder: SessionFolder) -> None:
    store = Store(folder.database)
    try:
        learn(store, "low", range(11, 13), 5e-5, 0.03)
        done = subprocess.run(
            [sys.executable, "-m", "workbench", "compare", "s", "main", "low", "--json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        store.close()
    assert json.loads(done.stdout)["branches"][1]["tip"] == 12
