"""Rows of a Parquet file.

A row group can only be read whole, so the file is walked through once, a batch at a time, and kept unpacked in a file
in ``$WORKBENCH_HOME/rows`` that has no name any more and is gone with the process. Its rows are read through a memory
map.
"""

from __future__ import annotations

import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from engine.tasks.rows import Row, digest
from engine.tasks.telling import Progress
from sessions.errors import InputFileError
from sessions.folders import home

BATCH = 256


class ParquetRows:
    """The rows of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except (pyarrow.ArrowException, ValueError) as error:
            raise InputFileError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
        self._ends = array("Q")
        self._kept: Any = None

    def scan(self) -> Iterator[tuple[str, int, Row]]:
        progress = Progress(self.path.name, self._file.metadata.num_rows)
        number = 0
        folder = home() / "rows"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, suffix=".arrow") as kept:
                schema = _plain(self._file.schema_arrow)
                with pyarrow.ipc.new_file(kept.name, schema) as writer:
                    for batch in self._file.iter_batches(BATCH):
                        writer.write_batch(batch.cast(schema))
                        for row in batch.to_pylist():
                            number += 1
                            progress.at(number, number)
                            yield f"{self.path}, row {number}", number, row
                        self._ends.append(number)
                self._kept = pyarrow.ipc.open_file(pyarrow.memory_map(kept.name))
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise InputFileError(
                f"{self.path}: cannot be read or kept in {folder} ({str(error).splitlines()[0]})"
            ) from None

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._ends else 0

    def __getitem__(self, index: int) -> Row:
        place = bisect_right(self._ends, index)
        within = index - (self._ends[place - 1] if place else 0)
        row: Row = self._kept.get_batch(place).slice(within, 1).to_pylist()[0]
        return row

    def number(self, index: int) -> int:
        return index + 1

    def fingerprint(self) -> str:
        return digest([self.path])


def _plain(schema: Any) -> Any:
    """The same without dictionaries, which the kept file may have only once for all batches."""
    fields = [f.with_type(f.type.value_type) if pyarrow.types.is_dictionary(f.type) else f for f in schema]
    return pyarrow.schema(fields)
