"""A text with marked pieces: the marks stand on the right characters, whatever is wrapped, searched or hostile."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult

from screens.difference import Piece
from screens.safe import visible, visible_places, wrap, wrap_places
from screens.widgets.line_view import Span
from screens.widgets.text_view import TextView, _toned, _wrapped

CHARS = st.one_of(st.sampled_from("ab  \t\r\n\x1b日é\u0301👍\U0001f3fd\u200b\u202e\x07"), st.characters())
TEXT = st.text(CHARS, max_size=60)


def drawn(pieces: Sequence[Piece], width: int) -> list[list[Span]]:
    """The spans of every line of one paragraph."""
    return [_toned(line, 0, len(line.text), line.marks) for line in _wrapped(0, (pieces, ""), width)]


def text_of(spans: Sequence[Span], tone: str | None = None) -> str:
    return "".join(span.text for span in spans if tone is None or span.tone == tone)


@given(TEXT, st.integers(2, 30))
def test_places_of_the_wrapped_lines_are_the_lines(text: str, width: int) -> None:
    for line in visible(text, newlines=True).split("\n"):
        places = wrap_places(line, width)
        assert [line[start:end] for start, end in places] == wrap(line, width)
        ends = [0, *(end for _, end in places)]
        between = [line[end:start] for end, (start, _) in zip(ends, places, strict=False)]
        assert not "".join([*between, line[ends[-1] :]]).strip(" ")


@given(TEXT, st.booleans())
def test_a_place_moves_to_where_the_text_before_it_ends(text: str, newlines: bool) -> None:
    places = [at for at in range(len(text) + 1) if not (newlines and text[at - 1 : at + 1] == "\r\n")]
    shown, moved = visible_places(text, places, newlines=newlines)
    assert shown == visible(text, newlines=newlines)
    # What is drawn of a character does not depend on what comes after it.
    assert [shown[:at] for at in moved] == [visible(text[:at], newlines=newlines) for at in places]


def test_a_place_in_what_is_not_drawn_is_where_that_ends() -> None:
    assert visible_places("a" + "\u0301" * 9 + "b", [7, 10, 11]) == ("a" + "\u0301" * 4 + "b", [5, 5, 6])
    assert visible_places("a\r\nb", [2, 3], newlines=True) == ("a\nb", [1, 2])


@given(st.lists(st.tuples(TEXT, st.booleans()), max_size=6), st.integers(2, 40))
def test_marks_change_neither_the_lines_nor_their_width(parts: list[tuple[str, bool]], width: int) -> None:
    pieces = [Piece(*part) for part in parts]
    lines = drawn(pieces, width)
    assert [text_of(spans) for spans in lines] == wrap("".join(text for text, _ in parts), width)
    assert all(sum(cell_len(span.text) for span in spans) <= width for spans in lines)


@given(
    st.lists(st.tuples(st.text("ab日 \x1b\n", min_size=1, max_size=8), st.booleans()), max_size=8), st.integers(2, 40)
)
def test_what_differs_is_marked_and_nothing_else(parts: list[tuple[str, bool]], width: int) -> None:
    lines = drawn([Piece(*part) for part in parts], width)
    marked = "".join(text_of(spans, "differs") for spans in lines)
    wanted = "".join(visible(text, newlines=True) for text, only in parts if only)
    bare = "".join(text_of(spans, "") for spans in lines)
    rest = "".join(visible(text, newlines=True) for text, only in parts if not only)
    strip = str.maketrans("", "", " \n")  # the spaces at a break are not drawn
    assert marked.translate(strip) == wanted.translate(strip)
    assert bare.translate(strip) == rest.translate(strip)


def test_an_accent_is_not_torn_from_its_letter() -> None:
    (line,) = drawn([Piece("cafe", False), Piece("\u0301", True), Piece(" noir", False)], 20)
    assert text_of(line, "differs") == "e\u0301"


def test_a_mark_goes_on_over_a_break() -> None:
    lines = drawn([Piece("one ", False), Piece("two three", True), Piece(" four", False)], 7)
    assert [(text_of(spans, ""), text_of(spans, "differs")) for spans in lines] == [
        ("one ", "two"),
        ("", "three"),
        ("four", ""),
    ]


class TextApp(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.text = TextView(id="text")

    def compose(self) -> ComposeResult:
        yield self.text


def underlined(app: TextApp, y: int) -> str:
    return "".join(s.text for s in app.text.render_line(y)._segments if s.style is not None and s.style.underline)


def reversed_(app: TextApp, y: int) -> str:
    return "".join(s.text for s in app.text.render_line(y)._segments if s.style is not None and s.style.reverse)


MARKED = [Piece("the ", False), Piece("19:17", True), Piece(" train", False)]


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "ansi-dark"])
@pytest.mark.parametrize("colours", [True, False])
async def test_a_mark_is_seen_without_colour(theme: str, colours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    app = TextApp()
    app.theme = theme
    async with app.run_test(size=(30, 4)) as pilot:
        app.text.set_text([(MARKED, "")])
        await pilot.pause()
        assert underlined(app, 0) == "19:17"
        strips = app.screen._compositor.render_strips()
        assert "".join(s.text for s in strips[0] if s.style and s.style.underline and s.style.bold) == "19:17"


async def test_marks_are_taken_away_and_put_back_without_moving() -> None:
    app = TextApp()
    async with app.run_test(size=(20, 4)) as pilot:
        lines = [piece for i in range(20) for piece in (Piece(f"line {i} ", False), Piece("x\n", True))]
        plain = "".join(piece.text for piece in lines)
        app.text.set_text(plain)
        await pilot.pause()
        app.text.show_from(5)
        app.text.set_text([(lines, "")])
        await pilot.pause()
        assert (app.text.top, underlined(app, 0)) == (5, "x")
        read = app.text.percent
        app.text.marked = False
        await pilot.pause()
        on_screen = app.screen._compositor.render_strips()
        assert not [s for strip in on_screen for s in strip if s.style and s.style.underline]
        assert underlined(app, 0) == ""
        assert app.text.changes == []
        app.text.marked = True
        assert underlined(app, 0) == "x"
        assert (app.text.top, app.text.percent) == (5, read)
        app.text.set_text("another")
        assert app.text.top == 0


async def test_what_is_found_is_seen_inside_of_what_differs() -> None:
    app = TextApp()
    async with app.run_test(size=(30, 4)) as pilot:
        app.text.set_text([(MARKED, "")])
        await pilot.pause()
        assert app.text.search("E 19")
        assert reversed_(app, 0) == "e 19"
        assert underlined(app, 0) == ":17"
        assert "".join(s.text for s in app.text.render_line(0)._segments).rstrip() == "the 19:17 train"


async def test_another_width_keeps_the_place_and_the_share_that_was_read() -> None:
    app = TextApp()
    async with app.run_test(size=(40, 5)) as pilot:
        app.text.set_text(" ".join(f"w{i:03}" for i in range(400)))
        await pilot.pause()
        app.text.show_from(20)
        first = app.text.spans(app.text.top, 40)[0].text.split()[0]
        percent = app.text.percent
        await pilot.resize_terminal(20, 5)
        await pilot.pause()
        assert app.text.spans(app.text.top, 20)[0].text.split()[0] == first
        assert abs(app.text.percent - percent) <= 2
        await pilot.resize_terminal(40, 5)
        await pilot.pause()
        assert (app.text.top, app.text.percent) == (20, percent)


async def test_changes_are_where_marks_begin() -> None:
    app = TextApp()
    async with app.run_test(size=(30, 10)) as pilot:
        said = [Piece("a\n", False), Piece("b\nc\n", True), Piece("d\n", False), Piece("e", True)]
        app.text.set_text([("above", "dim"), (said, "")])
        await pilot.pause()
        assert app.text.changes == [2, 5]
