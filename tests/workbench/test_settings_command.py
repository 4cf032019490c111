"""``workbench run FILE.toml`` and ``workbench new``: what is started, what is refused, and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.tasks import load_task
from sessions.folders import all_sessions, new_session, session_folder
from sessions.records import SessionSettings
from sessions.run_settings import SETTINGS
from sessions.settings_file import read_settings_file
from sessions.specs import parse_spec
from sessions.starts import FILE, note_start, package_versions, read_starts
from sessions.task_kinds import TASK_KINDS, task_kind
from tests.workbench.conftest import Workbench
from workbench import cli
from workbench.cli import main
from workbench.settings import check_settings

MY = """
steps = 3
seed = 5
watch = ["kl/k3 > 0.2 for 3 pause"]
[task]
use = "train.jsonl"
[[reward]]
use = "rewards.py:f"
weight = 2
[hyperparameters]
temperature = { start = 0.9, 3 = 0.8 }
group_size = 4
[checkpoints]
keep_last = 5
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a settings file and what it names."""
    folder = tmp_path / "my folder"
    folder.mkdir()
    (folder / "my.toml").write_text(MY)
    (folder / "train.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    (folder / "rewards.py").write_text("def f(completions, **kwargs):\n    return [0.0] * len(completions)\n")
    return folder


def test_a_session_is_run_from_a_file_and_goes_on_with_it(workbench: Workbench, here: Path) -> None:
    words = ("run", str(here / "my.toml"), "--headless", "--json", "--name", "s")
    done = workbench(*words, "--set", "group_size=2", "--seed", "6")
    assert done.returncode == 0, done.stderr
    assert steps_of(done.stdout) == {1, 2, 3}
    folder = session_folder("s")
    assert folder.settings() == SessionSettings(
        name="s",
        steps=3,
        seed=6,
        watches=["kl/k3 > 0.2 for 3 pause"],
        task=str(parse_spec(str(here / "train.jsonl"), "task")),
        rewards=[f"'{here}/rewards.py:f' weight=2.0"],
        sets=["group_size=2", "temperature=0.9", "temperature=0.8@3"],
        keep_last=5,
    )
    refused = workbench(*words)
    assert refused.returncode == 2
    assert "was started with --seed 6, not --seed 5" in refused.stderr
    refused = workbench(*words, "--seed", "6")
    assert "not --set group_size=4 --set temperature=0.9 --set temperature=0.8@3" in refused.stderr
    again = workbench(*words, "--seed", "6", "--set", "group_size=2", "--steps", "4", "--keep-last", "2")
    assert again.returncode == 0, again.stderr
    assert steps_of(again.stdout) == {4}
    assert (folder.settings().steps, folder.settings().keep_last) == (4, 2)
    first, second = read_starts(folder)
    assert (first.file, first.text) == (str(here / "my.toml"), MY)
    assert first.command == ["workbench", *words, "--set", "group_size=2", "--seed", "6"]
    assert second.command[-1] == "2"
    assert first.versions == package_versions()
    assert {"torch", "transformers", "rl-workbench"} <= set(first.versions)
    assert (folder.path / FILE).stat().st_mode & 0o777 == 0o600


def steps_of(output: str) -> set[int]:
    return {json.loads(line)["step"] for line in output.splitlines()}


def run(*words: str) -> int:
    return main(["run", "--headless", *words])


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("stps = 3", [], "my.toml: stps: unknown setting 'stps'; did you mean steps?"),
        ("[task]\nuse = 'gone.jsonl'", [], "/gone.jsonl: no such file"),
        ("model = 'smollm2'", [], "`workbench fetch smollm2` gets it"),
        ("[hyperparameters]\nkl_estimator = 'k1'", [], "k1 has no gradient as a loss"),
        ("[hyperparameters]\noverlong_penalty = 20", ["--set", "max_new_tokens=20"], "overlong_penalty 20 is not less"),
        ("[warm_up]\nepochs = 2", [], "there is no warm-up; give its file with --warm-up"),
        ("name = 'a/b'", [], "cannot name a session"),
        ("", ["--watch", "kl/k3 >"], "--watch: cannot read 'kl/k3 >'"),
        ("", ["--evaluation-rows", "-1"], "'-1' is not a whole number from 0"),
        ("", ["--micro-tokens", "63"], "'63' is not a whole number from 64"),
        ("", ["--keep-last", "9" * 17], "--keep-last: 1e+17 is out of bounds"),
        ("algorithm = 'ppo'", ["--set", "algorithm=trpo", "--algorithm", "grpo"], "does not go with --set algorithm="),
    ],
)
def test_what_cannot_be_started_is_refused_before_anything_is_written(
    here: Path, home: Path, capsys: pytest.CaptureFixture[str], text: str, words: list[str], said: str
) -> None:
    (here / "my.toml").write_text(text)
    assert run(str(here / "my.toml"), *words) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert all_sessions() == []


def test_a_file_that_is_not_there_says_how_to_get_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("gone.toml") == 2
    assert "gone.toml: no such file; `workbench new gone.toml` writes one" in capsys.readouterr().err


def test_every_setting_has_an_option_and_switches_go_both_ways() -> None:
    parser = cli.parser("run")
    assert set(SETTINGS) <= set(vars(parser.parse_args(["run"])))
    for name, setting in SETTINGS.items():
        if setting.kind == "switch":
            assert getattr(parser.parse_args(["run", setting.option]), name) is True
            if name != "paused":
                assert getattr(parser.parse_args(["run", f"--no-{setting.option[2:]}"]), name) is False
        assert getattr(parser.parse_args(["run"]), name) is None


def test_the_help_of_run_is_narrow_and_in_groups(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) < 100
    assert "usage: workbench run [FILE.toml] [options]\n" in text
    for heading in ("what is learned:", "warm-up, before RL:", "the machine:"):
        assert f"\n{heading}\n" in text


# ----------------------------------------------------------------------------------------------------- new


def test_a_new_file_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new"]) == 0
    assert "wrote workbench.toml; `workbench run workbench.toml` starts it" in capsys.readouterr().err
    before = Path("workbench.toml").read_text()
    assert main(["new", "--algorithm", "ppo"]) == 2
    assert "workbench.toml: is there already; give another name, or --force" in capsys.readouterr().err
    assert Path("workbench.toml").read_text() == before
    assert main(["new", "--algorithm", "ppo", "--force"]) == 0
    assert '\nalgorithm = "ppo"' in Path("workbench.toml").read_text()
    assert main(["new", "-"]) == 0
    assert capsys.readouterr().out.startswith("# Settings of a session; `workbench run FILE.toml` starts it.\n")
    assert main(["new", "x.txt"]) == 2
    assert main(["new", "gone/x.toml"]) == 2
    assert "gone/x.toml: cannot be written (No such file or directory)" in capsys.readouterr().err
    assert main(["new", "x.toml", "--task", "aritmetic"]) == 2
    assert not Path("x.toml").exists()


def test_a_new_file_with_a_name_of_control_characters_can_be_read(
    here: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    assert main(["new", "a\x1bb.toml"]) == 0
    assert read_settings_file(Path("a\x1bb.toml")).given == {"model": "tiny", "task": "arithmetic", "sets": []}


def test_what_new_is_given_is_what_the_file_starts(here: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    words = [
        "--task", "train.jsonl", "--reward", "rewards.py:f weight=0.5", "--reward", "exact", "--algorithm", "ppo",
        "--set", "learning_rate=1e-5", "--set", "clip_low=0.1@7", "--no-nice", "--keep-last", "9", "--seed", "4",
        "--reward-timeout", "2.5", "--watch", "entropy falls 30%", "--plain", "all",
    ]  # fmt: skip
    assert main(["new", "my.toml", "--force", *words]) == 0
    assert str(here) not in (here / "my.toml").read_text(), "the folder can be moved"
    started: list[SessionSettings] = []

    class Enough(Exception):
        pass

    def stop(name: str | None, settings: SessionSettings) -> None:
        started.append(settings)
        raise Enough

    monkeypatch.setattr("workbench.commands_run.new_session", stop)
    monkeypatch.chdir(home.parent)
    with pytest.raises(Enough):
        run(str(here / "my.toml"))
    monkeypatch.chdir(here)
    with pytest.raises(Enough):
        run(*words)
    assert started[0] == started[1]
    assert started[0].sets == ["algorithm=ppo", "learning_rate=1e-5", "clip_low=0.1@7"]


def test_a_file_from_a_session_starts_the_same_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = check_settings(
        SessionSettings(
            name="",
            task=f"'{here}/train.jsonl' held_out=0",
            rewards=[f"'{here}/rewards.py:f'"],
            sets=["learning_rate=2e-5", "algorithm=ppo", "epochs=2@5"],
            evaluation_rows=7,
            keep_token_steps=9,
        )
    )
    folder = new_session("old", settings)
    note_start(folder)
    copy = here / "sub" / "again.toml"
    copy.parent.mkdir()
    assert main(["new", str(copy), "--from", "old"]) == 0
    text = copy.read_text()
    assert "What session old was started with" in text
    assert f"torch {package_versions()['torch']}" in " ".join(text.split())
    assert run(str(copy), "--name", "old", "--seed", "1") == 2
    assert "was started with --seed 0, not --seed 1" in capsys.readouterr().err, "all else is the same"
    assert main(["new", "-", "--from", "old", "--seed", "1"]) == 2
    assert main(["new", "-", "--from", "older"]) == 2


def test_a_start_that_cannot_be_read_is_left_out(home: Path) -> None:
    folder = new_session("s", SessionSettings(name=""))
    assert read_starts(folder) == []
    note_start(folder)
    with (folder.path / FILE).open("a") as file:
        file.write('{"time": 1.0, "comm\n[]\n')
    note_start(folder)
    assert len(read_starts(folder)) == 2


# -------------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize(
    "name", [k.name for k in TASK_KINDS.values() if not k.needs and all(o.default is not None for o in k.options)]
)
def test_the_definition_of_a_task_states_the_hyperparameters_that_it_brings(name: str) -> None:
    assert load_task(name, 0).defaults == task_kind(parse_spec(name, "task")).defaults
