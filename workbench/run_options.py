"""The options of ``run`` and ``new``, made from the table of settings, and what was given to them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

from sessions.run_settings import GROUPS, SETTINGS, Setting

_NOT_A_FLAG = ("name", "paused")
"""Settings that say what becomes of one session: ``new`` does not take them as options."""


def add_settings(command: argparse.ArgumentParser, *, new: bool = False) -> argparse._ArgumentGroup:
    """Give a command an option for every setting, in groups.

    :param new: for ``workbench new``, which starts nothing.
    :returns: the last group, that of the session itself.
    """
    group = command.add_argument_group()
    for name, title in GROUPS.items():
        settings = [s for s in SETTINGS.values() if s.group == name and not (new and s.name in _NOT_A_FLAG)]
        if settings or not new:
            group = command.add_argument_group(title)
        for setting in settings:
            _add(group, setting)
    return group


def _add(group: argparse._ArgumentGroup, setting: Setting) -> None:
    options: dict[str, Any] = {"dest": setting.name, "help": setting.help.replace("%", "%%"), "default": None}
    match setting.kind:
        case "switch" if setting.name == "paused":
            options["action"] = "store_true"
        case "switch":
            _add_switch(group, setting)
            return
        case "texts" | "specs" | "sets":
            options |= {"action": "append", "metavar": setting.metavar}
        case "whole":
            options |= {"type": _whole(setting), "metavar": setting.metavar}
        case "number":
            options |= {"type": float, "metavar": setting.metavar}
        case _:
            options["metavar"] = setting.metavar
            if setting.group == "machine":
                options["choices"] = setting.choices
    group.add_argument(setting.option, **options)


def _add_switch(group: argparse._ArgumentGroup, setting: Setting) -> None:
    """Both ways, because a file may have said the other; help shows the one that changes something by itself."""
    for value in (True, False):
        said = setting.help if value else f"do not {setting.help}"
        group.add_argument(
            setting.option if value else f"--no-{setting.option[2:]}",
            dest=setting.name,
            action="store_true" if value else "store_false",
            default=None,
            help=argparse.SUPPRESS if value is setting.on else said,
        )


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Name of a setting -> what the command line says of it; what it does not say is absent."""
    found = {name: getattr(arguments, name, None) for name in SETTINGS}
    return {name: value for name, value in found.items() if value is not None}


def _whole(setting: Setting) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not re.fullmatch("[0-9]{1,18}", text) or int(text) < setting.low:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from {setting.low:g}")
        return int(text)

    return whole
