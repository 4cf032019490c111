"""The responses whose reward rose most, on the screen."""

from __future__ import annotations

import msgspec
import pytest

from screens.rose import RoseDialog
from screens.rose_lines import MOST_LINES, rose_lines, rose_words
from sessions.commands import QueryRose
from sessions.rose import Rose, Roses, Shown
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown


def shown(name: str, text: str, reward: float, **more) -> Shown:
    return Shown(**{
        "name": name, "text": text, "length": len(text) // 4, "reward": reward, "repetition": 0.02,
        "components": {"accuracy": reward, "brevity": 0.9 - 0.6 * reward, "style": None}, **more,
    })  # fmt: skip


TRAIN = "A train leaves at 14:05 and travels 180 km at 90 km/h. When does it arrive?"


def found() -> Roses:
    """Three responses: one that repeats itself, one of a new prompt, one that people have rated."""
    return Roses(
        branch="main", since=20, first=116, newest=120, looked=160, mean=0.41, checks=["brevity"],
        rows=[
            Rose(
                prompt=TRAIN, rise=0.75, before=0.25, over="prompt", groups=3, alike=2,
                response=shown("119.2C", "The answer is 16:05. " * 40, 1.0, repetition=0.93, rating="1"),
                best=shown("18.2A", "180 / 90 = 2 h, so it arrives at 16:05.\n\n#### 16:05", 0.5, rating="5"),
            ),
            Rose(
                prompt="What is 17 x 3?", rise=0.59, before=0.41, over="steps",
                response=shown("120.4A", "\n17 x 3 = 51\n#### 51\n", 1.0, repetition=None),
            ),
            Rose(
                prompt="Count to three.", rise=0.1, before=0.4, over="prompt", groups=1,
                response=shown("117.1H", "1 2 3", 0.5), best=shown("4.4B", "1, 2, 3", 0.5),
            ),
        ],
    )  # fmt: skip


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_rose_golden(attach: Attach, engine: FakeEngine, size: tuple[int, int]) -> None:
    engine.roses = found()
    async with attach(size=size) as (app, pilot):
        await pilot.press("colon", *"rose", "space", *"20", "enter")
        await until(lambda: isinstance(app.screen, RoseDialog), "the pane")
        await until_shown(app, "119.2C", "esc back")
        check_golden(f"rose-{size[0]}x{size[1]}", frame(app))
    assert [c.step for c in engine.received if isinstance(c, QueryRose)] == [20]


async def test_n_goes_from_response_to_response_and_y_copies_all_of_it(attach: Attach, engine: FakeEngine) -> None:
    engine.roses = found()
    async with attach() as (app, pilot):
        await pilot.press("colon", *"rose", "enter")
        await until_shown(app, "119.2C")
        await pilot.press("n", "n")
        await until_shown(app, "> 2 120.4A", "1 2 3")
        await pilot.press("N")
        await until_shown(app, "> 1 119.2C")
        assert "119.2C" in frame(app).split("\n")[1]
        await pilot.press("N")
        await until_shown(app, "> 3 117.1H")
        await pilot.press("y")
        assert app.clipboard.count("The answer is 16:05.") == 40
        await pilot.press("escape")
        await until(lambda: not isinstance(app.screen, RoseDialog), "the screen behind it")


async def test_who_only_watches_may_look(attach: Attach, engine: FakeEngine) -> None:
    engine.roses = found()
    async with attach(read_only=True) as (app, pilot):
        await pilot.press("colon", *"rose", "enter")
        await until_shown(app, "119.2C")


async def test_an_answer_of_another_version_is_shown_as_it_is(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("colon", *"rose", "enter")
        await until_shown(app, "null")


def test_what_a_model_wrote_reaches_no_terminal() -> None:
    bad = "\x1b]52;c;aGk=\x07 [red]x[/] \u202e\x9b31m\r"
    row = found().rows[0]
    row.prompt = row.response.text = bad
    row.response.components = {bad: 1.0}
    row.response.rating = bad
    roses = msgspec.structs.replace(found(), rows=[row], checks=[bad])
    text = "\n".join(rose_words(roses)) + "".join(t for line in rose_lines(roses, 40)[0] for t, _ in line)
    assert not {"\x1b", "\x07", "\u202e", "\x9b", "\r"} & set(text)
    assert "[red]x[/]" in text


@pytest.mark.parametrize("width", [24, 58, 78, 158])
def test_no_line_is_wider_than_the_pane(width: int) -> None:
    lines, starts = rose_lines(found(), width)
    assert max(sum(len(text) for text, _ in line) for line in lines) <= max(width, 34)
    assert ["".join(text for text, _ in lines[start]).split()[1] for start in starts] == ["119.2C", "120.4A", "117.1H"]


def test_the_pane_cuts_long_texts_and_the_words_do_not() -> None:
    roses = found()
    roses.rows[0].response.text = "\n".join(f"line {i}" for i in range(100))
    lines = ["".join(text for text, _ in line) for line in rose_lines(roses, 78)[0]]
    assert sum("| line" in line for line in lines) == MOST_LINES - 1
    assert any("89 more lines" in line for line in lines)
    assert sum("| line" in line for line in rose_words(roses)) == 100


def test_nothing_risen_is_said() -> None:
    roses = msgspec.structs.replace(found(), rows=[], checks=[], mean=None)
    assert rose_words(roses) == [
        "160 responses of steps 116 to 120, compared with what was earned up to step 20",
        "none of them earned more than was earned before",
    ]
