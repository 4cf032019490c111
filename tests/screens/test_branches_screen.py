"""The branches screen: the tree, curves, differences, and the commands that go from one branch to another."""

from __future__ import annotations

import pytest

from screens.branch_compare import CompareDialog
from screens.branches import BranchesScreen
from screens.dialogs import ProceedDialog
from screens.parameters import ParametersScreen
from sessions.branches import Probe
from sessions.commands import (
    DeleteBranch,
    Fork,
    QueryBranches,
    QuerySeries,
    QueryStatus,
    RenameBranch,
    Rewind,
    Set,
    Switch,
)
from sessions.records import Checkpoint, Status
from tests.screens.conftest import Attach
from tests.screens.fake_engine import START, FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown

BEGINS_AT = "branches"


def probes(branch: str, step: int, wrong: tuple[int, ...] = ()) -> list[Probe]:
    """Six answers of a branch."""
    return [
        Probe(
            branch=branch,
            step=step,
            place=place,
            prompt=f"A train travels {180 + place} km at 90 km/h. How long?",
            answer="2 h",
            text=f"{180 + place} / 90 is\n{'three' if place in wrong else 'two'} hours #### 2",
            right=place not in wrong,
        )
        for place in range(6)
    ]


def saved(branch: str, step: int) -> Checkpoint:
    when = START + step * 11.8
    path = f"{branch}-{step}"
    return Checkpoint(step=step, time=when, path=path, bytes=3 * 2**20, reason="every 30 steps", branch=branch)


@pytest.fixture
def branched(engine: FakeEngine) -> FakeEngine:
    """A rewind, and two forks of which one was forked again."""
    engine.add_branch(
        "lower-lr", 60, tip=110, why="forked by you", values={"learning_rate": 5e-7},
        begun_with={**engine.start_values}, evaluated=(100, 0.5), best=(80, 0.625),
        checkpoints=[saved("lower-lr", 60), saved("lower-lr", 90)],
    )  # fmt: skip
    engine.add_branch("main~1", 100, tip=115, why="left by a rewind of you", abandoned=True)
    engine.add_branch("hotter", 90, parent="lower-lr", tip=95, values={"temperature": 1.2}, seed=7)
    engine.answers = {"main": probes("main", 120), "lower-lr": probes("lower-lr", 100, wrong=(1, 4))}
    return engine


def screen_of(app: object) -> BranchesScreen:
    screen = app.screen  # type: ignore[attr-defined]
    assert isinstance(screen, BranchesScreen)
    return screen


def names(screen: BranchesScreen) -> list[str]:
    """What the rows stand for."""
    return [row.key for row in screen.tree_table.shown]


@pytest.mark.parametrize(
    ("name", "size", "marks"),
    [
        ("branches-80x24", (80, 24), "braille"),
        ("branches-160x48", (160, 48), "braille"),
        ("branches-ascii-60x16", (60, 16), "ascii"),
    ],
)
async def test_golden(attach: Attach, branched: FakeEngine, name: str, size: tuple[int, int], marks: str) -> None:
    async with attach(size=size, marks=marks) as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "lower-lr", "hotter")
        await pilot.press("j", "l")
        screen = screen_of(app)
        await until(lambda: screen.data.points("lower-lr", "reward/mean")[0], "the curve")
        if size[0] == 160:
            await until_shown(app, "4 of 6 right")
        await pilot.pause()
        screen.refresh_now()
        await pilot.pause()
        check_golden(name, frame(app))


async def test_differences_golden(attach: Attach, branched: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "lower-lr")
        await pilot.press("j", "w")
        await until_shown(app, "learning_rate 1e-6 -> 5e-7")
        check_golden("branches-differences-80x24", frame(app))


async def test_compare_golden(attach: Attach, branched: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "lower-lr")
        await pilot.press("j", "D")
        await until(lambda: isinstance(app.screen, CompareDialog), "the comparison")
        await until_shown(app, "WRONG", "esc back")
        check_golden("branches-compare-80x24", frame(app))


async def test_the_word_abandoned_is_read_in_the_smallest_terminal(attach: Attach, branched: FakeEngine) -> None:
    async with attach(size=(60, 16)) as (app, pilot):
        await pilot.press("b", "w", "w")
        await until_shown(app, "main~1 abandoned", "lower-lr", "hotter")


async def test_checkpoints_open_and_close(attach: Attach, branched: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "lower-lr")
        screen = screen_of(app)
        assert names(screen) == ["main", "lower-lr", "hotter", "main~1"]
        await pilot.press("j", "l")
        await until(lambda: len(names(screen)) == 6)
        assert names(screen) == ["main", "lower-lr", "lower-lr\n90", "lower-lr\n60", "hotter", "main~1"]
        await pilot.press("j", "j", "h")  # from a checkpoint: the cursor goes to its branch
        await until(lambda: len(names(screen)) == 4)
        assert screen.tree_table.key == "lower-lr"
        await pilot.press("j", "l")
        await until_shown(app, "hotter has no checkpoint of its own")


async def test_enter_on_a_checkpoint_of_the_active_branch_rewinds_behind_a_question(
    attach: Attach, branched: FakeEngine
) -> None:
    async with attach(mode="dashboard") as (app, pilot):
        for _ in range(3):
            branched.finish_step()
        await pilot.press("b")
        await until_shown(app, "lower-lr")
        await pilot.press("enter")  # opens the active branch
        await until_shown(app, "@120 asked for")
        await pilot.press("j", "enter")
        await until_shown(app, "Rewind main to step 120?", "Steps 121 to 123 stay on main~2", "checkpointed first")
        assert not [c for c in branched.received if isinstance(c, Rewind)]
        await pilot.press("enter")  # a key that repeats does nothing
        assert isinstance(app.screen, ProceedDialog)
        await pilot.press("y")
        await until(lambda: [c for c in branched.received if isinstance(c, Rewind)], "the command")
        sent = next(c for c in branched.received if isinstance(c, Rewind))
        assert (sent.step, sent.expect) == (120, "main")
        await until_shown(app, "done")


async def test_esc_leaves_a_rewind_undone(attach: Attach, branched: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "lower-lr")
        await pilot.press("W", *"64", "enter")
        await until_shown(app, "Rewind main to step 64?", "Steps 65 to 120 stay on main~2", "computed again")
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, BranchesScreen))
        await pilot.press("W", *"120", "enter")
        await until_shown(app, "main is at step 120: it can go back to 0 to 119")
        await pilot.press("W", *"x", "enter")
        await until_shown(app, "'x' is not a step")
        assert not [c for c in branched.received if isinstance(c, Rewind)]


async def test_enter_on_another_branch_switches_to_it(attach: Attach, branched: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "lower-lr")
        await pilot.press("j", "enter")
        await until_shown(app, "Train lower-lr?", "main stays as it is; lower-lr goes on from step 110")
        await pilot.press("y")
        await until(lambda: [c for c in branched.received if isinstance(c, Switch)], "the command")
        sent = next(c for c in branched.received if isinstance(c, Switch))
        assert (sent.branch, sent.expect) == ("lower-lr", "main")


async def test_enter_on_a_checkpoint_of_another_branch_asks_for_the_name_of_a_fork(
    attach: Attach, branched: FakeEngine
) -> None:
    async with attach() as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "lower-lr")
        await pilot.press("j", "l", "j", "enter")
        await until_shown(app, "fork lower-lr at step 90, named")
        await pilot.press(*"try", "space", *"temperature=0.7", "enter")
        await until(lambda: [c for c in branched.received if isinstance(c, Fork)], "the command")
        sent = next(c for c in branched.received if isinstance(c, Fork))
        assert (sent.name, sent.source, sent.step, sent.values) == ("try", "lower-lr", 90, {"temperature": 0.7})


async def test_a_fork_takes_what_is_staged_along(attach: Attach, branched: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p", "slash", *"group_size", "enter", "+")
        await until_shown(app, "1 staged")
        staged = app.staging.staged["group_size"].value
        await pilot.press("b")
        await until_shown(app, "lower-lr")
        await pilot.press("B")
        await until_shown(app, "fork the newest step of main with 1 staged change, named")
        await pilot.press(*"bad/name", "enter")
        await until_shown(app, "cannot name a branch")
        await pilot.press(*"larger", "enter")
        await until(lambda: [c for c in branched.received if isinstance(c, Fork)], "the command")
        sent = next(c for c in branched.received if isinstance(c, Fork))
        assert (sent.name, sent.source, sent.step, sent.values) == ("larger", "main", -1, {"group_size": staged})
        await until(lambda: not app.staging.staged, "what was staged to be of the branch")


async def test_b_on_the_parameters_forks_with_what_is_staged(attach: Attach, branched: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p", "B")
        await until_shown(app, "nothing is staged")
        await pilot.press("slash", *"group_size", "enter", "+", "B")
        await until_shown(app, "with 1 staged change, named")
        await pilot.press(*"larger", "enter")
        await until(lambda: [c for c in branched.received if isinstance(c, Fork)], "the command")
        assert not [c for c in branched.received if isinstance(c, Set)]
        await until_shown(app, "nothing staged")


async def test_a_refused_fork_keeps_what_is_staged(attach: Attach, branched: FakeEngine) -> None:
    branched.refuse["fork"] = "a branch of that name exists"
    async with attach() as (app, pilot):
        await pilot.press("p", "slash", *"group_size", "enter", "+", "B", *"larger", "enter")
        await until_shown(app, "rejected: a branch of that name exists", "1 staged")


async def test_rename_and_delete(attach: Attach, branched: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "lower-lr")
        await pilot.press("X")
        await until_shown(app, "main is the one that is trained: switch to another first")
        await pilot.press("G", "R", *"hot", "enter")
        await until(lambda: [c for c in branched.received if isinstance(c, RenameBranch)], "the command")
        sent = next(c for c in branched.received if isinstance(c, RenameBranch))
        assert (sent.branch, sent.name) == ("main~1", "hot")
        await pilot.press("X")
        await until_shown(app, "Delete the branch main~1?", "Its 15 steps and 0 checkpoints are gone for good")
        await pilot.press(*"main", "enter")
        await until_shown(app, "that is not main~1")
        assert not [c for c in branched.received if isinstance(c, DeleteBranch)]
        await pilot.press("~", "1", "enter")
        await until(lambda: [c for c in branched.received if isinstance(c, DeleteBranch)], "the command")


async def test_marked_branches_are_drawn_and_the_metric_is_chosen(attach: Attach, branched: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "lower-lr", "A main")
        await pilot.press("j", "v", "j", "v")
        await until_shown(app, "A lower-lr", "B hotter")
        assert "A main" not in frame(app)
        await pilot.press("v")
        await until_shown(app, "A lower-lr")
        assert "B hotter" not in frame(app)
        await pilot.press("x", "slash")
        await until_shown(app, "metrics of this chart, at most 1")
        await pilot.press("j", "space", "enter")
        chosen = screen_of(app)
        await until(lambda: chosen.metric not in ("", "reward/mean"), "the metric")
        await until_shown(app, f"{chosen.metric} by branch")
        asked = [c for c in branched.received if isinstance(c, QuerySeries) and c.names == [chosen.metric]]
        assert asked
        assert asked[-1].branch == "lower-lr"


async def test_two_marked_branches_are_compared(attach: Attach, branched: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "lower-lr")
        await pilot.press("D")
        await until_shown(app, "put the cursor on another branch")
        await pilot.press("j", "j", "D")  # hotter was asked nothing, main was
        await until(lambda: isinstance(app.screen, CompareDialog), "the comparison")
        await until_shown(app, "hotter was never asked", "never asked")
        await pilot.press("escape", "k", "D")
        await until(lambda: isinstance(app.screen, CompareDialog), "the comparison")
        await until_shown(app, "main 6 of 6 right (100%), lower-lr 4 of 6 right (67%)")
        await pilot.press("n")
        assert "A train travels 181 km" in (await until_shown(app, "! three hours")).splitlines()[1]
        await pilot.press("n")
        text = await until_shown(app, "A train travels 184 km")
        assert "A train travels 181 km" not in text


async def test_the_branches_are_asked_for_when_something_has_happened_and_seldom(
    attach: Attach, branched: FakeEngine
) -> None:
    def asked() -> int:
        return len([c for c in branched.received if isinstance(c, QueryBranches)])

    async with attach(mode="dashboard") as (app, pilot):
        await pilot.pause()
        assert asked() == 0  # the screen is not seen
        await pilot.press("b")
        await until_shown(app, "lower-lr")
        screen = screen_of(app)
        assert asked() == 1
        for _ in range(5):
            branched.finish_step()
        await until_shown(app, "125   125")  # told by the live model, not asked for
        screen.refresh_now()
        await pilot.pause()
        await app.query_engine(QueryStatus(), Status)  # whatever was asked before this has come
        assert asked() == 1
        screen.data._next = 0.0
        screen.refresh_now()
        await until(lambda: asked() == 2, "the next question")
        screen.data._next = 0.0
        for _ in range(10):
            screen.refresh_now()
        await pilot.pause()
        assert asked() == 2  # nothing new has happened


async def test_what_has_not_changed_is_not_drawn_again(
    attach: Attach, branched: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with attach(size=(160, 48)) as (app, pilot):
        await pilot.press("b", "j")
        await until_shown(app, "lower-lr", "4 of 6 right")
        screen = screen_of(app)
        await pilot.pause()
        screen.refresh_now()
        await pilot.pause()
        drawn: list[object] = []
        for widget in (screen.tree_table, screen.details, screen.probes, screen.curves):
            monkeypatch.setattr(widget, "refresh", lambda *a, w=widget, **k: drawn.append(w))
        for _ in range(5):
            screen.tick()
        assert drawn == []
        app.live.clock = lambda: branched.now + 3600  # the ages are others
        screen.tick()
        assert screen.tree_table in drawn


async def test_after_a_switch_the_other_branch_is_the_active_one(attach: Attach, branched: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "main *")
        branched.go_to("lower-lr", 110)
        await until_shown(app, "lower-lr *", "gsm8k-grpo" if app.size.width > 100 else "BRANCHES")
        assert "main *" not in frame(app)


async def test_a_session_without_forks_says_how_to_start_one(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "no forks yet: B starts one here", "main *")


async def test_what_cannot_be_read_is_said(attach: Attach, engine: FakeEngine) -> None:
    engine.refuse["branches"] = "the disk is on fire"
    async with attach() as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "the branches cannot be read: the disk is on fire")


async def test_an_ended_session_shows_its_branches_and_changes_none(attach: Attach, branched: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("b")
        await until_shown(app, "lower-lr")
        await branched.leave(code=0)
        await until(lambda: app.live.connection == "ended", "the end")
        await pilot.press("j", "enter")
        await until_shown(app, "the session has ended: it can only be read", "lower-lr")


async def test_a_name_is_data(attach: Attach, branched: FakeEngine) -> None:
    branched.add_branch("[bold]\x1b[2Jx", 20, tip=30, why="\x1b]0;y\x07")
    async with attach(size=(160, 48)) as (app, pilot):
        await pilot.press("b", "j")
        await until_shown(app, "[bold]␛[2Jx", "␛]0;y␇")


async def test_parameters_follow_the_branch(attach: Attach, branched: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("p", "slash", *"learning_rate", "enter", "+")
        await until_shown(app, "1 staged")
        branched.values["learning_rate"] = 3e-7
        branched.go_to("lower-lr", 110)
        await until_shown(app, "3e-7")
        screen = app.screen
        assert isinstance(screen, ParametersScreen)
        await until(lambda: app.staging.staged["learning_rate"].expect == 3e-7, "what it replaces there")
