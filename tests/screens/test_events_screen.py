"""The list of events: following, older pages, the filter, the whole record."""

from __future__ import annotations

import pytest
from textual import events

from screens.event_rows import is_listed
from screens.events import EventsScreen
from sessions.commands import QueryEvents
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown

BEGINS_AT = "events"


@pytest.mark.parametrize(("name", "size"), [("events-80x24", (80, 24)), ("events-160x48", (160, 48))])
async def test_golden(attach: Attach, name: str, size: tuple[int, int]) -> None:
    async with attach(size=size) as (app, pilot):
        await pilot.press("e", "k")
        await until_shown(app, "kl/k3 jump", "learning_rate 1e-6 -> 5e-7", "> ")
        check_golden(name, frame(app))


async def test_the_newest_is_followed_until_the_cursor_moves(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("e")
        await until_shown(app, "EVENTS  following")
        engine.finish_step()
        await until_shown(app, "step 121 done")
        await pilot.press("k", "k")
        engine.finish_step()
        await until_shown(app, "holding still")
        screen = app.screen
        assert isinstance(screen, EventsScreen)
        newest = str(engine.events[-1].seq)
        await until(lambda: screen.table.shown[-1].key == newest, "the new events")
        assert "step 122 done" not in frame(app)
        await pilot.press("G")
        await until_shown(app, "step 122 done", "EVENTS  following")


async def test_older_pages_come_at_the_top(attach: Attach, engine: FakeEngine) -> None:
    for _ in range(300):
        engine.finish_step()
    async with attach() as (app, pilot):
        await pilot.press("e")
        await until_shown(app, "step 420 done")
        screen = app.screen
        assert isinstance(screen, EventsScreen)
        known = len(screen.table.shown)
        await pilot.press("g")
        await until(lambda: len(screen.table.shown) > known, "an older page")
        assert screen.table.cursor == len(screen.table.shown) - known  # on the line it was on
        while not screen._at_start:
            await pilot.press("g")
            await until(lambda: not screen._asking, "the page")
        assert [row.key for row in screen.table.shown] == [
            str(event.seq) for event in engine.events if is_listed(event)
        ]  # every event once and in order, but for the groups of each step
        asked = len([c for c in engine.received if isinstance(c, QueryEvents)])
        await pilot.press("j", "g", "j", "g")
        assert len([c for c in engine.received if isinstance(c, QueryEvents)]) == asked


async def test_filters(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("e", "slash", *"kind", "colon", *"alarm")
        text = await until_shown(app, "events  /kind:alarm", "kl/k3 jump 5.2x @100", "1 of 1")
        assert "step 120 done" not in text
        await pilot.press("escape")
        await until_shown(app, "step 120 done")
        assert "groups scored" not in frame(app)  # the line of the step stands for them
        await pilot.press("slash", *"step", "colon", *"7", "space", *"done", "enter")
        await until_shown(app, "step 7 done", "1 of 1")


async def test_enter_shows_the_whole_record(attach: Attach, engine: FakeEngine) -> None:
    async with attach(size=(100, 40)) as (app, pilot):
        await pilot.press("e", "slash", *"step", "colon", *"120", "space", *"done", "enter")
        await until_shown(app, "> ", "step 120 done")
        await pilot.press("enter")
        await until_shown(app, '"event": "step"', '"reward/mean"')


async def test_what_an_engine_notes_is_data(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("e")
        await until_shown(app, "EVENTS")
        engine.raise_alarm("\x1b[2J[bold]boo[/]")
        await until_shown(app, "␛[2J[bold]boo[/]")


async def test_keys_typed_ahead_go_into_the_line_and_not_to_the_screen(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("e")
        await until_shown(app, "EVENTS")
        app.post_message(events.Key("slash", "/"))
        for letter in "kind:rs":
            app.post_message(events.Key(letter, letter))
        await until_shown(app, "filter / kind:rs")
        assert isinstance(app.screen, EventsScreen)
