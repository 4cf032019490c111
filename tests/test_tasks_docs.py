"""The page about the built-in tasks shows the screen as it is, and names the options and components that there are."""

from __future__ import annotations

import os
import re
from pathlib import Path

from engine.tasks import load_task
from sessions.task_kinds import TASK_KINDS, check_task_spec
from tests.screens.frames import GOLDEN, UPDATE

PAGE = Path(__file__).parents[1] / "docs" / "tasks-built-in.md"
_FRAME = re.compile(r"<!-- frame: (\S+) -->\n```\n(.*?)```\n", re.DOTALL)


def written(text: str) -> str:
    """The page with the frames as they are now."""
    return _FRAME.sub(
        lambda match: f"<!-- frame: {match[1]} -->\n```\n{(GOLDEN / f'{match[1]}.txt').read_text('utf-8')}```\n", text
    )


def test_the_page_shows_the_screen_as_it_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(_FRAME.findall(text)) == 1
    if os.environ.get(UPDATE):
        PAGE.write_text(written(text), encoding="utf-8")
        text = written(text)
    assert text == written(text), f"look at it, then {UPDATE}=1"


def test_its_commands_options_and_components_are_the_tasks() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for words in re.findall(r'--task "(.+?)"', text):
        assert check_task_spec(words) == words
    options = re.findall(r"^\| `(\w+)=(\S+)` \|", text, re.MULTILINE)
    assert dict(options) == {option.name: str(option.default).lower() for option in TASK_KINDS["maze"].options}
    components = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE)
    task = load_task("maze", 0)
    assert {name: float(weight) for name, weight in components} == {n: c.weight for n, c in task.components.items()}


def test_its_questions_are_answered_as_the_task_does() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| `(\S+)=`.*? \| `(\d+)` \|", text, re.MULTILINE)
    assert [int(level) for level, _, _ in rows] == [1, 2, 3, 4, 5, 6]
    for level, problem, answer in rows:
        assert eval(problem, {}) == int(answer)
        assert set(problem) <= set("0123456789+-*")
        assert load_task(f"arithmetic levels={level}", 0).prompts
