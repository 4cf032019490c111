"""What the commands hand to the app, settings of the person, and small things that need no engine."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import engine
import screens.app
from engine.rewards import loading
from engine.tasks import MAKERS
from sessions.errors import InputFileError, SessionError, UsageError
from sessions.folders import EngineInfo, SessionFolder, all_sessions, new_session, session_folder
from sessions.people import whoami
from sessions.records import SessionSettings
from sessions.reward_kinds import REWARD_KINDS
from sessions.task_kinds import ALL_KINDS
from tests.workbench.conftest import Workbench, poll
from workbench import daemon, output
from workbench.cli import main
from workbench.daemon import restart_session, start_session
from workbench.output import ProgressLine, duration, listing, size, table
from workbench.settings import check_model, check_settings, check_task, preferences


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[SessionFolder | None, dict[str, Any]]]:
    """What the app was opened with, in place of opening it."""
    calls: list[tuple[SessionFolder | None, dict[str, Any]]] = []

    def run_app(folder: SessionFolder | None = None, **options: Any) -> str:
        calls.append((folder, options))
        return "detached"

    monkeypatch.setattr(screens.app, "run_app", run_app)
    monkeypatch.setattr("workbench.commands_run.need_terminal", lambda _: None)
    return calls


def test_the_list_of_sessions(opened: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    ((folder, options),) = opened
    assert folder is None
    assert options["start_session"] is start_session
    assert options["restart_session"] is restart_session
    assert (options["slow"], options["marks"], options["mouse"]) == (False, "auto", True)
    assert capsys.readouterr().err == "workbench: detached\n"


def test_attach(opened: list[Any], home: Path) -> None:
    home.mkdir()
    (home / "settings.toml").write_text('theme = "nord"\nmarks = "ascii"\nmouse = false\n[keys]\npause = "p"\n')
    new_session("s", SessionSettings(name=""))
    assert main(["attach", "s"]) == 0
    assert main(["attach", "s", "--read-only", "--slow", "--marks", "block"]) == 0
    (first, one), (second, two) = opened
    assert first == second == session_folder("s")
    assert (one["theme"], one["marks"], one["mouse"], one["keymap"]) == ("nord", "ascii", False, {"pause": "p"})
    assert (one["read_only"], two["read_only"]) == (False, True)
    assert (two["slow"], two["marks"]) == (True, "block")


def test_who_one_is_comes_from_the_command_line_else_the_settings_else_the_user(
    opened: list[Any], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir()
    new_session("s", SessionSettings(name=""))
    assert main(["attach", "s"]) == 0
    (home / "settings.toml").write_text('name = "ann b."\n')
    assert main(["attach", "s"]) == 0
    assert main([]) == 0
    assert main(["attach", "s", "--as", "tuner"]) == 0
    assert [options["who"] for _, options in opened] == [whoami(), "ann b.", "ann b.", "tuner"]
    assert main(["attach", "s", "--as", "\x1b[31m"]) == 2
    assert "error: --as: " in capsys.readouterr().err
    assert main(["attach", "s", "--as", ""]) == 2
    (home / "settings.toml").write_text('name = "a,b"\n')
    assert main(["attach", "s"]) == 2
    assert f"{home}/settings.toml: name: 'a,b' is not a name" in capsys.readouterr().err
    assert main(["attach", "s", "--as", "ann"]) == 0
    assert len(opened) == 5


@pytest.mark.parametrize("text", ["theme = 3", "teme = 'nord'", "theme = ", "\udcff"])
def test_bad_preferences(opened: list[Any], home: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    home.mkdir()
    (home / "settings.toml").write_bytes(text.encode(errors="surrogateescape"))
    assert main([]) == 2
    assert f"{home}/settings.toml: cannot be read" in capsys.readouterr().err
    assert opened == []


def test_run_opens_the_app_when_the_engine_has_loaded(
    workbench: Workbench, opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", workbench.environment["PYTHONPATH"])
    assert main(["run", "--name", "s", "--steps", "100000", "--paused"]) == 0
    ((folder, _),) = opened
    assert folder is not None
    assert folder.running()
    shown = json.loads(workbench("status", "s", "--json").stdout)
    assert shown["state"] == "PAUSED"
    assert workbench("stop", "s").returncode == 0
    assert main(["run", "--name", "s"]) == 0
    assert json.loads(workbench("status", "s", "--json").stdout)["state"] == "RUN"
    assert workbench("stop", "s").returncode == 0


def test_what_the_app_starts_sessions_with(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", workbench.environment["PYTHONPATH"])
    folder = asyncio.run(start_session(SessionSettings(name="", steps=100_000)))
    assert folder.name == "arithmetic-1"
    poll(lambda: folder.engine() is not None)
    with pytest.raises(SessionError, match="is running"):
        asyncio.run(restart_session(folder))
    workbench("stop", folder.name)
    asyncio.run(restart_session(folder))
    poll(lambda: folder.engine() is not None)
    workbench("stop", folder.name)
    with pytest.raises(UsageError):
        asyncio.run(start_session(SessionSettings(name="", sets=["group_size=1"])))
    assert all_sessions() == [folder]
    poll(lambda: all(supervisor.poll() is not None for supervisor in daemon._supervisors))  # none is left behind


def test_built_in_tasks_are_the_engines() -> None:
    assert set(ALL_KINDS) == set(MAKERS)


def test_built_in_rewards_are_the_engines() -> None:
    assert set(REWARD_KINDS) - {"task"} == set(loading.MAKERS)


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(Path(engine.__file__).parent / "tiny_model", tmp_path / "m")
    (tmp_path / "t.jsonl").write_text('\n{"question": "1+1", "answer": "2"}\n')
    made = check_settings(SessionSettings(name="", model="m", task="t.jsonl"))
    assert (made.model, made.task) == (str(tmp_path / "m"), str(tmp_path / "t.jsonl"))
    assert (check_model("tiny"), check_task("arithmetic")) == ("tiny", "arithmetic")


def test_a_fetched_model_is_known_by_name(home: Path) -> None:
    folder = home / "models" / "smollm2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert check_model("smollm2") == "smollm2"


def test_a_schedule_is_checked_at_each_of_its_steps() -> None:
    together = ["kl_placement=reward@5", "kl_estimator=k1@5"]
    check_settings(SessionSettings(name="", sets=together))
    with pytest.raises(UsageError, match="k1 has no gradient"):
        check_settings(SessionSettings(name="", sets=[*together, "kl_placement=loss@9"]))


@pytest.mark.parametrize("text", ["top_p=0.9", "top_k=20", "min_p=0.1", "top_p=0.9@7"])
def test_a_truncated_sampler_is_refused_for_training_without_its_flag(text: str) -> None:
    with pytest.raises(UsageError, match="--allow-sampler-mismatch"):
        check_settings(SessionSettings(name="", sets=[text]))
    check_settings(SessionSettings(name="", sets=[text], allow_sampler_mismatch=True))
    check_settings(SessionSettings(name="", sets=[f"eval_{text}"]))


def test_no_preferences(home: Path) -> None:
    assert preferences().marks == "auto"
    home.mkdir()
    (home / "settings.toml").mkdir()
    with pytest.raises(InputFileError):
        preferences()


def test_hyperparameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hyperparameters"]) == 0
    assert "learning_rate" in capsys.readouterr().out
    assert main(["hyperparameters", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"name", "default", "allowed", "boundary", "help"} == set(rows[0])


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["send", "--help"], ["--version"]])
def test_help_goes_to_stdout(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert out
    assert err == ""


def test_shapes_of_text() -> None:
    assert [duration(s) for s in (7, 725, 12_000, -1)] == ["0:07", "12:05", "3:20:00", "0:00"]
    assert [size(n) for n in (0, 999, 1000, 538_090_408, 2_000_000_000_000)] == [
        "0 B",
        "999 B",
        "1 KB",
        "538 MB",
        "2e+03 GB",
    ]
    assert table([["a", "n"], ["bb", "10"]], frozenset({1})) == "a    n\nbb  10"


def test_progress_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    progress = ProgressLine(lambda: now, seconds=10.0)
    for now in (0.0, 1.0, 9.0, 10.0, 11.0):
        progress.update(f"at {now:g}")
    progress.end("done")
    assert capsys.readouterr().err == "at 0\nat 10\ndone\n"


def test_progress_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output.sys.stderr, "isatty", lambda: True)
    progress = ProgressLine()
    progress.update("one")
    progress.update("one")
    progress.say("news")
    progress.update("two")
    progress.end()
    clear = "\r\x1b[2K"
    assert capsys.readouterr().err == f"{clear}one{clear}workbench: news\n{clear}two\n"


def test_text_of_a_model_is_made_visible_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert output.show("a\x1b[31m\nb") == "a\x1b[31m\nb"
    monkeypatch.setattr(output.sys.stdout, "isatty", lambda: True)
    assert output.show("a\x1b[31m\nb") == "a␛[31m\nb"


@pytest.mark.parametrize(("served", "code"), [(False, 0), (True, None)])
def test_an_engine_that_left_in_order_needs_no_last_words(
    home: Path, monkeypatch: pytest.MonkeyPatch, served: bool, code: int | None
) -> None:
    monkeypatch.setattr(daemon, "LAST_WORDS_SECONDS", 0.0)
    folder = new_session("s", SessionSettings(name=""))
    folder.database.touch()
    if served:  # it was killed before it could take its address with it
        folder.write_engine(EngineInfo(pid=1, socket="gone", started=0.0, version="0"))
    info = asyncio.run(daemon.until_ended(folder))
    assert (info.code if info is not None else None) == code


def test_a_listing_is_a_table_where_it_fits_and_paragraphs_where_it_does_not() -> None:
    rows = [["kind", "options", "what it is"], ["maze", "size rows", "a way out of a maze"], ["none", "", "nothing"]]
    assert listing(rows) == listing(rows, 40) == table(rows)
    assert listing(rows, 20).splitlines() == [
        "maze",
        "    a way out of a",
        "    maze",
        "    options: size",
        "    rows",
        "none",
        "    nothing",
    ]
