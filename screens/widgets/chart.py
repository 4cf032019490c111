"""A chart of the dashboard: what it shows, how, and the keys on it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import BindingType
from textual.message import Message

from screens.chart_kinds import ChartKind, Reading
from screens.charts import Chart, Curve, Row, draw, histogram, smoothed
from screens.keys import bindings
from screens.limits import LIMITS, knob_points
from screens.line_search import search_lines
from screens.live import Live
from screens.numbers import percent, short
from screens.safe import fit
from screens.terminal import Marks
from screens.topline import phase_text
from screens.widgets.framed import Framed
from sessions.metrics import METRICS, WARM_UP_PREFIX, metric
from sessions.records import SeriesData

LONG_TITLE = 44
"""Cells from which a title is written out."""
LATELY = 20
"""Steps after which a number that is not measured any more leaves the title."""
SMOOTHING = (0.9, 0.98, 0.0)


@dataclass(slots=True)
class View:
    """What all charts of a dashboard share, so that the same column is the same step everywhere.

    :ivar window: (first, last) step; a last of 0 is the newest, and then ``first`` counts back from it; (0, 0) is all.
    :ivar cross: step of the crosshair.
    :ivar fetched: points that the live model has only in part, by metric.
    """

    window: tuple[int, int] = (0, 0)
    cross: int | None = None
    fetched: dict[str, SeriesData] | None = None
    version: int = 0

    def changed(self) -> None:
        """Every chart has to draw again."""
        self.version += 1

    def steps(self, live: Live, warm_up: bool = False) -> tuple[int, int]:
        """The first and the last step to draw, of RL or of the warm-up."""
        last = live.newest_step(warm_up)
        first, end = self.window
        if end:
            return first, end
        if first:
            return max(0, last - first + 1), max(last, 1)
        if warm_up:
            return 0, max(last, 1)
        return min(0, live.first_step()), max(last, 1)


class ChartView(Framed, can_focus=True):
    """One chart."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings("chart")]

    class Key(Message):
        """A key on a chart that concerns all of them.

        :ivar what: zoom, crosshair, window, values, choose or go.
        """

        def __init__(self, chart: ChartView, what: str, by: int | str = 0) -> None:
            super().__init__()
            self.chart, self.what, self.by = chart, what, by

    def __init__(self, kind: ChartKind, live: Live, view: View, marks: Marks) -> None:
        super().__init__(id=f"chart-{kind.name}")
        self.kind, self.live, self.view, self.marks = kind, live, view, marks
        self.metrics = kind.metrics
        self.ascii = marks == "ascii"
        self.log_axis = False
        self.smoothing = SMOOTHING[0] if kind.smooth else 0.0
        self._drawn: object = None

    # -------------------------------------------------------------------------------------------- data

    @property
    def of_warm_up(self) -> bool:
        """Whether what it draws is over the steps of the warm-up."""
        return all(name.startswith(WARM_UP_PREFIX) for name in self.metrics)

    def steps(self) -> tuple[int, int]:
        """The first and the last step that it draws."""
        return self.view.steps(self.live, self.of_warm_up)

    def points(self, name: str) -> tuple[Sequence[int], Sequence[float | None]]:
        """Of a metric: those fetched for the window with the newer live ones, or the live ones."""
        series = self.live.series.get(name)
        steps: Sequence[int] = series.steps if series else []
        values: Sequence[float | None] = series.values if series else []
        fetched = None if self.of_warm_up else (self.view.fetched or {}).get(name)
        if fetched is None or not fetched.steps:
            return steps, values
        end = fetched.steps[-1]
        newer = [i for i, step in enumerate(steps) if step > end]
        return [*fetched.steps, *(steps[i] for i in newer)], [*fetched.values, *(values[i] for i in newer)]

    def value(self, name: str) -> float | None:
        """Under the crosshair, or the newest."""
        steps, values = self.points(name)
        if not steps:
            return None
        if self.view.cross is None:
            return values[-1]
        nearest = min(range(len(steps)), key=lambda i: abs(steps[i] - (self.view.cross or 0)))
        return values[nearest]

    def _measured_lately(self, name: str) -> bool:
        steps = self.points(name)[0]
        return bool(steps) and (self.view.cross is not None or steps[-1] > self.steps()[1] - LATELY)

    def has_no_values(self) -> bool:
        """Whether no metric of it has a value."""
        return not any(value is not None for name in self.metrics for value in self.points(name)[1])

    def vertical_lines(self) -> tuple[tuple[int, str], ...]:
        """What a person changed, where the line was forked or went back, and alarms."""
        if self.of_warm_up:
            return ()
        changes = [(change.applied_step, "change") for change in self.live.applied_changes()]
        changes += [(step, "change") for step in self.live.turns()]
        alarms = [(alarm.step, "alarm") for alarm in self.live.alarms.values()]
        return tuple(dict.fromkeys(alarms + changes))

    # ----------------------------------------------------------------------------------------- drawing

    def update(self, force: bool = False) -> None:
        """Draw if anything it shows has changed."""
        version = self.live.version
        topics = ["series", "changes", "alarms", "last_step", "values", "line"]
        if self.live.last_step is None:
            topics.append("status")  # the reason why there is nothing yet
        state = (
            [version[topic] for topic in topics], id(self.live), self.view.version, self.size, self.metrics,
            self.log_axis, self.smoothing,
        )  # fmt: skip
        if force or state != self._drawn:
            self._drawn = state
            self.redraw()

    def title_pieces(self, width: int) -> Row:
        row: Row = []
        room = width
        for text in self._titles(width):
            gap = "  " if row else ""
            if len(gap + text) > room:
                continue
            row.append((gap + text, "" if row else "title"))
            room -= len(gap + text)
        return row

    def _titles(self, width: int) -> list[str]:
        """Parts of the title, those that may be missing last."""
        own = self.metrics == self.kind.metrics
        readings = self.kind.readings if own else tuple(Reading(metric(n).title, (n,)) for n in self.metrics)
        hidden = {chart.kind.name for chart in self.screen.query(ChartView) if not chart.display}
        parts: list[str] = []
        for reading in readings:
            if reading.unless and reading.unless not in hidden:
                continue
            if parts and not any(self._measured_lately(name) for name in reading.metrics):
                continue  # another algorithm's
            values = [self.value(name) for name in reading.metrics]
            known = [value for value in values if value is not None]
            total = sum(known) if known else None
            label = reading.long if reading.long and width >= LONG_TITLE else reading.label
            text = f"{label} {percent(total) if reading.share else short(total)}".strip()
            steps = self.points(reading.metrics[0])[0]
            stale = steps and not self._measured_lately(reading.metrics[0])  # the chart's own, of a switch back
            parts.append(f"{text} @{steps[-1]}" if stale else text)
        parts += [f"limit {short(values[-1])}" for name in self._limits() if (values := self._limit_points(name)[1])]
        if self.view.cross is not None:
            parts.insert(1, f"@{self.view.cross}")
        elif self.kind.best and own and (best := self.live.best(self.metrics[0])) is not None:
            parts.append(f"best {short(best[1])} @{best[0]}")
        parts += ["log"] if self.log_axis else []
        parts += [f"ema {short(self.smoothing)}"] if self.smoothing and not self.kind.distribution else []
        return parts

    def inner_rows(self, width: int, height: int) -> list[Row]:
        if self.has_no_values() and not (self.kind.distribution and self._advantages()):
            return self._empty(width, height)
        if self.kind.distribution and self.metrics == self.kind.metrics and width >= 30:
            right = max(14, width // 3)
            left = histogram(self._advantages(), width - right - 1, height, self.marks)
            return [[*a, (" ", ""), *b] for a, b in zip(left, self._curves(right, height), strict=True)]
        return self._curves(width, height)

    def _advantages(self) -> list[float]:
        return self.live.last_step.advantages if self.live.last_step else []

    def _curves(self, width: int, height: int) -> list[Row]:
        first, last = self.steps()
        edge = last
        if not self.view.window[1]:
            # The right edge moves by a whole dot: between those moves a new step changes only the end of a curve.
            dot = max(1, (last - first) // (2 * width))
            edge = first + -(-(last - first) // dot) * dot
        curves = []
        for index, name in enumerate(self.metrics):
            steps, values = self.points(name)
            role = "second" if index else "smooth"
            if self.smoothing and len(values) > 2 and not self.kind.distribution:
                if index == 0:
                    curves.append(Curve(steps, values, "raw"))
                values = smoothed(values, self.smoothing)
            curves.append(Curve(steps, values, role))
        curves += [Curve(*self._limit_points(name), "second") for name in self._limits()]
        chart = Chart(tuple(curves), first, edge, self.vertical_lines(), self.log_axis, self.view.cross, end=last)
        return draw(chart, width, height, self.marks)

    def _limits(self) -> list[str]:
        """The knobs that its metrics are read against."""
        return [LIMITS[name] for name in self.metrics if name in LIMITS]

    def _limit_points(self, name: str) -> tuple[list[int], list[float | None]]:
        return knob_points(self.live, name, *self.steps())

    def _empty(self, width: int, height: int) -> list[Row]:
        known = metric(self.metrics[0])
        why = known.why_empty
        nothing = METRICS["reward/mean"].why_empty
        if self.live.warming:
            off = self.metrics[0] == "warmup/accuracy" and not self.live.values.get("evaluate_every")
            why = why if off else f"the model is warming up; now: {phase_text(self.live)}"
        elif self.of_warm_up:
            pass
        elif self.live.last_step is None or self.live.last_step.step == 0:  # only the evaluation before the first
            why = f"{nothing}; now: {phase_text(self.live)}" if self.live.status else nothing
        elif known.name.startswith("trpo/") and self.live.values.get("algorithm") == "trpo":
            why = "no update of trpo has finished"
        elif why == nothing and "value/warmup_left" in self.live.last_step.metrics:
            why = "the value model has trained alone so far; the policy stands still meanwhile"
        elif why == nothing:
            why = "it has not been measured"
        elif known.name.startswith("kl/") and not self.live.values.get("kl_coefficient"):
            why = f"kl_coefficient is 0: {why}"
        lines = [f"no {known.title} yet:", *_wrapped(why, width - 4)]
        above = max(0, (height - len(lines)) // 2)
        return [*([[]] * above), *([("  " + fit(line, width - 2), "dim")] for line in lines)]

    # ------------------------------------------------------------------------------------------- words

    def explain(self) -> list[str]:
        """What its metrics are, in words."""
        lines = []
        own = self.metrics == self.kind.metrics
        names = dict.fromkeys([*self.metrics, *(n for r in self.kind.readings if own for n in r.metrics)])
        for name in names:
            known = metric(name)
            unit = f" ({known.unit})" if known.unit else ""
            good = {"up": "; higher is better", "down": "; lower is better"}.get(known.good, "")
            lines.append(f"{name}{unit}: {known.formula}{good}.")
            lines += [f"  healthy: {known.healthy}"] if known.healthy else []
        for name in self._limits():
            lines.append(f"The second curve is {name}.")
        if any(name.startswith("trpo/") for name in self.metrics):
            lines += ["", "The newest line search:", *search_lines(self.live), ""]
        if self.kind.distribution:
            lines.append("Left: the histogram of the last step's advantages. Right: their std over the steps.")
        if self.smoothing:
            lines.append(
                f"Dim: raw. Bright: s <- {self.smoothing:g} s + {1 - self.smoothing:.2g} x, corrected at the start."
            )
        lines.append("A column of : is a change that a person made, a fork, a rewind, or an alarm.")
        return lines

    def table(self) -> list[str]:
        """Its values in the window, the newest first."""
        first, last = self.steps()
        columns = {name: dict(zip(*self.points(name), strict=True)) for name in self.metrics}
        steps = sorted({s for column in columns.values() for s in column if first <= s <= last}, reverse=True)
        lines = ["    step  " + "  ".join(f"{name:>16}" for name in self.metrics)]
        for step in steps:
            cells = [column.get(step) for column in columns.values()]
            lines.append(f"{step:>8}  " + "  ".join(f"{'-' if v is None else f'{v:.6g}':>16}" for v in cells))
        return lines

    # ----------------------------------------------------------------------------------------- actions

    def action_log(self) -> None:
        self.log_axis = not self.log_axis
        self.update()

    def action_smooth(self) -> None:
        self.smoothing = SMOOTHING[(SMOOTHING.index(self.smoothing) + 1) % len(SMOOTHING)]
        self.update()

    def action_zoom(self) -> None:
        self.post_message(self.Key(self, "zoom"))

    def action_crosshair(self, by: int) -> None:
        self.post_message(self.Key(self, "crosshair", by))

    def action_window(self) -> None:
        self.post_message(self.Key(self, "window"))

    def action_values(self) -> None:
        self.post_message(self.Key(self, "values"))

    def action_choose(self) -> None:
        self.post_message(self.Key(self, "choose"))

    def action_go(self, where: str) -> None:
        self.post_message(self.Key(self, "go", where))


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(10, width))
