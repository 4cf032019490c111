"""Tasks of the package reasoning-gym: its own scoring, and nothing that a model writes is run."""

from __future__ import annotations

from typing import Any

import pytest
import reasoning_gym

from engine.scoring import score_group
from engine.tasks import load_task, reasoning
from engine.tasks.gym_options import gym_names, gym_options, gym_sets
from engine.tasks.reasoning import PLAIN, Scorer, plain_arithmetic, plain_formula, plain_literal
from sessions.errors import InvalidValue, UnknownName, UsageError

SMALL = "min_terms=2 max_terms=2 max_digits=1"


def test_questions_are_the_packages_own_and_held_out_ones_are_others() -> None:
    task = load_task(f"reasoning-gym:chain_sum {SMALL} size=60 held_out=10 seed=5", 0)
    own: Any = reasoning_gym.create_dataset(
        "chain_sum", min_terms=2, max_terms=2, max_digits=1, size=70, seed=5
    )  # fmt: skip
    questions = [own[i]["question"] for i in range(70)]
    assert [p.text for p in task.evaluation] == list(dict.fromkeys(questions[60:]))
    held = set(questions[60:])
    assert [p.text for p in task.prompts] == [q for q in dict.fromkeys(questions[:60]) if q not in held]
    assert task.notes == (f"{60 - len(task.prompts)} of 60 questions are repeated or held out and are not asked",)
    assert len({p.id for p in (*task.prompts, *task.evaluation)}) == len(task.prompts) + len(task.evaluation)


def test_the_seed_is_the_sessions_unless_it_is_given() -> None:
    one, two, given = (
        [p.text for p in load_task(f"reasoning-gym:chain_sum size=10{more}", seed).prompts]
        for seed, more in ((1, ""), (2, ""), (2, " seed=1"))
    )
    assert one != two
    assert one == given


def test_the_score_is_the_packages_own_and_counts_what_is_in_tags() -> None:
    task = load_task("reasoning-gym:chain_sum size=10", 0)
    prompt = task.prompts[0]
    right = prompt.answer
    answers = [right, f"<think>7</think> <answer> {right} </answer>", f"so {right}", "<answer>no</answer>" + right, ""]
    scored = [s.reward for s in score_group(task.components, prompt, answers)]
    assert scored[:2] == [1.0, 1.0]
    assert scored[3:] == [0.0, 0.0]
    own: Any = reasoning_gym.create_dataset("chain_sum", size=11, seed=0)
    assert scored[2] == own.score_answer(f"so {right}", dict(prompt.columns))
    assert task.judge is not None
    assert [task.judge(prompt, text) for text in answers[:2]] == [True, True]
    assert not task.judge(prompt, answers[3])
    twice = f"<answer>no</answer> rather <answer>{right}</answer>"
    assert [s.reward for s in score_group(task.components, prompt, [twice])] == [1.0], "the last tags count"
    strict = load_task("reasoning-gym:chain_sum size=10 tags=true", 0)
    assert [s.reward for s in score_group(strict.components, prompt, answers[:2])] == [0.0, 1.0]


def test_what_the_engine_says_of_the_run_is_no_part_of_an_entry() -> None:
    task = load_task("reasoning-gym:chain_sum size=10", 0)
    prompt, state = task.prompts[0], {"global_step": 3, "max_steps": 0}
    scored = score_group(task.components, prompt, [prompt.answer, "no"], [[5, 2], [6, 2]], state)
    assert [(s.reward, s.failed) for s in scored] == [(1.0, ""), (0.0, "")]


def test_responses_as_chat_messages_are_scored_alike() -> None:
    task = load_task("reasoning-gym:chain_sum size=4 system=simple", 0)
    prompt = task.prompts[0]
    assert prompt.messages[0]["content"].startswith("You are a helpful assistant")
    assert [s.reward for s in score_group(task.components, prompt, [prompt.answer])] == [1.0]
    assert load_task("reasoning-gym:chain_sum size=4 system=Hi", 0).prompts[0].messages[0]["content"] == "Hi"


def test_options_have_the_types_of_its_configuration() -> None:
    assert gym_options("chain_sum")["allow_negation"] == (False, "bool")
    load_task("reasoning-gym:chain_sum size=4 allow_negation=true", 0)
    listed = load_task("reasoning-gym:basic_arithmetic size=4 operators=+,-", 0)
    assert all(not set(p.text) & set("*") for p in listed.prompts)
    assert len(gym_names()) > 90


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ("chain_sums", UnknownName, "did you mean chain_sum"),
        ("chain_sum min_term=2", UnknownName, "did you mean min_terms"),
        ("chain_sum min_terms=two", InvalidValue, "min_terms 'two' is not of its type, int"),
        ("chain_sum min_terms=5 max_terms=2", UsageError, "max_terms must be >= min_terms"),
        ("chain_sum size=0", InvalidValue, "size '0' is out of bounds"),
        ("basic_arithmetic operators=[1", InvalidValue, "is not JSON"),
        (f"chain_sum {SMALL} size=1 held_out=5000", UsageError, "none is left beside the held-out ones"),
    ],
)
def test_what_is_refused(words: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as refused:
        load_task(f"reasoning-gym:{words}", 0)
    assert "\n" not in str(refused.value)


# ------------------------------------------------------------------------ what a model writes is never run


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_no_answer_is_run(name: str, tmp_path: Any) -> None:
    """Each scorer that would run an answer is given one that leaves a mark."""
    task = load_task(f"reasoning-gym:{name} size=1 held_out=1", 0)
    prompt = task.prompts[0]
    mark = tmp_path / "mark"
    attack = f"[__import__('pathlib').Path({str(mark)!r}).touch()]"
    for text in (attack, f"<answer>{attack}</answer>", f"().__class__ or {attack}", f"1 + len({attack})"):
        score_group(task.components, prompt, [text])
        assert task.judge is not None
        assert not task.judge(prompt, text)
    assert not mark.exists()
    bare: Any = gym_sets()[name][0]
    if name in ("string_insertion", "spiral_matrix"):  # the attack is one: the package itself runs it
        bare(config=gym_sets()[name][1](size=2, seed=0)).score_answer(attack, dict(prompt.columns))
        assert mark.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a package of one leaves files open
@pytest.mark.parametrize("name", gym_names())
def test_every_task_asks_and_its_own_answers_score(name: str) -> None:
    task = load_task(f"reasoning-gym:{name} size=3 held_out=1", 0)
    own: Any = gym_sets()[name][0](config=gym_sets()[name][1](size=4, seed=0))
    for prompt in task.prompts:
        assert prompt.text.strip()
        if (answer := prompt.columns["answer"]) is None:  # as in puzzles of many solutions
            continue
        assert own.score_answer(answer, dict(prompt.columns)) == 1.0
        assert [s.reward for s in score_group(task.components, prompt, [prompt.answer])] == [1.0]


def test_a_scorer_that_nobody_has_looked_at_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PLAIN, "countdown")
    with pytest.raises(UsageError, match="may run what the model writes"):
        load_task("reasoning-gym:countdown size=2", 0)
    monkeypatch.setattr(reasoning, "LOOKED_AT", reasoning.LOOKED_AT - {"codeio"})
    unknown = {name for name, (gym, _) in gym_sets().items() if reasoning.evaluates(gym)} - set(PLAIN)
    assert unknown - reasoning.LOOKED_AT == {"codeio", "countdown"}


def test_a_scorer_that_trips_gives_nothing() -> None:
    class Tripping:
        def score_answer(self, answer: object, entry: object) -> float:
            raise KeyError("x")

    assert Scorer(Tripping(), "any", required=False).score("1", {"answer": "1"}) == 0.0


@pytest.mark.parametrize(
    ("answer", "plain"),
    [("1 + (2*3)/4 - 5.0", True), ("9**9", False), ("abs(3)", False), ("1" * 301, False), ("", True)],
)
def test_plain_arithmetic(answer: str, plain: bool) -> None:
    assert plain_arithmetic(answer) == plain


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("x**2/2 + C", True),
        ("3*x**4 - sin(x)/2 + exp(2*x)", True),
        ("x**(1/2) + x**(-1)", True),
        ("(x + 1)**2", True),
        ("9**9**9", False),
        ("((9**99)**99)**99", False),
        ("2**(x**9)", False),
        ("9**100", False),
        ("x.__class__", False),
        ("lambda: x", False),
        ("print(x)", False),
        ("x if x else y", False),
        ("f'x'", False),
        ("9" * 13, False),
    ],
)
def test_plain_formulas(answer: str, plain: bool) -> None:
    assert plain_formula(answer) == plain


@pytest.mark.parametrize(
    ("answer", "plain"),
    [("[[1, 0], [0, 1]]", True), ("['a', 'b']", True), ("[print(1)]", False), ("1 2", False), ("[" * 5000, False)],
)
def test_plain_literals(answer: str, plain: bool) -> None:
    assert plain_literal(answer) == plain
