"""From components to the automatic reward."""

from __future__ import annotations

import asyncio
import math
import sys

import numpy as np
import pytest
import torch

from engine.rewards import Component, exact_match, last_number, last_number_reward, reference_of
from engine.scoring import score_group
from engine.tasks import Prompt

PROMPT = Prompt(id="p", text="1+1=", answer="2", columns={"level": "easy"})


def returning(*values):
    return lambda prompts, completions, **columns: list(values)


def test_the_reward_is_the_weighted_sum() -> None:
    components = {"a": Component(returning(1.0, 0.5), 2.0), "b": Component(returning(-1.0, 3.0), 0.5)}
    first, second = score_group(components, PROMPT, ["x", "y"])
    assert (first.reward, first.components, first.failed) == (1.5, {"a": 1.0, "b": -1.0}, "")
    assert second.reward == 2.5


def test_none_does_not_apply_and_is_left_out() -> None:
    components = {"a": Component(returning(1.0, None)), "b": Component(returning(None, None))}
    first, second = score_group(components, PROMPT, ["x", "y"])
    assert (first.reward, first.components, first.failed) == (1.0, {"a": 1.0, "b": None}, "")
    assert (second.reward, second.failed) == (None, "")


def test_a_component_of_weight_zero_is_measured_and_does_not_teach() -> None:
    components = {"a": Component(returning(None, 1.0)), "held": Component(returning(0.7, 0.7), 0.0)}
    first, second = score_group(components, PROMPT, ["x", "y"])
    assert first.components["held"] == 0.7
    assert first.reward is None
    assert second.reward == 1.0


def test_what_it_gets() -> None:
    seen = {}

    def function(prompts, completions, **columns):
        seen.update(columns, prompts=prompts, completions=completions)
        return [0.0] * len(prompts)

    score_group({"a": Component(function)}, PROMPT, ["x", "y"])
    assert seen == {
        "prompts": ["1+1=", "1+1="],
        "completions": ["x", "y"],
        "answer": ["2", "2"],
        "level": ["easy", "easy"],
    }


def test_raising_fails_every_response_and_stops_nothing() -> None:
    def broken(prompts, completions, **columns):
        raise KeyError("answers")

    components = {"a": Component(returning(1.0, 1.0)), "bad": Component(broken)}
    for result in score_group(components, PROMPT, ["x", "y"]):
        assert result.reward is None
        assert result.failed == "bad: raised KeyError: 'answers'"
        assert result.components == {"a": 1.0, "bad": None}


def test_the_wrong_count_fails_every_response() -> None:
    results = score_group({"a": Component(returning(1.0))}, PROMPT, ["x", "y"])
    assert [r.failed for r in results] == ["a: returned 1 values for 2 completions"] * 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1", [1.0], 1j])
def test_what_is_not_a_finite_number_fails_only_its_response(value) -> None:
    first, second = score_group({"a": Component(returning(value, 1.0))}, PROMPT, ["x", "y"])
    assert "not a finite number" in first.failed
    assert first.reward is None
    assert (second.reward, second.failed) == (1.0, "")


@pytest.mark.parametrize(
    "value", [True, 1, 1.0, np.float64(1), np.float32(1), np.int64(1), np.bool_(True), torch.tensor(1.0)]
)
def test_every_kind_of_number_is_one(value) -> None:
    (result,) = score_group({"a": Component(returning(value))}, PROMPT, ["x"])
    assert (result.reward, result.failed) == (1.0, "")


def test_async_functions_share_one_loop() -> None:
    loops = []

    async def function(completions, **columns):
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return [float(len(text)) for text in completions]

    async def raising(**columns):
        raise ValueError("no")

    for _ in range(2):
        found = score_group({"a": Component(function)}, PROMPT, ["x", "yy"])
        assert [(one.reward, one.failed) for one in found] == [(1.0, ""), (2.0, "")]
    assert loops[0] is loops[1]
    (failed,) = score_group({"a": Component(raising)}, PROMPT, ["x"])
    assert failed.failed == "a: raised ValueError: no"


def test_the_first_failure_is_named() -> None:
    components = {"a": Component(returning(math.nan)), "b": Component(returning(math.nan))}
    (result,) = score_group(components, PROMPT, ["x"])
    assert result.failed.startswith("a:")


def test_nothing_returned() -> None:
    (result,) = score_group({"a": Component(lambda **columns: None)}, PROMPT, ["x"])
    assert result.failed.startswith("a: raised TypeError")


@pytest.mark.parametrize(
    ("text", "number"),
    [("42", 42), ("it is 1,234.50 dollars", 1234.5), ("18.0", 18), ("3 then -7", -7), (".5", 0.5), ("none", None),
     ("", None), ("= 5.", 5), ("1,000,000", 1_000_000)],
)  # fmt: skip
def test_last_number(text: str, number: float | None) -> None:
    found = last_number(text)
    assert (found is None) if number is None else (float(found) == number)


def test_rewards_of_the_built_in_functions() -> None:
    assert exact_match(["q"] * 3, ["85", " 85\n", "851"], answer=["85"] * 3) == [1, 1, 0]
    assert last_number_reward(["q"] * 3, ["so 18.00", "none", "18 or 19"], answer=["18"] * 3) == [1, 0, 0]


def test_the_reference_of_a_worked_answer() -> None:
    assert reference_of("48/2 = 24\n#### 72") == "72"
    assert reference_of(" 85 ") == "85"


@pytest.mark.parametrize(
    "function",
    [
        lambda prompts, completions, **_: [10**400] * len(completions),
        lambda prompts, completions, **_: sys.exit(1),
        lambda prompts, completions, **_: [float("nan")] * len(completions),
    ],
)
def test_whatever_a_function_returns_or_raises_it_fails_its_responses_and_nothing_else(function) -> None:
    scored = score_group({"odd": Component(function)}, PROMPT, ["a", "b"])
    assert [s.reward for s in scored] == [None, None]
    assert all(s.failed.startswith("odd: ") for s in scored)
    assert all(len(s.failed) < 200 for s in scored)


def test_a_sum_beyond_the_largest_number_fails_the_response() -> None:
    huge = Component(lambda prompts, completions, **_: [1e308] * len(completions))
    (scored,) = score_group({"a": huge, "b": huge}, PROMPT, ["x"])
    assert scored.reward is None
    assert scored.failed == "the sum of a, b is not a finite number"
