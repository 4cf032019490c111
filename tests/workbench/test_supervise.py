"""The supervisor: whatever becomes of the engine, its cause of death is written down."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sessions.folders import EngineInfo, ExitInfo, SessionFolder, new_session
from sessions.records import SessionSettings
from tests.workbench.conftest import FAKE, poll
from workbench.supervise import cause_of

SCRIPT = "import sys; from pathlib import Path; from sessions.folders import SessionFolder;" \
    "from workbench.supervise import supervise;" \
    "supervise(SessionFolder(Path(sys.argv[1])), [sys.executable, '-c', sys.argv[2]])"  # fmt: skip


@pytest.fixture
def folder(home: Path) -> SessionFolder:
    return new_session("s", SessionSettings(name=""))


def start(folder: SessionFolder, engine: str) -> subprocess.Popen[bytes]:
    with folder.log.open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder.path), engine], stdout=log, stderr=log)


def end_of(folder: SessionFolder, engine: str) -> ExitInfo:
    """How an engine with this code ends."""
    process = start(folder, engine)
    process.wait(timeout=60)
    info = folder.exit()
    assert info is not None
    assert info.ended >= info.started > 0
    return info


def test_an_end_in_order(folder: SessionFolder) -> None:
    info = end_of(folder, "print('error: this was long ago')")
    assert (info.code, info.signal, info.cause, info.out_of_memory) == (0, "", "ended in order", False)
    assert info.peak_memory_bytes > 2**20


def test_the_engines_own_word_is_the_cause(folder: SessionFolder) -> None:
    folder.log.write_text("error: of the engine before\n")
    assert end_of(folder, "import sys; sys.exit('something')").cause == "exit code 1: something"
    info = end_of(folder, "import sys; print('error: model x: no such thing\\n\\n', flush=True); sys.exit(2)")
    assert (info.code, info.cause) == (2, "model x: no such thing")
    assert end_of(folder, "import sys; sys.exit(3)").cause == "exit code 3"
    assert end_of(folder, "raise ValueError('upside down')").cause == "exit code 1: ValueError: upside down"


def test_a_signal_is_named(folder: SessionFolder) -> None:
    info = end_of(folder, "import os; os.kill(os.getpid(), 9)")
    assert (info.code, info.signal, info.cause) == (None, "SIGKILL", "killed by SIGKILL")
    info = end_of(folder, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (info.signal, info.cause) == ("SIGSEGV", "killed by SIGSEGV")


def test_an_old_exit_is_forgotten_while_the_next_engine_runs(folder: SessionFolder) -> None:
    end_of(folder, "raise SystemExit(3)")
    process = start(folder, "print('up', flush=True); import sys, signal; signal.pause()")
    poll(lambda: folder.log_tail(1) == ["up"])
    assert folder.exit() is None
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    info = folder.exit()
    assert info is not None
    assert info.cause == "killed by SIGTERM"


def test_sigterm_is_handed_on_and_sighup_ignored_by_both(folder: SessionFolder) -> None:
    engine = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "print('hup', signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, flush=True)\n"
        "while True: signal.pause()"
    )
    process = start(folder, engine)
    poll(lambda: folder.log_tail(1) == ["hup True"])
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    info = folder.exit()
    assert info is not None
    assert (info.code, info.cause) == (0, "ended in order")


def test_a_killed_engines_socket_is_removed(folder: SessionFolder, home: Path) -> None:
    path = home.parent / "dead"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    folder.write_engine(EngineInfo(pid=1, socket=str(path), started=1.0, version="x"))
    end_of(folder, "import os; os.kill(os.getpid(), 9)")
    assert folder.engine() is None
    assert not path.exists()


def test_only_a_socket_is_removed_for_one(folder: SessionFolder, home: Path) -> None:
    """``engine.json`` is a file like others: what it names is not taken on trust."""
    precious = home.parent / "precious"
    precious.write_text("mine")
    folder.write_engine(EngineInfo(pid=1, socket=str(precious), started=1.0, version="x"))
    end_of(folder, "import os; os.kill(os.getpid(), 9)")
    assert folder.engine() is None
    assert precious.read_text() == "mine"


def test_a_second_supervisor_leaves_the_first_alone(folder: SessionFolder) -> None:
    lock = folder.lock()
    folder.write_engine(EngineInfo(pid=1, socket="/nowhere", started=1.0, version="x"))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "workbench.supervise", str(folder.path)],
        env=os.environ | {"PYTHONPATH": str(FAKE)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: session 's' already has an engine\n"
    assert folder.engine() is not None
    assert folder.exit() is None
    os.close(lock)


def test_running_out_of_memory() -> None:
    cause = cause_of(-9, "SIGKILL", True, 12_345_000_000, ["step 3"])
    assert cause.startswith("the system ran out of memory and killed the engine, which held 12.3 GB; lower ")
    assert cause_of(1, "", False, 0, ["error: old", "error: no memory left", "Task was destroyed"]) == "no memory left"
    assert cause_of(0, "", False, 0, ["error: overcome"]) == "ended in order"
