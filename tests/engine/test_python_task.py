"""A task in a person's own Python file, and everything that can be wrong with one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.rewards import Component
from engine.tasks import Prompt, Task, load_task, python
from sessions.errors import UsageError

DOCS = Path(__file__).parents[2] / "docs" / "tasks.md"
HEAD = """
from engine.rewards import Component
from engine.tasks import Prompt, Task
def zero(prompts, completions, **columns):
    return [0.0] * len(completions)
def task(n=4, **changes):
    prompts = [Prompt(f"p{i}", f"question {i}", str(i)) for i in range(n)]
    given = dict(name="mine", prompts=prompts[1:], evaluation=prompts[:1], components={"zero": Component(zero)},
                 reward_range=(0.0, 1.0), judge=lambda prompt, text: text == prompt.answer)
    return Task(**{**given, **changes})
"""


def file(folder: Path, body: str) -> str:
    path = folder / "own.py"
    path.write_text(HEAD + body)
    return f"{path}:make"


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(# countdown.py.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "countdown.py").write_text(code)
    task = load_task(f"{tmp_path}/countdown.py:make", 0)
    assert len(task.prompts) > 100
    assert not {p.text for p in task.prompts} & {p.text for p in task.evaluation}
    assert task.judge is not None
    prompt = task.prompts[0]
    assert task.judge(prompt, prompt.answer)
    assert not task.judge(prompt, prompt.answer + "0")
    assert len(load_task(f"{tmp_path}/countdown.py:make numbers=20", 0).prompts) < len(task.prompts)


def test_a_function_makes_the_task(tmp_path: Path) -> None:
    task = load_task(file(tmp_path, "make = task"), 0)
    assert (task.name, len(task.prompts), len(task.evaluation)) == ("mine", 3, 1)
    assert task.fingerprint == load_task(file(tmp_path, "make = task"), 0).fingerprint != ""
    assert load_task(file(tmp_path, "def make(): return task(5)"), 0).fingerprint != task.fingerprint


def test_options_and_the_seed_are_its_arguments(tmp_path: Path) -> None:
    body = """
def make(n: int, flag: bool = False, seed: int = 0):
    assert isinstance(n, int) and flag is True and seed == 7
    return task(n)
"""
    use = file(tmp_path, body)
    assert len(load_task(f"{use} n=9 flag=true", 7).prompts) == 8
    for words, said in [
        ("flag=true", "its function wants n; add n="),
        ("n=many", "n 'many' is not"),
        ("n=9 m=3", "unknown option .*'m'"),
    ]:
        with pytest.raises(UsageError, match=said):
            load_task(f"{use} {words}", 7)


def test_held_out_takes_the_first_of_its_evaluation(tmp_path: Path) -> None:
    use = file(tmp_path, "def make(): t = task(9); return task(9, prompts=t.prompts[4:], evaluation=t.prompts[:4])")
    assert len(load_task(f"{use} held_out=2", 0).evaluation) == 2
    assert len(load_task(use, 0, evaluation_rows=3).evaluation) == 3
    assert len(load_task(use, 0).evaluation) == 4


def test_prompts_that_are_held_out_are_not_trained_on(tmp_path: Path) -> None:
    body = "def make(): t = task(9); e = [Prompt('e', t.prompts[0].text, '')]; return task(9, evaluation=e)"
    task = load_task(file(tmp_path, body), 0)
    assert len(task.prompts) == 7
    assert task.notes == ("1 prompts that are in the evaluation set too left out",)


def test_files_beside_it_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    (tmp_path / "beside_the_task.py").write_text("N = 6\n")
    use = file(tmp_path, "import beside_the_task\ndef make(): return task(beside_the_task.N)")
    assert len(load_task(use, 0).prompts) == 5


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def make(:", r"own.py, line 11: invalid syntax"),
        ("import nothing_of_that_name", "line 11: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("x = 1", "there is no function make in it"),
        ("make = 3", "there is no function make in it"),
        ("def make(): return 1 / 0", "own.py, line 11: ZeroDivisionError: division by zero"),
        ("def make(): raise SystemExit(3)", "line 11: SystemExit: 3"),
        ("def make(): raise KeyError('a\\nb')", "KeyError"),
        ("def make(): return None", "its function returned NoneType; an engine.tasks.Task is expected"),
        ("def make(): return task(prompts='abc')", "prompts holds str; engine.tasks.Prompt is expected"),
        ("def make(): return task(prompts=3)", "prompts is int; a list of Prompt is expected"),
        ("def make(): return task(prompts=[])", "it has no prompts"),
        ("def make(): return task(prompts=[Prompt('a', ' ', '')])", "prompt 'a' has no text"),
        ("def make(): return task(prompts=[Prompt('a', 'a', 3)])", "id and answer of prompt 'a' should be text"),
        ("def make(): return task(prompts=[Prompt('a', 'a', '')] * 2)", "the id 'a' is there twice"),
        ("def make(): return task(components={'a': zero})", r"should map names to Component\(function\)"),
        ("def make(): return task(components={})", "it has no components; give it some, or --reward"),
        ("def make(): return task(judge=3)", "judge is no function"),
        ("def make(): return task(judge=None)", "an evaluation set and no judge"),
        ("def make(): return task(reward_range=(1, 1))", r"reward_range \(1, 1\) should be \(low, high\)"),
        ("def make(): return task(reward_range=(0, float('inf')))", r"reward_range \(0, inf\) should be \(low, high\)"),
        ("def make(): t = task(); return task(evaluation=t.prompts + t.evaluation)", "the id 'p1' is there twice"),
        (
            "def make(): t = task(); return task(evaluation=[Prompt('e' + p.id, p.text, '') for p in t.prompts])",
            "every prompt is in the evaluation set too",
        ),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        load_task(file(tmp_path, body), 0)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_one_name_there_twice_among_many_is_found_without_comparing_each_with_all() -> None:
    compared = 0

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    prompts = [Prompt(Name(f"p{i}"), f"question {i}", "") for i in (*range(999), 998)]
    made = Task("mine", prompts, [], {"zero": Component(lambda **_: [0.0])}, (0.0, 1.0), None)
    with pytest.raises(UsageError, match="the id 'p998' is there twice"):
        python._checked(made, "own.py:make", 0)
    assert compared < 10 * len(prompts)


def test_a_function_that_does_not_return_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "SECONDS", 0.2)
    body = "import threading\nhold = threading.Event()\ndef make(): hold.wait(20)"
    with pytest.raises(UsageError, match=r"has not been made in 0.2 s"):
        load_task(file(tmp_path, body), 0)


def test_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a_package_of_mine.py").write_text(HEAD + "make = task")
    assert load_task("a_package_of_mine:make", 0).name == "mine"
    with pytest.raises(UsageError, match="there is no module no_package_of_mine"):
        load_task("no_package_of_mine.tasks:make", 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("components={'mean': Component(zero)}", "components: mean is the name of something else"),
        ("components={'reward_model': Component(zero)}", "components: reward_model is the name of something else"),
        ("components={'a b': Component(zero)}", "components: 'a b' cannot be the name of one"),
        ("components={1: Component(zero)}", "components: 1 cannot be the name of one"),
        ("components={'x': Component(zero, 'a')}", "the weight of x is str; a number is expected"),
        ("reward_range=None", "reward_range None should be"),
        ("reward_range=(0, 1, 2)", r"reward_range \(0, 1, 2\) should be"),
        ("reward_range='ab'", "reward_range 'ab' should be"),
        ("name=3", "its name is 3; text is expected"),
        ("prompts=[Prompt('p', 'q', '', columns=3)]", "columns of prompt 'p' is no dict"),
        ("prompts=[Prompt('p', 'q', '', messages=[1])]", "messages of prompt 'p' should each have role and content"),
        ("prompts=[Prompt('p', 'q', '', messages=[{'role': 'user'}])]", "should each have role and content"),
    ],
)
def test_parts_of_the_wrong_kind_are_named(tmp_path: Path, changes: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_task(file(tmp_path, f"make = lambda: task({changes})"), 0)
