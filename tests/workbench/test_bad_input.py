"""What a clumsy or hostile person gives to ``run``: one line that names it, exit code 2, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessions.folders import all_sessions
from sessions.run_settings import canonical_sets
from sessions.settings_file import parse_settings
from workbench.cli import main

ROW = b'{"question": "1+1", "answer": "2"}\n'
FILES = {
    "good.jsonl": ROW * 2,
    "packed.jsonl": b"\x1f\x8b\x08\x00" + bytes(20),
    "array.jsonl": b"[" + ROW.strip() + b"]\n",
    "lines.jsonl": b"[\n",
    "latin.jsonl": '{"question": "é"}\n'.encode("latin-1"),
    "wide.jsonl": ROW.decode().encode("utf-16"),
    "long.jsonl": b'{"question": "' + b"1" * (17 << 20) + b'"}\n',
    "good.txt": ROW,
    "notes.txt": b"def f(completions): return []\n",
    "counts.gguf": b"GGUF\x03\0\0\0" + b"\xff" * 16,
    "good.py": b"def f(completions, **kwargs): return [0.0] * len(completions)\ndef human(completions): ...\n",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that ``workbench WORDS`` ends with."""
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("workbench: error: ")
    assert all_sessions() == []
    return line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name", ""], "'' cannot name a session"),
        (["--model", ""], "model '': cannot be one; give tiny"),
        (["--model", "m" * 5000], "cannot be one; give tiny"),
        (["--model", "~nosuchuser/m"], "model ~nosuchuser/m: no config.json there"),
        (["--model", "counts.gguf"], "is a damaged GGUF file"),
        (["--task", "~nosuchuser/t.jsonl"], "task ~nosuchuser/t.jsonl: no such file or folder"),
        (["--task", "t" * 5000 + ".jsonl"], "File name too long"),
        (["--task", "packed.jsonl"], "is compressed; unpack it first"),
        (["--task", "array.jsonl"], "begins a JSON array; name it .json"),
        (["--task", "lines.jsonl"], "begins a JSON array; name it .json"),
        (["--task", "latin.jsonl"], "its first line is not UTF-8 (byte 15)"),
        (["--task", "wide.jsonl"], "its first line is not UTF-8 (byte 1)"),
        (["--task", "long.jsonl"], "its first line is longer than 16 MiB"),
        (["--task", "good.jsonl evaluation_split=good.jsonl"], "is the file that is trained on"),
        (["--task", "good.jsonl evaluation_split=good.txt"], "rows are read from files that end in .jsonl"),
        (["--task", "/dev/null"], "is neither a file nor a folder"),
        (["--reward", "~nosuchuser/r.py:f"], "reward ~nosuchuser/r.py:f: no such file"),
        (["--reward", "notes.txt:f"], "notes.txt is no file of Python"),
        (["--reward", "no/such:f"], "no/such is no file of Python"),
        (["--reward", "good.py:f name=a-b"], "'a-b' cannot name a component: letters, digits and _, at most 40"),
        (["--reward-model", "~nosuchuser/m"], "no reward_model.json there"),
        (["--warm-up", "~nosuchuser/w"], "No such file or directory"),
        (["--set", "group_size=4@" + "9" * 5000], "the step after @ should be a whole number from 1"),
        (["--threads", "99999999"], "out of bounds; allowed: whole numbers from 0 to 1024"),
        (["--set", "group_size=4@²"], "the step after @ should be a whole number from 1"),
    ],
)
def test_what_is_given_to_run_is_refused_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    line = refused(["run", "--headless", "--steps", "1", *words], capsys)
    assert message in line
    assert len(line) < 2000


def test_empty_names_of_files_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the name of the settings file is empty" in refused(["run", "", "--headless"], capsys)
    assert "is there already" in refused(["evaluate", "--model", "tiny", "--save", ""], capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = ""', "'' cannot name a session"),
        ('model = ""', "model '': cannot be one"),
        ("reward = [1]", "reward: 1 is a number; it is a table: begin it with [[reward]]"),
        ("task = { use = 1 }", "task.use: 1 is a number; it names what is used"),
        ("reward = [{ use = ' ' }]", "reward.use: is empty; it names what is used"),
        ("task = { use = 'maze', size = 'x' }", "my.toml: task: maze: size 'x' should read like"),
        ("lora = { r = 0 }", "my.toml: lora: r '0' is out of bounds"),
        ("learning_rate = 1e-4", "did you mean hyperparameters.learning_rate?"),
        ('track = ["x"]', "unknown value of my.toml: track: 'x'; known: tensorboard"),
        ("[hyperparameters]\nreward_weight.exact = true", "hyperparameters.reward_weight.exact: true; allowed: -1e6"),
    ],
)
def test_what_a_settings_file_says_is_refused_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    Path("my.toml").write_text(text)
    assert message in refused(["run", "my.toml", "--headless", "--steps", "1"], capsys)


def test_weights_of_components_are_set_on_the_line_and_in_a_file() -> None:
    sets = ["reward_weight.b=2", "reward_weight.a=0.5@3", "group_size=4", "reward_weight.a=1"]
    assert canonical_sets(sets) == [
        "group_size=4",
        "reward_weight.a=1",
        "reward_weight.b=2",
        "reward_weight.a=0.5@3",
    ]
    dotted = parse_settings("[hyperparameters]\nreward_weight.a = { start = 1, 3 = 0.5 }\n", "f", Path())
    quoted = parse_settings('[hyperparameters]\n"reward_weight.a" = { start = 1, 3 = 0.5 }\n', "f", Path())
    assert dotted == quoted == {"sets": ["reward_weight.a=1", "reward_weight.a=0.5@3"]}


def test_weights_of_components_are_written_into_a_new_file(here: Path) -> None:
    assert main(["new", "w.toml", "--set", "reward_weight.a=0.5", "--set", "reward_weight.a=0@9"]) == 0
    text = Path("w.toml").read_text()
    assert set(canonical_sets(parse_settings(text, "w", here)["sets"])) == {
        "reward_weight.a=0.5",
        "reward_weight.a=0@9",
    }
