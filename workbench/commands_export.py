"""``export``: what a session recorded and learned, as files that other tools read."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from sessions.branches import END
from sessions.errors import UsageError
from sessions.export import Exported, Wanted, export
from sessions.folders import session_folder, sessions_home
from sessions.models import pinned
from sessions.paths import expanded
from sessions.wire import encode_json
from workbench.output import emit, say, show

FOR = {
    "tokens": ("jsonl", "parquet"),
    "steps": ("jsonl", "parquet", "preferences"),
    "all_branches": ("jsonl", "parquet", "preferences"),
    "conversational": ("preferences",),
    "step": ("model",),
    "best": ("model",),
    "merge": ("model",),
}
"""Option -> the formats that it means something for."""


def export_session(arguments: argparse.Namespace) -> int:
    """``workbench export``: write a session to a new folder; what was written goes to stderr."""
    _check_options(arguments)
    first, last = _range(arguments.steps)
    if _is_file(arguments.session):
        return _export_rated(arguments)
    if arguments.ratings:
        raise UsageError("--ratings is of a rated file; a session has its own")
    folder = session_folder(arguments.session)
    merge = None
    if arguments.merge:
        from workbench.merging import merge_into, need_peft

        need_peft()
        settings = folder.settings()
        base = pinned(settings.model, settings.model_revision)
        merge = lambda adapters, target: merge_into(base, adapters, target)  # noqa: E731
    wanted = Wanted(
        branch=arguments.branch or "",
        all_branches=arguments.all_branches,
        first=first,
        last=last,
        tokens=arguments.tokens,
        conversational=arguments.conversational,
        step=arguments.step,
        best=arguments.best,
        merge=merge,
    )
    return _say(export(folder, arguments.to, Path(arguments.folder), wanted), as_json=arguments.json)


def _is_file(given: str) -> bool:
    """Whether a file is meant and no session: they may have the same name."""
    path = expanded(given)
    return path.is_file() and (os.sep in given or not (sessions_home() / given / "session.toml").exists())


def _export_rated(arguments: argparse.Namespace) -> int:
    from sessions.export_rated import export_rated  # what few need is loaded when they do

    for name in FOR:
        if getattr(arguments, name) and name != "conversational":
            raise UsageError(f"--{name.replace('_', '-')} is for sessions, not for a rated file")
    if arguments.branch:
        raise UsageError("--branch is for sessions, not for a rated file")
    log = expanded(arguments.ratings) if arguments.ratings else None
    path = expanded(arguments.session)
    done = export_rated(path, log, arguments.to, Path(arguments.folder), conversational=arguments.conversational)
    return _say(done, as_json=arguments.json)


def _say(done: Exported, *, as_json: bool) -> int:
    for line in done.describe():
        say(show(line))
    if as_json:
        emit(encode_json(done))
    return 0


def _check_options(arguments: argparse.Namespace) -> None:
    for name, formats in FOR.items():
        given = getattr(arguments, name)
        if given is not None and given is not False and arguments.to not in formats:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} goes with --to {' or '.join(formats)}, not with {arguments.to}")
    if arguments.branch and arguments.all_branches:
        raise UsageError("--branch is one branch, --all-branches is every one; leave one out")
    if arguments.step is not None and arguments.best:
        raise UsageError("--step names a checkpoint, --best looks for one; leave one out")


def _range(text: str | None) -> tuple[int, int]:
    """``A:B``, ``A:``, ``:B`` or one step; both ends are included.

    :raises UsageError: if it is none of these.
    """
    if text is None:
        return 0, END
    match = re.fullmatch(r"([0-9]{0,15})(:?)([0-9]{0,15})", text)
    if match is None or not (match[1] or match[3]):
        raise UsageError(f"--steps {text}: give the first and the last step, such as 100:200, 100: or :200")
    first = int(match[1] or 0)
    if not match[2]:
        return first, first
    return first, int(match[3]) if match[3] else END
