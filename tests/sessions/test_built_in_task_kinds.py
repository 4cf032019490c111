"""The words of the built-in tasks: their options, what is refused, and how they are kept."""

from __future__ import annotations

import pytest

from sessions.errors import InvalidValue, UnknownName
from sessions.specs import wholes
from sessions.task_kinds import check_task_spec


@pytest.mark.parametrize(
    ("value", "numbers"), [("2", (2,)), ("1-4", (1, 2, 3, 4)), ("5,1-2,2", (1, 2, 5)), ("3-3", (3,))]
)
def test_a_list_of_whole_numbers(value: str, numbers: tuple[int, ...]) -> None:
    assert wholes(value) == numbers


@pytest.mark.parametrize(
    "words",
    ["arithmetic", "arithmetic levels=1-4 curriculum=true", "maze", "maze size=2-5,7 wall_share=0.2 drawing=hashes"],
)
def test_words_are_kept_as_they_were_said(words: str) -> None:
    assert check_task_spec(words) == words


def test_switches_and_the_order_of_options_have_one_spelling() -> None:
    assert check_task_spec("arithmetic curriculum=yes levels=3") == "arithmetic levels=3 curriculum=true"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("arithmetic levels=0", "levels '0' is out of bounds; allowed: whole numbers from 1 to 6"),
        ("arithmetic levels=1-7", "levels '1-7' is out of bounds"),
        ("arithmetic levels=4-1", "levels '4-1' names no number"),
        ("arithmetic levels=", "levels '' should read like 1-4 or 1,3"),
        ("arithmetic levels=1..4", "should read like 1-4 or 1,3"),
        ("arithmetic levels=99999", "should read like 1-4 or 1,3"),
        ("arithmetic levels=١", "should read like 1-4 or 1,3"),
        ("arithmetic curriculum=maybe", "neither true nor false"),
        ("maze size=1", "size '1' is out of bounds; allowed: whole numbers from 2 to 12"),
        ("maze size=13", "out of bounds"),
        ("maze wall_share=0.9", "wall_share '0.9' is out of bounds; allowed: numbers from 0 to 0.6"),
        ("maze drawing=boxes", "drawing 'boxes' is not one of stars, hashes"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(words: str, why: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        check_task_spec(words)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_option_offers_the_nearest() -> None:
    with pytest.raises(UnknownName, match="levels"):
        check_task_spec("arithmetic level=2")
