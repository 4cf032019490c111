"""What a task may be called, and what is refused before anything heavy is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessions import extras, first_row
from sessions.columns import choose
from sessions.errors import InputFileError, UnknownName, UsageError
from sessions.specs import parse_spec
from sessions.task_kinds import check_task_spec, listed_task, task_kind
from workbench.settings import check_task


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("arithmetic", "arithmetic"),
        ("gsm8k path=x", "gsm8k"),
        ("reasoning-gym:chain_sum min_terms=2", "reasoning-gym"),
        ("none.jsonl", "dataset"),
        ("./folder", "dataset"),
        ("openai/gsm8k config=main", "dataset"),
        ("task.py:make", "python"),
        ("package.tasks:make", "python"),
    ],
)
def test_kinds_by_name(text: str, kind: str) -> None:
    assert task_kind(parse_spec(text, "task")).name == kind


def test_a_name_that_is_nothing_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean arithmetic"):
        check_task_spec("aritmetic")


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a b.jsonl", "t.py", "e.jsonl", "h.csv"):
        (tmp_path / name).write_text("x")
    assert check_task_spec("'a b.jsonl' held_out=3") == f"'{tmp_path}/a b.jsonl' held_out=3"
    assert check_task_spec("t.py:make n=3") == f"{tmp_path}/t.py:make n=3"
    assert check_task_spec("gsm8k path=e.jsonl") == f"gsm8k path={tmp_path}/e.jsonl"
    assert check_task_spec("e.jsonl evaluation_split=h.csv") == f"{tmp_path}/e.jsonl evaluation_split={tmp_path}/h.csv"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gsm8k", "gsm8k: path is missing .*; add path="),
        ("gsm8k path=none.jsonl", "none.jsonl: there is no such file"),
        ("none.jsonl", "no such file or folder"),
        ("rows.txt2", "unknown task"),
        ("./rows.txt", "rows are read from files that end in .jsonl, .json, .parquet, .csv"),
        ("rows.jsonl split=test", "split is for folders and hub datasets"),
        ("rows.jsonl config=main", "config is for folders and hub datasets"),
        ("rows.jsonl evaluation_split=test", "evaluation_split test: beside a file it should be another file"),
        ("rows.jsonl promt=a", "did you mean prompt"),
        ("rows.jsonl held_out=-1", "held_out '-1' is out of bounds"),
        ("none.py:make", "no such file"),
        ("reasoning-gym", "of which name"),
    ],
)
def test_what_is_refused(text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "answer": "1"}')
    (tmp_path / "rows.txt").write_text("")
    with pytest.raises(UsageError, match=words) as refused:
        check_task_spec(text)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_missing_extra_is_named_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.parquet").write_text("")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    for text, extra in [
        ("openai/gsm8k", "datasets"),
        (str(tmp_path / "saved"), "datasets"),
        (str(tmp_path / "rows.parquet"), "parquet"),
        ("reasoning-gym:chain_sum", "reasoning-gym"),
    ]:
        with pytest.raises(UsageError, match=rf"pip install 'rl-workbench\[{extra}\]'"):
            check_task_spec(text)


# ------------------------------------------------------------------------------------------------ columns


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ("prompt answer", ("prompt", "answer")),
        ("id question solution level", ("question", "solution")),
        ("problem ground_truth", ("problem", "ground_truth")),
        ("instruction input target", ("instruction", "target")),
        ("messages", ("messages", "")),
        ("answer solution prompt", ("prompt", "answer")),
        ("prompt", ("prompt", "")),
    ],
)
def test_known_names_of_columns(columns: str, chosen: tuple[str, str]) -> None:
    found = choose(columns.split(), {}, "here")
    assert (found.prompt, found.answer) == chosen


def test_columns_that_are_named() -> None:
    found = choose(["q", "prompt", "a", "answer"], {"prompt": "q", "answer": "a"}, "here")
    assert (found.prompt, found.answer) == ("q", "a")
    with pytest.raises(InputFileError, match="here: prompt=x: there is no such column; columns: q, a"):
        choose(["q", "a"], {"prompt": "x"}, "here")
    with pytest.raises(InputFileError, match="answer=x: there is no such column"):
        choose(["prompt", "a"], {"answer": "x"}, "here")
    with pytest.raises(InputFileError, match="say which with prompt=COLUMN; columns: a, b"):
        choose(["a", "b"], {}, "here")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("prompt chosen rejected", "workbench reward-model train"),
        ("chosen rejected", "workbench reward-model train"),
        ("prompt completion", "--warm-up"),
        ("prompt completion label", "reward models"),
        ("prompt completions labels", "judged steps"),
    ],
)
def test_formats_that_are_for_something_else_are_refused_with_a_hint(columns: str, words: str) -> None:
    with pytest.raises(InputFileError, match=words):
        choose(columns.split(), {}, "here")
    if "prompt" in columns:
        assert choose(columns.split(), {"prompt": "prompt"}, "here").prompt == "prompt"


# ------------------------------------------------------------------------------------------ the first row


def first(folder: Path, name: str, text: str | bytes, rewards: tuple[str, ...] = ()) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return check_task(str(path), rewards)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", "", "the file is empty"),
        ("a.jsonl", "\n\n", "the file is empty"),
        ("a.jsonl", "{", "its first line is not JSON"),
        ("a.jsonl", "[1]", "begins a JSON array; name it .json"),
        ("a.jsonl", "1", "its first line is not a JSON object"),
        ("a.jsonl", b'{"prompt": "\xff"}', r"its first line is not UTF-8 \(byte 13\)"),
        ("a.jsonl", '{"prompt": "a", "level": 1}', r"no column answers \(columns: prompt, level\); .*--reward"),
        ("a.jsonl", '{"prompt": "a", "chosen": "b", "rejected": "c"}', "reward-model train"),
        ("a.json", '{"prompt": "a"}', "no column answers"),
        ("a.csv", "prompt,level\na,1\n", "no column answers"),
        ("a.csv", "", "the file is empty"),
    ],
)
def test_a_first_row_that_cannot_be_used(tmp_path: Path, name: str, text: str | bytes, words: str) -> None:
    with pytest.raises(InputFileError, match=words):
        first(tmp_path, name, text)


def test_without_answers_a_reward_is_needed_and_the_tasks_own_is_none(tmp_path: Path) -> None:
    row = json.dumps({"prompt": "a"})
    assert first(tmp_path, "a.jsonl", row, ("length",)).endswith("a.jsonl")
    with pytest.raises(InputFileError, match="--reward"):
        first(tmp_path, "a.jsonl", row, ("task",))


def test_an_array_may_be_one_long_line_and_a_row_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_row, "LINE", 2**20)
    (tmp_path / "a.json").write_text(json.dumps([{"prompt": "p" * 2**20, "answer": "a"}]))
    first_row.check_first_row(tmp_path / "a.json", {}, "a.json", rewarded=False)
    (tmp_path / "b.json").write_text(json.dumps({"prompt": "p" * 2**20, "answer": "a"}))
    with pytest.raises(InputFileError, match=r"b\.json: its first line is longer than 1 MiB"):
        first_row.check_first_row(tmp_path / "b.json", {}, "b.json", rewarded=False)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    first(tmp_path, "a.csv", b"\xef\xbb\xbfprompt,answer\na,1\n")
    first(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"prompt": "a", "answer": "1"}')


@pytest.mark.parametrize(
    ("words", "listed"),
    [
        ("/home/me/rows/train.jsonl", "train.jsonl"),
        (
            "/home/me/train.jsonl evaluation_split=/home/me/test.jsonl",
            "train.jsonl evaluation_split=/home/me/test.jsonl",
        ),
        ("/home/me/tasks.py:make numbers=9", "tasks.py:make numbers=9"),
        ("openai/gsm8k config=main", "openai/gsm8k config=main"),
        ("maze size=4-6 rows=1", "maze size=4-6 rows=1"),
        ("", ""),
    ],
)
def test_a_list_shows_the_name_of_a_tasks_file_and_not_its_folders(words: str, listed: str) -> None:
    assert listed_task(words) == listed
