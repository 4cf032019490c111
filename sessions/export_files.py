"""The files of an export: JSON lines, or Parquet through pyarrow; rows go through, and are never all in memory."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import msgspec

from sessions.errors import UsageError
from sessions.export_tables import Row, StepRow
from sessions.hyperparameters import HYPERPARAMETERS
from sessions.records import Record

BATCH = 128
"""Rows that are made into columns at once."""
GROUP_BYTES = 32_000_000
"""Of columns in a Parquet row group, about."""
KNOB = "hyperparameters/"
"""Before the name of a hyperparameter in a table of steps, whose other columns are metrics."""

_encoder = msgspec.json.Encoder()


class Written(Record):
    """A file of an export.

    :ivar rows: None where it has none.
    """

    file: str
    rows: int | None = None
    bytes: int = 0


class JsonLines:
    """A file with one JSON object a line, in UTF-8; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, 0
        self._buffer = bytearray()
        self._file = path.open("xb")

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, rows: Iterable[Row]) -> None:
        for row in rows:
            _encoder.encode_into(row, self._buffer)
            self._buffer += b"\n"
            self._file.write(self._buffer)
            self._buffer.clear()
            self.rows += 1

    def written(self) -> Written:
        """What there is of it by now."""
        self._file.flush()
        return Written(file=self.path.name, rows=self.rows, bytes=self.path.stat().st_size)


def write_json_lines(path: Path, rows: Iterable[Row]) -> Written:
    """A table as JSON lines."""
    with JsonLines(path) as file:
        file.write(rows)
        return file.written()


def need_pyarrow() -> Any:
    """The module pyarrow.

    :raises UsageError: naming the extra that brings it.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            "Parquet needs the package pyarrow; `pip install 'rl-workbench[parquet]'` brings it, --to jsonl needs none"
        ) from None
    return pyarrow


_Column = tuple[str, Any, Callable[[Any], Any]]
"""Name, type and how a row's value is had."""


def write_parquet(path: Path, kind: type[Row], rows: Iterable[Row], metrics: Sequence[str] = ()) -> Written:
    """A table as Parquet, with a type for each column.

    :param kind: of the rows.
    :param metrics: of a table of steps: each is a column, as is each hyperparameter.
    """
    pa = need_pyarrow()
    columns = list(_columns(pa, kind, metrics))
    schema = pa.schema([(name, of) for name, of, _ in columns])
    count = 0
    with pa.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        held: list[Any] = []
        size = 0
        for batch in _batches(rows):
            arrays = [pa.array([get(row) for row in batch], of) for _, of, get in columns]
            held.append(pa.record_batch(arrays, schema=schema))
            count += len(batch)
            size += held[-1].nbytes
            if size >= GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(held))
                held, size = [], 0
        if held:
            writer.write_table(pa.Table.from_batches(held))
    return Written(file=path.name, rows=count, bytes=path.stat().st_size)


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(rows)
    while batch := list(islice(left, BATCH)):
        yield batch


def _columns(pa: Any, kind: type[Row], metrics: Sequence[str]) -> Iterator[_Column]:
    hints = typing.get_type_hints(kind)
    for name in kind.__struct_fields__:
        if kind is StepRow and name == "metrics":
            yield from ((m, pa.float64(), _of_dict("metrics", m)) for m in metrics)
        elif kind is StepRow and name == "values":
            for knob in HYPERPARAMETERS.values():
                yield KNOB + knob.name, _type(pa, type(knob.default)), _of_dict("values", knob.name)
        else:
            hint = _without_none(hints[name])
            yield name, _type(pa, hint, narrow=name in kind.narrow), _getter(name, hint)


def _without_none(hint: Any) -> Any:
    if isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union:
        kinds = [of for of in typing.get_args(hint) if of is not NoneType]
        return kinds[0] if len(kinds) == 1 else Any
    return hint


def _type(pa: Any, hint: Any, *, narrow: bool = False) -> Any:
    simple = {str: pa.string(), int: pa.int64(), bool: pa.bool_(), float: pa.float32() if narrow else pa.float64()}
    if hint in simple:
        return simple[hint]
    match typing.get_origin(hint), [_without_none(of) for of in typing.get_args(hint)]:
        case (builtin, [of]) if builtin is list:
            return pa.list_(_type(pa, of, narrow=narrow))
        case (builtin, [key, of]) if builtin is dict:
            return pa.map_(_type(pa, key), _type(pa, of))
    return pa.string()  # what has no one type is text: as it is, or as JSON


def _getter(name: str, hint: Any) -> Callable[[Any], Any]:
    if typing.get_origin(hint) is dict:
        return lambda row: list(getattr(row, name).items())
    if hint in (str, int, bool, float) or typing.get_origin(hint) is list:
        return lambda row: getattr(row, name)
    return lambda row: _as_text(getattr(row, name))


def _of_dict(field: str, name: str) -> Callable[[Any], Any]:
    return lambda row: getattr(row, field).get(name)


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return _encoder.encode(value).decode()
