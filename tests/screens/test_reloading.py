"""Reloading reward code on the screen: what it changes, and whether to use it."""

from __future__ import annotations

import pytest

from screens.dialogs import ProceedDialog
from sessions.commands import Reload
from sessions.reward_reloads import RewardReload, component_change
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown


def difference(components: int = 2) -> RewardReload:
    """Two functions on eight responses; the second fails on one of them."""
    names = [f"120.1{letter}" for letter in "ABCDEFGH"]
    found = []
    for place in range(components):
        name = ("accuracy", "format")[place] if place < 2 else f"other_{place}"
        before = [(response, float(i % 2), "") for i, response in enumerate(names)]
        after = [(0.5 * i, "") for i in range(7)] + [(None, "raised ValueError: no digit (rewards.py:12)")]
        same = [(float(i % 2), "") for i in range(8)]
        found.append(component_change(name, before, same if place == 0 else after, ("3f2a01bc9d4e", "9bc1d2e3f4a5")))
    return RewardReload(step=120, waiting=True, components=found)


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_golden(attach: Attach, engine: FakeEngine, size: tuple[int, int]) -> None:
    engine.other_text = difference().describe()
    async with attach(size=size) as (app, pilot):
        await pilot.press("colon", *"reload", "enter")
        await until(lambda: isinstance(app.screen, ProceedDialog), "the dialog")
        await until_shown(app, "Use it from now on?", "7 of 8 responses change")
        where = app.screen.query_one(".dialog").region  # what lies under it is not always drawn
        lines = frame(app).splitlines()[where.y : where.bottom]
        check_golden(f"reload-{size[0]}x{size[1]}", "\n".join(line[where.x : where.right] for line in lines))


async def test_y_uses_it_and_esc_does_not(attach: Attach, engine: FakeEngine) -> None:
    engine.other_text = difference().describe()
    async with attach() as (app, pilot):
        await pilot.press("colon", *"reload", "enter")
        await until(lambda: isinstance(app.screen, ProceedDialog), "the dialog")
        await pilot.press("escape")
        await until_shown(app, "the code in use stays; :reload use takes the new one")
        assert [c.use for c in engine.received if isinstance(c, Reload)] == [False]
        await pilot.press("colon", *"reload", "enter")
        await until(lambda: isinstance(app.screen, ProceedDialog), "the dialog")
        engine.other_text = "in use: from the next scoring on"
        await pilot.press("y")
        await until_shown(app, "in use: from the next scoring on")
        assert [c.use for c in engine.received if isinstance(c, Reload)] == [False, False, True]


async def test_a_long_difference_is_cut_where_it_would_not_fit(attach: Attach, engine: FakeEngine) -> None:
    engine.other_text = difference(9).describe()
    async with attach() as (app, pilot):
        await pilot.press("colon", *"reload", "enter")
        await until(lambda: isinstance(app.screen, ProceedDialog), "the dialog")
        text = await until_shown(app, "lines more: `workbench send S reload` prints all", "Use it from now on?")
        assert "which wait for their update" in text
        assert "y does it" in text


async def test_the_weights_of_a_sessions_components_are_parameters_of_it(attach: Attach, engine: FakeEngine) -> None:
    engine.values["reward_weight.format"] = 0.5
    async with attach(size=(160, 48)) as (app, pilot):
        await pilot.press("p", "w", "w", "slash", *"reward_weight.", "enter")
        text = await until_shown(app, "reward_weight.format", "1 of ")
        assert "0.5" in text
        await pilot.press("enter")
        await until_shown(app, "reward_weight.format =", "allowed: -1e6 .. 1e6")
        await pilot.press("2", "enter", "A")
        await until(lambda: engine.values["reward_weight.format"] == 2.0, "the new weight")
        await until_shown(app, "reward_weight.format 0.5 -> 2")
