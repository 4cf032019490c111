"""A task from rows: of a file, a folder, or a dataset of the hub.

The rows are walked through once, which checks each and keeps eight bytes of it to know it again: a question that is
repeated is asked once, and none that is held out is trained on. Afterwards a row is read when it is asked.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from engine.randomness import permutation
from engine.rewards import Component, exact_match, last_number, last_number_reward
from engine.tasks.asking import Asked, Reader
from engine.tasks.rows import ROW_BYTES, Row, Rows, open_rows
from engine.tasks.task import Prompt, Task
from sessions.columns import UNANSWERED, choose
from sessions.errors import InputFileError, UsageError
from sessions.paths import expanded
from sessions.specs import OptionValue, Spec
from sessions.task_kinds import is_file

HELD_OUT = 32
"""Proposed size of the held-out set; at most a tenth of the rows."""
EVALUATED = 250
"""Rows of an evaluation split that are asked, if no number is given."""
MOST_COLUMNS = 1000
PER_MESSAGE = 64
"""Characters that a chat message counts for beside its text, generously: its role and the template around it."""

Places = npt.NDArray[np.unsignedinteger[Any]]


class PromptRows(Sequence[Prompt]):
    """Rows as prompts, each read when it is asked for.

    :param name: of the dataset; a prompt's id is that and the row's number.
    :param places: which rows, in order.
    :ivar sizes: bytes of what each asks, shape [prompts].
    """

    def __init__(
        self, rows: Rows, reader: Reader, columns: Sequence[str], name: str, places: Places, sizes: Places
    ) -> None:
        self._rows, self._reader, self._columns, self._name = rows, reader, columns, name
        self.places, self.sizes = places, sizes

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Prompt]: ...

    def __getitem__(self, index: int | slice) -> Prompt | Sequence[Prompt]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = int(self.places[index])
        name = self._id(place)
        return self._reader.prompt(self._rows[place], name, name, self._columns)

    def _id(self, place: int) -> str:
        return f"{self._name}:{self._rows.number(place)}"

    def named(self, ids: Collection[str]) -> dict[str, Prompt]:
        """Those whose ids these are; no other row is read."""
        found = {self._id(place): index for index, place in enumerate(self.places.tolist()) if self._id(place) in ids}
        return {name: self[index] for name, index in found.items()}

    def only(self, which: npt.NDArray[np.bool_]) -> PromptRows:
        """Those of them for which it is true."""
        return PromptRows(
            self._rows, self._reader, self._columns, self._name, self.places[which], self.sizes[which]
        )  # fmt: skip


@dataclass(slots=True)
class Walk:
    """What walking through rows once has found.

    :ivar keys: eight bytes that know each question again.
    :ivar sizes: bytes of what each row asks.
    :ivar columns: of all rows, in the order in which they turned up.
    :ivar unanswered: why the first row without a reference has none; empty: all have one.
    :ivar odd: where the first reference is that is no number; empty: all are.
    """

    rows: Rows
    reader: Reader
    keys: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("I"))
    columns: dict[str, None] = field(default_factory=dict)
    unanswered: str = ""
    odd: str = ""

    def first_places(self) -> Places:
        """The first row of each question, in order."""
        _, first = np.unique(np.frombuffer(self.keys, dtype=np.uint64), return_index=True)
        first.sort()
        return first.astype(np.uint32)

    def keys_at(self, places: Places) -> npt.NDArray[np.uint64]:
        found: npt.NDArray[np.uint64] = np.frombuffer(self.keys, dtype=np.uint64)[places]
        return found

    def prompts(self, name: str, places: Places) -> PromptRows:
        sizes = np.array(self.sizes, dtype=np.uint32)[places]
        return PromptRows(self.rows, self.reader, tuple(self.columns), name, places, sizes)


def walk(rows: Rows, options: Mapping[str, OptionValue], where: str) -> Walk:
    """Check every row.

    :raises InputFileError: naming file, line and column of the first that cannot be asked.
    """
    walked: Walk | None = None
    talks = False
    for at, _, row in rows.scan():
        if walked is None:
            walked = Walk(rows, Reader(choose(list(row), options, at), str(options.get("system", ""))))
            talks = bool(walked.reader.ask(row, at).messages)
        asked = walked.reader.ask(row, at)
        if bool(asked.messages) != talks:
            kinds = ("chat messages", "text") if talks else ("text", "chat messages")
            raise InputFileError(
                f"{at}: column {walked.reader.chosen.prompt} holds {kinds[1]} and that of the first row {kinds[0]}"
            )
        _note(walked, row, at, asked)
    if walked is None:
        raise InputFileError(f"{where}: is empty; there is no row in it")
    return walked


def _note(walked: Walk, row: Row, at: str, asked: Asked) -> None:
    text = asked.text.encode()
    walked.keys.append(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))
    size = len(text)
    if asked.messages:
        size = sum(len(message["content"].encode()) + PER_MESSAGE for message in asked.messages)
    walked.sizes.append(min(size, ROW_BYTES))
    if not row.keys() <= walked.columns.keys():
        walked.columns |= dict.fromkeys(row)
        if len(walked.columns) > MOST_COLUMNS:
            raise InputFileError(f"{at}: there are more than {MOST_COLUMNS:,} columns; is this a table of questions?")
    if not asked.answer and not walked.unanswered:
        walked.unanswered = walked.reader.why_unanswered(row, at)
    if not asked.numeric and not walked.odd:
        walked.odd = at


def dataset(spec: Spec, options: Mapping[str, OptionValue], seed: int) -> Task:
    """The task of a file, folder or hub dataset.

    :raises UsageError: one line that says what cannot be used.
    """
    split, config = str(options["split"]), str(options["config"])
    other = str(options["evaluation_split"])
    path = expanded(spec.use)
    if not is_file(spec.use):
        from engine.tasks.hub import open_hub

        name = spec.use.rpartition("/")[2]
        return _task(name, name, lambda s: open_hub(spec.use, config, s), split or "train", other, options, seed)
    if path.is_dir():
        from engine.tasks.folders import open_split
        from engine.tasks.hub import is_saved, open_saved

        if is_saved(path):
            return _task(path.name, path.name, lambda s: open_saved(path, s), split, other, options, seed)
        return _task(
            path.name, path.name, lambda s: open_split(path, s, config), split or "train", other, options, seed
        )  # fmt: skip
    if not path.is_file():
        raise InputFileError(f"task {spec.use}: no such file")
    return _task(path.stem, path.stem, lambda s: open_rows(Path(s) if s else path), "", other, options, seed)


def gsm8k(spec: Spec, options: Mapping[str, OptionValue], seed: int) -> Task:
    """The task of a file in the format of GSM8K.

    :raises InputFileError: if a line is not of that format.
    """
    path = Path(str(options["path"]))
    if not path.is_file():
        raise InputFileError(f"task gsm8k: path {path}: there is no such file")
    columns = {"prompt": "question", "answer": "answer", **options}
    walked = walk(open_rows(path), columns, str(path))
    if walked.unanswered or walked.odd:
        raise InputFileError(f"{walked.unanswered or walked.odd}: no number after #### in the column answer")
    return _made(path.stem, path.stem, walked, None, "", columns, seed)


def _task(
    name: str,
    label: str,
    open_split: Callable[[str], Rows],
    split: str,
    other: str,
    options: Mapping[str, OptionValue],
    seed: int,
) -> Task:
    """Walk through the rows of training and of evaluation.

    :param label: begins the ids of prompts.
    """
    walked = walk(open_split(split), options, f"task {name}")
    held = None
    if other:
        if other == split:
            raise UsageError(f"task {name}: evaluation_split={other} is what is trained on; name another")
        held = walk(open_split(other), options, f"task {name}, evaluation_split {other}")
        if held.reader.chosen != walked.reader.chosen:
            raise InputFileError(
                f"task {name}: its splits have other columns ({_words(held.reader)} and {_words(walked.reader)}); "
                "name them with prompt= and answer="
            )
    return _made(name, label, walked, held, other, options, seed)


def _words(reader: Reader) -> str:
    return f"{reader.chosen.prompt}/{reader.chosen.answer or 'none'}"


def _made(
    name: str,
    label: str,
    walked: Walk,
    held: Walk | None,
    other: str,
    options: Mapping[str, OptionValue],
    seed: int,
) -> Task:
    """The task of rows that have been walked through."""
    wanted = int(options.get("held_out", 0))
    places = walked.first_places()
    notes = list(_repeated(len(walked.keys) - len(places), "rows that ask a question again were"))
    unanswered = walked.unanswered or (held.unanswered if held is not None else "")
    if unanswered and other:
        raise InputFileError(f"{unanswered}; without an answer the evaluation split cannot be judged")
    evaluation: Sequence[Prompt] = []
    if held is not None:
        asked = held.first_places()
        both = np.isin(walked.keys_at(places), held.keys_at(asked))
        places = places[~both]
        notes += _repeated(int(both.sum()), f"rows whose question is in the evaluation split {other} too were")
        chosen = permutation("held out", seed, n=len(asked))[: wanted or EVALUATED]
        evaluation = held.prompts(f"{label}/evaluation", asked[np.sort(chosen)])
    elif not unanswered:
        if len(places) < 2:
            raise InputFileError(
                f"task {name}: its rows ({len(walked.keys):,}) ask one question only; at least 2 are needed, one of "
                "them held out"
            )
        count = min(wanted or HELD_OUT, max(1, len(places) // 10))
        order = permutation("held out", seed, n=len(places))
        evaluation = walked.prompts(label, places[np.sort(order[:count])])
        places = places[np.sort(order[count:])]
    if not len(places):
        raise InputFileError(
            f"task {name}: no row is left to train on: all of them are in the evaluation split {other}"
        )
    if unanswered:
        notes.append("its rows have no reference answers: none is held out, and no accuracy is measured")
    numeric = not walked.odd and (held is None or not held.odd)
    return Task(
        name=name,
        prompts=walked.prompts(label, places),
        evaluation=evaluation,
        components={} if unanswered else _component(numeric),
        reward_range=(0.0, 1.0),
        judge=None if unanswered else same_number if numeric else same_text,
        unrewarded=unanswered and f"{unanswered}; {UNANSWERED}",
        notes=tuple(notes),
        fingerprint=_fingerprint(walked, held),
    )


def same_number(prompt: Prompt, text: str) -> bool:
    """Whether the last number of a response is that of the reference."""
    return last_number(text) == last_number(prompt.answer)


def same_text(prompt: Prompt, text: str) -> bool:
    """Whether a response is the reference, blanks around it aside."""
    return text.strip() == prompt.answer


def _component(numeric: bool) -> dict[str, Component]:
    return {"last_number": Component(last_number_reward)} if numeric else {"exact": Component(exact_match)}


def _repeated(count: int, what: str) -> Iterator[str]:
    if count:
        yield f"{count:,} {what} left out"


def _fingerprint(walked: Walk, held: Walk | None) -> str:
    return " ".join(part.rows.fingerprint() for part in (walked, held) if part is not None)
