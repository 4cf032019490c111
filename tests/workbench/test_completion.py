"""Completion: what is offered where, and that the real shells take what `workbench completion` prints."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sessions.branches import Branch
from sessions.folders import new_session
from sessions.hyperparameters import HYPERPARAMETERS
from sessions.records import SessionSettings
from sessions.store import Store
from workbench.completion import SHELLS

ROOT = Path(__file__).parents[2]
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|[\x00-\x08]")
HEAVY = {"torch", "transformers", "textual", "numpy", "accelerate"}


@pytest.fixture
def sessions(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sessions, one with a branch, and some files where one is."""
    for name in ("alpha-1", "alpha-2"):
        new_session(name, SessionSettings(name=name))
    store = Store(home / "sessions" / "alpha-1" / "session.db")
    store.add_branch(Branch(name="careful", parent="main", step=1, time=1.0))
    store.close()
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("my.toml", "rows.jsonl", "rewards.py", "notes.txt"):
        (folder / name).write_text("")
    (folder / "tasks.py").write_text(
        "import no_such_package\n\n\ndef accuracy(): ...\n\n\nasync def asks(): ...\n\n\ndef _own(): ...\n"
    )
    monkeypatch.chdir(folder)
    return folder


ASK = """
import json, os, sys
from workbench import cli, completion
os.environ |= {
    "_ARGCOMPLETE": "1",
    "_ARGCOMPLETE_SHELL": "bash",
    "_ARGCOMPLETE_IFS": "\\013",
    "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
    "_ARGCOMPLETE_COMP_WORDBREAKS": " \\t\\n\\"'><=;|&(:",
    "_ARGCOMPLETE_STDOUT_FILENAME": sys.argv[1],
}
for line in json.loads(sys.argv[2]):
    os.environ |= {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    if os.fork() == 0:  # argcomplete ends the process
        cli.main([])
    os.wait()
    with open(sys.argv[1]) as file:
        print(json.dumps(sorted(filter(None, (w.strip() for w in file.read().split(chr(11)))))))
    os.unlink(sys.argv[1])
"""


def offered(tmp_path: Path, *lines: str) -> list[set[str]]:
    """What bash would be offered after each of these lines; nothing may be said beside."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path / "offered"), json.dumps(lines)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [set(json.loads(row)) for row in done.stdout.splitlines()]


OFFERED: list[tuple[str, set[str], set[str]]] = [
    ("workbench ", {"run", "new", "completion", "send"}, {"--version"}),
    ("workbench st", {"status", "stop"}, {"run"}),
    ("workbench status a", {"alpha-1", "alpha-2"}, set()),
    ("workbench run --name alpha-1 --res", set(), {"alpha-1"}),
    ("workbench run --keep-", {"--keep-last", "--keep-best", "--keep-every", "--keep-token-steps"}, set()),
    ("workbench run --set learn", {"learning_rate="}, {"learning_rate"}),
    ("workbench run --set algorithm=", {"grpo", "ppo", "trpo"}, set()),
    ("workbench run --set learning_rate=1", set(), {"learning_rate="}),
    ("workbench run --preset d", {"dapo", "dr-grpo", "deepseekmath"}, {"ppo"}),
    ("workbench run --algorithm ", {"grpo", "ppo", "trpo"}, {"rows.jsonl"}),
    ("workbench run --device ", {"cpu", "cuda", "mps", "auto"}, set()),
    ("workbench run ", {"my.toml"}, {"rows.jsonl", "notes.txt"}),
    ("workbench run --task ", {"arithmetic", "rows.jsonl"}, {"notes.txt"}),
    ("workbench run --reward ", {"exact", "last_number", "rewards.py"}, {"notes.txt"}),
    ("workbench run --reward tasks.py:", {"accuracy", "asks"}, {"_own", "tasks.py", "rewards.py", "rows.jsonl"}),
    ("workbench run --reward tasks.py:ac", {"accuracy"}, {"asks"}),
    ("workbench run --task tasks.py:", {"accuracy", "asks"}, {"arithmetic", "rows.jsonl"}),
    ("workbench run --task ta", {"tasks.py"}, {"rows.jsonl"}),
    ("workbench run --warm-up ", {"rows.jsonl"}, set()),
    ("workbench run --watch reward/m", {"reward/mean"}, set()),
    ("workbench run --plain shared", {"shared_prefill"}, set()),
    ("workbench tasks ", {"arithmetic", "dataset"}, {"alpha-1"}),
    ("workbench rewards ex", {"exact"}, {"json"}),
    ("workbench new --from alp", {"alpha-1", "alpha-2"}, set()),
    ("workbench send alpha-1 re", {"resume", "rewind", "rename"}, {"pause"}),
    ("workbench send --no-wait alpha-1 paus", {"pause"}, set()),
    ("workbench send alpha-1 set kl_pl", {"kl_placement="}, set()),
    ("workbench send alpha-1 set kl_placement=", {"loss", "reward"}, set()),
    ("workbench send alpha-1 switch c", {"careful"}, set()),
    ("workbench send alpha-1 switch --", {"--expect"}, {"careful"}),
    ("workbench send alpha-2 switch c", set(), {"careful"}),
    ("workbench send ../alpha-1 switch c", set(), {"careful"}),
    ("workbench send alpha-1 preset da", {"dapo"}, set()),
    ("workbench send alpha-1 watch kl/k", {"kl/k3"}, set()),
    ("workbench compare alpha-1 main c", {"careful"}, set()),
    ("workbench replay alpha-1 --branch ", {"main", "careful"}, set()),
    ("workbench export --to ", {"jsonl", "parquet", "preferences", "model"}, set()),
    ("workbench rate --mode ", {"likert", "thumbs", "pair"}, set()),
    ("workbench completion ", set(SHELLS), set()),
]


def test_what_is_offered(sessions: Path, tmp_path: Path) -> None:
    for (line, wanted, unwanted), found in zip(OFFERED, offered(tmp_path, *(row[0] for row in OFFERED)), strict=True):
        assert wanted <= found, line
        assert not unwanted & found, line
        last = re.split("[ =:]", line)[-1]
        assert all(word.startswith(last) for word in found), line


def test_every_hyperparameter_is_offered(sessions: Path, tmp_path: Path) -> None:
    expected = {f"{name}=" for name in HYPERPARAMETERS}
    by_option, by_command = offered(tmp_path, "workbench run --set ", "workbench send alpha-1 set ")
    assert by_option == expected
    assert expected <= by_command


def test_without_sessions_nothing_is_offered_and_nothing_is_said(home: Path, tmp_path: Path) -> None:
    assert offered(tmp_path, "workbench status ", "workbench send x switch ") == [set(), set()]


def environment(tmp_path: Path, home: Path) -> dict[str, str]:
    """With a ``workbench`` on the path that is the one under test."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "workbench").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m workbench "$@"\n')
    (folder / "workbench").chmod(0o755)
    return {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "ZDOTDIR": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "WORKBENCH_HOME": str(home),
        "TERM": "dumb",
        "LANG": "C.UTF-8",
    }


def test_asking_imports_nothing_slow(sessions: Path, home: Path, tmp_path: Path) -> None:
    line = "workbench send alpha-1 set learn"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "workbench"],
        env=environment(tmp_path, home)
        | {
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_IFS": "\013",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "out"),
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {match[1] for match in re.finditer(r"\|\s+([\w.]+)\s*$", done.stderr, re.M)}
    assert "argparse" in imported
    assert not imported & HEAVY
    assert "learning_rate=" in (tmp_path / "out").read_text()


def typed(shell: list[str], setup: str, line: str, wanted: str, env: dict[str, str], folder: Path) -> str:
    """What a terminal shows when a person types a line and presses tab in an interactive shell."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(shell[0], shell, env)
    seen = ""

    def until(text: str, seconds: float = 30.0) -> None:
        nonlocal seen
        end = time.monotonic() + seconds
        while text not in CONTROLS.sub("", seen):
            ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} did not come; the terminal shows: {seen[-2000:]}"
            seen += os.read(terminal, 65536).decode(errors="replace")

    try:
        os.write(terminal, f"{setup}; echo rea''dy\n".encode())
        until("ready\r\n")
        seen = ""
        os.write(terminal, f"{line}\t".encode())
        until(wanted)
        return seen
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)


def there(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("workbench status alp", "alpha-"),
        ("workbench run --set learn", "learning_rate="),
        ("workbench run --set algorithm=gr", "algorithm=grpo"),
        ("workbench send alpha-1 switch car", "switch careful"),
        ("workbench run --reward tasks.py:acc", "tasks.py:accuracy"),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes(shell: str, line: str, wanted: str, sessions: Path, home: Path, tmp_path: Path) -> None:
    there(shell)
    words = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[shell]
    first = "autoload -Uz compinit && compinit -u -D; " if shell == "zsh" else ""
    setup = f'{first}eval "$(workbench completion {shell})"'
    typed(words, setup, line, wanted, environment(tmp_path, home), sessions)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [("workbench status alp", {"alpha-1", "alpha-2"}), ("workbench send alpha-1 set kl_pl", {"kl_placement="})],
)
def test_fish_completes(line: str, wanted: set[str], sessions: Path, home: Path, tmp_path: Path) -> None:
    there("fish")
    done = subprocess.run(
        ["fish", "--private", "-c", f'workbench completion fish | source; complete -C "{line}"'],
        env=environment(tmp_path, home),
        cwd=sessions,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert {row.split("\t")[0].strip() for row in done.stdout.splitlines()} == wanted, done.stderr
