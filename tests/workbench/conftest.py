"""The command line as people run it, with an engine that needs no model."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sessions.folders import SessionFolder, all_sessions, sessions_home
from workbench.cli import main

FAKE = Path(__file__).parent / "fake"


def poll(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until it holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds:g} s in vain"
        time.sleep(0.01)


class Workbench:
    """Runs ``workbench`` in processes of its own."""

    def __init__(self) -> None:
        self.environment = os.environ | {"PYTHONPATH": f"{FAKE}{os.pathsep}{FAKE.parents[2]}"}
        self._open: list[subprocess.Popen[str]] = []

    def __call__(self, *words: str, fate: str = "", step: float = 0.01) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, fate=fate, step=step)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def start(self, *words: str, fate: str = "", step: float = 0.01) -> subprocess.Popen[str]:
        """One that goes on while the test does."""
        process = subprocess.Popen(
            [sys.executable, "-m", "workbench", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment | {"FAKE_ENGINE": fate, "FAKE_ENGINE_STEP": str(step)},
        )
        self._open.append(process)
        return process

    def now(self, name: str) -> dict[str, Any]:
        """What ``workbench status --json`` says, asked in this process: a new one takes a third of a second."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main(["status", name, "--json"]) == 0
        return json.loads(out.getvalue())

    def finish(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """What is left to read of one that was read line by line."""
        assert process.stdout is not None
        assert process.stderr is not None
        out, err = process.stdout.read(), process.stderr.read()
        process.wait(timeout=120)
        return out, err

    @contextlib.contextmanager
    def running(self, name: str = "s", *words: str, step: float = 0.01) -> Iterator[SessionFolder]:
        """A session whose engine trains; it is stopped at the end."""
        process = self.start("run", "--headless", "--name", name, *words, step=step)
        folder = SessionFolder(sessions_home() / name)
        poll(lambda: folder.engine() is not None)
        try:
            yield folder
        finally:
            self("stop", name)
            process.communicate(timeout=120)

    def close(self) -> None:
        """End whatever a test has left."""
        for process in self._open:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        for folder in all_sessions():
            engine = folder.engine()
            if engine is not None and folder.running():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(engine.pid, signal.SIGKILL)
                poll(lambda f=folder: not f.running())
                poll(lambda f=folder: f.exit() is not None)


@pytest.fixture
def workbench(home: Path) -> Iterator[Workbench]:
    started = Workbench()
    yield started
    started.close()
