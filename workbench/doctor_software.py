"""The doctor's checks of the software: interpreter, packages, SQLite, torch, and what the terminal can show."""

from __future__ import annotations

import contextlib
import json
import locale
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from screens.terminal import choose_marks
from sessions.database import connect, keep_log
from sessions.folders import home
from workbench.findings import Finding
from workbench.output import size

DISTRIBUTION = "rl-workbench"
PYTHON = ((3, 11), (3, 14))
"""The first version that will do, and the first that will not: as in pyproject.toml."""
SQLITE = (3, 35)
TORCH_SECONDS = 120.0
COLUMNS, LINES = 60, 16
"""The least that the screens can be drawn in."""

TORCH = """
import json, torch
accelerated = torch.cuda.is_available()
apple = torch.backends.mps.is_available()
name, memory = "cpu", 0
if accelerated:
    name, memory = torch.cuda.get_device_name(0), torch.cuda.mem_get_info(0)[1]
    torch.ones(8, device="cuda").sum().item()
elif apple:
    name = "mps"
    torch.ones(8, device="mps").sum().item()
assert torch.ones(8, 8).matmul(torch.ones(8, 8)).sum().item() == 512
print(json.dumps({"version": torch.__version__, "device": name, "memory": memory, "threads": torch.get_num_threads()}))
"""


def check_python() -> Finding:
    """The interpreter's version."""
    version = ".".join(map(str, sys.version_info[:3]))
    first, beyond = PYTHON
    if first <= sys.version_info[:2] < beyond:
        return Finding("ok", f"{version}, {sys.executable}")
    what = f"{version} is not in {first[0]}.{first[1]} .. {beyond[0]}.{beyond[1] - 1}"
    return Finding("fail", what, f"`pipx install --python python{first[0]}.{first[1]} rl-workbench`")


def check_packages(
    requirements: Sequence[str] | None = None, version_of: Callable[[str], str] = metadata.version
) -> Finding:
    """Whether what this package needs is there, in versions that it was made for."""
    from packaging.requirements import Requirement

    if requirements is None:
        try:
            requirements = metadata.requires(DISTRIBUTION) or []
        except metadata.PackageNotFoundError:
            return Finding("warn", "not installed as a package, so its requirements are not known", "`pip install .`")
    wanted = [r for r in map(Requirement, requirements) if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong, found = [], []
    for requirement in wanted:
        try:
            version = version_of(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append((requirement, "is missing"))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append((requirement, f"is {version}"))
        found.append(f"{requirement.name} {version}")
    if not wrong:
        return Finding("ok", ", ".join(found))
    what = ", ".join(f"{r.name} {how}, needed is {r.specifier or 'any'}" for r, how in wrong)
    return Finding("fail", what, "`pip install " + " ".join(f"'{r}'" for r, _ in wrong) + "`")


def check_sqlite() -> Finding:
    """SQLite's version, and whether it can write ahead to a log in the home."""
    folder = home().absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as temporary:
        db = connect(Path(temporary) / "x.db")
        try:
            keep_log(db, "FULL")
            mode = db.execute("PRAGMA journal_mode").fetchone()[0]
            db.execute("CREATE TABLE x (y)")
        finally:
            db.close()
    what = f"{sqlite3.sqlite_version}, journal mode {mode}"
    if sqlite3.sqlite_version_info < SQLITE:
        return Finding("fail", f"{what}: older than {SQLITE[0]}.{SQLITE[1]}", "`pipx install --python python3.11 .`")
    if mode != "wal":
        remedy = "`export WORKBENCH_HOME=/path/on/a/local/disk`"
        return Finding("warn", f"{what}: there is no shared memory for a log on this disk, so ratings wait", remedy)
    return Finding("ok", what)


def check_torch(seconds: float = TORCH_SECONDS, code: str = TORCH) -> Finding:
    """Torch in a process of its own: a broken one may crash, or never come back."""
    reinstall = f"`{sys.executable} -m pip install --force-reinstall torch`"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        remedy = "`nvidia-smi` shows whether the driver answers; `workbench run --device cpu` does without it"
        return Finding("fail", f"torch did not answer within {seconds:g} s", remedy)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        why = lines[-1][:300] if lines else f"it ended with {done.returncode}"
        return Finding("fail", f"torch cannot be used: {why}", reinstall)
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        memory = f", {size(found['memory'])}" if found["memory"] else ""
        what = f"torch {found['version']} on {found['device']}{memory}, {found['threads']} threads"
    except (ValueError, KeyError, IndexError, TypeError):
        return Finding("fail", "torch printed something else than was asked", reinstall)
    return Finding("ok", what)


def check_locale() -> Finding:
    """The encoding of what is printed, and what charts are drawn with in it."""
    encoding = sys.stdout.encoding or locale.getpreferredencoding(False)
    what = f"{encoding}; charts in {choose_marks('auto')}"
    if encoding.lower().replace("-", "") == "utf8":
        return Finding("ok", what)
    return Finding("warn", f"{what}: text of a model cannot be shown as it is", "`export LC_ALL=C.UTF-8`")


def check_terminal() -> Finding:
    """Size, colours, and what is between it and the screens."""
    term = os.environ.get("TERM", "")
    if not sys.stdout.isatty():
        return Finding("ok", "none here; `list`, `status`, `send`, `follow` and `run --headless` need none")
    inside = [name for name, variable in (("tmux", "TMUX"), ("screen", "STY")) if os.environ.get(variable)]
    columns, lines = shutil.get_terminal_size()
    with contextlib.suppress(OSError):  # what the terminal says, not what COLUMNS does
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
    colours = _colours(term)
    what = f"{term or 'TERM is not set'}, {columns}x{lines}, {colours}" + (f", in {inside[0]}" if inside else "")
    if term in ("", "dumb"):
        return Finding("fail", f"{what}: nothing can be drawn", "`export TERM=xterm-256color`")
    if columns < COLUMNS or lines < LINES:
        return Finding(
            "warn", f"{what}: less than {COLUMNS}x{LINES}", "enlarge the window, or `workbench run --headless`"
        )
    if colours == "8 colours":
        remedy = "`export TERM=xterm-256color`"
        if inside:
            remedy = {"tmux": "`tmux set -g default-terminal tmux-256color`, then a new window",
                      "screen": "`screen -T screen-256color`"}[inside[0]]  # fmt: skip
        return Finding("warn", what, remedy)
    return Finding("ok", what)


def _colours(term: str) -> str:
    if os.environ.get("NO_COLOR"):
        return "no colours (NO_COLOR)"
    if os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        return "true colour"
    return (
        "256 colours" if "256" in term or "kitty" in term or "ghostty" in term or "alacritty" in term else "8 colours"
    )
