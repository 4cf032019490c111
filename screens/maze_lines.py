"""The way that a response takes through the maze of its prompt, as lines to draw and in words."""

from __future__ import annotations

from dataclasses import dataclass

from screens.safe import visible
from screens.widgets.line_view import Span
from sessions.maze import Cell, Maze, Moves, Walk, read_maze, read_moves, walk
from sessions.records import Group, Response

ARROWS = {"u": "^", "d": "v", "l": "<", "r": ">"}
MOST_IGNORED = 5
"""Words that are named of those ignored."""


@dataclass(frozen=True, slots=True)
class MazePicture:
    """A maze with the way of a response in it.

    :ivar lines: two characters a cell, with a border of wall: ``##`` a wall, ``!!`` one that was bumped into, ``S`` and
        ``E``, arrows where the robot went on, and ``@`` before the cell where it stays.
    :ivar end: the line where the robot is.
    :ivar words: what became of the moves, and ``good``: whether that is the exit.
    """

    lines: tuple[tuple[Span, ...], ...]
    end: int
    words: str
    good: bool

    @property
    def width(self) -> int:
        """Cells of the terminal."""
        return sum(len(span.text) for span in self.lines[0])


def picture(group: Group, response: Response) -> MazePicture | None:
    """The picture of a response; None where its group is of no maze, or the maze cannot be read."""
    maze = read_maze(group.prompt) if group.drawing == "maze" else None
    if maze is None:
        return None
    said = read_moves(response.text)
    way = walk(maze, said.moves)
    bumped = {step.to for step in way.steps if step.bump}
    went = {step.begin: ARROWS[step.move] for step in way.steps if not step.bump}
    lines = tuple(
        tuple(_cell(maze, way, (y, x), bumped, went) for x in range(-1, maze.width + 1))
        for y in range(-1, maze.height + 1)
    )
    return MazePicture(lines, way.end[0] + 1, _words(maze, said, way), way.reached)


def _cell(maze: Maze, way: Walk, cell: Cell, bumped: set[Cell], went: dict[Cell, str]) -> Span:
    if cell not in maze.floor:
        return Span("!!", "warn") if cell in bumped else Span("##", "dim")
    here = "@" if cell == way.end else " "
    if cell == maze.exit:
        return Span(f"{here}E", "good" if way.reached else "head")
    if cell in went and cell != way.end:
        return Span(f" {went[cell]}", "accent")
    return Span(
        here + ("S" if cell == maze.start else "."),
        "accent" if here == "@" else "head" if cell == maze.start else "dim",
    )


def _words(maze: Maze, said: Moves, way: Walk) -> str:
    """``exit in 6 moves (shortest 4), 1 bump; 2 ignored: the, way``."""
    count = len(way.steps)
    moves = f"{count} move{'' if count == 1 else 's'}"
    if way.reached:
        words = f"exit in {moves}" + (f" (shortest {maze.shortest})" if count != maze.shortest else ", the fewest")
    elif not count:
        words = "no move"
    else:
        left = maze.distances().get(way.end)
        words = f"no exit: {moves}" + (f", {left} of {maze.shortest} left" if left is not None else "")
    if way.bumps:
        words += f", {way.bumps} bump{'' if way.bumps == 1 else 's'}"
    if way.left_over:
        words += f", {way.left_over} not made"
    if said.ignored:
        named = ", ".join(visible(word) for word in said.ignored[:MOST_IGNORED])
        words += f"; {len(said.ignored)} ignored: {named}{' ..' if len(said.ignored) > MOST_IGNORED else ''}"
    return words
