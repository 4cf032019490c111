"""``rate``: a plain file of responses on the rating screen, without a model, an engine or a session."""

from __future__ import annotations

import argparse

from sessions.modes import rating_mode
from sessions.paths import expanded
from sessions.rating_file import RatingFile
from workbench.commands_run import open_app
from workbench.output import need_terminal
from workbench.settings import person


def rate(arguments: argparse.Namespace) -> int:
    """``workbench rate``: until the person leaves; where the ratings are is the last line."""
    mode = rating_mode(arguments.mode).name if arguments.mode else ""
    path = expanded(arguments.file)
    output = expanded(arguments.output) if arguments.output else None
    who = person(arguments)
    need_terminal("`workbench import S FILE` takes ratings that were given elsewhere")
    file = RatingFile(path, who, output, rule=arguments.rule or "")
    return open_app(None, file=file, rating_mode=mode, who=who)
