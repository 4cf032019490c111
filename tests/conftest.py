"""What every test gets: a home and a socket folder of its own, so that none sees or leaves anything on the machine."""

from __future__ import annotations

import gc
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MANY = 50
"""Modules: as many as are worth a search of their own."""

_modules = 0


def leave_libraries_out() -> None:
    """Leave what was imported since the last call out of each search for unreachable objects.

    torch, transformers and thousands of tests are half a second to walk through, and a test that makes a screen or a
    model sets off such walks. What tests make themselves is searched as before.
    """
    global _modules
    if len(sys.modules) > _modules + MANY:
        gc.collect()
        gc.freeze()
        _modules = len(sys.modules)


def pytest_collection_finish() -> None:
    leave_libraries_out()


def pytest_runtest_teardown() -> None:
    leave_libraries_out()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """``WORKBENCH_HOME`` and ``XDG_RUNTIME_DIR`` in one new folder with a short path, as sockets need."""
    folder = Path(tempfile.mkdtemp(prefix="wb", dir="/tmp"))
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("WORKBENCH_HOME", str(folder / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    yield folder / "home"
    shutil.rmtree(folder, ignore_errors=True)
