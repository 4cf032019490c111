"""The rating screen against an engine: keys to commands, what is hidden, what is confirmed, what an update did."""

from __future__ import annotations

import msgspec
import pytest

from screens.rate import RateScreen
from sessions.commands import Command, QueryGroup, Rate, Retract, Skip
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown


@pytest.fixture(autouse=True)
def ann(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("screens.app.whoami", lambda: "ann")


def said(engine: FakeEngine) -> list[str]:
    """The rating commands that the engine got, in short."""
    out = []
    for command in engine.received:
        match command:
            case Rate(group=group, mode=mode, values=values):
                out.append(f"{mode} {group} " + " ".join(f"{k}={v:g}" for k, v in values.items()))
            case Retract(rating=rating):
                place = [c.id for c in engine.received if isinstance(c, Rate)].index(rating)
                out.append(f"retract {place + 1}")
            case Skip(response=response, reason=reason):
                out.append(f"skip {response} {reason}".rstrip())
    return out


def order_of(app: object) -> list[str]:
    screen = app.screen  # type: ignore[attr-defined]
    assert isinstance(screen, RateScreen)
    assert screen.desk.current is not None
    return screen.desk.current.order


@pytest.mark.parametrize(("name", "size"), [("rate-80x24", (80, 24)), ("rate-160x48", (160, 48))])
async def test_golden(attach: Attach, engine: FakeEngine, name: str, size: tuple[int, int]) -> None:
    async with attach(size=size) as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 of", "####")
        await pilot.press("4", "2")
        await until(lambda: len(engine.ratings) == 2, "two ratings")
        await until_shown(app, "saved: ", "2 today")
        check_golden(name, frame(app))
        await pilot.press("enter")
        await until_shown(app, "group 2 of", "preview", "####")
        check_golden(f"{name}-left", frame(app))


SCRIPTS = [
    ("3 j 5 enter 1 u", ["likert 120.1 0=3", "likert 120.1 1=5", "likert 120.2 0=1", "retract 3"]),
    ("m = - u", ["thumbs 120.1 0=1", "thumbs 120.1 1=-1", "retract 2"]),
    ("m 5 -", ["thumbs 120.1 0=-1"]),
    ("4 u ctrl+r", ["likert 120.1 0=4", "retract 1", "likert 120.1 0=4"]),
    ("x enter 2", ["skip 120.1 0", "likert 120.1 1=2"]),
    ("x w h y enter K X 2", ["skip 120.1 0 why", "likert 120.1 0=2"]),
    ("J J 4 tab 2", ["likert 120.1 2=4", "likert 120.1 4=2"]),
    ("c 5 enter 4", ["likert 120.1 0=4"]),
]


@pytest.mark.parametrize(("keys", "expected"), SCRIPTS)
async def test_key_scripts(attach: Attach, engine: FakeEngine, keys: str, expected: list[str]) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 of", "####")
        orders = {"120.1": order_of(app)}
        for key in keys.split():
            await pilot.press({"-": "minus", "=": "equals_sign"}.get(key, key))
            await pilot.pause()
            screen = app.screen
            assert isinstance(screen, RateScreen)
            orders.update({screen.desk.book.name(key): visit.order for key, visit in screen.desk.visits.items()})
            if key == "enter" and "enter 1" in keys:
                await until_shown(app, "group 2 of", "####")

        def named() -> list[str]:
            out = []
            for line in said(engine):
                words = line.split()
                if words[0] == "skip":
                    group, letter = words[1][:-1], words[1][-1]
                    out.append(" ".join(["skip", group, str(orders[group].index(letter)), *words[2:]]))
                elif words[0] == "retract":
                    out.append(line)
                else:
                    letter, _, value = words[2].partition("=")
                    out.append(f"{words[0]} {words[1]} {orders[words[1]].index(letter)}={value}")
            return out

        await until(lambda: len(said(engine)) >= len(expected), f"{expected}, got {said(engine)}")
        assert named() == expected


async def test_the_record_says_order_blindness_and_person(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 of", "####")
        await pilot.press("4", "v", "5")
        await until(lambda: len(engine.ratings) == 2, "two ratings")
        first, second = (c for c in engine.received if isinstance(c, Rate))
        assert first.order == order_of(app)
        assert (first.blind, second.blind, first.who) == (True, False, "ann")


async def test_blind_hides_reward_advantage_and_step(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        text = await until_shown(app, "group 1 of", "####", "v reveals")
        body = "\n".join(text.splitlines()[2:])
        assert "reward ." not in body
        assert "adv" not in body
        assert "120.1" not in text
        assert "step 121" not in text
        await pilot.press("v")
        await until_shown(app, "120.1 (group 1 of", "reward ", "adv ")


async def test_a_key_paints_the_answer_before_the_engine_has_it(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 of", "####")
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
        await until_shown(app, "group 1 of", "####")
        letter = order_of(app)[0]
        await pilot.press("4")
        await until_shown(app, f"not saved: {letter}=4: the disk is full", f"[{letter} -]", "0 today")


async def test_preview_then_what_the_update_did(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 of", "####")
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
        await until_shown(app, "group 1 of", "####")
        await until(lambda: len(fetched(engine)) >= 3, "three groups")
        assert fetched(engine) == ["120.1", "120.2", "120.3"]
        await pilot.press("enter")
        assert "It waits [120]" in frame(app)


def fetched(engine: FakeEngine) -> list[str]:
    return [c.group for c in engine.received if isinstance(c, QueryGroup)]


async def test_coming_back_shows_the_same_response(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 of", "####")
        await pilot.press("4", "J", "J")
        letter = order_of(app)[3]
        await pilot.press("d", "r")
        await until_shown(app, "group 1 of", f">{letter}<")


async def test_digits_typed_into_a_comment_rate_nothing(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 of", "####")
        await pilot.press("c", "5", "x", "u", "enter")
        await pilot.press("2")
        await until(lambda: engine.ratings, "the rating")
        [command] = [c for c in engine.received if isinstance(c, Rate | Retract | Skip)]
        assert isinstance(command, Rate)
        assert (list(command.values.values()), command.comment) == ([2.0], "5xu")


async def test_undo_reaches_back_before_this_attachment(attach: Attach, engine: FakeEngine) -> None:
    early: Command = Rate(who="ann", group="119.2", mode="likert", values={"B": 2.0}, order=list("ABCDEFGH"))
    assert isinstance(early, Rate)
    engine._rate(early)
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 of", "####", "1 today")
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
        await until_shown(app, "group 1 of", "####")
        engine.finish_step()
        await pilot.press("enter")
        await until_shown(app, "It waits [121]")


async def test_a_lost_engine_is_said_first(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 of", "####")
        await engine.leave(code=1, cause="out of memory")
        await until_shown(app, "FAILED", "out of memory", "RATE  5-point")
        letter = order_of(app)[0]
        await pilot.press("4")
        await until_shown(app, f"not saved: {letter}=4: no engine is connected", f"[{letter} -]")


async def test_a_step_that_waits_comes_first(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 of", "####")
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
        await until_shown(app, "group 2 of", "####")
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
        await until_shown(app, "group 1 of", "####")
        letter = order_of(app)[0]
        await pilot.press("x")
        await pilot.press("tab", "shift+tab", "tab", *"no", "enter")
        await until(lambda: said(engine) == [f"skip 120.1{letter} no"])


async def test_a_rating_is_confirmed_in_one_line_without_its_id(attach: Attach, engine: FakeEngine) -> None:
    engine.rated_text = "saved; the next update takes the group in, if it may (rating {id})"
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 of", "####")
        await pilot.press("4")
        text = await until_shown(app, "saved; the next update takes the group in, if it may")
        assert "(rating" not in text
        assert app.screen.query_one("#message").size.height == 1


async def test_a_comment_is_no_second_rating(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("r")
        await until_shown(app, "group 1 of", "####")
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
        await pilot.press("c", *"draft", "enter")
        await until(lambda: "draft" in visit.comments.values(), "the comment")
        engine.go_to("main", 119)
        engine.rewound("main~1", 119)
        await until(lambda: app.live.newest_step() == 119, "the rewind")
        await until(lambda: ("main", 120, group) not in screen.desk.visits, "the drafts of what was left to be gone")
        engine.finish_step()
        old = engine.groups[120, group]
        answers = [msgspec.structs.replace(r, text="another answer") for r in old.responses]
        engine.groups[120, group] = msgspec.structs.replace(old, responses=answers)
        await until(lambda: ("main", 120, group) in app.live.heads, "the new group")
        screen.rate_response(app.live.heads["main", 120, group], "A")
        await until_shown(app, "another answer")
        assert "It waits [120]" not in frame(app)
        kept = screen.desk.visits["main", 120, group]
        assert not kept.comments


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
