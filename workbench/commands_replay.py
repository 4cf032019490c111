"""``workbench replay``: the screens over a recorded session."""

from __future__ import annotations

import argparse
import gc

from sessions.errors import InvalidValue
from sessions.folders import session_folder
from sessions.replay import Replay
from workbench.commands_run import how_shown, open_app
from workbench.output import need_terminal


def replay(arguments: argparse.Namespace) -> int:
    """``workbench replay``: from a session's records alone, whether it has an engine or not."""
    need_terminal(f"`workbench status {arguments.session}` prints where it stands")
    folder = session_folder(arguments.session)
    gc.disable()  # a quarter of the opening would be spent on looking for cycles among numbers
    try:
        records = Replay(folder, arguments.branch)
    finally:
        gc.enable()
    first, last = records.steps[0], records.steps[-1]
    if arguments.step is not None and not first <= arguments.step <= last:
        records.close()
        raise InvalidValue(f"--step {arguments.step}: the record of {records.branch} goes from {first} to {last}")
    return open_app(folder, replay=records, step=arguments.step, **how_shown(arguments))
