"""What is told of people coming and going."""

from __future__ import annotations

import random

from engine.visits import MOST, QUIET_SECONDS, Visits
from sessions.wire import Hello


def client(who: str = "ann", kind: str = "screen", terminal: str = "pts/3", *, read_only: bool = False) -> Hello:
    return Hello(protocol=1, client=kind, who=who, terminal=terminal, read_only=read_only)


def test_coming_and_going_is_told_with_the_terminal() -> None:
    visits = Visits()
    assert list(visits.news([client()], 0)) == [("ann", "ann attached (pts/3)")]
    assert list(visits.news([client()], 1)) == []
    assert list(visits.news([client(), client("bob", terminal="")], 2)) == [("bob", "bob attached")]
    assert list(visits.news([client("bob", terminal="")], 3)) == [("ann", "ann left (pts/3)")]
    assert list(visits.news([client("eve", read_only=True), client("x", "follow", "", read_only=True)], 4)) == [
        ("bob", "bob left"), ("eve", "eve attached (pts/3), read-only"), ("x", "x follows"),
    ]  # fmt: skip


def test_two_screens_of_one_name_are_told_apart_by_their_terminal_only() -> None:
    visits = Visits()
    assert len(list(visits.news([client(), client(terminal="pts/4")], 0))) == 2
    assert list(visits.news([client(), client(), client(terminal="pts/4")], 1)) == []
    assert list(visits.news([client(), client(terminal="pts/4")], 2)) == []  # one of the two there is still here


def test_scripts_that_only_ask_are_not_told() -> None:
    kinds = ("send", "status", "list", "front door", "race", "headless")
    assert list(Visits().news([client(kind=kind) for kind in kinds], 0)) == []


def test_who_comes_again_within_a_minute_is_told_once_it_is_over() -> None:
    visits = Visits()
    list(visits.news([client()], 0))
    assert list(visits.news([], 1)) == [("ann", "ann left (pts/3)")]
    assert list(visits.news([client()], 2)) == []
    assert list(visits.news([client()], QUIET_SECONDS - 0.5)) == []
    assert list(visits.news([client()], QUIET_SECONDS)) == [("ann", "ann attached (pts/3)")]
    # who comes and goes in between is not told at all
    assert list(visits.news([], QUIET_SECONDS + 1)) == [("ann", "ann left (pts/3)")]
    assert list(visits.news([client()], QUIET_SECONDS + 2)) == []
    assert list(visits.news([], QUIET_SECONDS + 3)) == []
    assert list(visits.news([], 5 * QUIET_SECONDS)) == []


def test_a_client_that_comes_every_second_does_not_fill_the_log() -> None:
    visits, told = Visits(), []
    for second in range(600):
        told += visits.news([client()], second)
        told += visits.news([], second + 0.5)
    assert len(told) == 2 * 10


def test_whatever_comes_and_goes_what_is_told_alternates_and_ends_with_what_is_so() -> None:
    rng = random.Random(7)
    for _ in range(50):
        visits, told, here = Visits(), [], False
        for second in range(0, 900, 7):
            here = rng.random() < 0.5
            told += visits.news([client()] if here else [], second)
        told += visits.news([client()] if here else [], 2000)
        texts = [text.split()[1] for _, text in told]
        assert texts == ["attached", "left"] * (len(texts) // 2) + ["attached"] * (len(texts) % 2)
        assert (texts[-1:] == ["attached"]) == here


def test_many_names_are_told_of_at_the_same_pace() -> None:
    visits, told = Visits(), []
    for number in range(1000):
        told += visits.news([client(f"x{number}")], 0.01 * number)
    assert len(told) == 2 * MOST
    assert len(visits._told) <= MOST
    assert list(visits.news([client("late")], 10 + QUIET_SECONDS)) == [("late", "late attached (pts/3)")]
