"""Files and folders that are this person's alone: made so whatever the umask, refused where they are not.

What is refused: a link in the place of a file or folder, something that is neither, and what belongs to somebody else.
What is only too wide and is ours is tightened: no one is helped by a session that cannot be opened for its mode.
What is opened is looked at through its descriptor, so that nothing can come into its place between look and use.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from sessions.errors import SessionError

FOLDER, FILE = 0o700, 0o600
_NEVER_FOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe in a file's place would be waited for
_NOT_A_FILE = {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR, errno.ENOTDIR, errno.EOPNOTSUPP}


def make_folder(path: Path) -> None:
    """Make a folder that only this user can enter.

    :raises FileExistsError: if anything has that name.
    """
    os.mkdir(path, FOLDER)
    os.chmod(path, FOLDER)  # a umask may have taken the owner's bits


def make_folders(path: Path) -> None:
    """Make a folder and those above it that are missing; the ones that are there stay as they are."""
    if path.is_dir():
        return
    make_folders(path.parent)
    with contextlib.suppress(FileExistsError):  # somebody else of ours was faster, or it is no folder: told below
        make_folder(path)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def own_folder(path: Path) -> None:
    """See that a folder is this user's alone; one that is wider is tightened.

    :raises SessionError: if it is a link, no folder, or somebody else's.
    :raises FileNotFoundError: if there is none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NEVER_FOLLOW)
    except FileNotFoundError:
        raise
    except OSError as error:
        _check(path, os.lstat(path), folder=True)
        raise SessionError(f"{path}: cannot be entered ({error.strerror}); chmod 700 it") from None
    try:
        status = os.fstat(descriptor)
        _check(path, status, folder=True)
        if stat.S_IMODE(status.st_mode) != FOLDER:
            os.fchmod(descriptor, FOLDER)
    finally:
        os.close(descriptor)


def is_own_folder(path: Path) -> bool:
    """Whether it is a folder of this user's, and no link to one."""
    try:
        _check(path, os.lstat(path), folder=True)
    except (OSError, SessionError):
        return False
    return True


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file of this user's; one that may be written has mode 0600 from here on.

    :param flags: of ``os.open``; links are never followed.
    :returns: the descriptor.
    :raises SessionError: if it is a link, no file, or somebody else's.
    :raises OSError: if it is missing or cannot be opened.
    """
    try:
        descriptor = os.open(path, (flags & ~os.O_TRUNC) | _NEVER_FOLLOW, FILE)
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            _check(path, os.lstat(path), folder=False)
        raise
    try:
        status = os.fstat(descriptor)
        _check(path, status, folder=False)
        if flags & (os.O_WRONLY | os.O_RDWR):
            if stat.S_IMODE(status.st_mode) != FILE:
                os.fchmod(descriptor, FILE)
            if flags & os.O_TRUNC:
                os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def own_file(path: Path, *, make: bool = False) -> None:
    """See that a file is this user's, without opening it: to close a database is to let go of every lock on it.

    :param make: make an empty one if it is missing, and tighten one that is wider.
    :raises SessionError: if it is a link, no file, or somebody else's.
    :raises FileNotFoundError: if there is none.
    """
    if make:
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NEVER_FOLLOW, FILE)
            os.fchmod(descriptor, FILE)
            os.close(descriptor)
    status = os.lstat(path)
    _check(path, status, folder=False)
    if make and stat.S_IMODE(status.st_mode) != FILE:
        os.chmod(path, FILE)


def read_file(path: Path, limit: int) -> bytes:
    """A file of this user's, whole.

    :param limit: bytes it may have.
    :raises SessionError: if it has more, or :func:`open_file` refuses it.
    """
    with open(open_file(path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise SessionError(f"{path}: more than the {limit:,} bytes that it may have; remove it")
    return data


def own_tree(path: Path) -> None:
    """See that a folder and everything in it is this user's alone; what is wider is tightened.

    :raises SessionError: naming the link, the device or the file of somebody else.
    """
    own_folder(path)
    for top, folders, files, descriptor in os.fwalk(path, follow_symlinks=False):
        for name in (*folders, *files):
            here = Path(top, name)
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue
            folder = stat.S_ISDIR(status.st_mode)
            _check(here, status, folder=folder)
            wanted = FOLDER if folder else FILE
            if stat.S_IMODE(status.st_mode) & ~wanted:
                with contextlib.suppress(FileNotFoundError):
                    os.chmod(name, wanted, dir_fd=descriptor)


def _check(path: Path, status: os.stat_result, *, folder: bool) -> None:
    kind = "folder" if folder else "file"
    if stat.S_ISLNK(status.st_mode):
        raise SessionError(f"{path}: is a link, which is not followed; put the {kind} itself there, or remove the link")
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(status.st_mode):
        raise SessionError(f"{path}: is not a {kind}; remove it")
    if status.st_uid != os.getuid():
        raise SessionError(
            f"{path}: belongs to another user (uid {status.st_uid}); run as that user, or remove it and make your own"
        )
