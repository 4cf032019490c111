"""A session's watches: the defaults, and what people made of them, which the session's database keeps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Literal, cast

import msgspec

from engine.watchdog import Watchdog
from sessions.errors import Refused
from sessions.records import Alarm
from sessions.watch_book import WatchBook, WatchState, find_watch
from sessions.watch_words import parse_watch, watch_words
from sessions.watches import Precision, Watch, default_watches

KEY = "watches"
"""Where the database's meta table has the book."""


class Watching:
    """The watchdog and its book; used on the event loop.

    :param precision: of the computation.
    :param prompts: held-out prompts.
    :param components: of the task's reward, with their weights; one of weight 0 is a held-out check.
    :param kept: the book as the database has it; None: nobody has changed it.
    :param rules: that the session began with.
    :raises UsageError: if one of them names a metric that there is not.
    """

    def __init__(
        self,
        precision: Precision = "fp32",
        prompts: int = 0,
        components: Mapping[str, float] = {},
        kept: str | None = None,
        rules: Iterable[str] = (),
    ) -> None:
        self._precision = precision
        self._defaults = default_watches(precision, [name for name, weight in components.items() if weight == 0])
        self._components = list(components)
        self._book = msgspec.json.decode(kept, type=WatchBook) if kept else self._begun(rules)
        self._prompts = prompts
        self.dog = Watchdog(self._active(self._book), prompts)

    @property
    def book(self) -> WatchBook:
        """What people have made of the watches."""
        return self._book

    def _begun(self, rules: Iterable[str]) -> WatchBook:
        book = WatchBook()
        for rule in rules:
            watch, named = parse_watch(rule, self._components)
            book, _, _ = book.added(watch, self._defaults, named=named)
        return book

    def begin_again(self) -> None:
        """Forget the steps that were looked at: those of another branch."""
        self.dog = Watchdog(self._active(self._book), self._prompts)

    def weigh(self, components: Mapping[str, float]) -> None:
        """The weights of reward components have changed: one of weight 0 is a held-out check from the next step on."""
        self._defaults = default_watches(self._precision, [name for name, w in components.items() if w == 0])
        self.use(self._book)

    def use(self, book: WatchBook) -> None:
        """Watch by this book from the next step on."""
        self._book = book
        self.dog.use(self._active(book))

    def _active(self, book: WatchBook) -> list[Watch]:
        return [w for w in book.active(self._defaults) if w.precision in ("", self._precision)]

    def with_rule(self, rule: str) -> tuple[WatchBook, str]:
        """The book with a rule, or with a default that was switched off.

        :returns: also what that changes, one line.
        :raises UsageError: if it cannot be read as either.
        """
        known = {w.name: w for w in self._book.every(self._defaults)}
        if rule in known:
            if self._book.on(known[rule]):
                return self._book, f"{rule} is on already: {watch_words(known[rule])}"
            return self._book.restored(known[rule]), f"{rule} is on again: {watch_words(known[rule])}"
        watch, named = parse_watch(rule, self._components)
        watch = msgspec.structs.replace(watch, since=time.time())
        book, watch, replaced = self._book.added(watch, self._defaults, named=named)
        instead = f", in place of {watch_words(replaced)}" if replaced is not None else ""
        return book, f"watches {watch.name}: {watch_words(watch)}{instead}"

    def without(self, name: str) -> tuple[WatchBook, str]:
        """The book without a watch.

        :returns: also what that changes, one line.
        :raises UnknownName: if there is no such watch.
        :raises Refused: if it is off already.
        """
        watch = find_watch(name, self._book.every(self._defaults))
        if not self._book.on(watch):
            raise Refused(f"{watch.name} is off already; `watch {watch.name}` switches it on")
        book = self._book.removed(watch)
        if not watch.own:
            return book, f"{watch.name} is off; `watch {watch.name}` switches it on again"
        default = next((w for w in book.active(self._defaults) if w.name == watch.name), None)
        stands = f"; the default stands again: {watch_words(default)}" if default else ""
        return book, f"{watch.name} is gone{stands}"

    def states(self, alarms: Iterable[Alarm]) -> list[WatchState]:
        """Every watch and how it stands."""
        standing = {alarm.rule for alarm in alarms if not alarm.acknowledged}
        states = []
        for watch in self._book.every(self._defaults):
            state, fired = self.dog.state(watch.name)
            states.append(
                WatchState(
                    name=watch.name,
                    rule=watch_words(watch),
                    on=self._book.on(watch),
                    state=cast(Literal["off", "quiet", "holds", "cools down"], state),
                    own=watch.own,
                    standing=watch.name in standing,
                    fired=fired,
                    remedy=watch.remedy,
                )
            )
        return states
