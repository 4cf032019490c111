"""One person's ratings: what stands, what is on its way, what can be undone and given again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from sessions.commands import Command, Rate, Retract
from sessions.modes import MODES
from sessions.records import Rating, parse_response_name

Key = tuple[str, int, int]
"""A group: branch, step, number."""
State = Literal["saving", "saved"]


@dataclass(slots=True)
class Answered:
    """What one response has been given: by which rating, and whether it is on disk."""

    rating: Rating
    value: float
    state: State

    @property
    def text(self) -> str:
        return MODES[self.rating.mode].show(self.value) if self.rating.mode in MODES else f"{self.value:g}"


def key_of(rating: Rating) -> Key:
    """The group that a rating is of."""
    return rating.branch, rating.step, rating.group


class RatingBook:
    """Ratings as this person sees them: those the engine told of, with what was sent since counted as done.

    :param who: the person.
    :param saved: every rating the engine has told of, by id: read, never changed.
    :param version: grows when ``saved`` changes.
    :ivar branch: the active branch, whose groups are named without it.
    """

    def __init__(
        self, who: str, saved: Mapping[str, Rating], clock: Callable[[], float], version: Callable[[], int]
    ) -> None:
        self.who = who
        self.saved = saved
        self.clock = clock
        self.branch = "main"
        self.pending: dict[str, Rating] = {}
        self.undone: list[Rating] = []
        self._retracting: set[str] = set()
        self._on_disk: set[str] = set()
        self._version = version
        self._edits = 0
        self._standing: tuple[tuple[int, int, int], list[Rating]] | None = None

    def name(self, key: Key) -> str:
        """``812.3``, with the branch before it when it is not the active one."""
        branch, step, number = key
        return f"{step}.{number}" if branch == self.branch else f"{branch}/{step}.{number}"

    # ---- reading

    def mine(self) -> list[Rating]:
        """This person's ratings that stand, oldest first."""
        stamp = (self._version(), len(self.saved), self._edits)
        if self._standing is None or self._standing[0] != stamp:
            ratings = [r for r in self.saved.values() if r.who == self.who and not r.retracted]
            ratings += [r for r in self.pending.values() if r.id not in self.saved]
            standing = sorted((r for r in ratings if r.id not in self._retracting), key=lambda r: r.time)
            self._standing = stamp, standing
        return self._standing[1]

    def state(self, rating: Rating) -> State:
        """Whether a rating is on disk."""
        return "saved" if rating.id in self.saved or rating.id in self._on_disk else "saving"

    def answers(self, key: Key) -> dict[str, Answered]:
        """Letter -> the standing answer to it in a group."""
        out: dict[str, Answered] = {}
        for rating in self.mine():
            if key_of(rating) == key:
                state = self.state(rating)
                out.update({letter: Answered(rating, value, state) for letter, value in rating.values.items()})
        return out

    def today(self) -> tuple[int, float]:
        """Responses rated today, and the mean seconds each took; one that was rated again counts once."""
        day = time.localtime(self.clock())[:3]
        again = {r.supersedes for r in self.mine()}
        mine = [r for r in self.mine() if r.id not in again and time.localtime(r.time)[:3] == day]
        timed = [r.seconds / max(1, len(r.values)) for r in mine if r.seconds > 0]
        return sum(len(r.values) for r in mine), sum(timed) / len(timed) if timed else 0.0

    # ---- writing

    def give(self, command: Rate, supersedes: str = "") -> Rate:
        """Count a rating as given; the engine's record of it has the same id."""
        name = parse_response_name(command.group)
        # Later than all others whatever the clocks of the two processes say: undo starts from the last.
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
        return command

    def again(self, rating: Rating, values: dict[str, float], comment: str, supersedes: str) -> Rate:
        """The same rating once more, as a new record."""
        command = Rate(
            who=self.who,
            group=self.name(key_of(rating)),
            mode=rating.mode,
            values=values,
            comment=comment,
            order=rating.order,
            blind=rating.blind,
            seconds=rating.seconds,
        )
        return self.give(command, supersedes)

    def undo(self) -> tuple[Retract, Rating] | None:
        """Take the last standing rating back; None if there is none."""
        mine = self.mine()
        if not mine:
            return None
        rating = mine[-1]
        self._retracting.add(rating.id)
        self._edits += 1
        self.undone.append(rating)
        return Retract(who=self.who, rating=rating.id), rating

    def redo(self) -> tuple[Rate, Rating] | None:
        """Give the rating again that was undone last; None if there is none."""
        if not self.undone:
            return None
        rating = self.undone.pop()
        return self.again(rating, rating.values, rating.comment, rating.supersedes), rating

    def confirmed(self, command: Command, *, failed: bool) -> None:
        """The engine's last answer to a command of this book."""
        self._edits += 1
        match command:
            case Rate() if failed:
                self.pending.pop(command.id, None)
            case Rate():
                self._on_disk.add(command.id)
            case Retract() if failed:
                self._retracting.discard(command.rating)
                self.undone = [r for r in self.undone if r.id != command.rating]
            case _:
                pass

    def follow(self, saved: Mapping[str, Rating]) -> None:
        """A snapshot replaced the ratings known."""
        self.saved = saved
        self.pending = {key: rating for key, rating in self.pending.items() if key not in saved}
