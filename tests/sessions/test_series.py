"""Series: extremes survive reduction, order holds, rewinds replace."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from sessions.records import SeriesData
from sessions.series import Series, reduce_points

VALUES = st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=400)


@given(values=VALUES, limit=st.integers(4, 60))
def test_reduction_keeps_extremes_ends_and_order(values: list[float | None], limit: int) -> None:
    steps = list(range(10, 10 + 3 * len(values), 3))
    kept_steps, kept = reduce_points(steps, values, limit)
    assert len(kept_steps) == len(kept) <= max(limit, 0)
    assert kept_steps == sorted(set(kept_steps))
    pairs = dict(zip(steps, values, strict=True))
    assert all(pairs[s] == v for s, v in zip(kept_steps, kept, strict=True))
    finite = [v for v in values if v is not None]
    if finite:
        left = [v for v in kept if v is not None]
        assert (min(left), max(left)) == (min(finite), max(finite))
    if values:
        assert (kept_steps[0], kept_steps[-1]) == (steps[0], steps[-1])


@given(values=VALUES, limit=st.integers(4, 60), data=st.data())
def test_every_bucket_keeps_its_extremes(values: list[float | None], limit: int, data: st.DataObject) -> None:
    """A spike anywhere is still there: no value lies outside what was kept in its neighbourhood."""
    steps = list(range(len(values)))
    if len(values) <= limit:
        return
    kept_steps, _ = reduce_points(steps, values, limit)
    width = math.ceil((len(values) - 2) / ((limit - 2) // 2))
    at = data.draw(st.integers(0, len(values) - 1))
    if values[at] is None:
        return
    near = [v for s in kept_steps if abs(s - at) < width and (v := values[s]) is not None]
    assert min(near) <= values[at] <= max(near)


def test_a_gap_stays_a_gap() -> None:
    values: list[float | None] = [1.0] * 40 + [None] * 40 + [2.0] * 40
    _, kept = reduce_points(range(120), values, 20)
    assert None in kept


def test_append_drops_what_is_not_finite_and_counts_versions() -> None:
    series = Series("reward/mean")
    for step, value in enumerate([1.0, math.nan, math.inf, None, 2.0], 1):
        series.append(step, value)
    assert series.values == [1.0, None, None, None, 2.0]
    assert series.version == len(series) == 5
    assert series.last == 2.0
    assert Series("x").last is None


def test_a_rewind_replaces_from_there_on() -> None:
    series = Series("x")
    for step in range(1, 11):
        series.append(step, float(step))
    series.append(4, 40.0)
    assert series.steps == [1, 2, 3, 4]
    assert series.values == [1.0, 2.0, 3.0, 40.0]


def test_capacity_bounds_memory_and_keeps_the_spike() -> None:
    series = Series("x", capacity=50)
    for step in range(10_000):
        series.append(step, 1000.0 if step == 4321 else math.sin(step))
        assert len(series) <= 100
    assert 1000.0 in series.values
    assert series.steps[0] == 0
    assert series.steps[-1] == 9_999


def test_windows() -> None:
    series = Series("x")
    for step in range(0, 100, 2):
        series.append(step, float(step))
    assert series.window(10, 14).steps == [10, 12, 14]
    assert series.window(11, 11).steps == []
    assert series.window(0, 2**53, limit=10).steps[-1] == 98
    assert len(series.data(10).steps) <= 10


def test_load() -> None:
    series = Series("x")
    series.append(1, 1.0)
    before = series.version
    series.load(SeriesData(name="x", steps=[5, 6], values=[None, 2.0]))
    assert (series.steps, series.last) == ([5, 6], 2.0)
    assert series.version > before
