"""Datasets through the package ``datasets``: by their name on the hub, or as ``save_to_disk`` wrote them.

They are memory maps of files in the hub's cache (``HF_HOME``), or of the folder. With ``HF_HUB_OFFLINE=1`` only what is
in the cache is used. No code that comes with a dataset is run: the package does not do so any more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.hub import own_environment
from engine.tasks.rows import Row, digest
from engine.tasks.telling import SECONDS, TELL, Progress
from engine.words import one_line
from sessions.errors import InputFileError, UsageError
from sessions.extras import need


class TableRows:
    """The rows of a dataset of the package ``datasets``.

    :param where: for errors.
    :param fingerprint: empty: the dataset's own.
    """

    def __init__(self, table: Any, where: str, fingerprint: str = "") -> None:
        self._table, self._where = table, where
        self._fingerprint = fingerprint or str(table._fingerprint)

    def scan(self) -> Iterator[tuple[str, int, Row]]:
        progress = Progress(self._where, len(self._table))
        try:
            for number, row in enumerate(self._table, 1):
                progress.at(number, number)
                yield f"{self._where}, row {number}", number, row
        except (OSError, ValueError) as error:
            raise InputFileError(f"{self._where}: cannot be read ({one_line(error)})") from None

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Row:
        row: Row = self._table[index]
        return row

    def number(self, index: int) -> int:
        return index + 1

    def fingerprint(self) -> str:
        return self._fingerprint


def open_hub(name: str, config: str, split: str) -> TableRows:
    """A split of a dataset of the hub: from its cache, else fetched into it.

    The engine stays off the network, so a process of its own fetches, unless the person keeps that offline, too.

    :raises UsageError: one line that says why it cannot be had, and what to do.
    """
    where = f"task {name}"
    need("datasets", where)
    import datasets

    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(name, config or None, split=split)
    except Exception as error:  # noqa: BLE001 - the package and its network raise many kinds; all mean that there is none
        if not datasets.config.HF_HUB_OFFLINE or is_forbidden():
            raise UsageError(f"{where}: {reason(error, config, split)}") from None
        table = None
    if table is None:
        if why := _fetch(name, config, split):
            raise UsageError(f"{where}: {why}")
        return open_hub_cached(name, config, split)
    return _rows(table, name, config, split)


def open_hub_cached(name: str, config: str, split: str) -> TableRows:
    """The same from the cache alone."""
    import datasets

    try:
        table = datasets.load_dataset(name, config or None, split=split)
    except Exception as error:  # noqa: BLE001 - as above
        raise UsageError(f"task {name}: has been fetched and cannot be read ({one_line(error)})") from None
    return _rows(table, name, config, split)


def _rows(table: Any, name: str, config: str, split: str) -> TableRows:
    import datasets

    if not isinstance(table, datasets.Dataset):
        raise UsageError(f"task {name}: split {split} is no table of rows; give one, such as split=train")
    return TableRows(table, f"{name}, {split}", f"{config} {table._fingerprint}")


def is_forbidden() -> bool:
    """Whether the person keeps the hub off the network; the engine itself always does."""
    return own_environment().get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _fetch(name: str, config: str, split: str) -> str:
    """Have another process put it into the cache.

    :returns: why it could not; empty: it has.
    """
    tell, began = TELL.get(), time.monotonic()
    tell(f"fetching {name} from the hub")
    command = [sys.executable, "-P", "-m", "engine.tasks.fetch", name, config, split]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=own_environment()
    ) as process:
        try:
            said = _said_by(process, lambda: tell(f"fetching {name} from the hub: {time.monotonic() - began:.0f} s"))
        finally:
            process.kill()  # where it is left before it is done
    lines = said.strip().splitlines()
    try:
        return str(json.loads(lines[-1])["error"]) if lines else f"the download ended with code {process.returncode}"
    except (ValueError, KeyError, TypeError):
        return f"the download ended with code {process.returncode}"


def _said_by(process: subprocess.Popen[str], meanwhile: Callable[[], None]) -> str:
    """What a process writes until it ends.

    :param meanwhile: called every few seconds; what it raises is raised here.
    """
    while True:
        try:
            return process.communicate(timeout=SECONDS)[0]
        except subprocess.TimeoutExpired:
            meanwhile()


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def open_saved(folder: Path, split: str) -> TableRows:
    """What ``save_to_disk`` wrote; of several splits that one.

    :raises InputFileError: if it cannot be read, or has no such split.
    """
    need("datasets", f"task {folder}")
    import datasets

    try:
        table = datasets.load_from_disk(str(folder))
    except Exception as error:  # noqa: BLE001 - the package raises many kinds; all mean that the folder is unusable
        raise InputFileError(f"{folder}: cannot be read as a saved dataset ({one_line(error)})") from None
    if isinstance(table, datasets.DatasetDict):
        if (split or "train") not in table:
            raise InputFileError(f"{folder}: no split {split or 'train'!r} in it; there are: {', '.join(table)}")
        split = split or "train"
        table, folder = table[split], folder / split
    elif split and split != "train":
        raise InputFileError(f"{folder}: has no splits, it is one dataset; leave split={split} out")
    return TableRows(table, str(folder), digest(sorted(p for p in folder.iterdir() if p.is_file())))


def reason(error: Exception, config: str, split: str) -> str:
    """Why a dataset could not be had, and what to do."""
    import datasets
    from huggingface_hub.errors import GatedRepoError

    causes = _causes(error)
    if any(isinstance(cause, GatedRepoError) or "gated" in str(cause).lower() for cause in causes):
        return "it is gated: ask for access on its page, then `hf auth login`"
    offline = any("offline" in f"{type(c).__name__} {c}".lower() for c in causes)
    if offline or datasets.config.HF_HUB_OFFLINE:
        return "it is not in the hub's cache, and HF_HUB_OFFLINE keeps it from being fetched; unset that"
    if any(isinstance(cause, ConnectionError | TimeoutError) for cause in causes):
        return f"the hub cannot be reached and it is not in its cache ({one_line(error)})"
    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        return "there is no such dataset on the hub, or it is private; look at its name, or `hf auth login`"
    if "config" in str(error).lower() or "split" in str(error).lower():
        return f"config={config or '(none)'} split={split}: {one_line(error)}"
    return f"cannot be loaded ({one_line(error)})"


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
