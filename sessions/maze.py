"""A maze as text: reading its drawing, reading moves from a response, and following them.

A drawing has a character a cell: a wall, floor, where the robot starts, and the exit; its border is a wall that is not
drawn. The maze task makes drawings and rewards walks with this, and the screens draw walks from records alone.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

Cell = tuple[int, int]
"""Row and column, from the upper left."""

DRAWINGS: Mapping[str, tuple[str, str, str, str]] = {"stars": ("*", ".", "s", "e"), "hashes": ("#", ".", "S", "E")}
"""Name -> its wall, floor, start and exit."""
MOVES: Mapping[str, Cell] = {"u": (-1, 0), "d": (1, 0), "l": (0, -1), "r": (0, 1)}
"""Move -> what it adds to row and column."""
PATIENCE = 4
"""The robot makes at most so many moves for each cell of the maze; what more a response says is not followed."""

_SAID: Mapping[str, str] = {
    **{word: word[0] for word in ("up", "down", "left", "right")},
    **dict(zip("↑↓←→", "udlr", strict=True)),
}
_KEYPAD: Mapping[str, str] = {"8": "u", "2": "d", "4": "l", "6": "r"}
_PIECE = re.compile(r"[^\W\d_]+|\d|[↑↓←→]")
_LETTERS = re.compile(r"[udlr]+")
MOST_READ = 20_000
"""Characters of a response that are read."""


@dataclass(frozen=True, slots=True)
class Maze:
    """Cells that are no wall, and two of them."""

    height: int
    width: int
    floor: frozenset[Cell]
    start: Cell
    exit: Cell

    def neighbours(self, cell: Cell) -> Iterator[Cell]:
        """The floor beside a cell."""
        for down, right in MOVES.values():
            if (beside := (cell[0] + down, cell[1] + right)) in self.floor:
                yield beside

    def distances(self) -> dict[Cell, int]:
        """Fewest moves to the exit, from every cell that it can be reached from."""
        return dict(_distances(self))

    @property
    def shortest(self) -> int | None:
        """Fewest moves from the start to the exit; None: there is no way."""
        return _distances(self).get(self.start)

    def draw(self, drawing: str) -> str:
        """Rows of characters, by the name of a drawing."""
        wall, floor, start, leave = DRAWINGS[drawing]
        marks = {self.start: start, self.exit: leave}
        return "\n".join(
            "".join(marks.get((y, x), floor if (y, x) in self.floor else wall) for x in range(self.width))
            for y in range(self.height)
        )


@lru_cache(maxsize=4096)
def _distances(maze: Maze) -> Mapping[Cell, int]:
    """Breadth first, from the exit."""
    found = {maze.exit: 0}
    ahead = deque([maze.exit])
    while ahead:
        cell = ahead.popleft()
        for beside in maze.neighbours(cell):
            if beside not in found:
                found[beside] = found[cell] + 1
                ahead.append(beside)
    return found


@lru_cache(maxsize=4096)
def read_maze(text: str) -> Maze | None:
    """The maze drawn in a prompt, whatever stands above and below it; None: there is none.

    It is the first run of lines of one length, all in the characters of one drawing, with one start and one exit.
    """
    lines = [line.strip() for line in text.splitlines()]
    for characters in DRAWINGS.values():
        begin = 0
        while begin < len(lines):
            end = begin
            while end < len(lines) and len(lines[end]) == len(lines[begin]) and _is_row(lines[end], characters):
                end += 1
            rows = lines[begin:end]
            drawn = "".join(rows)
            if drawn.count(characters[2]) == drawn.count(characters[3]) == 1:
                return _maze(rows, characters)
            begin = max(end, begin + 1)
    return None


def _is_row(line: str, characters: tuple[str, ...]) -> bool:
    return bool(line) and set(line) <= set(characters)


def _maze(rows: list[str], characters: tuple[str, str, str, str]) -> Maze:
    cells = {(y, x): character for y, row in enumerate(rows) for x, character in enumerate(row)}
    wall, _, start, leave = characters
    place = {character: cell for cell, character in cells.items()}
    floor = frozenset(cell for cell, character in cells.items() if character != wall)
    return Maze(len(rows), len(rows[0]), floor, place[start], place[leave])


@dataclass(frozen=True, slots=True)
class Moves:
    """What a response says to do.

    :ivar moves: one of ``u d l r`` a move.
    :ivar ignored: words and digits that are none, in order.
    """

    moves: str
    ignored: tuple[str, ...] = ()


def read_moves(text: str) -> Moves:
    """The moves in a response: ``uurr``, ``up, up, right``, arrows, or the keypad's ``8 2 4 6``.

    Digits are moves only where nothing else is, because they also number the lines of an answer. Case does not
    matter; punctuation and blanks are passed over, other words and digits are ignored and named.
    """
    pieces = _PIECE.findall(text[:MOST_READ].lower())
    said = ["" if piece.isdigit() else _moves_of(piece) for piece in pieces]
    if not any(said):
        said = [_KEYPAD.get(piece, "") for piece in pieces]
    ignored = tuple(piece for piece, moves in zip(pieces, said, strict=True) if not moves)
    return Moves("".join(said), ignored)


def _moves_of(word: str) -> str:
    return _SAID.get(word) or (word if _LETTERS.fullmatch(word) else "")


@dataclass(frozen=True, slots=True)
class Step:
    """One move that the robot tried.

    :ivar to: where it is after it; with ``bump`` where the wall is that it stayed before.
    """

    move: str
    begin: Cell
    to: Cell
    bump: bool


@dataclass(frozen=True, slots=True)
class Walk:
    """What became of moves.

    :ivar reached: whether the robot came to the exit, where it stops.
    :ivar left_over: moves that were not made: behind the exit, or beyond the robot's patience.
    """

    steps: tuple[Step, ...]
    end: Cell
    reached: bool
    left_over: int

    @property
    def bumps(self) -> int:
        """Moves into a wall."""
        return sum(step.bump for step in self.steps)


def walk(maze: Maze, moves: Iterable[str]) -> Walk:
    """Follow moves from the start until the exit."""
    todo = list(moves)
    at, steps = maze.start, []
    for move in todo[: PATIENCE * maze.height * maze.width]:
        if at == maze.exit:
            break
        to = (at[0] + MOVES[move][0], at[1] + MOVES[move][1])
        bump = to not in maze.floor
        steps.append(Step(move, at, to, bump))
        at = at if bump else to
    return Walk(tuple(steps), at, at == maze.exit, len(todo) - len(steps))
