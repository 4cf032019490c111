"""The samples screen: following, filtering, growing text, what is copied."""

from __future__ import annotations

import pytest

from screens.samples import SamplesScreen
from sessions.commands import QueryGroup
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown


def screen_of(app: object) -> SamplesScreen:
    screen = app.screen  # type: ignore[attr-defined]
    assert isinstance(screen, SamplesScreen)
    return screen


@pytest.mark.parametrize(("name", "size"), [("samples-80x24", (80, 24)), ("samples-160x48", (160, 48))])
async def test_golden(attach: Attach, engine: FakeEngine, name: str, size: tuple[int, int]) -> None:
    async with attach(size=size) as (app, pilot):
        await pilot.press("s", "j", "J", "J")
        await until_shown(app, "> 120.3", "> C", "#### 2")
        check_golden(name, frame(app))


async def test_it_follows_the_newest_until_the_cursor_moves(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s")
        await until_shown(app, "> 120.4", "following the newest")
        engine.finish_step()
        await until_shown(app, "> 121.4")
        await pilot.press("j")
        await until_shown(app, "> 121.3", "holding still")
        engine.finish_step()
        await until_shown(app, "> 121.3", "4 above")
        await pilot.press("f")
        await until_shown(app, "> 122.4", "following the newest")


async def test_growing_text_is_the_top_entry_and_grows(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        engine.grow("unasked")
        await pilot.press("s")
        await until(lambda: any(c.growing == 0 for c in engine.server.connections), "the subscription")
        assert "unasked" not in frame(app)
        engine.grow("The train", "180 km")
        await until_shown(app, "> sampling", "0/2", "> A", "The train", "growing")
        engine.grow("The train is back at", "180 km", ended=(1,))
        await until_shown(app, "1/2", "The train is back at", "eos 180 km")
        engine.grow("The train is back at 19:17", "180 km", "90 km/h", ended=(0, 1))
        await until_shown(app, "> C", "2/3", "90 km/h")
        await pilot.press("K")
        await until_shown(app, "> B", "ended, not scored yet")
        engine.grow("The train is back at 19:17", "180 km", "90 km/h is", ended=(0, 1))
        await until_shown(app, "90 km/h is", "> B")
        await pilot.press("d")
        await until(lambda: all(c.growing == -1 for c in engine.server.connections), "the end of the subscription")


async def test_hostile_growing_text_is_shown_and_not_obeyed(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s")
        await until(lambda: any(c.growing == 0 for c in engine.server.connections), "the subscription")
        engine.grow("\x1b]52;c;x\x07[bold]b[/]")
        await until_shown(app, "␛]52;c;x␇[bold]b[/]")
        assert "\x1b" not in frame(app)


async def test_when_the_step_is_scored_the_newest_group_takes_its_place(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s")
        await until(lambda: any(c.growing == 0 for c in engine.server.connections), "the subscription")
        engine.grow("half a thought")
        await until_shown(app, "half a thought")
        engine.finish_step()
        engine.beat(phase="updating")
        await until_shown(app, "> 121.4", "It waits [121]")


async def test_the_filter_is_applied_while_it_is_typed(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s", "slash", *"flag", "colon", *"dead")
        await until_shown(app, "filter /", "groups  /flag:dead", "> 120.4", "119.4")
        assert "120.3" not in frame(app)
        await pilot.press("enter")
        assert [row.cells[3] for row in screen_of(app).groups.shown][:2] == ["dead", "dead"]
        await pilot.press("slash", "escape")
        await until_shown(app, "120.3")


async def test_a_filter_that_cannot_be_read_says_so(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s", "slash", *"flag", "colon", *"x")
        await until_shown(app, "the flags are dead, truncated")


async def test_enter_goes_in_and_esc_comes_back(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s")
        await until_shown(app, "> 120.4", "> A")
        screen = screen_of(app)
        await pilot.press("enter")
        assert screen.focused is screen.responses
        await pilot.press("enter")
        assert screen.has_class("-zoomed")
        await until(lambda: not screen.groups.region, "the response alone")
        await pilot.press("escape", "escape")
        assert screen.focused is screen.groups
        await pilot.press("escape")
        await until(lambda: not isinstance(app.screen, SamplesScreen), "the dashboard")


async def test_r_rates_the_response_under_the_cursor(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s", "j", "J")
        await until_shown(app, "> 120.3", "> B", "#### 1")
        await pilot.press("r")
        await until_shown(app, "120.3 (group 1 of", "response B of 8", "reward .00")


async def test_a_group_is_asked_for_once_and_again_when_it_changed(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s", "j", "k", "j")
        await until_shown(app, "> 120.3", "#### 0")
        asked = [c.group for c in engine.received if isinstance(c, QueryGroup)]
        assert sorted(asked) == ["120.3", "120.4"]
        app.screen.query_one("#groups").focus()
        engine._changed(120, 3)
        await until(lambda: [c.group for c in engine.received if isinstance(c, QueryGroup)].count("120.3") == 2)


async def test_copy_takes_the_response_without_control_characters(
    attach: Attach, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.groups[120, 4].responses[0].text = "a\x1b[2J\nb"
    async with attach() as (app, pilot):
        copied: list[str] = []
        monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
        await pilot.press("s")
        await until_shown(app, "a␛[2J")
        await pilot.press("y")
        assert copied == ["a␛[2J\nb"]


async def test_without_groups_it_says_why(attach: Attach, engine: FakeEngine) -> None:
    engine.groups.clear()
    async with attach() as (app, pilot):
        await pilot.press("s")
        await until_shown(app, "no groups yet: they appear here", "step has been sampled and scored")


async def test_a_group_that_cannot_be_read_says_why(attach: Attach, engine: FakeEngine) -> None:
    engine.refuse["group"] = "it was deleted"
    async with attach() as (app, pilot):
        await pilot.press("s")
        await until_shown(app, "120.4 could not be read: it was deleted")


async def test_a_group_of_eight_is_seen_whole_and_its_flags_are_explained(attach: Attach) -> None:
    async with attach(size=(80, 24)) as (app, pilot):
        await pilot.press("s")
        text = await until_shown(app, "---- A")
        assert all(f"  {letter}  " in text for letter in "BCDEFGH")
        await pilot.press("question_mark")
        await until_shown(app, "dead = all rewards equal", "the next response")


async def test_golden_with_a_value_model(attach: Attach, engine: FakeEngine) -> None:
    engine.set(algorithm="ppo")
    engine.finish_step()
    short = engine.groups[121, 4].responses[0]
    short.text, short.length = "16:05 #### 5", 12
    short.components = {"accuracy": 1.0, "overlong": -0.25, "truncation": None}
    short.ends = list(range(1, 13))
    short.values, short.returns, short.advantages = [0.65] * 12, [0.8] * 12, [0.15] * 12
    async with attach(size=(80, 24)) as (app, pilot):
        await pilot.press("s")
        await until_shown(app, "> 121.4", "overlong -0.25")
        await pilot.press("tab", "tab", "G")
        await until_shown(app, "value:  0.65", "return: 0.80", "adv:    +.15")
        check_golden("samples-ppo-80x24", frame(app))


async def test_a_long_response_does_not_fill_the_screen_with_numbers(attach: Attach, engine: FakeEngine) -> None:
    engine.set(algorithm="ppo")
    engine.finish_step()
    async with attach(size=(160, 48)) as (app, pilot):
        await pilot.press("s", "j", "J", "J")
        text = await until_shown(app, "> 121.3", "> C", "the last 51 of 180 tokens")
        assert text.count("value:") == 3
