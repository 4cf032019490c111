"""Folders: names, numbers, locks, sockets, and files that survive odd content."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sessions import folders
from sessions.branches import Branch
from sessions.errors import InputFileError, NoSuchSession, SessionError, SessionRunning, UsageError
from sessions.folders import (
    SOCKET_PATH_LIMIT,
    EngineInfo,
    ExitInfo,
    SessionFolder,
    all_sessions,
    check_session_name,
    new_session,
    replace_file,
    session_folder,
    socket_folder,
)
from sessions.records import SessionSettings
from sessions.store import Store


@pytest.mark.parametrize("name", ["a", "task-1", "A.b_c-9", "9", "x" * 64, "a..b"])
def test_names(name: str) -> None:
    assert check_session_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "-x", "a/b", "a b", "x" * 65, "a\n", "ä", "../x", "a\0b"])
def test_bad_names(name: str, home: Path) -> None:
    with pytest.raises(UsageError, match="cannot name a session; use letters"):
        check_session_name(name)
    with pytest.raises(UsageError):
        new_session(name or ".", SessionSettings(name=""))
    assert all_sessions() == []


def test_sessions_are_numbered_by_task() -> None:
    names = [new_session(None, SessionSettings(name="")).name for _ in range(3)]
    assert names == ["arithmetic-1", "arithmetic-2", "arithmetic-3"]
    file = new_session(None, SessionSettings(name="", task="/data/My tasks (1).jsonl"))
    assert file.name == "My-tasks-1-1"
    assert file.settings().name == "My-tasks-1-1"
    assert new_session(None, SessionSettings(name="", task="/data/....jsonl")).name == "session-1"
    assert {f.name for f in all_sessions()} == {*names, "My-tasks-1-1", "session-1"}


def test_a_taken_name_is_refused(home: Path) -> None:
    new_session("mine", SessionSettings(name=""))
    with pytest.raises(SessionError, match="session 'mine' exists already"):
        new_session("mine", SessionSettings(name=""))
    assert stat.S_IMODE((home / "sessions" / "mine").stat().st_mode) == 0o700


def test_who_looks_into_a_session_does_not_make_it_newer() -> None:
    """A reader of the database leaves SQLite's -wal and -shm in a folder where there were none."""
    for name, at in (("old", 1000.0), ("new", 2000.0)):
        folder = new_session(name, SessionSettings(name=name))
        Store(folder.database).close()
        for path in (*folder.path.iterdir(), folder.path):
            os.utime(path, (at, at))
    old = session_folder("old")
    store = Store(old.database, read_only=True)
    store.last_step("main")
    assert old.path.stat().st_mtime > 2000  # the oracle: something was left there
    assert [folder.name for folder in all_sessions()] == ["new", "old"]
    assert (old.changed(), session_folder("new").changed()) == (1000.0, 2000.0)
    store.close()
    writer = Store(old.database)
    writer.add_branch(Branch(name="more", parent="main", step=0, time=time.time()))
    assert [folder.name for folder in all_sessions()] == ["old", "new"]
    writer.close()


def test_an_unknown_session_gets_the_nearest() -> None:
    with pytest.raises(NoSuchSession, match="no session named 'mine'; `workbench list` shows those there are"):
        session_folder("mine")
    new_session("mine", SessionSettings(name=""))
    assert session_folder("mine").name == "mine"
    with pytest.raises(NoSuchSession, match=r"did you mean mine\?") as caught:
        session_folder("mien")
    assert caught.value.exit_code == 2


def test_no_home_to_write_to(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home.parent / "file"
    file.write_text("")
    monkeypatch.setenv("WORKBENCH_HOME", str(file))
    with pytest.raises(SessionError, match=r"cannot make a session there .*set WORKBENCH_HOME"):
        new_session("x", SessionSettings(name=""))
    assert all_sessions() == []


def test_a_session_that_cannot_be_written_leaves_no_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "replace_file", full)
    with pytest.raises(SessionError, match="No space left"):
        new_session("x", SessionSettings(name=""))
    assert list((home / "sessions").iterdir()) == []


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    sets=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), max_size=4),
    flag=st.booleans(),
    number=st.integers(-(2**40), 2**40),
)
def test_settings_round_trip(tmp_path: Path, text: str, sets: list[str], flag: bool, number: int) -> None:
    settings = SessionSettings(name="x", model=text, task='"\\\x7f\t' + text, sets=sets, nice=flag, seed=number)
    folder = SessionFolder(tmp_path)
    folder.write_settings(settings)
    assert folder.settings() == settings


@pytest.mark.parametrize("content", [b"", b"name = 3", b"name = ", b'name = "\xff"', b'name = "x"\nsteps = "many"'])
def test_bad_settings_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "session.toml").write_bytes(content)
    with pytest.raises(InputFileError, match=r"session\.toml: cannot be read"):
        SessionFolder(tmp_path).settings()


def test_one_engine_a_session() -> None:
    folder = new_session("mine", SessionSettings(name=""))
    assert not folder.running()
    descriptor = folder.lock()
    assert folder.running()
    with pytest.raises(SessionRunning, match="already has an engine; `workbench attach mine` shows it"):
        folder.lock()
    os.close(descriptor)
    assert not folder.running()
    os.close(folder.lock())


def test_the_lock_ends_with_its_process() -> None:
    folder = new_session("mine", SessionSettings(name=""))
    code = (
        "import sys; from pathlib import Path; from sessions.folders import SessionFolder;"
        "f = SessionFolder(Path(sys.argv[1])).lock(); print('locked', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"locked\n"
    assert folder.running()
    child.kill()
    child.communicate()
    assert not folder.running()


def test_looking_does_not_keep_an_engine_from_starting() -> None:
    """Whoever lists sessions touches their locks; an engine that starts at that moment must still get its own."""
    folder = new_session("mine", SessionSettings(name=""))
    os.close(folder.lock())
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            folder.running()

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(100):
            os.close(folder.lock())
    finally:
        stop.set()
        for looker in lookers:
            looker.join()


def test_two_who_look_do_not_see_each_other() -> None:
    folder = new_session("mine", SessionSettings(name=""))
    os.close(folder.lock())
    seen: list[bool] = []

    def look() -> None:
        seen.extend(folder.running() for _ in range(300))

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    for looker in lookers:
        looker.join()
    assert seen == [False] * 900


def test_who_serves_and_how_it_ended() -> None:
    folder = new_session("mine", SessionSettings(name=""))
    assert folder.engine() is None
    assert folder.exit() is None
    info = EngineInfo(pid=7, socket="/run/s", started=1.5, version="0.1.0")
    folder.write_engine(info)
    assert folder.engine() == info
    folder.forget_engine()
    folder.forget_engine()
    assert folder.engine() is None
    ended = ExitInfo(
        pid=7, code=None, signal="SIGKILL", out_of_memory=True, peak_memory_bytes=9, started=1, ended=2, cause="killed"
    )
    folder.write_exit(ended)
    assert folder.exit() == ended
    (folder.path / "exit.json").write_text("{")
    assert folder.exit() is None
    folder.forget_exit()
    assert folder.exit() is None


def test_the_logs_tail() -> None:
    folder = new_session("mine", SessionSettings(name=""))
    assert folder.log_tail() == []
    folder.log.write_bytes(b"".join(b"line %d \xff\n" % i for i in range(5000)))
    assert folder.log_tail(2) == ["line 4998 \ufffd", "line 4999 \ufffd"]
    assert folder.size() > 50_000


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, "old")
    with pytest.raises(UnicodeEncodeError):
        replace_file(path, "new \udc80")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_socket_folder_is_private(home: Path) -> None:
    folder = socket_folder()
    assert folder == home.parent / "run" / "workbench"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    assert stat.S_IMODE(socket_folder().stat().st_mode) == 0o700


def test_a_link_is_no_socket_folder(home: Path) -> None:
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    (home.parent / "run" / "workbench").symlink_to(elsewhere)
    with pytest.raises(SessionError, match="is not a folder of yours"):
        socket_folder()


def test_a_file_is_no_socket_folder(home: Path) -> None:
    (home.parent / "run" / "workbench").write_text("")
    with pytest.raises(SessionError, match="is not a folder of yours"):
        socket_folder()


@pytest.mark.parametrize("runtime", ["", "/nonexistent", "x" * 90])
def test_without_a_runtime_folder_the_temporary_one_serves(
    home: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    if len(runtime) == 90:
        runtime = str(home.parent / runtime)
        os.mkdir(runtime, 0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    monkeypatch.setattr(tempfile, "tempdir", str(home.parent))
    folder = socket_folder()
    assert folder == home.parent / f"workbench-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_another_users_runtime_folder_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After ``su`` the variable still names the folder of whoever logged in."""
    monkeypatch.setattr(tempfile, "tempdir", str(home.parent))
    real = os.getuid()
    (home.parent / f"workbench-{real + 1}").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: real + 1)
    with pytest.raises(SessionError, match=f"workbench-{real + 1}: is not a folder of yours"):
        socket_folder()


def test_socket_paths_are_short_and_differ(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = new_session("x" * 64, SessionSettings(name=""))
    two = new_session("x" * 63 + "y", SessionSettings(name=""))
    assert one.socket_path() == one.socket_path() != two.socket_path()
    for folder in (one, two):
        assert len(os.fsencode(folder.socket_path())) < SOCKET_PATH_LIMIT


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(home: Path) -> None:
    folder = new_session("s", SessionSettings(name="s"))
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    names = [f".{name}.{child.pid}.123" for name in ("session.toml", "engine.json", "exit.json")]
    kept = [f".engine.json.{os.getpid()}.123", f".notes.{child.pid}.123", f".exit.json.{child.pid}"]
    for name in [*names, *kept]:
        (folder.path / name).write_text("half")
    folder.tidy()
    assert sorted(p.name for p in folder.path.iterdir()) == sorted([*kept, "session.toml"])
