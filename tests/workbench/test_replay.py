"""``workbench replay`` as people run it: in a terminal, without torch, reading only."""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.screens.recorded import recorded_session
from tests.workbench.conftest import Workbench

HEAVY = ("torch", "transformers", "accelerate", "engine", "numpy")
INSIDE = """
import json, sys
from workbench.cli import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump([code, sorted({name.partition(".")[0] for name in sys.modules})], file)
"""


def in_terminal(command: list[str], keys: dict[bytes, bytes], seconds: float = 60.0) -> tuple[int, bytes]:
    """Run behind a pseudo-terminal: each key once what it waits for was painted.

    :param keys: what must have been painted since the key before -> the key.
    :returns: exit status, everything that was painted.
    """
    terminal, inside = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    surroundings = os.environ | {"TERM": "xterm-256color", "LANG": "C.UTF-8", "COLORTERM": "truecolor"}
    process = subprocess.Popen(
        command, stdin=inside, stdout=inside, stderr=inside, env=surroundings, start_new_session=True
    )
    os.close(inside)
    whole, seen, waiting = b"", b"", list(keys.items())
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    read = os.read(terminal, 1 << 16)
                except OSError:
                    break
                whole, seen = whole + read, seen + read
            if waiting and waiting[0][0] in seen:
                os.write(terminal, waiting.pop(0)[1])
                seen = b""
        else:
            raise AssertionError(f"waited in vain for {waiting[:1]}; last painted: {whole[-300:]!r}")
        return process.wait(timeout=30), whole
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def test_it_opens_steps_and_leaves_without_torch_and_writes_nothing(home: Path) -> None:
    folder = recorded_session("s")
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    told = home / "told.json"
    words = [sys.executable, "-c", INSIDE, str(told), "replay", "s", "--step", "12", "--marks", "ascii"]
    keys = {b"step 12/60": b",", b"11": b".", b"12": b"s", b"SAMPLES": b"q"}
    code, painted = in_terminal(words, keys)
    assert (code, b"left the replay of s" in painted) == (0, True)
    status, modules = json.loads(told.read_text())
    assert status == 0
    assert "textual" in modules
    assert not set(HEAVY) & set(modules)
    assert {name: (folder.path / name).read_bytes() for name in before} == before
    assert not (folder.path / "engine.lock").exists()


def test_a_session_with_an_engine_can_be_replayed_beside_it(home: Path) -> None:
    folder = recorded_session("s")
    lock = folder.lock()
    try:
        words = [sys.executable, "-m", "workbench", "replay", "s"]
        code, painted = in_terminal(words, {b"step 60/60": b"C", b"workbench attach s": b"q"})
    finally:
        os.close(lock)
    assert code == 0
    assert b"REPLAY" in painted


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["nothing"], "no session named 'nothing'", 2),
        (["s", "--branch", "mian"], "unknown branch 'mian'; did you mean main?", 2),
        (["s", "--step", "61"], "--step 61: the record of main goes from 1 to 60", 2),
        (["s", "--step", "-1"], "not a whole number", 2),
        (["new"], "no records yet", 1),
    ],
)
def test_what_cannot_be_replayed_is_said_in_one_line(home: Path, words: list[str], said: str, code: int) -> None:
    recorded_session("s")
    (recorded_session("new").database).unlink()
    command = [sys.executable, "-m", "workbench", "replay", *words]
    status, painted = in_terminal(command, {})
    assert status == code
    text = b" ".join(painted.split()).decode()
    assert text.startswith("workbench: error: ")
    assert said in text


def test_without_a_terminal_it_names_what_there_is(workbench: Workbench, home: Path) -> None:
    recorded_session("s")
    done: subprocess.CompletedProcess[str] = workbench("replay", "s")
    assert done.returncode == 2
    assert "not a terminal; `workbench status s`" in done.stderr
