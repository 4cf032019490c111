"""A response's way through its maze: on the samples screen, while rating, and in a replay."""

from __future__ import annotations

import msgspec
import pytest

from screens.maze_lines import picture
from screens.widgets.maze_view import MazeView
from sessions.folders import new_session
from sessions.group_rows import pack_body, unpack
from sessions.records import Group, Response, SessionSettings, StepRecord, letters
from sessions.store import Store
from tests.screens.conftest import Attach
from tests.screens.fake_engine import START, FakeEngine, fake_metrics
from tests.screens.frames import check_golden, frame, until_shown
from tests.screens.test_replay_screen import replaying

MAZE = "s.*.\n*...\n.*.*\n...e"
WAYS = ("rdrddr", "r right, then up", "8866", "", "go home", "l" * 5000, "\x1b[2Jrd\x07\u202er")


def maze_group(step: int = 120, number: int = 4, prompt: str = f"{MAZE}\n=", ways: tuple[str, ...] = WAYS) -> Group:
    responses = [
        Response(letter=letters(i), text=text, length=min(len(text), 40), ended=True, reward=0.25 * i,
                 components={"exit": float(i == 0), "bumps": -0.2 * i})
        for i, text in enumerate(ways)
    ]  # fmt: skip
    return Group(
        branch="main", step=step, number=number, prompt_id="m", prompt=prompt, answer="rdrddr", temperature=1.0,
        responses=responses, drawing="maze",
    )  # fmt: skip


def lines_of(group: Group, letter: str) -> list[str]:
    drawn = picture(group, next(r for r in group.responses if r.letter == letter))
    assert drawn is not None
    return ["".join(span.text for span in line) for line in drawn.lines]


def words_of(text: str) -> str:
    drawn = picture(maze_group(ways=(text,)), maze_group(ways=(text,)).responses[0])
    assert drawn is not None
    return drawn.words


@pytest.fixture
def maze(engine: FakeEngine) -> Group:
    """The newest group of the engine is one of the maze task."""
    group = engine.groups[120, 4] = maze_group()
    return group


# ------------------------------------------------------------------------------------------------ the picture


def test_the_way_to_the_exit() -> None:
    assert lines_of(maze_group(), "A") == [
        "############",
        "## > v## .##",
        "#### > v .##",
        "## .## v####",
        "## . . >@E##",
        "############",
    ]


def test_bumps_are_marked_where_the_wall_is_also_at_the_edge() -> None:
    assert lines_of(maze_group(), "B") == [
        "####!!######",
        "## >@.!! .##",
        "#### . . .##",
        "## .## .####",
        "## . . . E##",
        "############",
    ]
    drawn = picture(maze_group(), maze_group().responses[1])
    assert drawn is not None
    assert {span.tone for line in drawn.lines for span in line if span.text == "!!"} == {"warn"}


def test_a_robot_that_stays_is_at_the_start() -> None:
    for letter in "DE":
        assert lines_of(maze_group(), letter)[1] == "##@S .## .##"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rdrddr", "exit in 6 moves, the fewest"),
        ("rdrrlddrr", "exit in 8 moves (shortest 6), 1 not made"),
        ("rdrdr", "no exit: 5 moves, 2 of 6 left, 1 bump"),
        ("uu", "no exit: 2 moves, 6 of 6 left, 2 bumps"),
        ("", "no move"),
        ("go home", "no move; 2 ignored: go, home"),
        ("r then down", "no exit: 2 moves, 4 of 6 left; 1 ignored: then"),
        ("a b c e f g r", "no exit: 1 move, 5 of 6 left; 6 ignored: a, b, c, e, f .."),
        ("l" * 5000, "no exit: 64 moves, 6 of 6 left, 64 bumps, 4936 not made"),
    ],
)
def test_what_became_of_the_moves_in_words(text: str, words: str) -> None:
    assert words_of(text) == words


def test_there_is_no_picture_without_a_maze() -> None:
    group = maze_group()
    assert picture(msgspec.structs.replace(group, drawing=""), group.responses[0]) is None
    assert picture(msgspec.structs.replace(group, prompt="3+4="), group.responses[0]) is None


def test_the_record_says_for_ever_that_it_is_a_maze() -> None:
    group = maze_group()
    back = unpack("main", 120, 4, "scored", pack_body(group))
    assert back == group
    plain = msgspec.structs.replace(group, drawing="")
    assert unpack("main", 120, 4, "scored", pack_body(plain)) == plain
    assert len(pack_body(plain)) == len(pack_body(group)) - 5 - 1  # the name, and what is empty before it


# ------------------------------------------------------------------------------------------------- on screens


@pytest.mark.parametrize(("name", "size"), [("maze-80x24", (80, 24)), ("maze-160x48", (160, 48))])
async def test_golden(attach: Attach, engine: FakeEngine, maze: Group, name: str, size: tuple[int, int]) -> None:
    async with attach(size=size) as (app, pilot):
        await pilot.press("s", "J")
        await until_shown(app, "> B", "1 ignored: then", "!!")
        check_golden(name, frame(app))


async def test_every_response_has_its_own_way_and_other_groups_have_none(
    attach: Attach, engine: FakeEngine, maze: Group
) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s")
        await until_shown(app, "> A", ">@E", "the fewest")
        await pilot.press("J", "J", "J")
        await until_shown(app, "> D", "@S", "no move")
        await pilot.press("j")
        await until_shown(app, "> 120.3", "#### ")
        assert not app.screen.query_one(MazeView).display
        await pilot.press("k")
        await until_shown(app, "> 120.4", ">@E")


async def test_hostile_moves_are_shown_and_not_obeyed(attach: Attach, engine: FakeEngine, maze: Group) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s", *"JJJJJJ")
        await until_shown(app, "> G", "␛[2Jrd␇", "ignored: 2, j")
        assert "\x1b" not in frame(app)
        assert "\u202e" not in frame(app)
        await pilot.press("K")
        await until_shown(app, "> F", "64 bumps, 4936 not made")


async def test_of_a_maze_that_is_too_high_the_robot_is_seen_and_one_too_wide_is_left_out(
    attach: Attach, engine: FakeEngine
) -> None:
    high = "s\n" + "\n".join("." * 40) + "\ne\n="
    wide = "s" + "." * 30 + "e\n="
    engine.groups[120, 4] = maze_group(prompt=high, ways=("d" * 41, "d" * 20))
    engine.groups[120, 3] = maze_group(number=3, prompt=wide, ways=("r" * 31, "r"))
    async with attach() as (app, pilot):
        await pilot.press("s")
        await until_shown(app, "@E##")
        await pilot.press("J")
        await until_shown(app, "> B", "@.##", "21 of 41 left")
        await pilot.press("j")
        await until_shown(app, "> 120.3", "exit in 31 moves, the fewest")
        assert not app.screen.query_one(MazeView).display


async def test_it_is_seen_while_rating(attach: Attach, engine: FakeEngine, maze: Group) -> None:
    async with attach() as (app, pilot):
        await pilot.press("s", "enter", "J", "r")
        await until_shown(app, "response B", "!!", ">@.")
        view = app.screen.query_one(MazeView)
        assert view.display


async def test_a_replay_draws_it_from_the_records_alone(home: object) -> None:
    folder = new_session("maze-1", SessionSettings(name="maze-1", steps=3))
    store = Store(folder.database)
    for step in (1, 2, 3):
        groups = [maze_group(step, 1)]
        store.add_groups(groups)
        now = START + step
        store.add_step(StepRecord(branch="main", step=step, time=now, metrics=fake_metrics(step)), groups, 500)
    store.close()
    async with replaying(2, folder=folder) as (app, pilot):
        await pilot.press("s")
        await until_shown(app, "> 2.1", "exit in 6 moves, the fewest", ">@E")
