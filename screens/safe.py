"""Text of a model made safe to draw: nothing in it reaches the terminal as a command, nothing in it is markup.

Control characters become their pictures (``ESC`` is ``␛``), what has no picture and would be invisible or change the
direction of the text becomes ``<U+202E>``. Widths are terminal cells, not characters: wide characters take two,
combining ones none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from rich.cells import cell_len
from rich.cells import get_character_cell_size as _cells

TAB = 4

_INVISIBLE = {
    *range(0x80, 0xA0),  # C1 controls: 0x9B opens an escape sequence by itself
    0x00AD,  # soft hyphen
    0x061C,  # Arabic letter mark
    0x115F,  # Hangul fillers: blank, but not spaces
    0x1160,
    0x180E,
    *range(0x200B, 0x2010),  # zero-width space, joiners and direction marks
    *range(0x2028, 0x202F),  # line and paragraph separators, bidi embeddings and overrides
    *range(0x2060, 0x2070),  # word joiner, invisible operators, bidi isolates
    0x3164,
    0xFEFF,
    0xFFA0,
    *range(0xFFF9, 0xFFFC),  # interlinear annotations
    *range(0xE0000, 0xE0080),  # tag characters: text that no one sees
}
_ASCII = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)}


def _shown(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return f"<U+{code:04X}>"


_UNSAFE = re.compile("[" + "".join(f"\\U{code:08x}" for code in sorted(_INVISIBLE)) + "\x00-\x1f\x7f\ud800-\udfff]")
_TOKEN = re.compile(r" +|[^ ]+")
_MOST_COMBINING = 4
"""Marks kept on one character: more than any script needs is a way to draw over the lines above."""
_MARK = r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_STACK = re.compile(rf"({_MARK}{{{_MOST_COMBINING}}}){_MARK}+")


_RETURN = re.compile(r"\r(?=\n)")
_TO_TAB = re.compile(r"([^\t\n]*)([\t\n]|\Z)")

_escapes = False


def use_escapes(on: bool) -> None:
    """Write control characters as ``\\x1b`` from now on, for terminals without the pictures."""
    global _escapes
    _escapes = on


def visible(text: str, *, newlines: bool = False) -> str:
    """The text with every character that is not drawn as itself replaced by one that is.

    :param newlines: keep line feeds (and read ``\\r\\n`` as one); else they are shown as ``␊``.
    """
    return visible_places(text, (), newlines=newlines)[0]


def visible_places(text: str, places: Iterable[int], *, newlines: bool = False) -> tuple[str, list[int]]:
    """The text as :func:`visible` has it, and where places of it, in rising order, have moved to."""
    moved = list(places)

    def picture(match: re.Match[str]) -> str:
        code = ord(match[0])
        if code == 0x0A and newlines:
            return "\n"
        return _ASCII[code] if _escapes and code in _ASCII else _shown(code)

    if newlines:
        text, moved = _replace(_RETURN, lambda match: "", text, moved)
    if "\t" in text:
        text, moved = _replace(_TO_TAB, _spaces, text, moved, group=2)
    text, moved = _replace(_UNSAFE, picture, text, moved)
    return _replace(_STACK, lambda match: match[1], text, moved)


def _spaces(match: re.Match[str]) -> str:
    """Of a tab, up to the next stop: the one before it ended at a stop."""
    return " " * (TAB - cell_len(match[1]) % TAB) if match[2] == "\t" else match[2]


def _replace(
    pattern: re.Pattern[str], make: Callable[[re.Match[str]], str], text: str, places: list[int], *, group: int = 0
) -> tuple[str, list[int]]:
    """``pattern.sub``, or of one group of it, and what becomes of places; one inside of what is replaced: its end."""
    out: list[str] = []
    moved: list[int] = []
    done = shift = at = 0
    for match in pattern.finditer(text):
        start, end = match.span(group)
        while at < len(places) and places[at] <= start:
            moved.append(places[at] + shift)
            at += 1
        new = make(match)
        shift += len(new) - (end - start)
        while at < len(places) and places[at] < end:
            moved.append(end + shift)
            at += 1
        out += [text[done:start], new]
        done = end
    if not done:
        return text, places
    moved.extend(place + shift for place in places[at:])
    return "".join([*out, text[done:]]), moved


def clusters(text: str) -> list[str]:
    """The text as what is drawn together: a character with what takes no cells of its own after it."""
    out: list[str] = []
    for char in text:
        if out and char > "\x7f" and cell_len(out[-1] + char) <= max(cell_len(out[-1]), 2 * (not _cells(char))):
            out[-1] += char
        else:
            out.append(char)
    return out


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` cells, broken at spaces where there are any; the text's own line feeds are kept.

    Made visible first, so the lines can be drawn as they are. An empty text is one empty line.
    """
    return [
        line[start:end] for line in visible(text, newlines=True).split("\n") for start, end in wrap_places(line, width)
    ]


def wrap_places(line: str, width: int) -> list[tuple[int, int]]:
    """Where the lines that one visible line is wrapped to begin and end in it; between them are only spaces."""
    width = max(2, width)  # a wide character must fit somewhere
    if cell_len(line) <= width:
        return [(0, len(line))]
    places: list[tuple[int, int]] = []
    start = end = used = 0
    for match in _TOKEN.finditer(line):
        size = cell_len(match[0])
        if used + size <= width:
            end, used = match.end(), used + size
            continue
        if match[0][0] == " ":
            # The spaces at a break belong to it: a new line does not begin with them.
            places.append((start, end))
            start = end = match.end()
            used = 0
            continue
        if size <= width:
            if end > start:
                places.append((start, start + len(line[start:end].rstrip(" "))))
            start, end, used = match.start(), match.end(), size
            continue
        for cluster in clusters(match[0]):
            cells = cell_len(cluster)
            if used + cells > width:
                places.append((start, end))
                start, used = end, 0
            end, used = end + len(cluster), used + cells
    if end > start or not places:
        places.append((start, end))
    return places


def cut(text: str, width: int) -> str:
    """The longest start of ``text`` that takes at most ``width`` cells."""
    if text.isascii():
        return text[: max(0, width)]
    out, used = "", 0
    for cluster in clusters(text):
        used += cell_len(cluster)
        if used > width:
            break
        out += cluster
    return out


def tail(text: str, width: int) -> str:
    """The end of ``text`` on one line that takes at most ``width`` cells, made visible."""
    kept = clusters(visible(text[-2 * width :]))
    used, first = 0, len(kept)
    while first and used + cell_len(kept[first - 1]) <= width:
        first -= 1
        used += cell_len(kept[first])
    return "".join(kept[first:])


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Exactly ``width`` cells on one line: made visible, cut with ``..``, or filled with spaces.

    :param right: put the spaces before the text.
    """
    width = max(0, width)
    text = visible(text)
    size = len(text) if text.isascii() else cell_len(text)
    if size > width:
        text = cut(text, width - 2) + ".." if width > 4 else cut(text, width)
        size = cell_len(text)
    space = " " * (width - size)
    return space + text if right else text + space
