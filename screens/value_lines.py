"""What the value model said of a response: under each of its last tokens the estimate, what it was trained on, and
the advantage that came of it."""

from __future__ import annotations

from collections.abc import Sequence

from screens.preview import short
from screens.safe import fit
from sessions.records import Response

CELL = 6
LABEL = 8
BLOCKS = 3
"""Blocks of columns at most: a long response shows its last tokens."""
LEAST_WIDTH = LABEL + 2 * CELL


def value_lines(response: Response, width: int) -> list[str]:
    """Blocks of aligned lines, none wider than ``width``; nothing where there was no value model.

    Each column is a token: V_t is read before it and was trained on R_t, the return from it on.
    """
    rows = [
        (label, [write(number) for number in numbers])
        for label, numbers, write in (
            ("value:", response.values, _level),
            ("return:", response.returns, _level),
            ("adv:", response.advantages, short),
        )
        if numbers
    ]
    if not rows:
        return []
    count = max(len(cells) for _, cells in rows)
    columns = max(2, (max(width, LEAST_WIDTH) - LABEL) // CELL)
    first = max(0, count - BLOCKS * columns)
    pieces = _pieces(response, count)
    lines = [_heading(first, count)]
    for start in range(first, count, columns):
        places = range(start, min(start + columns, count))
        if pieces:
            lines.append(_line("token:", [pieces[i] for i in places]))
        for label, cells in rows:
            lines.append(_line(label, [cells[i] if i < len(cells) else "-" for i in places]))
    return lines


def _level(value: float) -> str:
    """``0.65``; without decimals from 100 on."""
    text = f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return "0.00" if text == "-0.00" else text


def _heading(first: int, count: int) -> str:
    if first:
        return f".. the last {count - first} of {count} tokens; value before each, return: what it was trained on"
    return "value before each token; return: what it was trained on"


def _line(label: str, cells: Sequence[str]) -> str:
    return (label.ljust(LABEL) + "".join(fit(cell, CELL - 1) + " " for cell in cells)).rstrip()


def _pieces(response: Response, count: int) -> list[str]:
    """The text of each token, spaces in quotes; empty where it is not known. The end token has none of its own."""
    if len(response.ends) < count:
        return []
    starts = [0, *response.ends]
    pieces = [response.text[a:b] for a, b in zip(starts, response.ends)]
    pieces = [f"'{piece}'" if piece and not piece.strip(" ") else piece for piece in pieces]
    return [piece if piece else "eos" if response.ended and i == count - 1 else "" for i, piece in enumerate(pieces)]
