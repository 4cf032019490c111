"""What people, and the scripts that work for them, are called: in commands, ratings, events and lists of clients.

One account is often shared, on a lab's machine or by a person and an agent; so a name is said, not looked up.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Sequence

from sessions.errors import InvalidValue

LONGEST = 32
"""Characters of a name."""
_FORM = re.compile(r"[^\W_](?:[\w.\- ]*[\w.\-])?")


def check_person(name: str) -> str:
    """A name that may stand in records and on screens.

    :raises InvalidValue: if it has anything else in it than letters, digits and ``. _ - space``, does not begin with
        a letter or a digit, ends in a space, or is longer than 32 characters.
    """
    if len(name) > LONGEST or not _FORM.fullmatch(name):
        shown = name if len(name) <= LONGEST else f"{name[:LONGEST]}.."
        raise InvalidValue(
            f"{shown!r} is not a name: at most {LONGEST} letters, digits, and . _ - space after the first"
        )
    return name


def whoami() -> str:
    """The name of the user who runs this process, as far as it can be a name here."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
    name = re.sub(r"[^\w.\- ]", "-", user)[:LONGEST].strip(" ").lstrip("._-")
    return name if _FORM.fullmatch(name) else "somebody"


def client_title(kind: str, who: str, terminal: str, *, read_only: bool) -> str:
    """One client in a list of them: ``ann (pts/3) read-only``; a client that is no screen says what it is.

    :param kind: what the client calls itself, such as ``screen`` or ``send``.
    :param who: whose it is; empty: it did not say.
    """
    name = kind if not who else who if kind == "screen" else f"{who} {kind}"
    where = f" ({terminal})" if terminal else ""
    return f"{name}{where}" + (" read-only" if read_only else "")


def clients_words(titles: Sequence[str], own: str, who: str) -> list[str]:
    """The titles of all clients, with ``you`` first for this one; another of the same title stays.

    :param own: this client's title.
    :param who: its name, with which its title begins.
    """
    if not who or own not in titles:
        return list(titles)
    others = list(titles)
    others.remove(own)
    return [f"you{own.removeprefix(who)}", *others]
