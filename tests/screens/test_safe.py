"""Untrusted text: nothing of it reaches the terminal as a command, and widths are cells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from screens.safe import clusters, cut, fit, tail, use_escapes, visible, wrap

HOSTILE = [
    ("\x1b]52;c;cm0gLXJm\x07", "␛]52;c;cm0gLXJm␇"),
    ("\x1b[2Jgone", "␛[2Jgone"),
    ("[bold]not bold[/]", "[bold]not bold[/]"),
    ("a\rb", "a␍b"),
    ("a\nb", "a␊b"),
    ("\x9b2J", "<U+009B>2J"),
    ("\x7f", "␡"),
    ("user\u202etxt.exe", "user<U+202E>txt.exe"),
    ("\u2066x\u2069", "<U+2066>x<U+2069>"),
    ("zero\u200bwidth", "zero<U+200B>width"),
    ("\ufeffbom", "<U+FEFF>bom"),
    ("\ud800", "<U+D800>"),
    ("\u2028", "<U+2028>"),
    ("\U000e0041", "<U+E0041>"),
    ("é 日本 👍🏽", "é 日本 👍🏽"),
]


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_every_control_character_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_newlines_are_kept_only_when_asked() -> None:
    assert visible("a\r\nb\nc", newlines=True) == "a\nb\nc"
    assert visible("a\nb") == "a␊b"


def test_escapes_for_terminals_without_pictures() -> None:
    use_escapes(True)
    try:
        assert visible("\x1b[2J\x7f\n") == "\\x1b[2J\\x7f\\x0a"
    finally:
        use_escapes(False)


def test_tabs_go_to_the_next_stop() -> None:
    assert visible("a\tb\n\tc", newlines=True) == "a   b\n    c"
    assert visible("日\tb") == "日  b"


def test_a_pile_of_combining_marks_is_cut() -> None:
    shown = visible("a" + "\u0301" * 50 + "b")
    assert shown == "a" + "\u0301" * 4 + "b"


@given(st.text(st.characters(), max_size=80))
def test_nothing_invisible_or_commanding_is_left(text: str) -> None:
    for char in visible(text, newlines=True):
        code = ord(char)
        assert char == "\n" or code >= 0x20
        assert not 0x7F <= code < 0xA0
        assert not 0xD800 <= code < 0xE000
        assert not 0x202A <= code <= 0x202E
        assert not 0x2066 <= code <= 0x2069
        assert code != 0x200B


@given(st.text(st.characters(), max_size=120), st.integers(2, 40))
def test_wrapped_lines_fit_and_lose_only_spaces(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert lines
    assert all(cell_len(line) <= width for line in lines)
    kept = "".join(lines).replace(" ", "")
    assert kept == visible(text, newlines=True).replace("\n", "").replace(" ", "")


@given(st.text(st.characters(), max_size=60), st.integers(0, 30))
def test_fit_is_exactly_as_wide_as_asked(text: str, width: int) -> None:
    assert cell_len(fit(text, width)) == width
    assert cell_len(fit(text, width, right=True)) == width
    assert cell_len(cut(visible(text), width)) <= width


def test_the_tail_is_the_end_of_a_text() -> None:
    assert tail("one two", 3) == "two"
    assert tail("日本語", 5) == "本語"
    assert tail("a\nb", 3) == "a␊b"
    assert tail("", 3) == ""


def test_wide_characters_are_never_cut_in_half() -> None:
    assert cut("日本語", 5) == "日本"
    assert fit("日本語日本語", 8) == "日本語.."
    assert wrap("日本語日本語", 7) == ["日本語", "日本語"]
    assert clusters("e\u0301👍🏽x") == ["e\u0301", "👍🏽", "x"]


def test_wrapping_breaks_at_spaces() -> None:
    assert wrap("one two three", 8) == ["one two", "three"]
    assert wrap("  indented", 20) == ["  indented"]
    assert wrap("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert wrap("", 10) == [""]
    assert wrap("a\n\nb", 10) == ["a", "", "b"]
