"""The levels of arithmetic: what is asked, what is right, and what is held out."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import lru_cache

import pytest

from engine.loading import TINY, load_policy
from engine.policy import make_accelerator
from engine.tasks import load_task
from engine.tasks.task import Task


@lru_cache
def made(words: str) -> Task:
    return load_task(words, seed=0)


def digits(problem: str) -> list[int]:
    """How many digits each number has."""
    for sign in "-*":
        problem = problem.replace(sign, "+")
    return [len(n) for n in problem.split("+")]


def test_the_default_is_what_sessions_of_earlier_versions_have() -> None:
    """The digest was taken before there were levels."""
    task = made("arithmetic")
    told = "\n".join(f"{p.id} {p.text} {p.answer}" for p in (*task.prompts, *task.evaluation))
    assert (
        hashlib.sha256(told.encode()).hexdigest() == "1533277d65c4993efaf6bb7be807c4ec7076263172c237de2899c2760195a375"
    )
    assert made("arithmetic levels=2").prompts == task.prompts


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5, 6])
def test_every_answer_is_right_and_not_negative(level: int) -> None:
    task = made(f"arithmetic levels={level}")
    for prompt in [*task.prompts, *task.evaluation]:
        problem = prompt.text.removesuffix("=")
        parts = [int(n) for n in problem.replace("-", "+-").split("+")] if "*" not in problem else []
        right = sum(parts) if parts else int(problem.split("*")[0]) * int(problem.split("*")[1])
        assert int(prompt.answer) == right >= 0
        assert prompt.level == level
        assert task.judge(prompt, f" {right}\n")
        assert not task.judge(prompt, f"{right}0")


@pytest.mark.parametrize(
    ("level", "looks"),
    [
        (1, lambda p: digits(p) == [1, 1] and "+" in p),
        (2, lambda p: max(digits(p)) <= 2 and p.count("+") == 1),
        (3, lambda p: max(digits(p)) <= 2 and p.count("-") == 1),
        (4, lambda p: max(digits(p)) == 3 and p.count("+") == 1),
        (5, lambda p: max(digits(p)) <= 2 and p.count("+") == 2),
        (6, lambda p: digits(p)[0] == 1 and digits(p)[1] <= 2 and p.count("*") == 1),
    ],
)
def test_a_level_looks_as_it_is_described(level: int, looks: object) -> None:
    task = made(f"arithmetic levels={level}")
    problems = [p.text.removesuffix("=") for p in (*task.prompts, *task.evaluation)]
    assert all(map(looks, problems))  # type: ignore[arg-type]
    assert len(problems) > {1: 99, 6: 800}.get(level, 4000)


def test_no_problem_is_in_two_levels_or_on_both_sides_of_the_split() -> None:
    task = made("arithmetic levels=1-6 held_out=100000")
    assert max(Counter(p.text for p in (*task.prompts, *task.evaluation)).values()) == 1
    held, train = Counter(p.level for p in task.evaluation), Counter(p.level for p in task.prompts)
    assert (held[1] + held[2], train[1] + train[2]) == (1000, 9000)
    assert all(9 * held[level] <= train[level] < 9 * held[level] + 10 for level in (3, 4, 5, 6))


def test_what_the_default_holds_out_is_held_out_at_level_1_too() -> None:
    """The embedded model has been warmed up on the others."""
    held = {p.text for p in made("arithmetic").evaluation}
    both, one = made("arithmetic levels=1-2"), made("arithmetic levels=1")
    assert not held & {p.text for p in both.prompts}
    assert {p.text for p in one.evaluation} < held
    assert {p.text for p in both.evaluation} <= held


def test_the_first_held_out_problems_have_something_of_every_level() -> None:
    task = made("arithmetic levels=1-4 held_out=8")
    assert [p.level for p in task.evaluation] == [1, 2, 3, 4, 1, 2, 3, 4]


def test_the_embedded_models_tokenizer_has_every_character() -> None:
    policy = load_policy(TINY, make_accelerator("cpu", "fp32"))
    unknown = policy.tokenizer.unk_token_id
    for words in ("arithmetic levels=1-6", "maze size=2-5"):
        characters = {c for p in made(words).prompts for c in p.text + p.answer}
        assert unknown not in policy.encode_text("".join(sorted(characters)))
    assert unknown in policy.encode_text("#")  # it does tell
