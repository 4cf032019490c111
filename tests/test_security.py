"""A whole session with the real engine: what it leaves on disk is its owner's alone and tells nothing of the shell."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engine.loading import TINY
from sessions.errors import SessionError
from sessions.folders import SessionFolder
from tests.workbench.conftest import poll
from workbench.cli import main
from workbench.daemon import last_step

pytestmark = pytest.mark.timeout(300)
SECRET = "s3cr3t-c4n4ry-of-the-shell"
SMALL = ["--set", "prompts_per_step=2", "--set", "group_size=2", "--set", "max_new_tokens=4",
         "--set", "checkpoint_steps=1", "--set", "evaluate_every=0", "--no-nice"]  # fmt: skip


def workbench(*words: str, umask: int = -1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "A_TOKEN": SECRET, "HF_TOKEN": SECRET, f"{SECRET}_NAME": "x"},
        umask=umask,
        capture_output=True,
        text=True,
        timeout=240,
    )


def run(*words: str, umask: int = -1) -> subprocess.CompletedProcess[str]:
    return workbench("run", "--headless", *SMALL, *words, umask=umask)


def telling(home: Path, *printed: subprocess.CompletedProcess[str]) -> list[str]:
    """Where the secret stands: files by their bytes, what was printed, and the names of files."""
    found = [str(p) for p in home.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    found += [str(p) for p in home.rglob("*") if SECRET in p.name]
    return found + [" ".join(done.args) for done in printed if SECRET in done.stdout + done.stderr]


def has_trained(folder: SessionFolder) -> bool:
    """Whether a step is on record, so that a session whose engine ends is kept."""
    try:
        last = last_step(folder)
    except SessionError:  # its tables are being made
        return False
    return last is not None and last.step > 0


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a session that has ended is kept for another test to begin with."""
    return tmp_path_factory.mktemp("ended") / "s"


@pytest.mark.parametrize("umask", [0o000, pytest.param(0o777, marks=pytest.mark.faults)])
def test_everything_a_session_leaves_is_its_owners_alone(home: Path, ended: Path, umask: int) -> None:
    done = run("--name", "s", "--steps", "1", umask=umask)
    assert done.returncode == 0, done.stderr
    again = run("--name", "s", "--steps", "2", umask=umask)
    assert again.returncode == 0, again.stderr
    folder = home / "sessions" / "s"
    if not ended.exists():
        shutil.copytree(folder, ended)
    names = {str(p.relative_to(folder)) for p in folder.rglob("*")}
    assert {"session.db", "engine.log", "exit.json", "session.toml", "engine.lock", "checkpoints"} <= names
    assert any(name.endswith("policy/model.safetensors") for name in names)
    for path in (home, *home.rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.lstat().st_mode) == wanted, path
    assert telling(home, done, again) == []


def test_a_failed_start_tells_nothing_of_the_environment(home: Path, tmp_path: Path) -> None:
    """The log of a session that could not be started is kept in the home."""
    model = Path(shutil.copytree(TINY, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"intermediate_size": 100}))  # only torch sees what is wrong
    weird = run("--name", "weird", "--device", "cuda")
    assert weird.returncode == 2
    home.mkdir(exist_ok=True)
    (home / "planted").write_text("mine")
    (home / "failed-start.log").unlink(missing_ok=True)
    (home / "failed-start.log").symlink_to(home / "planted")
    broken = run("--name", "broken", "--model", str(model))
    assert broken.returncode != 0
    assert (home / "planted").read_text() == "mine"  # a link in the log's place is not written through
    kept = home / "failed-start.log"
    assert not kept.is_symlink()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.stat().st_size > 0
    assert telling(home, broken, weird) == []


def test_a_killed_engine_tells_nothing_of_the_environment(home: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", "run", "--headless", "--name", "s", *SMALL],
        env={**os.environ, "OMP_NUM_THREADS": "1", "A_TOKEN": SECRET, "PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = SessionFolder(home / "sessions" / "s")
    try:
        poll(lambda: has_trained(folder))
        pid = folder.engine().pid
        assert SECRET.encode() in Path(f"/proc/{pid}/environ").read_bytes()  # it has it, and keeps it to itself
        os.kill(pid, signal.SIGABRT)  # which prints where every thread is
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
        if (engine := folder.engine()) is not None and folder.running():
            os.kill(engine.pid, signal.SIGKILL)
            poll(folder.exit)
    assert folder.exit().signal == "SIGABRT"
    assert "Thread 0x" in folder.log.read_text()
    assert SECRET not in out + err
    seen = [workbench("status", "s"), workbench("status", "s", "--json"), workbench("list", "--json")]
    assert telling(home, *seen) == []
    assert json.loads(seen[1].stdout)["state"] == "FAILED"


def test_a_session_with_a_link_in_it_is_not_run(home: Path, ended: Path, tmp_path: Path) -> None:
    if ended.exists():
        home.mkdir(mode=0o700)
        (home / "sessions").mkdir(mode=0o700)
        shutil.copytree(ended, home / "sessions" / "s")
    else:
        done = run("--name", "s", "--steps", "2")
        assert done.returncode == 0, done.stderr
    for name in ("session.db", "engine.lock", "engine.log", "checkpoints", "session.toml", "exit.json"):
        path = home / "sessions" / "s" / name
        path.rename(tmp_path / name)
        path.symlink_to(tmp_path / name)
        before = sorted((p.name, p.lstat().st_size, p.lstat().st_mtime_ns) for p in tmp_path.rglob("*"))
        refused = run("--name", "s", "--steps", "3")
        assert refused.returncode in (1, 2)
        assert f"s/{name}: is a link, which is not followed" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert sorted((p.name, p.lstat().st_size, p.lstat().st_mtime_ns) for p in tmp_path.rglob("*")) == before
        path.unlink()
        (tmp_path / name).rename(path)


NAMES = ["../s", "a/../../s", "/etc", "..", ".", "", "s\0", "s\n", "-s", "s/", "\x1b[2J"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", [["run", "--headless", "--name"], ["status"], ["follow"], ["stop"], ["plan"]])
def test_no_name_leaves_the_folder_of_sessions(
    home: Path, command: list[str], name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    (home / "s").mkdir()
    (home / "s" / "session.toml").write_text('name = "s"\n')
    assert main([*command, name] if not name.startswith("-") else [*command[:-1], f"{command[-1]}={name}"]) == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert printed.rstrip("\n").isprintable()
    assert sorted(p.name for p in home.iterdir()) == ["s"]
    assert [p.name for p in (home / "s").iterdir()] == ["session.toml"]


def test_what_a_terminal_would_obey_is_shown_in_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--headless", "--model", "/tmp/\x1b[2J\u202e"]) == 2
    printed = capsys.readouterr().err
    assert "␛[2J<U+202E>" in printed
    assert "\x1b" not in printed


def test_a_checkpoint_that_was_recorded_outside_is_refused(home: Path) -> None:
    folder = SessionFolder(home / "sessions" / "s")
    for fine in ("0", "812", "30~1", "7~12"):
        assert folder.checkpoint(fine) == folder.checkpoints / fine
    for wrong in (
        "../../x",
        "main~1/30",
        "/etc",
        "..",
        "",
        "a/..",
        "a/../b",
        "a/b/c",
        ".3.partial",
        "3/",
        "3\n",
        "a\0",
        "~/x",
    ):
        with pytest.raises(SessionError, match="cannot be a checkpoint's folder; the record is not used"):
            folder.checkpoint(wrong)
