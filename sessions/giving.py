"""What becomes of a rating or a skip that somebody sends: the record of it, or why it is refused.

One definition for the engine and for a file that is rated without one.
"""

from __future__ import annotations

from collections.abc import Iterable

from sessions.commands import Rate, Skip
from sessions.errors import InvalidValue, Refused
from sessions.modes import rating_mode, replaces
from sessions.records import Group, Rating, ResponseName, SkipRecord, parse_response_name


def rated_group(command: Rate) -> ResponseName:
    """The group that a rating is about.

    :raises UsageError: if it names none, or its answer is none of its mode's.
    """
    name = parse_response_name(command.group)
    if name.letter or not command.values:
        raise InvalidValue("a rating names a group, such as 812.3, and at least one of its responses")
    rating_mode(command.mode).check(command.values, command.text, command.flags)
    return name


def rating_of(command: Rate, group: Group, standing: Iterable[Rating], when: float) -> Rating:
    """The record of a rating: with the command's id, in the place of what it replaces.

    :param standing: the ratings of the group that count.
    :raises InvalidValue: if the group has not all the responses that it names.
    :raises Refused: if it repeats a question that its rater was not asked.
    """
    unknown = set(command.values) - {r.letter for r in group.responses}
    if unknown:
        raise InvalidValue(f"group {command.group} has no response {', '.join(sorted(unknown))}")
    own = [r for r in standing if r.who == command.who]
    mine = [r for r in own if replaces(command.mode, command.values, r.mode, r.values)]
    if command.repeats and command.repeats not in {r.id for r in mine}:
        raise Refused(f"rating {command.repeats[:8]} is not one of {command.who}'s that answers the same question")
    return Rating(
        id=command.id,
        time=when,
        who=command.who,
        branch=group.branch,
        step=group.step,
        group=group.number,
        mode=command.mode,
        values=dict(command.values),
        comment=command.comment,
        order=command.order,
        blind=command.blind,
        seconds=command.seconds,
        supersedes=mine[-1].id if mine and not command.repeats else "",
        text=command.text,
        flags=command.flags,
        rule=command.rule,
        repeats=command.repeats,
        redoes=command.redoes,
    )


def skip_of(command: Skip, group: Group, when: float) -> SkipRecord:
    """The record of a skip.

    :raises InvalidValue: if the group has no such response.
    """
    letter = parse_response_name(command.response).letter
    if letter and letter not in {r.letter for r in group.responses}:
        raise InvalidValue(f"group {group.name} has no response {letter}")
    return SkipRecord(
        id=command.id,
        time=when,
        who=command.who,
        branch=group.branch,
        step=group.step,
        group=group.number,
        letter=letter,
        reason=command.reason,
        rule=command.rule,
    )
