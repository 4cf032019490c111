"""What a session writes is its owner's alone, and what is not its owner's is refused."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sessions import private
from sessions.errors import InputFileError, SessionError
from sessions.folders import (
    NOTE_BYTES,
    SETTINGS_BYTES,
    EngineInfo,
    SessionFolder,
    all_sessions,
    new_session,
    session_folder,
    socket_folder,
)
from sessions.records import SessionSettings
from sessions.store import Store

NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
MAKE = """
import asyncio, os, sys
os.umask(int(sys.argv[1], 8))
from pathlib import Path
from sessions.folders import EngineInfo, ExitInfo, new_session
from sessions.records import SessionSettings
from sessions.server import Server
from sessions.store import Store
folder = new_session("s", SessionSettings(name=""))
os.close(folder.lock())
folder.write_engine(EngineInfo(pid=1, socket="x", started=1.0, version="x"))
folder.write_exit(ExitInfo(pid=1, code=0, signal="", out_of_memory=False, peak_memory_bytes=0, started=1, ended=1,
    cause="x"))
store = Store(folder.database)
store.set_meta("x", "y")
async def listen():
    server = Server(folder.socket_path(), None)
    await server.start()
    print(folder.socket_path(), oct(os.stat(folder.socket_path()).st_mode & 0o777), flush=True)
    await server.close()
asyncio.run(listen())
print(*(p.name for p in folder.path.iterdir()))
os._exit(0)  # with the database open: its log stays
"""


@pytest.fixture
def folder(home: Path) -> SessionFolder:
    return new_session("s", SessionSettings(name=""))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", ["000", "022", "777"])
def test_every_file_has_its_mode_whatever_the_umask(home: Path, umask: str) -> None:
    done = subprocess.run([sys.executable, "-c", MAKE, umask], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path, shown = done.stdout.splitlines()[0].split()
    assert shown == "0o600"
    assert mode(Path(path).parent) == 0o700
    for made in (home, home / "sessions", home / "sessions" / "s"):
        assert mode(made) == 0o700, made
    files = {p.name: oct(mode(p)) for p in (home / "sessions" / "s").iterdir()}
    names = {"session.toml", "session.db", "session.db-wal", "session.db-shm", "engine.json", "exit.json"}
    assert files == dict.fromkeys({*names, "engine.lock"}, "0o600")


async def test_the_socket_is_never_wider_than_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at the moment that it exists, before anything could have changed its mode."""
    from sessions.server import Server

    seen = []
    bind = socket.socket.bind

    def look(self: socket.socket, address: str) -> None:
        bind(self, address)
        seen.append(mode(Path(address)))

    monkeypatch.setattr(socket.socket, "bind", look)
    path = socket_folder() / "s"
    before = os.umask(0)
    try:
        server = Server(str(path), None)
        await server.start()
        assert os.umask(0) == 0  # and the umask is as it was
        await server.close()
    finally:
        os.umask(before)
    assert seen == [0o600]


def test_a_home_that_is_there_keeps_its_mode_and_may_be_a_link(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the person who says where it is."""
    real = tmp_path / "disk"
    real.mkdir(mode=0o755)
    real.chmod(0o755)
    home.symlink_to(real)
    folder = new_session("s", SessionSettings(name=""))
    assert mode(real) == 0o755
    assert mode(real / "sessions") == 0o700
    folder.secure()
    assert session_folder("s") == folder


def test_what_is_too_wide_is_tightened(folder: SessionFolder) -> None:
    (folder.checkpoints / "3" / "policy").mkdir(parents=True)
    (folder.checkpoints / "3" / "policy" / "model.safetensors").write_bytes(b"x")
    Store(folder.database).close()
    everything = [folder.path, *folder.path.rglob("*")]
    for path in everything:
        path.chmod(0o777 if path.is_dir() else 0o666)
    folder.secure()
    assert {path.name: mode(path) for path in everything} == {
        path.name: 0o700 if path.is_dir() else 0o600 for path in everything
    }


def test_the_folder_of_sessions_is_tightened_by_the_next_one(folder: SessionFolder) -> None:
    folder.path.parent.chmod(0o755)
    new_session("t", SessionSettings(name=""))
    assert mode(folder.path.parent) == 0o700


PLACES: dict[str, Callable[[SessionFolder], object]] = {
    "session.db": lambda folder: Store(folder.database),
    "engine.lock": SessionFolder.lock,
    "engine.log": SessionFolder.secure,
    "session.toml": SessionFolder.settings,
    "checkpoints": SessionFolder.secure,
}


@pytest.mark.parametrize("name", PLACES)
def test_a_link_in_the_place_of_a_file_is_refused(folder: SessionFolder, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    if name == "checkpoints":
        elsewhere.mkdir()
    else:
        elsewhere.write_bytes(b"")
    elsewhere.chmod(0o755)
    (folder.path / name).unlink(missing_ok=True)
    (folder.path / name).symlink_to(elsewhere)
    with pytest.raises(SessionError, match=f"s/{name}: is a link, which is not followed") as caught:
        PLACES[name](folder)
    assert "\n" not in str(caught.value)
    assert mode(elsewhere) == 0o755
    assert not elsewhere.is_file() or elsewhere.read_bytes() == b""


def test_a_dangling_link_makes_nothing_where_it_leads(folder: SessionFolder, tmp_path: Path) -> None:
    folder.database.symlink_to(tmp_path / "made")
    with pytest.raises(SessionError, match="is a link"):
        Store(folder.database)
    assert not (tmp_path / "made").exists()


def test_a_link_in_the_place_of_the_database_is_not_read_either(folder: SessionFolder, tmp_path: Path) -> None:
    Store(tmp_path / "x.db").close()
    folder.database.symlink_to(tmp_path / "x.db")
    with pytest.raises(SessionError, match="is a link"):
        Store(folder.database, read_only=True)


TAKE = """
import fcntl, os, sys
try:
    fcntl.lockf(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("taken")
except OSError:
    print("held")
"""


def test_looking_at_a_database_lets_go_of_no_lock(folder: SessionFolder) -> None:
    """A process that closes any descriptor of a file loses all of its locks on it, SQLite's too."""
    first = Store(folder.database)
    first.set_meta("x", "y")
    second, third = Store(folder.database), Store(folder.database, read_only=True)
    for store in (second, third):
        store.meta("x")
    folder.secure()
    said = subprocess.run([sys.executable, "-c", TAKE, folder.database], capture_output=True, text=True)
    assert said.stdout == "held\n"
    for store in (third, second, first):
        store.close()


@as_root
@pytest.mark.parametrize("name", PLACES)
def test_what_belongs_to_another_is_refused(folder: SessionFolder, name: str) -> None:
    path = folder.path / name
    if name == "checkpoints":
        path.mkdir()
    else:
        path.write_bytes(b"")
    os.chown(path, NOBODY, -1)
    with pytest.raises(SessionError, match=f"s/{name}: belongs to another user .uid {NOBODY}.; run as that user"):
        PLACES[name](folder)


@pytest.mark.parametrize("name", ["session.db", "engine.lock", "session.toml"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(folder: SessionFolder, name: str) -> None:
    path = folder.path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(SessionError, match=f"{name}: is not a file; remove it"):
        PLACES[name](folder)
    with pytest.raises(SessionError, match=f"{name}: is not a file; remove it"):
        folder.secure()


def test_a_folder_in_the_place_of_a_file_is_refused(folder: SessionFolder) -> None:
    folder.database.mkdir()
    with pytest.raises(SessionError, match=r"session\.db: is not a file"):
        Store(folder.database)


def test_a_link_in_the_place_of_a_session_is_refused_and_not_listed(folder: SessionFolder) -> None:
    (folder.path.parent / "t").symlink_to(folder.path)
    assert [f.name for f in all_sessions()] == ["s"]
    with pytest.raises(SessionError, match="sessions/t: is a link"):
        session_folder("t")
    with pytest.raises(SessionError, match="exists already"):
        new_session("t", SessionSettings(name=""))


@as_root
def test_a_session_of_another_is_refused_and_not_listed(folder: SessionFolder) -> None:
    os.chown(folder.path, NOBODY, -1)
    assert all_sessions() == []
    with pytest.raises(SessionError, match="sessions/s: belongs to another user"):
        session_folder("s")
    with pytest.raises(SessionError, match="sessions/s: belongs to another user"):
        folder.secure()


def test_a_link_in_the_place_of_the_sessions_is_refused(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (home / "sessions").symlink_to(tmp_path)
    with pytest.raises(SessionError, match="sessions: is a link"):
        new_session("s", SessionSettings(name=""))
    assert list(tmp_path.iterdir()) == []


@as_root
def test_a_socket_folder_of_another_is_refused(home: Path) -> None:
    path = socket_folder()
    os.chown(path, NOBODY, -1)
    with pytest.raises(SessionError, match="is not a folder of yours"):
        socket_folder()


def test_a_lock_that_is_a_link_is_held_by_no_engine(folder: SessionFolder, tmp_path: Path) -> None:
    """The list of sessions must not end on it; whoever starts an engine is told."""
    (folder.path / "engine.lock").symlink_to(tmp_path / "x")
    assert not folder.running()
    with pytest.raises(SessionError, match="is a link"):
        folder.secure()


def test_a_log_that_is_a_link_is_not_shown(folder: SessionFolder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    folder.log.symlink_to(tmp_path / "secret")
    assert folder.log_tail() == []


async def test_something_else_in_the_place_of_the_socket_is_refused(tmp_path: Path) -> None:
    from sessions.server import Server

    path = socket_folder() / "s"
    (tmp_path / "target").write_text("x")
    path.symlink_to(tmp_path / "target")
    with pytest.raises(SessionError, match="is not a socket, and the engine's would be there; remove it"):
        await Server(str(path), None).start()
    assert path.is_symlink()


def test_files_are_bounded_when_they_are_read(folder: SessionFolder) -> None:
    path = folder.path / "session.toml"
    path.write_bytes(path.read_bytes() + b"#" * SETTINGS_BYTES)
    with pytest.raises(SessionError, match=r"session\.toml: more than the 1,048,576 bytes that it may have"):
        folder.settings()
    info = EngineInfo(pid=1, socket="x", started=1.0, version="x")
    folder.write_engine(info)
    assert folder.engine() == info
    (folder.path / "engine.json").write_bytes((folder.path / "engine.json").read_bytes() + b" " * NOTE_BYTES)
    assert folder.engine() is None


@pytest.mark.parametrize(
    "content", ["x = " + "[" * 20_000, "x = " + "{a = " * 20_000, f"seed = {'9' * 10_000}", "name = [1]", "seed = nan"]
)
def test_hostile_settings_are_one_line(folder: SessionFolder, content: str) -> None:
    (folder.path / "session.toml").write_text(content)
    with pytest.raises(InputFileError, match=r"session\.toml: cannot be read") as caught:
        folder.settings()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"[" * 50_000, b'{"pid": "one"}', b"\xff", b'{"pid": 1e999}', b'{"cause": "\xff"}']
)
def test_a_hostile_note_is_no_note(folder: SessionFolder, content: bytes) -> None:
    for name in ("engine.json", "exit.json"):
        (folder.path / name).write_bytes(content)
    assert folder.engine() is None
    assert folder.exit() is None


def test_nothing_is_written_through_a_planted_file(folder: SessionFolder, tmp_path: Path) -> None:
    """What replaces a file is a new file, even where somebody guessed its name."""
    (tmp_path / "precious").write_text("mine")
    (folder.path / "exit.json").symlink_to(tmp_path / "precious")
    folder.write_engine(EngineInfo(pid=1, socket="x", started=1.0, version="x"))
    from sessions.folders import replace_file

    replace_file(folder.path / "exit.json", "new")
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (folder.path / "exit.json").is_symlink()


def test_a_file_that_is_emptied_is_looked_at_first(folder: SessionFolder, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old and long")
    path.chmod(0o644)
    with os.fdopen(private.open_file(path, os.O_WRONLY | os.O_TRUNC), "w") as file:
        file.write("new")
    assert path.read_text() == "new"
    assert mode(path) == 0o600


@as_root
def test_another_users_file_is_not_emptied(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("theirs")
    os.chown(path, NOBODY, -1)
    with pytest.raises(SessionError, match="belongs to another user"):
        private.open_file(path, os.O_WRONLY | os.O_TRUNC)
    assert path.read_text() == "theirs"
