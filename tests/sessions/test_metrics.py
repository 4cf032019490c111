"""The table of metrics: what a person is told about each."""

from __future__ import annotations

import pytest

from sessions.metrics import METRICS, metric

WATCHED = (
    "reward/mean", "reward/std", "groups/dead_fraction", "advantage/mean", "advantage/abs_max", "kl/k1", "kl/k3",
    "kl/old_new", "entropy", "clip/low", "clip/high", "ratio/max", "ratio/first_error", "sampler_gap/mean", "grad/norm",
    "update/relative_size", "response/length", "response/truncated_fraction", "reward/length_correlation",
    "eval/accuracy", "value/explained_variance", "value/loss", "value/clip_fraction", "trpo/step_fraction",
    "trpo/cg_residual", "trpo/kl_realised", "trpo/gain_ratio",
)  # fmt: skip


@pytest.mark.parametrize("name", WATCHED)
def test_what_experts_watch_has_a_healthy_range(name: str) -> None:
    assert METRICS[name].healthy


def test_the_loss_says_why_it_is_about_zero() -> None:
    told = METRICS["loss/policy"].formula + METRICS["loss/policy"].healthy
    assert "one optimizer step" in told
    assert "sum to 0" in told
    assert "gradient is not 0" in told


def test_a_component_is_a_metric_without_a_row_of_its_own() -> None:
    assert metric("reward/overlong").title == "overlong"
    assert metric("no/such").formula == "no/such"
