"""Text of a model made safe to edit, and what is not seen of it given back.

An editor draws what it is given, so it is given pictures in the place of control characters. What a person leaves
untouched has to come back as it was.
"""

from __future__ import annotations

from screens.safe import visible


def veil(text: str) -> str:
    """The text with pictures for what is not drawn as itself; tabs and lines stay."""
    return "\t".join(visible(part, newlines=True) for part in text.split("\t"))


def unveil(text: str, original: str) -> str:
    """An edited text with the control characters of the original again, where a picture can only be one of those."""
    for char in dict.fromkeys(original):
        shown = visible(char, newlines=True)
        if shown and shown != char and char not in "\t\r\n" and shown not in original:
            text = text.replace(shown, char)
    return text
