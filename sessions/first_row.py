"""The first row of a file of rows: what can be known of a task before anything heavy is loaded."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Mapping
from pathlib import Path

from sessions.columns import CONVERSATIONS, UNANSWERED, choose, listed
from sessions.errors import InputFileError
from sessions.specs import OptionValue

LINE = 16 << 20
_PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")
"""How gzip, zip, bzip2, zstd and xz begin."""


def check_first_row(path: Path, options: Mapping[str, OptionValue], where: str, *, rewarded: bool) -> None:
    """Refuse a file that is empty, is not what its ending says, or has no column that asks or answers.

    Parquet and JSON arrays are only looked at by the engine.

    :param rewarded: whether the answers are rewarded by something else than the task.
    :raises InputFileError: one line.
    """
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".json", ".csv"):
        return
    try:
        with path.open("rb") as file:
            first = next((line for line in iter(lambda: file.readline(LINE), b"") if line.strip()), None)
    except OSError as error:
        raise InputFileError(f"{where}: cannot be read ({error.strerror})") from None
    if first is None:
        raise InputFileError(f"{where}: the file is empty; give one JSON object a line")
    if suffix == ".json" and first.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        return  # an array may be one line, however long
    if len(first) >= LINE and not first.endswith(b"\n"):
        raise InputFileError(f"{where}: its first line is longer than {LINE >> 20} MiB; a row may not be")
    if first.startswith(_PACKED):
        raise InputFileError(f"{where}: is compressed; unpack it first")
    columns = _names(first, where) if suffix == ".csv" else _keys(first, where)
    chosen = choose(columns, options, where)
    if not chosen.answer and chosen.prompt not in CONVERSATIONS and not rewarded:
        raise InputFileError(f"{where}: no column answers ({listed(columns)}); {UNANSWERED}")


def _keys(line: bytes, where: str) -> list[str]:
    line = line.removeprefix(b"\xef\xbb\xbf")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise InputFileError(f"{where}: its first line is not UTF-8 (byte {error.start + 1})") from None
    if text.lstrip().startswith("["):
        raise InputFileError(f"{where}: begins a JSON array; name it .json, or give one JSON object a line")
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputFileError(f"{where}: its first line is not JSON ({error}); give one JSON object a line") from None
    if not isinstance(row, dict):
        raise InputFileError(f"{where}: its first line is not a JSON object; give one a line")
    return list(row)


def _names(line: bytes, where: str) -> list[str]:
    try:
        names = next(csv.reader([line.decode("utf-8-sig")], strict=True))
    except (csv.Error, StopIteration, UnicodeDecodeError) as error:
        raise InputFileError(f"{where}: its first line does not name columns ({error})") from None
    return [name.strip() for name in itertools.islice(names, 1000)]
