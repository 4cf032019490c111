"""What an editor is given, and what comes back of it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from screens.safe import visible
from screens.veil import unveil, veil
from screens.widgets.rank_list import ends


@given(st.text(alphabet="ab \n\t\x1b\x07\x00\u202e\u200b\x9b", max_size=40))
def test_a_text_that_nobody_touched_comes_back_as_it_was_and_nothing_hidden_is_drawn(text: str) -> None:
    shown = veil(text)
    assert not set(shown) & set("\x1b\x07\x00\u202e\u200b\x9b")
    assert unveil(shown, text) == text


@pytest.mark.parametrize(
    ("original", "edited", "back"),
    [
        ("a\x1bb", "better a\u241bb", "better a\x1bb"),
        ("a\u241bb\x1b", "a\u241bb\u241b!", "a\u241bb\u241b!"),  # which is which cannot be told
        ("plain", "\u241b", "\u241b"),  # a picture that a person wrote
        ("a\tb", "a\tbc", "a\tbc"),
    ],
)
def test_what_is_left_of_an_edited_text_comes_back_as_it_was(original: str, edited: str, back: str) -> None:
    assert unveil(edited, original) == back


@example("a\n" * 3 + "b" * 20, 20, 2)
@example("\u4f60" * 300, 20, 1)
@given(st.text(max_size=400), st.integers(20, 80), st.integers(1, 5))
def test_the_ends_of_a_response_fit_their_lines(text: str, width: int, lines: int) -> None:
    shown = ends(text or "(empty)", width, lines)
    assert 1 <= len(shown) <= lines
    assert all(cell_len(line) <= width for line in shown)
    assert all(visible(line) == line for line in shown)


def test_a_long_response_shows_how_it_ends() -> None:
    text = "It begins so. " + "and goes on " * 50 + "#### 42"
    for lines in (1, 2, 4):
        shown = ends(text, 60, lines)
        assert shown[0].startswith("It begins so.")
        assert shown[-1].endswith("#### 42")
