"""Tasks: the embedded one, and those from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.tasks import Prompt, load_task
from engine.tasks.arithmetic import arithmetic
from engine.tasks.task import Task
from sessions.errors import InputFileError, UnknownName

GSM8K = Path(__file__).parent.parent / "data" / "gsm8k_64.jsonl"


def test_arithmetic_holds_out_a_thousand_of_all_pairs() -> None:
    task = arithmetic()
    train, held = {p.id for p in task.prompts}, {p.id for p in task.evaluation}
    assert len(task.prompts) == 9000
    assert len(task.evaluation) == 1000
    assert not train & held
    assert train | held == {f"{a}+{b}" for a in range(100) for b in range(100)}


def test_arithmetic_is_right_and_the_same_every_time() -> None:
    task = arithmetic()
    for prompt in [*task.prompts[:200], *task.evaluation[:200]]:
        a, b = prompt.text.removesuffix("=").split("+")
        assert int(prompt.answer) == int(a) + int(b)
        assert task.judge(prompt, f" {prompt.answer}\n")
        assert not task.judge(prompt, f"{prompt.answer}0")
    assert arithmetic().prompts == task.prompts
    assert arithmetic(10).evaluation == task.evaluation[:10]
    assert arithmetic(10).prompts == task.prompts


def made(n: int) -> Task:
    prompts = [Prompt(id=str(i), text=str(i), answer="0") for i in range(n)]
    return Task("t", prompts, prompts[:1], {}, (0.0, 1.0), lambda p, t: True)


def test_each_epoch_is_a_permutation_of_its_own() -> None:
    task = made(7)
    ids = [p.id for p in task.take(3, 0, 21)]
    epochs = [ids[i : i + 7] for i in (0, 7, 14)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(p.id for p in task.prompts)
    assert len({tuple(e) for e in epochs}) == 3


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 20])
def test_taking_in_parts_is_taking_at_once(count: int) -> None:
    task = made(7)
    whole = [p.id for p in task.take(3, 0, 40)]
    parts = [p.id for cursor in range(0, 40, count) for p in task.take(3, cursor, count)]
    assert parts[:40] == whole


def test_another_seed_is_another_order() -> None:
    assert [p.id for p in made(30).take(1, 0, 30)] != [p.id for p in made(30).take(2, 0, 30)]


def test_info() -> None:
    info = arithmetic(10).info()
    assert (info.name, info.prompts, info.evaluation_prompts) == ("arithmetic", 9000, 10)
    assert (info.reward_range, info.components) == ((0.0, 1.0), {"exact": 1.0})


# ------------------------------------------------------------------------------------------------ from files


def test_gsm8k() -> None:
    task = load_task(str(GSM8K), seed=0)
    rows = [json.loads(line) for line in GSM8K.read_text().splitlines()]
    assert len(task.prompts) + len(task.evaluation) == 64
    assert len(task.evaluation) == 6
    by_text = {p.text: p for p in [*task.prompts, *task.evaluation]}
    for row in rows:
        prompt = by_text[row["question"].strip()]
        assert prompt.answer == row["answer"].split("####")[1].strip()
        assert task.judge(prompt, f"so the answer is {prompt.answer}.")
        assert not task.judge(prompt, "no idea")
    assert not {p.id for p in task.prompts} & {p.id for p in task.evaluation}
    assert task.name == "gsm8k_64"


def test_the_held_out_rows_depend_on_the_seed_only() -> None:
    held = [{p.id for p in load_task(str(GSM8K), seed=s).evaluation} for s in (0, 0, 1)]
    assert held[0] == held[1]
    assert held[0] != held[2]
    assert len(load_task(str(GSM8K), 0, evaluation_rows=3).evaluation) == 3


def write(folder: Path, *lines: object) -> str:
    path = folder / "task.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


@pytest.mark.parametrize("question", ["question", "prompt", "problem"])
@pytest.mark.parametrize("answer", ["answer", "solution"])
def test_columns_and_extra_columns(tmp_path: Path, question: str, answer: str) -> None:
    rows = [{question: f"q{i}", answer: f"{i}", "level": i} for i in range(3)]
    task = load_task(write(tmp_path, *rows), 0)
    for prompt in [*task.prompts, *task.evaluation]:
        assert prompt.columns == {answer: prompt.answer, "level": int(prompt.answer)}


def test_an_answer_may_be_a_number_and_stays_one_for_reward_functions(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": i + 0.5} for i in range(3)]
    task = load_task(write(tmp_path, *rows), 0)
    assert sorted(p.answer for p in [*task.prompts, *task.evaluation]) == ["0.5", "1.5", "2.5"]
    assert all(p.columns == {"answer": float(p.answer)} for p in task.prompts)


def test_blank_lines_and_repeated_questions_are_passed_over(tmp_path: Path) -> None:
    one, two = {"question": "a", "answer": "1"}, {"question": "b", "answer": "2"}
    task = load_task(write(tmp_path, one, "", two, "   ", one), 0)
    assert sorted(p.text for p in [*task.prompts, *task.evaluation]) == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{not json", "line 2: not a JSON object"),
        ("[1, 2]", "line 2: not a JSON object"),
        ('{"answer": "1"}', "line 2: has no column question, which asks; columns: answer"),
        ('{"question": "a"}', "line 2: has no value in the column answer"),
        ('{"question": "  ", "answer": "1"}', "line 2: column question is empty"),
        ('{"question": "a", "answer": ""}', "line 2: column answer is empty"),
        ('{"question": "a", "answer": [1]}', "line 2: column answer holds neither text nor a number"),
        ('{"question": true, "answer": "1"}', "line 2: column question holds a true/false"),
        ('{"question": {}, "answer": "1"}', "line 2: column question holds a dict"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(InputFileError, match=words):
        load_task(write(tmp_path, {"question": "ok", "answer": "1"}, line), 0)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    path.write_bytes(b'{"question": "\xff\xfe", "answer": "1"}\n')
    with pytest.raises(InputFileError, match="line 1"):
        load_task(str(path), 0)


def test_too_few_rows(tmp_path: Path) -> None:
    row = {"question": "a", "answer": "1"}
    with pytest.raises(InputFileError, match=r"its rows \(1\) ask one question only; at least 2 are needed"):
        load_task(write(tmp_path, row), 0)
    with pytest.raises(InputFileError, match=r"its rows \(3\) ask one question only"):
        load_task(write(tmp_path, row, row, row), 0)


def test_names_that_are_no_task(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="arithmetic"):
        load_task("aritmetic", 0)
    with pytest.raises(InputFileError, match="no such file"):
        load_task(str(tmp_path / "none.jsonl"), 0)
    with pytest.raises(InputFileError):
        load_task(str(tmp_path) + "/", 0)
