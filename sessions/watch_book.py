"""What people have made of a session's watches, and how each stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from sessions.errors import UnknownName
from sessions.watches import Apart, Condition, Data, Limit, Watch


class WatchBook(Data, frozen=True):
    """What people have changed of a session's watches.

    :ivar own: theirs; one of a default's name stands in its place.
    :ivar off: names of defaults that are switched off.
    """

    own: list[Watch] = []
    off: list[str] = []

    def every(self, defaults: Sequence[Watch]) -> list[Watch]:
        """All watches, those that are off too."""
        mine = {w.name: w for w in self.own}
        named = {w.name for w in defaults}
        return [mine.get(w.name, w) for w in defaults] + [w for w in self.own if w.name not in named]

    def active(self, defaults: Sequence[Watch]) -> list[Watch]:
        """Those that are on."""
        return [w for w in self.every(defaults) if self.on(w)]

    def on(self, watch: Watch) -> bool:
        """Whether a watch is on; people's own always are."""
        return watch.own or watch.name not in self.off

    def added(self, watch: Watch, defaults: Sequence[Watch], *, named: bool) -> tuple[WatchBook, Watch, Watch | None]:
        """With a person's watch, in the place of another of its name.

        :param named: whether the person named it; else it also takes the place of one of the same metric and kind of
            condition, with its name.
        :returns: the book, the watch as it now is, and the one whose place it took.
        """
        every = self.every(defaults)
        same = [w for w in every if kind_of(w.condition) == kind_of(watch.condition)]
        replaced = next((w for w in every if w.name == watch.name), None)
        if replaced is None and same and not named:
            replaced = same[0]
        if replaced is not None:
            watch = msgspec.structs.replace(watch, name=replaced.name)
            if replaced in same:
                watch = msgspec.structs.replace(watch, remedy=replaced.remedy, says=replaced.says)
        own = [w for w in self.own if w.name != watch.name]
        return WatchBook(own=[*own, watch], off=[n for n in self.off if n != watch.name]), watch, replaced

    def removed(self, watch: Watch) -> WatchBook:
        """Without it: a person's own is gone, a default is off."""
        if watch.own:
            return WatchBook(own=[w for w in self.own if w.name != watch.name], off=self.off)
        return WatchBook(own=self.own, off=[*(n for n in self.off if n != watch.name), watch.name])

    def restored(self, watch: Watch) -> WatchBook:
        """With a default on again."""
        return WatchBook(own=self.own, off=[n for n in self.off if n != watch.name])


def kind_of(condition: Condition) -> tuple[object, ...]:
    """What two watches have in common of which one stands for the other: metric, and kind of condition."""
    match condition:
        case Limit():
            return Limit, condition.metric, condition.absolute, condition.sign
        case Apart():
            return Apart, condition.metric, condition.way, condition.other, condition.other_way
        case _:
            return type(condition), condition.metric


def find_watch(name: str, watches: Iterable[Watch]) -> Watch:
    """A watch by its name, or by its metric where only one watches that.

    :raises UnknownName: if there is none.
    """
    watches = list(watches)
    found = [w for w in watches if w.name == name] or [w for w in watches if w.condition.metric == name]
    if len(found) != 1:
        raise UnknownName("watch", name, {w.name for w in found or watches})
    return found[0]


class WatchState(Data, frozen=True):
    """How a watch stands, for a list.

    :ivar rule: in words.
    :ivar state: ``holds`` while its condition does, ``cools down`` after it.
    :ivar standing: whether its alarm has not been acknowledged.
    :ivar fired: the last step at which it raised an alarm; 0: none in the steps it remembers.
    """

    name: str
    rule: str
    on: bool
    state: Literal["off", "quiet", "holds", "cools down"]
    own: bool = False
    standing: bool = False
    fired: int = 0
    remedy: str = ""


def state_lines(states: Sequence[WatchState]) -> list[str]:
    """Watches as a table for people: name, how it stands, rule."""
    rows = [["watch", "state", "rule"], *([s.name, _standing(s), s.rule] for s in states)]
    wide = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return [f"{name:<{wide[0]}}  {state:<{wide[1]}}  {rule}" for name, state, rule in rows]


def _standing(state: WatchState) -> str:
    words: list[str] = [state.state]
    if state.standing:
        words.append(f"alarm @{state.fired}" if state.fired else "alarm stands")
    return ", ".join(words + ["own"] * state.own)
