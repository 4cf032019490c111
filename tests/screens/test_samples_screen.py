"""The samples screen: following, filtering, growing text, what is copied."""

from __future__ import annotations

import pytest

from screens.palette import actions_here
from screens.samples import SamplesScreen
from screens.widgets.text_view import TextView
from sessions.commands import QueryGroup
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown

BEGINS_AT = "samples"


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
    async with attach(mode="dashboard") as (app, pilot):
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
        await until_shown(app, "120.3 (group 1)", "response B of 8", "reward .00")


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


ONE = """Outbound: 180 / 90 = 2 h, so it arrives at 16:05.

It waits 12 minutes: 16:17.

Return: 180 / 60 = 3 h, so it is back at 19:17.

#### 19:17"""
OTHER = """Outbound: 180 / 90 = 2 h. 14:05 + 2 h = 16:05.

Waiting 12 min is already included in the trip, so the return starts at 16:05.

Return: 180 / 60 = 3 h, so it is back at 19:05.

#### 19:05"""


def underlined(view: TextView) -> str:
    lines = (view.render_line(y)._segments for y in range(view.size.height))
    return " ".join("".join(s.text for s in line if s.style and s.style.underline) for line in lines).strip()


@pytest.mark.parametrize("name", ["samples-diff-80x24", "samples-diff-160x48", "samples-diff-ascii-60x16"])
async def test_golden_of_two_responses(attach: Attach, engine: FakeEngine, name: str) -> None:
    engine.groups[120, 3].responses[2].text = ONE
    engine.groups[120, 3].responses[3].text = OTHER
    width, _, height = name.rpartition("-")[2].partition("x")
    marks = "ascii" if "ascii" in name else "braille"
    async with attach(size=(int(width), int(height)), marks=marks) as (app, pilot):
        await pilot.press("s", "j", "J", "J")
        await until_shown(app, "> 120.3", "> C")
        await pilot.press("D")
        await until_shown(app, "C and D of 8", "16:05", "included in the trip")
        await pilot.press("j")
        await pilot.pause()
        text = frame(app)
        assert max(map(len, text.split("\n"))) <= int(width)
        assert marks != "ascii" or text.isascii()
        check_golden(name, text)


async def test_two_responses_are_read_against_each_other(attach: Attach, engine: FakeEngine) -> None:
    for number, text in enumerate(("back at 19:17", "back at 19:05", "never back", "back at 19:17")):
        engine.groups[120, 3].responses[number].text = text
    async with attach(size=(120, 30)) as (app, pilot):
        await pilot.press("s", "j")
        await until_shown(app, "> 120.3", "> A")
        await pilot.press("D")
        await until_shown(app, "A and B of 8")
        screen = screen_of(app)
        sides = screen.pane.sides
        assert screen.focused is sides
        assert not screen.groups.region
        assert [underlined(view) for view in sides.views] == ["17", "05"]
        await pilot.press("J")
        await until_shown(app, "A and C of 8")
        assert [underlined(view) for view in sides.views] == ["at 19:17", "never"]
        await pilot.press("J")
        await until_shown(app, "A and D of 8   the two are the same")
        assert [underlined(view) for view in sides.views] == ["", ""]
        await pilot.press("K", "K", "K")
        await until_shown(app, "A and H of 8")
        await pilot.press("J")
        await until_shown(app, "A and B of 8")
        await pilot.press("D")
        await until_shown(app, "> 120.3", "---- A")
        assert screen.focused is screen.groups
        assert screen.responses.key == "A"


async def test_the_last_response_is_read_against_the_first_and_esc_comes_back(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s", "j", "tab", "G", "enter")
        await until(lambda: screen_of(app).has_class("-zoomed"))
        screen = screen_of(app)
        await pilot.press("D")
        await until_shown(app, "H and A of 8")
        await pilot.press("escape")
        await until(lambda: not screen.comparing)
        assert screen.has_class("-zoomed")
        assert screen.focused is screen.text
        await pilot.press("D", "D")
        assert not screen.comparing


async def test_both_responses_are_searched_and_copied(
    attach: Attach, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.groups[120, 3].responses[0].text = "one\x1b"
    engine.groups[120, 3].responses[1].text = "two"
    async with attach() as (app, pilot):
        copied: list[str] = []
        monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
        await pilot.press("s", "j")
        await until_shown(app, "> 120.3", "> A")
        await pilot.press("D")
        await until_shown(app, "A and B of 8")
        await pilot.press("slash", *"TWO", "enter")
        await until_shown(app, "/two")
        assert screen_of(app).focused is screen_of(app).pane.sides
        assert screen_of(app).pane.sides.views[1].position.endswith("/two  100%")
        await pilot.press("slash", *"xyz", "enter")
        await until_shown(app, "'xyz' is in neither response")
        await pilot.press("y")
        assert copied == ["---- A ----\none␛\n\n---- B ----\ntwo"]


async def test_a_comparison_holds_its_group_while_others_come_and_ends_with_it(
    attach: Attach, engine: FakeEngine
) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s")
        await until_shown(app, "> 120.4", "> A", "following the newest")
        await pilot.press("D")
        await until_shown(app, "120.4  A and B of 8", "holding still")
        engine.finish_step()
        await until(lambda: (121, 1) in {(h.step, h.number) for h in app.live.heads.values()}, "the next step")
        await pilot.pause(0.6)
        assert "120.4  A and B of 8" in frame(app)
        await pilot.press("f")
        await until_shown(app, "> 121.4", "following the newest")
        assert screen_of(app).focused is screen_of(app).groups


async def test_what_cannot_be_compared_says_so(attach: Attach, engine: FakeEngine) -> None:
    del engine.groups[120, 3].responses[1:]
    async with attach() as (app, pilot):
        await pilot.press("s", "j")
        await until_shown(app, "> 120.3", "1 responses")
        await pilot.press("D")
        await until_shown(app, "this group has one response")
        await pilot.press("f")
        engine.grow("half a thought")
        await until_shown(app, "> sampling", "half a thought")
        await pilot.press("D")
        await until_shown(app, "still being sampled")
        assert not screen_of(app).comparing


async def test_the_help_of_a_comparison_lists_its_keys(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s", "j")
        await until_shown(app, "> 120.3", "> A")
        await pilot.press("D")
        await until_shown(app, "A and B of 8")
        here = {action.id for action, _, _ in actions_here(screen_of(app))}
        assert {"sides.left", "sides.right", "sides.stack", "samples.diff", "move.down"} <= here
        assert not {"sides.differences", "samples.open", "move.left"} & here
        await pilot.press("enter")
        assert screen_of(app).comparing
