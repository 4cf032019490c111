"""The curves of several branches on one chart, each with a letter. No Textual in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from screens.charts import Chart, Curve, Row, draw
from screens.numbers import short
from screens.terminal import Marks
from sessions.branches import Branch
from sessions.comparison import shared_step

LETTERS = "ABCDEF"
"""As many curves as can be told apart."""
ROLES = ("smooth", "second", "third", "fourth")
Points = tuple[Sequence[int], Sequence[float | None]]


def role_of(place: int) -> str:
    """The colour of the curve at a place; the letter tells those of one colour apart."""
    return ROLES[place % len(ROLES)]


def overlay(
    branches: Mapping[str, Branch], lines: Mapping[str, Points], letters: Mapping[str, str] | None = None
) -> Chart:
    """One curve a branch; steps that two of them share are drawn once, on the first.

    :param lines: branch -> the points of its whole line.
    :param letters: branch -> letter; without, they are lettered in order.
    """
    names = list(lines)
    curves: list[Curve] = []
    for place, name in enumerate(names):
        shared = max((shared_step(branches, name, other) for other in names[:place]), default=-1)
        steps, values = lines[name]
        own = [index for index, step in enumerate(steps) if step > shared]
        # One more, so that the curve leaves the one it came from and does not begin in the air.
        own = [own[0] - 1, *own] if own and own[0] > 0 else own
        letter = letters[name] if letters is not None else LETTERS[place % len(LETTERS)]
        at = LETTERS.find(letter)
        curves.append(
            Curve([steps[i] for i in own], [values[i] for i in own], role_of(at if at >= 0 else place), letter)
        )
    first = min((curve.steps[0] for curve in curves if curve.steps), default=0)
    last = max((curve.steps[-1] for curve in curves if curve.steps), default=1)
    forks = tuple(
        (branches[name].step, "change")
        for name in names
        if name in branches and branches[name].parent and first < branches[name].step < last
    )
    return Chart(tuple(curves), min(first, last - 1) if first == last else first, last, tuple(dict.fromkeys(forks)))


def legend(lines: Mapping[str, Points], letters: Mapping[str, str], width: int) -> Row:
    """``A main .412   B hot .391``, as many as fit, then how many do not."""
    row: Row = []
    left = width
    names = list(lines)
    for place, name in enumerate(names):
        values = [value for value in lines[name][1] if value is not None]
        text = f"{letters[name]} {name} {short(values[-1]) if values else '-'}"
        gap = "   " if row else ""
        rest = len(names) - place
        reserve = len(f"   +{rest - 1}") if rest > 1 else 0
        if len(gap + text) + reserve > left:
            row.append((f"   +{rest}"[:left], "label"))
            break
        row.append((gap + text, role_of(LETTERS.find(letters[name]))))
        left -= len(gap + text)
    return row


def overlay_rows(
    branches: Mapping[str, Branch], lines: Mapping[str, Points], letters: Mapping[str, str], width: int, height: int,
    marks: Marks = "braille",
) -> list[Row]:  # fmt: skip
    """The legend, and the chart under it."""
    chart = draw(overlay(branches, lines, letters), width, max(1, height - 1), marks)
    return [legend(lines, letters, width), *chart]
