"""The responses whose reward rose most, as lines: for the pane and for `send`. No Textual in it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from screens.numbers import percent
from screens.safe import visible, wrap
from sessions.rose import Rose, Roses, Shown

Pieces = list[tuple[str, str]]
"""Text and its tone, of one line."""
MOST_LINES = 12
"""Lines of a response that the pane shows."""
_INDENT = 4


def rose_lines(roses: Roses, width: int, most: int = MOST_LINES) -> tuple[list[Pieces], list[int]]:
    """All rows, wrapped.

    :param most: lines shown of each text; 0: all.
    :returns: the lines, and the index of the first line of each row.
    """
    lines: list[Pieces] = [[(line, "")] for text in headings(roses) for line in wrap(text, width)]
    starts: list[int] = []
    for number, rose in enumerate(roses.rows, 1):
        lines.append([])
        starts.append(len(lines))
        alike = [(f"{rose.alike} of its group are alike", "dim")] if rose.alike > 1 else []
        title = [(rose.response.name, "accent"), (f"+{_number(rose.rise)}", "good"), (_over(rose), ""), *alike]
        lines += _flow(title, width, f"{number:>3} ")
        lines += _flow(_facts(rose.response, roses.checks), width)
        lines += [[(" " * _INDENT + line, "head")] for line in _cut(rose.prompt, width, 3 if most else 0)]
        lines += _text(rose.response, width, most)
        if rose.best is not None:
            lines += _flow(
                [("best before", "dim"), (rose.best.name, "accent"), *_facts(rose.best, roses.checks)], width
            )
            lines += _text(rose.best, width, most)
    return lines, starts


def rose_words(roses: Roses) -> list[str]:
    """The same as plain lines, each text whole."""
    lines, _ = rose_lines(roses, 10_000, most=0)
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def headings(roses: Roses) -> list[str]:
    """What is compared with what."""
    steps = f"step {roses.newest}" if roses.first == roses.newest else f"steps {roses.first} to {roses.newest}"
    then = f"; the steps up to it earned {_number(roses.mean)}" if roses.mean is not None else ""
    lines = [f"{roses.looked} responses of {steps}, compared with what was earned up to step {roses.since}{then}"]
    if roses.checks:
        lines.append(f"held-out checks, which do not teach: {', '.join(map(visible, roses.checks))}")
    if not roses.rows:
        lines.append("none of them earned more than was earned before")
    return lines


def _over(rose: Rose) -> str:
    groups = "1 group" if rose.groups == 1 else f"{rose.groups} groups"
    of = f"this prompt in {groups}" if rose.over == "prompt" else "those steps, for it was not asked then"
    return f"over {_number(rose.before)}, the mean of {of}"


def _facts(shown: Shown, checks: Sequence[str]) -> Pieces:
    """What there is to judge a response by."""
    facts: Pieces = [
        (f"reward {_number(shown.reward)}", ""),
        ("1 token" if shown.length == 1 else f"{shown.length} tokens", ""),
    ]
    if shown.repetition is not None:
        facts.append((f"repeats {percent(shown.repetition)}", ""))
    for name, value in shown.components.items():
        if value is not None:
            check = name in checks
            facts.append(
                (f"{visible(name)} {_number(value)}" + (" (check)" if check else ""), "warn" if check else "dim")
            )
    facts.append((f"rated {visible(shown.rating)}", "accent") if shown.rating else ("not rated", "dim"))
    return facts


def _flow(pieces: Pieces, width: int, begin: str = " " * _INDENT) -> list[Pieces]:
    """Pieces one after the other, two spaces apart, on as many lines as they need."""
    lines: list[Pieces] = [[(begin, "")]]
    used = cell_len(begin)
    for text, tone in pieces:
        for line in wrap(text, max(10, width - _INDENT)):
            if len(lines[-1]) > 1 and used + 2 + cell_len(line) > width:
                lines.append([(" " * _INDENT, "")])
                used = _INDENT
            gap = "  " if len(lines[-1]) > 1 else ""
            lines[-1].append((gap + line, tone))
            used += len(gap) + cell_len(line)
    return lines


def _text(shown: Shown, width: int, most: int) -> list[Pieces]:
    return [[(" " * _INDENT + "| ", "dim"), (line, "")] for line in _cut(shown.text.strip("\n"), width - 2, most)]


def _cut(text: str, width: int, most: int) -> list[str]:
    """A text wrapped; of more lines than ``most`` the first, and how many are left out."""
    lines = wrap(text, max(10, width - _INDENT))
    if not most or len(lines) <= most:
        return lines
    return [*lines[: most - 1], f".. {len(lines) - most + 1} more lines"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
