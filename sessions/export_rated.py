"""``workbench export FILE.jsonl``: what was said of a file that was rated without a session.

The files are those of a session's export. Where the rated file has conversations, so have they.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from sessions.branches import END, Segment
from sessions.errors import UsageError
from sessions.examples import Text
from sessions.export import Exported, new_folder
from sessions.export_files import JsonLines, Written, write_json_lines
from sessions.export_tables import RatingRow, SkipRow, rating_row, skip_row
from sessions.judging import standing
from sessions.preferences import Demonstration, Labelled, Pair, demonstrations, labelled, pairs
from sessions.rating_file import RatedGroups, read_rated
from sessions.records import MAIN, parse_response_name
from sessions.response_files import Asked

FORMATS = ("preferences", "jsonl")
_LINE = [Segment(MAIN, -1, END)]


def export_rated(path: Path, log: Path | None, to: str, target: Path, *, conversational: bool = False) -> Exported:
    """Write what was said of a file to a new or empty folder.

    :param log: where the ratings are; None: beside the file.
    :param to: one of :data:`FORMATS`.
    :param conversational: texts as messages, also where the rated file has none.
    :raises WorkbenchError: if it cannot be; then nothing is left behind.
    """
    if to not in FORMATS:
        raise UsageError(f"a rated file is exported --to {' or '.join(FORMATS)}; {to} is for sessions")
    rated = read_rated(path, log)
    with new_folder(target) as (place, final):
        if to == "preferences":
            files = _preferences(rated, place, conversational=conversational)
        else:
            files = [
                write_json_lines(place / "ratings.jsonl", _ratings(rated)),
                write_json_lines(place / "skips.jsonl", _skips(rated)),
            ]
        return Exported(session=path.name, to=to, folder=str(final), branches=[], files=files)


def _preferences(rated: RatedGroups, place: Path, *, conversational: bool) -> list[Written]:
    with (
        JsonLines(place / "preferences.jsonl") as paired,
        JsonLines(place / "unpaired.jsonl") as unpaired,
        JsonLines(place / "demonstrations.jsonl") as shown,
    ):
        for _, group, asked, said in rated.judged():
            words = _Words(asked, conversational=conversational)
            paired.write(map(words.pair, pairs(group, said, _LINE)))
            unpaired.write(map(words.labelled, labelled(group, said, _LINE)))
            shown.write(map(words.demonstration, demonstrations(group, said, _LINE)))
        return [paired.written(), unpaired.written(), shown.written()]


class _Words:
    """The texts of a group as the rated file has them, in the rows that were made of what was shown."""

    def __init__(self, asked: Asked, *, conversational: bool) -> None:
        self._asked = asked
        chats = any(not isinstance(text, str) for text in (asked.prompt, *asked.responses.values()))
        self._conversational = conversational or chats
        self._prompt = self._message("user", asked.prompt)

    def _message(self, role: str, text: Text) -> Text:
        return [{"role": role, "content": text}] if self._conversational and isinstance(text, str) else text

    def _response(self, name: str, better: Text) -> Text:
        """A response by name; without one, the better text of an edit."""
        letter = parse_response_name(name).letter if name else ""
        return self._message("assistant", self._asked.responses[letter] if letter else better)

    def pair(self, row: Pair) -> Pair:
        chosen = self._response(row.chosen_response, row.chosen)
        rejected = self._response(row.rejected_response, row.rejected)
        return msgspec.structs.replace(row, prompt=self._prompt, chosen=chosen, rejected=rejected)

    def labelled(self, row: Labelled) -> Labelled:
        completion = self._response(row.response, row.completion)
        return msgspec.structs.replace(row, prompt=self._prompt, completion=completion)

    def demonstration(self, row: Demonstration) -> Demonstration:
        completion = self._message("assistant", row.completion)
        return msgspec.structs.replace(row, prompt=self._prompt, completion=completion)


def _ratings(rated: RatedGroups) -> Iterator[RatingRow]:
    for group in rated.file.groups:
        given = rated.given(group.key)
        if given:
            asked = rated.file.texts(group)
            counted = {rating.id for rating in standing(given)}
            for rating in given:
                yield rating_row(rating, asked.prompt, asked.responses, None, _LINE, standing=rating.id in counted)


def _skips(rated: RatedGroups) -> Iterator[SkipRow]:
    for skip in sorted(rated.skips.values(), key=lambda s: (s.step, s.group, s.branch)):
        yield skip_row(skip, _LINE)
