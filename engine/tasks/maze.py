"""A robot in a maze: the prompt draws it, the response is a path of moves.

    s.*
    *..
    .*e
    =           is answered 6 2 6 2, or rdrd, or right, down, right, down

The reward is 1 for the exit, 0.2 for the share of the way that was made, 0.2 for the share of the response that can be
read as moves, up to 0.1 less for bumps into walls and, of those that reach the exit, up to 0.1 less for a way longer
than the shortest. Silence earns 0, so that trying a move is worth it. The level of a maze is its width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.randomness import permutation, stream
from engine.rewards import Component
from engine.tasks.task import Prompt, Task, interleaved
from sessions.maze import DRAWINGS, MOVES, Maze, Walk, read_maze, read_moves, walk
from sessions.task_kinds import TASK_KINDS

MOST = 2000
"""Mazes of each size, where there are so many; a tenth of them is held out."""
HELD_OUT = 200
"""Proposed number of held-out mazes, of all sizes together."""
BUMPS = 5
"""Bumps from which the penalty grows no more."""
_SEED = 1
"""Of the mazes themselves and of the split, which are the same in every session."""
_INSTRUCTIONS = (
    "A robot stands in a maze at {start} and has to get to the exit {exit}. {wall} is a wall, {floor} is free; it "
    "cannot leave the maze.\n\n{maze}\n\nAnswer with its moves only, one letter each: u up, d down, l left, r right."
)


def _walks(mazes: Sequence[str], completions: Sequence[str]) -> list[tuple[Maze, Walk]]:
    found = [(read_maze(maze), read_moves(text)) for maze, text in zip(mazes, completions, strict=True)]
    return [(maze, walk(maze, said.moves)) for maze, said in found if maze is not None]


def reaches_exit(completions: Sequence[str], maze: Sequence[str], **_: Any) -> list[float | None]:
    """1 where the robot comes to the exit, else 0."""
    return [float(way.reached) for _, way in _walks(maze, completions)]


def readable(completions: Sequence[str], **_: Any) -> list[float | None]:
    """The share of the words and digits of a response that are moves; 0 where it has no move."""
    said = [read_moves(text) for text in completions]
    return [len(s.moves) / (len(s.moves) + len(s.ignored)) if s.moves else 0.0 for s in said]


def progress(completions: Sequence[str], maze: Sequence[str], **_: Any) -> list[float | None]:
    """How much of the shortest way lies behind it at the end: max(0, 1 - d(end) / d(start))."""
    return [
        max(0.0, 1 - where.distances()[way.end] / (where.shortest or 1)) for where, way in _walks(maze, completions)
    ]


def bumps(completions: Sequence[str], maze: Sequence[str], **_: Any) -> list[float | None]:
    """Minus the share of five bumps into walls that it made: 0 to -1."""
    return [-min(way.bumps, BUMPS) / BUMPS for _, way in _walks(maze, completions)]


def detour(completions: Sequence[str], maze: Sequence[str], **_: Any) -> list[float | None]:
    """Minus the moves beyond the shortest way over its length, at most 1; only of those that reach the exit."""
    return [
        -min(1.0, (len(way.steps) + way.left_over) / (where.shortest or 1) - 1) if way.reached else None
        for where, way in _walks(maze, completions)
    ]


def maze(
    sizes: Sequence[int] = (3,),
    wall_share: float = 0.3,
    drawing: str = "stars",
    *,
    rows: int = 0,
    instructions: bool = False,
    curriculum: bool = False,
    evaluation_rows: int = 0,
) -> Task:
    """Mazes so many cells wide, and as high.

    :param rows: cells that they are high instead.
    :param wall_share: of the cells, about; the exit can always be reached.
    :param drawing: whose characters draw them (:data:`sessions.maze.DRAWINGS`).
    :param instructions: whether words around the drawing say what is wanted, as a language model needs it.
    :param curriculum: whether the size that comes next follows the success.
    :param evaluation_rows: how many held-out mazes to evaluate on, of all sizes; 0: :data:`HELD_OUT`.
    """
    train: list[Prompt] = []
    held: list[list[Prompt]] = []
    for size in sizes:
        made = _mazes(rows or size, size, wall_share, drawing).items()
        prompts = [_prompt(where, drawn, drawing, instructions) for drawn, where in made]
        order = permutation("maze split", _SEED, size, rows, n=len(prompts))
        out = max(1, len(prompts) // 10)
        held.append([prompts[int(i)] for i in order[:out]])
        train += [prompts[int(i)] for i in order[out:]]
    return Task(
        name="maze",
        prompts=train,
        evaluation=interleaved(held)[: evaluation_rows or HELD_OUT],
        components={
            "exit": Component(reaches_exit),
            "readable": Component(readable, 0.2),
            "progress": Component(progress, 0.2),
            "bumps": Component(bumps, 0.1),
            "detour": Component(detour, 0.1),
        },
        reward_range=(-0.1, 1.4),
        judge=lambda prompt, text: reaches_exit([text], [prompt.columns["maze"]])[0] == 1,
        defaults={**TASK_KINDS["maze"].defaults, "max_new_tokens": 4 * max(sizes)},
        curriculum=curriculum,
    )


def _prompt(where: Maze, drawn: str, drawing: str, instructions: bool) -> Prompt:
    wall, floor, start, leave = DRAWINGS[drawing]
    words = _INSTRUCTIONS.format(wall=wall, floor=floor, start=start, exit=leave, maze=drawn)
    return Prompt(
        id=drawn.replace("\n", "/"),
        text=words if instructions else f"{drawn}\n=",
        answer=_solution(where),
        columns={"maze": drawn},
        level=where.width,
        drawing="maze",
    )


def _solution(where: Maze) -> str:
    """One of the shortest ways, in letters."""
    distances, at, moves = where.distances(), where.start, ""
    while at != where.exit:
        move, at = next(
            (move, to)
            for move, (down, right) in MOVES.items()
            if distances.get(to := (at[0] + down, at[1] + right), len(distances)) < distances[at]
        )
        moves += move
    return moves


def _mazes(height: int, width: int, wall_share: float, drawing: str) -> dict[str, Maze]:
    """Different mazes whose exit can be reached, by how they are drawn, in a seeded order."""
    numbers = stream("maze", _SEED, height, width, str(wall_share))
    found: dict[str, Maze] = {}
    for _ in range(4 * MOST):  # of small ones there are not so many
        if len(found) == MOST:
            break
        start, leave = (divmod(int(i), width) for i in numbers.choice(height * width, 2, replace=False))
        walls = (numbers.random((height, width)) < wall_share).tolist()
        floor = frozenset((y, x) for y in range(height) for x in range(width) if not walls[y][x]) | {start, leave}
        made = Maze(height, width, floor, start, leave)
        if made.shortest is not None:
            found[made.draw(drawing)] = made
    return found
