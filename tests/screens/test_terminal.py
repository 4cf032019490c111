"""The app in a terminal of its own: leaving, hang-up, a terminal that stops reading."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import until

PROGRAM = """
import fcntl, signal, sys, termios
from pathlib import Path
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that a hang-up reaches it
if "ignore-hangup" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
from screens.app import run_app
from sessions.folders import SessionFolder
print(run_app(SessionFolder(Path(sys.argv[1]))))
print("no torch" if "torch" not in sys.modules else "torch was imported")
"""


class Terminal:
    """A pseudo-terminal with the app in it; what it draws is gathered unless ``reading`` is false."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONPATH": os.getcwd()}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), *words],
            stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
        )  # fmt: skip
        self._name = os.ttyname(slave)
        os.close(slave)
        self.drawn = b""
        self.read(True)

    def read(self, on: bool) -> None:
        loop = asyncio.get_running_loop()
        if on:
            loop.add_reader(self.master, self._take)
        else:
            loop.remove_reader(self.master)

    def _take(self) -> None:
        try:
            self.drawn += os.read(self.master, 65536)
        except OSError:
            self.read(False)

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?<>=]*\$?[a-zA-Z]", "", self.drawn.decode(errors="replace"))

    async def until_shown(self, *texts: str) -> None:
        try:
            await until(lambda: all(text in self.text for text in texts) or self.gone())
        finally:
            missing = [text for text in texts if text not in self.text]
            assert not missing, f"not shown: {missing} in\n{self.text[-3000:]}"

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def hang_up(self) -> None:
        self.read(False)
        os.close(self.master)
        self.master = -1

    def full(self) -> bool:
        """Whether it takes nothing more of what is drawn."""
        slave = os.open(self._name, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            return not select.select([], [slave], [], 0)[1]
        finally:
            os.close(slave)

    def gone(self) -> bool:
        return self.process.poll() is not None


@contextmanager
def terminal(engine: FakeEngine, *words: str) -> Iterator[Terminal]:
    made = Terminal(engine.folder.path, *words)
    try:
        yield made
    finally:
        if not made.gone():
            os.killpg(made.process.pid, signal.SIGKILL)
        made.process.wait()
        if made.master >= 0:
            made.hang_up()


async def test_detaching_leaves_a_line_and_no_torch(engine: FakeEngine) -> None:
    with terminal(engine) as screen:
        await screen.until_shown("reward", "q detach")
        screen.press("q")
        await until(screen.gone)
        await screen.until_shown("no torch")
        assert "detached from gsm8k-grpo; training goes on" in screen.text
        assert screen.process.returncode == 0


@pytest.mark.parametrize("words", [(), ("ignore-hangup",)])
async def test_a_hang_up_leaves_no_process(engine: FakeEngine, words: tuple[str, ...]) -> None:
    with terminal(engine, *words) as screen:
        await screen.until_shown("q detach")
        screen.hang_up()
        await until(screen.gone)
        await until(lambda: not engine.server.connections)


async def test_a_terminal_that_stops_reading_does_not_stop_the_link(engine: FakeEngine) -> None:
    with terminal(engine) as screen:
        await screen.until_shown("q detach")
        screen.read(False)

        async def one_more() -> int:
            step = engine.finish_step()
            engine.beat()
            await until(lambda: not any(c._events or c._latest for c in engine.server.connections), "the link")
            return step

        for _ in range(100):
            await one_more()
            if screen.full():
                break
        assert screen.full()
        for _ in range(5):
            last = await one_more()
        assert screen.full()
        screen.read(True)
        await screen.until_shown(f"step {last + 1}/2000")
        screen.press("q")
        await until(screen.gone)
