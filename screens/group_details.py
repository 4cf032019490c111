"""Whole groups, fetched when a screen needs them and kept while their heads stay as they are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sessions.commands import QueryGroup
from sessions.errors import WorkbenchError
from sessions.wire import GroupDetail

if TYPE_CHECKING:
    from screens.base import WorkbenchScreen

KEPT = 64


class GroupDetails:
    """A small cache of groups in front of the engine.

    :param news: called with the name of a group that came, or could not be had.
    """

    def __init__(self, screen: WorkbenchScreen, news: Callable[[str], None]) -> None:
        self._screen = screen
        self._news = news
        self._kept: OrderedDict[str, tuple[object, GroupDetail]] = OrderedDict()
        self._asked: dict[str, object] = {}
        self.failed: dict[str, str] = {}
        self._line = -1

    def get(self, name: str, stamp: object = None) -> GroupDetail | None:
        """The group if it is here; asked for if it is not, or if its stamp is another than when it came.

        :param stamp: what changes when the group does, such as its head.
        """
        self._same_line()
        kept = self._kept.get(name)
        if kept is None or kept[0] is not stamp:
            self.fetch(name, stamp)
        if kept is None:
            return None
        self._kept.move_to_end(name)
        return kept[1]

    def fetch(self, name: str, stamp: object = None) -> None:
        """Ask for a group, once for each stamp until the answer is here."""
        if name in self._asked and self._asked[name] is stamp:
            return
        self._asked[name] = stamp
        # A function and not its coroutine: a worker that is cancelled before it starts would leave that one unawaited.
        work: Any = partial(self._fetch, name, stamp)
        self._screen.run_worker(work, group="details", exit_on_error=False)

    def _same_line(self) -> None:
        """On another branch, or after a rewind, the same name means another group."""
        line = self._screen.live.version["line"]
        if line != self._line:
            self._line = line
            self._kept.clear()
            self._asked.clear()
            self.failed.clear()

    async def _fetch(self, name: str, stamp: object) -> None:
        line = self._line
        try:
            detail = await self._screen.query_engine(QueryGroup(group=name), GroupDetail)
        except WorkbenchError as error:
            self.failed[name] = str(error)
        else:
            self._same_line()
            if line != self._line:
                return  # of the line before
            self.failed.pop(name, None)
            self._kept[name] = (stamp, detail)
            self._kept.move_to_end(name)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            self._asked.pop(name, None)
        self._news(name)

    def retry(self) -> None:
        """Forget the failures: the connection is back."""
        for name in self.failed:
            self._asked.pop(name, None)
        self.failed.clear()
