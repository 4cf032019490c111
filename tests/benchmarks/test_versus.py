"""What a comparison with a peer reports of its runs."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace

import pytest

from benchmarks.grpo_vs_trl import CASES
from benchmarks.measure import Ratio
from benchmarks.peers.clock import COLLECTING
from benchmarks.peers.job import Job, Outcome, Step
from benchmarks.peers.rewards import brief
from benchmarks.ppo_vs_trl import CASES as PPO_CASES
from benchmarks.questions import task_of
from benchmarks.versus import (
    PEER,
    Comparison,
    Side,
    accuracy,
    agreement,
    agreement_rows,
    plain_sides,
    speed_rows,
    with_prompts,
)
from sessions.errors import UnknownName

CASE = CASES["kl0-e1"]


def outcome(
    cpu: list[float], wall: list[float], tokens: list[int], memory: float, reward: float, collecting: float = 0.0
) -> Outcome:
    steps = [
        Step(w, c, {COLLECTING: (9.0, collecting)} if collecting else {}, t, {"reward/mean": reward + i})
        for i, (c, w, t) in enumerate(zip(cpu, wall, tokens, strict=True))
    ]
    return Outcome({"trl": "1"}, steps, memory=memory)


@pytest.fixture
def found() -> Comparison:
    """Two rounds of four steps, of which the first two do not count."""
    ours = [
        outcome([9.0, 9.0, 1.0, 1.0], [9.0, 9.0, 2.0, 2.0], [9, 9, 10, 10], 50.0, 0.25),
        outcome([9.0, 9.0, 2.0, 2.0], [9.0, 9.0, 2.0, 2.0], [9, 9, 10, 30], 60.0, 0.5),
    ]
    theirs = [
        outcome([9.0, 9.0, 3.0, 3.0], [9.0, 9.0, 3.0, 3.0], [9, 9, 10, 20], 100.0, 0.75, 1.0),
        outcome([9.0, 9.0, 4.0, 4.0], [9.0, 9.0, 8.0, 8.0], [9, 9, 10, 10], 100.0, 0.5, 1.0),
    ]
    return Comparison(CASE, [0, 1], {"ours": ours, PEER: theirs})


def test_speed_is_a_quotient_of_the_steps_that_count(found: Comparison) -> None:
    assert found.faster("ours", "cpu") == Ratio(2.5, 2.0, 3.0, 2)
    assert (found.faster("ours", "wall").low, found.faster("ours", "wall").high) == (1.5, 4.0)
    by_token = found.faster_by_token("ours")  # 2/20 and 4/40 of ours, 6/30 and 8/20 of theirs
    assert (by_token.low, by_token.high) == (pytest.approx(2.0), pytest.approx(4.0))
    assert (found.memory("ours").low, found.memory("ours").high) == (0.5, 0.6)
    assert found.collects()
    assert found.faster_but_collecting("ours") == Ratio(1.75, 1.5, 2.0, 2)


def test_a_row_shows_both_sides_and_every_seed(found: Comparison) -> None:
    found.after = {"ours": [0.75, 0.625], PEER: [0.5, 0.875]}
    (row,) = speed_rows(found)
    assert (row["after, ours"], row["after, TRL"]) == ("0.750 0.625", "0.500 0.875")
    assert row["cpu s a step, ours | TRL"] == "1.500 | 3.500"


def test_the_first_steps_alone_are_compared_where_the_policies_part(found: Comparison) -> None:
    (first,) = agreement_rows(found, first_only=True)
    assert (first["ours"], first["TRL"], first["steps"]) == (0.375, 0.625, 2)
    (every,) = agreement_rows(found, first_only=False)
    assert (every["ours"], every["steps"]) == (1.875, 8)


def test_agreement_is_in_standard_errors_of_the_differences() -> None:
    ours, theirs = [1.0, 2.0, 4.0, 3.0], [0.5, 2.5, 3.0, 2.0]
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    expected = statistics.mean(differences) / (statistics.stdev(differences) / math.sqrt(4))
    assert agreement(ours, theirs).z == pytest.approx(expected)
    assert agreement(theirs, ours).z == pytest.approx(-expected)
    assert agreement([1.0, 2.0], [1.0, 2.0]).z == 0.0
    assert math.isnan(agreement([1.0], [2.0]).z)


def test_a_job_and_an_outcome_survive_the_way_to_another_process(found: Comparison) -> None:
    job = with_prompts(replace(CASE.job, steps=2, options={"plain": ["tree"]}), 3, 5)
    assert Job.read(job.dump()) == job
    run = found.runs[PEER][0]
    again = Outcome.read(json.loads(run.dump()))
    assert [(s.wall, s.tokens, s.metrics) for s in again.steps] == [(s.wall, s.tokens, s.metrics) for s in run.steps]


def test_a_job_asks_what_the_learner_will_ask() -> None:
    job = with_prompts(replace(CASE.job, steps=3), 5, 7)
    expected = task_of("arithmetic").take(5, 0, 48)
    assert [q.text for q in job.prompts] == [prompt.text for prompt in expected]
    assert not {q.text for q in job.held_out} & {prompt.text for prompt in task_of("arithmetic").prompts}
    assert len(job.held_out) == 7


def test_answers_are_judged_by_the_task() -> None:
    job = with_prompts(CASE.job, 0, 4)
    right = [f" {question.answer} " for question in job.held_out]
    assert accuracy(job, Outcome({}, answers=right)) == 1.0
    assert accuracy(job, Outcome({}, answers=[*right[:3], "no"])) == 0.75
    words = with_prompts(replace(CASE.job, task="sums"), 0, 2)
    assert accuracy(words, Outcome({}, answers=[f"It is {q.answer}." for q in words.held_out])) == 1.0


def test_a_case_without_a_shortcut_is_another_side_of_it() -> None:
    sides = plain_sides(PPO_CASES["kl0-e1"], ["tree", "skip_zero"]).sides
    assert [side.name for side in sides] == [
        "separate",
        "head",
        "separate, plain tree skip_zero",
        "head, plain tree skip_zero",
    ]
    assert sides[3] == Side(sides[3].name, {"value_model": "head", "plain": ["tree", "skip_zero"]})
    assert plain_sides(CASE, []) == CASE
    with pytest.raises(UnknownName):
        plain_sides(CASE, ["trees"])


def test_brevity_tells_responses_apart_that_are_all_wrong() -> None:
    rewards = brief(["p"] * 3, ["12", "It is 12.", "It is 13."], ["13"] * 3)
    assert rewards == [pytest.approx(-0.02), pytest.approx(-0.09), pytest.approx(0.91)]
