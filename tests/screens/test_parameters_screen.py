"""The parameters screen: edit, nudge, apply, conflict, undo, and what it says of each."""

from __future__ import annotations

import pytest

from sessions.commands import QueryPlan, Set
from sessions.records import Change
from sessions.wire import Changed
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown

BEGINS_AT = "parameters"


@pytest.fixture(autouse=True)
def ann(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("screens.app.whoami", lambda: "ann")


def sets(engine: FakeEngine) -> list[tuple[dict[str, object], dict[str, object]]]:
    return [(dict(c.values), dict(c.expect)) for c in engine.received if isinstance(c, Set)]


@pytest.mark.parametrize(("name", "size"), [("parameters-80x24", (80, 24)), ("parameters-160x48", (160, 48))])
async def test_golden(attach: Attach, name: str, size: tuple[int, int]) -> None:
    async with attach(size=size) as (app, pilot):
        await pilot.press("p", "j", "minus", *"jjjjjjj", "plus")
        await until_shown(app, "2 staged", "group_size 8 -> 16", "16 *", "memory about")
        check_golden(name, frame(app))


def asked(engine: FakeEngine) -> list[dict[str, object]]:
    return [dict(c.values) for c in engine.received if isinstance(c, QueryPlan)]


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_what_a_staged_change_would_take_is_asked_once_keys_rest(
    attach: Attach, engine: FakeEngine, size: tuple[int, int]
) -> None:
    async with attach(size=size) as (app, pilot):
        await pilot.press("p", *"jjjjjjjj", "plus")
        await until_shown(app, "memory about 11 -> 14 of 24 GB   step about 12 -> 24 s (x2)")
        assert asked(engine) == [{"group_size": 16}]
        await pilot.press("plus", "plus")
        await until_shown(app, "memory about 11 -> 34 of 24 GB   step about 12 -> 94 s (x8)", "! about 34 GB is needed")
        assert asked(engine)[-1] == {"group_size": 64}
        await pilot.press("U")
        text = await until_shown(app, "1 staged change forgotten")
        assert "memory about" not in text


async def test_what_it_is_based_on_is_in_the_pane(attach: Attach) -> None:
    async with attach(size=(160, 48)) as (app, pilot):
        await pilot.press("p", *"jjjjjjjj", "plus")
        await until_shown(app, "step 20 to 26 s: seconds measured over the last 20 steps of grpo")


async def test_another_algorithm_has_its_estimate_first(attach: Attach) -> None:
    async with attach(size=(80, 24)) as (app, pilot):
        await pilot.press("p", "plus", "plus")
        text = await until_shown(app, "memory about", "algorithm grpo -> trpo")
        assert text.index("memory about") < text.index("algorithm grpo -> trpo")


async def test_why_nothing_is_known_is_said_and_it_is_asked_again_after_a_step(
    attach: Attach, engine: FakeEngine
) -> None:
    engine.refuse["plan"] = "the engine is still loading; try again"
    async with attach(size=(80, 24)) as (app, pilot):
        await pilot.press("p", *"jjjjjjjj", "plus")
        await until_shown(app, "memory and step time: the engine is still loading; try again")
        del engine.refuse["plan"]
        engine.finish_step()
        engine.beat()
        await until_shown(app, "memory about 11 -> 14 of 24 GB")


async def test_golden_of_a_staged_algorithm(attach: Attach) -> None:
    async with attach(size=(80, 24)) as (app, pilot):
        await pilot.press("p", "plus", "plus")
        await until_shown(app, "trpo *", "1 staged", "not used by trpo", "memory about")
        check_golden("parameters-switch-80x24", frame(app))


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


async def test_what_is_typed_takes_the_place_of_the_value(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p", "enter", *"trpo", "enter")
        await until_shown(app, "trpo *", "1 staged")
        await pilot.press("enter", "right", "backspace", "backspace", "backspace", "backspace", *"ppo", "enter")
        await until_shown(app, "ppo *", "1 staged")


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
        text = await until_shown(app, "> kl_coefficient", "kl_coefficient (beta): Weight of the divergence", "1 of 63")
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
        await until_shown(app, "not used by trpo")
        await pilot.press("slash", *"learning", "enter")
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
        await until_shown(app, "5e-7         -> 3e-7", "due bob")


async def test_changes_are_shown_and_undone_after_a_fresh_snapshot(attach: Attach, engine: FakeEngine) -> None:
    """As one comes to a screen that fell behind, or lost the engine and found it again."""
    async with attach() as (app, pilot):
        await pilot.press("p")
        await until_shown(app, "> algorithm")
        assert app.staging.undoable()
        before = app.live.changes
        engine.server.connections[0].resync()
        await until(lambda: app.live.changes is not before)
        pending = Change(
            id="c9", time=engine.now, who="bob", name="adam_beta1", old=0.9, new=0.8, boundary="minibatch",
            status="pending",
        )  # fmt: skip
        engine.event(Changed(time=engine.now, step=121, change=pending))
        await until_shown(app, "0.9          -> 0.8", "due bob")
        await pilot.press("colon", *"set epochs=2", "enter")
        await until(lambda: engine.values["epochs"] == 2)
        await until(lambda: app.staging.undoable()[-1][0].name == "epochs", "the change to be known")
        await pilot.press("u")
        await until(lambda: engine.values["epochs"] == 1, "the undo")


async def test_another_algorithm_is_staged_explained_applied_and_undone_whole(
    attach: Attach, engine: FakeEngine
) -> None:
    before = dict(engine.values)
    async with attach(size=(80, 30)) as (app, pilot):
        await pilot.press("p", "plus")
        await until_shown(
            app, "ppo *", "+ follows by itself", "kl_estimator k3 -> k1", "ppo also uses: gamma 1",
            "kept: the policy", "15 not used by ppo",
        )  # fmt: skip
        await pilot.press("A")
        await until_shown(app, "applied at step 121: algorithm grpo -> ppo; with it kl_coefficient 0.04 ->")
        assert engine.values["kl_placement"] == "reward"
        await pilot.press("u")
        await until_shown(app, "applied at step 121: algorithm ppo -> grpo, kl_coefficient 0.05 -> 0.04")
        assert engine.values == before
        await pilot.press("ctrl+r")
        await until(lambda: engine.values["algorithm"] == "ppo")
        assert engine.values["kl_estimator"] == "k1"
        assert len(sets(engine)) == 3


async def test_w_hides_what_the_algorithm_does_not_use(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p", "G")
        await until_shown(app, "0.01 !", "63 of 63, 19 not used by grpo at the end: w hides them")
        await pilot.press("w")
        text = await until_shown(app, "44 of 63, 19 not used by grpo hidden: w shows them")
        assert " !" not in text.partition("range")[2].partition("of 63")[0]
        await pilot.press("w")
        await until_shown(app, "63 of 63")


async def test_the_help_is_about_the_knob_under_the_cursor(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p", "slash", *"gae", "enter", "question_mark")
        await until_shown(app, "gae_lambda (lambda)", "healthy: 0.95", "allowed 0 .. 1", "trpo with baseline value")


async def test_none_can_be_typed(attach: Attach, engine: FakeEngine) -> None:
    engine.set(algorithm="ppo", kl_target=0.02)
    async with attach() as (app, pilot):
        await pilot.press("p", "slash", *"kl_target", "enter")
        await until_shown(app, "> kl_target")
        await pilot.press("enter", *["backspace"] * 4, *"none", "enter")
        await until_shown(app, "none *", "kl_target 0.02 -> none")


async def test_a_value_that_the_engine_steers_is_followed(attach: Attach, engine: FakeEngine) -> None:
    engine.set(algorithm="ppo", kl_target=0.02)
    async with attach() as (app, pilot):
        await pilot.press("p", "slash", *"kl_coef", "enter")
        await until_shown(app, "> kl_coefficient")
        engine.values["kl_coefficient"] = 0.0471
        engine.finish_step()
        await until_shown(app, "0.0471")
        await pilot.press("plus", "A")
        await until_shown(app, "applied at step")
        assert sets(engine)[-1] == ({"kl_coefficient": 0.0942}, {})


async def test_the_command_line_switches_on_every_screen_and_says_what_follows(
    attach: Attach, engine: FakeEngine
) -> None:
    async with attach() as (app, pilot):
        for screen in "ds":
            await pilot.press(screen, "colon", *"set algorithm=ppo", "enter")
            await until_shown(app, "1 set from step", "kl_placement loss -> reward")
            await pilot.press("colon", *"set algorithm=grpo", "enter")
            await until(lambda: engine.values["algorithm"] == "grpo")


async def test_a_preset_is_typed_told_and_undone_whole(attach: Attach, engine: FakeEngine) -> None:
    before = dict(engine.values)
    async with attach(size=(160, 48)) as (app, pilot):
        await pilot.press("p", "colon", *"preset ppo", "enter")
        await until_shown(app, "applied at step 121: preset ppo: algorithm grpo -> ppo, epochs 1 -> 4")
        assert engine.values["epochs"] == 4
        await pilot.press("u")
        await until(lambda: engine.values == before, "the undo of all of it")
        await pilot.press("d", "colon", *"preset dapo", "enter")
        await until_shown(app, "dynamic_sampling 0 -> 8")
