"""The messages between one engine and its clients, and how they are framed.

One JSON object a line, at most :data:`LINE_LIMIT` bytes. A client says :class:`Hello`; the engine answers
:class:`Welcome`, then a :class:`Snapshot`, then :class:`Delta`s in order. Commands are answered by :class:`Answer`:
accepted, then applied or rejected; their lane is never dropped. A client that falls behind gets a fresh snapshot.

Numbers that are not finite travel as null, with their names in ``nonfinite``. Unknown fields are ignored, unknown
commands rejected by name. What a client may send is bounded by :mod:`sessions.limits`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from sessions.branches import Branch
from sessions.commands import COMMANDS, Command
from sessions.errors import FrameTooLarge, InvalidValue, MalformedFrame
from sessions.evaluations import words_of
from sessions.hyperparameters import Value, knobs_of
from sessions.limits import NAME, WHOLE, check_fields, check_line, title
from sessions.people import check_person, client_title
from sessions.records import (
    WARM_UP,
    Alarm,
    Change,
    Checkpoint,
    Group,
    GroupHead,
    Rating,
    RatingUse,
    Record,
    SeriesData,
    SkipRecord,
    Status,
    StepRecord,
    TaskInfo,
)

PROTOCOL = 1
LINE_LIMIT = 16 * 2**20
PAGE = 2**20
"""Answers larger than this are cut into pages of this many characters."""


# ---------------------------------------------------------------------------------------------- the events


class Event(msgspec.Struct, kw_only=True, tag_field="event", omit_defaults=True):
    """Something that happened; the store numbers it and keeps it for ever.

    :ivar seq: its number in the session; 0 for events that are not kept, which a snapshot makes up for.
    """

    time: float
    step: int
    seq: int = 0


class StepDone(Event, tag="step"):
    """A step ended; its record is in the table of steps."""

    record: StepRecord


class GroupsScored(Event, tag="groups"):
    """Groups of the step in progress were scored and stored: they can be rated."""

    heads: list[GroupHead]


class GroupsChanged(Event, tag="groups_changed"):
    """Heads of groups that an update, a rating or a discard changed."""

    heads: list[GroupHead]


class RatingSaved(Event, tag="rating"):
    """A rating is on disk."""

    rating: Rating


class RatingRetracted(Event, tag="retracted"):
    """A rating was taken back; ``used_in`` is the update that had used it, 0 if none.

    :ivar who: took it back.
    :ivar of: had given it.
    """

    rating: str
    who: str
    of: str = ""
    used_in: int = 0


class RatingUsed(Event, tag="rating_used"):
    """A rating met its update, or never will."""

    use: RatingUse


class Skipped(Event, tag="skipped"):
    """A person chose not to rate a response, or took that back."""

    skip: SkipRecord


class GroupPicked(Event, tag="picked"):
    """A rule put a group before a person."""

    group: str
    rule: str
    who: str


class Imported(Event, tag="imported"):
    """Somebody brought ratings or preferences from a file.

    :ivar source: the file.
    :ivar ratings: that came back to groups of the session.
    :ivar orderings: preferences about other responses, kept for a reward model.
    """

    who: str
    source: str
    ratings: int = 0
    orderings: int = 0


class Evaluated(Event, tag="evaluated"):
    """The held-out prompts were asked after a step; the answers are in the table of evaluations.

    :ivar who: asked for it; empty: the schedule.
    """

    branch: str
    metrics: dict[str, float | None]
    who: str = ""
    prompts: int = 0


class Changed(Event, tag="change"):
    """A hyperparameter change was accepted, applied or superseded."""

    change: Change


class AlarmRaised(Event, tag="alarm"):
    """A rule fired, or its alarm was acknowledged."""

    alarm: Alarm


class CheckpointSaved(Event, tag="checkpoint_saved"):
    """Weights are on disk."""

    checkpoint: Checkpoint


class Noted(Event, tag="note"):
    """Anything else worth a line: started, paused, resumed, discarded, stopped, an error."""

    kind: str
    text: str
    who: str = ""


AnyEvent = (
    StepDone
    | GroupsScored
    | GroupsChanged
    | RatingSaved
    | RatingRetracted
    | RatingUsed
    | Skipped
    | GroupPicked
    | Imported
    | Evaluated
    | Changed
    | AlarmRaised
    | CheckpointSaved
    | Noted
)


def describe(event: AnyEvent) -> tuple[str, str]:
    """An event as (kind, one line) for lists and logs."""
    match event:
        case StepDone(record=record) if record.branch.startswith(WARM_UP):
            loss, accuracy = record.metrics.get("warmup/loss"), record.metrics.get("warmup/accuracy")
            parts = [f"loss {loss:.3f}"] if loss is not None else []
            parts += [f"held-out {accuracy:.1%}"] if accuracy is not None else []
            return "warm-up", f"warm-up step {record.step} done: {', '.join(parts)}"
        case StepDone(record=record):
            reward = record.metrics.get("reward/mean")
            kl = record.metrics.get("kl/k3")
            held_out = record.metrics.get("eval/accuracy") if record.step == 0 else None
            parts = [f"reward {reward:.3f}" if reward is not None else "no reward"]
            parts = [f"held-out {held_out:.1%}"] if held_out is not None else parts
            parts += [f"kl {kl:.4f}"] if kl is not None else []
            return "step", f"step {record.step} done: {', '.join(parts)}"
        case GroupsScored(heads=heads):
            return "groups", f"{len(heads)} group{'s' if len(heads) != 1 else ''} scored"
        case GroupsChanged(heads=heads):
            return "groups", f"{len(heads)} group{'s' if len(heads) != 1 else ''} changed"
        case RatingSaved(rating=rating):
            said = ", ".join(f"{k}={v:g}" for k, v in rating.values.items())
            said += f", {', '.join(rating.flags)}" if rating.flags else ""
            again = " again" if rating.supersedes or rating.repeats else ""
            comment = f", {rating.comment}" if rating.comment else ""
            return "rating", f"{rating.who} rated {rating.step}.{rating.group}{again}: {said} ({rating.mode}){comment}"
        case RatingRetracted(rating=rating_id, who=who, of=of, used_in=used):
            after = f", after update {used} used it" if used else ""
            whose = f"{of}'s " if of not in ("", who) else ""
            return "rating", f"{who} took {whose}rating {rating_id[:8]} back{after}"
        case RatingUsed(use=use):
            return "rating", f"rating of {use.group} {use.describe()}"
        case Skipped(skip=skip):
            return (
                "rating",
                f"{skip.who} took back skipping {skip.step}.{skip.group}{skip.letter}"
                if skip.retracted
                else f"{skip.who} skipped {skip.step}.{skip.group}{skip.letter} {skip.reason}".rstrip(),
            )
        case GroupPicked(group=group, rule=rule, who=who):
            return "rating", f"{group} was put before {who} (rule: {rule})"
        case Evaluated(metrics=metrics, who=who):
            figures = {name: value for name, value in metrics.items() if value is not None}
            asked = f"{who} had it evaluated: " if who else ""
            return "evaluated", f"{asked}{words_of(figures)}"
        case Imported(who=who, source=source, ratings=ratings, orderings=orderings):
            kinds = [
                f"{n:,} {what}{'' if n == 1 else 's'}"
                for n, what in ((ratings, "rating"), (orderings, "preference"))
                if n
            ]
            return "rating", f"{who} imported {' and '.join(kinds) or 'nothing'} from {source}"
        case Changed(change=change):
            when = f" at step {change.applied_step}" if change.applied_step else f", due at the next {change.boundary}"
            return (
                "change",
                f"{change.who} set {change.name} {_shown(change, change.old)} -> {_shown(change, change.new)}: "
                f"{change.status}{when}",
            )
        case AlarmRaised(alarm=alarm):
            by = f" by {alarm.acknowledged_by}" if alarm.acknowledged_by else ""
            return "alarm", alarm.message + (f" (acknowledged{by})" if alarm.acknowledged else "")
        case CheckpointSaved(checkpoint=checkpoint):
            return "checkpoint", f"checkpoint of step {checkpoint.step} ({checkpoint.reason})"
        case Noted(kind=kind, text=text):
            return kind, text


def _shown(change: Change, value: Value) -> str:
    """As people write it, also where another version had a knob that this one has not."""
    knob = knobs_of({change.name: value}).get(change.name)
    return knob.show(value) if knob else str(value)


# -------------------------------------------------------------------------------------------- the messages


class Hello(Record, tag="hello", tag_field="type"):
    """A client's first line.

    :ivar protocol: its version; on a mismatch only ``status`` and ``stop`` are served.
    :ivar client: what it is: ``screen``, ``send``, ...
    :ivar who: whose it is.
    :ivar seq: the last event it knows.
    :ivar rate: most batches of deltas a second it wants.
    """

    protocol: int
    client: str
    seq: int = 0
    rate: float = 4.0
    read_only: bool = False
    terminal: str = ""
    who: str = ""

    @property
    def title(self) -> str:
        """This client in a list of them."""
        return client_title(self.client, self.who, self.terminal, read_only=self.read_only)


class Welcome(Record, tag="welcome", tag_field="type"):
    """The engine's first line."""

    protocol: int
    version: str
    session: str
    database: str
    seq: int
    pid: int


class Snapshot(Record, tag="snapshot", tag_field="type"):
    """Everything a client needs to draw any screen, as of event ``seq``.

    :ivar series: every metric, at most 2,000 points each.
    :ivar start_values: the hyperparameters the session started with.
    :ivar heads: the newest groups, oldest first.
    :ivar uses: of the newest ratings, on the branch that is trained.
    :ivar branches: every one that is not deleted.
    """

    seq: int
    status: Status
    task: TaskInfo | None = None
    values: dict[str, Value] = {}
    start_values: dict[str, Value] = {}
    series: list[SeriesData] = []
    heads: list[GroupHead] = []
    ratings: list[Rating] = []
    uses: list[RatingUse] = []
    changes: list[Change] = []
    alarms: list[Alarm] = []
    checkpoints: list[Checkpoint] = []
    events: list[AnyEvent] = []
    last_step: StepRecord | None = None
    branches: list[Branch] = []


class Delta(Record, tag="delta", tag_field="type"):
    """Events since the last message, in order."""

    events: list[AnyEvent]


class Beat(Record, tag="beat", tag_field="type"):
    """The newest status; an older one that was not sent yet is replaced."""

    status: Status


class Growing(Record, tag="growing", tag_field="type"):
    """The text so far of one group of the step in progress; only the newest is sent.

    :ivar group: its number in the step.
    :ivar groups: how many groups the step has.
    :ivar ended: which responses have ended.
    """

    step: int
    group: int
    groups: int
    prompt: str
    texts: list[str]
    ended: list[bool]


class Answer(Record, tag="answer", tag_field="type"):
    """The answer to a command.

    :ivar status: ``accepted`` (an ``applied`` or ``rejected`` follows), ``applied``, ``rejected`` or, for a query,
        ``data``.
    :ivar step: the step it took effect in.
    :ivar text: one line for people.
    :ivar data: a query's result, as JSON text.
    :ivar page: this page of ``data``, from 0.
    :ivar pages: how many there are.
    """

    id: str
    status: Literal["accepted", "applied", "rejected", "data"]
    step: int = 0
    text: str = ""
    data: str = ""
    page: int = 0
    pages: int = 1


class GroupDetail(Record):
    """The data of a :class:`~sessions.commands.QueryGroup`.

    :ivar ratings: all of the group's, retracted ones too, oldest first.
    :ivar uses: of those ratings, as far as they are known.
    """

    group: Group
    head: GroupHead
    ratings: list[Rating] = []
    uses: list[RatingUse] = []


class Complaint(Record, tag="complaint", tag_field="type"):
    """Something the client sent cannot be used; ``fatal`` means that the connection closes."""

    code: Literal["malformed", "too_large", "version", "foreign", "handshake"]
    text: str
    fatal: bool = False


ToClient = Welcome | Snapshot | Delta | Beat | Growing | Answer | Complaint

_encoder = msgspec.json.Encoder()
_to_client: msgspec.json.Decoder[ToClient] = msgspec.json.Decoder(ToClient)
_hello = msgspec.json.Decoder(Hello)
_event: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


class _AnyCommand(msgspec.Struct):
    command: str
    id: str | None = None


_any_command = msgspec.json.Decoder(_AnyCommand)
_commands = {name: msgspec.json.Decoder(kind) for name, kind in COMMANDS.items()}
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding raises: text that is not UTF-8 and numbers of too many digits are errors of Python's own."""


class BadCommand(MalformedFrame):
    """A line that names a command but cannot be served; ``id`` is the one to answer."""

    def __init__(self, command_id: str, text: str) -> None:
        super().__init__(text)
        self.id = command_id


def encode(message: Record | Command) -> bytes:
    """One line, newline included.

    :raises FrameTooLarge: over the limit.
    """
    return _line(type(message).__name__, _encoder.encode(message))


def encode_part(event: AnyEvent) -> bytes:
    """An event as it stands in every :class:`Delta` that it is sent in."""
    return _encoder.encode(event)


def encode_delta(events: Iterable[bytes]) -> bytes:
    """The line of a :class:`Delta` of events that :func:`encode_part` has encoded.

    :raises FrameTooLarge: over the limit.
    """
    return _line("Delta", b'{"type":"delta","events":[' + b",".join(events) + b"]}")


def _line(kind: str, text: bytes) -> bytes:
    if len(text) >= LINE_LIMIT:
        raise FrameTooLarge(f"a {kind} of {len(text) + 1} bytes is over the limit of {LINE_LIMIT}")
    return text + b"\n"


def encode_json(value: Any) -> str:
    """Any record, or list of them, as JSON text."""
    return _encoder.encode(value).decode()


def encode_event(event: AnyEvent) -> str:
    """An event as JSON text, for the store."""
    return encode_part(event).decode()


def decode_event(text: str | bytes) -> AnyEvent:
    """Back from the store."""
    return _event.decode(text)


def decode_to_client(line: bytes) -> ToClient:
    """What an engine sent.

    :raises MalformedFrame: if it is not a message this version knows.
    """
    try:
        return _to_client.decode(line)
    except _UNREADABLE as error:
        raise MalformedFrame(f"the engine sent a line that is not a message: {error}") from None


def decode_hello(line: bytes) -> Hello:
    """A client's first line.

    :raises MalformedFrame: if it is anything else.
    """
    try:
        check_line(line)
        hello = _hello.decode(line)
    except (MalformedFrame, *_UNREADABLE) as error:
        raise MalformedFrame(f"expected hello: {error}") from None
    if not 0 <= hello.protocol <= WHOLE:
        raise MalformedFrame("expected hello: its protocol is no version number")
    if hello.who:
        try:
            check_person(hello.who)
        except InvalidValue as error:
            raise MalformedFrame(f"expected hello: who: {error}") from None
    return msgspec.structs.replace(hello, client=title(hello.client), terminal=title(hello.terminal))


def decode_command(line: bytes) -> Command:
    """A client's command.

    :raises MalformedFrame: if it is not a JSON object with a command.
    :raises BadCommand: if the command is unknown or its fields are wrong.
    """
    try:
        outline = _any_command.decode(line)
    except _UNREADABLE as error:
        raise MalformedFrame(f"not a command: {error}") from None
    if len(outline.command) > NAME or len(outline.id or "") > NAME:
        raise MalformedFrame(f"not a command: its name or its id has more than {NAME} characters")
    if outline.id == "":
        raise BadCommand("", f"{outline.command}: a command needs an id of its own, such as a UUID")
    if outline.command not in _commands:
        known = ", ".join(sorted(_commands))
        raise BadCommand(outline.id or "", f"unknown command {outline.command!r}; known: {known}")
    try:
        check_line(line)
        command = _commands[outline.command].decode(line)
        check_fields(command)
        check_person(command.who)
    except (MalformedFrame, InvalidValue, *_UNREADABLE) as error:
        raise BadCommand(outline.id or "", f"{outline.command}: {error}") from None
    return command


def pages_of(answer: Answer) -> list[Answer]:
    """An answer cut into pages of at most :data:`PAGE` characters of data."""
    if len(answer.data) <= PAGE:
        return [answer]
    cuts = range(0, len(answer.data), PAGE)
    return [
        msgspec.structs.replace(answer, data=answer.data[at : at + PAGE], page=i, pages=len(cuts))
        for i, at in enumerate(cuts)
    ]
