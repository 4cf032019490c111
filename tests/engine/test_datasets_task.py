"""Tasks of rows: TRL's formats unchanged, columns, splits, what is never trained on, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.scoring import score_group
from engine.task_changes import check_prompts
from engine.tasks import Prompt, Task, fetch, hub, load_task
from engine.tasks.dataset import PromptRows
from engine.tasks.rows import JsonLineRows
from sessions.errors import InputFileError, SessionError, UsageError
from sessions.store import Store

DIALOGUE = [{"role": "user", "content": "What color is the sky?"}]


@pytest.fixture
def rewarded() -> list[str]:
    """Words of a reward that needs no answer."""
    return ["repetition"]


def write(folder: Path, *rows: object, name: str = "rows.jsonl") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def numbered(count: int, start: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"q{i}", "answer": str(i), **more} for i in range(start, start + count)]


def every(task: Task) -> list[Prompt]:
    return [*task.prompts, *task.evaluation]


# -------------------------------------------------------------- TRL's dataset formats, as its documentation lays them


def test_prompt_only_standard(tmp_path: Path, rewarded: list[str]) -> None:
    task = load_task(write(tmp_path, {"prompt": "The sky is"}, {"prompt": "The sun is"}), 0, rewards=rewarded)
    assert [(p.text, list(p.messages), p.answer, dict(p.columns)) for p in task.prompts] == [
        ("The sky is", [], "", {}),
        ("The sun is", [], "", {}),
    ]
    assert task.evaluation == []
    assert task.judge is None
    assert any("no reference answers" in note for note in task.notes)


def test_prompt_only_conversational(tmp_path: Path, rewarded: list[str]) -> None:
    task = load_task(write(tmp_path, {"prompt": DIALOGUE}), 0, rewards=rewarded)
    assert task.prompts[0].messages == DIALOGUE
    assert task.prompts[0].text == "What color is the sky?"


def test_several_messages_are_asked_as_they_are(tmp_path: Path, rewarded: list[str]) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": [{"type": "text", "text": "What color "}, {"type": "text", "text": "is it?"}]},
    ]
    (prompt,) = load_task(write(tmp_path, {"prompt": messages}), 0, rewards=rewarded).prompts
    assert prompt.messages == [*messages[:3], {"role": "user", "content": "What color is it?"}]
    assert prompt.text == "system: Be brief.\n\nuser: Hello\n\nassistant: Hi\n\nuser: What color is it?"


def test_language_modeling_conversational_asks_what_comes_before_the_last_answer(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"What is {i} + {i}?"}, {"role": "assistant", "content": f"{2 * i}"}]}
        for i in range(3)
    ]
    task = load_task(write(tmp_path, *rows), 0)
    by_text = {p.text: p for p in every(task)}
    assert by_text["What is 2 + 2?"].messages == [{"role": "user", "content": "What is 2 + 2?"}]
    assert by_text["What is 2 + 2?"].answer == "4"


def test_messages_from_and_value(tmp_path: Path) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": f"q{i}"}, {"from": "gpt", "value": str(i)}]} for i in range(2)
    ]
    task = load_task(write(tmp_path, *rows), 0)
    assert {(p.messages[0]["role"], p.text, p.answer) for p in every(task)} == {
        ("user", "q0", "0"), ("user", "q1", "1"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}, "reward-model train"),
        ({"chosen": DIALOGUE, "rejected": DIALOGUE}, "reward-model train"),
        ({"prompt": "The sky is", "completion": " blue."}, "--warm-up"),
        ({"prompt": "The sky is", "completion": " blue.", "label": True}, "reward models"),
        ({"prompt": "Which?", "completions": ["a", "b"], "labels": [True, False]}, "judged steps"),
        ({"text": "The sky is blue."}, "say which with prompt=COLUMN"),
    ],
)
def test_formats_for_something_else(tmp_path: Path, row: object, words: str) -> None:
    with pytest.raises(InputFileError, match=words):
        load_task(write(tmp_path, row, row), 0)


def test_a_dataset_and_a_reward_function_of_trls_documentation(tmp_path: Path) -> None:
    """GRPO's own example: a column ground_truth, and a function that takes it by that name."""
    rows = [
        {"prompt": [{"role": "user", "content": f"What is 1 + {i}?"}], "ground_truth": f"{i + 1}"} for i in range(3)
    ]
    task = load_task(write(tmp_path, *rows), 0)
    seen: list[Mapping[str, Any]] = []

    def reward_func(completions: Any, ground_truth: Any, **kwargs: Any) -> list[float]:
        seen.append(kwargs)
        return [1.0 if c[0]["content"] == gt else 0.0 for c, gt in zip(completions, ground_truth, strict=True)]

    from engine.rewards import Component

    prompt = next(p for p in every(task) if p.answer == "2")
    scored = score_group({"mine": Component(reward_func)}, prompt, ["2", "3"])
    assert [s.reward for s in scored] == [1.0, 0.0]
    assert seen[0]["prompts"] == [prompt.messages] * 2


# --------------------------------------------------------------------------------------- columns and answers


def test_every_other_column_reaches_reward_functions_raw(tmp_path: Path) -> None:
    rows = [
        {"question": "a", "answer": "two\n#### 2", "level": 3, "tags": ["x"]},
        {"question": "b", "answer": "#### 1,003"},
    ]
    task = load_task(write(tmp_path, *rows), 0)
    first, second = sorted(every(task), key=lambda p: p.text)
    assert (first.answer, second.answer) == ("2", "1,003")
    assert first.columns == {"answer": "two\n#### 2", "level": 3, "tags": ["x"]}
    assert second.columns == {"answer": "#### 1,003", "level": None, "tags": None}
    assert first.id == "rows:1"
    assert second.id == "rows:2"


@pytest.mark.parametrize(
    ("answers", "name"), [(["1", "-2.5", "$1,000", "7%"], "last_number"), (["1", "blue"], "exact")]
)
def test_the_reward_follows_the_answers(tmp_path: Path, answers: Sequence[str], name: str) -> None:
    task = load_task(write(tmp_path, *({"prompt": f"q{i}", "answer": a} for i, a in enumerate(answers))), 0)
    assert list(task.components) == [name]
    assert task.judge is not None
    for prompt in every(task):
        assert task.judge(prompt, f" {prompt.answer} ")
        assert not task.judge(prompt, "neither")
        assert task.judge(prompt, f"it is {prompt.answer}") == (name == "last_number")
        scored = score_group(task.components, prompt, [prompt.answer, "neither"])
        assert [s.reward for s in scored] == [1.0, 0.0]


def test_the_built_in_rewards_compare_with_the_reference_whatever_the_column_answer_holds(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "answer": f"worked out\n#### {w}", "final": i} for i, w in enumerate(["yes", "no"])]
    task = load_task(write(tmp_path, *rows), 0)
    prompt = next(p for p in every(task) if p.text == "q0")
    assert [s.reward for s in score_group(task.components, prompt, ["yes", "no"])] == [1.0, 0.0]
    final = load_task(write(tmp_path, *rows) + " answer=final", 0)
    prompt = next(p for p in every(final) if p.text == "q1")
    assert prompt.columns["answer"] == "worked out\n#### no"
    assert [s.reward for s in score_group(final.components, prompt, ["1", "no"])] == [1.0, 0.0]


def test_without_an_answer_a_reward_has_to_be_given(tmp_path: Path, rewarded: list[str]) -> None:
    path = write(tmp_path, {"prompt": "a", "hint": 1}, {"prompt": "b", "hint": 2})
    with pytest.raises(InputFileError, match=r"no column answers \(columns: prompt, hint\).*--reward"):
        load_task(path, 0)
    assert len(load_task(path, 0, rewards=rewarded).prompts) == 2
    ragged = write(tmp_path, {"prompt": "a", "answer": "1"}, {"prompt": "b"}, {"prompt": "c"}, name="ragged.jsonl")
    with pytest.raises(InputFileError, match=r"line 2: has no value in the column answer.*--reward"):
        load_task(ragged, 0)
    assert len(load_task(ragged, 0, rewards=rewarded).prompts) == 3


def test_columns_and_a_system_message_by_options(tmp_path: Path) -> None:
    path = write(tmp_path, *({"prompt": "not this", "q": f"q{i}", "a": str(i)} for i in range(3)))
    task = load_task(f"{path} prompt=q answer=a system='Be brief.'", 0)
    prompt = next(p for p in every(task) if p.text == "q1")
    assert prompt.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q1"}]
    assert prompt.columns == {"prompt": "not this", "a": "1"}
    own = write(tmp_path, {"prompt": [{"role": "system", "content": "x"}, *DIALOGUE], "answer": "1"})
    with pytest.raises(InputFileError, match="has a system message of its own; leave system= out"):
        load_task(f"{own} system=y", 0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "line 2: column prompt is empty"),
        ("text", "line 2: column prompt holds text and that of the first row chat messages"),
        ([{"role": "user"}], r"message 1 \(user\) has no text"),
        ([{"content": "x"}], "message 1 is none"),
        (["x"], 'message 1 is none: "x"'),
        ([{"role": "user", "content": [{"type": "image"}]}], "holds more than text"),
        ([*DIALOGUE, {"role": "assistant", "content": "x"}], "ends with the assistant's message"),
        (None, "holds nothing; text or a list of chat messages is expected"),
        (True, "holds a true/false"),
    ],
)
def test_prompts_that_cannot_be_asked(tmp_path: Path, value: object, words: str) -> None:
    path = write(tmp_path, {"prompt": DIALOGUE, "answer": "1"}, {"prompt": value, "answer": "2"})
    with pytest.raises(InputFileError, match=words) as refused:
        load_task(path, 0)
    assert f"{path}, line 2" in str(refused.value)


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.csv"])
def test_empty_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(InputFileError, match="is empty; there is no row in it"):
        load_task(str(tmp_path / name), 0)


def test_too_many_columns(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="more than 1,000 columns"):
        load_task(write(tmp_path, {"prompt": "a", **{f"c{i}": i for i in range(1000)}}), 0)


# ----------------------------------------------------------------------------------- splits and repetitions


def test_a_question_is_on_one_side_only_however_often_it_is_there(tmp_path: Path) -> None:
    rows = [*numbered(40), *numbered(10), *numbered(40)]
    task = load_task(write(tmp_path, *rows), 3)
    assert len(task.prompts) == 36
    assert len(task.evaluation) == 4
    assert len({p.text for p in every(task)}) == 40
    assert "50 rows that ask a question again were left out" in task.notes


def test_rows_of_the_evaluation_split_are_not_trained_on(tmp_path: Path) -> None:
    write(tmp_path, *numbered(20), name="data/train.jsonl")
    write(tmp_path, *numbered(300, 15), name="data/test.jsonl")
    task = load_task(f"{tmp_path} evaluation_split=test", 0)
    assert {p.text for p in task.prompts} == {f"q{i}" for i in range(15)}
    assert len(task.evaluation) == 250
    assert "5 rows whose question is in the evaluation split test too were left out" in task.notes
    assert not {p.id for p in task.prompts} & {p.id for p in task.evaluation}
    assert len(load_task(f"{tmp_path} evaluation_split=test held_out=7", 0).evaluation) == 7
    with pytest.raises(UsageError, match="is what is trained on"):
        load_task(f"{tmp_path} evaluation_split=train", 0)
    with pytest.raises(InputFileError, match="no row is left to train on"):
        load_task(f"{write(tmp_path, *numbered(2))} evaluation_split={tmp_path / 'data/train.jsonl'}", 0)


def test_splits_with_other_columns(tmp_path: Path) -> None:
    train = write(tmp_path, *numbered(3))
    test = write(tmp_path, {"question": "a", "answer": "1"}, name="test.jsonl")
    with pytest.raises(InputFileError, match=r"other columns \(question/answer and prompt/answer\)"):
        load_task(f"{train} evaluation_split={test}", 0)
    free = write(tmp_path, {"prompt": "a"}, name="free.jsonl")
    with pytest.raises(InputFileError, match=r"other columns|cannot be judged"):
        load_task(f"{train} evaluation_split={free}", 0)


def test_the_held_out_rows_hang_on_the_seed(tmp_path: Path) -> None:
    path = write(tmp_path, *numbered(400))
    held = [{p.text for p in load_task(path, seed).evaluation} for seed in (0, 0, 1)]
    assert [len(h) for h in held] == [32, 32, 32]
    assert held[0] == held[1] != held[2]
    assert len(load_task(f"{path} held_out=5", 0).evaluation) == 5


def test_the_same_rows_are_the_same_task_in_every_kind_of_file(tmp_path: Path) -> None:
    rows = numbered(30)
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "t.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "t.csv").write_text("prompt,answer\n" + "".join(f"{r['prompt']},{r['answer']}\n" for r in rows))
    write(tmp_path, *rows, name="t.jsonl")
    made = [load_task(str(tmp_path / f"t{end}"), 5) for end in (".jsonl", ".json", ".csv", ".parquet")]
    for task in made[1:]:
        assert list(task.prompts) == list(made[0].prompts)
        assert list(task.evaluation) == list(made[0].evaluation)
    assert made[0].prompts[2:4] == [made[0].prompts[2], made[0].prompts[3]]


def test_prompts_are_taken_from_rows_as_from_a_list(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, *numbered(30)), 0)
    plain = Task("", list(task.prompts), [], {}, (0.0, 1.0), None)
    assert task.take(7, 20, 20) == plain.take(7, 20, 20)


# ------------------------------------------------------------------------------------------------- gsm8k


def test_gsm8k(tmp_path: Path) -> None:
    rows = [{"question": f"How many, {i}?", "answer": f"It is <<1+1=2>>\n#### {i},000"} for i in range(20)]
    task = load_task(f"gsm8k path={write(tmp_path, *rows)} system='Think.'", 0)
    assert task.prompts[0].answer.endswith(",000")
    assert task.prompts[0].messages[0] == {"role": "system", "content": "Think."}
    assert list(task.components) == ["last_number"]
    assert task.judge is not None
    assert task.judge(task.prompts[0], f"so {task.prompts[0].answer.replace(',', '')}.00")
    for row, words in [
        ({"question": "a", "answer": "no number"}, "line 21: no number after ####"),
        ({"question": "a"}, "line 21: has no value in the column answer"),
        ({"prompt": "a", "answer": "1"}, "line 21: has no column question"),
    ]:
        with pytest.raises(InputFileError, match=words):
            load_task(f"gsm8k path={write(tmp_path, *rows, row)}", 0)
    with pytest.raises(InputFileError, match="there is no such file"):
        load_task(f"gsm8k path={tmp_path}/none.jsonl", 0)


# --------------------------------------------------------------------------------- the package datasets


def test_folders_that_save_to_disk_wrote(tmp_path: Path) -> None:
    train, test = (datasets.Dataset.from_list(rows) for rows in (numbered(20), numbered(9, 18)))
    train.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "two")
    one = load_task(str(tmp_path / "one"), 0)
    assert {p.text for p in every(one)} == {f"q{i}" for i in range(20)}
    two = load_task(f"{tmp_path / 'two'} evaluation_split=test", 0)
    assert {p.text for p in two.prompts} == {f"q{i}" for i in range(18)}
    assert len(two.evaluation) == 9
    again = load_task(f"{tmp_path / 'two'} evaluation_split=test", 0)
    assert (again.fingerprint, again.fingerprint != one.fingerprint) == (two.fingerprint, True)
    with pytest.raises(InputFileError, match="no split 'dev' in it; there are: train, test"):
        load_task(f"{tmp_path / 'two'} split=dev", 0)
    with pytest.raises(InputFileError, match="has no splits"):
        load_task(f"{tmp_path / 'one'} split=test", 0)
    (tmp_path / "two" / "dataset_dict.json").write_text("{")
    with pytest.raises(InputFileError, match="cannot be read as a saved dataset"):
        load_task(str(tmp_path / "two"), 0)


def test_datasets_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None, *, split: str) -> datasets.Dataset:
        asked.append((name, config, split))
        return datasets.Dataset.from_list(numbered(20) if split == "train" else numbered(5, 100))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = load_task("openai/gsm8k config=main evaluation_split=test", 0)
    assert asked == [("openai/gsm8k", "main", "train"), ("openai/gsm8k", "main", "test")]
    assert (task.name, len(task.prompts), len(task.evaluation)) == ("gsm8k", 20, 5)
    assert task.prompts[0].id == "gsm8k:1"
    assert load_task("a/b", 0).name == "b"
    assert asked[-1] == ("a/b", None, "train")


def test_datasets_of_the_hub_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets.exceptions import DatasetNotFoundError

    def failing(error: Exception) -> str:
        def load_dataset(*_: object, **__: object) -> object:
            raise error

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        with pytest.raises(UsageError) as refused:
            load_task("org/none", 0)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    assert "there is no such dataset" in failing(DatasetNotFoundError("Dataset 'org/none' doesn't exist"))
    assert "it is gated" in failing(DatasetNotFoundError("Dataset 'org/none' is a gated dataset on the Hub"))
    assert "cannot be reached" in failing(ConnectionError("no route\nto host"))
    assert "config=(none) split=train" in failing(ValueError("Config name is missing. Please pick one: ['main']"))
    assert "cannot be loaded (KeyError: 'x')" in failing(KeyError("x"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("WORKBENCH_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE keeps it from being fetched" in failing(ConnectionError("Couldn't reach the Hub"))


def test_prompts_are_found_by_name_without_reading_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(write(tmp_path, *numbered(30)))
    path.write_text("\n\n" + path.read_text())  # rows are named by their lines
    prompts = load_task(str(path), 0).prompts
    assert isinstance(prompts, PromptRows)
    wanted = {prompts[3].id: prompts[3], prompts[-1].id: prompts[-1]}
    read: list[int] = []
    row = JsonLineRows.__getitem__

    def counted(rows: JsonLineRows, index: int) -> Any:
        read.append(index)
        return row(rows, index)

    monkeypatch.setattr(JsonLineRows, "__getitem__", counted)
    assert prompts.named({*wanted, "rows:99"}) == wanted
    assert len(read) == 2


def test_what_the_cache_has_not_is_fetched_by_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is off the network; the person's own environment says whether the other process may use it."""
    cached: list[str] = []
    seen: list[tuple[list[str], str]] = []
    answer = ['{"error": ""}']

    def load_dataset(name: str, config: object, *, split: str) -> datasets.Dataset:
        if name not in cached:
            raise ConnectionError("offline")
        return datasets.Dataset.from_list(numbered(20))

    def start(command: list[str], *, env: dict[str, str], **how: Any) -> subprocess.Popen[str]:
        seen.append((command[4:], env["HF_HUB_OFFLINE"]))
        cached.append(command[4])
        return popen(["printf", "some words\n%s\n", answer[0]], env=env, **how)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WORKBENCH_HUB_OFFLINE", "")
    assert len(load_task("org/it config=main", 0).prompts) == 18
    assert len(load_task("org/it config=main", 0).prompts) == 18
    assert seen == [(["org/it", "main", "train"], "")]
    answer[0] = '{"error": "it is gated: ask"}'
    with pytest.raises(UsageError, match="task org/other: it is gated: ask"):
        load_task("org/other", 0)
    answer[0] = "Killed"
    with pytest.raises(UsageError, match="the download ended with code 0"):
        load_task("org/third", 0)


def test_a_download_says_that_it_goes_on_and_is_ended_by_whoever_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError("offline")

    def start(command: list[str], **how: Any) -> subprocess.Popen[str]:
        started.append(popen(["sleep", "1000"], **how))
        return started[0]

    def tell(text: str) -> None:
        told.append(text)
        if len(told) == 3:
            raise SessionError("stopped")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(hub, "SECONDS", 0.02)
    monkeypatch.setenv("WORKBENCH_HUB_OFFLINE", "")
    with pytest.raises(SessionError, match="stopped"):
        load_task("org/it", 0, tell=tell)
    assert [text.partition(":")[0] for text in told] == ["fetching org/it from the hub"] * 3
    assert started[0].returncode == -signal.SIGKILL


def test_the_process_that_fetches_says_why_it_could_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    assert fetch.main("org/it", "", "train") == 1
    assert json.loads(capsys.readouterr().out) == {"error": "cannot be loaded (KeyError: 'x')"}


# -------------------------------------------------------------------------------------- a changed file


def test_a_session_does_not_go_on_with_other_rows(tmp_path: Path) -> None:
    path = Path(write(tmp_path, *numbered(20)))
    store = Store(tmp_path / "session.db")
    try:
        check_prompts(store, load_task(str(path), 0))
        path.write_text(path.read_text())  # another time, the same rows
        check_prompts(store, load_task(str(path), 0))
        path.write_text(path.read_text().replace('"answer": "3"', '"answer": "4"'))
        with pytest.raises(UsageError, match="its rows are not those that this session was started with"):
            check_prompts(store, load_task(str(path), 0))
        check_prompts(store, load_task("arithmetic", 0))
    finally:
        store.close()
