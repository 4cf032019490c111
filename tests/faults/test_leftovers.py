"""What dead engines leave, and what others put in an engine's way."""

from __future__ import annotations

import json
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from sessions.folders import EngineInfo, SessionFolder
from tests.faults.count import Count
from tests.faults.harness import SECONDS, last_step, nothing_left, recovered, rows, small_session, workbench
from tests.faults.nursery import Nursery

pytestmark = pytest.mark.timeout(240)


def dead_pid() -> int:
    """Of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_what_a_dead_engine_left_is_in_nobodys_way(count: Count, nursery: Nursery) -> None:
    kind, folder = "a stale socket, lock and half-written files", small_session()
    pid, path = dead_pid(), folder.socket_path()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    folder.write_engine(EngineInfo(pid=pid, socket=path, started=1.0, version="0"))
    (folder.path / "engine.lock").touch()
    for name in (".session.toml", ".exit.json", ".engine.json"):
        (folder.path / f"{name}.{pid}.123").write_text("half of i")
    (folder.checkpoints / ".5.partial" / "policy").mkdir(parents=True)
    (folder.checkpoints / ".5.partial" / "policy" / "model.safetensors").write_bytes(b"half")
    count.injected[kind] += 1
    recovered(folder, count, kind, nursery=nursery)


def test_somebody_who_listens_on_its_path_is_left_alone_and_the_engine_is_found(count: Count, nursery: Nursery) -> None:
    kind, folder = "another listener on the socket's path", small_session()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(folder.socket_path())
        other.listen()
        count.injected[kind] += 1
        recovered(folder, count, kind, nursery=nursery)


def test_a_path_that_cannot_be_taken_is_named_in_one_line(count: Count, nursery: Nursery) -> None:
    kind, folder = "a folder in the place of the socket", small_session()
    path = Path(folder.socket_path())
    path.mkdir()
    (path / "file").touch()
    count.injected[kind] += 1
    process = nursery.engine(folder.path)
    process.join(SECONDS)
    assert process.exitcode == 1
    told = folder.log_tail(50)
    assert told[-1].startswith("error: ")
    assert str(path) in told[-1]
    assert not any("Traceback" in line for line in told)
    (path / "file").unlink()
    path.rmdir()
    recovered(folder, count, kind, nursery=nursery)


def test_a_pid_that_another_process_has_by_now_is_not_taken_for_the_engine(count: Count, nursery: Nursery) -> None:
    kind, folder = "engine.json with a recycled pid", small_session()
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        info = EngineInfo(pid=other.pid, socket=folder.socket_path(), started=time.time(), version="0.1.0")
        folder.write_engine(info)
        count.injected[kind] += 1
        for words in (["stop", "s"], ["stop", "s", "--now"], ["status", "s"], ["send", "s", "pause"]):
            done = workbench(*words)
            assert done.stdout == "" or "RUN" not in done.stdout
            assert "Traceback" not in done.stderr
        listed = [json.loads(line) for line in workbench("list", "--json").stdout.splitlines()]
        assert [line["state"] for line in listed] == ["NEW"]
        recovered(folder, count, kind, nursery=nursery)
        assert other.poll() is None, "a process that is no engine was ended"
    finally:
        other.kill()
        other.wait()


# ---------------------------------------------------------------------------------------------------- the database


def damaged(folder: SessionFolder, nursery: Nursery) -> list[str]:
    """Start the engine of a session whose database it cannot use; what it says, in one line."""
    process = nursery.engine(folder.path)
    process.join(SECONDS)
    assert process.exitcode == 1, folder.log_tail(20)
    told = [line for line in folder.log_tail(50) if line]
    assert told[-1].startswith("error: "), told
    assert not any("Traceback" in line for line in told), told
    assert not folder.running()
    return told


@pytest.fixture
def trained(nursery: Nursery) -> SessionFolder:
    """A session of four steps that has ended."""
    folder = small_session(steps=4)
    process = nursery.engine(folder.path)
    process.join(SECONDS)
    assert process.exitcode == 0, folder.log_tail(20)
    return folder


def test_a_database_from_a_newer_version_is_refused_in_one_line_and_left_alone(
    trained: SessionFolder, nursery: Nursery, count: Count
) -> None:
    kind = "a database from a newer version"
    was = rows(trained, "SELECT value FROM meta WHERE key='schema'")[0][0]
    _set_schema(trained, "999")
    before = trained.database.read_bytes()
    count.injected[kind] += 1
    done = workbench("run", "--name", "s", "--headless", "--steps", "6")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "newer workbench" in last
    assert "upgrade" in last
    assert "Traceback" not in done.stderr
    assert trained.database.read_bytes() == before
    nothing_left(trained)
    _set_schema(trained, was)
    recovered(trained, count, kind, nursery=nursery)


def _set_schema(folder: SessionFolder, version: str) -> None:
    db = sqlite3.connect(folder.database)
    db.execute("UPDATE meta SET value=? WHERE key='schema'", (version,))
    db.commit()
    db.close()


@pytest.mark.parametrize("how", ["truncated", "its first page overwritten", "its pages overwritten"])
def test_a_damaged_database_is_refused_in_one_line_and_left_alone(
    how: str, trained: SessionFolder, nursery: Nursery, count: Count
) -> None:
    kind = "a damaged database"
    whole = trained.database.read_bytes()
    match how:
        case "truncated":
            bad = whole[: len(whole) // 2]
        case "its first page overwritten":
            bad = b"x" * 4096 + whole[4096:]
        case _:
            bad = whole[:4096] + b"\xa5" * (len(whole) - 4096)
    trained.database.write_bytes(bad)
    count.injected[kind] += 1
    assert "session.db" in damaged(trained, nursery)[-1]
    assert trained.database.read_bytes() == bad
    trained.database.write_bytes(whole)  # as from a backup
    for name in ("session.db-wal", "session.db-shm"):
        (trained.path / name).unlink(missing_ok=True)
    recovered(trained, count, kind, nursery=nursery)


def other(folder: SessionFolder, name: str) -> SessionFolder:
    """A copy of a session, to go on to six steps."""
    copied = SessionFolder(folder.path.with_name(name))
    shutil.copytree(folder.path, copied.path)
    copied.write_settings(msgspec.structs.replace(folder.settings(), name=name, steps=6))
    return copied


@pytest.mark.parametrize("flips", [4, pytest.param(60, marks=pytest.mark.faults)])
def test_a_flipped_byte_of_the_database_is_told_in_one_line_or_does_no_harm(
    flips: int, trained: SessionFolder, nursery: Nursery, count: Count
) -> None:
    """SQLite keeps no sums: a byte inside a text may go unseen, but whatever is seen is told in one line."""
    kind, chance, length = "a flipped byte in the database", random.Random(flips), trained.database.stat().st_size
    refused = 0
    for number in range(flips):
        copied = other(trained, f"s{number}")
        flipped = bytearray(copied.database.read_bytes())
        flipped[chance.randrange(length)] ^= 1 << chance.randrange(8)
        copied.database.write_bytes(flipped)
        count.injected[kind] += 1
        process = nursery.engine(copied.path)
        process.join(SECONDS)
        told = [line for line in copied.log_tail(50) if line]
        if process.exitcode == 0:
            assert last_step(copied) == 6
        else:
            assert (process.exitcode, told[-1][:7]) == (1, "error: "), told
            refused += 1
        assert not copied.running()
        count.recovered[kind] += 1
        shutil.rmtree(copied.path)
    assert refused < flips


def test_a_missing_database_is_told_and_not_made_anew(trained: SessionFolder, nursery: Nursery, count: Count) -> None:
    kind, aside = "a missing database", trained.path / "aside"
    trained.database.rename(aside)
    count.injected[kind] += 1
    assert "session.db: is missing" in damaged(trained, nursery)[-1]
    assert not trained.database.exists()
    aside.rename(trained.database)
    recovered(trained, count, kind, nursery=nursery)
