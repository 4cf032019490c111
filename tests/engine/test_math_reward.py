"""Answers compared as mathematics, in a process that can be stopped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("math_verify")

from engine.rewards import math_answers
from engine.rewards.component import Failed
from engine.rewards.math_answers import MathReward


@pytest.fixture(scope="module")
def reward() -> Iterator[MathReward]:
    made = MathReward(mark="")
    yield made
    made.close()


def test_answers_are_compared_as_mathematics(reward: MathReward) -> None:
    pairs = [
        (r"so \boxed{\frac{2}{6}}", r"\frac{1}{3}", 1),
        (r"\boxed{0.75}", "3/4", 1),
        (r"The final answer is $x + 1$.", "$1+x$", 1),
        (r"somewhere $x + 1$", "$1+x$", 0),
        (r"\boxed{72}", "72", 1),
        (r"The final answer is $8$. \boxed{3}", "3", 1),
        (r"\boxed{4}", "5", 0),
        ("no answer at all", "5", 0),
        ("72", "72", 0),  # a response has to be LaTeX, as in TRL
        ("\0\x1b[2J\\boxed{5}", "5", 1),
        ("(" * 100_000, "5", 0),
        (r"\boxed{5}", "nothing that could be read ???", None),
        (r"\boxed{5}", "", None),
    ]
    texts, answers, wanted = zip(*pairs, strict=True)
    assert reward(["q"] * len(pairs), texts, answers, completion_ids=[[1]] * len(pairs)) == list(wanted)


def test_a_response_that_takes_for_ever_fails_and_the_others_do_not(
    reward: MathReward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(math_answers, "LONGEST", 2.5)
    huge, right = reward(["q"] * 2, [r"\boxed{9^{9^{9^{9}}}}", r"\boxed{5}"], ["5", "5"])
    assert isinstance(huge, Failed)
    assert "did not answer within 2.5 s" in str(huge)
    assert right == 1


def test_only_what_follows_the_reasoning_counts_and_endless_reasoning_is_wrong() -> None:
    texts = [r"\boxed{1}</think>\boxed{2}", r"\boxed{2}</think>\boxed{1}", r"\boxed{2}", r"</think>\boxed{2}"]
    told = math_answers.accuracy(["q"] * 4, texts, ["2"] * 4, mark="</think>")
    assert told == [1, 0, 0, 1]


def test_a_group_that_has_used_up_its_time_is_not_looked_at_further() -> None:
    reward = MathReward(seconds=0.0)
    (failed,) = reward(["q"], [r"\boxed{1}"], ["1"])
    assert isinstance(failed, Failed)
    assert "the 0 s for the group were over" in str(failed)


def test_each_response_has_what_is_left_of_the_time_of_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    now, limits = [0.0], []

    class Slow:
        def ask(self, line: bytes, seconds: float) -> bytes:
            limits.append(seconds)
            now[0] += 19.0
            return b"1.0"

    monkeypatch.setattr(math_answers.time, "monotonic", lambda: now[0])
    reward = MathReward(seconds=30.0)
    monkeypatch.setattr(reward, "_program", Slow())
    told = reward(["q"] * 3, ["x"] * 3, ["1"] * 3)
    assert limits == [20.0, 11.0]
    assert told[:2] == [1.0, 1.0]
    assert isinstance(told[2], Failed)


def test_what_goes_wrong_inside_is_told_of_its_response(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answering:
        def ask(self, line: bytes, seconds: float) -> bytes:
            return b'"math-verify raised ValueError: odd"'

    reward = MathReward()
    monkeypatch.setattr(reward, "_program", Answering())
    (failed,) = reward(["q"], ["x"], ["1"])
    assert isinstance(failed, Failed)
    assert str(failed) == "math-verify raised ValueError: odd"
