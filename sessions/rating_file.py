"""The client's face over a plain file of responses: what an engine would say, without one. No model, no session.

Ratings go to a file of their own (:mod:`sessions.rating_log`) and are read back from it, so that undo and redo, the
queue and what was rated survive. They belong to a group by its texts: where the responses' file has changed since,
those of a group that is still in it stay with it, wherever it stands now.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from sessions import commands as c
from sessions.errors import InputFileError, InvalidValue, SessionError, WorkbenchError
from sessions.giving import rated_group, rating_of, skip_of
from sessions.hyperparameters import defaults, hyperparameter
from sessions.judging import standing
from sessions.limits import check_fields
from sessions.people import check_person
from sessions.preferences import Judgement, judgements
from sessions.rating_lines import line_of
from sessions.rating_log import Line, Opened, Pick, Rated, RatingLog, Skip, TakenBack, read_log
from sessions.records import (
    MAIN,
    Group,
    GroupHead,
    Rating,
    Response,
    ResponseName,
    SkipRecord,
    Status,
    head_of,
    parse_response_name,
)
from sessions.response_files import Asked, FileGroup, ResponseFile
from sessions.store import shown_ratings
from sessions.wire import (
    Answer,
    AnyEvent,
    GroupDetail,
    GroupPicked,
    GroupsChanged,
    RatingRetracted,
    RatingSaved,
    Skipped,
    Snapshot,
    encode_json,
)

HEADS = 1000
"""Groups that wait, and as many others, in a snapshot."""
EVENTS, RATINGS = 5000, 5000
Key = tuple[str, int, int]
_K = TypeVar("_K")


def ratings_path(path: Path) -> Path:
    """Where the ratings of a file go unless it is said otherwise."""
    return path.with_name(f"{path.name}.ratings.jsonl")


class RatedGroups:
    """A file of responses with what was said of it.

    :param log: where that is.
    :ivar gone: ratings of groups that are not in the file any more; they are kept, and not shown.
    """

    def __init__(self, file: ResponseFile, log: Path) -> None:
        self.file, self.log = file, log
        self.groups: dict[Key, FileGroup] = {group.key: group for group in file.groups}
        self.ratings: dict[str, Rating] = {}
        self.skips: dict[str, SkipRecord] = {}
        self.of_group: dict[Key, list[str]] = {}
        self.gone = 0
        self.opened: Opened | None = None
        self._by_digest: dict[str, list[FileGroup]] = {}
        for group in file.groups:
            self._by_digest.setdefault(group.digest, []).append(group)

    def take(self, line: Line) -> AnyEvent | None:
        """Count a line of the log in; the event that it was."""
        match line:
            case Opened():
                self.opened = line
            case Rated():
                rating = line.rating()
                group = self._group(line.of, (rating.branch, rating.step, rating.group))
                if group is None or rating.id in self.ratings:
                    self.gone += group is None
                    return None
                branch, step, number = group.key
                rating = msgspec.structs.replace(rating, branch=branch, step=step, group=number)
                self.ratings[rating.id] = rating
                self.of_group.setdefault(group.key, []).append(rating.id)
                return RatingSaved(time=rating.time, step=step, rating=rating)
            case TakenBack():
                return self._take_back(line)
            case Skip(skip=skip):
                group = self._group(line.of, (skip.branch, skip.step, skip.group))
                if group is None:
                    self.gone += 1
                    return None
                branch, step, number = group.key
                skip = msgspec.structs.replace(skip, branch=branch, step=step, group=number)
                self.skips[skip.id] = skip
                return Skipped(time=skip.time, step=step, skip=skip)
            case Pick():
                return GroupPicked(time=line.time, step=0, group=line.group, rule=line.rule, who=line.who)
        return None

    def _take_back(self, line: TakenBack) -> AnyEvent | None:
        if line.rating in self.skips:
            skip = self.skips[line.rating] = msgspec.structs.replace(self.skips[line.rating], retracted=line.time)
            return Skipped(time=line.time, step=skip.step, skip=skip)
        if line.rating not in self.ratings:
            return None
        rating = self.ratings[line.rating] = msgspec.structs.replace(self.ratings[line.rating], retracted=line.time)
        return RatingRetracted(time=line.time, step=rating.step, rating=rating.id, who=line.who, of=rating.who)

    def _group(self, digest: str, key: Key) -> FileGroup | None:
        """The group of those texts; of several the one that has the name."""
        found = self._by_digest.get(digest, [])
        return next((group for group in found if group.key == key), found[0] if found else None)

    def given(self, key: Key) -> list[Rating]:
        """Every rating of a group, in the order in which they were given."""
        return [self.ratings[known] for known in self.of_group.get(key, ())]

    def judged(self) -> Iterator[tuple[FileGroup, Group, Asked, list[Judgement]]]:
        """The groups of which anybody has said something that counts, in order, with their texts."""
        for group in self.file.groups:
            said = judgements(standing(self.given(group.key)))
            if said:
                yield group, self.file.group(group), self.file.texts(group), said


def read_rated(path: Path, log: Path | None = None) -> RatedGroups:
    """A file and its ratings, to look at.

    :raises InputFileError: if either cannot be read, or there are no ratings.
    """
    log = log or ratings_path(path)
    if not log.exists():
        raise InputFileError(f"{path}: has no ratings yet ({log} is not there); `workbench rate {path}` gives some")
    rated = RatedGroups(ResponseFile(path), log)
    for line, _ in read_log(log):
        rated.take(line)
    return rated


class RatingFile:
    """A file that one person rates.

    :param output: where the ratings go; None: beside the file, ``FILE.ratings.jsonl``.
    :param rule: by which groups are picked; empty: in the order of the file.
    :ivar told: what the person should know of the two files, in lines.
    :raises WorkbenchError: if either cannot be used.
    """

    def __init__(
        self,
        path: Path,
        who: str,
        output: Path | None = None,
        *,
        rule: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path, self.who, self.clock = path, check_person(who), clock
        self.values = defaults() | ({"rating_rule": hyperparameter("rating_rule").parse(rule)} if rule else {})
        self.output = output or ratings_path(path)
        if self.output.exists() and path.exists() and self.output.samefile(path):
            raise InvalidValue(f"--output {self.output}: that is the file to rate; give another")
        file = ResponseFile(path)
        self._lock = threading.RLock()
        self._log = RatingLog(self.output)
        try:
            self.rated = RatedGroups(file, self.output)
            self._events: list[AnyEvent] = []
            self._seq = 0
            for line in self._log.lines:
                self._count_in(line)
            self._log.lines.clear()
            self._latest = max((rating.time for rating in self.rated.ratings.values()), default=0.0)
            self.told = self._news()
            self._keep(Opened(file=path.name, who=who, time=clock(), digest=file.digest, groups=len(file.groups)))
        except BaseException:
            self._log.close()
            raise

    def close(self) -> None:
        """Let go of the ratings."""
        with self._lock:
            self._log.close()

    def _news(self) -> list[str]:
        told = []
        if self._log.cut:
            told.append(f"a last line of {self._log.cut:,} bytes had no end (a crash, a power cut) and was cut off")
        before = self.rated.opened
        if before is not None and before.digest != self.rated.file.digest:
            count = len(self.rated.file.groups)
            told.append(
                f"{self.path.name} has changed since it was rated: {before.groups:,} groups then, {count:,} now"
            )
        if self.rated.gone:
            what = f"{self.rated.gone:,} {'rating or skip' if self.rated.gone == 1 else 'ratings or skips'}"
            told.append(f"{what} of groups that are not in it any more: kept, and not shown")
        return told

    def _keep(self, line: Line) -> AnyEvent | None:
        """On disk first, then here."""
        self._log.append(line)
        return self._count_in(line)

    def _count_in(self, line: Line) -> AnyEvent | None:
        self._seq += 1
        event = self.rated.take(line)
        if event is None:
            return None
        event = msgspec.structs.replace(event, seq=self._seq)
        self._events.append(event)
        del self._events[: -2 * EVENTS]
        return event

    # ----------------------------------------------------------------------------------------- reading

    @property
    def again(self) -> str:
        """The command that goes on with it."""
        words = ["workbench", "rate", str(self.path)]
        if self.output != ratings_path(self.path):
            words += ["--output", str(self.output)]
        return shlex.join(words)

    @property
    def count(self) -> int:
        """Groups that somebody has rated."""
        return sum(bool(standing(self.rated.given(key))) for key in self.rated.of_group)

    def head(self, group: FileGroup) -> GroupHead:
        """What a list shows of a group."""
        shown = Group(
            branch=group.branch, step=group.step, number=group.number, prompt_id="", prompt=group.prompt, answer="",
            temperature=1.0, responses=[_blank(reward) for reward in group.rewards],
        )  # fmt: skip
        head = head_of(shown, shown_ratings(self.rated.given(group.key)))
        return msgspec.structs.replace(head, flags=[flag for flag in head.flags if flag != "dead"])

    def status(self) -> Status:
        """What is rated, and where the ratings go."""
        count = len(self.rated.file.groups)
        return Status(
            time=self.clock(),
            session=self.path.name,
            branch=MAIN,
            state="RUN",
            phase="idle",
            done=self.count,
            total=count,
            note=f"ratings go to {self.output}",
        )

    def snapshot(self) -> Snapshot:
        """What a client needs: the groups that wait, and of the others the last."""
        with self._lock:
            waiting: list[FileGroup] = []
            others: list[FileGroup] = []
            for group in self.rated.file.groups:
                (others if standing(self.rated.given(group.key)) else waiting).append(group)
            heads = others[-HEADS:] + waiting[:HEADS]
            heads.sort(key=lambda group: (group.step, group.number))
            return Snapshot(
                seq=self._seq,
                status=self.status(),
                values=dict(self.values),
                heads=[self.head(group) for group in heads],
                ratings=list(self.rated.ratings.values())[-RATINGS:],
                events=self._events[-EVENTS:],
            )

    def waiting(self) -> int:
        """Groups without a rating that counts."""
        return len(self.rated.file.groups) - self.count

    # --------------------------------------------------------------------------------------- commands

    def command(self, command: c.Command) -> tuple[Answer, list[AnyEvent]]:
        """Serve a command: its answer, as an engine's, and what happened."""
        with self._lock:
            try:
                check_fields(command)
                check_person(command.who)
                return self._serve(command)
            except WorkbenchError as error:
                return Answer(id=command.id, status="rejected", text=str(error)), []

    def _serve(self, command: c.Command) -> tuple[Answer, list[AnyEvent]]:
        data: object = None
        match command:
            case c.Rate():
                return self._rate(command)
            case c.Retract():
                return self._retract(command)
            case c.Skip():
                found = self._find(parse_response_name(command.response))
                skip = skip_of(command, self._group_of(found), self.clock())
                event = self._keep(Skip(skip=skip, of=found.digest))
                return _applied(command, "skipped", event)
            case c.Picked():
                found = self._find(parse_response_name(command.group))
                event = self._keep(Pick(group=found.name, rule=command.rule, who=command.who, time=self.clock()))
                return _applied(command, "noted", event)
            case c.QueryGroups(before=before, limit=limit, unrated=unrated):
                data = self._heads(before, min(max(limit, 1), 2000), unrated=unrated)
            case c.QueryGroup(group=text):
                found = self._find(parse_response_name(text))
                data = GroupDetail(
                    group=self._group_of(found), head=self.head(found), ratings=self.rated.given(found.key)
                )
            case c.QueryResponse(response=text):
                name = parse_response_name(text)
                group = self._group_of(self._find(name))
                data = next((r for r in group.responses if r.letter == name.letter), None)
                if data is None:
                    raise InvalidValue(f"group {group.name} has no response {name.letter!r}")
            case c.QueryRatings(limit=limit, before=text):
                ratings = list(self.rated.ratings.values())
                at = next((i for i, r in enumerate(ratings) if r.id == text), 0) if text else len(ratings)
                data = ratings[max(0, at - min(max(limit, 1), 2000)) : at]
            case c.QueryEvents(before=before, limit=limit):
                events = [e for e in self._events if not before or e.seq < before]
                data = events[: -min(max(limit, 1), 2000) - 1 : -1]
            case c.QueryStatus():
                data = self.status()
            case _:
                raise SessionError("a file is rated here, without a session: there is nothing to train or to change")
        return Answer(id=command.id, status="data", data=encode_json(data)), []

    def _heads(self, before: int, limit: int, *, unrated: bool) -> list[GroupHead]:
        groups = [
            group for group in self.rated.file.groups
            if (not before or group.step < before) and not (unrated and standing(self.rated.given(group.key)))
        ]  # fmt: skip
        groups.sort(key=lambda group: (-group.step, group.number))
        return [self.head(group) for group in groups[:limit]]

    def _rate(self, command: c.Rate) -> tuple[Answer, list[AnyEvent]]:
        known = self.rated.ratings.get(command.id)
        if known is not None:  # sent again: it is the same rating, once
            return _applied(command, "saved before", None)
        name = rated_group(command)
        found = self._find(name)
        asked = self.rated.file.texts(found)
        given = self.rated.given(found.key)
        when = self._latest = max(self.clock(), self._latest + 1e-6)  # whatever the clock does, later is later
        rating = rating_of(command, self._group_of(found), standing(given), when)
        ids = dict(zip(asked.responses, found.ids, strict=True))
        line = line_of(rating, asked.prompt, asked.responses, of=found.digest, ids={k: v for k, v in ids.items() if v})
        event = self._keep(_tagged(line, Rated))
        changed = GroupsChanged(time=when, step=found.step, heads=[self.head(found)])
        return _applied(command, f"saved in {self.output.name} (rating {rating.id})", event, changed)

    def _retract(self, command: c.Retract) -> tuple[Answer, list[AnyEvent]]:
        rating, skip = self.rated.ratings.get(command.rating), self.rated.skips.get(command.rating)
        what = rating or skip
        if what is None:
            raise InvalidValue(f"no rating with the id {command.rating!r}")
        if what.retracted:
            raise InvalidValue(f"{'rating' if rating else 'skip'} {what.id[:8]} was taken back before")
        event = self._keep(TakenBack(rating=command.rating, who=command.who, time=self.clock()))
        if rating is None:
            return _applied(command, "it waits for a rating again", event)
        found = self.rated.groups[rating.branch, rating.step, rating.group]
        changed = GroupsChanged(time=self.clock(), step=found.step, heads=[self.head(found)])
        whose = f"{rating.who}'s rating is " if rating.who != command.who else ""
        return _applied(command, f"{whose}taken back", event, changed)

    def _find(self, name: ResponseName) -> FileGroup:
        """:raises InvalidValue: if there is no such group."""
        found = self.rated.groups.get((name.branch or MAIN, name.step, name.group))
        if found is None:
            raise InvalidValue(f"no group {name.step}.{name.group} in {self.path.name}")
        return found

    def _group_of(self, found: FileGroup) -> Group:
        return self.rated.file.group(found)


def _tagged(record: msgspec.Struct, kind: type[_K]) -> _K:
    return kind(**{name: getattr(record, name) for name in record.__struct_fields__})


def _blank(reward: float | None) -> Response:
    return Response(letter="", text="", length=0, ended=True, reward=reward)


def _applied(command: c.Command, text: str, *events: AnyEvent | None) -> tuple[Answer, list[AnyEvent]]:
    return Answer(id=command.id, status="applied", text=text), [event for event in events if event is not None]
