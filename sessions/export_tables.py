"""The tables of an export: what a session recorded, a row at a time.

What a model wrote is copied as it is: it is data, whatever it says. A value that was not measured is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from sessions.branches import Segment, owner_of
from sessions.evaluations import HeldOutAnswer
from sessions.examples import Text
from sessions.hyperparameters import Value
from sessions.modes import MODES, Heights
from sessions.records import (
    Alarm,
    Change,
    Group,
    Rating,
    RatingUse,
    ResponseName,
    SkipRecord,
    StepRecord,
    TrustRegionStep,
)
from sessions.store import Store

_NARROW = ("logprobs", "reference_logprobs", "entropies", "values", "returns", "advantages")
_PER_TOKEN = ("tokens", "ends", *_NARROW)


Line = Sequence[Segment]
"""A branch's, as :meth:`sessions.store.Store.line` has it."""


def name_of(branch: str, step: int, group: int, active: Line, letter: str = "") -> str:
    """The name of a response or a group: with its branch, unless it is on the active one's line."""
    return str(ResponseName(step, group, letter, "" if owner_of(active, step) == branch else branch))


class Row(msgspec.Struct, kw_only=True):
    """Base of the rows: every column is there in every row."""

    narrow: ClassVar[frozenset[str]] = frozenset()


class StepRow(Row):
    """A step: every metric that it measured, and the hyperparameters that it ended with.

    :ivar nonfinite: metrics that were NaN or infinite; their value is null.
    :ivar advantages: of the step's responses.
    """

    branch: str
    step: int
    time: float
    metrics: dict[str, float | None]
    nonfinite: list[str]
    values: dict[str, Value]
    advantages: list[float]
    trust_region: TrustRegionStep | None


class ResponseRow(Row):
    """A response, with the prompt that it answers.

    :ivar name: with its branch, unless it is on the active one's line.
    :ivar answer: the task's, where it has one.
    """

    name: str
    branch: str
    step: int
    group: int
    letter: str
    prompt_id: str
    prompt: str
    completion: str
    answer: str
    reward: float | None
    rated_reward: float | None
    components: dict[str, float | None]
    failed: str
    advantage: float | None
    automatic_advantage: float | None
    kl: float | None
    length: int
    ended: bool
    status: str
    temperature: float


class TokensRow(ResponseRow):
    """The same with what is kept for each token; empty lists where it has been forgotten.

    :ivar ends: where each token's text ends in the completion (characters).
    :cvar narrow: columns whose numbers are of 32 bits.
    """

    narrow: ClassVar[frozenset[str]] = frozenset(_NARROW)

    prompt_tokens: list[int]
    tokens: list[int]
    ends: list[int]
    logprobs: list[float]
    reference_logprobs: list[float]
    entropies: list[float]
    values: list[float]
    returns: list[float]
    advantages: list[float]


class RatingRow(Row):
    """A rating, standing or not, and what became of it.

    :ivar values: letter -> answer, in the terms of ``mode``.
    :ivar scores: the same in [0, 1], 1 the best.
    :ivar text: the better text that an edit gives, and ``flags`` those that a critique raises.
    :ivar rule: by which the question was picked.
    :ivar prompt: of the group, and ``texts`` letter -> text of the responses judged: a line stands by itself.
    :ivar repeats: id of the rating whose question this asks a second time.
    :ivar standing: neither taken back nor superseded, and no repeat.
    :ivar retracted: when it was taken back.
    :ivar fate: ``on_time``, ``late``, ``reward_model_only`` or ``unused``; null while it is open.
    :ivar used_in: the update that it was used in.
    :ivar drift: KL to the policy that sampled the group, when that update was reached.
    :ivar advantages: of the group's responses with the ratings, and ``automatic`` without them.
    """

    id: str
    time: float
    who: str
    group: str
    branch: str
    step: int
    mode: str
    values: dict[str, float]
    scores: dict[str, float]
    comment: str
    order: list[str]
    blind: bool
    seconds: float
    supersedes: str
    text: str
    flags: list[str]
    rule: str
    repeats: str
    redoes: str
    prompt: Text
    texts: dict[str, Text]
    standing: bool
    retracted: float | None
    fate: str | None
    used_in: int | None
    drift: float | None
    why: str
    advantages: dict[str, float]
    automatic: dict[str, float]


class SkipRow(Row):
    """A person chose not to rate.

    :ivar response: its name; the group's where all of it was skipped.
    :ivar retracted: when it was taken back; null while it stands.
    """

    id: str
    time: float
    who: str
    response: str
    branch: str
    step: int
    reason: str
    rule: str
    retracted: float | None


class ChangeRow(Row):
    """A hyperparameter that somebody changed; old and new value as JSON has them."""

    id: str
    time: float
    who: str
    branch: str
    name: str
    old: Value
    new: Value
    boundary: str
    status: str
    accepted_step: int
    applied_step: int
    command: str


class AlarmRow(Row):
    """A rule that fired.

    :ivar acknowledged: when somebody did; null: nobody has.
    """

    id: str
    time: float
    branch: str
    step: int
    rule: str
    message: str
    level: str
    responses: list[str]
    remedy: str
    acknowledged: float | None


class HeldOutRow(Row):
    """An answer to a held-out prompt.

    :ivar sample: 0: the first answer, greedy unless the evaluation had a temperature; above: samples for pass@k.
    :ivar right: what the task's judge says; null: it has none.
    :ivar components: reward components of the first answer.
    """

    branch: str
    step: int
    prompt_id: str
    prompt: str
    answer: str
    sample: int
    completion: str
    length: int
    ended: bool
    right: bool | None
    reward: float | None
    components: dict[str, float | None]


def held_out_rows(store: Store, parts: Iterable[Segment]) -> Iterator[HeldOutRow]:
    """Every answer of every evaluation of some parts, in order."""
    for part in parts:
        for evaluation in store.each_held_out(part):
            yield from held_out_answer_rows(evaluation.branch, evaluation.step, evaluation.answers)


def held_out_answer_rows(branch: str, step: int, answers: Iterable[HeldOutAnswer]) -> Iterator[HeldOutRow]:
    """The rows of an evaluation."""
    for answer in answers:
        for number, sample in enumerate((answer.greedy, *answer.samples)):
            yield HeldOutRow(
                branch=branch,
                step=step,
                prompt_id=answer.prompt_id,
                prompt=answer.prompt,
                answer=answer.reference,
                sample=number,
                completion=sample.text,
                length=sample.length,
                ended=sample.ended,
                right=sample.right,
                reward=sample.reward,
                components=answer.components if number == 0 else {},
            )


def step_rows(store: Store, parts: Iterable[Segment]) -> Iterator[StepRow]:
    """Every step of some parts, in order."""
    for part in parts:
        for record in store.each_step(part):
            yield _step_row(record)


def _step_row(record: StepRecord) -> StepRow:
    return StepRow(**{name: getattr(record, name) for name in StepRow.__struct_fields__})


def response_rows(
    store: Store, parts: Iterable[Segment], active: Line, *, tokens: bool = False
) -> Iterator[ResponseRow]:
    """Every response of some parts, in the order of steps, groups and letters.

    :param active: the line of the active branch, whose responses are named without a branch.
    """
    for part in parts:
        for group in store.each_group(part, tokens=tokens):
            yield from _response_rows(group, active, tokens=tokens)


def _response_rows(group: Group, active: Line, *, tokens: bool) -> Iterator[ResponseRow]:
    for r in group.responses:
        fields: dict[str, Any] = {
            "name": name_of(group.branch, group.step, group.number, active, r.letter),
            "branch": group.branch,
            "step": group.step,
            "group": group.number,
            "letter": r.letter,
            "prompt_id": group.prompt_id,
            "prompt": group.prompt,
            "completion": r.text,
            "answer": group.answer,
            "reward": r.reward,
            "rated_reward": r.rated_reward,
            "components": r.components,
            "failed": r.failed,
            "advantage": r.advantage,
            "automatic_advantage": r.automatic_advantage,
            "kl": r.kl,
            "length": r.length,
            "ended": r.ended,
            "status": group.status,
            "temperature": group.temperature,
        }
        if tokens:
            per_token = {name: getattr(r, name) for name in _PER_TOKEN}
            yield TokensRow(**fields, prompt_tokens=group.prompt_tokens, **per_token)
        else:
            yield ResponseRow(**fields)


def rating_rows(store: Store, parts: Iterable[Segment], active: Line, line: str = "") -> Iterator[RatingRow]:
    """Every rating of the groups of some parts, in the order of groups, then as they were given.

    :param line: the branch on whose line its use is looked for; empty: on that of the group's branch.
    """
    for part in parts:
        for name in store.each_rated(part):
            ratings = store.ratings_of(name, part.branch)
            standing = {r.id for r in store.standing_ratings(name, part.branch)}
            uses = {use.rating: use for use in store.uses_of(ratings, line or part.branch)}
            group = store.group(name, part.branch, tokens=False)
            texts = {r.letter: r.text for r in group.responses}
            for rating in ratings:
                use = uses.get(rating.id)
                yield rating_row(rating, group.prompt, texts, use, active, standing=rating.id in standing)


def skip_rows(store: Store, parts: Iterable[Segment], active: Line) -> Iterator[SkipRow]:
    """Every skip of the groups of some parts, in the order of groups, then as they came."""
    for part in parts:
        for skip in store.each_skip(part):
            yield skip_row(skip, active)


def skip_row(skip: SkipRecord, active: Line) -> SkipRow:
    """One skip."""
    return SkipRow(
        id=skip.id,
        time=skip.time,
        who=skip.who,
        response=name_of(skip.branch, skip.step, skip.group, active, skip.letter),
        branch=skip.branch,
        step=skip.step,
        reason=skip.reason,
        rule=skip.rule,
        retracted=skip.retracted or None,
    )


def rating_row(
    rating: Rating, prompt: Text, texts: Mapping[str, Text], use: RatingUse | None, active: Line, *, standing: bool
) -> RatingRow:
    """One rating of a group with these texts, by letter."""
    heights = MODES[rating.mode].heights(rating.values) if rating.mode in MODES else Heights()
    return RatingRow(
        id=rating.id,
        time=rating.time,
        who=rating.who,
        group=name_of(rating.branch, rating.step, rating.group, active),
        branch=rating.branch,
        step=rating.step,
        mode=rating.mode,
        values=rating.values,
        scores={**heights.relative, **heights.level},
        comment=rating.comment,
        order=rating.order,
        blind=rating.blind,
        seconds=rating.seconds,
        supersedes=rating.supersedes,
        text=rating.text,
        flags=rating.flags,
        rule=rating.rule,
        repeats=rating.repeats,
        redoes=rating.redoes,
        prompt=prompt,
        texts={letter: text for letter, text in texts.items() if letter in rating.values},
        standing=standing,
        retracted=rating.retracted or None,
        fate=use.fate if use else None,
        used_in=(use.step or None) if use else None,
        drift=use.kl if use else None,
        why=use.why if use else "",
        advantages=use.advantages if use else {},
        automatic=use.automatic if use else {},
    )


def change_rows(changes: Iterable[Change]) -> Iterator[ChangeRow]:
    for change in changes:
        yield ChangeRow(**{name: getattr(change, name) for name in ChangeRow.__struct_fields__})


def alarm_rows(alarms: Iterable[Alarm]) -> Iterator[AlarmRow]:
    for alarm in alarms:
        fields = {name: getattr(alarm, name) for name in AlarmRow.__struct_fields__}
        yield AlarmRow(**fields | {"acknowledged": alarm.acknowledged or None})
