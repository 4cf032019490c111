"""The parameters screen: edit, nudge, apply, conflict, undo, and what it says of each."""

from __future__ import annotations

import pytest

from sessions.commands import Set
from sessions.records import Change
from sessions.wire import Changed
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown


@pytest.fixture(autouse=True)
def ann(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("screens.parameters.whoami", lambda: "ann")


def sets(engine: FakeEngine) -> list[tuple[dict[str, object], dict[str, object]]]:
    return [(dict(c.values), dict(c.expect)) for c in engine.received if isinstance(c, Set)]


@pytest.mark.parametrize(("name", "size"), [("parameters-80x24", (80, 24)), ("parameters-160x48", (160, 48))])
async def test_golden(attach: Attach, name: str, size: tuple[int, int]) -> None:
    async with attach(size=size) as (app, pilot):
        await pilot.press("p", "j", "minus", *"jjjjjjj", "plus")
        await until_shown(app, "2 staged", "group_size 8 -> 16", "16 *")
        check_golden(name, frame(app))


async def test_editing_staging_and_applying(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p", "j", "enter")
        await until_shown(app, "learning_rate =", "allowed: 0 .. 1")
        await pilot.press(*["backspace"] * 6, *"2e", "minus", *"7", "enter")
        await until_shown(app, "2e-7 *", "learning_rate 5e-7 -> 2e-7", "1 staged")
        assert sets(engine) == []
        await pilot.press("A")
        await until_shown(app, "applied at step 121: learning_rate 5e-7 -> 2e-7", "nothing staged", "@121 ann")
        assert sets(engine) == [({"learning_rate": 2e-7}, {"learning_rate": 5e-7})]


async def test_a_wrong_value_stays_in_the_line_with_the_reason(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p", "j", "enter", *["backspace"] * 6, *"7", "enter")
        await until_shown(app, "learning_rate: 7 is out of bounds; allowed: 0 .. 1", "learning_rate =")
        await pilot.press("escape")
        await until_shown(app, "nothing staged")
        assert sets(engine) == []


async def test_a_conflict_is_shown_and_what_was_staged_stays(attach: Attach, engine: FakeEngine) -> None:
    engine.refuse["set"] = "learning_rate is 3e-7 now, not 5e-7"
    async with attach() as (app, pilot):
        await pilot.press("p", "j", "minus", "A")
        await until_shown(app, "rejected: learning_rate 5e-7 -> 2.5e-7, because learning_rate is 3e-7 now", "1 staged")


async def test_values_that_do_not_go_together_are_not_sent(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p", "slash", *"placement", "enter", "plus", "A")
        await until_shown(app, "kl_placement reward goes with kl_estimator k1")
        assert sets(engine) == []


async def test_undo_and_redo_of_applied_changes(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p", "u")
        await until_shown(app, "applied at step 121: learning_rate 5e-7 -> 1e-6")
        await pilot.press("u")
        await until_shown(app, "nothing to undo")
        await pilot.press("ctrl+r")
        await until_shown(app, "applied at step 121: learning_rate 1e-6 -> 5e-7")
        assert [values for values, _ in sets(engine)] == [{"learning_rate": 1e-6}, {"learning_rate": 5e-7}]


async def test_discard_revert_and_history(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p", "j", "plus", "U")
        await until_shown(app, "1 staged change forgotten", "nothing staged")
        await pilot.press("R")
        await until_shown(app, "1e-6 *", "learning_rate 5e-7 -> 1e-6")
        await pilot.press("H")
        await until_shown(
            app, "history of learning_rate", "learning_rate 1e-6 -> 5e-7   applied @121   you", "started with 1e-6"
        )


async def test_the_filter_and_the_meaning_of_a_knob(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p", "slash", *"kl_coef", "enter")
        text = await until_shown(app, "> kl_coefficient", "kl_coefficient (beta): Weight of the divergence", "1 of 27")
        assert "temperature" not in text


async def test_a_change_made_elsewhere_is_shown(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p")
        await until_shown(app, "max_new_tokens")
        engine.change("max_new_tokens", 99, "bob")
        await until_shown(app, "99", "@121 bob")


async def test_a_value_the_algorithm_does_not_use_is_marked(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p")
        await until(lambda: app.live.status is not None)
        engine.beat(algorithm="trpo")
        await until_shown(app, "5e-7 !")


async def test_a_value_that_is_due_is_shown(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p")
        await until_shown(app, "learning_rate")
        pending = Change(
            id="c9", time=engine.now, who="bob", name="learning_rate", old=5e-7, new=3e-7,
            boundary="minibatch", status="pending",
        )  # fmt: skip
        engine.event(Changed(time=engine.now, step=121, change=pending))
        await until_shown(app, "5e-7     -> 3e-7", "due bob")
