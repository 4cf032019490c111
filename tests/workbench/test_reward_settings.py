"""Reward functions at the front door: what is refused before an engine is started, and what it is told."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from sessions.errors import UsageError
from sessions.records import SessionSettings
from sessions.run_settings import combined
from sessions.settings_file import parse_settings
from workbench.cli import main
from workbench.settings import check_settings


def test_where_a_run_was_started_is_kept_for_its_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checked = check_settings(SessionSettings(name="s", rewards=["pkg.mod:f"]))
    assert checked.reward_folder == os.getcwd() == str(tmp_path)
    monkeypatch.chdir("/")
    assert check_settings(checked).reward_folder == str(tmp_path)  # also where it is continued from elsewhere
    assert (
        check_settings(SessionSettings(name="s", rewards=["exact", f"{__file__}:SessionSettings"])).reward_folder == ""
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(completions:\n", ":1: '(' was never closed"),
        ("def g(completions): ...\n", ": defines no f; it has g"),
    ],
)
def test_a_file_that_cannot_be_used_starts_no_session(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str], source: str, message: str
) -> None:
    path = tmp_path / "r.py"
    path.write_text(source)
    assert main(["run", "--headless", "--reward", f"{path}:f"]) == 2
    assert capsys.readouterr().err.strip().endswith(f"{path}{message}")
    assert not list(home.glob("sessions/*"))


def test_the_settings_of_a_session_before_there_were_any_are_read() -> None:
    old = msgspec.toml.decode(b'name = "s"\n', type=SessionSettings)
    assert (old.reward_folder, old.rewards) == ("", [])
    with pytest.raises(UsageError):
        check_settings(msgspec.structs.replace(old, rewards=["nowhere.py:f"]))


def test_modules_of_a_settings_file_are_looked_for_beside_it(tmp_path: Path) -> None:
    text = '[[reward]]\nuse = "mine.rewards:accuracy"\n'
    assert combined(parse_settings(text, "x", tmp_path), {})["reward_folder"] == str(tmp_path)
    elsewhere = f'reward_folder = "sub"\n{text}'
    assert combined(parse_settings(elsewhere, "x", tmp_path), {})["reward_folder"] == str(tmp_path / "sub")
    assert "reward_folder" not in combined(parse_settings('[[reward]]\nuse = "exact"\n', "x", tmp_path), {})


def test_a_folder_of_modules_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--reward-folder .*: no such folder"):
        check_settings(SessionSettings(name="", reward_folder=str(tmp_path / "none")))
