"""Plain files of responses to rate: JSON lines, read once for what there is, and again where a group is looked at.

A line is one of

- ``{"prompt", "response"}`` (or ``completion``, or ``text``); lines with the same prompt make a group, in their order;
- ``{"prompt", "responses": [...]}`` (or ``completions``): a group;
- TRL's *preference* type, ``{"prompt", "chosen", "rejected"}``, its prompt stated or not: a group of two. Which of
  them is A depends on their texts alone, so that the letters say nothing;
- a line of a session's exported ``responses.jsonl``: its groups and names are kept.

Texts may be conversations. ``reward`` or ``score`` (a list where there are several responses) is shown where a group is
revealed; ``id`` goes along. A group has at most 26 responses; further ones of its prompt make another.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sessions.errors import InputFileError
from sessions.examples import ROLES, Text
from sessions.orderings import read_ordering
from sessions.records import MAIN, Group, Response, letters, shorten

LINE_LIMIT = 16 * 2**20
"""Bytes of a line."""
MOST = 26
"""Responses of a group: there are so many letters."""
FORMS = 'give {"prompt": "...", "response": "..."} or {"prompt": "...", "responses": ["...", ...]}, one a line'
_ONE, _MANY = ("response", "completion", "text"), ("responses", "completions")
_EXPORTED = ("name", "branch", "step", "group", "letter", "completion")


class Entry(msgspec.Struct):
    """What one line says.

    :ivar place: branch, step, group and letter in the session that it was exported from; None elsewhere.
    :ivar alone: the line is a group, whatever other lines have its prompt.
    """

    prompt: Text
    responses: list[Text]
    rewards: list[float | None]
    id: str = ""
    answer: str = ""
    place: tuple[str, int, int, str] | None = None
    alone: bool = False


@dataclass(slots=True)
class Spot:
    """Some responses of one line.

    :ivar offset: of the line in the file, in bytes.
    :ivar first: of its responses, and ``count`` how many.
    """

    line: int
    offset: int
    first: int
    count: int


@dataclass(slots=True)
class FileGroup:
    """A group, without its texts.

    :ivar prompt: the beginning of it.
    :ivar digest: of its prompt and of all responses, in the order of their letters.
    :ivar ids: of the responses, where the file has any.
    """

    branch: str
    step: int
    number: int
    prompt: str
    spots: list[Spot]
    rewards: list[float | None]
    ids: list[str]
    digest: str = ""
    hashes: list[bytes] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, int, int]:
        return self.branch, self.step, self.number

    @property
    def name(self) -> str:
        return f"{self.step}.{self.number}"


@dataclass(frozen=True, slots=True)
class Asked:
    """The texts of a group, as the file has them: letter -> response."""

    prompt: Text
    responses: dict[str, Text]
    answer: str = ""


class ResponseFile:
    """A file of responses.

    :ivar groups: in the order of the file; those of an export in the order of their names.
    :ivar digest: of all groups.
    :raises InputFileError: naming the line, what is wrong there and what it should be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.groups = _named(self._gathered())
        if not self.groups:
            raise InputFileError(f"{path}: the file is empty; {FORMS}")
        digest = hashlib.sha256()
        for group in self.groups:
            digest.update(group.digest.encode())
        self.digest = digest.hexdigest()[:32]

    def _gathered(self) -> list[FileGroup]:
        """The groups as their lines come, not named yet."""
        made: list[FileGroup] = []
        open_groups: dict[object, FileGroup] = {}
        for number, offset, line in self._lines():
            entry = read_entry(self.path, number, line)
            prompt = _hash(entry.prompt)
            key: object = prompt if entry.place is None else entry.place[:3]
            for first in range(0, len(entry.responses), MOST):
                group = None if entry.alone else open_groups.get(key)
                left = entry.responses[first : first + MOST]
                if group is not None and len(group.labels) + len(left) > MOST:
                    group = None
                if group is not None and entry.place is not None and group.hashes[0] != prompt:
                    raise self._wrong(
                        number, f"group {group.name} has another prompt above", "export the session again"
                    )
                if group is None:
                    branch, step, at = entry.place[:3] if entry.place else (MAIN, 0, 0)
                    group = FileGroup(branch, step, at, shorten(show_text(entry.prompt)), [], [], [], hashes=[prompt])
                    made.append(group)
                    if not entry.alone:
                        open_groups[key] = group
                group.spots.append(Spot(number, offset, first, len(left)))
                group.rewards += entry.rewards[first : first + MOST]
                group.ids += [entry.id] * len(left)
                group.hashes += map(_hash, left)
                group.labels += [entry.place[3] if entry.place else ""] * len(left)
        return made

    def _lines(self) -> Iterator[tuple[int, int, bytes]]:
        """(number, offset, line) of those that are not blank."""
        try:
            with self.path.open("rb") as file:
                number = offset = 0
                while line := file.readline(LINE_LIMIT + 1):
                    number += 1
                    if len(line) > LINE_LIMIT:
                        raise self._wrong(number, f"longer than {LINE_LIMIT:,} bytes", "shorten or remove it")
                    if line.strip():
                        yield number, offset, line
                    offset += len(line)
        except OSError as error:
            raise InputFileError(f"{self.path}: cannot be read ({error.strerror})") from None

    def _wrong(self, number: int, what: str, remedy: str) -> InputFileError:
        return InputFileError(f"{self.path}, line {number}: {what}; {remedy}")

    def texts(self, group: FileGroup) -> Asked:
        """The texts of a group, from the file.

        :raises InputFileError: if they are not there any more.
        """
        prompt: Text = ""
        answer = ""
        found: list[Text] = []
        try:
            with self.path.open("rb") as file:
                for spot in group.spots:
                    file.seek(spot.offset)
                    entry = read_entry(self.path, spot.line, file.readline(LINE_LIMIT + 1))
                    prompt, answer = entry.prompt, answer or entry.answer
                    found += entry.responses[spot.first : spot.first + spot.count]
        except OSError as error:
            raise InputFileError(f"{self.path}: cannot be read ({error.strerror})") from None
        except InputFileError:
            found = []
        order = sorted(range(len(found)), key=lambda i: group.labels[i]) if group.labels[0] else range(len(found))
        if len(found) != len(group.labels) or _digest(_hash(prompt), [_hash(found[i]) for i in order]) != group.digest:
            raise InputFileError(f"{self.path}: has changed while it is rated; leave and start again")
        return Asked(prompt, {letters(place): found[i] for place, i in enumerate(order)}, answer)

    def group(self, group: FileGroup) -> Group:
        """A group as the screens and the ratings know it."""
        asked = self.texts(group)
        return Group(
            branch=group.branch,
            step=group.step,
            number=group.number,
            prompt_id=group.ids[0],
            prompt=show_text(asked.prompt),
            answer=asked.answer,
            temperature=1.0,
            responses=[
                Response(letter=letter, text=show_text(text), length=0, ended=True, reward=reward)
                for (letter, text), reward in zip(asked.responses.items(), group.rewards, strict=True)
            ],
        )


def _named(made: list[FileGroup]) -> list[FileGroup]:
    """The groups with their names: an export's where it has all letters of a group, else 0.1, 0.2, ...

    No group that a session samples is of step 0, so the two never meet.
    """
    number = 0
    exported, plain = [], []
    taken: set[tuple[str, int, int]] = set()
    for group in made:
        prompt, hashes = group.hashes[0], group.hashes[1:]
        whole = sorted(group.labels) == [letters(i) for i in range(len(hashes))]
        if whole and group.key not in taken:
            taken.add(group.key)
            order = sorted(range(len(hashes)), key=lambda i: group.labels[i])
            hashes = [hashes[i] for i in order]
            group.rewards, group.ids = [group.rewards[i] for i in order], [group.ids[i] for i in order]
            exported.append(group)
        else:
            number += 1
            group.branch, group.step, group.number = MAIN, 0, number
            group.labels = [""] * len(hashes)
            plain.append(group)
        group.digest = _digest(prompt, hashes)
        group.hashes = []
    return plain + sorted(exported, key=lambda g: (g.step, g.number, g.branch))


def _hash(text: Text) -> bytes:
    """Of a text, or of a conversation; the two never have the same."""
    data = msgspec.json.encode(text) if not isinstance(text, str) else b"\0" + text.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).digest()[:16]


def _digest(prompt: bytes, responses: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join((prompt, *responses))).hexdigest()[:32]


def show_text(text: Text) -> str:
    """A text as it is read; of a conversation every message under its role, unless there is one only."""
    if isinstance(text, str):
        return text
    if len(text) == 1 and text[0]["role"] in ("user", "assistant"):
        return text[0]["content"]
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in text)


# ------------------------------------------------------------------------------------------------ a line


def read_entry(path: Path, number: int, line: bytes) -> Entry:
    """What a line says.

    :raises InputFileError: naming the line, what is wrong there and what it should be.
    """

    def wrong(what: str, remedy: str = FORMS) -> InputFileError:
        return InputFileError(f"{path}, line {number}: {what}; {remedy}")

    try:
        row = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise wrong(f"not a JSON object ({error})") from None

    def text(name: str, value: object) -> Text:
        if isinstance(value, str):
            return value
        if isinstance(value, list) and value and all(map(_is_message, value)):
            return [{"role": message["role"], "content": message["content"]} for message in value]
        raise wrong(
            f"its {name} is neither text nor a list of messages",
            'a message is {"role": "user", "content": "..."}, with one of the roles ' + ", ".join(ROLES),
        )

    known = row.get("id", row.get("prompt_id", ""))
    if not isinstance(known, str | int) or isinstance(known, bool) or len(str(known)[:201]) > 200:
        raise wrong("its id is neither a number nor a text of at most 200 characters", "leave it out, or shorten it")
    answer = row.get("answer")
    named = str(known), answer if isinstance(answer, str) else ""
    if "chosen" in row or "rejected" in row:
        try:
            pair = read_ordering(path, number, line)
        except InputFileError as error:
            raise InputFileError(str(error).removeprefix("preferences ")) from None
        sides: list[tuple[Text, float | None]] = [(pair.responses[0], 1.0), (pair.responses[1], 0.0)]
        sides.sort(key=lambda side: hashlib.sha256(_hash(pair.prompt) + _hash(side[0])).digest())
        return Entry(pair.prompt, [side for side, _ in sides], [reward for _, reward in sides], *named, alone=True)
    if "prompt" not in row:
        raise wrong("there is no 'prompt'")
    prompt = text("prompt", row["prompt"])
    if not show_text(prompt).strip():
        raise wrong("its prompt is empty", "remove the line, or fill it")
    many = next((name for name in _MANY if name in row), "")
    if many:
        given = row[many]
        if not isinstance(given, list) or not given:
            raise wrong(f"its {many} are not a list of at least one")
        responses = [text(f"{many[:-1]} {i}", value) for i, value in enumerate(given, 1)]
        rewards = _rewards(row, ("rewards", "scores", "reward", "score"), wrong)
        if len(rewards) not in (0, len(responses)):
            raise wrong(f"{len(rewards)} rewards for {len(responses)} {many}", "give each of them one, or none")
        return Entry(prompt, responses, rewards or [None] * len(responses), *named, alone=True)
    one = next((name for name in _ONE if name in row), "")
    if not one:
        raise wrong(f"there is none of {', '.join(map(repr, _ONE + _MANY))}")
    rewards = _rewards(row, ("reward", "score"), wrong)
    if len(rewards) > 1:
        raise wrong("several rewards for one response", "give it one, or none")
    return Entry(prompt, [text(one, row[one])], rewards or [None], *named, place=_place(row))


def _place(row: dict[str, Any]) -> tuple[str, int, int, str] | None:
    """Where a line of a session's export is from."""
    if any(name not in row for name in _EXPORTED):
        return None
    branch, step, group, letter = (row[name] for name in ("branch", "step", "group", "letter"))
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 < n < 10**15 for n in (step, group))
    if not whole or not isinstance(branch, str) or not isinstance(letter, str) or not 1 <= len(letter) <= 2:
        return None
    fits = letter.isascii() and letter.isupper() and 0 < len(branch) <= 64 and branch.replace("~", "").isprintable()
    return (branch, step, group, letter) if fits and "/" not in branch and " " not in branch else None


def _rewards(row: dict[str, Any], names: Sequence[str], wrong: Any) -> list[float | None]:
    name = next((name for name in names if row.get(name) is not None), "")
    if not name:
        return []
    values = row[name] if isinstance(row[name], list) else [row[name]]
    found: list[float | None] = []
    for value in values:
        if value is None:
            found.append(None)
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
            raise wrong(f"its {name} is not a number", "leave it out where there is none")
        found.append(float(value) if math.isfinite(value) else None)
    return found


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and value.get("role") in ROLES and isinstance(value.get("content"), str)
