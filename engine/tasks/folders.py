"""Which files of a folder belong to which split, as datasets are laid out on the Hugging Face hub.

``train.jsonl`` and ``test.jsonl``; ``data/train-00000-of-00002.parquet``; ``train/part1.csv``: the name of the split,
or another word for it, is a part of the file's name or of a folder's. Where no name says anything, all of it is
``train``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from engine.tasks.rows import ManyRows, Rows, open_rows
from sessions.errors import InputFileError
from sessions.task_kinds import SUFFIXES

WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Split -> what it is called in names."""
NOT_ROWS = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "metadata.json"}
MOST_FILES = 10_000
_APART = re.compile(r"[-._ 0-9]+")


def open_split(folder: Path, split: str, config: str = "") -> Rows:
    """The rows of one split, its files in the order of their names.

    :param config: a folder in it to look in instead.
    :raises InputFileError: naming what there is, if there are none.
    """
    where = folder / config if config else folder
    if not where.is_dir() or not where.resolve().is_relative_to(folder.resolve()):
        there = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise InputFileError(
            f"{folder}: no folder {config!r} in it for config=; there are: {', '.join(there) or 'none'}"
        )
    found = splits(where)
    if not found:
        raise InputFileError(f"{where}: no files of rows in it ({', '.join(SUFFIXES)})")
    split = next((name for name, words in WORDS.items() if split in words), split)
    if split not in found:
        raise InputFileError(f"{where}: no split {split!r} in it; there are: {', '.join(sorted(found))}")
    files = found[split]
    endings = {path.suffix.lower() for path in files}
    if len(endings) > 1:
        raise InputFileError(
            f"{where}: its split {split} has files of several kinds ({', '.join(sorted(endings))}); name one file"
        )
    rows = [open_rows(path) for path in files]
    return rows[0] if len(rows) == 1 else ManyRows(rows)


def splits(folder: Path) -> dict[str, list[Path]]:
    """Split -> its files."""
    files = []
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if path.suffix.lower() not in SUFFIXES or path.name in NOT_ROWS or not path.is_file():
            continue
        if any(part.startswith((".", "__")) for part in inside.parts):
            continue
        files.append(inside)
        if len(files) > MOST_FILES:
            raise InputFileError(f"{folder}: more than {MOST_FILES:,} files of rows in it; name one of them")
    found: dict[str, list[Path]] = {}
    named = {file: split_of(file.with_suffix("").parts) for file in sorted(files)}
    for file, split in named.items():
        if not any(named.values()):
            split = "train"
        if split:
            found.setdefault(split, []).append(folder / file)
    return found


def split_of(parts: Sequence[str]) -> str:
    """The split that the parts of a path name, the last first; empty: none."""
    for part in reversed(parts):
        words = _APART.split(part.lower())
        for split, known in WORDS.items():
            if any(word in known for word in words):
                return split
    return ""
