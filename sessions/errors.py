"""Every error a person can meet, in one tree.

WorkbenchError              one line: what, where, what to do; exit code 1
|-- UsageError              the request itself is wrong; exit code 2
|   |-- UnknownName         no hyperparameter, model, task, command ... of that name
|   |-- InvalidValue        a value that its definition refuses
|   `-- InputFileError      a file that cannot be read or understood
|-- SessionError            the session cannot do that now
|   |-- NoSuchSession
|   |-- SessionRunning      a second engine on one session
|   `-- EngineUnreachable   no engine answers
|       `-- EngineEnded     it has ended by itself; the message is its cause
|-- Refused                 a command that the engine rejected
`-- WireError               what came over the socket cannot be used
    |-- MalformedFrame
    |-- FrameTooLarge
    `-- VersionMismatch
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WorkbenchError(Exception):
    """Base of the tree: ``str(error)`` is one line that says what, where and what to do."""

    exit_code = 1


class UsageError(WorkbenchError):
    """The request itself is wrong."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that nothing answers to; the message offers the nearest known one.

    :param kind: what was looked for, such as ``hyperparameter``.
    :param name: what was given.
    :param known: every name that would have been right.
    """

    LISTED_BY = {"hyperparameter": "workbench hyperparameters", "command": "workbench send --help"}

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        if near:
            remedy = f"did you mean {near[0]}?"
        elif len(names) <= 12:
            remedy = f"known: {', '.join(names)}" if names else "there are none yet"
        elif kind in self.LISTED_BY:
            remedy = f"`{self.LISTED_BY[kind]}` lists the {len(names)} there are"
        else:
            remedy = f"known: {', '.join(names[:12])}, ..."
        super().__init__(f"unknown {kind} {name!r}; {remedy}")
        self.kind, self.name = kind, name


class InvalidValue(UsageError):
    """A value outside what its definition allows."""


class InputFileError(UsageError):
    """A file that cannot be read, or whose content is not what it should be."""


class SessionError(WorkbenchError):
    """The session cannot do that now."""


class NoSuchSession(SessionError):
    """No session of that name; exit code 2, because the name was the mistake."""

    exit_code = 2

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        remedy = f"did you mean {near[0]}?" if near else "`workbench list` shows those there are"
        super().__init__(f"no session named {name!r}; {remedy}")


class SessionRunning(SessionError):
    """A second engine was asked for on a session that has one."""


class EngineUnreachable(SessionError):
    """Nobody answers on the session's socket."""


class EngineEnded(EngineUnreachable):
    """An engine ended by itself.

    :param cause: one line for people.
    :param code: its exit code; 2, when the request was the mistake, is handed on.
    """

    def __init__(self, cause: str, code: int | None) -> None:
        super().__init__(cause)
        self.exit_code = 2 if code == 2 else 1


class Refused(WorkbenchError):
    """The engine rejected a command; the message is its reason."""


class WireError(WorkbenchError):
    """Something on the socket cannot be used."""


class MalformedFrame(WireError):
    """A line that is not a message."""


class FrameTooLarge(WireError):
    """A line over the limit."""


class VersionMismatch(WireError):
    """The other side speaks another version of the protocol."""
