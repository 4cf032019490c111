"""Ratings as lines of JSON: those of an export's ``ratings.jsonl``, and those that a rated file keeps.

Each stands by itself: it has the prompt, and the texts of the responses that it judges.
"""

from __future__ import annotations

import math
import re
from typing import Any

from sessions.errors import InvalidValue
from sessions.examples import Text
from sessions.limits import check_fields
from sessions.modes import rating_mode
from sessions.people import check_person
from sessions.records import MAIN, Rating, Record, parse_response_name

_LETTER = re.compile("[A-Z]{1,2}")


class RatingLine(Record):
    """A rating with what it is about; :class:`~sessions.records.Rating` tells the fields.

    :ivar group: the name of the group.
    :ivar texts: letter -> text of the responses judged.
    :ivar of: digest of the whole group, in a rated file.
    :ivar ids: letter -> id that the rated file gave the response.
    """

    id: str
    time: float
    who: str
    group: str
    mode: str
    values: dict[str, float]
    branch: str = MAIN
    comment: str = ""
    order: list[str] = []
    blind: bool = False
    seconds: float = 0.0
    supersedes: str = ""
    text: str = ""
    flags: list[str] = []
    rule: str = ""
    repeats: str = ""
    redoes: str = ""
    retracted: float | None = None
    prompt: Text = ""
    texts: dict[str, Text] = {}
    of: str = ""
    ids: dict[str, str] = {}

    def rating(self) -> Rating:
        """The record, checked: the line may be anybody's.

        :raises UsageError: saying what is wrong with it.
        """
        name = parse_response_name(self.group)
        fields: dict[str, Any] = {k: getattr(self, k) for k in _SHARED}
        made = Rating(
            **fields,
            branch=name.branch or self.branch,
            step=name.step,
            group=name.group,
            retracted=self.retracted or 0.0,
        )
        check_rating(made)
        return made


_SHARED = sorted(set(Rating.__struct_fields__) & set(RatingLine.__struct_fields__) - {"branch", "group", "retracted"})


def line_of(
    rating: Rating, prompt: Text, texts: dict[str, Text], *, of: str = "", ids: dict[str, str] | None = None
) -> RatingLine:
    """A rating as its line.

    :param texts: of its group; those that it judges are taken.
    """
    fields: dict[str, Any] = {k: getattr(rating, k) for k in _SHARED}
    return RatingLine(
        **fields,
        branch=rating.branch,
        group=f"{rating.step}.{rating.group}",
        retracted=rating.retracted or None,
        prompt=prompt,
        texts={letter: text for letter, text in texts.items() if letter in rating.values},
        of=of,
        ids={letter: known for letter, known in (ids or {}).items() if letter in rating.values},
    )


def check_rating(rating: Rating) -> None:
    """Refuse what no person can have said with this program.

    :raises UsageError: naming what is wrong.
    """
    check_fields(rating)
    check_person(rating.who)
    if not rating.id or not rating.id.isprintable():
        raise InvalidValue("a rating needs an id")
    for letter in (*rating.values, *rating.order):
        if not _LETTER.fullmatch(letter):
            raise InvalidValue(f"{letter[:20]!r} is not a letter of a response")
    if not all(map(math.isfinite, (rating.time, rating.seconds, rating.retracted))) or rating.seconds < 0:
        raise InvalidValue("its times are not those of a rating")
    if not rating.values:
        raise InvalidValue("it rates no response")
    rating_mode(rating.mode).check(rating.values, rating.text, rating.flags)
