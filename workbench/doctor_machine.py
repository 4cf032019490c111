"""The doctor's checks of the machine: disks, folders, memory, and what happens at logout."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import re
import shlex
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from sessions.errors import SessionError
from sessions.folders import SOCKET_PATH_LIMIT, home, sessions_home, socket_folder
from workbench.findings import Finding, output_of
from workbench.output import size

NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs",
    "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "virtiofs",
}  # fmt: skip
"""File systems that other machines share, by the names that Linux has for them."""
PASSING = {"tmpfs", "ramfs"}
LITTLE_DISK, NO_DISK, FEW_FILES = 5 * 10**9, 2 * 10**8, 10_000
LITTLE_MEMORY, NO_MEMORY = 2 * 10**9, 5 * 10**8
ELSEWHERE = "`export WORKBENCH_HOME=/path/on/a/local/disk`"
LOGIND = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
"""Where the settings of logind are, the first that has a file of a name deciding."""
LINGER = Path("/var/lib/systemd/linger")


# ---------------------------------------------------------------------------------------------------- the home


def check_home() -> Finding:
    """The file system of the home, and whether files there can be written, locked and synced."""
    folder, place = _existing(home()), home()
    quoted = shlex.quote(str(folder))
    status = folder.stat()
    missing = "" if folder == place else f", which will be made in {folder}"
    if not stat.S_ISDIR(status.st_mode):
        return Finding("fail", f"{folder} is not a folder", "`export WORKBENCH_HOME=~/workbench`")
    sessions = sessions_home()
    if sessions.exists() and (sessions.is_symlink() or sessions.stat().st_uid != os.getuid()):
        return Finding(
            "fail",
            f"{sessions} is a link or belongs to another user",
            f"`mv {shlex.quote(str(sessions))} {shlex.quote(str(sessions))}.old`, or {ELSEWHERE}",
        )
    try:
        _try_files(folder)
    except OSError as error:
        remedy = f"`chmod u+rwx {quoted}`, or {ELSEWHERE}"
        return Finding("fail", f"{place}{missing}: a file cannot be written, locked and synced ({error})", remedy)
    kind = file_system(folder)
    what = f"{place}{missing}" + (f", on {kind}" if kind else "")
    if kind in NETWORK:
        return Finding(
            "warn",
            f"{what}, which other machines share: records are written without a log ahead, and slower",
            ELSEWHERE,
        )
    if kind in PASSING:
        return Finding("warn", f"{what}: sessions are gone when the machine restarts", ELSEWHERE)
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        return Finding("warn", f"{what}: others may change what is in it", f"`chmod go-w {quoted}`")
    return Finding("ok", what)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that there is."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _try_files(folder: Path) -> None:
    """Write, lock and sync a file.

    :raises OSError: if one of these fails.
    """
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        file.write(b"x" * 4096)
        file.flush()
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fsync(file.fileno())


def file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The kind of file system that a path is on, as Linux calls it; empty where it cannot be told."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    best, kind = -1, ""
    real = str(path.resolve())
    for fields in (line.split(" ") for line in lines):
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1])  # a blank is \040
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # of two on one point the later covers the earlier
            best, kind = len(point), fields[2]
    return kind


def check_disk() -> Finding:
    """Room for checkpoints and records."""
    folder = _existing(home())
    free = shutil.disk_usage(folder).free
    room = os.statvfs(folder)
    what = f"{size(free)} free; a checkpoint with AdamW takes three times the weights in fp32, and 4 are kept"
    remedy = f"free some disk (`du -sh {shlex.quote(str(home()))}/sessions/*` shows who has it), or {ELSEWHERE}"
    if free < NO_DISK:
        return Finding("fail", what, remedy)
    if room.f_files and room.f_favail < FEW_FILES:
        return Finding("warn", f"room for only {room.f_favail:,} more files", remedy)
    return Finding("warn", what, remedy) if free < LITTLE_DISK else Finding("ok", what)


# ---------------------------------------------------------------------------------------------- the runtime folder


def check_runtime() -> Finding:
    """Where sockets go: whose that folder is, how long its name, and whether a socket can be bound there."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    try:
        folder = socket_folder()
        length = _try_socket(folder)
    except (OSError, SessionError) as error:
        return Finding("fail", f"no socket can be made: {error}", "`export XDG_RUNTIME_DIR=$(mktemp -d)`")
    what = f"{folder}; a socket can be bound there, {length} of {SOCKET_PATH_LIMIT} bytes"
    if Path(runtime) == folder.parent and runtime:
        mode = stat.S_IMODE(folder.parent.stat().st_mode)
        if mode & 0o077:
            remedy = f"`chmod 700 {shlex.quote(runtime)}`"
            return Finding("warn", f"{what}; others may look into {runtime} (mode {mode:o})", remedy)
        return Finding("ok", what)
    if runtime:
        remedy = "`unset XDG_RUNTIME_DIR`, or log in as the user that runs the sessions (`su -`, not `su`)"
        return Finding(
            "warn", f"{what}; XDG_RUNTIME_DIR={runtime} is not a folder of yours, or its name is too long", remedy
        )
    return Finding("ok", f"{what}; XDG_RUNTIME_DIR is not set, which is fine")


def _try_socket(folder: Path) -> int:
    """Bind a socket and take it away again.

    :returns: bytes of its path.
    """
    path = folder / f"doctor-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(str(path))
            listener.listen(1)
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    return len(os.fsencode(path))


# -------------------------------------------------------------------------------------------------------- logout


def check_logout() -> Finding:
    """Whether an engine lives on when its user logs out."""
    if not _has_systemd():
        return Finding("ok", "no systemd here: nothing ends a session's engine at logout")
    kills = kills_at_logout()
    lingers = _lingers()
    scope = _session_scope()
    where = f" (this shell is in {scope})" if scope else ""
    if not kills:
        return Finding("ok", f"processes outlive a logout{where}")
    if lingers:
        return Finding("ok", f"processes are killed at logout, but not yours: you linger{where}")
    return Finding("warn", f"processes are killed at logout, a session's engine too{where}", "`loginctl enable-linger`")


def _has_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def kills_at_logout(folders: Iterable[str] = LOGIND) -> bool:
    """Whether logind kills what a user leaves running; as it says itself, else as its settings say."""
    if folders is LOGIND:
        words = "get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager"
        said = output_of(["busctl", *words.split(), "KillUserProcesses"])
        if said is not None and said.startswith("b "):
            kills = said.strip() == "b true"
            spared = output_of(["busctl", *words.split(), "KillExcludeUsers"]) or ""
            return kills and f'"{_user()}"' not in spared
    main: Path | None = None
    dropped: dict[str, Path] = {}
    for folder in map(Path, folders):
        if main is None and (folder / "logind.conf").is_file():
            main = folder / "logind.conf"
        for path in folder.glob("logind.conf.d/*.conf"):
            dropped.setdefault(path.name, path)
    kills, spared_users = False, ["root"]
    for path in [*([main] if main else []), *(dropped[name] for name in sorted(dropped))]:
        for line in path.read_text(errors="replace").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "KillUserProcesses":
                kills = value.strip().lower() in ("1", "yes", "true", "on")
            elif key.strip() == "KillExcludeUsers":
                spared_users = value.split()
    return kills and _user() not in spared_users


def _lingers() -> bool:
    said = output_of(["loginctl", "show-user", _user(), "--property=Linger"])
    return "Linger=yes" in (said or "") or (LINGER / _user()).exists()


def _session_scope() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"session-[^/]+\.scope", Path("/proc/self/cgroup").read_text())
        return found[0] if found else ""
    return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


# -------------------------------------------------------------------------------------------------------- memory


def check_memory() -> Finding:
    """Memory for the engine: the machine's, and what its control group leaves."""
    total, free = memory()
    if not total:
        return Finding("ok", "how much memory there is cannot be told here")
    what = f"{size(free)} of {size(total)} available"
    remedy = "end other programs (`ps aux --sort=-rss | head` shows them), or take a smaller --model"
    if free < NO_MEMORY:
        return Finding("fail", f"{what}: torch alone needs half a gigabyte", remedy)
    return Finding("warn", what, remedy) if free < LITTLE_MEMORY else Finding("ok", what)


def memory(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Bytes in all and available; (0, 0) where they cannot be told."""
    try:
        found = {key: int(value.split()[0]) * 1024 for key, _, value in
                 (line.partition(":") for line in meminfo.read_text().splitlines()) if value.strip()}  # fmt: skip
    except (OSError, ValueError):
        return _memory_of_the_system()
    total, free = found.get("MemTotal", 0), found.get("MemAvailable", 0)
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        total, free = min(total, limit), min(free, max(0, limit - used))
    return total, free


def _memory_of_the_system() -> tuple[int, int]:
    if sys.platform == "darwin":
        said = output_of(["sysctl", "-n", "hw.memsize"])
        with contextlib.suppress(TypeError, ValueError):
            return int(said or ""), int(said or "")
    return 0, 0
