"""``compare``: branches of a session side by side, from its records; whether an engine runs or not."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence

from screens.terminal import choose_marks
from sessions.branches import Branch
from sessions.comparison import Comparison, compare
from sessions.errors import SessionError
from sessions.folders import SessionFolder, session_folder
from sessions.store import Store
from sessions.wire import encode_json
from workbench.comparison_text import comparison_text
from workbench.output import emit

WIDTH = 100
"""Cells of a line where the output is no terminal."""


def compare_branches(arguments: argparse.Namespace) -> int:
    """``workbench compare``: where branches part, what differs, how they stand, what they answer."""
    folder = session_folder(arguments.session)
    comparison, branches = read_comparison(folder, arguments.branches, arguments.metrics or ())
    print_comparison(comparison, branches, as_json=arguments.json, charts=arguments.metrics or ())
    return 0


def read_comparison(
    folder: SessionFolder, names: Sequence[str], metrics: Sequence[str] = ()
) -> tuple[Comparison, dict[str, Branch]]:
    """The comparison, and every branch of the session.

    :raises SessionError: if the session has no records.
    :raises UsageError: if a branch or a metric is not there.
    """
    if not folder.database.exists():
        raise SessionError(f"session {folder.name!r} has no records yet; `workbench run --name {folder.name}`")
    store = Store(folder.database, read_only=True)
    try:
        return compare(store, folder.name, names, metrics), store.branches()
    finally:
        store.close()


def print_comparison(
    comparison: Comparison, branches: dict[str, Branch], *, as_json: bool, charts: Sequence[str] = ()
) -> None:
    """To stdout: one line of JSON, or text; curves only where it is a terminal.

    :param charts: metrics that are drawn; none: the first one.
    """
    if as_json:
        emit(encode_json(comparison))
        return
    terminal = sys.stdout.isatty()
    width = max(40, shutil.get_terminal_size().columns - 1) if terminal else WIDTH
    drawn = (list(charts) or list(comparison.series)[:1]) if terminal else []
    emit(comparison_text(comparison, branches, width, charts=drawn, marks=choose_marks("auto")))
