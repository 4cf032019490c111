"""What people's ratings say, as TRL's trainers read it: preference pairs, and completions with a label.

A pair is ``{"prompt", "chosen", "rejected"}``, a labelled completion ``{"prompt", "completion", "label"}``: TRL's
*preference* (with an explicit prompt) and *unpaired preference* types. Other columns say where a line comes from; none
is called ``margin``, which TRL's reward trainer would train with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from sessions.branches import Segment
from sessions.export_tables import Line, Row, name_of
from sessions.modes import MODES
from sessions.records import Group, Rating
from sessions.store import Store

Text = str | list[dict[str, str]]
"""A text, or in a conversation the messages that it is."""


class Pair(Row):
    """Two responses of a group of which one person, in one mode, preferred one.

    :ivar score_chosen: in [0, 1], 1 the best answer of the mode.
    """

    prompt: Text
    chosen: Text
    rejected: Text
    score_chosen: float
    score_rejected: float
    chosen_response: str
    rejected_response: str
    who: str
    mode: str


class Labelled(Row):
    """A response that one person called good (true) or bad."""

    prompt: Text
    completion: Text
    label: bool
    score: float
    response: str
    who: str
    mode: str


class Judgement(msgspec.Struct, frozen=True):
    """What one person said in one mode about the responses of a group: letter -> answer."""

    who: str
    mode: str
    values: dict[str, float]


def judgements(standing: Iterable[Rating]) -> list[Judgement]:
    """The standing ratings of a group by person and mode; of two answers about one response the later counts."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for rating in standing:
        found.setdefault((rating.who, rating.mode), {}).update(rating.values)
    return [Judgement(who, mode, values) for (who, mode), values in found.items() if mode in MODES]


def judged(store: Store, parts: Iterable[Segment]) -> Iterator[tuple[Group, list[Judgement]]]:
    """The groups of some parts that somebody has judged, in order."""
    for part in parts:
        for name in store.each_rated(part):
            said = judgements(store.standing_ratings(name, part.branch))
            if said:
                yield store.group(name, part.branch, tokens=False), said


def pairs(group: Group, said: Iterable[Judgement], active: Line, *, conversational: bool = False) -> Iterator[Pair]:
    """Every pair of a group's responses of which somebody preferred one."""
    names, texts = _names(group, active), _texts(group, conversational=conversational)
    for one in said:
        mode = MODES[one.mode]
        values = {letter: value for letter, value in one.values.items() if letter in texts}
        for chosen, rejected in mode.preferred(values):
            yield Pair(
                prompt=_text("user", group.prompt, conversational=conversational),
                chosen=texts[chosen],
                rejected=texts[rejected],
                score_chosen=mode.score(values[chosen]),
                score_rejected=mode.score(values[rejected]),
                chosen_response=names[chosen],
                rejected_response=names[rejected],
                who=one.who,
                mode=one.mode,
            )


def labelled(
    group: Group, said: Iterable[Judgement], active: Line, *, conversational: bool = False
) -> Iterator[Labelled]:
    """Every response of a group that somebody called good or bad."""
    names, texts = _names(group, active), _texts(group, conversational=conversational)
    for one in said:
        mode = MODES[one.mode]
        for letter, value in one.values.items():
            label = mode.label(value)
            if label is None or letter not in texts:
                continue
            yield Labelled(
                prompt=_text("user", group.prompt, conversational=conversational),
                completion=texts[letter],
                label=label,
                score=mode.score(value),
                response=names[letter],
                who=one.who,
                mode=one.mode,
            )


def _names(group: Group, active: Line) -> dict[str, str]:
    return {r.letter: name_of(group.branch, group.step, group.number, active, r.letter) for r in group.responses}


def _texts(group: Group, *, conversational: bool) -> dict[str, Text]:
    return {r.letter: _text("assistant", r.text, conversational=conversational) for r in group.responses}


def _text(role: str, text: str, *, conversational: bool) -> Text:
    return [{"role": role, "content": text}] if conversational else text
