"""The rating screen against an engine: keys to commands, what is hidden, what is confirmed, what an update did."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest

from screens.app import WorkbenchApp
from screens.rate import RateScreen
from screens.rating_desk import Desk
from sessions.commands import Command, Picked, QueryEvents, QueryGroup, QueryRatings, Rate, Retract, Skip
from sessions.modes import MODES
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown
from tests.screens.test_rating_desk import told

BEGINS_AT = "rate"


@pytest.fixture(autouse=True)
def ann(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("screens.app.whoami", lambda: "ann")


def desk_of(app: WorkbenchApp) -> Desk:
    screen = app.screen
    assert isinstance(screen, RateScreen)
    return screen.desk


def order_of(app: WorkbenchApp) -> list[str]:
    visit = desk_of(app).current
    assert visit is not None
    return visit.order


RATING = (Rate, Retract, Skip)


def sent(engine: FakeEngine) -> list[Command]:
    """The rating commands that the engine got."""
    return [command for command in engine.received if isinstance(command, RATING)]


@pytest.mark.parametrize(("name", "size"), [("rate-80x24", (80, 24)), ("rate-160x48", (160, 48))])
async def test_golden(attach: Attach, engine: FakeEngine, name: str, size: tuple[int, int]) -> None:
    async with attach(size=size) as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        await pilot.press("4", "2")
        await until(lambda: len(engine.ratings) == 2, "two ratings")
        await until_shown(app, "saved: ", "2 today")
        check_golden(name, frame(app))
        await pilot.press("enter")
        await until_shown(app, "group 2 ", "preview", "####")
        check_golden(f"{name}-left", frame(app))


@pytest.mark.parametrize("size", [(80, 24), (160, 48)], ids=["80x24", "160x48"])
@pytest.mark.parametrize(
    ("mode", "keys", "shows"),
    [
        ("pair", "h J", ["2 of 6", "in hand"]),
        ("rank", "3 1 = 2", ["best first: 3 > 1 = 2 > "]),
        ("edit", "f 1 enter i x", ["a better", "F2 saves"]),
        ("critique", "1 5", ["[1 wrong]", "[5 too long]"]),
    ],
)
async def test_golden_of_a_mode(
    attach: Attach, engine: FakeEngine, mode: str, keys: str, shows: list[str], size: tuple[int, int]
) -> None:
    async with attach(size=size) as (app, pilot):
        await pilot.press("r", *"m" * list(MODES).index(mode))
        await until_shown(app, "group 1 ", "Outbound", MODES[mode].title)
        for key in keys.split():
            await pilot.press(key)
            await pilot.pause()
        given = len([c for c in engine.received if isinstance(c, Rate)])
        await until(lambda: len(engine.ratings) == given, "the ratings")
        await until_shown(app, *shows)
        await pilot.pause()
        check_golden(f"rate-{mode}-{size[0]}x{size[1]}", frame(app))


SCRIPTS = [
    ("likert", "3 j 5 enter 1 u", ["likert 12.1 #0=3", "likert 12.1 #1=5", "likert 12.2 #0=1", "retract 3"]),
    ("likert", "x enter 2", ["skip 12.1 #0", "likert 12.1 #1=2"]),
    ("likert", "x w h y enter K X 2", ["skip 12.1 #0 why", "retract 1", "likert 12.1 #0=2"]),
    ("likert", "f 1 5 enter 4", ["critique 12.1 #0=wrong,too long,", "likert 12.1 #0=4"]),
    ("likert", "f 1 escape 4", ["likert 12.1 #0=4"]),
    ("likert", "i X f2 4", ["edit 12.1 #0=X", "likert 12.1 #0=4"]),
    ("likert", "i X escape n 4", ["likert 12.1 #0=4"]),
    ("likert", "i escape 4 u ctrl+r", ["likert 12.1 #0=4", "retract 1", "likert 12.1 #0=4"]),
    ("thumbs", "5 = - u", ["thumbs 12.1 #0=1", "thumbs 12.1 #1=-1", "retract 2"]),
    ("pair", "h j L k t 0 u", ["pair 12.1 1:0", "pair 12.1 0:2", "pair 12.1 1:1", "pair 12.1 0:0", "retract 4"]),
    ("pair", "h x n o enter l", ["pair 12.1 1:0", "skip 12.1 no", "pair 12.2 0:1"]),
    ("pair", "h l h l h l H u u", ["pair 12.1 1:0", "pair 12.1 0:1"] * 3 + ["pair 12.2 2:0", "retract 7", "retract 6"]),
    ("rank", "3 1 = 4 enter 2 1 enter u", ["rank 12.1 #2 > #0=#3", "rank 12.2 #1 > #0", "retract 2"]),
    ("rank", "1 2 3 4 5 6 backspace 8 7 6", ["rank 12.1 #0 > #1 > #2 > #3 > #4 > #7 > #6 > #5"]),
    ("rank", "1 j z j escape 2 enter", ["rank 12.1 #0 > #1"]),
    ("edit", "i X f2 i Y escape y u", ["edit 12.1 #0=X", "edit 12.1 #1=Y", "retract 2"]),
    ("edit", "i X escape k i Y f2", ["edit 12.1 #0=YX"]),
    (
        "critique",
        "1 9 enter 2 c s o enter u",
        ["critique 12.1 #0=wrong,repetitive,", "critique 12.1 #1=invalid step,so", "retract 2"],
    ),
    ("critique", "enter 1 enter", ["critique 12.2 #0=wrong,"]),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "keys", "expected"), SCRIPTS)
async def test_key_scripts(attach: Attach, engine: FakeEngine, mode: str, keys: str, expected: list[str]) -> None:
    """The groups are called 12.1 and 12.2 here, and each first line of a text typed into is its first letter."""
    async with attach() as (app, pilot):
        await pilot.press("r", *"m" * list(MODES).index(mode))
        await until_shown(app, "group 1 ", MODES[mode].title)
        desk = desk_of(app)
        said: list[str] = []
        ids: list[str] = []
        for key in keys.split():
            await until(lambda: desk.current is not None and desk.current.detail is not None, "the group")
            orders = {desk.book.name(of): visit.order for (of, _), visit in desk.visits.items()}
            before = len(sent(engine))
            await pilot.press(key)
            await pilot.pause()
            await until(lambda: not (desk.book._sending | desk.book._retracting), f"the answer to {key}")
            said += [told(desk, command, ids, orders) for command in sent(engine)[before:]]
        short = [line.replace("120.", "12.").rstrip() for line in said]
        assert [line.partition("Outbound")[0].rstrip() for line in short] == expected


async def test_the_record_says_order_blindness_and_person(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        await pilot.press("4", "v", "5")
        await until(lambda: len(engine.ratings) == 2, "two ratings")
        first, second = (c for c in engine.received if isinstance(c, Rate))
        assert first.order == order_of(app)
        assert (first.blind, second.blind, first.who) == (True, False, "ann")


async def test_blind_hides_reward_advantage_and_step(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        text = await until_shown(app, "group 1 ", "####", "v reveals")
        body = "\n".join(text.splitlines()[2:])
        assert "reward ." not in body
        assert "adv" not in body
        assert "120.1" not in text
        assert "step 121" not in text
        await pilot.press("v")
        await until_shown(app, "120.1 (group 1)", "reward ", "adv ")


async def test_a_key_paints_the_answer_before_the_engine_has_it(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        order = order_of(app)
        screen = app.screen
        assert isinstance(screen, RateScreen)
        screen.action_rate("likert", 4)
        assert f"[{order[0]} 4~] >{order[1]}<" in str(screen.body.response.border_title)
        await until_shown(app, f"[{order[0]} 4]", f"saved: {order[0]}=4")


async def test_a_rejected_rating_is_shown_as_failed(attach: Attach, engine: FakeEngine) -> None:
    engine.refuse["rate"] = "the disk is full"
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        letter = order_of(app)[0]
        await pilot.press("4")
        await until_shown(app, f"not saved: {letter}=4: the disk is full", f"[{letter} -]", "0 today")


async def test_preview_then_what_the_update_did(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        await pilot.press("4")
        await until(lambda: engine.ratings, "the rating")
        assert "advantages:" not in frame(app)
        await pilot.press("v")
        await until_shown(app, "120.1 advantages: automatic", "-> with your ratings", "preview")
        engine.use_rating(next(iter(engine.ratings)), 121, "late", 0.0031)
        await until_shown(app, "used in update 121, late (KL 0.0031)", "A-.50", "A+.50")


async def test_the_next_two_groups_are_fetched_ahead(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        await until(lambda: len(fetched(engine)) >= 3, "three groups")
        assert fetched(engine) == ["120.1", "120.2", "120.3"]
        await pilot.press("enter")
        assert "It waits [120]" in frame(app)


def fetched(engine: FakeEngine) -> list[str]:
    return [c.group for c in engine.received if isinstance(c, QueryGroup)]


async def test_coming_back_shows_the_same_response(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        await pilot.press("4", "J", "J")
        letter = order_of(app)[3]
        await pilot.press("d", "r")
        await until_shown(app, "group 1 ", f">{letter}<")


async def test_digits_typed_into_a_comment_rate_nothing(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        await pilot.press("c", "5", "x", "u", "enter")
        await pilot.press("2")
        await until(lambda: engine.ratings, "the rating")
        await until(lambda: len(sent(engine)) == 2, "both")
        comment, command = sent(engine)
        assert isinstance(comment, Rate)
        assert isinstance(command, Rate)
        assert (comment.mode, comment.comment, command.mode) == ("critique", "5xu", "likert")
        assert list(command.values.values()) == [2.0]


async def test_undo_reaches_back_before_this_attachment(attach: Attach, engine: FakeEngine) -> None:
    early: Command = Rate(who="ann", group="119.2", mode="likert", values={"B": 2.0}, order=list("ABCDEFGH"))
    assert isinstance(early, Rate)
    engine._rate(early)
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####", "1 today")
        await pilot.press("u")
        await until(lambda: any(isinstance(c, Retract) and c.rating == early.id for c in engine.received))
        await until_shown(app, ">B<", "0 today")
        await pilot.press("u")
        await until_shown(app, "nothing to undo")


async def test_it_says_why_nothing_waits(attach: Attach, engine: FakeEngine) -> None:
    engine.groups.clear()
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "nothing waits: no group has been sampled", "no group waits")


async def test_a_prompt_folds(attach: Attach, engine: FakeEngine) -> None:
    for group in engine.groups.values():
        group.prompt = "\n".join(f"line {i}" for i in range(9))
    async with attach() as (app, pilot):
        await pilot.press("r")
        text = await until_shown(app, "P expand", "+7 lines", "line 1")
        assert "line 4" not in text
        await pilot.press("P")
        await until_shown(app, "P fold", "line 4")


async def test_a_new_group_waits_as_soon_as_it_is_scored(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        engine.finish_step()
        await pilot.press("enter")
        await until_shown(app, "It waits [121]")


async def test_a_lost_engine_is_said_first(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        await engine.leave(code=1, cause="out of memory")
        await until_shown(app, "FAILED", "out of memory", "RATE  5-point")
        letter = order_of(app)[0]
        await pilot.press("4")
        await until_shown(app, f"not saved: {letter}=4: no engine is connected", f"[{letter} -]")


async def test_a_step_that_waits_comes_first(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        screen = app.screen
        assert isinstance(screen, RateScreen)
        assert screen.desk.current is not None
        assert screen.desk.current.key[1] == 120
        engine.finish_step()
        engine.beat(state="WAIT", phase="waiting", done=0, total=2, note="waits for ratings: 0 of 2 groups; r rates")
        await until_shown(app, "WAIT", "waits for ratings: 0 of 2 groups", f"step {engine.status.step} waits for you")
        await pilot.press("d")
        await until_shown(app, "waits for ratings: 0 of 2 groups", "last group")
        engine.beat(step=121)
        await pilot.press("r")  # what was on the desk has to wait: the training waits too
        await until(lambda: screen.desk.current is not None and screen.desk.current.key[1] == 121)
        await until_shown(app, "group 2 ", "####")
        await until(lambda: "waits for you" not in frame(app), "the line to go once the status has come")
        seen = []
        for _ in range(6):
            assert screen.desk.current is not None
            seen.append(screen.desk.current.key)
            await pilot.press("enter")
        # Round the four groups of this step, never away from it, as long as one of them has no rating.
        assert {key[1] for key in seen} == {121}
        assert len(set(seen[:4])) == 4
        assert len(set(seen)) == 4


async def test_what_is_asked_stays_about_the_response_shown(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        letter = order_of(app)[0]
        await pilot.press("x")
        await pilot.press("tab", "shift+tab", "tab", *"no", "enter")
        await until(
            lambda: [(c.response, c.reason) for c in sent(engine) if isinstance(c, Skip)] == [(f"120.1{letter}", "no")]
        )


async def test_a_rating_is_confirmed_in_one_line_without_its_id(attach: Attach, engine: FakeEngine) -> None:
    engine.rated_text = "saved; the next update takes the group in, if it may (rating {id})"
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        await pilot.press("4")
        text = await until_shown(app, "saved; the next update takes the group in, if it may")
        assert "(rating" not in text
        assert app.screen.query_one("#message").size.height == 1


async def test_a_comment_is_no_second_rating(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        await pilot.press("4", "K", "c", *"good", "enter")
        await until(lambda: len(engine.ratings) == 2, "two records")
        await until_shown(app, "your comment: good", "1 today")


async def test_after_a_rewind_a_group_of_the_same_name_is_another_one(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        screen = app.screen
        assert isinstance(screen, RateScreen)
        await until_shown(app, "It waits [120]")
        visit = screen.desk.current
        assert visit is not None
        group = visit.key[2]
        await pilot.press("m", "m", "m", "1")
        assert visit.draft.placed
        engine.go_to("main", 119)
        engine.rewound("main~1", 119)
        await until(lambda: app.live.newest_step() == 119, "the rewind")
        await until(
            lambda: (("main", 120, group), "") not in screen.desk.visits, "the drafts of what was left to be gone"
        )
        engine.finish_step()
        old = engine.groups[120, group]
        answers = [msgspec.structs.replace(r, text="another answer") for r in old.responses]
        engine.groups[120, group] = msgspec.structs.replace(old, responses=answers)
        await until(lambda: ("main", 120, group) in app.live.heads, "the new group")
        screen.rate_response(app.live.heads["main", 120, group], "A")
        await until_shown(app, "another answer")
        assert "It waits [120]" not in frame(app)
        kept = screen.desk.visits[("main", 120, group), ""]
        assert not kept.draft.placed


async def test_a_group_of_the_steps_that_a_switch_shares_stays_on_the_desk(attach: Attach, engine: FakeEngine) -> None:
    engine.add_branch("low", 120, tip=120)
    async with attach() as (app, pilot):
        await pilot.press("r")
        screen = app.screen
        assert isinstance(screen, RateScreen)
        await until_shown(app, "It waits [120]")
        before = screen.desk.current
        engine.go_to("low", 120)
        await until(lambda: app.live.branch == "low", "the switch")
        screen.refresh_now()
        assert screen.desk.current is before
        assert before is not None
        assert screen.desk.book.name(before.key).startswith("main/120.")


async def test_only_one_side_of_a_pair_is_edited_flagged_and_commented(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r", "m", "m")
        await until_shown(app, "pairwise", "left ", "in hand")
        pair = desk_of(app).current.pair  # type: ignore[union-attr]
        assert pair is not None
        await pilot.press("f", "1", "enter", "J", "c", "a", "enter", "i", "x", "f2")
        await until(lambda: len(engine.ratings) == 3, "three records")
        assert [(r.mode, list(r.values)) for r in engine.ratings.values()] == [
            ("critique", [pair[0]]), ("critique", [pair[1]]), ("edit", [pair[1]]),
        ]  # fmt: skip


async def test_a_mode_keeps_its_draft_and_the_screen_its_mode(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r", "m", "m", "m")
        await until_shown(app, "ranking", "which is the best?")
        await pilot.press("3", "=", "1", "d")
        await until_shown(app, "groups wait")
        await pilot.press("r")
        await until_shown(app, "best first: 3 = 1 > ")
        await pilot.press(*"mmmmmm")
        await until_shown(app, "RATE  ranking", "best first: 3 = 1 > ")
        await pilot.press("enter")
        await until(lambda: engine.ratings, "the order")


async def test_groups_that_are_not_offered_are_said_and_a_key_offers_them(attach: Attach, engine: FakeEngine) -> None:
    for key, group in list(engine.groups.items()):
        if key[1] != 4 or key[0] < 120:  # one dead group is all there is
            del engine.groups[key]
        else:
            assert {r.reward for r in group.responses} == {1.0}
    engine.resync()
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "nothing waits", "not offered: 1 dead: a offers them")
        await pilot.press("a")
        await until_shown(app, "group 1   1 waiting", "####")


async def test_a_pick_by_a_rule_is_told_once_and_rides_on_the_rating(attach: Attach, engine: FakeEngine) -> None:
    engine.set(rating_rule="random")
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####", "rule: random")
        await pilot.press("4", "J", "5", "enter", "d", "r")
        await until_shown(app, "group 2 ", "####")
        await until(lambda: len(engine.ratings) == 2, "two ratings")
        assert {r.rule for r in engine.ratings.values()} == {"random"}
        picks = [c for c in engine.received if isinstance(c, Picked)]
        assert len(picks) == 2
        assert {c.rule for c in picks} == {"random"}
        assert (
            picks[0].group == f"{next(iter(engine.ratings.values())).step}.{next(iter(engine.ratings.values())).group}"
        )


async def test_undo_reads_older_ratings_and_skips_before_it_needs_them(attach: Attach, engine: FakeEngine) -> None:
    """A snapshot has the newest only, and an engine that was started again has forgotten the rest."""
    first = list("ABCDEFGH")
    for step in (117, 118, 119):
        for letter in first[:3]:
            engine._serve(Rate(who="ann", group=f"{step}.1", mode="likert", values={letter: 3.0}, order=first))
        engine._serve(Skip(who="ann", response=f"{step}.2A", reason="unsure"))
    engine.snapshot_ratings, engine.snapshot_events = 2, 4
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        done = [*engine.ratings, *engine.skips]
        for _ in range(12):
            await pilot.press("u")
        await until(lambda: len([c for c in engine.received if isinstance(c, Retract)]) == 12, "twelve undone")
        await pilot.press("u")
        await until_shown(app, "nothing to undo")
        times = {**{r.id: r.time for r in engine.ratings.values()}, **{s.id: s.time for s in engine.skips.values()}}
        order = [c.rating for c in engine.received if isinstance(c, Retract)]
        assert sorted(order) == sorted(done)
        assert order == sorted(order, key=lambda name: -times[name])
        assert any(isinstance(c, QueryRatings) for c in engine.received)
        assert any(isinstance(c, QueryEvents) for c in engine.received)


async def test_a_repeat_is_asked_silently(attach: Attach, engine: FakeEngine) -> None:
    for step in range(90, 115):
        engine._serve(Rate(who="ann", group=f"{step}.1", mode="likert", values={"A": 3.0}, order=list("ABCDEFGH")))
    engine.set(rating_repeats=1.0)
    async with attach() as (app, pilot):
        await pilot.press("r")
        text = await until_shown(app, "group 1 ", "####", "[")
        visit = desk_of(app).current
        assert visit is not None
        assert visit.repeats
        assert ">" + visit.order[0] + "<" in text
        assert " 3]" not in text
        await pilot.press(*"J" * visit.order.index("A"), "1")
        await until_shown(app, "saved: A=1", "self-agreement")
        assert engine.ratings[visit.repeats].values == {"A": 3.0}
        assert [r.repeats for r in engine.ratings.values() if r.repeats] == [visit.repeats]
        assert "repeat" not in frame(app)


async def test_the_guide_is_ones_own_and_kept(attach: Attach, engine: FakeEngine) -> None:
    async with attach(size=(160, 48)) as (app, pilot):
        await pilot.press(":", *"guide", "enter")
        await until_shown(app, "the guide for whoever rates here", "F2 saves")
        await pilot.press(*"Be kind. ", "f2")
        await until_shown(app, "Be kind. 1. Is the final answer right?", "kept with the session")
        assert "Be kind." in (engine.folder.path / "guide.txt").read_text()
    async with attach(size=(160, 48)) as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "Be kind. 1. Is the final")


async def test_o_edits_outside_in_the_mode_edit(
    attach: Attach, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    editor = tmp_path / "ed"
    editor.write_text("#!/bin/sh\nsed -i 's/Outbound/Inbound/' \"$1\"\n")
    editor.chmod(0o700)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setattr(WorkbenchApp, "suspend", lambda self: contextlib.nullcontext())
    for group in engine.groups.values():
        group.responses = [msgspec.structs.replace(r, text=r.text + "\x1b[31m\x07") for r in group.responses]
    async with attach() as (app, pilot):
        await pilot.press("r", "m", "m", "m", "m")
        await until_shown(app, "RATE  edit", "Outbound")
        letter, visit = desk_of(app).letter, desk_of(app).current
        assert visit is not None
        await pilot.press("o")
        await until(lambda: engine.ratings, "the edit")
        [rating] = engine.ratings.values()
        assert (rating.mode, rating.values) == ("edit", {letter: 1.0})
        assert rating.text == visit.response_text(letter).replace("Outbound", "Inbound")


async def test_a_terminal_never_gets_what_a_response_hides(attach: Attach, engine: FakeEngine) -> None:
    nasty = "\x1b]0;owned\x07 [red]x[/red] \u202e \x9b31m"
    for group in engine.groups.values():
        group.prompt += nasty
        group.responses = [msgspec.structs.replace(r, text=nasty + r.text) for r in group.responses]
    async with attach(size=(160, 48)) as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "#### ")
        for _ in MODES:
            for key in (
                "c",
                *nasty[:3],
                "enter",
                "i",
                "tab",
                "escape",
                "n",
                "f",
                "1",
                "enter",
                "J",
                "D",
                "D",
                "z",
                "z",
            ):
                await pilot.press(key)
            text = frame(app)
            assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(text)
            assert "[red]" in text
            await pilot.press("m")


@pytest.mark.parametrize("size", [(60, 16), (200, 60)])
async def test_every_mode_can_be_used_at_any_size(attach: Attach, engine: FakeEngine, size: tuple[int, int]) -> None:
    async with attach(size=size) as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ")
        for mode in MODES.values():
            desk_of(app).use(mode)
            await pilot.press("v")
            await until_shown(app, mode.title)
            for key in (
                "v",
                "P",
                "D",
                "w",
                "z",
                "f",
                "escape",
                "i",
                "a",
                "escape",
                "k",
                "J",
                "j",
                "G",
                "/",
                "x",
                "enter",
                "n",
            ):
                await pilot.press(key)
            for key in list(mode.keys)[:3]:
                await pilot.press(key)
            await pilot.press("enter", "u")
            assert "group" in frame(app)


@pytest.mark.parametrize(
    ("mode", "key", "says"),
    [
        ("likert", "t", "5-point: 1 bad   2 poor   3 ok   4 good   5 great   m other modes"),
        ("thumbs", "3", "thumbs: - down   = up   m other modes"),
        ("pair", "5", "pairwise: h/l better   H/L much better   t tie   0 both bad   m other modes"),
        ("rank", "H", "ranking: 1-8 best first   = ties   enter saves   m other modes"),
        ("edit", "1", "edit: i write a better one   o in $EDITOR   m other modes"),
        ("critique", "minus", "critique: 1-9 switch flags   enter saves   m other modes"),
    ],
)
async def test_a_key_of_another_mode_is_answered_with_those_of_the_one_in_use(
    attach: Attach, engine: FakeEngine, mode: str, key: str, says: str
) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        while desk_of(app).mode.name != mode:
            await pilot.press("m")
        await pilot.press(key)
        await until_shown(app, f"\n {says}")
        assert max(map(len, frame(app).splitlines())) <= 80
        assert sent(engine) == []
        if mode != "critique":
            await pilot.press("f", "minus")
            await until_shown(app, "the flags are open: 1-9 switch them, enter saves, esc leaves")


async def test_digits_of_a_text_that_is_typed_are_no_keys_of_a_mode(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        await pilot.press("c", "t", "0")
        await until_shown(app, "t0")
        assert isinstance(app.screen, RateScreen)
        app.screen.unused_key("t")  # as one comes that was typed before the line had the keys
        await pilot.pause()
        assert "m other modes" not in frame(app)


async def test_the_dashboard_and_the_rating_screen_count_the_same_groups(attach: Attach, engine: FakeEngine) -> None:
    dead = [key for key, group in engine.groups.items() if len({r.reward for r in group.responses}) == 1]
    assert dead
    bare = engine.groups[dead[-1]]
    for response in bare.responses:
        response.reward = None
    engine.resync()
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 ", "####")
        await until(lambda: app.live.older, "the older groups")
        for keys in (["4"], ["enter", "x", "enter"], ["enter", "m", "m", "x", "enter"], ["u"]):
            await pilot.press(*keys)
            await until(lambda: desk_of(app).total == len(app.live.waiting()), "the two to agree")
        count = len(app.live.waiting())
        assert any(head.mean is None for head in app.live.waiting())
        assert not any("dead" in head.flags and head.mean is not None for head in app.live.waiting())
        await until_shown(app, f"{count} waiting")
        await pilot.press("d")
        await until_shown(app, f"{count} groups wait for your rating")


async def test_whoever_comes_back_rates_in_the_mode_used_last(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "RATE  5-point", "####")
        await pilot.press("m", "equals_sign", "f", "1", "enter")
        await until(lambda: len(engine.ratings) == 2, "a thumb and a flag")
        await pilot.press("m", "m")  # to look at
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "RATE  thumbs", "####")
