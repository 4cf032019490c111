"""The dashboard as a person sees it, and its keys."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from screens.arrangement import arrange
from screens.chart_kinds import ALGORITHMS, CHARTS, layout
from screens.dashboard import DashboardScreen
from screens.panels import group_row, last_group_line
from screens.widgets.chart import ChartView
from screens.widgets.panes import ThreeLines
from sessions import commands as c
from sessions.records import GroupHead, SeriesData
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown


@pytest.mark.parametrize("size", [(80, 24), (160, 48), (60, 16)])
async def test_golden(attach: Attach, size: tuple[int, int]) -> None:
    async with attach(size=size) as (app, pilot):
        await until_shown(app, "reward", "step 121")
        await pilot.pause()
        app.screen.tick(True)  # type: ignore[attr-defined]
        await pilot.pause()
        check_golden(f"dashboard-{size[0]}x{size[1]}", frame(app))


async def test_golden_ascii(attach: Attach) -> None:
    async with attach(marks="ascii") as (app, pilot):
        await until_shown(app, "reward")
        await pilot.pause()
        text = frame(app)
        assert text.isascii()
        check_golden("dashboard-ascii-80x24", text)


async def test_a_step_is_drawn(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, _):
        engine.finish_step(**{"reward/mean": 0.777})
        engine.beat()
        await until_shown(app, ".777 @121", "step 122/2000")


async def test_below_the_least_size_there_is_one_line(attach: Attach) -> None:
    async with attach(size=(58, 14)) as (app, _):
        text = await until_shown(app, "terminal too small: 58x14")
        assert "RUN" in text
        assert "pause" not in text


async def test_hidden_charts_are_announced_and_shown_by_w(attach: Attach) -> None:
    async with attach() as (app, pilot):
        text = await until_shown(app, "2 charts hidden: widen or press w")
        assert "policy loss" not in text
        await pilot.press("w")
        text = await until_shown(app, "policy loss", "entropy", "reward")
        assert "hidden" not in text
        await pilot.press("w")
        await until_shown(app, "2 charts hidden")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_arrangement_shows_or_announces_every_chart(algorithm: str) -> None:
    wanted = layout(algorithm)
    assert set(wanted.grid) == set(wanted.importance) <= {kind.name for kind in CHARTS}
    for width in (60, 80, 100, 119, 120, 160, 250):
        for height in range(12, 80):
            seen: set[str] = set()
            first = arrange(width, height, wanted.importance, wanted.panels)
            for page in range(first.pages):
                plan = arrange(width, height, wanted.importance, wanted.panels, page=page)
                assert plan.charts
                assert set(wanted.importance) == set(plan.charts) | (set(plan.hidden) - set(wanted.panels))
                assert len(plan.charts) <= plan.rows * 2
                assert page == 0 or plan != first, "each press of w shows something else"
                assert len(plan.panels) <= plan.rows
                seen |= set(plan.charts)
            assert seen == set(wanted.importance)


@pytest.mark.parametrize("algorithm", ["ppo", "trpo"])
async def test_golden_of_an_algorithm(attach: Attach, engine: FakeEngine, algorithm: str) -> None:
    engine.set(algorithm=algorithm)
    for _ in range(80):
        engine.finish_step()
    async with attach(size=(160, 48)) as (app, pilot):
        await until_shown(app, "step 201", algorithm.upper())
        await pilot.pause()
        app.screen.tick(True)  # type: ignore[attr-defined]
        await pilot.pause()
        check_golden(f"dashboard-{algorithm}-160x48", frame(app))


async def test_the_charts_follow_the_running_algorithm(attach: Attach, engine: FakeEngine) -> None:
    async with attach(size=(160, 48)) as (app, _):
        text = await until_shown(app, "policy loss")
        assert "explained variance" not in text
        engine.set(algorithm="ppo")
        engine.finish_step()
        await until_shown(app, "explained variance", "value loss", "value model", "gae_lambda")
        engine.set(algorithm="trpo")
        engine.finish_step()
        text = await until_shown(app, "KL(old,new)", "limit .010", "step fraction", "line search", "taken")
        assert "policy loss" not in text
        assert "explained variance" not in text
        engine.set(algorithm="grpo")
        engine.finish_step()
        await until_shown(app, "policy loss")


async def test_on_a_small_terminal_the_most_important_charts_of_the_algorithm_are_shown(
    attach: Attach, engine: FakeEngine
) -> None:
    engine.set(algorithm="ppo")
    engine.finish_step()
    async with attach() as (app, pilot):
        await until_shown(app, "expl var", "4 charts hidden", "lambda 0.95")
        await pilot.press("w")
        await until_shown(app, "2 charts hidden", "entropy")
        await pilot.press("w")
        await until_shown(app, "value loss", "policy loss")


async def test_a_number_that_is_not_measured_any_more_leaves_the_title(attach: Attach, engine: FakeEngine) -> None:
    engine.set(algorithm="trpo")
    for name in ("clip/low", "clip/high"):
        engine.series[name].steps[:] = engine.series[name].steps[:50]
        engine.series[name].values[:] = engine.series[name].values[:50]
    async with attach(size=(160, 48)) as (app, _):
        text = await until_shown(app, "entropy")
        assert "clip frac" not in text


async def test_a_chart_of_an_algorithm_that_was_switched_back_to_says_how_old_its_number_is(
    attach: Attach, engine: FakeEngine
) -> None:
    engine.set(algorithm="trpo")
    engine.finish_step()
    kept = engine.series["trpo/kl_realised"]
    measured = kept.steps[-1]
    engine.set(algorithm="grpo")
    for _ in range(30):
        engine.finish_step()
    kept.steps[:], kept.values[:] = [measured], [0.004]
    engine.set(algorithm="trpo")
    async with attach(size=(160, 48)) as (app, _):
        await until_shown(app, f"KL(old,new) .004 @{measured}")


async def test_an_empty_chart_of_trpo_says_that_no_update_has_finished(attach: Attach, engine: FakeEngine) -> None:
    engine.finish_step()
    engine.set(algorithm="trpo")
    async with attach(size=(160, 48)) as (app, _):
        await until_shown(app, "no cg residual yet:", "no update of trpo has finished")


async def test_while_the_value_model_trains_alone_the_charts_of_the_policy_say_so(
    attach: Attach, engine: FakeEngine
) -> None:
    engine.set(algorithm="ppo")
    engine.finish_step(**{"value/warmup_left": 1.0})
    del engine.series["loss/policy"]
    async with attach(size=(160, 48)) as (app, _):
        text = " ".join((await until_shown(app, "no policy loss yet:")).split())
        assert "the value model has trained alone so far" in text
        assert "trains alone for 1 more step;" in text


async def test_zoom_and_back(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await until_shown(app, "kl/k3")
        await pilot.press("l", "enter")
        await until(lambda: "reward" not in frame(app) and "kl/k3" in frame(app))
        await pilot.press("escape")
        await until_shown(app, "reward", "kl/k3")


async def test_the_crosshair_is_on_the_same_step_of_every_chart(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await until_shown(app, "reward")
        await pilot.press("less_than_sign", "less_than_sign")
        await until(lambda: frame(app).count("@1") >= 4)
        screen = app.screen
        assert isinstance(screen, DashboardScreen)
        at = screen.view.cross
        assert frame(app).count(f"@{at}") == 4
        await pilot.press("escape")
        await until(lambda: f"@{at}" not in frame(app))


async def test_log_smoothing_window_values_and_formula(attach: Attach) -> None:
    async with attach(size=(160, 48)) as (app, pilot):
        await until_shown(app, "ema .900")
        await pilot.press("y")
        await until_shown(app, "log")
        await pilot.press("S")
        await until_shown(app, "ema .980")
        await pilot.press("z", "z", "z")
        await until_shown(app, "steps 71 to 120")
        await pilot.press("t")
        await until_shown(app, "reward/mean", "120")
        await pilot.press("escape")
        await pilot.press("question_mark")
        await until_shown(app, "mean reward of the step's responses, ratings included")
        await pilot.press("escape")


async def test_choosing_metrics(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await until_shown(app, "reward")
        await pilot.press("x")
        await until_shown(app, "metrics of this chart")
        await pilot.press("j", "j", "enter")
        await until(lambda: any(chart.metrics == ("advantage/abs_max",) for chart in app.screen.query(ChartView)))
        await until_shown(app, "adv max 2.10")


async def test_an_empty_chart_says_why(attach: Attach, engine: FakeEngine) -> None:
    del engine.series["kl/k3"]
    engine.values["kl_coefficient"] = 0.0
    engine.last_step = None
    async with attach(size=(160, 48)) as (app, _):
        await until_shown(app, "no kl yet:")
    engine.last_step = None


def test_a_dead_group_has_no_spread_and_one_without_rewards_has_failed() -> None:
    """Of three rewards of 0.2 floats leave a standard deviation of 3e-17, which is no figure for people."""
    dead = GroupHead(branch="main", step=8, number=3, prompt="", mean=0.2, std=3e-17, rewards=[0.2] * 3, flags=["dead"])
    failed = msgspec.structs.replace(dead, mean=None, std=None, rewards=[None] * 3, flags=["failed", "dead"])
    for head, long, line in (
        (dead, ".200    0  dead", "mean .200  std 0   dead"),
        (failed, "-    -  failed", "failed"),
    ):
        assert long in "".join(text for text, _ in group_row(head, 60))
        live: Any = SimpleNamespace(heads={"8.3": head})
        assert line in "".join(text for text, _ in last_group_line(live, 80))


async def test_after_the_first_evaluation_an_empty_chart_still_waits_for_a_step(
    attach: Attach, engine: FakeEngine
) -> None:
    assert engine.last_step is not None
    engine.last_step = msgspec.structs.replace(engine.last_step, step=0, metrics={"eval/accuracy": 0.25})
    for name in ("kl/k3", "entropy"):
        del engine.series[name]
    async with attach(size=(160, 48)) as (app, _):
        await until_shown(app, "no kl yet:", "no entropy yet:")
        text = frame(app)
        assert text.count("no step has finished yet; now:") == 2
        assert "measured" not in text


async def test_goto_fetches_the_points_of_an_old_window(attach: Attach, engine: FakeEngine) -> None:
    while engine.last_step is None or engine.last_step.step < 1600:
        engine.finish_step()
    async with attach() as (app, pilot):
        await until_shown(app, "1600")
        await pilot.press("colon", *"goto 640", "enter")
        await until_shown(app, "@640", "590", "690")
        await until(lambda: any(isinstance(command, c.QuerySeries) for command in engine.received))
        asked = next(command for command in engine.received if isinstance(command, c.QuerySeries))
        assert (asked.first, asked.last) == (590, 690)
        screen = app.screen
        assert isinstance(screen, DashboardScreen)
        await until(lambda: screen.view.fetched)


async def test_nothing_of_the_screen_before_stays_at_the_right_edge(attach: Attach) -> None:
    async with attach(size=(80, 24)) as (app, pilot):
        await until_shown(app, "reward", "2 charts hidden")
        await pilot.press("enter")  # a chart as large as the screen, its frame in the last column
        await until(lambda: "last group" not in frame(app))
        await pilot.press("escape")
        await until_shown(app, "last group")
        lines = app.screen.query_one("#three", ThreeLines)
        assert [lines.render_line(y).cell_length for y in range(3)] == [80, 80, 80]
        assert [sum(len(s.text) for s in lines.render_line(y)) for y in range(3)] == [80, 80, 80]


async def test_charts_that_stand_still_say_so(attach: Attach) -> None:
    async with attach(size=(80, 24)) as (app, pilot):
        await until_shown(app, "2 charts hidden")
        await pilot.press("colon", *"goto 40", "enter")
        await until_shown(app, "steps 0 to 90")
        await pilot.press("j")
        await until_shown(app, "the charts stand still at steps 0 to 90: esc shows all steps")
        await pilot.press("escape", "escape")
        await until_shown(app, "all steps")


async def test_the_help_of_the_loss_says_why_it_is_about_zero(attach: Attach) -> None:
    async with attach(size=(160, 48)) as (app, pilot):
        await until_shown(app, "policy loss")
        await pilot.press("j", "j", "question_mark")
        text = " ".join((await until_shown(app, "loss/policy", "healthy")).replace("│", " ").split())
        assert "GRPO's is about 0 when each rollout takes one optimizer step" in text
        assert "the advantages of a group sum to 0" in text
        assert "grad/norm" in text


async def test_the_help_is_about_the_metrics_that_were_chosen(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await until_shown(app, "reward")
        await pilot.press("x", "j", "j", "enter")
        await until_shown(app, "adv max 2.10")
        await pilot.press("question_mark")
        text = await until_shown(app, "advantage/abs_max: largest", "healthy: At most")
        assert "reward/mean:" not in text


async def test_the_help_of_a_trpo_chart_draws_the_line_search(attach: Attach, engine: FakeEngine) -> None:
    engine.set(algorithm="trpo")
    engine.finish_step()
    engine.finish_step()
    async with attach() as (app, pilot):
        await until_shown(app, "KL(old,new)")
        await pilot.press("j", "question_mark", *["pagedown"] * 3, *["k"] * 8)
        await pilot.press("g", *["j"] * 6)
        await until_shown(app, "The newest line search:", "too far", "taken")


async def test_the_help_is_whole_at_80x24_because_it_scrolls(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await until_shown(app, "reward")
        await pilot.press("question_mark")
        await until_shown(app, "reward/mean:")
        await pilot.press("G")
        await until_shown(app, "the keys and the words")


@pytest.mark.parametrize(
    ("algorithm", "size"), [(name, (60, 16)) for name in ALGORITHMS] + [("ppo", (120, 30)), ("trpo", (120, 30))]
)
async def test_every_algorithm_fits_every_size(
    attach: Attach, engine: FakeEngine, algorithm: str, size: tuple[int, int]
) -> None:
    engine.set(algorithm=algorithm)
    engine.finish_step()
    async with attach(size=size, marks="ascii") as (app, pilot):
        text = await until_shown(app, "reward", "hidden: widen or press w")
        await pilot.press("enter")
        await until_shown(app, "reward")
        await pilot.press("escape", "w")
        await until(lambda: frame(app) != text)
        assert frame(app).isascii()
        assert all(len(line) <= size[0] for line in frame(app).splitlines())


async def test_a_fork_and_a_rewind_are_vertical_marks(attach: Attach, engine: FakeEngine) -> None:
    engine.changes.clear()
    engine.alarms.clear()
    engine.add_branch("low", 60, tip=90)
    async with attach() as (app, _):
        await until_shown(app, "step 121")
        chart = app.screen.query(ChartView).first()
        assert chart.vertical_lines() == ()
        engine.go_to("low", 90)
        await until(lambda: app.live.branch == "low", "the switch")
        assert chart.vertical_lines() == ((60, "change"),)
        engine.rewound("low~1", 80)
        engine.infos["low~1"] = msgspec.structs.replace(
            engine.infos["low~1"], branch=msgspec.structs.replace(engine.infos["low~1"].branch, parent="low")
        )
        engine.resync()
        await until(lambda: len(chart.vertical_lines()) == 2, "the rewind's mark")
        assert chart.vertical_lines() == ((60, "change"), (80, "change"))
        await until(lambda: frame(app).count(":") > 10, "the marks")


async def test_points_of_a_window_are_not_those_of_the_line_before(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, _):
        screen = app.screen
        assert isinstance(screen, DashboardScreen)
        screen.view.fetched = {"reward/mean": SeriesData(name="reward/mean", steps=[1, 120], values=[0.0, 9.0])}
        engine.go_to("main", 100)
        engine.rewound("main~1", 100)
        await until(lambda: screen.view.fetched is None, "the points of the line before to be forgotten")
