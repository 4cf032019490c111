"""A plan in words."""

from __future__ import annotations

import msgspec
import pytest

from sessions.plans import Plan, PlanPart, gigabytes, seconds


def plan(**more: object) -> Plan:
    fields = {
        "step": 40, "algorithm": "grpo", "values": {"group_size": 16}, "memory_now": 1.2e9, "memory_then": 1.94e9,
        "memory_most": 2.5e9, "memory_available": 20.1e9, "memory_total": 24e9, "seconds_now": 0.35,
        "seconds_then": 0.61, "seconds_least": 0.5, "seconds_most": 0.75, "basis": "seconds measured",
        "memory_parts": [
            PlanPart(name="weights", now=0.5e9, then=0.5e9), PlanPart(name="activations", now=0.7e9, then=1.4e9),
            PlanPart(name="cache", now=1e6, then=2e6),
        ],
        "seconds_parts": [PlanPart(name="update", now=0.3, then=0.55)],
    }  # fmt: skip
    return msgspec.convert({**fields, **more}, Plan)


def test_the_line() -> None:
    assert plan().line() == "memory about 1.2 -> 1.9 of 20 GB   step about 0.35 -> 0.61 s (x1.7)"
    assert plan(values={}).line() == "memory about 1.9 of 20 GB   step about 0.61 s"
    unknown = plan(seconds_now=None, seconds_then=None, unknown="known after the first step")
    assert unknown.line() == "memory about 1.2 -> 1.9 of 20 GB   step time: known after the first step"
    assert unknown.ratio is None


def test_the_description_says_where_it_goes_and_what_it_is_based_on() -> None:
    lines = plan(warning="about 1.9 GB is needed").describe().split("\n")
    assert lines[0] == "with group_size 16 (grpo):"
    assert lines[2] == "between 0.5 and 0.75 s a step, memory up to 2.5 GB"
    assert lines[3] == "! about 1.9 GB is needed"
    assert "  activations                       0.7 ->     1.4" in lines
    assert "  update                            0.3 ->    0.55" in lines
    assert lines[-1] == "basis: seconds measured"
    assert not any("->" in line for line in plan(values={}).describe().split("\n"))


def test_at_the_start() -> None:
    assert plan(warning="look out").at_the_start() == (
        "about 1.9 GB (at most 2.5) of 20 GB available: activations 1.4, weights 0.5; look out"
    )


@pytest.mark.parametrize(
    ("size", "words"), [(1e6, "0.001"), (0.042e9, "0.042"), (0.999e9, "1.0"), (1.94e9, "1.9"), (9.96e9, "10"), (0, "0")]
)
def test_gigabytes(size: float, words: str) -> None:
    assert gigabytes(size) == words


@pytest.mark.parametrize(("value", "words"), [(0.0314, "0.031"), (0.996, "1.0"), (4.25, "4.2"), (61.4, "61")])
def test_seconds(value: float, words: str) -> None:
    assert seconds(value) == words
