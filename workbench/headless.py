"""``workbench run --headless``: a plain client of the engine that prints how the training goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import Any

from sessions.commands import Stop
from sessions.errors import EngineUnreachable
from sessions.folders import SessionFolder
from sessions.records import WARM_UP, Status, StepRecord
from sessions.wire import AlarmRaised, AnyEvent, Noted, StepDone
from workbench.daemon import last_step, until_ended
from workbench.output import ProgressLine, duration, emit, say
from workbench.watch import Watch


async def run_headless(folder: SessionFolder, since: int, *, who: str, as_json: bool) -> int:
    """Follow a session to its end.

    The first ctrl+c asks the engine to stop after a checkpoint, the second leaves it alone.

    :param since: number of the last event that was recorded before this engine.
    :param who: in whose name the session is stopped.
    :param as_json: one JSON line a finished step on stdout, and one at the end.
    :returns: the exit code: 0 if the session ended in order or was left running, 1 if it failed.
    """
    headless = _Headless(folder, since, who, as_json)
    with headless.interruptible():
        following = asyncio.create_task(headless.follow())
        leaving = asyncio.create_task(headless.left.wait())
        await asyncio.wait({following, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not following.done():
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            headless.progress.end()
            say(f"left {folder.name} to itself; `workbench status {folder.name}` tells how it goes on")
            return 0
        leaving.cancel()
        return following.result()


class _Headless:
    """One run without screens.

    :ivar left: set by the second ctrl+c.
    """

    def __init__(self, folder: SessionFolder, since: int, who: str, as_json: bool) -> None:
        self.folder = folder
        self.left = asyncio.Event()
        self.progress = ProgressLine()
        self._watch = Watch(folder, "headless", who=who, since=since, read_only=False)
        self._json = as_json
        self._step: StepRecord | None = None
        self._status: Status | None = None
        self._stopping: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def interruptible(self) -> Any:
        """Ctrl+c goes to :meth:`_interrupted` inside."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _interrupted(self) -> None:
        if self._stopping is not None:
            self.left.set()
            return
        warming = self._status is not None and self._status.branch == WARM_UP
        how = "inside the warm-up, which will begin again" if warming else "after a checkpoint"
        self.progress.say(f"stopping {how}; ctrl+c again leaves it running")
        self._stopping = asyncio.create_task(self._stop())

    async def _stop(self) -> None:
        with contextlib.suppress(EngineUnreachable):  # it has ended: that is what was asked for
            answer = await self._watch.client.send(Stop())
            if answer.status == "rejected":
                self.progress.say(f"the engine does not stop: {answer.text}")

    async def follow(self) -> int:
        """Print until the session has ended."""
        async with contextlib.aclosing(self._watch.events()) as events:
            async for event in events:
                self._take(event)
        info = await until_ended(self.folder)
        self.progress.end(self._line())
        code = info.code if info is not None else None
        state = "DONE" if code == 0 else "FAILED"
        cause = info.cause if info is not None else "the engine left no word"
        record = self._step or last_step(self.folder)
        step = record.step if record is not None else 0
        if self._json:
            end: dict[str, Any] = {"event": "end", "state": state, "session": self.folder.name, "step": step}
            emit(json.dumps(end | ({} if code == 0 else {"cause": cause})))
        if code == 0:
            limit = self.folder.settings().steps
            more = f" --steps {step + limit}" if 0 < limit <= step else ""
            again = f"workbench run --name {self.folder.name}{more}"
            say(f"{self.folder.name} ended after step {step}; `{again}` continues it")
            return 0
        say(f"error: the engine of {self.folder.name} ended after step {step}: {cause}; its log: {self.folder.log}")
        return 1

    def _take(self, event: AnyEvent | Status) -> None:
        match event:
            case Status():
                self._status = event
            case StepDone(record=record):
                if record.branch != WARM_UP:
                    self._step = record
                if self._json:
                    emit(step_json(self.folder.name, record))
            case AlarmRaised(alarm=alarm) if not alarm.acknowledged:
                self.progress.say(f"step {alarm.step}: {alarm.message}" + (f"; {alarm.remedy}" if alarm.remedy else ""))
            case Noted(kind=kind, text=text):
                self.progress.say(f"{kind}: {text}" if text else kind)
        self.progress.update(self._line())

    def _line(self) -> str:
        return progress_text(self._step, self._status)


def step_json(session: str, record: StepRecord) -> str:
    """A finished step as one JSON line; numbers that are not finite are null and named in ``nonfinite``.

    The steps of the warm-up, which are counted by themselves, go by another name.
    """
    line: dict[str, Any] = {
        "event": "warm-up" if record.branch == WARM_UP else "step",
        "session": session,
        "branch": record.branch,
        "step": record.step,
        "time": record.time,
        "metrics": record.metrics,
    }
    return json.dumps(line | ({"nonfinite": record.nonfinite} if record.nonfinite else {}))


def progress_text(step: StepRecord | None, status: Status | None) -> str:
    """``step 12/100  reward 0.512  kl 0.0012  1,234 tok/s  ETA 0:32``, with what is known.

    Before RL, ``warming up 120/480  loss 0.431, held-out 12.0%  1,234 tok/s  ETA 0:32``.
    """
    parts = []
    if status is not None and status.branch == WARM_UP:
        parts.append(f"{status.phase} {status.done}/{status.total}")
        parts += [status.note] if status.note and status.state == "RUN" else []
        parts += [f"{status.tokens_per_second:,.0f} tok/s"] if status.tokens_per_second else []
    elif step is not None:
        total = f"/{status.steps}" if status is not None and status.steps else ""
        parts.append(f"step {step.step}{total}")
        for name, title, form in (
            ("reward/mean", "reward", ".3f"),
            ("kl/k3", "KL", ".4f"),
            ("speed/tokens_per_second", "tok/s", ",.0f"),
        ):
            value = step.metrics.get(name)
            if value is not None:
                parts.append(f"{value:{form}} {title}" if title == "tok/s" else f"{title} {value:{form}}")
    if status is not None:
        if status.left is not None and status.state == "RUN":
            parts.append(f"ETA {duration(status.left)}")
        if status.state != "RUN":
            parts.append(status.state + (f": {status.note}" if status.note else ""))
    return "  ".join(parts)
