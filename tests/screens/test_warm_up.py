"""The screens while the model is warmed up before RL, and afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from screens.app import WorkbenchApp
from screens.widgets.chart import ChartView
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown


@pytest.fixture
async def engine(home: Path) -> AsyncIterator[FakeEngine]:
    """An engine that has taken 30 of 80 steps of its warm-up."""
    async with FakeEngine(home) as running:
        running.warm_up(0, 80, accuracy=0.02)
        for step in range(1, 31):
            running.warm_up(step, 80, accuracy=step / 100 if step % 8 == 0 else None)
        yield running


def shown_charts(app: WorkbenchApp) -> list[str]:
    return [chart.kind.name for chart in app.screen.query(ChartView) if chart.display]


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_golden(attach: Any, size: tuple[int, int]) -> None:
    async with attach(size=size) as (app, pilot):
        await until_shown(app, "warm-up loss", "warming up 30/80", "held-out")
        await pilot.pause()
        app.screen.tick(True)
        await pilot.pause()
        text = frame(app)
        assert "no step has finished yet" not in text
        assert "hidden" not in text
        check_golden(f"warm-up-{size[0]}x{size[1]}", text)


async def test_a_step_of_it_moves_its_curves_and_the_line_at_the_top(attach: Any, engine: FakeEngine) -> None:
    async with attach() as (app, _):
        await until_shown(app, "warming up 30/80", "loss 0.285")
        engine.warm_up(31, 80)
        await until_shown(app, "warming up 31/80", "loss 0.276", "warm-up loss .276")


async def test_before_its_first_step_the_charts_say_so(attach: Any, engine: FakeEngine) -> None:
    engine.series.clear()
    engine.beat(done=0)
    async with attach(size=(160, 48)) as (app, _):
        text = await until_shown(app, "no warm-up loss yet:", "the model is warming up; now: warming up 0/80")
        assert "no step has finished yet" not in text


async def test_a_pause_in_it_shows_where(attach: Any, engine: FakeEngine) -> None:
    async with attach(size=(160, 48)) as (app, pilot):
        await until_shown(app, "warming up 30/80")
        await pilot.press("space")
        await until_shown(app, "PAUSED", "warming up 30/80", "paused by you")


async def test_stopping_in_it_says_what_is_lost(attach: Any) -> None:
    async with attach() as (app, pilot):
        await until_shown(app, "warming up 30/80")
        await pilot.press("Q")
        await until_shown(app, "Nothing is saved: the warm-up will begin again.")


@pytest.mark.parametrize(("key", "text"), [("s", "no groups yet: the model is warming up"), ("r", "nothing waits")])
async def test_the_other_screens_say_why_they_are_empty(attach: Any, key: str, text: str) -> None:
    async with attach(size=(160, 48)) as (app, pilot):
        await until_shown(app, "warming up 30/80")
        await pilot.press(key)
        await until_shown(app, text, "the model is warming up (warming up 30/80)")


async def test_the_crosshair_reads_its_steps(attach: Any) -> None:
    async with attach() as (app, pilot):
        await until_shown(app, "warming up 30/80")
        await pilot.press("less_than_sign")
        await until_shown(app, "@30")
        await pilot.press("less_than_sign")
        await until_shown(app, "@29")


async def test_when_rl_has_a_record_its_charts_take_over_and_the_curve_can_be_chosen(
    attach: Any, engine: FakeEngine
) -> None:
    async with attach(size=(160, 48)) as (app, _):
        await until_shown(app, "warming up 30/80")
        engine.begin_rl()
        await until_shown(app, "/main", "step 1/2000")
        assert "warm-up-loss" in shown_charts(app)  # RL has nothing to show yet
        for _ in range(3):
            engine.finish_step()
        engine.beat()
        await until_shown(app, "reward", "step 4/2000")
        assert not any(name.startswith("warm-up") for name in shown_charts(app))
        chart = next(chart for chart in app.screen.query(ChartView) if chart.kind.name == "entropy")
        chart.metrics = ("warmup/loss",)
        chart.update()
        await until(lambda: chart.steps() == (0, 30))
        text = await until_shown(app, "warm-up loss .285")
        assert chart.vertical_lines() == ()
        assert "30" in text


async def test_an_ended_session_still_shows_it(attach: Any, engine: FakeEngine) -> None:
    async with attach() as (app, _):
        await until_shown(app, "warming up 30/80")
        await engine.leave(code=0, cause="stopped inside the warm-up")
        text = await until_shown(app, "DONE", "warm-up loss")
        assert "warming up 30/80" not in text
