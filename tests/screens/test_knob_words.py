"""A knob in words: ranges that fit their column, and what the help says."""

from __future__ import annotations

import pytest

from screens.knob_words import bound, knob_lines, range_cell
from sessions.hyperparameters import HYPERPARAMETERS, defaults

NARROW_ROOM = 9
"""Cells of the range at 80 columns."""


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_every_range_fits_in_80_columns(name: str) -> None:
    knob = HYPERPARAMETERS[name]
    assert len(range_cell(knob, NARROW_ROOM)) <= NARROW_ROOM
    assert range_cell(knob, 80) == knob.range_text


@pytest.mark.parametrize(
    ("name", "text"),
    [("max_new_tokens", "1 .. 131k"), ("kl_target", "none..100"), ("algorithm", "3 choices"), ("adam_beta2", "0..<1"),
     ("max_grad_norm", "1e-6..1M"), ("temperature", "0.05 .. 5")],
)  # fmt: skip
def test_the_short_form_keeps_the_bounds(name: str, text: str) -> None:
    assert range_cell(HYPERPARAMETERS[name], NARROW_ROOM) == text


def test_bounds() -> None:
    assert [bound(x) for x in (0.0, 131_072, 1e6, 4096, 1e-9, 86_400, -1e6)] == [
        "0", "131k", "1M", "4096", "1e-9", "86.4k", "-1e6"
    ]  # fmt: skip


def test_the_help_of_a_knob_teaches() -> None:
    text = "\n".join(knob_lines(HYPERPARAMETERS["kl_coefficient"], defaults(), 0.04, "grpo"))
    for part in ("(beta)", "Weight of the divergence", "healthy: 0 to 0.1", "now 0.04", "started with 0.04",
                 "0.05 with algorithm ppo", "allowed 0 .. 100", "next minibatch (update with kl_placement reward)",
                 "read by every algorithm"):  # fmt: skip
        assert part in text


def test_the_help_says_when_the_running_algorithm_does_not_read_it() -> None:
    text = "\n".join(knob_lines(HYPERPARAMETERS["gamma"], defaults({"algorithm": "trpo"}), None, "trpo"))
    assert "read by ppo, trpo with baseline value; trpo, which runs, does not read it now" in text
