"""What branches answered to the probe prompts, side by side, with the words that differ marked. No Textual in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import zip_longest

from screens.numbers import percent
from screens.safe import fit, visible, wrap
from sessions.branches import Probe
from sessions.comparison import ProbePair

Pieces = list[tuple[str, str]]
"""Text and its tone, of one line."""
SIDE_BY_SIDE = 70
"""Cells from which two answers stand beside each other."""


def verdict(probe: Probe | None) -> str:
    """``right`` or ``WRONG``; the words tell, not the colour."""
    return "never asked" if probe is None else "right" if probe.right else "WRONG"


def score_words(pairs: Sequence[ProbePair], names: Sequence[str]) -> str:
    """``main 12 of 16 right, hot 14 of 16; they differ on 4``."""
    parts = []
    for place, name in enumerate(names):
        asked = [found for pair in pairs if (found := pair.answers[place]) is not None]
        right = sum(found.right for found in asked)
        share = f" ({percent(right / len(asked))})" if asked else ""
        parts.append(f"{name} {right} of {len(asked)} right{share}" if asked else f"{name} was never asked")
    unequal = sum(not pair.agree for pair in pairs)
    return ", ".join(parts) + (f"; one is right and another wrong on {unequal}" if len(names) > 1 else "")


def probe_words(probes: Sequence[Probe]) -> list[str]:
    """The answers of one branch, a paragraph each."""
    if not probes:
        return ["it has not been asked the probe prompts"]
    right = sum(probe.right for probe in probes)
    lines = [f"{probes[0].branch} after step {probes[0].step}: {right} of {len(probes)} right"]
    for probe in probes:
        lines += ["", f"{probe.place + 1}  {verdict(probe)}  answer {probe.answer}", probe.prompt, "->", probe.text]
    return "\n".join(lines).split("\n")


def marked_words(text: str, other: str) -> list[bool]:
    """For every character of a text that is no space, whether its word is another than in the other text."""
    mine, theirs = text.split(), other.split()
    same = [False] * len(mine)
    for block in difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks():
        same[block.a : block.a + block.size] = [True] * block.size
    return [not same[place] for place, word in enumerate(mine) for _ in word]


def marked_lines(text: str, other: str, width: int) -> list[tuple[Pieces, bool]]:
    """A text wrapped, words that the other text does not have in the tone ``found``; and whether a line has any."""
    text, other = visible(text, newlines=True), visible(other, newlines=True)
    flags = iter(marked_words(text, other))
    lines = []
    for line in wrap(text, width):
        pieces: Pieces = []
        for part in re.findall(r"\s+|\S+", line):
            marks = [next(flags, False) for _ in part] if not part.isspace() else [False]
            pieces.append((part, "found" if any(marks) else ""))
        lines.append((pieces, any(tone for _, tone in pieces)))
    return lines


def probe_lines(pairs: Sequence[ProbePair], names: Sequence[str], width: int) -> tuple[list[Pieces], list[int]]:
    """Every probe prompt with its answers; two beside each other where there is room, else under each other.

    Between two answers stands ``!`` on the lines where their words differ.

    :returns: the lines, and the index of the first line of each prompt.
    """
    lines: list[Pieces] = []
    starts: list[int] = []
    for pair in pairs:
        starts.append(len(lines))
        question = wrap(pair.prompt.strip() or "(an empty prompt)", max(10, width - 6))
        lines += [
            [(f"{pair.place + 1:>3}  " if not i else "     ", "head"), (q, "head")] for i, q in enumerate(question)
        ]
        if pair.answer:
            lines.append([("     ", ""), ("answer ", "dim"), (fit(pair.answer, max(1, width - 13)).rstrip(), "dim")])
        if len(names) == 2 and width >= SIDE_BY_SIDE:
            lines += _beside(pair, names, width)
        else:
            lines += _below(pair, names, width)
        lines.append([])
    return lines, starts


def _title(name: str, probe: Probe | None, width: int) -> Pieces:
    word = verdict(probe)
    where = f"{name} @{probe.step}  " if probe is not None else f"{name}  "
    tone = "dim" if probe is None else "good" if probe.right else "bad"
    room = max(0, width - len(word))
    where = fit(where, min(len(where), room))
    return [(where, "accent"), (word, tone), (" " * max(0, width - len(where) - len(word)), "")]


def _beside(pair: ProbePair, names: Sequence[str], width: int) -> list[Pieces]:
    half = (width - 5) // 2
    left, right = pair.answers
    texts = [found.text.strip("\n") if found is not None else "" for found in (left, right)]
    columns = [marked_lines(texts[0], texts[1], half), marked_lines(texts[1], texts[0], half)]
    lines: list[Pieces] = [[(" ", ""), *_title(names[0], left, half), (" | ", "dim"), *_title(names[1], right, half)]]
    for one, other in zip_longest(*columns, fillvalue=([], False)):
        differ = one[1] or other[1]
        gutter = (" ! ", "warn") if differ else (" | ", "dim")
        lines.append([(" ", ""), *_filled(one[0], half), gutter, *other[0]])
    return lines


def _filled(pieces: Pieces, width: int) -> Pieces:
    from rich.cells import cell_len

    used = sum(cell_len(text) for text, _ in pieces)
    return [*pieces, (" " * max(0, width - used), "")]


def _below(pair: ProbePair, names: Sequence[str], width: int) -> list[Pieces]:
    lines: list[Pieces] = []
    first = next((found.text for found in pair.answers if found is not None), "")
    for place, name in enumerate(names):
        found = pair.answers[place]
        lines.append([(" ", ""), *_title(name, found, max(10, width - 2))])
        if found is None:
            continue
        second = next((f.text for i, f in enumerate(pair.answers) if f is not None and i != place), found.text)
        other = second if place == 0 else first
        for pieces, differ in marked_lines(found.text.strip("\n"), other.strip("\n"), max(10, width - 4)):
            lines.append([(" ! " if differ else "   ", "warn" if differ else ""), *pieces])
    return lines
