"""``workbench rewards``: what is built in, as the table says it."""

from __future__ import annotations

import json
import re

import pytest

from sessions.errors import UsageError
from sessions.reward_kinds import REWARD_KINDS, reward_kind
from sessions.specs import Spec
from workbench.cli import main
from workbench.reference import PAGES


def test_every_reward_is_listed_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewards"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["reward", "options", "what", "it", "is"]
    assert [line.split()[0] for line in lines] == list(REWARD_KINDS)
    (length,) = [line for line in lines if line.startswith("length ")]
    assert length.split("  ", 1)[1].strip().startswith("target limit shape unit  ")


def test_one_reward_is_explained_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewards", "json"]) == 0
    said = capsys.readouterr().out
    assert 'workbench run --reward "json part=fence keys=name,age"' in said
    for option in REWARD_KINDS["json"].options:
        (line,) = [line for line in said.splitlines() if line.startswith(f"{option.name} ")]
        assert option.help in line
    assert main(["rewards", "math"]) == 0
    assert "pip install 'rl-workbench[math]'" in capsys.readouterr().out


def test_json_has_a_line_for_each_reward(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewards", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == list(REWARD_KINDS)
    assert main(["rewards", "regex", "--json"]) == 0
    (one,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    options = {option["name"]: option for option in one["options"]}
    assert options["pattern"]["needed"]
    assert options["value"] == {
        "name": "value", "kind": "number", "default": 1.0, "needed": False, "help": "when it matches",
        "allowed": "numbers from -1e+06 to 1e+06",
    }  # fmt: skip


def test_an_unknown_reward_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewards", "lenght"]) == 2
    assert "unknown reward 'lenght'; did you mean length?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("rewards.py", "reward rewards.py: which function of that file? rewards.py:FUNCTION"),
        ("here/my rewards.py:", "which function of that file? here/my rewards.py:FUNCTION"),
        ("package.rewards.accuracy", "has a colon before its name: package.rewards:accuracy"),
        ("accuracy", "unknown reward 'accuracy'; known: "),
    ],
)
def test_a_reward_that_names_no_function_is_refused_with_the_form(given: str, remedy: str) -> None:
    with pytest.raises(UsageError, match=re.escape(remedy)):
        reward_kind(Spec(given))


def test_the_page_has_a_section_with_an_example_for_each_and_names_trls_counterparts() -> None:
    text = PAGES["rewards-built-in.md"]()
    for kind in REWARD_KINDS.values():
        if kind.options:
            assert f"\n## {kind.name}\n" in text
            assert f'workbench run --reward "{kind.example}"' in text
    for name in ("accuracy_reward", "reasoning_accuracy_reward", "get_cosine_scaled_reward", "think_format_reward",
                 "get_repetition_penalty_reward", "get_soft_overlong_punishment"):  # fmt: skip
        assert name in text
