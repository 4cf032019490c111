"""Rows of a file, any one of which can be read again without holding them all.

A file is walked through once, from its beginning to its end (:meth:`Rows.scan`): that checks every row and notes where
it begins, eight bytes a row. After that a row is read from the disk when it is asked for, so a file of many gigabytes
takes a few megabytes of memory.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import os
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from engine.tasks.telling import Progress
from sessions.errors import InputFileError

Row = Mapping[str, Any]

ROW_BYTES = 16 << 20
"""A row may have so many."""
CHUNK = 1 << 20


class Rows(Protocol):
    """Rows that can be walked through once, and then read in any order."""

    def scan(self) -> Iterator[tuple[str, int, Row]]:
        """Every row in order: where it stands (for errors), its number from 1 on, and what it holds.

        :raises InputFileError: naming file and line, at the first row that cannot be read.
        """
        ...

    def __len__(self) -> int:
        """How many there are, once they have been walked through."""
        ...

    def __getitem__(self, index: int) -> Row: ...

    def number(self, index: int) -> int:
        """As :meth:`scan` has it."""
        ...

    def fingerprint(self) -> str:
        """Changes with anything in them."""
        ...


def open_rows(path: Path) -> Rows:
    """The rows of one file, by its ending.

    :raises InputFileError: if it cannot be opened.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            from engine.tasks.parquet import ParquetRows

            return ParquetRows(path)
        if suffix == ".csv":
            return CsvRows(path)
        return JsonArrayRows(path) if suffix == ".json" and _is_array(path) else JsonLineRows(path)
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror})") from None


class _FileRows:
    """Rows of which each is a range of a file's bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._size = os.fstat(self._file).st_size
        self._starts = array("Q")
        self._numbers = array("I")

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Row:
        start = self._starts[index]
        end = self._starts[index + 1] if index + 1 < len(self._starts) else self._size
        try:
            return self._decode(os.pread(self._file, end - start, start))
        except (ValueError, StopIteration, OSError, msgspec.MsgspecError):
            raise InputFileError(
                f"{self.path}: has changed while it was in use, row {self.number(index)} cannot be read any more"
            ) from None

    def number(self, index: int) -> int:
        return self._numbers[index]

    def fingerprint(self) -> str:
        return digest([self.path])

    def _decode(self, data: bytes) -> Row:
        raise NotImplementedError

    def _found(self, start: int, number: int) -> None:
        self._starts.append(start)
        self._numbers.append(number)

    def _lines(self) -> Iterator[tuple[int, int, bytes]]:
        """Each line with its number and where it begins; a byte-order mark is passed over."""
        progress = Progress(self.path.name, self._size)
        at, number = 0, 0
        with self._from_the_beginning() as file:
            while line := file.readline(ROW_BYTES + 1):
                number += 1
                if len(line) > ROW_BYTES:
                    raise InputFileError(f"{self.path}, line {number}: is longer than {ROW_BYTES >> 20} MiB")
                start, at = at, at + len(line)
                if number == 1 and line.startswith(codecs.BOM_UTF8):
                    start, line = start + 3, line[3:]
                progress.at(at, number)
                yield number, start, line

    @contextmanager
    def _from_the_beginning(self) -> Iterator[io.BufferedReader]:
        """The same open file, so that what is read now and what is read later are one."""
        try:
            with os.fdopen(os.dup(self._file), "rb") as file:
                file.seek(0)
                yield file
        except OSError as error:
            raise InputFileError(f"{self.path}: cannot be read ({error.strerror})") from None


class JsonLineRows(_FileRows):
    """A JSON object a line; blank lines are passed over."""

    def scan(self) -> Iterator[tuple[str, int, Row]]:
        for number, start, line in self._lines():
            if not line.strip():
                continue
            where = f"{self.path}, line {number}"
            try:
                row = self._decode(line)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise InputFileError(f"{where}: {_why_no_object(line, error)}") from None
            self._found(start, number)
            yield where, number, row

    def _decode(self, data: bytes) -> Row:
        return msgspec.json.decode(data, type=dict[str, Any])


class JsonArrayRows(_FileRows):
    """One JSON array of objects."""

    _decoder = json.JSONDecoder()

    def scan(self) -> Iterator[tuple[str, int, Row]]:
        with self._from_the_beginning() as file:
            yield from self._rows(_Buffered(self.path, file))

    def _rows(self, reader: _Buffered) -> Iterator[tuple[str, int, Row]]:
        progress = Progress(self.path.name, self._size)
        reader.expect("[")
        number = 0
        while not reader.next_is("]"):
            if number:
                reader.expect(",", f"row {number + 1}: a comma or ] is expected before it")
            number += 1
            where = f"{self.path}, row {number}"
            start, row = reader.value(self._decoder, where)
            if not isinstance(row, dict):
                raise InputFileError(f"{where}: not a JSON object")
            self._found(start, number)
            progress.at(start, number)
            yield where, number, row
        reader.end(number)

    def _decode(self, data: bytes) -> Row:
        row, _ = self._decoder.raw_decode(data.decode())
        return dict(row)


class _Buffered:
    """A window of text that slides over a file, and knows at which byte it begins."""

    def __init__(self, path: Path, file: io.BufferedReader) -> None:
        self._path, self._file = path, file
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._byte, self._done = "", 0, 0, False
        self._more(CHUNK)
        if self._text.startswith("\ufeff"):
            self._at = 1

    def _more(self, count: int) -> None:
        """Drop what has been used, and read on."""
        self._byte += len(self._text[: self._at].encode())
        data = self._file.read(count)
        self._done = not data
        try:
            self._text, self._at = self._text[self._at :] + self._utf8.decode(data, final=self._done), 0
        except UnicodeDecodeError as error:
            raise InputFileError(
                f"{self._path}: is not UTF-8 (about byte {self._byte + len(self._text.encode()) + error.start:,})"
            ) from None

    def _skip(self) -> str:
        """The next character that is no blank; empty: there is none."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._done:
                return ""
            self._more(CHUNK)

    def next_is(self, mark: str) -> bool:
        return self._skip() == mark

    def expect(self, mark: str, what: str = "a JSON array is expected") -> None:
        if self._skip() != mark:
            raise InputFileError(f"{self._path}: {what}")
        self._at += 1

    def value(self, decoder: json.JSONDecoder, where: str) -> tuple[int, Any]:
        """The next value, and the byte at which it begins."""
        self._skip()
        count = CHUNK
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if not self._done and len(self._text) - self._at <= ROW_BYTES:
                    self._more(count)
                    count *= 2
                    continue
                if not self._done:
                    raise InputFileError(f"{where}: is no JSON, or longer than {ROW_BYTES >> 20} MiB") from None
                raise InputFileError(f"{where}: not JSON ({str(error).splitlines()[0]})") from None
            start = self._byte + len(self._text[: self._at].encode())
            if "\\u" in self._text[self._at : end]:
                _check_text(value, where)
            self._byte, self._text, self._at = start, self._text[self._at :], end - self._at
            return start, value

    def end(self, rows: int) -> None:
        self.expect("]")
        if self._skip():
            raise InputFileError(f"{self._path}: something follows the array of {rows:,} rows")


class CsvRows(_FileRows):
    """Values with commas between them, their names on the first line. Every value is text."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._names: list[str] = []

    def scan(self) -> Iterator[tuple[str, int, Row]]:
        csv.field_size_limit(ROW_BYTES)
        at = [0]
        records = csv.reader(self._decoded(at), strict=True)
        count = 0
        while True:
            start, where = at[0], f"{self.path}, line {records.line_num + 1}"
            try:
                values = next(records)
            except StopIteration:
                break
            except csv.Error as error:
                raise InputFileError(f"{where}: {error}") from None
            if not values:
                continue
            if not self._names:
                self._names = [name.strip() for name in values]
                if doubled := {name for name in self._names if self._names.count(name) > 1 or not name}:
                    raise InputFileError(f"{where}: the name {min(doubled)!r} of a column is empty or there twice")
                continue
            if len(values) != len(self._names):
                raise InputFileError(
                    f"{where}: {len(values)} values for the {len(self._names)} columns of the first line"
                )
            count += 1
            self._found(start, count)
            yield where, count, dict(zip(self._names, values, strict=True))

    def _decoded(self, at: list[int]) -> Iterator[str]:
        """Lines as text; ``at`` holds where the next one begins."""
        for number, start, line in self._lines():
            at[0] = start + len(line)
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                raise InputFileError(f"{self.path}, line {number}: is not UTF-8 (byte {error.start + 1})") from None

    def _decode(self, data: bytes) -> Row:
        values = next(csv.reader(io.StringIO(data.decode(), newline="")))
        return dict(zip(self._names, values, strict=True))


class ManyRows:
    """The rows of several files, one after the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = parts
        self._ends: list[int] = []

    def scan(self) -> Iterator[tuple[str, int, Row]]:
        count = 0
        for part in self._parts:
            for where, _, row in part.scan():
                count += 1
                yield where, count, row
            self._ends.append(count)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Row:
        part = bisect_right(self._ends, index)
        return self._parts[part][index - (self._ends[part - 1] if part else 0)]

    def number(self, index: int) -> int:
        return index + 1

    def fingerprint(self) -> str:
        return hashlib.blake2b("".join(p.fingerprint() for p in self._parts).encode(), digest_size=16).hexdigest()


def digest(paths: Sequence[Path]) -> str:
    """Of what is in files."""
    found = hashlib.blake2b(digest_size=16)
    for path in paths:
        try:
            with path.open("rb") as file:
                while data := file.read(CHUNK):
                    found.update(data)
        except OSError as error:
            raise InputFileError(f"{path}: cannot be read ({error.strerror})") from None
    return found.hexdigest()


def _is_array(path: Path) -> bool:
    """Whether a .json file is one array; many are JSON lines."""
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            if data := data.removeprefix(codecs.BOM_UTF8).lstrip():
                return data.startswith(b"[")
    return False


def _check_text(value: Any, where: str) -> None:
    """:raises InputFileError: if a text in it holds half of a pair of ``\\u`` escapes, which no file can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start].encode("unicode_escape").decode()
        raise InputFileError(f"{where}: {half} is half of a character, and its other half is missing") from None


def _why_no_object(line: bytes, error: Exception) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as broken:
        return f"is not UTF-8 (byte {broken.start + 1})"
    return f"not a JSON object ({error})"
