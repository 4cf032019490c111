"""The walls of the house: who may import whom, and how little the front door needs to answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "accelerate"}
FORBIDDEN = {
    "sessions": {*HEAVY, "textual", "plotext", "engine", "screens", "workbench"},
    "screens": {*HEAVY, "engine", "workbench"},
    "engine": {"textual", "plotext", "screens", "workbench"},
}

IMPORT = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def modules(package: str) -> list[str]:
    """Every module of a package, without importing any; what runs when imported is left out."""
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / package).rglob("*.py"))
    return sorted(name.removesuffix(".__init__") for name in names if not name.endswith("__main__"))


def imported(code: str, *arguments: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_walls(package: str) -> None:
    names = modules(package)
    assert len(names) > 3
    assert imported(IMPORT, *names) & FORBIDDEN[package] == set()


def test_every_module_of_the_front_door_can_be_imported() -> None:
    """It may import everything; what it must not do is bring torch before a command needs it."""
    assert imported(IMPORT, *modules("workbench")) & HEAVY == set()


QUIET = """
import contextlib, io, json, sys
from workbench.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
    try:
        main(sys.argv[1:])
    except SystemExit:
        pass
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
SLOW = {*HEAVY, "textual", "rich", "plotext", "asyncio", "sqlite3", "msgspec", "numpy", "platformdirs", "engine"}


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["run", "--help"], ["nonsense"]])
def test_help_brings_nothing_slow(words: list[str]) -> None:
    assert imported(QUIET, *words) & SLOW == set()


@pytest.mark.parametrize("words", [["list"], ["hyperparameters"], ["run", "--set", "nonsense=1"], ["status", "nobody"]])
def test_small_commands_bring_neither_torch_nor_textual(words: list[str]) -> None:
    assert imported(QUIET, *words) & {*HEAVY, "textual", "plotext"} == set()
