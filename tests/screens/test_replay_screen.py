"""The screens over a recorded session: the time line, its keys, and what only an engine can do."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from screens.app import WorkbenchApp
from screens.base import WorkbenchScreen
from screens.live import Live
from screens.palette import actions_here
from screens.replaying import PACES, SIGNS, STEPS_A_SECOND, Player, ReplayLink, bar
from sessions.folders import SessionFolder
from sessions.replay import Replay
from tests.screens.conftest import Attached
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown
from tests.screens.recorded import ALARMED, CHANGED, RATED, SAVED, STEPS, recorded_session


@asynccontextmanager
async def replaying(
    step: int | None = None, size: tuple[int, int] = (80, 24), marks: str = "braille", **options: Any
) -> AsyncIterator[Attached]:
    """An app that replays a recorded session."""
    folder = options.pop("folder", None) or recorded_session()
    replay = Replay(folder)
    app = WorkbenchApp(folder, replay=replay, step=step, marks=marks, **options)
    try:
        async with app.run_test(size=size) as pilot:
            await until_shown(app, "REPLAY", "step ")
            await pilot.pause()
            yield app, pilot
    finally:
        replay.close()


def step_of(app: WorkbenchApp) -> int:
    assert app.replaying is not None
    assert app.live.status is not None
    assert app.live.status.step == app.replaying.step
    return app.replaying.step


async def goto(pilot: Pilot[str], words: str) -> None:
    await pilot.press("colon", *words, "enter")
    await pilot.pause()


@pytest.mark.parametrize("size", [(80, 24), (160, 48), (60, 16)])
async def test_golden(home: Path, size: tuple[int, int]) -> None:
    async with replaying(42, size) as (app, pilot):
        app.screen.tick(True)  # type: ignore[attr-defined]
        await pilot.pause()
        text = frame(app)
        assert max(map(len, text.split("\n"))) <= size[0]
        check_golden(f"replay-{size[0]}x{size[1]}", text)


async def test_golden_ascii(home: Path) -> None:
    async with replaying(42, marks="ascii") as (app, pilot):
        await pilot.pause()
        text = frame(app)
        assert text.isascii()
        check_golden("replay-ascii-80x24", text)


async def test_it_opens_at_the_end_and_steps_back_and_on(home: Path) -> None:
    async with replaying() as (app, pilot):
        assert step_of(app) == STEPS
        await pilot.press("full_stop")
        await until_shown(app, "this is the last step that was recorded")
        await pilot.press("comma", "comma")
        await until_shown(app, f"step {STEPS - 2}/{STEPS}", f"last group {STEPS - 2}.4")
        await pilot.press("full_stop")
        await until_shown(app, f"step {STEPS - 1}/{STEPS}")
        await goto(pilot, "goto 1")
        await pilot.press("comma")
        await until_shown(app, "this is the first step", f"step 1/{STEPS}")
        await goto(pilot, "goto 61")
        await until_shown(app, "no step 61: the record goes from 1 to 60")
        assert step_of(app) == 1


async def test_the_marks_are_stopped_at(home: Path) -> None:
    async with replaying(1) as (app, pilot):
        seen = []
        for _ in range(5):
            await pilot.press("right_curly_bracket")
            seen.append(step_of(app))
        assert seen == [CHANGED, SAVED, RATED, ALARMED, STEPS]
        await pilot.press("right_curly_bracket")
        await until_shown(app, "nothing is marked after this step")
        await pilot.press("left_curly_bracket", "left_curly_bracket")
        assert step_of(app) == RATED


async def test_values_changes_alarms_and_ratings_are_those_of_then(home: Path) -> None:
    async with replaying(CHANGED - 1) as (app, pilot):
        assert "your change" not in await until_shown(app, "lr 1e-6")
        await pilot.press("full_stop")
        await until_shown(app, "lr 5e-7", f"your change (lr @{CHANGED})")
        await goto(pilot, f"goto {ALARMED + 1}")
        assert len(app.live.alarms) == 1
        await goto(pilot, f"goto {ALARMED}")
        assert not app.live.alarms, "it fired after the step was kept"
        await goto(pilot, f"goto {RATED - 1}")
        await pilot.press("s")
        await until_shown(app, "SAMPLES", "29.2")
        assert "r1" not in frame(app)
        await pilot.press("j", "j")
        await until_shown(app, "human -")
        await pilot.press("full_stop")
        await until_shown(app, "> 29.2", "r1 trunc", "human 5")


async def test_space_plays_at_the_clocks_pace_until_the_end(home: Path) -> None:
    async with replaying(10) as (app, pilot):
        link = app.replaying
        assert link is not None
        now = [100.0]
        link.player = Player(lambda: now[0])
        await pilot.press("space")
        assert link.player.playing
        now[0] += 1.0
        link.go_on()
        assert step_of(app) == 10 + int(STEPS_A_SECOND)
        await until_shown(app, "step 15/60", "> x1")
        await pilot.press("right_square_bracket")
        now[0] += 1.0
        link.go_on()
        assert step_of(app) == 25
        await pilot.press("left_square_bracket", "left_square_bracket")
        await until_shown(app, "> x0.5")
        now[0] += 1.0
        link.go_on()
        assert step_of(app) == 27
        await pilot.press("space")
        await until_shown(app, "|| x0.5")
        now[0] += 10.0
        link.go_on()
        assert step_of(app) == 27
        await pilot.press("space")
        await pilot.press("comma")
        assert not link.player.playing, "a step by hand holds it"
        await pilot.press("space")
        now[0] += 1000.0
        link.go_on()
        assert step_of(app) == STEPS
        assert not link.player.playing
        await pilot.press("space")
        assert (step_of(app), link.player.playing) == (1, True)


def test_a_player_owes_parts_of_steps_and_forgets_what_it_held() -> None:
    now = [0.0]
    player = Player(lambda: now[0])
    assert player.due() == 0
    player.play()
    taken = []
    for _ in range(8):
        now[0] += 0.125
        taken.append(player.due())
    assert sum(taken) == 5
    assert max(taken) == 1
    player.hold()
    now[0] += 60
    assert player.due() == 0
    player.play()
    assert player.due() == 0
    player.change_pace(-99)
    assert player.pace == min(PACES)
    player.change_pace(99)
    assert player.pace == max(PACES)
    now[0] += 1
    assert player.due() == STEPS_A_SECOND * max(PACES)


async def test_a_key_is_drawn_at_once_and_the_rest_follows_without_a_beat(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replaying(40) as (app, _):
        monkeypatch.setattr(app.pace, "may_draw", lambda: False)
        charts: list[int] = []
        screen = app.screen
        draw = screen.refresh_from_live  # type: ignore[attr-defined]
        monkeypatch.setattr(screen, "refresh_from_live", lambda force: (charts.append(step_of(app)), draw(force)))
        for _ in range(5):
            await app.run_action("along(-1)", screen)
        await until_shown(app, "step 35/60", "last group 35.4")
        assert charts == [35], "five keys, and the charts were drawn once"


async def test_it_plays_by_itself(home: Path) -> None:
    async with replaying(1) as (app, pilot):
        await pilot.press(*["right_square_bracket"] * 6, "space")
        await until(lambda: step_of(app) == STEPS, "the end")
        await until_shown(app, f"step {STEPS}/{STEPS}", f"{STEPS}.4")


@pytest.mark.parametrize("keys", [("C",), ("Q",), ("colon", *"pause", "enter"), ("colon", *"set epochs 2", "enter")])
async def test_what_needs_an_engine_says_where_it_is_done(home: Path, keys: tuple[str, ...]) -> None:
    async with replaying() as (app, pilot):
        await pilot.press(*keys)
        await until_shown(app, "this is a replay; `workbench run --name gsm8k-grpo` continues the session")
        assert len(app.screen_stack) == 1


async def test_a_rating_is_refused_and_not_shown_as_given(home: Path) -> None:
    async with replaying(12) as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "RATE", "it arrives at")
        await pilot.press("5")
        text = await until_shown(app, "nothing can be rated in a replay")
        assert " 5]" not in text
        assert "you: 0 today" in text
        for key in ("i", "f", "c", "x", "X", "5", "h"):
            await pilot.press("J")
            assert "nothing can be rated" not in frame(app)
            await pilot.press(key)
            text = await until_shown(app, "nothing can be rated in a replay" if key != "h" else "RATE")
            for opened in ("saves", "enter alone", "comment on", "F2", "not skipped", "the flags are open"):
                assert opened not in text, key
        for key in ("u", "ctrl+r"):
            await pilot.press(key)
            await until_shown(app, "nothing to undo: this is a replay")
        await pilot.press("p", "plus", "A")
        await until_shown(app, "this is a replay")
        await pilot.press("u")
        await until_shown(app, "nothing to undo: this is a replay")
    store_rows = Replay(SessionFolder(home / "sessions" / "gsm8k-grpo"))
    assert [r.id for r in store_rows.snapshot().ratings] == ["r1"]
    store_rows.close()


async def test_a_replay_of_a_running_session_says_that_it_runs(home: Path) -> None:
    folder = recorded_session()
    lock = folder.lock()
    try:
        async with replaying(folder=folder) as (app, pilot):
            await pilot.press("C")
            await until_shown(app, "this is a replay; `workbench attach gsm8k-grpo` shows the session that runs")
    finally:
        os.close(lock)


async def test_the_keys_of_a_replay_stand_in_the_place_of_an_engines(home: Path) -> None:
    async with replaying(5, size=(160, 48)) as (app, pilot):
        screen = app.screen
        assert isinstance(screen, WorkbenchScreen)
        here = {action.id: key for action, key, _ in actions_here(screen)}
        assert {
            "replay.play": "space",
            "replay.back": ",",
            "replay.on": ".",
            "replay.faster": "]",
        }.items() <= here.items()
        assert not {"pause", "step"} & here.keys()
        text = await until_shown(app, "space play  , back  . on")
        assert "C checkpoint" not in text
        await pilot.press("question_mark")
        await until_shown(app, "in a replay", "one step back")


async def test_a_live_session_has_none_of_them(home: Path) -> None:
    async with FakeEngine(home, steps=3) as engine:
        app = WorkbenchApp(engine.folder, marks="braille")
        async with app.run_test(size=(80, 24)) as pilot:
            await until_shown(app, "reward", "space pause")
            screen = app.screen
            assert isinstance(screen, WorkbenchScreen)
            here = {action.id for action, _, _ in actions_here(screen)}
            assert "pause" in here
            assert not [name for name in here if name.startswith("replay.")]
            await pilot.press("comma", "right_square_bracket")
            assert not app.screen.query_one("#time-line").display


async def test_the_other_screens_show_the_moment(home: Path) -> None:
    async with replaying(7) as (app, pilot):
        await pilot.press("e")
        text = await until_shown(app, "EVENTS", "step 7 done", "step 7/60")
        assert "step 8 done" not in text
        await pilot.press("full_stop")
        await until_shown(app, "step 8 done", "step 8/60")
        await pilot.press("comma", "p")
        await until_shown(app, "PARAMETERS", "learning_rate", "1e-6", "step 7/60")
        await pilot.press("d", "t")
        await until_shown(app, "step", "reward/mean")
        assert "       8  " not in frame(app)


async def test_ages_are_those_of_then(home: Path) -> None:
    async with replaying(SAVED + 2, size=(160, 48)) as (app, _):
        await until_shown(app, f"checkpoint step {SAVED}, 24 s ago", "load and disk are not recorded")


async def test_below_the_least_size_there_is_one_line(home: Path) -> None:
    async with replaying(7, size=(58, 14)) as (app, _):
        text = await until_shown(app, "terminal too small: 58x14")
        assert "step 7/60" not in text.split("\n", 2)[2]


# ---- from the list


async def test_enter_on_a_session_that_ended_in_order_replays_its_end(home: Path) -> None:
    recorded_session()
    app = WorkbenchApp(None, marks="braille")
    async with app.run_test(size=(100, 24)) as pilot:
        await until_shown(app, "gsm8k-grpo", "DONE")
        await pilot.press("enter")
        await until_shown(app, "REPLAY", f"step {STEPS}/{STEPS}", "reward")
        await pilot.press("comma")
        await until_shown(app, f"step {STEPS - 1}/{STEPS}")
        await pilot.press("q")
        await pilot.pause()
        line = "left the replay of gsm8k-grpo. See it again with: workbench replay gsm8k-grpo"
        assert app.return_value == line


async def test_enter_on_a_failed_session_shows_why_it_failed(home: Path) -> None:
    recorded_session(code=1)
    app = WorkbenchApp(None, marks="braille")
    async with app.run_test(size=(100, 24)) as pilot:
        await until_shown(app, "gsm8k-grpo", "FAILED")
        await pilot.press("enter")
        await until_shown(app, "the engine has failed", "RuntimeError: boom", "last checkpoint: step 60")
        assert app.replaying is None


async def test_R_continues_the_session_that_is_replayed(home: Path) -> None:
    started: list[SessionFolder] = []

    async def restart(folder: SessionFolder) -> None:
        started.append(folder)

    async with replaying(restart_session=restart) as (app, pilot):
        await until_shown(app, "the end of the record: R continues the session from its last checkpoint")
        await pilot.press("R")
        await until(lambda: started)
        await until(lambda: app.replaying is None)
        await until_shown(app, "DONE", "reward")
        assert not app.screen.query_one("#time-line").display


# ---- the line


@pytest.mark.parametrize("width", [60, 61, 80, 120, 200])
@pytest.mark.parametrize("name", ["a", "n" * 64])
def test_the_line_fills_its_width(home: Path, width: int, name: str) -> None:
    replay = Replay(recorded_session(name, steps=12))
    link = ReplayLink(replay, Live(name), on_frame=lambda: None)
    for step in (1, 7, 12):
        link.goto(step)
        line = "".join(text for text, _ in link.time_line(width, "ascii"))
        assert len(line) == width
        assert f"step {step}/12" in line
        assert ("REPLAY a/main" in line) == (name == "a")
        inner = line[line.index("[") + 1 : line.index("]")]
        assert len(inner) >= 16
        assert inner[round((step - 1) / 11 * (len(inner) - 1))] == "|"
        link.player.play()
        assert "> x1" in "".join(text for text, _ in link.time_line(width, "ascii"))
    replay.close()


def test_marks_stand_in_their_columns_and_the_weightiest_on_top() -> None:
    happened = {"change": [11], "alarm": [21, 31], "rating": [21, 51], "checkpoint": [11, 61, 101]}
    row = bar(happened, 1, 101, 41, 101, "ascii")
    text = "".join(part for part, _ in row)
    expected = list("=" * 40 + "|" + "-" * 60)
    for step, sign in ((11, ":"), (21, "!"), (31, "!"), (51, "r"), (61, "C"), (101, "C")):
        expected[step - 1] = sign
    assert text == "".join(expected)
    assert [role for part, role in row if part == "!"] == ["alarm", "alarm"]
    everywhere = bar({"rating": list(range(1, 102)), "alarm": [50]}, 1, 101, 1, 40, "ascii")
    assert "r" not in "".join(part for part, _ in everywhere)
    assert "!" in "".join(part for part, _ in everywhere)
    assert set(SIGNS) == set(happened)
    assert "".join(part for part, _ in bar({}, 5, 5, 5, 3, "ascii")) == "|--"


async def test_the_brackets_keep_their_meaning_where_two_responses_are_compared(home: Path) -> None:
    async with replaying(42) as (app, pilot):
        await pilot.press("s")
        await until_shown(app, "> A")
        await pilot.press("D")
        await until_shown(app, "A and B of")
        assert app.replaying is not None
        assert app.screen.focused is not None
        assert app.screen.focused.id == "sides"
        pace = app.replaying.player.pace
        await pilot.press("right_square_bracket")
        assert app.replaying.player.pace > pace
        await pilot.press("left_square_bracket")
        assert app.replaying.player.pace == pace
        assert app.screen.focused.alone is None  # type: ignore[attr-defined]
        here = {action.id for action, _, _ in actions_here(app.screen)}  # type: ignore[arg-type]
        assert {"replay.slower", "replay.before", "sides.stack"} <= here
        assert not {"sides.left", "sides.right"} & here
        await pilot.press("w")
        assert not app.screen.focused.stacked  # type: ignore[attr-defined]
