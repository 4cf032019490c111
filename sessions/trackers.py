"""Where the metrics of a session can be mirrored to, through accelerate's trackers."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from sessions.errors import UnknownName, UsageError

TRACKERS = ("tensorboard", "trackio", "wandb")
"""As accelerate names them; each is also the name of the package that it needs."""


def check_trackers(names: Iterable[str]) -> list[str]:
    """The trackers, each once, if there are such and their packages are installed.

    :raises UsageError: naming the one that is not, and what installs it.
    """
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in TRACKERS:
            raise UnknownName("tracker", name, TRACKERS)
        if find_spec(name) is None:
            raise UsageError(f"--track {name}: the package {name} is not installed; `pip install {name}` brings it")
    return wanted
