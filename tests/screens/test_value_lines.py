"""What the value model said, under a response."""

from __future__ import annotations

import pytest

from screens.value_lines import value_lines
from sessions.records import Response

GAMMA = 0.9
ARTICLE = [0.8 * GAMMA**2, 0.8 * GAMMA, 0.8]
"""Discounted prefixes of a response of three tokens that scored 0.8."""


def response(values: list[float], returns: list[float] | None = None, **fields: object) -> Response:
    return Response(
        letter="A", text="1+2", length=len(values), ended=True, values=values, returns=returns or [], **fields  # type: ignore[arg-type]
    )  # fmt: skip


def cells(lines: list[str], label: str) -> list[str]:
    return [cell for line in lines if line.startswith(label) for cell in line.removeprefix(label).split()]


def test_values_stand_over_the_returns_they_were_trained_on() -> None:
    lines = value_lines(response([0.65, 0.72, 0.8], ARTICLE, advantages=[0.0, 0.1, -0.2], ends=[1, 2, 3]), 46)
    assert cells(lines, "value:") == ["0.65", "0.72", "0.80"]
    assert cells(lines, "return:") == ["0.65", "0.72", "0.80"]
    assert cells(lines, "adv:") == ["0", "+.10", "-.20"]
    assert cells(lines, "token:") == ["1", "+", "2"]
    at = {line.index(cell) for line, cell in ((lines[1], "2"), (lines[2], "0.80"), (lines[3], "0.80"))}
    assert len(at) == 1, "one column a token"


def test_without_a_value_model_there_is_nothing() -> None:
    assert value_lines(response([]), 46) == []


@pytest.mark.parametrize("width", [1, 20, 46, 80, 114])
def test_a_long_response_shows_its_last_tokens_and_says_so(width: int) -> None:
    numbers = [i / 5000 for i in range(5000)]
    lines = value_lines(response(numbers, numbers), width)
    assert len(lines) <= 12
    assert all(len(line) <= max(width, 20) for line in lines[1:])
    assert lines[0].startswith(".. the last ")
    assert "of 5000 tokens" in lines[0]
    assert cells(lines, "value:")[-1] == "1.00"


def test_the_end_token_and_hostile_text_are_visible() -> None:
    made = response([0.1, 0.2], ends=[1, 1])
    made.text = "\x1b"
    assert cells(value_lines(made, 46), "token:") == ["␛", "eos"]
