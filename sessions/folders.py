"""Where sessions live on disk, and which of them has a running engine.

``$WORKBENCH_HOME/sessions/NAME/``: ``session.db``, ``checkpoints/``, ``engine.log``, ``engine.json`` (who serves it
now), ``engine.lock`` (held for the engine's life), ``exit.json`` (how the last one ended), ``session.toml``. All of it
is this user's alone (:mod:`sessions.private`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import platformdirs

from sessions import private
from sessions.errors import InputFileError, NoSuchSession, SessionError, SessionRunning, UsageError
from sessions.paths import expanded
from sessions.records import Record, SessionSettings
from sessions.specs import short_name
from sessions.toml_text import toml_value

_R = TypeVar("_R", bound=Record)
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_HALF_WRITTEN = re.compile(r"\.(?:session\.toml|engine\.json|exit\.json)\.([0-9]{1,9})\.[0-9]+")
"""What :func:`replace_file` calls a file of a session until it is whole; the number is the writer's pid."""
SOCKET_PATH_LIMIT = 100
"""Unix sockets refuse paths over 107 bytes (103 on macOS)."""
SETTINGS_BYTES, NOTE_BYTES = 2**20, 2**16
"""Most that ``session.toml``, and that ``engine.json`` or ``exit.json``, may have."""
_WRITTEN = ("session.toml", "session.db", "session.db-wal", "engine.json", "exit.json")
"""Files that say when a session changed last."""
_SOCKET_NAME_LENGTH = 24 + 1 + 12 + len(".sock")
_CHECKPOINT = re.compile(r"[0-9]{1,15}(~[0-9]{1,6})?")
_LOOKING_SECONDS = 0.3
"""For how long a lock may be held by somebody who only looks whether there is an engine."""


class EngineInfo(Record):
    """``engine.json``: who serves a session."""

    pid: int
    socket: str
    started: float
    version: str


class ExitInfo(Record):
    """``exit.json``: how the last engine ended.

    :ivar cause: one line for people.
    """

    pid: int
    code: int | None
    signal: str
    out_of_memory: bool
    peak_memory_bytes: int
    started: float
    ended: float
    cause: str


def home() -> Path:
    """``$WORKBENCH_HOME``, or the platform's data folder."""
    given = os.environ.get("WORKBENCH_HOME")
    return expanded(given) if given else Path(platformdirs.user_data_dir("rl-workbench"))


def cache_home() -> Path:
    """Where fetched models are kept: ``$WORKBENCH_HOME/models``."""
    return home() / "models"


@dataclass(frozen=True, slots=True)
class SessionFolder:
    """The files of one session."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def database(self) -> Path:
        return self.path / "session.db"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, recorded: str) -> Path:
        """The folder of a checkpoint, as the database has recorded it: ``STEP`` or ``STEP~k``.

        :raises SessionError: if that does not name a folder inside ``checkpoints``.
        """
        if not _CHECKPOINT.fullmatch(recorded):
            raise SessionError(f"{self.database}: {recorded!r} cannot be a checkpoint's folder; the record is not used")
        return self.checkpoints / recorded

    @property
    def log(self) -> Path:
        return self.path / "engine.log"

    def changed(self) -> float:
        """When anything was written of it last; 0 where it has just been removed.

        Not the folder's own time: who only reads the database leaves an empty log of SQLite's in it.
        """
        newest = 0.0
        for name in _WRITTEN:
            with contextlib.suppress(OSError):
                found = (self.path / name).stat()
                if found.st_size:
                    newest = max(newest, found.st_mtime)
        return newest

    def secure(self) -> None:
        """See that the folder and everything in it is this user's alone; what is wider is tightened.

        :raises SessionError: if there is a link in it, or what belongs to another user.
        """
        private.own_tree(self.path)

    def engine(self) -> EngineInfo | None:
        """Who served the session last, if anybody wrote it down."""
        return _read(self.path / "engine.json", EngineInfo)

    def write_engine(self, info: EngineInfo) -> None:
        """Say who serves the session now."""
        _write(self.path / "engine.json", info)

    def forget_engine(self) -> None:
        """The engine has left in order."""
        (self.path / "engine.json").unlink(missing_ok=True)

    def exit(self) -> ExitInfo | None:
        """How the last engine ended, if one has."""
        return _read(self.path / "exit.json", ExitInfo)

    def write_exit(self, info: ExitInfo) -> None:
        _write(self.path / "exit.json", info)

    def forget_exit(self) -> None:
        """Another engine is started: how the one before ended is kept for that to tell."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / "exit.json").replace(self.path / "exit.last.json")

    def last_exit(self) -> ExitInfo | None:
        """How the engine before the present one ended, until that has told."""
        return _read(self.path / "exit.last.json", ExitInfo)

    def forget_last_exit(self) -> None:
        (self.path / "exit.last.json").unlink(missing_ok=True)

    def settings(self) -> SessionSettings:
        """What the session was started with.

        :raises InputFileError: if ``session.toml`` is unreadable.
        """
        path = self.path / "session.toml"
        try:
            text = private.read_file(path, SETTINGS_BYTES).decode("utf-8")
            return msgspec.convert(tomllib.loads(text), SessionSettings)
        except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
            raise InputFileError(f"{path}: cannot be read ({error})") from None

    def write_settings(self, settings: SessionSettings) -> None:
        lines = ["# What this session was started with. Changes made while it runs are in session.db."]
        for name, value in msgspec.to_builtins(settings).items():
            lines.append(f"{name} = {toml_value(value)}")
        replace_file(self.path / "session.toml", "\n".join(lines) + "\n")

    def running(self) -> bool:
        """Whether an engine holds the session's lock; what no engine would take for one is held by none."""
        try:
            descriptor = private.open_file(self.path / "engine.lock")
        except (FileNotFoundError, SessionError):
            return False
        try:
            # Shared, so that two who look at once do not take each other for an engine.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def lock(self) -> int:
        """Take the session for this process; the lock ends with it, however it ends.

        :returns: the descriptor to keep open.
        :raises SessionRunning: if another engine has it.
        :raises SessionError: if what lies in its place is no file of ours.
        """
        descriptor = private.open_file(self.path / "engine.lock", os.O_RDWR | os.O_CREAT)
        until = time.monotonic() + _LOOKING_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until:  # whoever only looks, in running(), lets go at once
                    time.sleep(0.01)
                    continue
                os.close(descriptor)
                raise SessionRunning(
                    f"session {self.name!r} already has an engine; `workbench attach {self.name}` shows it"
                ) from None
            return descriptor

    def tidy(self) -> None:
        """Remove what processes that were killed while they wrote one of these files have left beside it."""
        for path in self.path.glob(".*.*.*"):
            if (match := _HALF_WRITTEN.fullmatch(path.name)) and not _alive(int(match[1])):
                with contextlib.suppress(OSError):
                    path.unlink()

    def log_tail(self, lines: int = 15) -> list[str]:
        """The last lines of the engine's log."""
        try:
            with open(private.open_file(self.log), "rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 16_384))
                text = file.read().decode(errors="replace")
        except (OSError, SessionError):
            return []
        return text.splitlines()[-lines:]

    def size(self) -> int:
        """Bytes on disk."""
        total = 0
        for path in self.path.rglob("*"):
            with contextlib.suppress(OSError):
                status = path.lstat()
                total += status.st_size if stat.S_ISREG(status.st_mode) else 0
        return total

    def socket_path(self) -> str:
        """Where this session's engine listens: short, in a folder only this user can enter."""
        digest = hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:12]
        return str(socket_folder() / f"{self.name[:24]}-{digest}.sock")


def sessions_home() -> Path:
    """The folder of all sessions."""
    return home() / "sessions"


def check_session_name(name: str) -> str:
    """The name, if it can be a folder everywhere.

    :raises UsageError: if not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a session; use letters, digits, '.', '_' and '-', at most 64")
    return name


def session_folder(name: str) -> SessionFolder:
    """The folder of an existing session.

    :raises NoSuchSession: offering the nearest name.
    :raises SessionError: if it is a link, or belongs to another user.
    """
    folder = SessionFolder(sessions_home() / check_session_name(name))
    if not (folder.path / "session.toml").exists():
        raise NoSuchSession(name, [f.name for f in all_sessions()])
    private.own_folder(folder.path)
    return folder


def all_sessions() -> list[SessionFolder]:
    """Every session of this user's, newest first; links and what belongs to others are left out."""
    try:
        paths = [p for p in sessions_home().iterdir() if private.is_own_folder(p) and (p / "session.toml").exists()]
    except OSError:
        return []
    return sorted((SessionFolder(p) for p in paths), key=SessionFolder.changed, reverse=True)


def new_session(name: str | None, settings: SessionSettings) -> SessionFolder:
    """Make the folder of a new session; without a name, ``TASK-1``, ``TASK-2``, ...

    :raises SessionError: if the name is taken or the folder cannot be written.
    """
    parent = sessions_home()
    try:
        private.make_folders(parent)
        private.own_folder(parent)
        for candidate in [check_session_name(name)] if name else _free_names(settings.task):
            try:
                private.make_folder(parent / candidate)
            except FileExistsError:
                continue
            folder = SessionFolder(parent / candidate)
            try:
                folder.write_settings(msgspec.structs.replace(settings, name=candidate))
            except OSError:
                with contextlib.suppress(OSError):
                    folder.path.rmdir()
                raise
            return folder
    except OSError as error:
        raise SessionError(f"{parent}: cannot make a session there ({error.strerror}); set WORKBENCH_HOME") from None
    raise SessionError(f"session {name!r} exists already; choose another --name")


def _free_names(task: str) -> Iterator[str]:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", short_name(task)).strip("-.") or "session"
    for number in range(1, 1_000_000):
        yield f"{stem[:48]}-{number}"


def socket_folder() -> Path:
    """``$XDG_RUNTIME_DIR/workbench``, else a folder in the temporary directory named by uid; mode 0700, ours.

    :raises SessionError: if it belongs to somebody else or is a link.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = Path(runtime) / "workbench"
    if not _is_mine(runtime) or not _leaves_room(folder):
        folder = Path(tempfile.gettempdir()) / f"workbench-{os.getuid()}"
    if not _leaves_room(folder):
        folder = Path(f"/tmp/workbench-{os.getuid()}")
    try:
        with contextlib.suppress(FileExistsError):
            private.make_folder(folder)
    except OSError as error:
        raise SessionError(f"{folder}: cannot be made ({error.strerror}); set XDG_RUNTIME_DIR") from None
    try:
        private.own_folder(folder)
    except SessionError:
        raise SessionError(f"{folder}: is not a folder of yours; remove it, or set XDG_RUNTIME_DIR") from None
    return folder


def _is_mine(folder: str) -> bool:
    """Whether it is a folder that belongs to this user: after ``su`` the variable may still name another's."""
    try:
        status = os.stat(folder)
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and os.access(folder, os.W_OK | os.X_OK)


def _leaves_room(folder: Path) -> bool:
    """Whether a socket's path in it stays under the limit, in bytes."""
    return len(os.fsencode(folder)) + 1 + _SOCKET_NAME_LENGTH < SOCKET_PATH_LIMIT


def _alive(pid: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def replace_file(path: Path, text: str) -> None:
    """Write a file for this user alone, so that a reader sees the old text or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        with open(private.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write(path: Path, record: Record) -> None:
    replace_file(path, msgspec.json.format(msgspec.json.encode(record)).decode() + "\n")


def _read(path: Path, kind: type[_R]) -> _R | None:
    try:
        return msgspec.json.decode(private.read_file(path, NOTE_BYTES), type=kind)
    except (OSError, SessionError, ValueError, RecursionError):  # UnicodeDecodeError is no DecodeError of msgspec's
        return None
