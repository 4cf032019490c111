"""The tree of branches and checkpoints as rows of a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from screens.branch_words import REWARD
from screens.numbers import percent, short, size, span
from screens.terminal import Marks
from screens.widgets.line_table import Column, Row
from sessions.branches import BranchInfo, in_tree_order
from sessions.records import Checkpoint

COLUMNS = (
    Column("", 1),
    Column("branch", 0),
    Column("steps", 6, right=True, narrow=5),
    Column("tip", 6, right=True, narrow=5),
    Column("reward", 6, right=True),
    Column("held-out", 8, right=True, narrow=0),
    Column("best", 10, right=True, narrow=9),
    Column("size", 8, right=True, narrow=7),
    Column("age", 7, right=True, narrow=6),
)
SLIM = (
    Column("", 1),
    Column("branch", 0),
    Column("steps", 6, narrow=0),
    Column("tip", 5, right=True),
    Column("reward", 6, right=True),
    Column("held-out", 8, narrow=0),
    Column("best", 9, right=True),
    Column("size", 8, narrow=0),
    Column("age", 7, narrow=0),
)
"""Of a terminal of less than 72 columns: the name and the word behind it come first."""
_TREE: dict[bool, tuple[str, str, str, str]] = {
    False: ("├─", "└─", "│ ", "  "),
    True: ("|-", "`-", "| ", "  "),
}
_FOLDS = {False: ("▸", "▾"), True: ("+", "-")}


@dataclass(frozen=True, slots=True)
class Place:
    """What a row stands for: a branch, or one of its checkpoints."""

    branch: str
    checkpoint: Checkpoint | None = None

    @property
    def key(self) -> str:
        """Of its row: no branch has a line feed in its name."""
        return self.branch if self.checkpoint is None else f"{self.branch}\n{self.checkpoint.step}"


def tree_rows(
    infos: Sequence[BranchInfo],
    opened: Collection[str],
    letters: Mapping[str, str],
    now: float,
    marks: Marks = "braille",
) -> tuple[list[Row], dict[str, Place]]:
    """The rows, and what each stands for by its key.

    :param opened: branches whose checkpoints are shown.
    :param letters: branch -> its letter on the chart of curves.
    """
    ascii_only = marks == "ascii"
    tee, corner, bar, blank = _TREE[ascii_only]
    closed, open_ = _FOLDS[ascii_only]
    by_name = {info.branch.name: info for info in infos}
    ordered = in_tree_order([info.branch for info in infos])
    rows: list[Row] = []
    places: dict[str, Place] = {}
    rails: list[str] = []
    for index, (depth, branch) in enumerate(ordered):
        info = by_name[branch.name]
        more = _has_sibling(ordered, index)
        del rails[max(0, depth - 1) :]
        lead = "".join(rails) + ((tee if more else corner) if depth else "")
        if depth:
            rails.append(bar if more else blank)
        children = index + 1 < len(ordered) and ordered[index + 1][0] > depth
        place = Place(branch.name)
        fold = " " if not info.checkpoints else open_ if branch.name in opened else closed
        rows.append(_branch_row(info, f"{lead}{fold} ", letters.get(branch.name, ""), now))
        places[place.key] = place
        if branch.name in opened:
            under = "".join(rails) + (bar if children else blank)
            for saved in reversed(info.checkpoints):
                place = Place(branch.name, saved)
                places[place.key] = place
                rows.append(_checkpoint_row(place.key, saved, f"{under}  ", now, dim=branch.abandoned))
    return rows, places


def _has_sibling(ordered: Sequence[tuple[int, object]], index: int) -> bool:
    """Whether another branch of the same parent comes after it."""
    depth = ordered[index][0]
    for other, _ in ordered[index + 1 :]:
        if other <= depth:
            return other == depth
    return False


def _branch_row(info: BranchInfo, lead: str, letter: str, now: float) -> Row:
    branch = info.branch
    words = " *" if info.active else " abandoned" if branch.abandoned else ""
    best = f"{percent(info.best[1])} @{info.best[0]}" if info.best is not None else "-"
    cells = (
        letter,
        f"{lead}{branch.name}{words}",
        str(info.steps),
        str(info.tip),
        short(info.metrics.get(REWARD)),
        percent(info.evaluated[1]) if info.evaluated is not None else "-",
        best,
        size(sum(point.bytes for point in info.checkpoints)) if info.checkpoints else "-",
        span(now - info.time) if info.time else "-",
    )
    return Row(branch.name, cells, "good" if info.active else "dim" if branch.abandoned else "")


def _checkpoint_row(key: str, saved: Checkpoint, lead: str, now: float, *, dim: bool) -> Row:
    cells = (
        "", f"{lead}@{saved.step} {saved.reason}", "", str(saved.step), "", "", "", size(saved.bytes),
        span(now - saved.time),
    )  # fmt: skip
    return Row(key, cells, "dim" if dim else "")
