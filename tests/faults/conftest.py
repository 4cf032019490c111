"""One count for all tests, told at the end; one place where engines are forked from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.faults.count import Count
from tests.faults.harness import close_engines
from tests.faults.nursery import Nursery

COUNT = Count()
collect_ignore_glob = [] if Path("/proc/self").exists() else ["test_*.py"]
"""They look at processes where Linux shows them."""


@pytest.fixture
def count() -> Count:
    """Where a test says what it put in and what came of it."""
    return COUNT


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def _nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def nursery(_nursery: Nursery) -> Iterator[Nursery]:
    """Starts engines within a blink; what a test leaves of them is ended."""
    yield _nursery
    _nursery.end_all()


@pytest.fixture(autouse=True)
def no_engine_is_left(home: Path) -> Iterator[None]:
    yield
    close_engines(home)
    for log in home.glob("sessions/*/engine.log"):  # shown where a test has failed
        print(f"{log}:\n{log.read_text(errors='replace')[-4000:]}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not COUNT.injected:
        return
    terminalreporter.section("faults")
    for line in COUNT.lines():
        terminalreporter.write_line(line)
    if path := os.environ.get("FAULTS_SUMMARY"):
        COUNT.write(Path(path))
