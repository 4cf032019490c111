"""The registry of keys: its rules, and that whatever it offers exists."""

from __future__ import annotations

from importlib import import_module

import pytest

from screens.base import WorkbenchScreen
from screens.help import help_lines
from screens.keys import ACTIONS, FORBIDDEN, bindings, check_keymap
from screens.palette import actions_here
from screens.rate import RateScreen
from sessions.errors import UsageError
from sessions.modes import MODES
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import until, until_shown

SCREENS = {
    "sessions": ("screens.session_list", "SessionListScreen"),
    "dashboard": ("screens.dashboard", "DashboardScreen"),
    "samples": ("screens.samples", "SamplesScreen"),
    "rate": ("screens.rate", "RateScreen"),
    "parameters": ("screens.parameters", "ParametersScreen"),
    "branches": ("screens.branches", "BranchesScreen"),
    "events": ("screens.events", "EventsScreen"),
}
WIDGETS = {
    "list": ("screens.widgets.line_view", "LineView"),
    "sides": ("screens.widgets.side_by_side", "SideBySide"),
    "chart": ("screens.widgets.chart", "ChartView"),
}


def test_digits_are_only_ratings() -> None:
    answers = {key for mode in MODES.values() for key in mode.keys}
    for action in ACTIONS.values():
        for key in action.keys:
            if key.isdigit():
                assert action.scope == "rate"
                assert key in answers
                assert action.action.startswith("rate(")


def test_no_key_belongs_to_tmux_or_needs_a_modern_terminal() -> None:
    assert not {key for action in ACTIONS.values() for key in action.keys} & FORBIDDEN


def test_every_rating_mode_has_its_keys() -> None:
    for mode in MODES.values():
        actions = [a for a in ACTIONS.values() if a.action.startswith(f"rate('{mode.name}', ")]
        assert [a.keys for a in actions] == [(key,) for key in mode.keys]
        assert [float(a.action.partition(", ")[2][:-1]) for a in actions] == [code for code, _ in mode.keys.values()]


@pytest.mark.parametrize("scope", sorted({action.scope for action in ACTIONS.values()}))
def test_no_key_means_two_things_in_one_place(scope: str) -> None:
    seen: dict[str, str] = {}
    for action in ACTIONS.values():
        if action.scope == scope:
            for key in action.keys:
                if action.action.startswith("rate("):
                    continue  # one mode at a time
                assert key not in seen, f"{key}: {seen.get(key)} and {action.id}"
                seen[key] = action.id


def test_every_binding_has_an_id_to_remap_it_by() -> None:
    made = bindings(*{action.scope for action in ACTIONS.values()})
    assert len(made) == len(ACTIONS)
    assert all(binding.id in ACTIONS for binding in made)
    assert not [binding for binding in made if binding.priority], "priority keys would fire while one types"


@pytest.mark.parametrize("name", ACTIONS)
def test_every_action_has_a_method(name: str) -> None:
    action = ACTIONS[name]
    place = {**SCREENS, **WIDGETS}.get(action.scope)
    owner = getattr(import_module(place[0]), place[1]) if place else WorkbenchScreen
    method = "action_" + action.action.partition("(")[0]
    assert hasattr(owner, method), f"{owner.__name__} has no {method}"


async def test_what_the_footer_help_and_palette_offer_is_what_works_here(attach: Attach) -> None:
    async with attach(size=(160, 48)) as (app, pilot):
        screen = app.screen
        assert isinstance(screen, WorkbenchScreen)
        here = {action.id for action, _, _ in actions_here(screen)}
        assert {"pause", "chart.zoom", "help", "detach"} <= here
        assert "rate.likert.bad" not in here
        lines = "\n".join(help_lines(screen))
        for name in here:
            assert ACTIONS[name].help in lines
        await pilot.pause()


async def test_a_remapped_key_works_and_is_shown(attach: Attach) -> None:
    async with attach(keymap={"pause": "f5"}) as (app, pilot):
        await pilot.press("f5")
        await until(lambda: app.live.state_word() == "PAUSED")
        screen = app.screen
        assert isinstance(screen, WorkbenchScreen)
        assert ("pause", "f5") in {(action.id, key) for action, key, _ in actions_here(screen)}


@pytest.mark.parametrize("keymap", [{"paus": "f5"}, {"pause": "ctrl+a"}, {"pause": "f5,ctrl+s"}, {"pause": "7"}])
def test_a_keymap_that_breaks_the_rules_is_refused(keymap: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        check_keymap(keymap)
    assert check_keymap({"rate.likert.bad": "0", "pause": "f5,P"})


async def test_the_help_and_the_keys_are_those_of_the_mode_in_use(attach: Attach) -> None:
    async with attach(size=(160, 48)) as (app, pilot):
        await pilot.press("r")
        screen = app.screen
        assert isinstance(screen, RateScreen)
        for mode in MODES.values():
            await until_shown(app, f"RATE  {mode.title}")
            here = {name.split(".")[1] for name in offered(screen) if name.count(".") == 2}
            assert here == ({mode.name} if mode.keys else set())
            lines = help_lines(screen)
            for other in MODES.values():
                told = any(f"{other.title}: " in line for line in lines)
                assert told == (other is mode and bool(mode.keys))
            await pilot.press("m")


def offered(screen: WorkbenchScreen) -> set[str]:
    return {active.binding.id or "" for active in screen.active_bindings.values() if active.enabled}


async def test_a_key_that_modes_share_can_be_remapped_for_one_of_them(attach: Attach, engine: FakeEngine) -> None:
    async with attach(keymap={"rate.thumbs.up": "plus"}) as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        await pilot.press("m", "=", "+")
        await until(lambda: engine.ratings, "the rating")
        assert [list(r.values.values()) for r in engine.ratings.values()] == [[1.0]]
