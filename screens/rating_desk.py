"""What a person is rating, without a screen: the queue, the group shown, the order of its responses, the time spent.

Every method that changes what the engine should know returns the command to send, and counts it as done at once; the
engine's answer confirms it or takes it back.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from screens.rating_book import Key, RatingBook, key_of
from sessions.commands import Rate, Retract, Skip
from sessions.modes import MODES, RatingMode
from sessions.records import GroupHead, Rating, letters
from sessions.wire import GroupDetail

PART = 9
"""Most responses a question shows; a larger group is asked in parts."""


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
    seconds: dict[str, float] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def letter(self) -> str:
        """The response shown."""
        return self.order[self.at] if self.order else ""

    @property
    def part(self) -> tuple[int, int]:
        """Which part of a large group is asked, and of how many."""
        return self.at // PART + 1, max(1, -(-len(self.order) // PART))


def _key(head: GroupHead) -> Key:
    return head.branch, head.step, head.number


class Desk:
    """One person rating one session.

    :param who: the person.
    :param saved: every rating the engine has told of, by id; ``version`` grows when it changes.
    :ivar heads: the groups there are.
    :ivar skips: group -> letter -> reason, of this person, from before.
    """

    def __init__(
        self,
        who: str,
        saved: Mapping[str, Rating],
        clock: Callable[[], float] = time.time,
        version: Callable[[], int] = lambda: 0,
    ) -> None:
        self.book = RatingBook(who, saved, clock, version)
        self.who, self.clock = who, clock
        self.mode: RatingMode = next(iter(MODES.values()))
        self.heads: dict[Key, GroupHead] = {}
        self.skips: dict[Key, dict[str, str]] = {}
        self.visits: dict[Key, Visit] = {}
        self.current: Visit | None = None
        self.last_left: Visit | None = None
        self._since: float | None = None

    # ---- the queue

    def waiting(self) -> list[GroupHead]:
        """Groups that this person has not rated or skipped, newest first; dead ones only if there are no others."""
        mine = {key_of(rating) for rating in self.book.mine()}
        mine |= {key for key, skipped in self.skips.items() if self._all_skipped(key, skipped)}
        heads = [h for key, h in self.heads.items() if h.status != "discarded" and not h.ratings and key not in mine]
        alive = [h for h in heads if "dead" not in h.flags]
        return sorted(alive or heads, key=lambda h: (-h.step, h.number))

    def _all_skipped(self, key: Key, before: dict[str, str]) -> bool:
        visit = self.visits.get(key)
        skipped = visit.skipped if visit is not None else before
        return key in self.heads and len(skipped) >= len(self.heads[key].rewards)

    def upcoming(self) -> list[GroupHead]:
        """The groups that ``next_group`` would open, in order."""
        return [h for h in self.waiting() if not self._seen(_key(h))]

    def _seen(self, key: Key) -> bool:
        visit = self.visits.get(key)
        return visit is not None and (visit.left or visit is self.current)

    def _places(self) -> int:
        return max((visit.place for visit in self.visits.values()), default=0)

    @property
    def total(self) -> int:
        """Groups of this sitting: those opened and those still to come."""
        return self._places() + len(self.upcoming())

    def _of_step(self, branch: str, step: int) -> list[GroupHead]:
        """The groups of a step with no rating: those not seen yet first, the one just left last, dead ones too."""
        mine = {key_of(rating) for rating in self.book.mine()}
        mine |= {key for key, skipped in self.skips.items() if self._all_skipped(key, skipped)}
        just_left = self.last_left.key if self.last_left is not None else None
        heads = [
            h for key, h in self.heads.items()
            if key[:2] == (branch, step) and h.status != "discarded" and not h.ratings and key not in mine
        ]  # fmt: skip
        return sorted(heads, key=lambda h: (_key(h) == just_left, self._seen(_key(h)), "dead" in h.flags, h.number))

    def next_group(self, awaited: tuple[str, int] | None = None) -> Visit | None:
        """Leave the group shown and open the next; the unrated stay unrated. None: nothing waits.

        :param awaited: branch and step whose groups come first: the training waits for them.
        """
        self.pause()
        if self.current is not None:
            self.current.left = True
            self.last_left = self.current
        coming = (self._of_step(*awaited) if awaited is not None else []) or self.upcoming()
        if not coming:  # round again: those left with nothing rated
            for visit in self.visits.values():
                visit.left = visit.left and bool(self.book.answers(visit.key))
            coming = self.upcoming()
        if not coming:
            self.current = None
            return None
        return self.open(_key(coming[0]), len(coming[0].rewards))

    def open(self, key: Key, responses: int, letter: str = "", *, revealed: bool = False) -> Visit:
        """Show a group, at a response if one is named."""
        self.pause()
        visit = self.visits.get(key)
        if visit is None:
            visit = self.visits[key] = Visit(key, self._places() + 1, self._order(key, responses))
            visit.skipped.update(self.skips.get(key, {}))
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

    def forget_gone(self) -> None:
        """Take a group off the desk that is in no list any more and was not read before it went."""
        visit = self.current
        if visit is not None and visit.detail is None and visit.key not in self.heads:
            del self.visits[visit.key]
            self.current = None

    def keep_only(self, known: Callable[[Key], bool]) -> None:
        """Take the groups off the desk that are not of the line that is trained now, with their drafts."""
        self.pause()
        self.visits = {key: visit for key, visit in self.visits.items() if known(key)}
        if self.current is not None and not known(self.current.key):
            self.current = None
        if self.last_left is not None and not known(self.last_left.key):
            self.last_left = None
        self.resume()

    def loaded(self, detail: GroupDetail) -> None:
        """A group came: keep it if it is on the desk."""
        group = detail.group
        key = (group.branch, group.step, group.number)
        visit = self.visits.get(key)
        if visit is not None:
            visit.detail = detail
            if len(visit.order) != len(group.responses):
                visit.order = self._order(key, len(group.responses))
                visit.at = min(visit.at, max(0, len(visit.order) - 1))

    # ---- answers

    def rate(self, value: float) -> Rate | None:
        """Give the response shown an answer and go on to the next unrated one."""
        visit = self.current
        if visit is None or not visit.letter:
            return None
        letter = visit.letter
        self.pause()
        before = self.book.answers(visit.key).get(letter)
        command = Rate(
            who=self.who,
            group=self.book.name(visit.key),
            mode=self.mode.name,
            values={letter: value},
            comment=visit.comments.get(letter, ""),
            order=list(visit.order),
            blind=not visit.revealed,
            seconds=round(visit.seconds.pop(letter, 0.0), 2),
        )
        self.book.give(command, before.rating.id if before else "")
        self.book.undone.clear()
        visit.skipped.pop(letter, None)
        self.resume()
        self.next_unrated()
        return command

    def comment(self, text: str) -> Rate | None:
        """Put a comment on the response shown: on its rating, or kept for the rating to come."""
        visit = self.current
        if visit is None or not visit.letter:
            return None
        visit.comments[visit.letter] = text
        given = self.book.answers(visit.key).get(visit.letter)
        if given is None:
            return None
        return self.book.again(given.rating, {visit.letter: given.value}, text, given.rating.id)

    def undo(self) -> Retract | None:
        """Take this person's last standing rating back and show its response again."""
        done = self.book.undo()
        if done is None:
            return None
        command, rating = done
        self._show(rating)
        return command

    def redo(self) -> Rate | None:
        """Give the rating again that was undone last."""
        done = self.book.redo()
        if done is None:
            return None
        command, rating = done
        self._show(rating)
        return command

    def _show(self, rating: Rating) -> None:
        self.open(key_of(rating), len(rating.order), next(iter(rating.values), ""))

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
        done = self.book.answers(visit.key).keys() | visit.skipped.keys()
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
        return Skip(who=self.who, response=f"{self.book.name(visit.key)}{letter}", reason=reason)

    def unskip(self) -> bool:
        """The response shown waits for a rating again; False if it was not skipped."""
        visit = self.current
        return visit is not None and visit.skipped.pop(visit.letter, None) is not None

    def next_mode(self) -> None:
        """The next mode of the table."""
        names = [mode.name for mode in MODES.values() if mode.slot == "level"]
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
