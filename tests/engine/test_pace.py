"""Costs fitted to steps, and peaks to what is counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.pace import SCALE, calibrate, fit


def steps(count: int, seed: int = 0) -> np.ndarray:
    """Work of steps that differ in every kind."""
    return np.random.default_rng(seed).uniform([50, 500, 1], [200, 9000, 8], (count, 3))


PLANTED = np.array([2e-3, 4e-5, 3e-2])


def test_planted_costs_are_recovered_whatever_was_guessed() -> None:
    work = steps(20)
    seconds = work @ PLANTED * np.random.default_rng(1).normal(1, 0.01, 20)
    fitted = fit(work.tolist(), seconds.tolist(), (PLANTED * [2.0, 0.5, 1.7]).tolist())
    assert fitted.costs == pytest.approx(PLANTED, rel=0.15)
    other = [100.0, 20_000.0, 16.0]
    assert fitted.seconds(other) == pytest.approx(other @ PLANTED, rel=0.05)


def test_steps_that_something_disturbed_hardly_count() -> None:
    work = steps(20)
    seconds = work @ PLANTED
    seconds[[3, 11, 12]] *= 4
    fitted = fit(work.tolist(), seconds.tolist(), (PLANTED * [1.5, 0.8, 1.2]).tolist())
    assert fitted.seconds(work[0]) == pytest.approx(seconds[0], rel=0.1)


def test_what_alike_steps_leave_open_follows_the_guess_and_widens_the_range() -> None:
    work = [[100.0, 1000.0]] * 10
    seconds = [0.2, 0.201, 0.199, 0.2, 0.2, 0.202, 0.198, 0.2, 0.2, 0.2]
    fitted = fit(work, seconds, [1.0, 0.1])  # half of it each
    assert fitted.seconds([100.0, 1000.0]) == pytest.approx(0.2, rel=0.01)
    assert fitted.seconds([100.0, 2000.0]) == pytest.approx(0.3, rel=0.02)
    relative = fitted.spread([100.0, 2000.0]) / fitted.seconds([100.0, 2000.0])
    assert relative > 3 * fitted.spread([100.0, 1000.0]) / fitted.seconds([100.0, 1000.0])


def test_the_range_holds_nine_steps_in_ten() -> None:
    rng = np.random.default_rng(2)
    held = []
    for seed in range(60):
        work = steps(20, seed)
        costs = PLANTED * np.exp(rng.normal(0, 0.5, 3))
        seconds = work @ costs * rng.normal(1, 0.08, 20)
        fitted = fit(work.tolist(), seconds.tolist(), PLANTED.tolist())
        other = steps(1, seed + 1000)[0] * 2
        took = other @ costs * rng.normal(1, 0.08)
        held.append(abs(took - fitted.seconds(other)) <= 1.645 * fitted.spread(other))
    assert 0.8 <= np.mean(held) <= 0.99


def test_one_step_is_enough_for_another_like_it() -> None:
    fitted = fit([[10.0, 100.0]], [0.5], [1.0, 1.0])
    assert fitted.seconds([10.0, 100.0]) == pytest.approx(0.5, rel=1e-3)
    assert fit([[10.0, 100.0]], [0.0], [1.0, 1.0]).seconds([10.0, 100.0]) == 0


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(1, 1000), st.floats(1e-3, 10)), min_size=1, max_size=8),
    st.tuples(st.floats(0, 100), st.floats(0, 1000)),
    st.tuples(st.floats(0, 100), st.floats(0, 1000)),
)
def test_more_work_never_takes_less(
    seen: list[tuple[float, float, float]], some: tuple[float, float], more: tuple[float, float]
) -> None:
    fitted = fit([s[:2] for s in seen], [s[2] for s in seen], [1e-2, 1e-3])
    assert (fitted.costs >= 0).all()
    assert fitted.seconds([a + b for a, b in zip(some, more, strict=True)]) >= fitted.seconds(some) - 1e-12
    assert np.isfinite(fitted.spread(some))


def test_peaks_tell_the_process_from_what_comes_and_goes() -> None:
    peaks = [(2e9, t, 0.5e9 + 2e9 + 1.3 * t) for t in (0.5e9, 1e9, 4e9, 8e9)]
    found = calibrate(peaks, 0.4e9, base_doubt=0.15e9)
    assert found.scale == pytest.approx(1.3, rel=0.05)
    assert found.base == pytest.approx(0.5e9, abs=0.12e9)
    assert found.measured == 4


def test_one_peak_is_met_and_moves_what_is_less_certain() -> None:
    """The transient is small beside the doubt in the process: the process takes the difference."""
    found = calibrate([(1e9, 0.05e9, 1.56e9)], 0.4e9, base_doubt=0.15e9)
    assert found.base + 1e9 + found.scale * 0.05e9 == pytest.approx(1.56e9, rel=0.02)
    assert found.scale == pytest.approx(SCALE, abs=0.03)
    assert calibrate([], 0.4e9, base_doubt=1.0).base == 0.4e9
