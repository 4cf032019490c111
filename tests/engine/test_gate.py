"""The rating gate."""

from __future__ import annotations

import asyncio

import pytest

from engine import gate as module
from engine.gate import RatingGate

TEXTS = {name: {"A": "one", "B": "two"} for name in ("3.1", "3.2", "3.3")}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def gate_for(text: str, texts: dict[str, dict[str, str]] | None = None) -> RatingGate:
    gate = RatingGate()
    gate.open_for(text, TEXTS if texts is None else texts)
    return gate


def test_async_never_waits() -> None:
    assert not gate_for("async").closed


def test_wait_counts_whole_groups(clock: list[float]) -> None:
    gate = gate_for("wait 2")
    assert gate.closed
    assert gate.wanted == 2
    assert gate.seconds_left is None
    gate.judged("3.1", {"A"})
    assert gate.rated() == 0
    gate.judged("3.1", {"B"})
    assert gate.rated() == 1
    assert not gate.satisfied
    gate.judged("3.2", {"A", "B"})
    assert gate.satisfied


def test_what_is_taken_back_does_not_count(clock: list[float]) -> None:
    gate = gate_for("wait 2")
    gate.judged("3.1", {"A", "B"})
    gate.taken_back("3.1", {"A"})
    assert gate.rated() == 0
    gate.judged("3.1", {"B"})
    assert gate.rated() == 1
    gate.taken_back("3.1", None)
    clock[0] += module.QUIET_SECONDS
    assert gate.rated() == 0
    gate.taken_back("9.1", None)  # of another step
    assert gate.rated() == 0


def test_a_response_with_the_text_of_a_judged_one_is_judged(clock: list[float]) -> None:
    gate = gate_for("wait 1", {"3.1": {"A": "one", "B": "two", "C": "one"}, "3.2": {"A": "x", "B": "y"}})
    gate.judged("3.1", {"A"})
    assert gate.rated() == 0
    gate.judged("3.1", {"B", "Z"})
    assert gate.rated() == 1


def test_the_same_response_twice_counts_once(clock: list[float]) -> None:
    gate = gate_for("wait 1")
    gate.judged("3.1", {"A"})
    gate.judged("3.1", {"A"})
    assert not gate.satisfied


def test_a_group_rated_in_part_counts_when_its_rater_goes_on_or_is_quiet(clock: list[float]) -> None:
    gate = gate_for("wait 2")
    gate.judged("3.1", {"A"})
    gate.judged("3.2", {"B"})
    assert gate.rated() == 1
    clock[0] += module.QUIET_SECONDS - 0.1
    assert not gate.satisfied
    clock[0] += 0.2
    assert gate.satisfied


def test_skipping_a_group_judges_all_of_it(clock: list[float]) -> None:
    gate = gate_for("wait 1")
    gate.judged("3.1", set())
    assert gate.satisfied


def test_no_more_groups_are_wanted_than_there_are(clock: list[float]) -> None:
    gate = gate_for("wait 9")
    assert gate.wanted == 3


def test_other_steps_do_not_count(clock: list[float]) -> None:
    gate = gate_for("wait 1")
    gate.judged("2.1", {"A", "B"})
    assert gate.rated() == 0


def test_a_timeout_lets_it_through(clock: list[float]) -> None:
    gate = gate_for("timeout 30")
    assert gate.closed
    assert gate.wanted == 3
    assert gate.seconds_left == 30
    clock[0] += 29
    assert not gate.satisfied
    clock[0] += 1
    assert gate.seconds_left == 0
    assert gate.satisfied


def test_a_timeout_ends_when_all_are_rated(clock: list[float]) -> None:
    gate = gate_for("timeout 30")
    for name in TEXTS:
        gate.judged(name, {"A", "B"})
    assert gate.satisfied


def test_open_and_the_next_step(clock: list[float]) -> None:
    gate = gate_for("wait 1")
    gate.open()
    assert gate.satisfied
    assert not gate.closed
    gate.leave()
    gate.open_for("wait 1", TEXTS)
    assert gate.closed
    assert not gate.satisfied
    gate.leave()
    assert not gate.closed


async def test_news_wakes_a_waiting_step() -> None:
    gate = gate_for("wait 1")
    waiting = asyncio.create_task(gate.news(3600))
    await asyncio.sleep(0)
    gate.judged("3.1", {"A"})
    await asyncio.wait_for(waiting, 60)
    await gate.news(0.01)
