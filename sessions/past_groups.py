"""Groups and their ratings as they stood when the events of a session had come to some number."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec

from sessions.branches import Segment, owner_of
from sessions.records import Group, GroupHead, Rating, RatingUse, Response, ResponseName, head_of
from sessions.store import Store, shown_ratings
from sessions.wire import AnyEvent, GroupDetail, RatingRetracted, RatingSaved, RatingUsed

KEPT = 4000
"""Heads in memory."""
_LEARNED = ("on_time", "late")


class Runs:
    """Which events about a step are of a line: after a crash or a rewind, a step is run again on another.

    :param ended: (number of its event, step, time) of every step of the session, oldest first.
    :param own: (step, time) of those of the line.
    """

    def __init__(
        self, ended: Sequence[tuple[int, int, float]], own: set[tuple[int, float]], line: list[Segment]
    ) -> None:
        self._line = line
        self._of_step: dict[int, list[tuple[int, bool]]] = {}
        for seq, step, time in ended:
            self._of_step.setdefault(step, []).append((seq, (step, time) in own))

    def owner_before(self, seq: int, step: int) -> str:
        """Which branch of the line ran the step that had ended when an event came; empty if none of it did."""
        own = [mine for end, mine in self._of_step.get(step, ()) if end < seq]
        return self._owner(step) if not own or own[-1] else ""

    def owner_after(self, seq: int, step: int) -> str:
        """The same of a step that was still to end."""
        own = [mine for end, mine in self._of_step.get(step, ()) if end > seq]
        return self._owner(step) if not own or own[0] else ""

    def _owner(self, step: int) -> str:
        return owner_of(self._line, step)


class PastGroups:
    """The groups of a branch's line.

    :param events: at least those about ratings, oldest first.
    """

    def __init__(self, store: Store, branch: str, events: Iterable[AnyEvent], runs: Runs) -> None:
        self._store, self._branch = store, branch
        self._given: list[tuple[int, Rating]] = []
        self._taken: dict[str, tuple[int, float]] = {}
        self._uses: dict[str, list[tuple[int, RatingUse]]] = {}
        # A rewind moves ratings to another branch; the event still says where they were given.
        now = {rating.id: rating for rating in store.recent_ratings(-1)}
        for event in events:
            match event:
                case RatingSaved(rating=rating):
                    self._given.append((event.seq, msgspec.structs.replace(now.get(rating.id, rating), retracted=0.0)))
                case RatingRetracted(rating=name, time=when):
                    self._taken[name] = event.seq, when
                case RatingUsed(seq=seq, use=use, step=step) if owner := runs.owner_after(seq, step):
                    used = msgspec.structs.replace(use, branch=owner)  # a step's uses are told before its end
                    self._uses.setdefault(use.rating, []).append((seq, used))
                case _:
                    pass
        self._of_group: dict[tuple[str, int, int], list[tuple[int, Rating]]] = {}
        for seq, rating in self._given:
            self._of_group.setdefault((rating.branch, rating.step, rating.group), []).append((seq, rating))
        self._heads: OrderedDict[int, list[GroupHead]] = OrderedDict()
        self._kept = 0
        self._then: dict[tuple[str, int, int], tuple[object, GroupHead]] = {}
        newest = store.heads(branch, limit=1)
        self._newest = newest[0].step if newest else -1

    # ------------------------------------------------------------------------------------------ ratings

    def when_rated(self) -> list[int]:
        """Numbers of the events with which ratings came."""
        return [seq for seq, _ in self._given]

    def ratings(self, seq: int, limit: int) -> list[Rating]:
        """The newest ratings at a moment, oldest first, as they stood."""
        end = bisect.bisect_right(self._given, seq, key=lambda row: row[0])
        return [self._stood(rating, seq) for _, rating in self._given[max(0, end - limit) : end]]

    def _stood(self, rating: Rating, seq: int) -> Rating:
        taken = self._taken.get(rating.id)
        return msgspec.structs.replace(rating, retracted=taken[1]) if taken and taken[0] <= seq else rating

    def uses(self, ratings: Iterable[Rating], seq: int) -> list[RatingUse]:
        """What had become of ratings at a moment, as far as it was known."""
        found = ([use for at, use in self._uses.get(rating.id, ()) if at <= seq] for rating in ratings)
        return [uses[-1] for uses in found if uses]

    def _ratings_of(self, branch: str, step: int, number: int, seq: int) -> list[Rating]:
        given = self._of_group.get((branch, step, number), ())
        return [self._stood(rating, seq) for at, rating in given if at <= seq]

    # ------------------------------------------------------------------------------------------- groups

    def detail(self, name: ResponseName, seq: int) -> GroupDetail:
        """A group whole, with what was said of it by then.

        :raises InvalidValue: if there is none of that name.
        """
        group = self._as_it_was(self._store.group(name, self._branch), seq)
        ratings = self._ratings_of(group.branch, group.step, group.number, seq)
        head = head_of(group, shown_ratings(ratings))
        return GroupDetail(group=group, head=head, ratings=ratings, uses=self.uses(ratings, seq))

    def shown(self, group: Group, seq: int) -> dict[str, str]:
        """What a head showed of a group's ratings at a moment."""
        return shown_ratings(self._ratings_of(group.branch, group.step, group.number, seq))

    def _as_it_was(self, group: Group, seq: int) -> Group:
        """The group without what updates after the moment wrote into it.

        Of several late updates before and after the moment, the rewards that the earlier ones used are not recorded.
        """
        given = self._of_group.get((group.branch, group.step, group.number), ())
        used = [row for _, rating in given for row in self._uses.get(rating.id, ()) if row[1].fate in _LEARNED]
        if not any(at > seq for at, _ in used):
            return group
        before = [use for at, use in sorted(used, key=lambda row: row[0]) if at <= seq]
        responses = [_unlearned(response, before[-1] if before else None) for response in group.responses]
        return msgspec.structs.replace(group, responses=responses)

    def heads(self, seq: int, before: int, limit: int, *, unrated: bool = False) -> list[GroupHead]:
        """Heads at a moment, newest first.

        :param before: only of earlier steps than this one; 0: of all.
        :param unrated: only those without a standing rating.
        """
        found: list[GroupHead] = []
        step = min(before - 1, self._newest) if before else self._newest
        while step >= 0 and len(found) < limit:
            if step not in self._heads:
                self._fetch(step, limit - len(found))
            heads = [self._head(head, seq) for head in self._heads[step]]
            found += [head for head in heads if not head.ratings] if unrated else heads
            step -= 1
        return found[:limit]

    def _fetch(self, step: int, wanted: int) -> None:
        """Read the heads of a step, and of so many before it that are not here as are wanted."""
        low = step - 1
        while low >= 0 and low not in self._heads and step - low < wanted:
            low -= 1
        limit = min(wanted + 64, 5000)
        heads = self._store.heads(self._branch, step + 1, limit, after=low)
        if len(heads) == limit:  # of the oldest step there may be more
            if heads[-1].step == step:
                low, heads = step - 1, self._store.heads(self._branch, step + 1, 5000, after=step - 1)
            else:
                low = heads[-1].step
                heads = [head for head in heads if head.step > low]
        while self._heads and self._kept + len(heads) > KEPT:
            self._kept -= len(self._heads.popitem(last=False)[1])
        for one in range(low + 1, step + 1):
            self._heads[one] = []
        for head in heads:
            self._heads[head.step].append(head)
        self._kept += len(heads)

    def _head(self, head: GroupHead, seq: int) -> GroupHead:
        """A head as it was; the same object as long as it stays the same."""
        key = head.branch, head.step, head.number
        given = self._of_group.get(key)
        if given is None:
            return head
        ratings = self._ratings_of(*key, seq)
        uses = [at for _, rating in given for at, _ in self._uses.get(rating.id, ()) if at <= seq]
        stamp = ([(rating.id, rating.retracted) for rating in ratings], uses)
        kept = self._then.get(key)
        if kept is None or kept[0] != stamp:
            group = self._store.group(ResponseName(head.step, head.number, "", head.branch), head.branch, tokens=False)
            kept = self._then[key] = stamp, head_of(self._as_it_was(group, seq), shown_ratings(ratings))
            if len(self._then) > KEPT:
                del self._then[next(iter(self._then))]
        return kept[1]


def _unlearned(response: Response, use: RatingUse | None) -> Response:
    """A response before a later update learned from it again.

    :param use: of its ratings by the newest update until then, if there was one.
    """
    if use is not None:
        return msgspec.structs.replace(response, advantage=use.advantages.get(response.letter, response.advantage))
    automatic = response.automatic_advantage
    return msgspec.structs.replace(
        response, rated_reward=None, advantage=response.advantage if automatic is None else automatic
    )
