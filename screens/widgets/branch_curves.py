"""The curves of several branches over each other."""

from __future__ import annotations

from collections.abc import Mapping

from screens.charts import Row
from screens.overlay import Points, overlay_rows
from screens.safe import fit
from screens.terminal import Marks
from screens.widgets.framed import Framed
from sessions.branches import Branch
from sessions.metrics import metric


class BranchCurves(Framed):
    """One metric of some branches."""

    def __init__(self, marks: Marks) -> None:
        super().__init__(id="curves")
        self.marks, self.ascii = marks, marks == "ascii"
        self.metric = ""
        self.nothing = ""
        self._branches: Mapping[str, Branch] = {}
        self._lines: Mapping[str, Points] = {}
        self._letters: Mapping[str, str] = {}
        self._drawn: object = None

    def show(
        self, name: str, branches: Mapping[str, Branch], lines: Mapping[str, Points], letters: Mapping[str, str],
        nothing: str,
    ) -> None:  # fmt: skip
        """Draw these from now on, if they are new.

        :param nothing: what to say where there is no point yet.
        """
        ends = {key: (len(steps), steps[-1] if len(steps) else 0) for key, (steps, _) in lines.items()}
        state = name, ends, dict(letters), dict(branches), nothing, self.size
        if state != self._drawn:
            self._drawn = state
            self.metric, self.nothing = name, nothing
            self._branches, self._lines, self._letters = dict(branches), dict(lines), dict(letters)
            self.redraw()

    def title_pieces(self, width: int) -> Row:
        title = f"{self.metric} by branch" if self.metric else "curves"
        hint = "   x metric  v mark"
        return [(title, "title"), (hint if len(title) + len(hint) <= width else "", "label")]

    def inner_rows(self, width: int, height: int) -> list[Row]:
        if any(value is not None for _, values in self._lines.values() for value in values):
            return overlay_rows(self._branches, self._lines, self._letters, width, height, self.marks)
        why = self.nothing or (f"no {metric(self.metric).title} yet" if self.metric else "")
        return [*([[]] * max(0, height // 2 - 1)), [("  " + fit(why, max(1, width - 2)), "dim")]]
