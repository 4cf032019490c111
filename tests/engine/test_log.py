"""What an engine prints, on a disk that has room and on one that has none."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from engine.log import Log

FULL = Path("/dev/full")
ROOT = Path(__file__).parents[2]
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


def test_what_is_printed_is_there_at_once(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", buffering=1) as file:
        log = Log(file)
        print("a line", file=log)
        print("another", file=log, flush=True)
        assert (tmp_path / "log").read_text() == "a line\nanother\n"
        assert (log.fileno(), log.isatty(), log.writable()) == (file.fileno(), False, True)


@needs_full
def test_a_full_disk_is_no_error_of_whoever_tells_one() -> None:
    stream = io.TextIOWrapper(io.BufferedWriter(io.FileIO(FULL, "w")), line_buffering=True)
    log = Log(stream)
    try:
        raise ZeroDivisionError("by nothing")
    except ZeroDivisionError:
        for _ in range(1000):  # beyond what the stream has room for
            traceback.print_exc(file=log)
    log.flush()
    with pytest.raises(OSError, match="No space"):
        stream.close()


@needs_full
def test_an_engine_whose_log_cannot_grow_ends_with_its_own_code(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "engine", str(tmp_path / "none")],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=full, stderr=full,
        )  # fmt: skip
    assert done.returncode == 2
