"""Keeps a person's book up to date with the session, and reads the records that are older than what came with it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

from screens.live import Live
from screens.rating_book import Act, RatingBook
from sessions.commands import QueryEvents, QueryRatings
from sessions.records import Rating, SkipRecord
from sessions.wire import AnyEvent, RatingRetracted, RatingSaved, Skipped

PAGE = 500
"""Ratings, or events, read at a time."""
AHEAD = 2
"""Pages that are read before anybody asks for them."""

Query = Callable[..., Awaitable[Any]]


class Records:
    """What the model of the session and the engine know of one person's ratings and skips.

    The model has the newest ratings and the newest events, among which the skips are; both ends are remembered, so
    that undo never goes past a record that is not known.
    """

    def __init__(self, live: Live, book: RatingBook) -> None:
        self._live, self._book = live, book
        self._events: object = None
        self._seq = 0
        self._oldest_rating = ""
        self._oldest_event = 0
        self._ratings_from = self._events_from = 0.0

    def follow(self) -> bool:
        """Take in what has happened since this was called last.

        :returns: whether everything was read anew.
        """
        events = self._live.events
        new: list[AnyEvent] = []
        if events is self._events:
            for event in reversed(events):
                if event.seq <= self._seq:
                    break
                new.append(event)
            else:
                if events and events[0].seq > self._seq + 1:
                    self._events = None  # more than are kept came at once
        if events is not self._events:
            self._load()
            return True
        for event in reversed(new):
            match event:
                case RatingSaved(rating=rating):
                    self._book.saw(rating)
                case RatingRetracted(rating=name, time=when):
                    self._book.saw_retracted(name, when)
                case Skipped(skip=skip):
                    self._book.saw(skip)
                case _:
                    pass
        if new:
            self._seq = new[0].seq
        return False

    def _load(self) -> None:
        live = self._live
        self._events = live.events
        self._seq = live.events[-1].seq if live.events else 0
        ratings = list(live.ratings.values())
        self._oldest_rating = ratings[0].id if ratings else ""
        self._ratings_from = ratings[0].time if ratings else 0.0
        first = live.events[0] if live.events else None
        self._oldest_event = first.seq if first is not None and first.seq > 1 else 0
        self._events_from = first.time if first is not None and self._oldest_event else 0.0
        skips = {e.skip.id: e.skip for e in live.events if isinstance(e, Skipped)}
        acts: list[Act] = [*ratings, *skips.values()]
        self._book.load(acts, self._horizon)

    @property
    def _horizon(self) -> float:
        return max(self._ratings_from, self._events_from)

    async def read_older(self, query: Query, *, wanted: bool) -> None:
        """Read older records until there are enough to undo, or there are none.

        :param query: asks the engine: a command and the kind of its data.
        :param wanted: somebody waits for one: go on until one is found; else a few pages.
        :raises WorkbenchError: if the engine cannot be asked.
        """
        pages = 0
        while self._book.needs_older and (wanted or pages < AHEAD):
            if wanted and not self._book.at_horizon:
                break
            pages += 1
            found: list[Act] = []
            if self._ratings_from >= self._events_from:
                ratings = await query(QueryRatings(limit=PAGE, before=self._oldest_rating), list[Rating])
                found += ratings
                self._oldest_rating = ratings[0].id if ratings else ""
                self._ratings_from = ratings[0].time if len(ratings) == PAGE else 0.0
            else:
                events = await query(QueryEvents(before=self._oldest_event, limit=PAGE), list[AnyEvent])
                skips: dict[str, SkipRecord] = {}
                for event in sorted(events, key=lambda event: event.seq):
                    if isinstance(event, Skipped):
                        skips[event.skip.id] = event.skip
                found += skips.values()
                self._oldest_event = min((event.seq for event in events), default=1)
                self._events_from = min((event.time for event in events), default=math.inf)
                if self._oldest_event <= 1:
                    self._events_from = 0.0
            self._book.learn(found, self._horizon)
