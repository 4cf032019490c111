"""What people's ratings say, as TRL's trainers read it: preference pairs, completions with a label, demonstrations.

A pair is ``{"prompt", "chosen", "rejected"}``, a labelled completion ``{"prompt", "completion", "label"}``: TRL's
*preference* (with an explicit prompt) and *unpaired preference* types; a demonstration is ``{"prompt", "completion"}``,
its *prompt-completion*, which a warm-up reads. Other columns say where a line comes from; none
is called ``margin``, which TRL's reward trainer would train with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from sessions.branches import Segment
from sessions.examples import Text
from sessions.export_tables import Line, Row, name_of
from sessions.modes import MODES, preferred
from sessions.records import Group, Rating
from sessions.store import Store


class Pair(Row):
    """Two responses of a group of which one person, in one mode, preferred one.

    :ivar score_chosen: in [0, 1], 1 the best answer of the mode.
    :ivar chosen_response: its name; empty for the better text that an edit gave.
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


class Demonstration(Row):
    """The better text that an edit gave in the place of a response.

    :ivar response: the name of that one.
    """

    prompt: Text
    completion: Text
    response: str
    who: str


class Judgement(msgspec.Struct, frozen=True):
    """What one person said in one mode about the responses of a group: letter -> answer.

    :ivar text: the better text that an edit gives.
    """

    who: str
    mode: str
    values: dict[str, float]
    text: str = ""


def judgements(standing: Iterable[Rating]) -> list[Judgement]:
    """What people said about a group: the levels that one person gave in one mode together, so that they compare
    responses, and every other rating by itself. Of two levels for one response the later counts."""
    found: dict[str, Judgement] = {}
    for rating in standing:
        if rating.mode not in MODES:
            continue
        key = f"{rating.who}/{rating.mode}" if MODES[rating.mode].slot == "level" else rating.id
        before = found[key].values if key in found else {}
        found[key] = Judgement(rating.who, rating.mode, {**before, **rating.values}, rating.text)
    return list(found.values())


def demonstrations(
    group: Group, said: Iterable[Judgement], active: Line, *, conversational: bool = False
) -> Iterator[Demonstration]:
    """Every better text that somebody gave in the place of a group's response."""
    names = _names(group, active)
    for one in said:
        for letter in one.values if one.text else ():
            if letter in names:
                yield Demonstration(
                    prompt=_asked(group, conversational=conversational),
                    completion=_said(group, one.text, conversational=conversational),
                    response=names[letter],
                    who=one.who,
                )


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
        prompt = _asked(group, conversational=conversational)
        if one.text:
            for letter in values:
                yield Pair(
                    prompt=prompt,
                    chosen=_said(group, one.text, conversational=conversational),
                    rejected=texts[letter],
                    score_chosen=1.0,
                    score_rejected=0.0,
                    chosen_response="",
                    rejected_response=names[letter],
                    who=one.who,
                    mode=one.mode,
                )
        heights = mode.heights(values)
        h = {**heights.relative, **heights.level}
        for chosen, rejected in preferred(mode.tiers(values)):
            yield Pair(
                prompt=prompt,
                chosen=texts[chosen],
                rejected=texts[rejected],
                score_chosen=h[chosen],
                score_rejected=h[rejected],
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
        levels = mode.heights(one.values).level
        for letter, label in mode.labels(one.values).items():
            if letter not in texts:
                continue
            yield Labelled(
                prompt=_asked(group, conversational=conversational),
                completion=texts[letter],
                label=label,
                score=levels[letter],
                response=names[letter],
                who=one.who,
                mode=one.mode,
            )


def _names(group: Group, active: Line) -> dict[str, str]:
    return {r.letter: name_of(group.branch, group.step, group.number, active, r.letter) for r in group.responses}


def _texts(group: Group, *, conversational: bool) -> dict[str, Text]:
    return {r.letter: _said(group, r.text, conversational=conversational) for r in group.responses}


def _asked(group: Group, *, conversational: bool) -> Text:
    """A group's question; what was asked as messages is one of them in any case."""
    return [{"role": "user", "content": group.prompt}] if conversational and not group.messages else group.asked


def _said(group: Group, text: str, *, conversational: bool) -> Text:
    return [{"role": "assistant", "content": text}] if conversational else group.said(text)
