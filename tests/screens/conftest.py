"""A scripted engine and an app attached to it."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.css.stylesheet import Stylesheet
from textual.pilot import Pilot

from screens.app import WorkbenchApp
from screens.safe import use_escapes
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import until

Attached = tuple[WorkbenchApp, Pilot[str]]
IDLE = 0.005

Attach = Callable[..., AbstractAsyncContextManager[Attached]]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of day are the same on every machine."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


# The two fixtures below use names that Textual keeps to itself. Without them the tests show the same, and take longer.


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key counts as handled once the process is idle for this long: Textual's pilot looks for 20 ms, twice a key."""
    with contextlib.suppress(ImportError):
        waits = importlib.import_module("textual._wait")
        monkeypatch.setattr(waits, "SLEEP_GRANULARITY", IDLE, raising=False)
        monkeypatch.setattr(waits, "SLEEP_IDLE", IDLE / 20, raising=False)


@pytest.fixture(autouse=True, scope="session")
def parsed_once() -> Iterator[None]:
    """The rules of a style sheet are the same in each app that has the same colours, and in each of its screens."""
    parse = getattr(Stylesheet, "_parse_rules", None)
    if parse is None:
        yield
        return
    rules: dict[Any, Any] = {}

    def parsed(self: Any, *given: Any, **named: Any) -> Any:
        variables = getattr(self, "_variables", None)
        if variables is None:
            return parse(self, *given, **named)
        key = (given, tuple(named.items()), tuple(variables.items()))
        if key not in rules:
            rules[key] = parse(self, *given, **named)
        return rules[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stylesheet, "_parse_rules", parsed)
        yield


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
def attach(engine: FakeEngine, request: pytest.FixtureRequest) -> Attach:
    """``async with attach(size=(80, 24)) as (app, pilot)``: an app whose first snapshot has come.

    Its clock stands still at the engine's, so that ages are the same in every run. It begins at ``mode``, else at
    what its module calls ``BEGINS_AT``, else at the dashboard: a test of another screen need not draw that first.
    """
    begins_at = getattr(request.module, "BEGINS_AT", "dashboard")

    @asynccontextmanager
    async def attached(
        size: tuple[int, int] = (80, 24), mode: str = begins_at, **options: Any
    ) -> AsyncIterator[Attached]:
        app = WorkbenchApp(engine.folder, marks=options.pop("marks", "braille"), **options)
        switch = app.switch_mode

        def begin(_: str) -> Any:
            app.switch_mode = switch  # type: ignore[method-assign]
            app.live.clock = lambda: engine.now
            return switch(mode)

        app.switch_mode = begin  # type: ignore[method-assign]
        async with app.run_test(size=size) as pilot:
            await until(lambda: app.live.status is not None, "the first snapshot")
            app.live.last_beat = engine.now
            await pilot.pause()
            yield app, pilot

    return attached
