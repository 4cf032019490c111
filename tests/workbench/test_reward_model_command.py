"""``workbench reward-model`` as people run it: a file of preferences, the embedded model, what comes of it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from sessions.orderings import held_out
from workbench.cli import main


@pytest.fixture(scope="module")
def preferences(tmp_path_factory) -> Path:
    """Somebody prefers short answers."""
    generator = random.Random(1)
    path = tmp_path_factory.mktemp("preferences") / "short.jsonl"
    rows = []
    for _ in range(600):
        a, b = generator.randrange(100), generator.randrange(100)
        short, long = sorted(
            ("".join(generator.choices("0123456789", k=k)) for k in generator.sample(range(1, 7), 2)), key=len
        )
        rows.append({"prompt": f"{a}+{b}=", "chosen": short, "rejected": long})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


COMMON = ["--device", "cpu", "--threads", "1"]


@pytest.mark.parametrize(
    ("kind", "more"), [("head", []), ("lora", ["--learning-rate", "3e-3"]), ("full", ["--learning-rate", "1e-3"])]
)
def test_a_model_trained_on_a_file_orders_held_out_responses(
    preferences: Path, tmp_path: Path, capsys, kind: str, more: list[str]
) -> None:
    folder = tmp_path / "rm"
    words = ["train", str(preferences), "--model", "tiny", "--output", str(folder), "--kind", kind, "--json"]
    assert main(["reward-model", *words, *more, *COMMON]) == 0
    printed = capsys.readouterr()
    [line] = printed.out.splitlines()
    trained = json.loads(line)
    secret = sum(held_out(json.loads(row)["prompt"]) for row in preferences.read_text().splitlines())
    assert trained["folder"] == str(folder)
    assert (trained["report"]["orderings"], trained["report"]["held_out"]["pairs"]) == (600 - secret, secret)
    assert trained["report"]["held_out"]["accuracy"] > 0.8
    assert f"short.jsonl: 600 pairs, {secret} of them held out" in printed.err
    assert f"held out: {secret} preferences; accuracy" in printed.err
    if kind != "head":
        return
    assert main(["reward-model", "evaluate", str(folder), str(preferences), "--json", *COMMON]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = trained["report"]["held_out"]
    assert found["held_out"] == {name: pytest.approx(value, rel=1e-3) for name, value in expected.items()}
    assert (found["all"]["pairs"], found["version"]) == (600, 1)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Rankings with ties and a pair, too few to say how good a model is."""
    path = tmp_path / "small.jsonl"
    rows = [
        {"prompt": f"{n}+1=", "completions": ["1", "22", "33", "444"], "ranks": [1, 2, 2, 3], "who": "a"}
        for n in range(10)
    ]
    rows.append({"prompt": [{"role": "user", "content": "1+1="}], "chosen": [{"role": "assistant", "content": "2"}],
                 "rejected": [{"role": "assistant", "content": "22"}], "margin": 1.0})  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_folder_is_the_data_and_figures_that_are_not_known_are_dashes(small: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "rm"
    words = ["train", str(small), "--output", str(folder), "--epochs", "2", "--batch", "4", "--ties", "average"]
    assert main(["reward-model", *words, "--seed", "3", *COMMON]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{folder}\n"
    secret = sum(held_out(f"{n}+1=") for n in range(10)) + held_out("1+1=")
    assert f"1 pair, 10 rankings (10 with ties), {secret} of them held out" in printed.err
    settings = json.loads((folder / "reward_model.json").read_text())["settings"]
    assert {name: settings[name] for name in ("epochs", "batch", "ties", "seed")} == {
        "epochs": 2, "batch": 4, "ties": "average", "seed": 3
    }  # fmt: skip
    one = tmp_path / "one.jsonl"
    one.write_text('{"prompt": "1+1=", "chosen": "2", "rejected": "3"}\n')
    assert main(["reward-model", "evaluate", str(folder), str(one), *COMMON]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["held-out", "prompts", "all"]
    assert table[2].split() == ["accuracy", "-", "-"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "the following arguments are required: train|evaluate"),
        (["train"], 2, "the following arguments are required: FILE"),
        (["train", "FILE", "--kind", "tail"], 2, "invalid choice: 'tail'"),
        (["train", "FILE", "--epochs", "0"], 2, "'0' is not a whole number from 1"),
        (["train", "FILE", "--learning-rate", "nan"], 2, "learning_rate: nan is out of bounds; allowed: 0 to 1"),
        (["train", "FILE", "--learning-rate", "-1"], 2, "learning_rate: -1 is out of bounds"),
        (["train", "FILE", "--output", "."], 2, ".: is there already; give a new or empty folder"),
        (["train", "FILE", "--model", "nowhere"], 2, "unknown model 'nowhere'"),
        (["train", "missing.jsonl"], 2, "preferences missing.jsonl: cannot be read (No such file or directory)"),
        (["train", "bad.jsonl"], 2, "preferences bad.jsonl, line 1: there is no 'chosen'; give {"),
        (["evaluate", "nowhere", "FILE"], 2, "reward model nowhere: reward_model.json cannot be read"),
        (["evaluate", "."], 2, "the following arguments are required: FILE"),
    ],
)
def test_a_wrong_request_is_one_line_and_writes_nothing(
    small: Path, tmp_path: Path, capsys, monkeypatch, words: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"prompt": "p"}\n')
    before = sorted(tmp_path.rglob("*"))
    assert main(["reward-model", *(str(small) if word == "FILE" else word for word in words)]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = [line for line in printed.err.splitlines() if line.startswith("workbench: error: ")]
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before
