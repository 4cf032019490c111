"""What one person has said in a session: what stands, what is on its way, what can be undone and given again.

Everything is a record, and records are only appended: a rating, an edit, a critique, a skip, and the time at which one
was taken back. Undo takes the last one that stands back; redo gives again what was undone last, as a new record. So
both can be told from the records alone, after a restart of the screen or of the engine as before it:

- undo goes through the records that stand, newest first;
- redo through those taken back since the last record that was new, the one taken back last first, without those that
  were given again. A skip that says what the one undone last said gives it again.

No method but :meth:`load` and :meth:`learn` takes longer the more records there are.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

from sessions.agreement import Agreement, per_hour, self_agreement
from sessions.commands import Command, Rate, Retract, Skip
from sessions.modes import CRITIQUE, MODES, replaces
from sessions.records import Rating, SkipRecord, parse_response_name

Key = tuple[str, int, int]
"""A group: branch, step, number."""
Act = Rating | SkipRecord
"""What a person did that can be undone."""
State = Literal["saving", "saved"]
FEW = 20
"""Acts left to undo below which older ones should be read."""
PACE = 500
"""The newest acts that the pace is measured on."""


@dataclass(slots=True)
class Answered:
    """What one response has been given: by which rating, and whether it is on disk."""

    rating: Rating
    value: float
    state: State

    @property
    def text(self) -> str:
        return MODES[self.rating.mode].show(self.value) if self.rating.mode in MODES else f"{self.value:g}"


def key_of(act: Act) -> Key:
    """The group that a record is of."""
    return act.branch, act.step, act.group


class RatingBook:
    """One person's records, those sent and not yet confirmed among them.

    :ivar branch: the active branch, whose groups are named without it.
    :ivar version: grows with every change.
    :ivar horizon: time from which on every record is known; 0: all are.
    """

    def __init__(self, who: str, clock: Callable[[], float] = time.time) -> None:
        self.who = who
        self.clock = clock
        self.branch = "main"
        self.version = 0
        self.horizon = 0.0
        self._acts: dict[str, Act] = {}
        self._of: dict[Key, list[str]] = {}
        self._place: dict[str, int] = {}
        self._undo: list[tuple[int, str]] = []
        self._redo: list[str] = []
        self._again: dict[str, str] = {}
        self._sending: set[str] = set()
        self._retracting: set[str] = set()
        self._repeats: list[str] = []
        self._asked: set[tuple[Key, bool]] = set()
        self._newest = 0.0
        self._day = (0.0, 0.0)
        self._days: dict[Key, tuple[int, float, int]] = {}
        self._today = [0, 0.0, 0]
        self._changed: set[Key] = set()
        self._measured: tuple[int, Agreement | None, float | None] = (-1, None, None)

    def name(self, key: Key) -> str:
        """``812.3``, with the branch before it when it is not the active one."""
        branch, step, number = key
        return f"{step}.{number}" if branch == self.branch else f"{branch}/{step}.{number}"

    # ---- what comes from the engine

    def load(self, acts: Iterable[Act], horizon: float = 0.0) -> None:
        """Begin again with these records, and with what is on its way.

        :param horizon: time from which on they are all there are.
        """
        waiting = [self._acts[name] for name in self._sending if name in self._acts]
        undone = {name: self._acts[name].retracted for name in self._retracting if name in self._acts}
        self._acts = {act.id: act for act in acts if act.who == self.who}
        for act in waiting:
            self._acts.setdefault(act.id, act)
        for name, when in undone.items():
            if name in self._acts and not self._acts[name].retracted:
                self._acts[name] = msgspec.structs.replace(self._acts[name], retracted=when)
        self.horizon = horizon
        self._rebuild()

    def learn(self, acts: Iterable[Act], horizon: float | None = None) -> None:
        """Older records, or all of a group's: those not known yet are added.

        :param horizon: time from which on all are known now; None: as before.
        """
        new = {act.id: act for act in acts if act.who == self.who and act.id not in self._acts}
        if not new and horizon is None:
            return
        self._acts |= new
        if horizon is not None:
            self.horizon = horizon
        self._rebuild()

    def changed(self) -> set[Key]:
        """The groups with another record than when this was asked last."""
        found, self._changed = self._changed, set()
        return found

    def _rebuild(self) -> None:
        """Order the records by time, and play what was taken back and given again."""
        self.version += 1
        self._changed.update(self._of)
        ordered = sorted(self._acts.values(), key=lambda act: act.time)
        self._acts = {act.id: act for act in ordered}
        self._place = {act.id: place for place, act in enumerate(ordered)}
        self._of.clear()
        self._undo, self._redo = [], []
        self._again.clear()
        self._repeats, self._asked = [], set()
        self._newest = ordered[-1].time if ordered else 0.0
        happened: list[tuple[float, int, Act]] = []
        for act in ordered:
            self._index(act)
            happened.append((act.time, 0, act))
            if act.retracted:
                happened.append((act.retracted, 1, act))
            elif act.time >= self.horizon:
                self._undo.append((self._place[act.id], act.id))
        for _, taken, act in sorted(happened, key=lambda each: each[:2]):
            if taken:
                self._redo.append(act.id)
            else:
                self._given(act)
        self._redo = [name for name in self._redo if self._acts[name].retracted]
        self._count_all()

    def _index(self, act: Act) -> None:
        self._of.setdefault(key_of(act), []).append(act.id)
        self._changed.add(key_of(act))
        if isinstance(act, Rating):
            self._asked.add((key_of(act), bool(act.repeats)))
            if act.redoes:
                self._again[act.redoes] = act.id
            if act.repeats:
                self._repeats.append(act.id)

    def _given(self, act: Act) -> None:
        """What a new record does to what can be given again."""
        if isinstance(act, Rating) and act.redoes:
            if act.redoes in self._redo:
                self._redo.remove(act.redoes)
        elif isinstance(act, SkipRecord) and self._redo and _same_skip(act, self._acts[self._redo[-1]]):
            self._redo.pop()
        else:
            self._redo.clear()

    def saw(self, act: Act) -> None:
        """The engine says that a record is on disk, or that a skip was taken back."""
        if act.who != self.who:
            return
        known = self._acts.get(act.id)
        if known is None:
            self._add(act)
            return
        self._sending.discard(act.id)
        if known.retracted and not act.retracted:
            act = msgspec.structs.replace(act, retracted=known.retracted)
        elif act.retracted and not known.retracted:
            self._take_back(act.id, act.retracted)
        self._acts[act.id] = act
        self.version += 1

    def saw_retracted(self, name: str, when: float) -> None:
        """The engine says that a rating was taken back."""
        act = self._acts.get(name)
        self._retracting.discard(name)
        if act is not None and not act.retracted:
            self._take_back(name, when)

    def _add(self, act: Act) -> None:
        self.version += 1
        self._acts[act.id] = act
        self._place[act.id] = len(self._place)
        self._newest = max(self._newest, act.time)
        self._index(act)
        self._given(act)
        if act.retracted:
            self._redo.append(act.id)
        else:
            self._undo.append((self._place[act.id], act.id))
        self._count(key_of(act))

    def _take_back(self, name: str, when: float) -> None:
        self.version += 1
        act = self._acts[name]
        self._acts[name] = msgspec.structs.replace(act, retracted=when)
        entry = (self._place[name], name)
        if self._undo and self._undo[-1] == entry:
            self._undo.pop()
        elif entry in self._undo:
            self._undo.remove(entry)
        self._redo.append(name)
        self._count(key_of(act))

    # ---- reading

    def state(self, act: Act) -> State:
        """Whether a record is on disk."""
        return "saving" if act.id in self._sending else "saved"

    def act(self, name: str) -> Act | None:
        return self._acts.get(name)

    def of_group(self, key: Key) -> list[Rating]:
        """The ratings of a group that stand, repeats too, oldest first: not taken back, nor replaced."""
        acts = [self._acts[name] for name in self._of.get(key, ())]
        stand = [act for act in acts if isinstance(act, Rating) and not act.retracted]
        replaced = {act.supersedes for act in stand}
        return [act for act in stand if act.id not in replaced]

    def standing(self, key: Key) -> list[Rating]:
        """The ratings of a group that count, oldest first: those of :meth:`of_group` that are no silent repeats."""
        return [rating for rating in self.of_group(key) if not rating.repeats]

    def answers(self, key: Key, slot: str = "level", given: Collection[str] | None = None) -> dict[str, Answered]:
        """Letter -> the answer to it in a group that stands in a slot.

        :param given: only what these ratings answered, silent repeats or not.
        """
        out: dict[str, Answered] = {}
        for rating in self.standing(key) if given is None else self.of_group(key):
            mode = MODES.get(rating.mode)
            if mode is None or mode.slot != slot or (given is not None and rating.id not in given):
                continue
            state = self.state(rating)
            out.update({letter: Answered(rating, value, state) for letter, value in rating.values.items()})
        return out

    def latest(
        self, key: Key, slot: str, letters: Collection[str], given: Collection[str] | None = None
    ) -> Rating | None:
        """The answer that stands to exactly these responses in a slot."""
        found = None
        for rating in self.standing(key) if given is None else self.of_group(key):
            mode = MODES.get(rating.mode)
            fits = mode is not None and mode.slot == slot and set(rating.values) == set(letters)
            if fits and (given is None or rating.id in given):
                found = rating
        return found

    def skipped(self, key: Key) -> dict[str, SkipRecord]:
        """Letter -> the skip of it that stands; no letter: of the whole group."""
        acts = (self._acts[name] for name in self._of.get(key, ()))
        return {act.letter: act for act in acts if isinstance(act, SkipRecord) and not act.retracted}

    def touched(self, key: Key) -> bool:
        """Whether anything was rated in a group."""
        return any(isinstance(a := self._acts[n], Rating) and not a.retracted for n in self._of.get(key, ()))

    def newest_first(self) -> Iterator[Act]:
        """What stands, repeats and skips too, without what was replaced."""
        for _, name in reversed(self._undo):
            act = self._acts[name]
            if isinstance(act, SkipRecord) or any(act.id == r.id for r in self.of_group(key_of(act))):
                yield act

    def oldest_first(self) -> list[Rating]:
        """Every rating that is known, taken back or not; of the cost of all of them."""
        return [act for act in self._acts.values() if isinstance(act, Rating)]

    @property
    def questions(self) -> int:
        """How many groups were put before this person and answered; one that was asked again counts twice."""
        return len(self._asked)

    @property
    def undoable(self) -> int:
        """How many acts can be undone without reading older ones."""
        return len(self._undo)

    @property
    def undone(self) -> Act | None:
        """What redo would give again."""
        return self._acts[self._redo[-1]] if self._redo else None

    @property
    def needs_older(self) -> bool:
        """Whether there are older records that undo will soon need."""
        return self.horizon > 0 and len(self._undo) < FEW

    @property
    def at_horizon(self) -> bool:
        """Whether older records have to be read before anything can be undone or given again."""
        return self.horizon > 0 and not self._undo

    @property
    def last_mode(self) -> str:
        """The mode of the newest question answered; empty without any."""
        for _, name in reversed(self._undo):
            act = self._acts[name]
            # A flag or a comment beside a rating answers no question: nobody was asked for it.
            if isinstance(act, Rating) and act.mode in MODES and (act.mode != CRITIQUE.name or act.seconds > 0):
                return act.mode
        return ""

    # ---- figures

    def today(self) -> tuple[int, float]:
        """Answers given today, and the mean seconds each took; a question that was answered again counts once."""
        if not self._day[0] <= self.clock() < self._day[1]:
            self._count_all()
        count, spent, timed = self._today
        return int(count), spent / timed if timed else 0.0

    def _count_all(self) -> None:
        now = time.localtime(self.clock())
        start = time.mktime((now.tm_year, now.tm_mon, now.tm_mday, 0, 0, 0, 0, 0, -1))
        end = time.mktime((now.tm_year, now.tm_mon, now.tm_mday + 1, 0, 0, 0, 0, 0, -1))
        self._day = start, end
        self._days.clear()
        self._today = [0, 0.0, 0]
        for key in {key_of(act) for act in self._acts.values() if act.time >= start}:
            self._count(key)

    def _count(self, key: Key) -> None:
        """Count a group's answers of today anew."""
        self._changed.add(key)
        start, end = self._day
        # Flags and comments beside a rating are no answers of their own: nobody was asked for them.
        asked = [rating for rating in self.of_group(key) if rating.mode != CRITIQUE.name or rating.seconds > 0]
        found = [rating for rating in asked if start <= rating.time < end]
        timed = [rating.seconds for rating in found if rating.seconds > 0]
        new = len(found), sum(timed), len(timed)
        for place, (was, now) in enumerate(zip(self._days.get(key, (0, 0.0, 0)), new, strict=True)):
            self._today[place] += now - was
        self._days[key] = new

    def figures(self) -> tuple[Agreement | None, float | None]:
        """How far this person agrees with themselves, and answers an hour."""
        if self._measured[0] != self.version:
            asked_twice = [self._acts[name] for name in self._repeats]
            firsts = {
                r.repeats: self._acts[r.repeats]
                for r in asked_twice
                if isinstance(r, Rating) and r.repeats in self._acts
            }
            both = [a for a in (*firsts.values(), *asked_twice) if isinstance(a, Rating)]
            newest = [self._acts[name] for _, name in self._undo[-PACE:]]
            recent = [act for act in newest if isinstance(act, Rating) and not act.redoes]
            self._measured = self.version, self_agreement(both), per_hour(recent)
        return self._measured[1:]

    # ---- writing

    def _now(self) -> float:
        # Later than all others whatever the clocks of the two processes say: undo starts from the last.
        return max(self.clock(), self._newest + 1e-6)

    def give(self, command: Rate) -> Rate:
        """Count a rating as given; the engine's record of it has the same id."""
        name = parse_response_name(command.group)
        key = (name.branch or self.branch, name.step, name.group)
        earlier = [r for r in self.standing(key) if replaces(command.mode, command.values, r.mode, r.values)]
        self._sending.add(command.id)
        self._add(
            Rating(
                id=command.id, time=self._now(), who=self.who, branch=key[0], step=key[1], group=key[2],
                mode=command.mode, values=command.values, comment=command.comment, order=command.order,
                blind=command.blind, seconds=command.seconds, text=command.text, flags=command.flags,
                rule=command.rule, repeats=command.repeats, redoes=command.redoes,
                supersedes=earlier[-1].id if earlier and not command.repeats else "",
            )
        )  # fmt: skip
        return command

    def skip(self, command: Skip) -> Skip:
        """Count a skip as given."""
        name = parse_response_name(command.response)
        self._sending.add(command.id)
        self._add(
            SkipRecord(
                id=command.id, time=self._now(), who=self.who, branch=name.branch or self.branch, step=name.step,
                group=name.group, letter=name.letter, reason=command.reason, rule=command.rule,
            )
        )  # fmt: skip
        return command

    def take_back(self, act: Act) -> Retract:
        """Take one record back."""
        self._retracting.add(act.id)
        self._take_back(act.id, self._now())
        self._newest = max(self._newest, self._acts[act.id].retracted)
        return Retract(who=self.who, rating=act.id)

    def undo(self) -> tuple[Retract, Act] | None:
        """Take the last record that stands back; None if there is none."""
        if not self._undo:
            return None
        act = self._acts[self._undo[-1][1]]
        return self.take_back(act), act

    def redo(self) -> tuple[Rate | Skip, Act] | None:
        """Give again what was undone last; None if there is nothing."""
        act = self.undone
        if act is None:
            return None
        group = self.name(key_of(act))
        if isinstance(act, SkipRecord):
            again = Skip(who=self.who, response=f"{group}{act.letter}", reason=act.reason, rule=act.rule)
            return self.skip(again), act
        return self.give(
            Rate(
                who=self.who, group=group, mode=act.mode, values=act.values, comment=act.comment, order=act.order,
                blind=act.blind, seconds=act.seconds, text=act.text, flags=act.flags, rule=act.rule,
                repeats=self.now_called(act.repeats), redoes=act.id,
            )
        ), act  # fmt: skip

    def now_called(self, name: str) -> str:
        """The id of the record that gives an undone one again; the id itself where it was not."""
        seen: set[str] = set()
        while name in self._again and name not in seen:
            seen.add(name)
            name = self._again[name]
        return name

    def confirmed(self, command: Command, *, failed: bool) -> None:
        """The engine's last answer to a command of this book."""
        self.version += 1
        match command:
            case Rate() | Skip():
                self._sending.discard(command.id)
                if failed and command.id in self._acts:
                    self._forget(command.id)
            case Retract():
                self._retracting.discard(command.rating)
                if failed and command.rating in self._acts:
                    self._restore(command.rating)
            case _:
                pass

    def _forget(self, name: str) -> None:
        """A record was refused: as if it had never been given."""
        act = self._acts.pop(name)
        key = key_of(act)
        entry = (self._place[name], name)
        if entry in self._undo:
            self._undo.remove(entry)
        self._redo = [each for each in self._redo if each != name]
        self._of[key].remove(name)
        if isinstance(act, Rating):
            if act.repeats:
                self._repeats.remove(name)
            if act.redoes in self._acts:
                self._again.pop(act.redoes, None)
                self._redo.append(act.redoes)
            if not any(
                isinstance(a := self._acts[n], Rating) and bool(a.repeats) == bool(act.repeats) for n in self._of[key]
            ):
                self._asked.discard((key, bool(act.repeats)))
        self._count(key)

    def _restore(self, name: str) -> None:
        """A retraction was refused: the record stands."""
        act = self._acts[name]
        if act.retracted:
            self._acts[name] = msgspec.structs.replace(act, retracted=0.0)
            insort(self._undo, (self._place[name], name))
            self._redo = [each for each in self._redo if each != name]
            self._count(key_of(act))


def _same_skip(act: SkipRecord, undone: Act) -> bool:
    place = key_of(act), act.letter, act.reason
    return isinstance(undone, SkipRecord) and (key_of(undone), undone.letter, undone.reason) == place
