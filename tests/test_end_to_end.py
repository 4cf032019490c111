"""The whole product, as a person meets it: the real command in a real terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tmux import Tmux

pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
    pytest.mark.timeout(300),
]
WORKBENCH = f"{sys.executable} -m workbench"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A WORKBENCH_HOME of its own; whatever engines are left in it are ended."""
    folder = tmp_path / "home"
    yield folder
    for path in folder.glob("sessions/*/engine.json"):
        pid = json.loads(path.read_text())["pid"]
        if running(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def terminal(home: Path, tmp_path: Path) -> Iterator[Tmux]:
    window = Tmux(80, 24, {"WORKBENCH_HOME": str(home), "OMP_NUM_THREADS": "1"}, Path.cwd())
    yield window
    window.kill()


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return b"engine" in Path(f"/proc/{pid}/cmdline").read_bytes() if Path("/proc").exists() else True


def ask(home: Path, *words: str) -> Any:
    """The records that a command prints: a line each, or all in one line."""
    done = subprocess.run(
        [sys.executable, "-m", "workbench", *words, "--json"],
        env={**os.environ, "WORKBENCH_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return lines[0] if len(lines) == 1 and isinstance(lines[0], list) else lines


def until(check: Callable[[], Any], seconds: float = 120) -> Any:
    """The first true result of a check."""
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)
    return result


def step_on(screen: str) -> int:
    found = re.search(r"step (\d+)", screen)
    return int(found[1]) if found else -1


def test_a_person_trains_watches_pauses_sets_rates_detaches_attaches_and_stops(terminal: Tmux, home: Path) -> None:
    terminal.command(f"{WORKBENCH} run --name e2e --no-nice --set evaluate_every=0; echo left with $?")

    # the reward is drawn, and the steps go on
    terminal.wait(lambda s: "reward ." in s and step_on(s) >= 3)

    # pause inside the loop: the step stands still
    terminal.press("Space")
    paused = step_on(terminal.wait("PAUSED"))
    assert ask(home, "status", "e2e")[0]["state"] == "PAUSED"

    # a change on the command line of the screen applies at its boundary, after the run goes on
    terminal.type(":")
    terminal.command("set learning_rate 5e-5")
    terminal.wait("minibatch")

    # rate the newest finished response: great, blind
    terminal.press("r")
    terminal.wait(lambda s: "1 bad" in s and "5 great" in s)
    terminal.press("5")
    terminal.wait("saved")
    saved = until(lambda: [e for e in ask(home, "send", "e2e", "events", "50") if e["event"] == "rating"])
    assert list(saved[0]["rating"]["values"].values()) == [5]

    # the very next update uses the rating, and the record says in which
    terminal.press("Escape")
    terminal.wait("reward .")
    terminal.press("Space")
    terminal.wait(lambda s: step_on(s) > paused + 1)
    events = until(
        lambda: [e for e in ask(home, "send", "e2e", "events", "400") if e["event"] in {"rating_used", "change"}]
    )
    use = next(e["use"] for e in events if e["event"] == "rating_used")
    assert use["rating"] == saved[0]["rating"]["id"]
    assert use["fate"] in {"on_time", "late"}
    assert use["step"] in {paused, paused + 1}
    change = next(e["change"] for e in events if e["event"] == "change" and e["change"]["status"] == "applied")
    assert change["name"] == "learning_rate"
    assert change["new"] == 5e-5

    # detach: the training goes on without a screen
    terminal.press("q")
    terminal.wait("left with 0")
    assert "workbench attach" in terminal.screen()
    before = ask(home, "status", "e2e")[0]["finished_steps"]
    until(lambda: ask(home, "status", "e2e")[0]["finished_steps"] > before + 1)

    # attach: the whole history is there at once, the change marked
    terminal.command("clear")
    terminal.command(f"{WORKBENCH} attach e2e; echo left again with $?")
    terminal.wait(lambda s: "reward ." in s and step_on(s) > before)

    # stop wants the word
    engine = ask(home, "status", "e2e")[0]["pid"]
    terminal.press("Q")
    terminal.wait("stop")
    terminal.command("stop")
    until(lambda: not running(engine))
    assert ask(home, "list")[0]["state"] == "DONE"


def test_killing_the_engine_shows_failed_with_its_cause_and_killing_the_screen_leaves_the_training(
    terminal: Tmux, home: Path
) -> None:
    name = f"killed-{os.getpid()}"  # pgrep looks at the whole machine
    terminal.command(f"{WORKBENCH} run --name {name} --no-nice --set evaluate_every=0")
    terminal.wait(lambda s: "reward ." in s and step_on(s) >= 2)
    engine = ask(home, "status", name)[0]["pid"]

    # a screen that is killed takes nothing with it
    screens = subprocess.run(
        ["pgrep", "-f", f"workbench run --name {name}"], capture_output=True, text=True, check=True
    ).stdout.split()
    for pid in screens:
        os.kill(int(pid), signal.SIGKILL)
    before = ask(home, "status", name)[0]["finished_steps"]
    until(lambda: ask(home, "status", name)[0]["finished_steps"] > before + 1)

    terminal.type("reset; echo re''ady")
    terminal.press("C-j")  # the killed screen left the terminal raw: Enter is no newline there
    terminal.wait("ready")
    terminal.command(f"{WORKBENCH} attach {name}")
    terminal.wait(lambda s: "reward ." in s and step_on(s) > before)
    os.kill(engine, signal.SIGKILL)
    screen = terminal.wait("FAILED")
    assert "SIGKILL" in screen
    terminal.press("q")
