"""``workbench new``: a settings file with everything that can be set."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

import msgspec

from sessions.errors import InputFileError, UsageError
from sessions.folders import session_folder
from sessions.paths import expanded
from sessions.records import SessionSettings
from sessions.run_settings import combined
from sessions.settings_text import settings_text
from sessions.starts import described, read_starts
from workbench.output import emit, say
from workbench.run_options import given_settings
from workbench.settings import check_settings


def new(arguments: argparse.Namespace) -> int:
    """Write the file, or print it where it is called ``-``."""
    given = combined({}, given_settings(arguments))
    if arguments.session is not None:
        if given:
            raise UsageError("--from takes every setting of the session; leave the other options out")
        settings, header = _of_session(arguments.session)
    else:
        settings = check_settings(msgspec.structs.replace(SessionSettings(name=""), **given))
        header = [f"Settings of a session; `workbench run {shlex.quote(_called(arguments.file))}` starts it."]
    header = [line if line.isprintable() else ascii(line) for line in header]  # TOML allows no control characters
    if arguments.file == "-":
        emit(settings_text(settings, Path.cwd(), header).rstrip("\n"))
        return 0
    path = expanded(arguments.file)
    if path.suffix != ".toml":
        raise UsageError(f"{path}: a settings file ends in .toml")
    text = settings_text(settings, path.parent, header)
    try:
        with path.open("w" if arguments.force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputFileError(f"{path}: is there already; give another name, or --force to write over it") from None
    except OSError as error:
        raise InputFileError(f"{path}: cannot be written ({error.strerror})") from None
    say(f"wrote {path}; `workbench run {shlex.quote(str(path))}` starts it")
    return 0


def _called(file: str) -> str:
    return "FILE.toml" if file == "-" else os.path.basename(file)


def _of_session(name: str) -> tuple[SessionSettings, list[str]]:
    """What a session was started with, without its name, and how that came about."""
    folder = session_folder(name)
    settings = msgspec.structs.replace(folder.settings(), name="")
    header = [f"What session {folder.name} was started with; started again, it is another session."]
    for start in read_starts(folder)[:1]:
        header += described(start)
    return settings, header
