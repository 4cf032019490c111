"""What the branches screen has asked the engine for: the branches, their curves, their answers to the probe prompts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from screens.overlay import Points
from sessions.branches import BranchInfo, Probe
from sessions.commands import QueryBranches, QueryProbes, QuerySeries
from sessions.comparison import ProbePair, paired
from sessions.errors import InvalidValue, Refused, WorkbenchError
from sessions.records import SeriesData

if TYPE_CHECKING:
    from screens.branches import BranchesScreen

EVERY = 5.0
"""Seconds between two questions what has become of the branches, while something happens."""
_Stamp = tuple[int, ...]


class BranchData:
    """A small store in front of the engine; asks only while the screen is seen.

    :ivar infos: the branches by name, as of the newest answer.
    :ivar problem: why there is no newest answer.
    :ivar answered: whether there ever was one.
    """

    def __init__(self, screen: BranchesScreen) -> None:
        self._screen = screen
        self.forget()

    def forget(self) -> None:
        """Another session is shown."""
        self.infos: dict[str, BranchInfo] = {}
        self.problem = ""
        self.probe_problem = ""
        self.answered = False
        self._asked: _Stamp | None = None
        self._line = -1
        self._next = 0.0
        self._series: dict[tuple[str, str], tuple[object, Points]] = {}
        self._probes: dict[str, tuple[object, list[Probe]]] = {}
        self._asking: set[tuple[str, str]] = set()
        self._failed: dict[tuple[str, str], int] = {}

    # ---- the branches

    def hurry(self) -> None:
        """Ask again at the next look: something was done to the branches."""
        self._asked = None
        self._next = 0.0

    def follow(self) -> None:
        """Ask what has become of the branches, if something has happened and the last answer is not too new."""
        version = self._screen.live.version
        if self._screen.live.connection == "connecting":
            return
        if version["line"] != self._line:
            self._line = version["line"]
            self.hurry()
        stamp = (version["line"], version["last_step"], version["checkpoints"], version["link"])
        now = time.monotonic()
        if stamp != self._asked and now >= self._next:
            self._asked, self._next = stamp, now + EVERY
            self._screen.run_worker(self._look(), group="branches", exclusive=True, exit_on_error=False)

    async def _look(self) -> None:
        try:
            found = await self._screen.query_engine(QueryBranches(), list[BranchInfo])
        except WorkbenchError as error:
            self.problem = str(error)
        else:
            self.problem, self.answered = "", True
            self.infos = {info.branch.name: info for info in found}
        self._screen.news()

    def shown(self) -> Iterator[BranchInfo]:
        """The branches, the one that is trained as of now."""
        live = self._screen.live
        for name, info in self.infos.items():
            active = name == live.branch
            last = live.last_step
            if active and last is not None and last.branch == name and last.step > info.tip:
                yield msgspec.structs.replace(
                    info, active=True, tip=last.step, steps=info.steps + last.step - info.tip, time=last.time,
                    metrics=last.metrics,
                )  # fmt: skip
            else:
                yield msgspec.structs.replace(info, active=active)

    # ---- curves

    def points(self, name: str, metric: str) -> Points:
        """Of a branch's whole line: the live ones of the branch that is trained, else those that were asked for."""
        live = self._screen.live
        if name == live.branch:
            series = live.series.get(metric)
            return (series.steps, series.values) if series is not None else ([], [])
        info = self.infos[name]
        stamp = (info.tip, info.branch.parent, info.branch.step, live.version["line"])
        kept = self._series.get((name, metric))
        if kept is None or kept[0] != stamp:
            self._ask((name, metric), partial(self._fetch_series, name, metric, stamp))
        return kept[1] if kept is not None else ([], [])

    async def _fetch_series(self, name: str, metric: str, stamp: object) -> None:
        points: Points = [], []
        try:
            found = await self._screen.query_engine(QuerySeries(names=[metric], branch=name), list[SeriesData])
        except (InvalidValue, Refused):
            pass  # it never measured that
        except WorkbenchError:
            self._failed[name, metric] = self._screen.live.version["link"]
            return
        else:
            points = next(((data.steps, data.values) for data in found), points)
        self._series[name, metric] = stamp, points

    # ---- answers to the probe prompts

    def probes(self, info: BranchInfo) -> list[Probe] | None:
        """The newest answers of a branch; None while they are asked for."""
        name = info.branch.name
        stamp = (info.evaluated, info.branch.parent, self._screen.live.version["line"])
        kept = self._probes.get(name)
        if kept is None or kept[0] != stamp:
            self._ask((name, "probes"), partial(self._fetch_probes, name, stamp))
        return kept[1] if kept is not None else None

    async def _fetch_probes(self, name: str, stamp: object) -> None:
        try:
            found = await self._screen.query_engine(QueryProbes(branch=name), list[Probe])
        except WorkbenchError as error:
            self.probe_problem = str(error)
            self._failed[name, "probes"] = self._screen.live.version["link"]
        else:
            self.probe_problem = ""
            self._probes[name] = stamp, found

    async def pairs(self, infos: Sequence[BranchInfo]) -> list[ProbePair]:
        """The answers of some branches to the same prompts.

        :raises WorkbenchError: if they cannot be had.
        """
        names = [info.branch.name for info in infos]
        return paired([await self._screen.query_engine(QueryProbes(branch=name), list[Probe]) for name in names])

    # ---- asking

    def _ask(self, what: tuple[str, str], fetch: Any) -> None:
        """Fetch one thing in a worker, once at a time; what could not be had, again on the next connection."""
        if what in self._asking or self._failed.get(what) == self._screen.live.version["link"]:
            return
        self._asking.add(what)

        async def ask() -> None:
            try:
                await fetch()
            finally:
                self._asking.discard(what)
            self._screen.news()

        work: Any = ask
        self._screen.run_worker(work, group="branch data", exit_on_error=False)
