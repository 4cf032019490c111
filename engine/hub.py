"""Models of the Hugging Face hub: from its cache, or fetched into it by a process of their own.

The engine itself stays off the network (:func:`stay_offline`): what it loads lies on the disk already, and no library
can ask anybody about it. Only :mod:`engine.download` is started with the person's own environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from engine.control import Control
from sessions.errors import InputFileError, SessionError
from sessions.model_files import check_model_folder
from sessions.models import ModelName, need_snapshot, offline_switch, whole_snapshot

_HOW, _SAID = "HF_HUB_OFFLINE", "WORKBENCH_HUB_OFFLINE"
"""The hub's own switch, and where this process keeps what the person had it at."""


class Fetched(msgspec.Struct, omit_defaults=True):
    """What :mod:`engine.download` says, a JSON line each: bytes that have come, or how it ended.

    :ivar error: one line; empty: there is none.
    """

    done: int = 0
    total: int = 0
    folder: str = ""
    error: str = ""


def stay_offline() -> None:
    """Keep the hub's libraries off the network from here on, in this process; to be called before they are imported.

    Who has set the switch to something else means it.
    """
    os.environ.setdefault(_SAID, os.environ.get(_HOW, ""))
    os.environ[_HOW] = os.environ.get(_HOW) or "1"


def forbidden() -> str:
    """What of the person's environment forbids the network; empty if nothing does."""
    return offline_switch(own_environment())


def own_environment() -> dict[str, str]:
    """The environment as the person has set it, for a process that may use the network."""
    environment = dict(os.environ)
    if (said := environment.pop(_SAID, None)) is not None:
        environment[_HOW] = said
    return environment


def snapshot(name: ModelName, control: Control, *, code: bool = False) -> Path:
    """The folder of a hub model, named by its commit: what the cache has is used and nobody asked.

    :param control: told how far a download is, and ends it when it is stopping.
    :param code: whether the model's Python files come too.
    :raises InputFileError: if there is none, it may not be had, or it is none that can be trained.
    """
    if (found := whole_snapshot(name)) is not None:
        return found
    if switch := forbidden():
        return need_snapshot(name, switch)
    control.loading = f"fetching {name} from the hub"
    command = [sys.executable, "-P", "-m", "engine.download", name.place, name.revision or "main", "code" * code]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=own_environment()
    ) as process:
        try:
            assert process.stdout is not None
            last = _follow(process.stdout, lambda said: _tell(said, name, control))
        finally:
            process.kill()
    if last.error:
        raise InputFileError(f"model {name}: {last.error}")
    if not last.folder:
        raise SessionError(f"model {name}: the download ended without a word; the log may say why")
    folder = Path(last.folder)
    check_model_folder(folder, str(name))
    control.note("model", f"fetched {name} from the hub: commit {folder.name}")
    return folder


def _follow(lines: IO[str], tell: Callable[[Fetched], None]) -> Fetched:
    """Every line until the last; lines of others, such as warnings, are left out."""
    last = Fetched()
    for line in lines:
        try:
            last = msgspec.json.decode(line, type=Fetched)
        except msgspec.MsgspecError:
            continue
        tell(last)
    return last


def _tell(said: Fetched, name: ModelName, control: Control) -> None:
    if control.stopping:
        raise SessionError(f"stopped while {name} was being fetched; the next start goes on with what has come")
    if said.total:
        control.loading = f"fetching {name} from the hub: {said.done / 1e6:,.0f} of {said.total / 1e6:,.0f} MB"
