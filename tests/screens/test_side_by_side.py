"""Two texts beside each other: they scroll together or alone, are searched together, and differ where it is marked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot

import screens
import screens.widgets.side_by_side as module
from screens.widgets.side_by_side import Side, SideBySide
from screens.widgets.text_view import TextView


class PairApp(App[None]):
    CSS_PATH = Path(screens.__file__).parent / "workbench.tcss"

    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.sides = SideBySide(**options)  # type: ignore[arg-type]

    def compose(self) -> ComposeResult:
        yield self.sides

    def on_mount(self) -> None:
        self.sides.focus()


def numbered(count: int, word: str = "line") -> str:
    return "\n".join(f"{word} {i}" for i in range(count))


@asynccontextmanager
async def pair(
    left: str, right: str, size: tuple[int, int] = (120, 12), **options: bool
) -> AsyncIterator[tuple[PairApp, Pilot[None]]]:
    app = PairApp(**options)
    async with app.run_test(size=size) as pilot:
        app.sides.show(Side("A", left, "1 tok"), Side("B", right, "2 tok"))
        await pilot.pause()
        await pilot.pause()
        yield app, pilot


def tops(app: PairApp) -> tuple[int, int]:
    return app.sides.views[0].top, app.sides.views[1].top


def underlined(view: TextView) -> str:
    lines = (view.render_line(y)._segments for y in range(view.size.height))
    return "|".join("".join(s.text for s in line if s.style and s.style.underline) for line in lines).strip("|")


async def test_both_scroll_together_and_the_short_one_waits_at_its_end() -> None:
    async with pair(numbered(50), numbered(14)) as (app, pilot):
        assert app.sides.views[0].window == 10
        await pilot.press("j", "j")
        assert tops(app) == (2, 2)
        await pilot.press("pagedown")
        assert tops(app) == (11, 4)
        await pilot.press("k")
        assert tops(app) == (10, 4), "the short one waits until the other is back where it stopped"
        await pilot.press("pageup")
        assert tops(app) == (1, 1)
        await pilot.press("G")
        assert tops(app) == (40, 4)
        await pilot.press("down", "j", "end")
        assert tops(app) == (40, 4)
        await pilot.press("up")
        assert tops(app) == (39, 4)
        await pilot.press("home")
        assert tops(app) == (0, 0)
        await pilot.press("k")
        assert tops(app) == (0, 0)


async def test_one_is_scrolled_alone_and_keeps_its_distance() -> None:
    async with pair(numbered(50), numbered(50)) as (app, pilot):
        await pilot.press("right_square_bracket", "j", "j", "j")
        assert tops(app) == (0, 3)
        assert app.sides.views[1].border_title == "B   scrolls alone"
        assert app.sides.views[0].styles.border_top != app.sides.views[1].styles.border_top, "seen from the frame too"
        assert [view.has_class("-scrolls") for view in app.sides.views] == [False, True]
        await pilot.press("left_square_bracket", "j")
        assert tops(app) == (1, 3)
        await pilot.press("left_square_bracket")
        assert app.sides.alone is None
        assert app.sides.views[0].styles.border_top == app.sides.views[1].styles.border_top
        assert app.sides.views[0].border_title == "A"
        await pilot.press("pagedown")
        assert tops(app) == (10, 12)
        await pilot.press("G")
        assert tops(app) == (40, 40)
        await pilot.press("pageup")
        assert tops(app) == (31, 33), "as far apart as before"
        await pilot.press("right_square_bracket", "g")
        assert tops(app) == (31, 0)
        await pilot.press("right_square_bracket", "g")
        await pilot.press("j")
        assert tops(app) == (1, 1), "the first line puts them level"


async def test_one_that_stands_further_down_goes_up_to_its_first_line_too() -> None:
    async with pair(numbered(50), numbered(50)) as (app, pilot):
        await pilot.press("right_square_bracket", "j", "j", "right_square_bracket", "k")
        assert tops(app) == (0, 1)
        await pilot.press("k", "k", "k", "j")
        assert tops(app) == (0, 1)


async def test_the_wheel_moves_both() -> None:
    async with pair(numbered(50), numbered(50)) as (app, _):
        app.sides.views[0].turn_wheel(3)
        assert tops(app) == (3, 3)


async def test_each_says_how_much_of_it_was_read() -> None:
    async with pair(numbered(40), numbered(5)) as (app, pilot):
        assert [view.position for view in app.sides.views] == ["1 tok  25%", "2 tok  100%"]
        await pilot.press("pagedown", "g")
        assert app.sides.percents == (47, 100)


@pytest.mark.parametrize(("width", "stacked"), [(99, True), (100, False), (160, False), (80, True)])
async def test_they_stand_beside_each_other_where_there_is_room(width: int, stacked: bool) -> None:
    async with pair(numbered(60), numbered(60), (width, 24)) as (app, pilot):
        left, right = (view.region for view in app.sides.views)
        assert (left.y < right.y, left.x < right.x) == (stacked, not stacked)
        assert app.sides.views[0].percent == (100 * (10 if stacked else 22)) // 60
        await pilot.press("w")
        await pilot.pause()
        left, right = (view.region for view in app.sides.views)
        assert (left.y < right.y, left.x < right.x) == (not stacked, stacked)
        await pilot.press("w")
        assert app.sides.stacked is stacked


async def test_what_differs_is_marked_on_request_and_only_then_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    compute = module.difference
    monkeypatch.setattr(module, "difference", lambda a, b: asked.append((a, b)) or compute(a, b))
    async with pair("back at 19:17", "back at 19:05") as (app, pilot):
        assert asked == []
        await pilot.press("D")
        assert [underlined(view) for view in app.sides.views] == ["17", "05"]
        await pilot.press("D")
        assert [underlined(view) for view in app.sides.views] == ["", ""]
        app.sides.show(Side("A", "one two"), Side("B", "one three"))
        assert len(asked) == 1, "nobody looks at it"
        await pilot.press("D")
        await pilot.pause()
        assert [underlined(view) for view in app.sides.views] == ["two", "three"]


async def test_lines_above_and_below_are_not_compared() -> None:
    async with pair("same", "same", marked=True) as (app, pilot):
        assert app.sides.alike
        app.sides.show(Side("A", "x", above=(("reward 1", "dim"),)), Side("B", "x", below=(("comment", "accent"),)))
        await pilot.pause()
        assert [underlined(view) for view in app.sides.views] == ["", ""]
        assert [view.line_count() for view in app.sides.views] == [2, 2]


async def test_the_same_texts_stay_where_they_are_and_others_begin_at_their_first_line() -> None:
    async with pair(numbered(50), numbered(40)) as (app, pilot):
        await pilot.press("right_square_bracket", "j", "right_square_bracket", "j")
        app.sides.show(Side("A 4", numbered(50), "1 tok"), Side("B", numbered(40), "2 tok"))
        assert tops(app) == (1, 2)
        assert app.sides.views[0].border_title == "A 4"
        app.sides.show(Side("A", numbered(50)), Side("C", numbered(40, "word")))
        assert tops(app) == (0, 0)
        await pilot.press("j")
        assert tops(app) == (1, 1)


async def test_a_search_goes_through_both_in_the_order_they_are_read() -> None:
    left = numbered(60).replace("line 20\n", "a MATCH\n").replace("line 40\n", "match\n")
    right = numbered(60).replace("line 20\n", "match\n").replace("line 30\n", "match\n")
    async with pair(left, right) as (app, pilot):
        assert app.sides.search("match")
        places = []
        for _ in range(5):
            views = app.sides.views
            number = next(n for n in (0, 1) if views[n]._match >= 0)
            assert views[1 - number]._match == -1
            assert views[number].top <= views[number]._match < views[number].top + views[number].window
            assert tops(app)[0] == tops(app)[1]
            places.append((number, views[number]._match))
            await pilot.press("n")
        assert places == [(0, 20), (1, 20), (1, 30), (0, 40), (0, 20)]
        await pilot.press("N", "N")
        assert app.sides.views[0]._match == 40
        assert app.sides.views[0].position == "1 tok  /match  78%"
        assert not app.sides.search("nowhere")


async def test_a_search_finds_what_stands_apart() -> None:
    async with pair(numbered(60), numbered(60)) as (app, pilot):
        await pilot.press("right_square_bracket", *"jjjjj", "right_square_bracket")
        assert app.sides.search("line 33")
        assert app.sides.views[1]._match == 33, "it stands higher than that on the left"
        await pilot.press("n")
        assert app.sides.views[0]._match == 33
        assert tops(app)[1] - tops(app)[0] == 5
        await pilot.press("j")
        app.sides.show(Side("A", "another"), Side("B", "a line 33"))
        await pilot.press("n")
        assert app.sides.views[1]._match == 0, "what is searched for is searched for in the next texts"


async def test_without_a_search_n_goes_from_difference_to_difference() -> None:
    right = numbered(80).replace("line 30\n", "line x\n").replace("line 70\n", "line y\n")
    async with pair(numbered(80), right, marked=True) as (app, pilot):
        await pilot.press("n")
        assert all(top <= 30 < top + 10 for top in tops(app))
        await pilot.press("n", "n")
        assert all(top <= 70 < top + 10 for top in tops(app))
        await pilot.press("D", "g", "n")
        assert tops(app) == (0, 0), "marks that are not shown are not gone to"


async def test_a_narrower_terminal_keeps_the_place() -> None:
    words = " ".join(f"w{i:03}" for i in range(900))
    async with pair(words, words, (160, 12)) as (app, pilot):
        await pilot.press("pagedown", "pagedown")
        view = app.sides.views[0]
        first = view.spans(view.top, 80)[0].text.split()[0]
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        await pilot.pause()
        assert first in view.spans(view.top, 80)[0].text
        assert tops(app)[0] == tops(app)[1] > 0


@pytest.mark.parametrize("longer", [0, 1])
async def test_both_keep_the_place_in_columns_of_another_width(longer: int) -> None:
    texts = [" ".join(f"w{i:03}" for i in range(count)) for count in ((900, 700) if longer == 0 else (700, 900))]
    async with pair(texts[0], texts[1], (160, 12)) as (app, pilot):
        await pilot.press("pagedown", "pagedown")
        first = [view.spans(view.top, 80)[0].text.split()[0] for view in app.sides.views]
        await pilot.resize_terminal(110, 12)
        await pilot.pause()
        await pilot.pause()
        assert all(word in view.spans(view.top, 80)[0].text for word, view in zip(first, app.sides.views, strict=True))


async def test_hostile_text_and_titles_are_drawn_and_not_obeyed() -> None:
    async with pair("\x1b]52;c;x\x07[bold]b[/]", "日本\u202e\t!", marked=True) as (app, pilot):
        app.sides.show(Side("[red]A\x1b", "\x1b]52;c;x\x07[bold]b[/]"), Side("B", "日本\u202e\t!"))
        await pilot.pause()
        text = "\n".join("".join(s.text for s in strip) for strip in app.screen._compositor.render_strips())
        assert "␛]52;c;x␇[bold]b[/]" in text
        assert "[red]A␛" in text
        assert "日本<U+202E>" in text
        assert not {"\x1b", "\u202e", "\x07"} & set(text)


async def test_an_always_marked_pair_leaves_its_key_to_the_screen() -> None:
    async with pair("a", "b", always_marked=True) as (app, pilot):
        await pilot.press("D")
        app.sides.marked = False
        assert underlined(app.sides.views[0]) == "a"
