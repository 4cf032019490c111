"""The ratings of a file that is rated without a session: JSON lines that are only ever appended.

A line is a :class:`~sessions.rating_lines.RatingLine`, or says that one was taken back, that something was skipped,
that a group was put before a person, or who opened the file and what it held then. A line is on disk before it is
acknowledged, and one rater at a time has the file: a lock is held on it, which ends with its process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sessions import private
from sessions.errors import InputFileError, InvalidValue, SessionError, WorkbenchError
from sessions.people import check_person
from sessions.rating_lines import RatingLine
from sessions.records import Record, SkipRecord

LINE_LIMIT = 16 * 2**20
"""Bytes of a line."""
FIRST = b'{"kind":"opened",'
"""What the first line begins with."""


class Opened(Record, tag="opened", tag_field="kind"):
    """Somebody began to rate.

    :ivar digest: of all groups of the rated file, and ``groups`` how many it had.
    """

    file: str
    who: str
    time: float
    digest: str
    groups: int


class Rated(RatingLine, tag="rating", tag_field="kind"):
    """A rating."""


class TakenBack(Record, tag="retracted", tag_field="kind"):
    """A rating or a skip was taken back."""

    rating: str
    who: str
    time: float


class Skip(Record, tag="skip", tag_field="kind"):
    """A response was skipped."""

    skip: SkipRecord
    of: str = ""


class Pick(Record, tag="picked", tag_field="kind"):
    """A group was put before a person."""

    group: str
    rule: str
    who: str
    time: float


Line = Opened | Rated | TakenBack | Skip | Pick
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def read_log(path: Path) -> Iterator[tuple[Line, int]]:
    """Every whole line and where it ends, in bytes; a last one without an end is left out.

    :raises InputFileError: naming the line that is none.
    """
    try:
        with open(private.open_file(path), "rb") as file:
            yield from _read(path, file)
    except (OSError, SessionError) as error:
        raise InputFileError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _read(path: Path, file: Iterator[bytes]) -> Iterator[tuple[Line, int]]:
    end = 0
    for number, line in enumerate(file, 1):
        if number == 1 and not line.startswith(FIRST[: len(line)]):
            raise InputFileError(f"{path}: is not a file of ratings; give --output another name")
        if not line.endswith(b"\n"):
            return
        try:
            if len(line) > LINE_LIMIT:
                raise ValueError(f"longer than {LINE_LIMIT:,} bytes")
            found = _decoder.decode(line)
            if isinstance(found, Rated):
                found.rating()
        except (msgspec.MsgspecError, ValueError, RecursionError, WorkbenchError) as error:
            raise InputFileError(f"{path}, line {number}: is no line of ratings ({error}); mend or remove it") from None
        end += len(line)
        yield found, end


class RatingLog:
    """The file of ratings, held for one rater.

    :ivar lines: what is in it.
    :ivar cut: bytes of a last line that a crash had left without its end; they are gone.
    :raises SessionError: if another process rates into it, or it is a link or somebody else's.
    :raises InputFileError: if it is something else than ratings; then nothing was changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut = 0
        fresh = not path.exists()
        try:
            self._file = private.open_file(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        except OSError as error:
            raise InputFileError(f"{path}: cannot be written ({error.strerror}); give --output another place") from None
        try:
            self._hold()
            self.lines: list[Line] = []
            self._end = 0
            for line, self._end in read_log(path):
                self.lines.append(line)
            self.cut = os.fstat(self._file).st_size - self._end
            if self.cut:
                os.ftruncate(self._file, self._end)
                os.fsync(self._file)
            if fresh:
                _keep_name(path)
        except BaseException:
            os.close(self._file)
            raise

    def _hold(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SessionError(
                f"{self.path}: {_who_has(self.path)} rates into it; give --output another name, or wait"
            ) from None

    def close(self) -> None:
        """Let go of it, once."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def append(self, line: Line) -> None:
        """Keep a line; on disk when this returns.

        :raises SessionError: if it cannot be; then nothing of it is there.
        """
        if self._file < 0:
            raise SessionError(f"{self.path.name}: is closed; start again")
        self._check_there()
        data = msgspec.json.encode(line) + b"\n"
        if len(data) > LINE_LIMIT:
            raise SessionError(f"{self.path.name}: a line of {len(data):,} bytes is too long to be kept")
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
                os.fsync(self._file)
            raise SessionError(f"{self.path.name}: cannot be written ({error.strerror}); nothing was kept") from None
        self._end += len(data)

    def _check_there(self) -> None:
        own = os.fstat(self._file)
        try:
            there = os.stat(self.path)
            same = (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)
        except OSError:
            same = False
        if not same:
            raise SessionError(f"{self.path.name}: was removed or replaced while it was written; leave and start again")
        if own.st_size != self._end:
            raise SessionError(f"{self.path.name}: another program has changed it; leave and start again")


def _who_has(path: Path) -> str:
    """Who opened it last, as far as it says."""
    name, since = "somebody", 0.0
    with contextlib.suppress(InputFileError):
        for line, _ in read_log(path):
            if isinstance(line, Opened):
                name, since = line.who, line.time
    try:
        check_person(name)
    except InvalidValue:
        name = "somebody"
    return name + (time.strftime(" (since %H:%M)", time.localtime(since)) if 0 < since < 2**40 else "")


def _keep_name(path: Path) -> None:
    """A new file's name is on disk only once its folder is."""
    folder = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
