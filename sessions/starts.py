"""How a session was started, each time: ``starts.jsonl`` in its folder.

``session.toml`` holds the settings themselves; this is what else one wants to know to do the same again: the command,
the settings file as it was then, and the versions of the packages that compute.
"""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version

import msgspec

from sessions import private
from sessions.errors import SessionError
from sessions.folders import SessionFolder
from sessions.records import Record
from sessions.settings_file import SettingsFile

FILE = "starts.jsonl"
PACKAGES = ("rl-workbench", "torch", "transformers", "accelerate", "peft", "datasets", "tokenizers", "numpy")
"""Those that have a part in what is computed."""
_MOST_READ = 2**26


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where the settings of a start came from.

    :ivar command: the words of the command line; empty: from the app.
    """

    command: list[str] = []
    file: SettingsFile | None = None


class Start(Record):
    """One start.

    :ivar command: the words of the command line; empty: from the app.
    :ivar file: absolute path of the settings file; empty: none.
    :ivar text: what it held.
    :ivar versions: package -> version; what is not installed is absent.
    """

    time: float
    command: list[str] = []
    file: str = ""
    text: str = ""
    versions: dict[str, str] = {}
    python: str = ""
    system: str = ""


def note_start(folder: SessionFolder, source: Source | None = None) -> None:
    """Add this moment to the session's starts.

    :raises SessionError: if what lies in the file's place is not this user's.
    """
    file = source.file if source else None
    start = Start(
        time=time.time(),
        command=list(source.command) if source else [],
        file=os.path.abspath(file.path) if file else "",
        text=file.text if file else "",
        versions=package_versions(),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
    )
    path = folder.path / FILE
    with open(private.open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as stream:
        stream.write(msgspec.json.encode(start) + b"\n")


def read_starts(folder: SessionFolder) -> list[Start]:
    """Every start, oldest first; what cannot be read is left out."""
    starts = []
    try:
        lines = private.read_file(folder.path / FILE, _MOST_READ).splitlines()
    except (OSError, SessionError):
        return []
    for line in lines:
        try:
            starts.append(msgspec.json.decode(line, type=Start))
        except ValueError:  # half a line: the machine went down
            continue
    return starts


def package_versions() -> dict[str, str]:
    """Versions of :data:`PACKAGES`, as they are installed; none of them is imported."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def described(start: Start) -> list[str]:
    """A start in lines for people: when, from what, with which versions."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(start.time))
    lines = [f"started {when}" + (f" from {start.file}" if start.file else "")]
    if start.versions:
        lines.append(", ".join(f"{name} {number}" for name, number in start.versions.items()))
    return lines
