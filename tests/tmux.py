"""A real terminal for tests: tmux on a private socket, without anybody's configuration."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path


class Tmux:
    """One window of a private tmux server.

    :param environment: of the programs in it.
    """

    def __init__(self, columns: int, rows: int, environment: dict[str, str], folder: Path) -> None:
        self._name = f"test-{uuid.uuid4().hex[:8]}"
        self._environment = {**os.environ, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **environment}
        self._environment.pop("TMUX", None)
        self._run("new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", str(folder), "sh")

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._name, "-f", "/dev/null", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def type(self, text: str) -> None:
        """Type text as it is."""
        self._run("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names."""
        self._run("send-keys", *keys)

    def command(self, line: str) -> None:
        self.type(line)
        self.press("Enter")

    def screen(self) -> str:
        """What a person sees."""
        return self._run("capture-pane", "-p")

    def wait(self, wanted: str | Callable[[str], bool], seconds: float = 120) -> str:
        """Look until the screen holds the text or satisfies the check; that screen."""
        check = wanted if callable(wanted) else lambda screen: wanted in screen
        deadline = time.monotonic() + seconds
        while True:
            screen = self.screen()
            if check(screen):
                return screen
            assert time.monotonic() < deadline, f"{wanted!r} never came; the screen is:\n{screen}"
            time.sleep(0.1)

    def kill(self) -> None:
        """End the server and everything that runs in it."""
        self._run("kill-server")
