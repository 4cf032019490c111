"""Who came and who left, as events: of people who watch, and not so often that the log fills with a bad link's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sessions.wire import Hello

STAYING = ("screen", "follow")
"""Clients that stay; others only ask or send something."""
QUIET_SECONDS = 60.0
"""From one coming that is told to the next of the same name and terminal."""
MOST = 32
"""Names and terminals told of in that time."""

Key = tuple[str, str]


@dataclass
class _Visit:
    """What the events say of one name and terminal.

    :ivar here: whether they say that it is attached.
    :ivar quiet_until: before this, no other coming is told; seconds of the caller's clock.
    """

    here: bool
    quiet_until: float
    text: str


class Visits:
    """What is told of clients coming and going."""

    def __init__(self) -> None:
        self._told: dict[Key, _Visit] = {}

    def news(self, clients: Iterable[Hello], now: float) -> Iterator[tuple[str, str]]:
        """What there is to tell, as (name, one line): ``ann attached (pts/3)``, ``ann left (pts/3)``.

        A client that comes again within a minute of its last coming that was told is told of when the minute is
        over, if it is there then; so this is also to be called now and then.

        :param clients: all that are connected.
        :param now: in seconds.
        """
        here: dict[Key, Hello] = {}
        for hello in clients:
            if hello.client in STAYING:
                here.setdefault((hello.who or hello.client, hello.terminal), hello)
        for key, visit in list(self._told.items()):
            if visit.here and key not in here:
                visit.here = False
                yield key[0], f"{key[0]} left{visit.text}"
            elif not visit.here and now >= visit.quiet_until:
                del self._told[key]
        for key, hello in here.items():
            if key not in self._told and sum(now < visit.quiet_until for visit in self._told.values()) < MOST:
                how = ", read-only" if hello.read_only and hello.client == "screen" else ""
                where = f" ({hello.terminal})" if hello.terminal else ""
                self._told[key] = _Visit(here=True, quiet_until=now + QUIET_SECONDS, text=where)
                verb = "follows" if hello.client == "follow" else "attached"
                yield key[0], f"{key[0]} {verb}{where}{how}"
