"""Which charts and panes a dashboard of a size shows, and in what grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CHART_HEIGHT = 7
SMALL_CHART_HEIGHT = 5
PANELS_FROM = 120
LINES = 3


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A grid of charts, with a column of panes where it is wide.

    :ivar lines: whether the three lines stand below, in the place of the panes.
    :ivar hidden: names of what is not shown.
    :ivar pages: how many ways ``w`` goes through.
    """

    columns: int
    rows: int
    charts: tuple[str, ...]
    panels: tuple[str, ...]
    lines: bool
    hidden: tuple[str, ...]
    pages: int

    @property
    def hidden_text(self) -> str:
        """``2 charts hidden``."""
        count = len(self.hidden)
        return f"{count} {'pane' if self.panels else 'chart'}{'s' if count != 1 else ''} hidden"


def arrange(
    width: int, height: int, charts: Sequence[str], panels: Sequence[str], *, zoomed: str = "", page: int = 0
) -> Arrangement:
    """The charts by importance, as many as fit at a good height.

    Page 0 is that. If it hides any, the next pages show the charts smaller, and, where even then some are left out,
    the others.
    """
    if zoomed:
        return Arrangement(1, 1, (zoomed,), (), False, (), 1)
    wide = width >= PANELS_FROM
    room = height if wide else height - LINES
    most = (len(charts) + 1) // 2
    rows = min(max(1, room // CHART_HEIGHT), most)
    small = min(max(rows, room // SMALL_CHART_HEIGHT), most)
    fit, more = 2 * rows, 2 * small
    first = 1 if small > rows else 0  # where they cannot be smaller, page 0 is the first of those pages
    pages = 1 if fit >= len(charts) else first + -(-len(charts) // more)
    page %= pages
    if page == 0:
        shown = list(charts[:fit])
    else:
        rows = small
        shown = list(charts[(page - first) * more : (page - first + 1) * more])
    hidden = [name for name in charts if name not in shown]
    panes = list(panels[:rows]) if wide else []
    hidden += [name for name in panels if wide and name not in panes]
    rows = min(rows, (len(shown) + 1) // 2)
    panes = panes[:rows]
    return Arrangement(3 if wide else 2, rows, tuple(shown), tuple(panes), not wide, tuple(hidden), pages)
