"""The table and the text: the cursor keeps to its row, only changed lines are drawn, keys move."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Region

from screens.widgets.ask import Ask
from screens.widgets.line_table import Column, LineTable, Row
from screens.widgets.text_view import TextView


def rows(*numbers: int) -> list[Row]:
    return [Row(str(n), (f"{n}.1", f"[bold]{n}")) for n in numbers]


class TableApp(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.table = LineTable([Column("name", 8), Column("what", 0)], empty="no rows yet", id="table")
        self.moved: list[tuple[str, bool]] = []
        self.opened: list[str] = []
        self.drawn: list[int] = []

    def compose(self) -> ComposeResult:
        yield self.table

    def on_mount(self) -> None:
        self.table.focus()

    def on_line_table_moved(self, event: LineTable.Moved) -> None:
        self.moved.append((event.key, event.by_hand))

    def on_line_table_opened(self, event: LineTable.Opened) -> None:
        self.opened.append(event.key)


def lines(app: App[None]) -> list[str]:
    return ["".join(s.text for s in strip).rstrip() for strip in app.screen._compositor.render_strips()]


async def test_rows_titles_and_cursor_are_drawn_as_data() -> None:
    app = TableApp()
    async with app.run_test(size=(30, 6)) as pilot:
        await pilot.pause()
        assert lines(app)[1].strip() == "no rows yet"
        app.table.set_rows(rows(3, 2, 1))
        await pilot.pause()
        assert lines(app)[:4] == ["  name     what", "> 3.1      [bold]3", "  2.1      [bold]2", "  1.1      [bold]1"]


async def test_the_cursor_stays_on_its_row_when_rows_come_above() -> None:
    app = TableApp()
    async with app.run_test(size=(30, 6)) as pilot:
        app.table.set_rows(rows(3, 2, 1))
        await pilot.press("j")
        app.table.set_rows(rows(5, 4, 3, 2, 1))
        await pilot.pause()
        assert app.table.key == "2"
        assert "> 2.1      [bold]2" in lines(app)


async def test_the_cursor_stays_at_its_height_in_a_long_table() -> None:
    app = TableApp()
    async with app.run_test(size=(30, 6)) as pilot:
        app.table.set_rows(rows(*range(50, 0, -1)))
        for _ in range(10):
            await pilot.press("j")
        height = app.table.cursor - app.table.top
        app.table.set_rows(rows(*range(57, 0, -1)))
        assert app.table.key == "40"
        assert app.table.cursor - app.table.top == height


async def test_a_row_that_went_away_leaves_the_cursor_in_the_table() -> None:
    app = TableApp()
    async with app.run_test(size=(30, 6)) as pilot:
        app.table.set_rows(rows(3, 2, 1))
        await pilot.press("G")
        app.table.set_rows(rows(3))
        await pilot.pause()
        assert app.table.key == "3"
        app.table.set_rows([])
        assert app.table.key == ""
        await pilot.pause()
        assert app.moved == [("3", False), ("1", True), ("3", False), ("", False)]


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ("j j", "48"), ("down", "49"), ("j k", "50"), ("up", "50"), ("G", "1"), ("G g", "50"), ("end home", "50"),
        ("pagedown", "46"), ("pagedown pageup", "50"),
    ],
)  # fmt: skip
async def test_keys_move(keys: str, key: str) -> None:
    app = TableApp()
    async with app.run_test(size=(30, 6)) as pilot:
        app.table.set_rows(rows(*range(50, 0, -1)))
        await pilot.press(*keys.split())
        assert app.table.key == key
        assert app.table.top <= app.table.cursor < app.table.top + app.table.window


async def test_a_click_moves_and_a_second_one_opens() -> None:
    app = TableApp()
    async with app.run_test(size=(30, 6)) as pilot:
        app.table.set_rows(rows(3, 2, 1))
        await pilot.click("#table", offset=(4, 2))
        assert (app.table.key, app.opened) == ("2", [])
        await pilot.click("#table", offset=(4, 2))
        await pilot.pause()
        assert app.opened == ["2"]


async def test_following_the_first_and_letting_go_by_hand() -> None:
    app = TableApp()
    async with app.run_test(size=(30, 6)) as pilot:
        app.table.follow = "first"
        app.table.set_rows(rows(2, 1))
        app.table.set_rows(rows(3, 2, 1))
        assert app.table.key == "3"
        await pilot.press("j")
        app.table.set_rows(rows(4, 3, 2, 1))
        assert (app.table.key, app.table.follow) == ("2", "")


async def test_following_the_last() -> None:
    app = TableApp()
    async with app.run_test(size=(30, 6)):
        app.table.follow = "last"
        app.table.set_rows(rows(*range(20)))
        assert app.table.key == "19"
        assert app.table.top == 20 - app.table.window


async def test_a_filter_keeps_matching_rows_and_n_goes_round() -> None:
    app = TableApp()
    async with app.run_test(size=(40, 6)) as pilot:
        app.table.set_rows(rows(*range(30)))
        app.table.set_filter(lambda row: "5" in row.key)
        assert [row.key for row in app.table.shown] == ["5", "15", "25"]
        await pilot.press("n", "n", "n")
        assert app.table.key == "5"
        await pilot.press("N")
        assert app.table.key == "25"
        app.table.set_filter(lambda row: False)
        await pilot.pause()
        assert "nothing matches" in lines(app)[1]
        app.table.set_filter(None)
        assert len(app.table.shown) == 30


async def test_only_changed_lines_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    app = TableApp()
    async with app.run_test(size=(30, 12)) as pilot:
        app.table.set_rows(rows(*range(9)))
        await pilot.pause()
        dirty: list[int] = []
        draw = app.table.refresh

        def refresh(*regions: Region, **options: bool) -> LineTable:
            dirty.extend(region.y for region in regions)
            return draw(*regions, **options)

        monkeypatch.setattr(app.table, "refresh", refresh)
        app.table.set_rows(rows(*range(9)))
        assert dirty == []
        changed = rows(*range(9))
        changed[4] = Row("4", ("4.1", "other"))
        app.table.set_rows(changed)
        assert dirty == [5]
        await pilot.pause()
        dirty.clear()
        app.table.move_to(1)
        assert dirty == [1, 2]


class TextApp(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.text = TextView(id="text")

    def compose(self) -> ComposeResult:
        yield self.text


async def test_hostile_text_is_drawn_and_not_obeyed() -> None:
    app = TextApp()
    async with app.run_test(size=(40, 6)) as pilot:
        app.text.set_text("a\x1b]52;c;x\x07 [bold]b[/bold]\n\x1b[2J日本")
        await pilot.pause()
        assert lines(app)[:2] == ["a␛]52;c;x␇ [bold]b[/bold]", "␛[2J日本"]
        assert not any("\x1b" in line for line in lines(app))


async def test_the_share_read_and_the_keys() -> None:
    app = TextApp()
    async with app.run_test(size=(20, 5)) as pilot:
        app.text.focus()
        app.text.set_text("\n".join(f"line {i}" for i in range(20)), label="20 tok")
        await pilot.pause()
        assert app.text.position == "20 tok  25%"
        await pilot.press("j")
        assert app.text.position == "20 tok  30%"
        await pilot.press("G", "g")
        assert app.text.position == "20 tok  100%"
        assert app.text.top == 0


async def test_growing_text_stays_at_its_end_or_where_it_was() -> None:
    app = TextApp()
    async with app.run_test(size=(20, 5)) as pilot:
        app.text.focus()
        app.text.set_text("\n".join("abcdefgh"), keep=True)
        await pilot.press("G")
        app.text.set_text("\n".join("abcdefghij"), keep=True)
        assert app.text.at_end
        await pilot.press("g")
        app.text.set_text("\n".join("abcdefghijkl"), keep=True)
        assert app.text.top == 0


async def test_search_goes_to_the_match_and_round() -> None:
    app = TextApp()
    async with app.run_test(size=(20, 5)) as pilot:
        app.text.focus()
        app.text.set_text("\n".join(f"line {i}" for i in range(30)))
        await pilot.pause()
        assert app.text.search("LINE 2")
        assert app.text._match == 2
        await pilot.press("n")
        assert app.text._match == 20
        assert app.text.top <= 20 < app.text.top + 5
        await pilot.press("N", "N")
        assert app.text._match == 29
        assert not app.text.search("nowhere")


class AskApp(App[None]):
    BINDINGS = [("j", "count", "")]

    def __init__(self) -> None:
        super().__init__()
        self.counted = 0
        self.said: list[tuple[str, str]] = []

    def compose(self) -> ComposeResult:
        yield LineTable([Column("", 0)], id="table")
        yield Ask(id="ask")

    def action_count(self) -> None:
        self.counted += 1

    def on_ask_answered(self, event: Ask.Answered) -> None:
        self.said.append((event.purpose, event.text))

    def on_ask_cancelled(self, event: Ask.Cancelled) -> None:
        self.said.append((event.purpose, "esc"))

    def on_ask_edited(self, event: Ask.Edited) -> None:
        self.said.append((event.purpose, "~" + event.text))


async def test_keys_of_the_screen_do_not_fire_while_a_line_is_typed() -> None:
    app = AskApp()
    async with app.run_test(size=(40, 8)) as pilot:
        table = app.query_one(LineTable)
        table.focus()
        await pilot.pause()
        app.query_one(Ask).ask("comment", "comment")
        await pilot.press("j", "5", "enter")
        await pilot.pause()
        assert app.said == [("comment", "~j"), ("comment", "~j5"), ("comment", "j5")]
        assert app.counted == 0
        assert app.focused is table
        app.query_one(Ask).ask("filter", "filter /", "old")
        await pilot.press("escape")
        await pilot.pause()
        assert app.said[-1] == ("filter", "esc")
        assert not app.query_one(Ask).is_open


async def test_what_is_dim_is_dimmer_than_the_rest() -> None:
    """A colour relative to what is behind it is bright if it is taken without that."""
    app = TableApp()
    async with app.run_test(size=(30, 6)) as pilot:
        app.table.set_rows([Row("1", ("one", "")), Row("2", ("two", "")), Row("3", ("three", ""), "dim")])
        await pilot.pause()
        plain, dim = (app.table.render_line(y)._segments[0].style for y in (2, 3))
        assert plain is not None
        assert dim is not None
        assert plain.color is not None
        assert dim.color is not None
        assert sum(dim.color.get_truecolor()) < sum(plain.color.get_truecolor())
        assert dim.bgcolor == plain.bgcolor
