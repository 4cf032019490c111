"""Runs only where the peers are installed, and ends with a table of how far apart the two sides were."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

collect_ignore_glob = [] if find_spec("trl") and find_spec("sb3_contrib") else ["test_*.py"]

TOLERANCE = 1e-5
"""Largest error, absolute and relative to the largest number of the peer's answer."""

TABLE = pytest.StashKey[dict[str, tuple[int, float, float]]]()

Compare = Callable[[str, object, object], None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = {}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def compare(request: pytest.FixtureRequest) -> Compare:
    """compare(name, ours, theirs): notes the errors under that name and fails above the tolerance."""
    table = request.config.stash[TABLE]

    def check(name: str, ours: object, theirs: object) -> None:
        a, b = (torch.as_tensor(x).detach().double() for x in (ours, theirs))
        assert a.shape == b.shape
        assert bool(a.isfinite().all() and b.isfinite().all())
        absolute = float((a - b).abs().max())
        relative = absolute / max(float(b.abs().max()), 1e-12) if absolute else 0.0
        count, worst, share = table.get(name, (0, 0.0, 0.0))
        table[name] = count + 1, max(worst, absolute), max(share, relative)
        assert absolute <= TOLERANCE, f"{name}: off by {absolute:.2e}"
        assert relative <= TOLERANCE or absolute <= 1e-9, f"{name}: off by {relative:.2e} of the largest"

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash[TABLE]
    if not table:
        return
    width = max(map(len, table))
    terminalreporter.write_sep("=", "largest difference from the peers")
    terminalreporter.write_line(f"{'':{width}}  compared  absolute  relative")
    for name, (count, absolute, relative) in sorted(table.items()):
        terminalreporter.write_line(f"{name:{width}}  {count:8}  {absolute:8.1e}  {relative:8.1e}")


def leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_()
