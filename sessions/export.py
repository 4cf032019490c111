"""``workbench export`` and ``:export``: what a session recorded and learned, as files that other tools read.

The files are written into a folder with another name, which gets its own when they are all there. A session that is
being trained is read in short pages and goes on meanwhile. Nothing of the environment is written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sessions.branches import END, Segment, find_branch
from sessions.errors import InputFileError, InvalidValue, SessionError, UnknownName, UsageError
from sessions.export_files import JsonLines, Written, need_pyarrow, write_json_lines, write_parquet
from sessions.export_model import ADAPTERS, Merge, choose_checkpoint, copy_policy
from sessions.export_tables import (
    AlarmRow,
    ChangeRow,
    HeldOutRow,
    RatingRow,
    ResponseRow,
    Row,
    SkipRow,
    StepRow,
    TokensRow,
    alarm_rows,
    change_rows,
    held_out_rows,
    rating_rows,
    response_rows,
    skip_rows,
    step_rows,
)
from sessions.folders import SessionFolder
from sessions.formats import FORMATS
from sessions.paths import expanded
from sessions.preferences import demonstrations, judged, labelled, pairs
from sessions.records import WARM_UP, Alarm, Change, Record
from sessions.store import Store


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a session.

    :ivar branch: with its ancestors; empty: the active one.
    :ivar all_branches: every branch, each with its own steps.
    :ivar first: the first and the last step, both included.
    :ivar tokens: with what is kept for each token of a response.
    :ivar conversational: texts as messages, which TRL puts into a chat template.
    :ivar step: of the checkpoint; None: the newest, or with ``best`` the one with the best held-out accuracy.
    :ivar merge: makes a whole model of a base and adapters; None: adapters are kept apart.
    """

    branch: str = ""
    all_branches: bool = False
    first: int = 0
    last: int = END
    tokens: bool = False
    conversational: bool = False
    step: int | None = None
    best: bool = False
    merge: Merge | None = None

    @property
    def whole(self) -> bool:
        """Whether no range of steps is given."""
        return self.first <= 0 and self.last >= END


class Exported(Record):
    """What was written.

    :ivar step: of the checkpoint, where a model was exported.
    """

    session: str
    to: str
    folder: str
    branches: list[str]
    files: list[Written]
    step: int | None = None

    def describe(self) -> list[str]:
        """Lines for people."""
        lines = [
            f"{file.file}: {file.rows:,} {'row' if file.rows == 1 else 'rows'}"
            if file.rows is not None
            else f"{file.file}: {file.bytes:,} bytes"
            for file in self.files
        ]
        what = f"step {self.step} of {self.session}" if self.step is not None else self.session
        return [*lines, f"{what} is in {self.folder}"]


def export(folder: SessionFolder, to: str, target: Path, wanted: Wanted | None = None) -> Exported:
    """Write a session to a new or empty folder.

    :param to: one of :data:`FORMATS`.
    :raises WorkbenchError: if it cannot be; then nothing is left behind.
    """
    wanted = wanted or Wanted()
    if to not in FORMATS:
        raise UnknownName("format", to, FORMATS)
    if to == "parquet":
        need_pyarrow()
    if not folder.database.is_file():
        raise SessionError(f"session {folder.name!r} has no records yet")
    with new_folder(target) as (place, final):
        store = Store(folder.database, read_only=True)
        try:
            if to == "model":
                return _model(folder, store, place, final, wanted)
            return _records(folder, store, to, place, final, wanted)
        finally:
            store.close()


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[tuple[Path, Path]]:
    """A folder to write in, beside the one that it becomes when everything went well.

    :returns: that folder, and the absolute path that it will have.
    :raises InputFileError: if the target is anything but a new or an empty folder.
    """
    final = Path(os.path.abspath(expanded(target)))
    check_free(final)
    place = final.with_name(f".{final.name[:100]}.{uuid.uuid4().hex[:12]}.partial")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir()
    except OSError as error:
        raise InputFileError(f"{final}: cannot be made ({error.strerror})") from None
    try:
        yield place, final
        check_free(final)
        try:
            place.rename(final)  # takes the place of an empty folder, and of nothing else
        except OSError as error:
            raise InputFileError(f"{final}: cannot be made ({error.strerror})") from None
    finally:
        shutil.rmtree(place, ignore_errors=True)


def check_free(final: Path) -> None:
    """Raise InputFileError if a path is anything but a new or an empty folder."""
    try:
        if final.is_symlink() or (final.exists() and not final.is_dir()) or (final.is_dir() and any(final.iterdir())):
            raise InputFileError(f"{final}: is there already; give a new or empty folder")
    except OSError as error:
        raise InputFileError(f"{final}: cannot be used ({error.strerror})") from None


def parts_of(store: Store, wanted: Wanted) -> list[Segment]:
    """The steps that are wanted, by the branch that owns them; the warm-up's come first, unless a range is given.

    :raises UnknownName: if there is no such branch.
    :raises InvalidValue: if the range holds nothing.
    """
    if wanted.first > wanted.last:
        raise InvalidValue(f"--steps {wanted.first}:{wanted.last}: the first step comes after the last")
    if wanted.all_branches:  # deleted ones too: what people rated on them is kept
        owned = [Segment(name, -1, END) for name in store.branches() if name != WARM_UP]
    else:
        owned = store.line(_branch(store, wanted))
    first = [Segment(WARM_UP, -1, END)] if wanted.whole else []
    parts = [Segment(b, max(after, wanted.first - 1), min(last, wanted.last)) for b, after, last in [*first, *owned]]
    # a part must not grow while it is read
    ended = [Segment(b, after, min(last, store.newest_step(b))) for b, after, last in parts]
    return [part for part in ended if part.after < part.last]


def _branch(store: Store, wanted: Wanted) -> str:
    return find_branch(wanted.branch, store.branches()).name if wanted.branch else store.active


def _records(folder: SessionFolder, store: Store, to: str, place: Path, final: Path, wanted: Wanted) -> Exported:
    parts = parts_of(store, wanted)
    if to == "preferences":
        files = _preferences(store, parts, place, wanted)
    else:
        files = _tables(store, parts, place, wanted, parquet=to == "parquet")
    branches = list(dict.fromkeys(part.branch for part in parts))
    return Exported(session=folder.name, to=to, folder=str(final), branches=branches, files=files)


_Dated = TypeVar("_Dated", Change, Alarm)


def _of_lines(store: Store, wanted: Wanted, found_on: Callable[[str, int], list[_Dated]]) -> list[_Dated]:
    """Changes or alarms of the wanted branches and steps, oldest first."""
    lines = list(store.branches()) if wanted.all_branches else [_branch(store, wanted)]
    found = {one.id: one for branch in lines for one in found_on(branch, END)}
    return sorted((x for x in found.values() if wanted.first <= x.step <= wanted.last), key=lambda x: x.time)


def _tables(store: Store, parts: list[Segment], place: Path, wanted: Wanted, *, parquet: bool) -> list[Written]:
    active, line = store.line(store.active), "" if wanted.all_branches else _branch(store, wanted)
    tables: list[tuple[str, type[Row], Callable[[], Iterator[Row]]]] = [
        ("steps", StepRow, lambda: step_rows(store, parts)),
        (
            "responses",
            TokensRow if wanted.tokens else ResponseRow,
            lambda: response_rows(store, parts, active, tokens=wanted.tokens),
        ),
        ("held_out", HeldOutRow, lambda: held_out_rows(store, parts)),
        ("ratings", RatingRow, lambda: rating_rows(store, parts, active, line)),
        ("skips", SkipRow, lambda: skip_rows(store, parts, active)),
        ("changes", ChangeRow, lambda: change_rows(_of_lines(store, wanted, store.changes))),
        ("alarms", AlarmRow, lambda: alarm_rows(_of_lines(store, wanted, store.alarms))),
    ]
    if not parquet:
        return [write_json_lines(place / f"{name}.jsonl", rows()) for name, _, rows in tables]
    metrics = sorted({name for row in step_rows(store, parts) for name in row.metrics})
    return [
        write_parquet(place / f"{name}.parquet", kind, rows(), metrics if kind is StepRow else ())
        for name, kind, rows in tables
    ]


def _preferences(store: Store, parts: list[Segment], place: Path, wanted: Wanted) -> list[Written]:
    active = store.line(store.active)
    with (
        JsonLines(place / "preferences.jsonl") as paired,
        JsonLines(place / "unpaired.jsonl") as unpaired,
        JsonLines(place / "demonstrations.jsonl") as shown,
    ):
        for group, said in judged(store, parts):
            paired.write(pairs(group, said, active, conversational=wanted.conversational))
            unpaired.write(labelled(group, said, active, conversational=wanted.conversational))
            shown.write(demonstrations(group, said, active, conversational=wanted.conversational))
        return [paired.written(), unpaired.written(), shown.written()]


def _model(folder: SessionFolder, store: Store, place: Path, final: Path, wanted: Wanted) -> Exported:
    branch = _branch(store, wanted)
    checkpoint = choose_checkpoint(folder, store, branch, step=wanted.step, best=wanted.best)
    files = copy_policy(folder.checkpoint(checkpoint.path), place)
    if wanted.merge is not None:
        if not (place / ADAPTERS).exists():
            raise UsageError(f"step {checkpoint.step} has no adapters to merge: the model is whole; leave --merge out")
        files = _merged(place, wanted.merge)
    return Exported(
        session=folder.name, to="model", folder=str(final), branches=[branch], files=files, step=checkpoint.step
    )


def _merged(place: Path, merge: Merge) -> list[Written]:
    """Put a whole model in the place of adapters."""
    apart = place / ".adapters"
    apart.mkdir()
    for path in [p for p in place.iterdir() if p != apart]:
        path.rename(apart / path.name)
    merge(apart, place)
    shutil.rmtree(apart)
    files = sorted(p for p in place.rglob("*") if p.is_file())
    return [Written(file=str(p.relative_to(place)), bytes=p.stat().st_size) for p in files]
