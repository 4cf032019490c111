"""A maze and the way of a response in it, beside its text."""

from __future__ import annotations

from collections.abc import Sequence

from screens.maze_lines import MazePicture
from screens.widgets.line_view import LineView, Span

BESIDE = 16
"""Cells that stay for the text."""


class MazeView(LineView, can_focus=False):
    """Not there where there is no maze; of one that is too high, the part around the robot."""

    DEFAULT_CSS = "MazeView { display: none; margin-right: 1; }"

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._picture: MazePicture | None = None

    def show(self, picture: MazePicture | None, room: int) -> None:
        """Draw this from now on.

        :param room: cells for the maze and the text together.
        """
        fits = picture is not None and picture.width + 1 + BESIDE <= room
        if self.display != fits:
            self.display = fits
        if picture == self._picture or not fits or picture is None:
            return
        self._picture = picture
        if self.styles.width is None or self.styles.width.value != picture.width:
            self.styles.width = picture.width
        self._follow()
        self.refresh()

    def _follow(self) -> None:
        if self._picture is not None:
            most = max(0, self.line_count() - self.window)
            self.top = max(0, min(self._picture.end - self.window // 2, most))

    def on_resize(self) -> None:
        self._follow()
        self.refresh()

    def line_count(self) -> int:
        return len(self._picture.lines) if self._picture is not None else 0

    def spans(self, index: int, width: int) -> Sequence[Span]:
        return self._picture.lines[index] if self._picture is not None else ()

    def line_key(self, index: int) -> object:
        return self.spans(index, 0)
