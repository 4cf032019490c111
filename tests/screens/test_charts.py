"""Charts: every value, every size, and no spike lost."""

from __future__ import annotations

import math
import random

import pytest
from rich.cells import cell_len

from screens.charts import Chart, Curve, Row, draw, histogram, reduced, smoothed
from screens.numbers import axis_label, axis_labels, percent, reward_text, short, span
from screens.scales import linear_scale, log_scale
from screens.terminal import Marks

NAN, INF = math.nan, math.inf
ALL_MARKS: tuple[Marks, ...] = ("braille", "block", "ascii")
DATA: dict[str, list[float | None]] = {
    "empty": [],
    "none": [None, None],
    "nan": [NAN, 1.0, NAN, 2.0],
    "inf": [INF, -INF, 1.0, 2.0],
    "one": [0.5],
    "constant": [3.0] * 10,
    "zero": [0.0] * 10,
    "tiny": [1e-12, 2e-12, 3e-12],
    "huge": [1e12, 2e12, -1e12],
    "overflow": [1e308, -1e308, 0.0],
    "nearly constant": [1e12, 1e12 + 1e-3],
    "denormal": [5e-324, 0.0],
    "log with zeros": [0.0, 1e-5, -3.0, 10.0, None],
    "gaps": [1.0, None, 2.0, None, 3.0],
}


def text_of(rows: list[Row]) -> list[str]:
    return ["".join(text for text, _ in row) for row in rows]


def chart(values: list[float | None], **options: object) -> Chart:
    steps = list(range(len(values)))
    return Chart((Curve(steps, values),), 0, max(1, len(values) - 1), **options)  # type: ignore[arg-type]


def check_size(rows: list[Row], width: int, height: int) -> None:
    assert len(rows) == height
    assert {cell_len(text) for text in text_of(rows)} == {width}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("marks", ALL_MARKS)
def test_any_values_give_exactly_the_size(name: str, log: bool, marks: Marks) -> None:
    for width, height in ((1, 1), (5, 2), (12, 3), (40, 8), (80, 20)):
        check_size(draw(chart(DATA[name], log=log), width, height, marks), width, height)


@pytest.mark.parametrize("width", [*range(1, 40), 80, 160, 200])
def test_every_width(width: int) -> None:
    check_size(draw(chart([math.sin(i / 9) for i in range(300)]), width, 7), width, 7)


@pytest.mark.parametrize("height", range(1, 61))
def test_every_height(height: int) -> None:
    check_size(draw(chart([math.sin(i / 9) for i in range(300)]), 30, height), 30, height)


def test_ascii_marks_are_ascii() -> None:
    rows = draw(chart([1.0, 3.0, 2.0], lines=((1, "change"),), cross=2), 40, 8, "ascii")
    assert "".join(text_of(rows)).isascii()
    assert "".join(text_of(histogram([1.0, -1.0, 0.0], 30, 8, "ascii"))).isascii()


def test_a_spike_survives() -> None:
    values: list[float | None] = [0.1] * 5000
    values[3210] = 9.0
    points = reduced((list(range(5000)), values), 0, 4999, 80)
    assert max(v for _, v in points if v is not None) == 9.0
    assert len(points) <= 160
    drawn = text_of(draw(chart(values), 60, 10))
    assert any(char not in " │10" for char in drawn[1][6:]), "the spike is drawn near the top"


def test_each_column_keeps_its_extremes_in_order() -> None:
    noise = random.Random(1)
    values = [noise.random() for _ in range(1000)]
    points = reduced((list(range(1000)), list(values)), 0, 999, 10)
    places = [x for x, _ in points]
    assert places == sorted(places)
    for column in range(10):
        here = [v for i, v in enumerate(values) if min(9, int(i / 999 * 10)) == column]
        kept = [v for x, v in points if v is not None and min(9, int(x * 10)) == column]
        assert {min(here), max(here)} == set(kept)


def test_changes_are_vertical_lines_and_data_stay_before_them() -> None:
    rows = draw(chart([0.0] * 50, lines=((25, "change"), (40, "alarm"), (99, "change"))), 56, 8, "ascii")
    pieces = [piece for row in rows for piece in row]
    assert {"change", "alarm"} <= {role for _, role in pieces}
    assert sum(text.count(":") for text, _ in pieces) == 2 * 7 - 2, "two lines, but not through the curve"


def test_the_crosshair_names_its_step() -> None:
    rows = text_of(draw(chart([float(i) for i in range(100)], cross=64), 50, 8))
    assert "64" in rows[-1]
    assert rows[-1].split()[0] == "0"
    assert rows[-1].split()[-1] == "99"


def test_gaps_are_not_bridged() -> None:
    values: list[float | None] = [1.0] * 20 + [None] * 20 + [1.0] * 20
    row = max(text_of(draw(chart(values), 65, 3, "ascii")), key=lambda text: text.count("*"))
    inner = row.partition("|")[2]
    assert inner[:18].count("*") > 15
    assert inner[24:36].strip(" ") == ""


def test_smoothing_has_no_bias_at_its_start_and_keeps_gaps() -> None:
    assert smoothed([5.0] * 4, 0.9) == pytest.approx([5.0] * 4)
    assert smoothed([1.0, None, math.inf, 1.0], 0.9) == [pytest.approx(1.0), None, None, pytest.approx(1.0)]


def test_histogram_counts_and_size() -> None:
    rows = text_of(histogram([0.94] * 30 + [-0.94] * 10, 40, 10))
    assert len(rows) == 10
    assert {len(row) for row in rows} == {40}
    assert rows[0].strip().startswith("30")
    assert "-.94" in rows[-1]
    assert text_of(histogram([], 20, 3)) == [" " * 20] * 3
    assert len(histogram([NAN, INF, 0.0], 20, 5)) == 5


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 0.45), (0.02, 0.08), (200, 310), (-3, 5), (1e-12, 2e-12), (-9e11, 1e12)]
)
@pytest.mark.parametrize("intervals", [1, 2, 3, 5, 10])
def test_linear_scales_hold_their_values_between_round_ticks(low: float, high: float, intervals: int) -> None:
    scale = linear_scale(low, high, intervals)
    slack = 1e-6 * (high - low)
    assert scale.low <= low + slack
    assert scale.high >= high - slack
    assert 0 <= scale.place(low) <= scale.place(high) <= 1
    assert 2 <= len(scale.ticks) <= intervals + 1
    labels = axis_labels(scale.ticks)
    assert max(map(len, labels)) <= 8
    assert len(set(labels)) == len(labels)


def test_log_scale_ticks_are_powers_of_ten() -> None:
    scale = log_scale(3e-5, 40.0, 3)
    assert scale.low == -5
    assert scale.high >= 2
    assert scale.place(0.0) == 0.0
    assert all(tick == int(tick) for tick in scale.ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (NAN, "-"), (0.412, ".412"), (-0.5, "-.500"), (1.314, "1.31"), (212.4, "212"), (1900, "1.9k"),
     (1e-6, "1e-6"), (2.5e-7, "2.5e-7"), (0.0, "0"), (2e12, "2.0T"), (0.9999, "1.00")],
)  # fmt: skip
def test_short_numbers(value: float | None, text: str) -> None:
    assert short(value) == text


def test_other_numbers() -> None:
    assert percent(0.383) == "38%"
    assert [reward_text(v) for v in (1.0, 0.0, 0.5, -0.25, None, 12.0)] == ["1", "0", ".5", "-.25", "-", "12"]
    assert [span(s) for s in (4.2, 90, 11520, 200_000, None)] == ["4 s", "1 min", "3h12m", "2d07h", "-"]
    assert axis_label(2e-12) == "2e-12"
    assert axis_labels([0.0, 0.25, 0.5]) == ["0", "0.25", "0.50"]
    assert axis_labels([0.009, 0.0095, 0.01]) == ["0.0090", "0.0095", "0.0100"]  # not 0.01 twice


@pytest.mark.parametrize(("cross", "under"), [(34, "0 34"), (33, "0 33"), (0, "0 34"), (1, "0 1 34"), (17, "0 17 34")])
def test_the_crosshairs_step_is_never_mixed_with_another_number(cross: int, under: str) -> None:
    rows = text_of(draw(Chart((Curve(range(35), [0.5] * 35),), 0, 34, cross=cross), 60, 6))
    assert " ".join(rows[-1].split()) == under
