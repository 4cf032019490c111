"""Reading mazes and moves, and following them."""

from __future__ import annotations

import random
import time
from itertools import product

import pytest

from sessions.maze import DRAWINGS, MOVES, PATIENCE, read_maze, read_moves, walk

SMALL = "s.*\n*..\n.*e"


def exits(rows: list[str], moves: str) -> bool:
    """Whether moves lead out, followed one character at a time in the rows as they are drawn."""
    y, x = next((y, row.index("s")) for y, row in enumerate(rows) if "s" in row)
    for move in moves:
        a, b = {"u": (y - 1, x), "d": (y + 1, x), "l": (y, x - 1), "r": (y, x + 1)}[move]
        if 0 <= a < len(rows) and 0 <= b < len(rows[0]) and rows[a][b] != "*":
            y, x = a, b
        if rows[y][x] == "e":
            return True
    return False


def test_a_drawing_is_read_whatever_stands_around_it() -> None:
    maze = read_maze("Find the way:\n\n  s.*  \n\t*..\n.*e\n=\nmoves:")
    assert maze is not None
    assert (maze.height, maze.width, maze.start, maze.exit) == (3, 3, (0, 0), (2, 2))
    assert sorted(maze.floor) == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 2)]
    assert maze.draw("stars") == SMALL


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_every_drawing_reads_back(drawing: str) -> None:
    maze = read_maze(SMALL)
    assert maze is not None
    assert read_maze(maze.draw(drawing)) == maze


@pytest.mark.parametrize(
    "text", ["", "3+4=", "s..\n...", "s.e\n..", "s.e.s", "a maze: s.e!", "#.se", "se\nse", "\0\n\x1b[2J"]
)
def test_what_is_no_maze_is_none(text: str) -> None:
    maze = read_maze(text)
    assert maze is None or (maze.height, maze.width) == (1, 3)  # one row of three is one, above a shorter line
    assert (maze is None) == (text != "s.e\n..")


def test_the_shortest_way_is_that_of_a_search_through_all_moves() -> None:
    """Against trying every sequence of moves on the characters."""
    rng = random.Random(3)
    found = 0
    for _ in range(40):
        cells = ["*" if rng.random() < 0.35 else "." for _ in range(6)]
        cells[rng.randrange(3)], cells[3 + rng.randrange(3)] = "s", "e"
        rows = ["".join(cells[:3]), "".join(cells[3:])]
        maze = read_maze("\n".join(rows))
        assert maze is not None
        tried = (n for n in range(1, 6) for moves in product("udlr", repeat=n) if exits(rows, "".join(moves)))
        shortest = next(tried, None)
        assert maze.shortest == shortest
        found += shortest is not None
    assert 10 < found < 40


def test_distances_are_one_more_than_the_nearest_neighbours() -> None:
    """On mazes with many ways round, against values that are lowered until they stay."""
    rng = random.Random(4)
    for _ in range(20):
        cells = ["*" if rng.random() < 0.2 else "." for _ in range(36)]
        cells[rng.randrange(18)], cells[18 + rng.randrange(18)] = "s", "e"
        maze = read_maze("\n".join("".join(cells[i : i + 6]) for i in range(0, 36, 6)))
        assert maze is not None
        free = [divmod(i, 6) for i in range(36) if cells[i] != "*"]
        far = {cell: 0 if cells[cell[0] * 6 + cell[1]] == "e" else 99 for cell in free}
        for _ in range(36):
            for y, x in free:
                near = [far[c] for c in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)) if c in far]
                far[y, x] = min([far[y, x], *(n + 1 for n in near)])
        assert maze.distances() == {cell: n for cell, n in far.items() if n < 99}


def test_a_walk_is_what_following_the_characters_gives() -> None:
    rng = random.Random(1)
    rows = SMALL.split("\n")
    maze = read_maze(SMALL)
    assert maze is not None
    reached = 0
    for _ in range(300):
        moves = "".join(rng.choice("udlr") for _ in range(rng.randrange(12)))
        way = walk(maze, moves)
        assert way.reached == exits(rows, moves)
        assert len(way.steps) + way.left_over == len(moves)
        reached += way.reached
    assert 10 < reached < 290


def test_bumps_leave_the_robot_where_it_is() -> None:
    maze = read_maze(SMALL)
    assert maze is not None
    way = walk(maze, "uldr")  # off the upper edge, off the left one, into the wall below, and on
    assert [step.bump for step in way.steps] == [True, True, True, False]
    assert [step.to for step in way.steps] == [(-1, 0), (0, -1), (1, 0), (0, 1)]
    assert (way.bumps, way.end, way.reached) == (3, (0, 1), False)


def test_the_robot_stops_at_the_exit_and_when_it_loses_patience() -> None:
    maze = read_maze(SMALL)
    assert maze is not None
    way = walk(maze, "rdrd" + "uu")
    assert (way.reached, way.end, len(way.steps), way.left_over) == (True, (2, 2), 4, 2)
    way = walk(maze, "u" * 100)
    assert (len(way.steps), way.left_over) == (PATIENCE * 9, 100 - PATIENCE * 9)


@pytest.mark.parametrize(
    ("text", "moves", "ignored"),
    [
        ("udlr", "udlr", ()),
        ("U, d; L - r", "udlr", ()),
        ("up, up, Left\nRIGHT then down", "uulrd", ("then",)),
        ("↑→↓←", "urdl", ()),
        ("8246", "udlr", ()),
        ("62 62", "rdrd", ()),
        ("0615", "r", ("0", "1", "5")),
        ("1. up\n2. right\n3. down", "urd", ("1", "2", "3")),  # digits number the lines here
        ("The answer: rrd", "rrd", ("the", "answer")),
        ("", "", ()),
        ("!?\x1b[31m\x00", "", ("3", "1", "m")),
        ("north", "", ("north",)),
    ],
)
def test_moves_are_read_in_every_spelling(text: str, moves: str, ignored: tuple[str, ...]) -> None:
    said = read_moves(text)
    assert (said.moves, said.ignored) == (moves, ignored)


def test_a_response_of_any_length_is_read_in_no_time() -> None:
    maze = read_maze(SMALL)
    assert maze is not None
    began = time.process_time()
    said = read_moves("lu " * 1_000_000)
    way = walk(maze, said.moves)
    assert len(way.steps) == PATIENCE * 9
    assert way.left_over + len(way.steps) == len(said.moves) < 20_000
    assert time.process_time() - began < 5  # a generous bound on what would take minutes if it were not cut


def test_every_move_has_an_opposite() -> None:
    assert sorted(MOVES.values()) == sorted((-y, -x) for y, x in MOVES.values())
