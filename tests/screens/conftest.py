"""A scripted engine and an app attached to it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from screens.app import WorkbenchApp
from screens.safe import use_escapes
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import until

Attached = tuple[WorkbenchApp, Pilot[str]]
Attach = Callable[..., AbstractAsyncContextManager[Attached]]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of day are the same on every machine."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture(autouse=True)
def pictures() -> Iterator[None]:
    """An app with ascii marks writes control characters as escapes; the next test starts with pictures again."""
    yield
    use_escapes(False)


@pytest.fixture
async def engine(home: Path) -> AsyncIterator[FakeEngine]:
    """An engine that has done 120 steps, with a change, a checkpoint and an alarm."""
    async with FakeEngine(home, steps=120) as running:
        running.change("learning_rate", 5e-7)
        running.checkpoint()
        running.raise_alarm("kl/k3 jump 5.2x @100")
        yield running


@pytest.fixture
def attach(engine: FakeEngine) -> Attach:
    """``async with attach(size=(80, 24)) as (app, pilot)``: an app whose first snapshot has come.

    Its clock stands still at the engine's, so that ages are the same in every run.
    """

    @asynccontextmanager
    async def attached(size: tuple[int, int] = (80, 24), **options: Any) -> AsyncIterator[Attached]:
        app = WorkbenchApp(engine.folder, marks=options.pop("marks", "braille"), **options)
        async with app.run_test(size=size) as pilot:
            app.live.clock = lambda: engine.now
            await until(lambda: app.live.status is not None, "the first snapshot")
            app.live.last_beat = engine.now
            await pilot.pause()
            yield app, pilot

    return attached
