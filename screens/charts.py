"""Charts as rows of text: curves over steps, and histograms, drawn by plotext.

Nothing of plotext shows outside of this module. It draws only the marks, in coordinates from 0 to 1 and in colours
that stand for roles; axes, ticks, gaps, logarithms and vertical lines are made here. So a chart does not depend on the
theme, and no value whatever can upset plotext: it has only one figure, fails on infinities and on logarithms of zero,
and cuts to the size of the real terminal unless told otherwise after every ``clear_figure``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import plotext

from screens.numbers import axis_label, axis_labels, reward_text
from screens.scales import Scale, linear_scale, log_scale
from screens.terminal import Marks

Piece = tuple[str, str]
"""Text and its role: label, axis, raw, smooth, second, third, fourth, bar, change, alarm or cross; empty: nothing
drawn."""
Row = list[Piece]
Points = tuple[Sequence[int], Sequence[float | None]]

_PENS = {"raw": 1, "smooth": 2, "second": 3, "bar": 4, "third": 5, "fourth": 6}
_ROLES = {pen: role for role, pen in _PENS.items()}
_MARKERS: dict[str, str] = {"braille": "braille", "block": "hd", "ascii": "*"}
_RAW_ASCII = "."
_BETWEEN_LETTERS = 14
"""Cells from one letter on a curve to the next."""
_ESCAPE = re.compile(r"\x1b\[([0-9;]*)m")


@dataclass(frozen=True, slots=True)
class Curve:
    """A line.

    :ivar values: one a step; None is a gap.
    :ivar role: ``raw`` (dim), ``smooth`` (bright), ``second``, ``third`` or ``fourth``; later curves are drawn over
        earlier ones.
    :ivar letter: written on the curve here and there, so that several can be told apart without colour; in ascii the
        curve is drawn with it.
    """

    steps: Sequence[int]
    values: Sequence[float | None]
    role: str = "smooth"
    letter: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """What to draw.

    :ivar first: step at the left edge.
    :ivar last: step at the right edge.
    :ivar end: the step written there, where it is not quite that one.
    :ivar lines: (step, role) of vertical lines: changes and alarms.
    :ivar cross: step of the crosshair.
    """

    curves: tuple[Curve, ...]
    first: int
    last: int
    lines: tuple[tuple[int, str], ...] = ()
    log: bool = False
    cross: int | None = None
    end: int | None = None


def draw(chart: Chart, width: int, height: int, marks: Marks = "braille") -> list[Row]:
    """Exactly ``height`` rows of exactly ``width`` cells: ticks at the left, the first and last step below."""
    if width < 1 or height < 1:
        return []
    scale = _scale(chart, max(1, height - 1))
    if scale is None:
        return [[(" " * width, "")] for _ in range(height)]
    labels = [axis_label(10.0 ** min(t, 308)) for t in scale.ticks] if scale.log else axis_labels(scale.ticks)
    gutter = max([4, *map(len, labels)])
    if width < gutter + 4 or height < 2:  # no room for axes
        return _canvas(chart, scale, width, height, marks)
    inner, tall = width - gutter - 1, height - 1
    rows = _canvas(chart, scale, inner, tall, marks)
    at = {scale.row(tick, tall): label for tick, label in zip(scale.ticks, labels, strict=True)}
    bar = "|" if marks == "ascii" else "│"
    out: list[Row] = [[(at.get(y, "").rjust(gutter), "label"), (bar, "axis"), *row] for y, row in enumerate(rows)]
    out.append([(_under(chart, inner, gutter + 1), "label")])
    return out


def histogram(values: Sequence[float], width: int, height: int, marks: Marks = "braille") -> list[Row]:
    """How often which value occurs, around 0; exactly ``height`` rows of ``width`` cells."""
    finite = [v for v in values if math.isfinite(v)]
    if width < 1 or height < 1:
        return []
    if not finite or width < 10 or height < 2:
        return [[(" " * width, "")] for _ in range(height)]
    largest = max(abs(v) for v in finite)
    reach = (largest if largest > 1e-9 else 1.0) * 1.0001  # all dead: a bar at 0 between -1 and 1
    gutter = 4
    inner, tall = width - gutter - 1, height - 1
    bins = max(3, min(inner // 2, 25) // 2 * 2 + 1)  # odd: one bin has 0 in its middle
    counts = [0] * bins
    for value in finite:
        counts[min(bins - 1, int((value + reach) / (2 * reach) * bins))] += 1
    scale = linear_scale(0.0, float(max(counts)), max(2, tall // 3))
    columns = [counts[min(bins - 1, x * bins // inner)] for x in range(inner)]
    rows = _bars([scale.place(float(count)) for count in columns], tall, marks)
    at = {scale.row(t, tall): axis_label(t).rjust(gutter)[:gutter] for t in scale.ticks if t == int(t)}
    bar = "|" if marks == "ascii" else "│"
    out: list[Row] = [[(at.get(y, " " * gutter), "label"), (bar, "axis"), *row] for y, row in enumerate(rows)]
    left, right = reward_text(-reach), reward_text(reach)
    middle = inner // 2
    under = left.ljust(middle) + "0"
    out.append([(" " * (gutter + 1) + (under.ljust(inner - len(right)) + right)[:inner].ljust(inner), "label")])
    return out


def smoothed(values: Sequence[float | None], weight: float) -> list[float | None]:
    """The exponential mean  s <- weight s + (1 - weight) x,  corrected for its start at 0; gaps stay gaps."""
    out: list[float | None] = []
    mean, count = 0.0, 0
    for value in values:
        if value is None or not math.isfinite(value):
            out.append(None)
            continue
        count += 1
        mean = weight * mean + (1 - weight) * value
        out.append(mean / (1 - weight**count))
    return out


def reduced(points: Points, first: int, last: int, columns: int) -> list[tuple[float, float | None]]:
    """(place from 0 to 1, value) with at most the least and the greatest value of each column, in their order.

    What is not finite is a gap, given once.
    """
    span = max(1, last - first)
    out: list[tuple[float, float | None]] = []
    column = -1
    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None

    def flush() -> None:
        nonlocal low, high
        if low is not None and high is not None:
            out.extend([low] if low == high else sorted((low, high)))
        low = high = None

    for step, value in zip(*points, strict=True):
        if step < first or step > last:
            continue
        place = (step - first) / span
        here = min(columns - 1, int(place * columns))
        if here != column:
            flush()
            column = here
        if value is None or not math.isfinite(value):
            flush()
            if out and out[-1][1] is not None:
                out.append((place, None))
            continue
        if low is None or value < low[1]:
            low = (place, value)
        if high is None or value > high[1]:
            high = (place, value)
    flush()
    return out


# ---------------------------------------------------------------------------------------------------- inside


def _scale(chart: Chart, height: int) -> Scale | None:
    """Of all that is drawn; None when nothing is."""
    values = [
        value
        for curve in chart.curves
        for step, value in zip(curve.steps, curve.values, strict=True)
        if value is not None and math.isfinite(value) and chart.first <= step <= chart.last
    ]
    if chart.log:
        values = [value for value in values if value > 0]
    if not values:
        return None
    return (log_scale if chart.log else linear_scale)(min(values), max(values), max(2, height // 3))


def _canvas(chart: Chart, scale: Scale, width: int, height: int, marks: Marks) -> list[Row]:
    _start(width, height)
    lettered: list[tuple[Curve, list[tuple[float, float]]]] = []
    for curve in chart.curves:
        points = reduced((curve.steps, curve.values), chart.first, chart.last, width)
        if chart.log:
            points = [(x, v if v is not None and v > 0 else None) for x, v in points]
        xs = [x for x, _ in points]
        ys = [math.nan if v is None else scale.place(v) for _, v in points]
        if any(not math.isnan(y) for y in ys):
            marker = _RAW_ASCII if marks == "ascii" and curve.role == "raw" else _MARKERS[marks]
            if curve.letter:
                marker = curve.letter.lower() if marks == "ascii" else marker
                lettered.append((curve, [(x, y) for x, y in zip(xs, ys, strict=True) if not math.isnan(y)]))
            plotext.plot(xs, ys, marker=marker, color=_PENS[curve.role])
    rows = _finish(width, height)
    _letter(rows, lettered, width, height)
    span = max(1, chart.last - chart.first)
    for step, role in chart.lines:
        if chart.first <= step <= chart.last:
            _vertical(rows, round((step - chart.first) / span * (width - 1)), ":", role)
    if chart.cross is not None and chart.first <= chart.cross <= chart.last:
        column = round((chart.cross - chart.first) / span * (width - 1))
        _vertical(rows, column, "|" if marks == "ascii" else "│", "cross")
    return [_merged(row) for row in rows]


def _bars(heights: Sequence[float], height: int, marks: Marks) -> list[Row]:
    """Filled columns, each of a height from 0 to 1."""
    rows: list[list[Piece]] = [[] for _ in range(height)]
    eighths = " ▁▂▃▄▅▆▇█"
    for top in heights:
        filled = top * height
        for y in range(height):
            part = min(max(filled - (height - 1 - y), 0.0), 1.0)
            if marks == "ascii":
                char = "#" if part >= 0.5 else ("." if part > 0.05 else " ")
            else:
                char = eighths[max(1, round(part * 8)) if part > 0 else 0]
            rows[y].append((char, "bar" if char != " " else ""))
    return [_merged(row) for row in rows]


def _start(width: int, height: int) -> None:
    plotext.clear_figure()
    plotext.clear_data()
    plotext.limit_size(False, False)
    plotext.plot_size(width, height)
    plotext.theme("clear")
    plotext.frame(False)
    plotext.xaxes(False, False)
    plotext.yaxes(False, False)
    plotext.xticks([])
    plotext.yticks([])
    plotext.xlim(0, 1)
    plotext.ylim(0, 1)


def _finish(width: int, height: int) -> list[list[Piece]]:
    """What plotext drew, cell by cell."""
    text = str(plotext.build())
    plotext.clear_data()
    rows: list[list[Piece]] = []
    for line in text.split("\n")[:height]:
        cells: list[Piece] = []
        role, at = "", 0
        for match in _ESCAPE.finditer(line):
            cells += [(char, role if char != " " else "") for char in line[at : match.start()]]
            code = match[1]
            role = _ROLES.get(int(code[5:]), "") if code.startswith("38;5;") else ""
            at = match.end()
        cells += [(char, role if char != " " else "") for char in line[at:]]
        rows.append((cells + [(" ", "")] * width)[:width])
    while len(rows) < height:
        rows.append([(" ", "")] * width)
    return rows


def _letter(
    rows: list[list[Piece]], curves: list[tuple[Curve, list[tuple[float, float]]]], width: int, height: int
) -> None:
    """Write each curve's letter at its end and now and then before it, those of several beside each other."""
    for index, (curve, points) in enumerate(curves):
        first = round(points[0][0] * (width - 1))
        last = round(points[-1][0] * (width - 1))
        shift = index * _BETWEEN_LETTERS // max(1, len(curves))
        wanted = [last, *range(last - _BETWEEN_LETTERS + shift, first, -_BETWEEN_LETTERS)]
        taken = {other.letter for other, _ in curves}
        for column in wanted:
            near = [(abs(round(x * (width - 1)) - column), x, y) for x, y in points]
            _, x, y = min(near)
            at, row = round(x * (width - 1)), round((1 - y) * (height - 1))
            while at > first and rows[row][at][0] in taken:  # where several end in one place
                at -= 1
            if rows[row][at][0] not in taken:
                rows[row][at] = (curve.letter, curve.role)


def _vertical(rows: list[list[Piece]], column: int, char: str, role: str) -> None:
    """A line behind what is drawn."""
    for row in rows:
        if row[column][0] in (" ", "⠀"):
            row[column] = (char, role)


def _merged(cells: list[Piece]) -> Row:
    """Neighbours of one role as one piece."""
    out: Row = []
    for char, role in cells:
        if out and out[-1][1] == role:
            out[-1] = (out[-1][0] + char, role)
        else:
            out.append((char, role))
    return out


def _under(chart: Chart, inner: int, offset: int) -> str:
    """The first and the last step, and the crosshair's, below the canvas."""
    first, last = str(chart.first), str(chart.last if chart.end is None else chart.end)
    line = list((first.ljust(max(0, inner - len(last))) + last)[:inner].ljust(inner))
    if chart.cross is not None and chart.first <= chart.cross <= chart.last:
        label = str(chart.cross)
        centre = round((chart.cross - chart.first) / max(1, chart.last - chart.first) * (inner - 1))
        start = min(max(0, centre - len(label) // 2), max(0, inner - len(label)))
        end = start + len(label)
        if start <= len(first):  # half of another number would be read as a whole one
            line[: len(first)] = " " * len(first)
        if end >= inner - len(last):
            line[inner - len(last) :] = " " * len(last)
        line[start:end] = label[:inner]
    return " " * offset + "".join(line)
