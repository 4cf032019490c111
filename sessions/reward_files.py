"""What can be known of a file with reward functions before it is run: that it reads as Python and defines them."""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from sessions.errors import InputFileError

LONGEST_SOURCE = 8 * 2**20
"""Bytes of a file of Python."""


def read_source(path: Path) -> str:
    """The text of a Python file, in the encoding that it names.

    :raises InputFileError: if it cannot be read as one.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_SOURCE + 1)
        if len(content) > LONGEST_SOURCE:
            raise InputFileError(f"reward {path}: more than {LONGEST_SOURCE:,} bytes; that is no file of functions")
        return importlib.util.decode_source(content)
    except OSError as error:
        raise InputFileError(f"reward {path}: cannot be read ({error.strerror})") from None
    except (SyntaxError, UnicodeError) as error:
        raise InputFileError(f"reward {path}: is not text in the encoding that it should have ({error})") from None


def check_reward_file(path: Path, function: str) -> None:
    """Check that a file defines a name, without running it.

    :param function: a name, or names with dots of which the first is looked for.
    :raises InputFileError: with the file and the line that is wrong, or the nearest name.
    """
    source = read_source(path)
    try:
        tree = ast.parse(source, str(path))
    except SyntaxError as error:
        raise InputFileError(f"reward {path}:{error.lineno or 1}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputFileError(f"reward {path}: cannot be read as Python ({error})") from None
    defined = set(_names(tree.body))
    wanted = function.split(".")[0]
    if "*" in defined or "__getattr__" in defined or wanted in defined:
        return
    known = sorted(name for name in defined if not name.startswith("_"))
    near = difflib.get_close_matches(wanted, known, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"it has {', '.join(known[:8]) or 'nothing'}"
    raise InputFileError(f"reward {path}: defines no {wanted}; {remedy}")


def _names(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The names that a module has once its statements have run; ``*`` where that cannot be told."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name.split(".")[0] for alias in names)
            case ast.Expr():
                if _may_define(statement):
                    yield "*"
            case _:
                yield from (n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and _is_stored(n))
                for field in ("body", "orelse", "finalbody"):
                    yield from _names(getattr(statement, field, []))
                for handler in getattr(statement, "handlers", []):
                    yield from _names(handler.body)
                if _may_define(statement):
                    yield "*"


def _is_stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _may_define(statement: ast.stmt) -> bool:
    """Whether it reaches into the module's own names: ``globals()[...]``, ``exec``."""
    names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
    return bool(names & {"globals", "exec", "setattr", "vars", "locals"})
