"""Rewards by their words, checked without running anybody's code."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessions.errors import InvalidValue, UsageError
from sessions.reward_files import LONGEST_SOURCE, check_reward_file
from sessions.reward_kinds import check_rewards, has_modules, range_of, read_rewards

DEFINES = {
    "def": "def f(completions): ...",
    "async": "async def f(completions): ...",
    "assigned": "f = object()",
    "unpacked": "f, g = 1, 2",
    "annotated": "f: int = 3",
    "imported": "from os import path as f",
    "module": "import f.g",
    "in a branch": "try:\n    import x\nexcept ImportError:\n    def f(): ...\nelse:\n    pass",
    "in else": "if 1:\n    pass\nelse:\n    class f: ...",
    "in with": "with open('x') as f:\n    pass",
    "star": "from os.path import *",
    "by name": "for n in 'fg':\n    globals()[n] = n",
    "executed": "exec('f = 1')",
    "on demand": "def __getattr__(name): return len",
    "with an encoding": "# -*- coding: latin-1 -*-\n# \xe4\ndef f(): ...",
}


@pytest.mark.parametrize("source", DEFINES.values(), ids=DEFINES)
def test_what_a_file_may_define_is_not_refused(tmp_path: Path, source: str) -> None:
    path = tmp_path / "r.py"
    path.write_bytes(source.encode("latin-1"))
    check_reward_file(path, "f")
    check_reward_file(path, "f.method")


@pytest.mark.parametrize("source", ["def g():\n    def f(): ...", "class A:\n    f = 1", "print('f')", "f.x = 1", ""])
def test_what_a_file_does_not_define_is_refused(tmp_path: Path, source: str) -> None:
    path = tmp_path / "r.py"
    path.write_text(source)
    with pytest.raises(UsageError, match=rf"reward {path}: defines no f; it has "):
        check_reward_file(path, "f")


def test_the_nearest_name_is_offered(tmp_path: Path) -> None:
    path = tmp_path / "r.py"
    path.write_text("def accuracy_reward(completions): ...\n")
    with pytest.raises(UsageError, match="did you mean accuracy_reward"):
        check_reward_file(path, "acuracy_reward")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x = 1\ndef f(:\n", ":2: invalid syntax"),
        (b"def f():\n  x\n    y\n", ":3: unexpected indent"),
        (b"\xff\xfe", ": is not text in the encoding that it should have"),
        (b"# coding: nonsense\n", ": is not text in the encoding that it should have"),
        (b"f = '\0'\n", ""),
        (b"(" * 5000, ":1: "),
        (b"x" * (LONGEST_SOURCE + 1), ": more than 8,388,608 bytes"),
    ],
    ids=["syntax", "indent", "bytes", "coding", "null", "nested", "long"],
)
def test_a_file_that_is_no_python_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "r.py"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        check_reward_file(path, "f")
    assert str(caught.value).startswith(f"reward {path}{message}")
    assert "\n" not in str(caught.value)


def test_paths_become_absolute_and_options_stay(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my r.py").write_text("def f(completions): ...\n")
    monkeypatch.chdir(tmp_path)
    assert check_rewards(["task", "'my r.py:f' weight=.5", "pkg.mod:f name=g"]) == [
        "task",
        f"'{tmp_path}/my r.py:f' weight=0.5",
        "pkg.mod:f name=g",
    ]
    assert has_modules(["task", "pkg.mod:f"])
    assert not has_modules(["task", "exact"])
    with pytest.raises(UsageError, match=r"reward nowhere.py:f: no such file"):
        check_rewards(["nowhere.py:f"])


@pytest.mark.parametrize("name", ["mean", "automatic", "reward_model", "overlong", "length_correlation"])
def test_a_component_does_not_take_the_name_of_another_metric(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is the name of something else; add name="):
        read_rewards([f"pkg.mod:{name}"])
    assert read_rewards([f"pkg.mod:{name} name=mine"])[0].name == "mine"


def test_two_rewards_need_two_names() -> None:
    with pytest.raises(UsageError, match="there is another component f; add name="):
        read_rewards(["a:f", "b:f"])


@pytest.mark.parametrize(
    ("words", "bounds"),
    [
        (["exact"], (0.0, 1.0)),
        (["exact", "length target=4 weight=0.5"], (-0.5, 1.0)),
        (["task", "repetition penalty=-2"], (-3.0, 3.0)),
        (["regex pattern=x value=-1 otherwise=2 weight=-1"], (-2.0, 1.0)),
        (["cosine limit=9 correct=exact"], (-1.0, 1.0)),
        (["json partial=-0.5"], (-0.5, 1.0)),
        (["m:f low=-3 high=5 weight=2"], (-6.0, 10.0)),
        (["m:f", "exact weight=0"], (0.0, 1.0)),
        (["exact weight=0"], (-1.0, 3.0)),
    ],
)
def test_the_range_of_the_whole_reward_is_that_of_its_weighted_parts(
    words: list[str], bounds: tuple[float, float]
) -> None:
    assert range_of(read_rewards(words), (-1.0, 3.0)) == bounds


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"low=2.0 is not below high=1.0"):
        read_rewards(["m:f low=2"])
