"""A screen that only watches: ``attach --read-only``. The engine refuses its commands too; here it is said at once."""

from __future__ import annotations

from textual.content import Content
from textual.dom import DOMNode

from screens.keys import CHANGING

REFUSAL = "read-only: nothing is changed from here; attach without --read-only to work with the session"
_MARK = "read-only"


def refused(action: str, node: DOMNode) -> bool:
    """Whether an action that a key works here would change something.

    :param action: as the registry writes it.
    :param node: what the key belongs to.
    """
    return action in CHANGING and bool(node.check_action(action.partition("(")[0], ()))


def room(width: int) -> int:
    """What the mark leaves of the first line."""
    return max(0, width - len(_MARK) - 2)


def marked(line: Content, width: int) -> Content:
    """The first line with the mark at its right edge."""
    kept = line.truncate(room(width))
    gap = max(1, width - kept.cell_length - len(_MARK) - 1)
    return Content.assemble(kept, " " * gap, (_MARK, "bold $text-warning"))
