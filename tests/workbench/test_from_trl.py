"""The table of TRL's names: complete, and every name of ours is one.

``tests/data/trl_fields.json`` holds the fields of TRL's own classes; ``tests/peers`` compares it with them.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sessions.hyperparameters import HYPERPARAMETERS, check_together, defaults, parse_assignment
from sessions.metrics import METRICS
from workbench import from_trl
from workbench.cli import parser
from workbench.from_trl import ARGUMENTS, COMMON, GRPO, METRIC_NAMES, PPO, WITHOUT, Row, fields_without

FIELDS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "trl_fields.json").read_text())
PAGE = Path(__file__).parents[2] / "docs" / "from-trl.md"
OWN = {"grpo": GRPO, "ppo": PPO}


def options_of_run() -> set[str]:
    commands = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {option for action in commands.choices["run"]._actions for option in action.option_strings}


@pytest.mark.parametrize("kind", OWN)
def test_every_field_of_trls_configuration_is_in_the_table(kind: str) -> None:
    known = {row.theirs for row in (*COMMON, *OWN[kind])} | fields_without()
    assert set(FIELDS[kind]["fields"]) <= known


def test_no_field_is_in_the_table_that_trl_has_not() -> None:
    everything = {name for side in FIELDS.values() for name in side["fields"]}
    assert {row.theirs for row in (*COMMON, *GRPO, *PPO)} | fields_without() <= everything
    assert not fields_without() & {row.theirs for row in (*COMMON, *GRPO, *PPO)}
    listed = [name for names in WITHOUT.values() for name in names.split()]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("kind", OWN)
def test_the_defaults_stated_are_trls(kind: str) -> None:
    for row in (*COMMON, *OWN[kind]):
        if row.default and row.theirs in FIELDS[kind]["fields"]:
            assert str(FIELDS[kind]["fields"][row.theirs]) == row.default, row.theirs


@pytest.mark.parametrize("row", [*ARGUMENTS, *COMMON, *GRPO, *PPO], ids=lambda row: row.theirs)
def test_every_name_of_ours_is_a_hyperparameter_or_an_option(row: Row) -> None:
    options = options_of_run()
    for name in row.ours:
        assert name in options if name.startswith("--") else name in HYPERPARAMETERS
    for name in re.findall(r"`(--[a-z-]+)", row.words):
        assert name in options | {"--to", "--best", "--json", "--set"}
    assert row.ours or row.words or row.theirs in {"log_unique_prompts", "stop_token_id"}


@pytest.mark.parametrize("row", METRIC_NAMES, ids=lambda row: row.theirs)
def test_every_metric_of_ours_is_one(row: Row) -> None:
    assert all(name in METRICS for name in row.ours)


@pytest.mark.parametrize("row", [*COMMON, *GRPO, *PPO], ids=lambda row: row.theirs)
def test_a_default_of_ours_that_is_stated_first_is_the_definitions(row: Row) -> None:
    stated = re.match(r"(\d[\d.e-]*)\b", row.words)
    if stated and len(row.ours) == 1 and row.ours[0] in HYPERPARAMETERS:
        assert float(stated[1]) == HYPERPARAMETERS[row.ours[0]].default


def test_the_values_that_make_trls_defaults_are_valid_together() -> None:
    texts = re.findall(r"--set (\S+=\S+)", next(line for line in PAGE.read_text().splitlines() if "loss_agg" in line))
    given = {a.name: a.value for a in map(parse_assignment, texts)}
    assert given == from_trl.GRPO_DEFAULTS
    check_together(defaults(given))
    fields = FIELDS["grpo"]["fields"]
    assert given["kl_coefficient"] == float(fields["beta"])
    assert given["max_new_tokens"] == int(fields["max_completion_length"])
