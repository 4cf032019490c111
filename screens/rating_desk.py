"""What a person is rating, without a screen: the queue, the order shown, the answers, undo and redo.

Every method that changes what the engine should know returns the command to send, and counts it as done at once; the
engine's answer confirms it or takes it back.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from screens.preview import advantages, rated_rewards, scores
from sessions.commands import Command, Rate, Retract, Skip
from sessions.modes import MODES, RatingMode
from sessions.records import GroupHead, Rating, RatingUse, letters, parse_response_name
from sessions.wire import GroupDetail

Key = tuple[str, int, int]
State = Literal["saving", "saved"]
PART = 9
"""Most responses a question shows; a larger group is asked in parts."""


@dataclass(slots=True)
class Answered:
    """What one response has been given: by which rating, and whether it is on disk."""

    rating: Rating
    value: float
    state: State

    @property
    def text(self) -> str:
        return MODES[self.rating.mode].show(self.value) if self.rating.mode in MODES else f"{self.value:g}"


@dataclass(slots=True)
class Visit:
    """A group on the desk.

    :ivar place: its number in this sitting: what it is called while blind.
    :ivar order: letters in the order shown.
    :ivar at: place in ``order`` of the response shown.
    :ivar revealed: whether rewards were seen, here or on another screen.
    :ivar seconds: letter -> time spent on it since its last answer.
    """

    key: Key
    place: int
    order: list[str]
    at: int = 0
    revealed: bool = False
    left: bool = False
    detail: GroupDetail | None = None
    failed: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def letter(self) -> str:
        """The response shown; empty while the group is loading."""
        return self.order[self.at] if self.order else ""

    @property
    def part(self) -> tuple[int, int]:
        """Which part of a large group is asked, and of how many."""
        return self.at // PART + 1, max(1, -(-len(self.order) // PART))


class Desk:
    """One person's ratings of one session.

    :param who: the person.
    :param saved: every rating the engine has told of, by id: read, never changed.
    :param version: grows when ``saved`` changes.
    """

    def __init__(
        self,
        who: str,
        saved: Mapping[str, Rating],
        clock: Callable[[], float] = time.time,
        version: Callable[[], int] = lambda: 0,
    ) -> None:
        self.who = who
        self.saved = saved
        self._version = version
        self._mine: tuple[tuple[int, int, int], list[Rating]] | None = None
        self._edits = 0
        self.clock = clock
        self.branch = "main"
        self.mode: RatingMode = next(iter(MODES.values()))
        self.heads: dict[Key, GroupHead] = {}
        self.visits: dict[Key, Visit] = {}
        self.current: Visit | None = None
        self.last_left: Visit | None = None
        self.pending: dict[str, Rating] = {}
        self.retracting: set[str] = set()
        self.on_disk: set[str] = set()
        self.undone: list[Rating] = []
        self._since: float | None = None

    # ---- names

    def name(self, key: Key) -> str:
        """``812.3``, with the branch before it when it is not the active one."""
        branch, step, number = key
        return f"{step}.{number}" if branch == self.branch else f"{branch}/{step}.{number}"

    # ---- the queue

    def waiting(self) -> list[GroupHead]:
        """Groups that this person has not rated, newest first; dead ones only if there are no others."""
        mine = {(r.branch, r.step, r.group) for r in self.mine()}
        heads = [h for key, h in self.heads.items() if h.status != "discarded" and not h.ratings and key not in mine]
        alive = [h for h in heads if "dead" not in h.flags]
        return sorted(alive or heads, key=lambda h: (-h.step, h.number))

    def upcoming(self) -> list[GroupHead]:
        """The groups that ``next_group`` would open, in order."""
        return [h for h in self.waiting() if not self._seen(h)]

    def _seen(self, head: GroupHead) -> bool:
        visit = self.visits.get((head.branch, head.step, head.number))
        return visit is not None and (visit.left or visit is self.current)

    @property
    def total(self) -> int:
        """Groups of this sitting: those opened and those still to come."""
        return max((visit.place for visit in self.visits.values()), default=0) + len(self.upcoming())

    def next_group(self) -> Visit | None:
        """Leave the group shown and open the next; the unrated stay unrated. None: nothing waits."""
        self.leave()
        coming = self.upcoming()
        if not coming:  # round again: those left with nothing rated
            for visit in self.visits.values():
                visit.left = visit.left and bool(self.answers(visit.key))
            coming = self.upcoming()
        if not coming:
            self.current = None
            return None
        head = coming[0]
        return self.open((head.branch, head.step, head.number), len(head.rewards))

    def leave(self) -> None:
        """Count the time, and mark the group shown as seen."""
        self.pause()
        if self.current is not None:
            self.current.left = True
            self.last_left = self.current

    def open(self, key: Key, responses: int, letter: str = "", *, revealed: bool = False) -> Visit:
        """Show a group, at a response if one is named."""
        self.pause()
        visit = self.visits.get(key)
        if visit is None:
            place = max((v.place for v in self.visits.values()), default=0) + 1
            visit = self.visits[key] = Visit(key, place, self._order(key, responses))
        visit.revealed = visit.revealed or revealed
        visit.left = False
        if letter in visit.order:
            visit.at = visit.order.index(letter)
        self.current = visit
        self.resume()
        return visit

    def _order(self, key: Key, responses: int) -> list[str]:
        """Shuffled by the group's name and the person's, so that coming back shows the same order."""
        order = [letters(i) for i in range(responses)]
        random.Random(f"{self.who}/{'/'.join(map(str, key))}").shuffle(order)
        return order

    def loaded(self, detail: GroupDetail) -> None:
        """A group came: keep it for when it is shown."""
        group = detail.group
        key = (group.branch, group.step, group.number)
        self.heads.setdefault(key, detail.head)
        visit = self.visits.get(key)
        if visit is not None:
            visit.detail, visit.failed = detail, ""
            if len(visit.order) != len(group.responses):
                visit.order = self._order(key, len(group.responses))
                visit.at = min(visit.at, max(0, len(visit.order) - 1))

    # ---- answers

    def mine(self) -> list[Rating]:
        """This person's ratings that stand, oldest first."""
        stamp = (self._version(), len(self.saved), self._edits)
        if self._mine is None or self._mine[0] != stamp:
            ratings = [r for r in self.saved.values() if r.who == self.who and not r.retracted]
            ratings += [r for r in self.pending.values() if r.id not in self.saved]
            standing = sorted((r for r in ratings if r.id not in self.retracting), key=lambda r: r.time)
            self._mine = stamp, standing
        return self._mine[1]

    def answers(self, key: Key) -> dict[str, Answered]:
        """Letter -> this person's standing answer to it in a group."""
        out: dict[str, Answered] = {}
        for rating in self.mine():
            if (rating.branch, rating.step, rating.group) == key:
                state: State = "saved" if rating.id in self.saved or rating.id in self.on_disk else "saving"
                out.update({letter: Answered(rating, value, state) for letter, value in rating.values.items()})
        return out

    def today(self) -> tuple[int, float]:
        """Responses rated today, and the mean seconds each took."""
        day = time.localtime(self.clock())[:3]
        mine = [r for r in self.mine() if time.localtime(r.time)[:3] == day]
        timed = [r.seconds / max(1, len(r.values)) for r in mine if r.seconds > 0]
        return sum(len(r.values) for r in mine), sum(timed) / len(timed) if timed else 0.0

    def rate(self, value: float) -> Rate | None:
        """Give the response shown an answer and go on to the next unrated one."""
        visit = self.current
        if visit is None or not visit.letter:
            return None
        letter = visit.letter
        self.pause()
        before = self.answers(visit.key).get(letter)
        command = Rate(
            who=self.who,
            group=self.name(visit.key),
            mode=self.mode.name,
            values={letter: value},
            comment=visit.comments.get(letter, ""),
            order=list(visit.order),
            blind=not visit.revealed,
            seconds=round(visit.seconds.pop(letter, 0.0), 2),
        )
        self._keep(command, before.rating.id if before else "")
        visit.skipped.pop(letter, None)
        self.undone.clear()
        self.resume()
        self.next_unrated()
        return command

    def _keep(self, command: Rate, supersedes: str = "") -> None:
        name = parse_response_name(command.group)
        latest = max((r.time for r in self.mine()), default=0.0)
        self._edits += 1
        self.pending[command.id] = Rating(
            id=command.id,
            time=max(self.clock(), latest + 1e-6),
            who=self.who,
            branch=name.branch or self.branch,
            step=name.step,
            group=name.group,
            mode=command.mode,
            values=command.values,
            comment=command.comment,
            order=command.order,
            blind=command.blind,
            seconds=command.seconds,
            supersedes=supersedes,
        )

    def comment(self, text: str) -> Rate | None:
        """Put a comment on the response shown: on its rating, or kept for the rating to come."""
        visit = self.current
        if visit is None or not visit.letter:
            return None
        visit.comments[visit.letter] = text
        given = self.answers(visit.key).get(visit.letter)
        if given is None:
            return None
        fields = {"mode": given.rating.mode, "values": {visit.letter: given.value}, "comment": text}
        command = self._again(given.rating, **fields)
        self._keep(command, given.rating.id)
        return command

    def _again(self, rating: Rating, **other: object) -> Rate:
        fields = {
            "mode": rating.mode,
            "values": rating.values,
            "comment": rating.comment,
            "order": rating.order,
            "blind": rating.blind,
            "seconds": rating.seconds,
        } | other
        key = (rating.branch, rating.step, rating.group)
        return msgspec.convert({"command": "rate", "who": self.who, "group": self.name(key), **fields}, Rate)

    def undo(self) -> Retract | None:
        """Take this person's last standing rating back and show its response again."""
        mine = self.mine()
        if not mine:
            return None
        rating = mine[-1]
        self.retracting.add(rating.id)
        self._edits += 1
        self.undone.append(rating)
        self._show(rating)
        return Retract(who=self.who, rating=rating.id)

    def redo(self) -> Rate | None:
        """Give the rating again that was undone last."""
        if not self.undone:
            return None
        rating = self.undone.pop()
        command = self._again(rating)
        self._keep(command, rating.supersedes)
        self._show(rating)
        return command

    def _show(self, rating: Rating) -> None:
        key = (rating.branch, rating.step, rating.group)
        self.open(key, len(rating.order), next(iter(rating.values), ""))

    def confirmed(self, command: Command, *, failed: bool) -> None:
        """The engine's last answer to a command of this desk."""
        self._edits += 1
        match command:
            case Rate() if failed:
                self.pending.pop(command.id, None)
            case Rate():
                self.on_disk.add(command.id)
            case Retract() if failed:
                self.retracting.discard(command.rating)
                self.undone = [r for r in self.undone if r.id != command.rating]
            case _:
                pass

    # ---- moving

    def response(self, direction: int) -> None:
        """The next or previous response, round the end."""
        visit = self.current
        if visit is not None and visit.order:
            self.pause()
            visit.at = (visit.at + direction) % len(visit.order)
            self.resume()

    def next_unrated(self, direction: int = 1) -> bool:
        """Go to the next response without an answer that is not skipped; False if there is none."""
        visit = self.current
        if visit is None:
            return False
        done = self.answers(visit.key).keys() | visit.skipped.keys()
        for offset in range(1, len(visit.order)):
            at = (visit.at + direction * offset) % len(visit.order)
            if visit.order[at] not in done:
                self.response(at - visit.at)
                return True
        return False

    def skip(self, reason: str) -> Skip | None:
        """Say that the response shown will not be rated, and go on."""
        visit = self.current
        if visit is None or not visit.letter:
            return None
        letter = visit.letter
        visit.skipped[letter] = reason
        self.next_unrated()
        return Skip(who=self.who, response=f"{self.name(visit.key)}{letter}", reason=reason)

    def unskip(self) -> bool:
        """The response shown waits for a rating again; False if it was not skipped."""
        visit = self.current
        return visit is not None and visit.skipped.pop(visit.letter, None) is not None

    def next_mode(self) -> None:
        """The next mode of the table."""
        names = list(MODES)
        self.mode = MODES[names[(names.index(self.mode.name) + 1) % len(names)]]

    # ---- time

    def pause(self) -> None:
        """Stop the clock of the response shown: the screen is left, or another response comes."""
        if self._since is not None and self.current is not None and self.current.letter:
            spent = self.current.seconds
            spent[self.current.letter] = spent.get(self.current.letter, 0.0) + self.clock() - self._since
        self._since = None

    def resume(self) -> None:
        """Start it again."""
        self._since = self.clock()

    # ---- what the ratings do

    def effect(
        self, visit: Visit, weight: float, reward_range: tuple[float, float], scale: str
    ) -> tuple[dict[str, float], dict[str, float]] | None:
        """Advantages without and with the ratings, by letter; None before the group is here or with no rating."""
        given = self.answers(visit.key)
        if visit.detail is None or not given:
            return None
        responses = visit.detail.group.responses
        rewards = {r.letter: None if r.failed else r.reward for r in responses}
        others = [r for r in visit.detail.ratings if not r.retracted and r.who != self.who]
        failed = {r.letter for r in responses if r.failed}
        said = scores([*others, *(a.rating for a in given.values())])
        said = {letter: h for letter, h in said.items() if letter not in failed}
        with_ratings = rated_rewards(rewards, said, weight, reward_range)
        return advantages(rewards, scale), advantages(with_ratings, scale)

    def use_of(self, visit: Visit, uses: Mapping[str, RatingUse]) -> RatingUse | None:
        """What became of the newest rating of a group, once the engine has said so for it."""
        ratings = [a.rating for a in self.answers(visit.key).values()]
        newest = max(ratings, key=lambda r: r.time, default=None)
        return uses.get(newest.id) if newest else None
