"""``workbench import``: ratings and preferences from files, into a session.

A rating of a group that the session has, by name and with the same texts, comes back as what it was: under its id, so
that none comes twice. All else is kept as orderings, which a reward model learns from. What a file holds is not
trusted: a line that cannot be used is counted, with the first reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sessions import wire
from sessions.commands import ImportOrderings, ImportRatings, Returned
from sessions.errors import InputFileError, InvalidValue, WorkbenchError
from sessions.examples import Text
from sessions.judging import standing
from sessions.limits import COMMAND, ITEMS, check_fields
from sessions.modes import replaces
from sessions.orderings import MOST, Ordering, check_ordering, ordering_id, plain, read_ordering
from sessions.rating_lines import RatingLine, check_rating
from sessions.records import Group, Rating, Record, ResponseName, parse_response_name
from sessions.store import Store
from sessions.taught import orderings_in

LINE_LIMIT = 16 * 2**20
"""Bytes of a line."""
HELD = 2**30
"""Characters of ratings and labels that are held until the end of a file, where those of one prompt are brought
together."""
ROOM = COMMAND - 4096
"""Bytes of a command that are left for what it carries."""
FORMS = "give TRL's prompt/chosen/rejected or prompt/completion/label, or lines of an exported ratings.jsonl"


class Received(Record):
    """What became of what was imported.

    :ivar why: the first reason for which something could not be used.
    """

    new: int = 0
    known: int = 0
    unusable: int = 0
    why: str = ""

    def refuse(self, why: str) -> None:
        """Count one that cannot be used."""
        self.unusable += 1
        self.why = self.why or why

    def add(self, other: Received) -> None:
        """Count those of another too."""
        self.new += other.new
        self.known += other.known
        self.unusable += other.unusable
        self.why = self.why or other.why

    def describe(self) -> str:
        """``120 new, 3 known before, 2 not usable (line 7: ...)``."""
        parts = [f"{self.new:,} new"]
        parts += [f"{self.known:,} known before"] if self.known else []
        parts += [f"{self.unusable:,} not usable ({self.why})"] if self.unusable else []
        return ", ".join(parts)


# -------------------------------------------------------------------------------------- into the database


def give_back(store: Store, returned: Returned, branch: str, found: Received) -> wire.AnyEvent | None:
    """Keep a rating that comes back, unless it is known; on the store's thread.

    :param branch: that is trained.
    :param found: counts what became of it.
    :returns: the event that tells of it.
    """
    try:
        rating = _fitting(store, returned, branch)
    except (WorkbenchError, ValueError) as error:
        found.refuse(str(error))
        return None
    if rating is None:
        found.known += 1
        return None
    found.new += 1
    return store.add_rating(rating)


def _fitting(store: Store, returned: Returned, branch: str) -> Rating | None:
    """The rating as it is to be kept; None if it is there.

    :raises WorkbenchError: if it does not fit to the session.
    """
    rating = returned.rating
    check_rating(rating)
    if store.rating(rating.id) is not None:
        return None
    name = ResponseName(rating.step, rating.group, branch=rating.branch)
    group = store.group(name, branch, tokens=False)
    texts = {r.letter: r.text for r in group.responses}
    for letter in rating.values:
        if texts.get(letter) != returned.texts.get(letter, ""):
            raise InvalidValue(f"response {name}{letter} has another text in this session")
    own = [
        r for r in store.standing_ratings(name, branch)
        if r.who == rating.who and replaces(rating.mode, rating.values, r.mode, r.values)
    ]  # fmt: skip
    if rating.repeats or not own:
        return rating
    if own[-1].time > rating.time:
        raise InvalidValue(f"{rating.who} has answered the question of rating {rating.id[:8]} again since")
    return msgspec.structs.replace(rating, supersedes=own[-1].id)


# ---------------------------------------------------------------------------------------------- the file


class _Line(msgspec.Struct):
    """What tells the kinds of lines apart."""

    kind: str = ""
    rating: str = ""
    time: float = 0.0


@dataclass(slots=True)
class _Foreign:
    """What was said of a group that the session has not."""

    prompt: Text
    texts: dict[str, Text]
    ratings: list[Rating]


class ImportFile:
    """The lines of a file, as what a session can take of them.

    :ivar unusable: counts lines that it cannot.
    :ivar lines: read so far, blank ones left out.
    """

    def __init__(self, path: Path, store: Store) -> None:
        self.path, self._store = path, store
        self.unusable = Received()
        self.lines = 0
        self._foreign: dict[tuple[str, str], _Foreign] = {}
        self._retracted: dict[str, float] = {}
        self._labels: dict[tuple[str, str], tuple[Text, list[tuple[Text, bool]]]] = {}
        self._held = 0
        self._group: tuple[tuple[str, str], Group | None] | None = None

    def each(self) -> Iterator[Returned | Ordering]:
        """Everything in the file that can be used: ratings that come back in the order in which they were given.

        :raises InputFileError: if the file cannot be read.
        """
        self._retracted = self._take_backs()
        for number, line in _lines(self.path):
            self.lines += 1
            try:
                if len(line) > LINE_LIMIT:
                    raise InvalidValue(f"longer than {LINE_LIMIT:,} bytes")
                found = self._read(number, line)
                if found is not None:
                    _check_room(found)
                    yield found
            except _TooMuch:
                raise
            except (WorkbenchError, msgspec.MsgspecError, ValueError, RecursionError) as error:
                what = f"line {number}"
                self.unusable.refuse(f"{what}: {str(error).removeprefix(f'preferences {self.path}, {what}: ')}")
        yield from self._brought_together()

    def _take_backs(self) -> dict[str, float]:
        """Id -> when, of the ratings that later lines of a rated file take back."""
        found = {}
        for _, line in _lines(self.path):
            if b'"retracted"' in line and len(line) < COMMAND:
                try:
                    outline = msgspec.json.decode(line, type=_Line)
                except (msgspec.MsgspecError, ValueError, RecursionError):
                    continue  # told when it is read
                if outline.kind == "retracted":
                    found[outline.rating] = outline.time
        return found

    def _read(self, number: int, line: bytes) -> Returned | Ordering | None:
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidValue(f"not a JSON object ({error})") from None
        if "chosen" in row or "ranks" in row:
            return read_ordering(self.path, number, line)
        if "label" in row:
            self._label(row)
            return None
        if "mode" in row and "values" in row:
            return self._rating(msgspec.json.decode(line, type=RatingLine))
        if row.get("kind") in ("opened", "retracted", "skip", "picked"):
            return None
        if "completion" in row and "prompt" in row:
            raise InvalidValue("a completion without a label prefers nothing; as a demonstration, --warm-up takes it")
        raise InvalidValue(f"neither a preference nor a rating; {FORMS}")

    # ------------------------------------------------------------------------------------------ ratings

    def _rating(self, line: RatingLine) -> Returned | None:
        rating = line.rating()
        if rating.retracted or rating.id in self._retracted:
            return None
        if not line.texts:
            raise InvalidValue("the rating has no texts, without which it means nothing here; export it again")
        if rating.values.keys() != line.texts.keys():
            raise InvalidValue("the rating has not the texts of the responses that it judges")
        group = self._known(line)
        if group is not None:
            texts = {letter: str(text) for letter, text in line.texts.items()}
            return Returned(rating=msgspec.structs.replace(rating, branch=group.branch), texts=texts)
        self._hold(sum(len(plain(text)) for text in (line.prompt, *line.texts.values())))
        key = (f"{rating.branch}/{rating.step}.{rating.group}", plain(line.prompt))
        foreign = self._foreign.setdefault(key, _Foreign(line.prompt, {}, []))
        for letter, text in line.texts.items():
            if foreign.texts.setdefault(letter, text) != text:
                raise InvalidValue(f"response {letter} of group {line.group} had another text before")
        foreign.ratings.append(rating)
        return None

    def _known(self, line: RatingLine) -> Group | None:
        """The session's group that a rating is about, if it has it: by name, and with the same texts."""
        key = (line.group, line.branch)
        if self._group is None or self._group[0] != key:
            self._group = key, self._look_up(line)
        group = self._group[1]
        if group is None or group.prompt != line.prompt:
            return None
        texts = {r.letter: r.text for r in group.responses}
        return group if all(texts.get(letter) == text for letter, text in line.texts.items()) else None

    def _look_up(self, line: RatingLine) -> Group | None:
        name, active = parse_response_name(line.group), self._store.active
        for branch in dict.fromkeys((name.branch or line.branch, active)):
            if branch in self._store.branches():
                try:
                    found = self._store.group(msgspec.structs.replace(name, branch=branch), active, tokens=False)
                except InvalidValue:
                    continue
                if found.prompt == line.prompt:
                    return found
        return None

    # ------------------------------------------------------------------------------------------- labels

    def _label(self, row: dict[str, Any]) -> None:
        prompt, completion = (msgspec.convert(row.get(name), Text) for name in ("prompt", "completion"))
        label, who = row["label"], str(row.get("who", ""))
        if not isinstance(label, bool):
            raise InvalidValue("its label is neither true nor false")
        check_ordering(Ordering(prompt=prompt, tiers=[[completion], [completion]]))
        self._hold(len(plain(prompt)) + len(plain(completion)))
        self._labels.setdefault((plain(prompt), who), (prompt, []))[1].append((completion, label))

    def _hold(self, characters: int) -> None:
        self._held += characters
        if self._held > HELD:
            raise _TooMuch(
                f"{self.path}: more than {HELD:,} characters of ratings and labels; cut the file, keeping the lines of "
                "one prompt together"
            )

    # --------------------------------------------------------------------------------- of several lines

    def _brought_together(self) -> Iterator[Ordering]:
        """What only several lines say together."""
        for foreign in self._foreign.values():
            for ordering in orderings_in(foreign.prompt, foreign.texts, standing(foreign.ratings), self._name):
                yield from self._usable(ordering)
        self._foreign.clear()
        for (_, who), (prompt, said) in self._labels.items():
            labels = {plain(text): (text, label) for text, label in said}  # of two labels of one text the later counts
            good, bad = ([t for t, label in labels.values() if label is wanted] for wanted in (True, False))
            if not good or not bad:
                kind = "good" if good else "bad"
                for _ in said:
                    self.unusable.refuse(f"all that is labelled of a prompt is {kind}: a pair needs both")
                continue
            parts = [[side[i : i + MOST // 2] for i in range(0, len(side), MOST // 2)] for side in (good, bad)]
            for i in range(max(map(len, parts))):
                tiers = [side[i % len(side)] for side in parts]
                yield from self._usable(Ordering(prompt=prompt, tiers=tiers, source=f"{self._name} {who}".strip()))
        self._labels.clear()

    def _usable(self, ordering: Ordering) -> Iterator[Ordering]:
        try:
            check_ordering(ordering)
            _check_room(ordering)
        except WorkbenchError as error:
            self.unusable.refuse(str(error))
        else:
            yield ordering

    @property
    def _name(self) -> str:
        return self.path.name[:150]


class _TooMuch(InputFileError):
    """The file cannot be read at once."""


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers; a longer one than may be is cut."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LINE_LIMIT + 1):
                number += 1
                cut = line
                while len(cut) > LINE_LIMIT and not cut.endswith(b"\n"):
                    cut = file.readline(LINE_LIMIT + 1)
                if line.strip():
                    yield number, line
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror})") from None


def _check_room(found: Returned | Ordering) -> None:
    check_fields(found)
    size = len(msgspec.json.encode(found))
    if size > ROOM:
        raise InvalidValue(f"its texts have {size:,} bytes; at most {ROOM:,} are taken")


# --------------------------------------------------------------------------------------------- in pages


def pages(items: Iterable[Returned | Ordering], source: str, who: str) -> Iterator[ImportRatings | ImportOrderings]:
    """Commands that carry everything, each under the limit of its size; in order."""
    page: list[Any] = []
    size = 0
    for item in items:
        length = len(msgspec.json.encode(item)) + 1
        if page and (size + length > ROOM or len(page) >= ITEMS or type(item) is not type(page[0])):
            yield _page(page, source, who)
            page, size = [], 0
        page.append(item)
        size += length
    if page:
        yield _page(page, source, who)


def _page(page: list[Any], source: str, who: str) -> ImportRatings | ImportOrderings:
    if isinstance(page[0], Returned):
        return ImportRatings(source=source, ratings=page, who=who)
    return ImportOrderings(source=source, orderings=page, who=who)


def receive(store: Store, command: ImportRatings | ImportOrderings, when: float) -> Received:
    """Take a page into a database that no engine has."""
    if isinstance(command, ImportOrderings):
        added, _ = store.add_orderings(command.orderings, command.source, command.who, when)
        return Received(new=added, known=len(command.orderings) - added)
    found = Received()
    for returned in command.ratings:
        give_back(store, returned, store.active, found)
    if found.new:
        store.add_event(wire.Imported(time=when, step=0, who=command.who, source=command.source, ratings=found.new))
    return found


def foresee(store: Store, command: ImportRatings | ImportOrderings) -> Received:
    """What :func:`receive` would say of a page, and nothing is kept."""
    found = Received()
    if isinstance(command, ImportOrderings):
        ids = {ordering_id(ordering) for ordering in command.orderings}
        found.new = len(ids - store.known_orderings(ids))
        found.known = len(command.orderings) - found.new
        return found
    for returned in command.ratings:
        try:
            rating = _fitting(store, returned, store.active)
        except (WorkbenchError, ValueError) as error:
            found.refuse(str(error))
            continue
        found.new += rating is not None
        found.known += rating is None
    return found
