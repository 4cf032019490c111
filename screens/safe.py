"""Text of a model made safe to draw: nothing in it reaches the terminal as a command, nothing in it is markup.

Control characters become their pictures (``ESC`` is ``␛``), what has no picture and would be invisible or change the
direction of the text becomes ``<U+202E>``. Widths are terminal cells, not characters: wide characters take two,
combining ones none.
"""

from __future__ import annotations

import re

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
_MOST_COMBINING = 4
"""Marks kept on one character: more than any script needs is a way to draw over the lines above."""
_MARK = r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_STACK = re.compile(rf"({_MARK}{{{_MOST_COMBINING}}}){_MARK}+")


_escapes = False


def use_escapes(on: bool) -> None:
    """Write control characters as ``\\x1b`` from now on, for terminals without the pictures."""
    global _escapes
    _escapes = on


def visible(text: str, *, newlines: bool = False) -> str:
    """The text with every character that is not drawn as itself replaced by one that is.

    :param newlines: keep line feeds (and read ``\\r\\n`` as one); else they are shown as ``␊``.
    """
    if newlines:
        text = text.replace("\r\n", "\n")
    if "\t" in text:
        text = "\n".join(_expand_tabs(line) for line in text.split("\n"))

    def replace(match: re.Match[str]) -> str:
        code = ord(match[0])
        if code == 0x0A and newlines:
            return "\n"
        return _ASCII[code] if _escapes and code in _ASCII else _shown(code)

    return _STACK.sub(r"\1", _UNSAFE.sub(replace, text))


def _expand_tabs(line: str) -> str:
    out = ""
    for part in re.split("(\t)", line):
        out += " " * (TAB - cell_len(out) % TAB) if part == "\t" else part
    return out


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
    width = max(2, width)  # a wide character must fit somewhere
    lines: list[str] = []
    for line in visible(text, newlines=True).split("\n"):
        lines.extend(_wrap_line(line, width))
    return lines


def _wrap_line(line: str, width: int) -> list[str]:
    if cell_len(line) <= width:
        return [line]
    lines: list[str] = []
    current, used = "", 0
    for token in re.findall(r" +|[^ ]+", line):
        size = cell_len(token)
        if used + size <= width:
            current, used = current + token, used + size
            continue
        if token[0] == " ":
            # The spaces at a break belong to it: a new line does not begin with them.
            lines.append(current)
            current, used = "", 0
            continue
        if size <= width:
            if current:
                lines.append(current.rstrip(" "))
            current, used = token, size
            continue
        for cluster in clusters(token):
            cells = cell_len(cluster)
            if used + cells > width:
                lines.append(current)
                current, used = "", 0
            current, used = current + cluster, used + cells
    if current or not lines:
        lines.append(current)
    return lines


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
