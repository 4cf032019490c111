"""Metrics mirrored to other people's tools, through accelerate's trackers.

A tracker is code that may raise, hang or print, and that may wait for a network. Each has a thread of its own and a
short queue: what does not fit is left out, and counted. One that raises is switched off, with an alarm. Training waits
for none of them, and at its end only so long.

What it is given is a step's metrics, and once the hyperparameters; nothing of the environment.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.words import one_line
from sessions.records import WARM_UP, SessionSettings, StepRecord
from sessions.specs import short_name
from sessions.wire import AnyEvent, StepDone

if TYPE_CHECKING:
    from engine.engine import Engine

PROJECT = "rl-workbench"
WAITING = 1000
"""Steps that may wait for a tracker."""
PATIENCE_SECONDS = 5.0
"""How long the end of a session waits for its trackers to take what is left, all together."""


class Mirror:
    """The trackers of a session; each starts with the first step that it is told of.

    The warm-up's steps are left out: they are numbered as those of RL are.

    :ivar left_behind: whether one of them was still busy when the session ended.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._trackers = [Tracker(name, engine.folder.path / "trackers", self) for name in engine.settings.track]
        self.left_behind = False

    def note(self, event: AnyEvent) -> None:
        """Hand a finished step on; on the event loop, and never for long."""
        if isinstance(event, StepDone) and event.record.branch != WARM_UP:
            for tracker in self._trackers:
                tracker.put(event.record)

    @property
    def settings(self) -> SessionSettings:
        return self._engine.settings

    def failed(self, name: str, error: BaseException) -> None:
        """It is switched off; from any thread."""
        remedy = "training goes on; the log has the whole trace, and an engine that is started again tries it again"
        self._alarm(f"{name} is switched off: {one_line(error)}", remedy)

    def slow(self, name: str) -> None:
        """It has begun to lose steps; from any thread."""
        remedy = "training goes on, and the session keeps every step: `workbench export` writes them"
        self._alarm(f"{name} does not keep up: steps are left out of it", remedy)

    def _alarm(self, text: str, remedy: str) -> None:
        self._engine.soon(lambda: self._engine.spawn(self._engine.alarm("tracker", text, level="warn", remedy=remedy)))

    async def close(self) -> None:
        """Let the trackers finish, but not for longer than :data:`PATIENCE_SECONDS`."""
        until = time.monotonic() + PATIENCE_SECONDS
        for tracker in self._trackers:
            tracker.close()
        for tracker in self._trackers:
            await asyncio.to_thread(tracker.join, max(0.0, until - time.monotonic()))
            if tracker.left_out:
                print(f"{tracker.name} was too slow for {tracker.left_out} steps; they are not in it", flush=True)
            if tracker.busy:
                self.left_behind = True
                print(f"{tracker.name} took too long to finish; it is left behind", flush=True)


class _End(NamedTuple):
    """Nothing more will come."""


class Tracker:
    """One tracker of accelerate's, in a thread of its own.

    :param folder: for the logs of those that keep them in files.
    :ivar left_out: steps that found the queue full.
    """

    def __init__(self, name: str, folder: Path, mirror: Mirror) -> None:
        self.name, self._folder, self._mirror = name, folder, mirror
        self._queue: queue.Queue[StepRecord | _End] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._off = threading.Event()
        self.left_out = 0

    @property
    def busy(self) -> bool:
        """Whether its thread has not ended."""
        return self._thread is not None and self._thread.is_alive()

    def put(self, record: StepRecord) -> None:
        """Give it a step, if there is room."""
        if self._off.is_set():
            return
        if self._thread is None:
            # a daemon: the process does not wait for one that hangs
            self._thread = threading.Thread(target=self._run, name=f"track {self.name}", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.left_out += 1
            if self.left_out == 1:
                self._mirror.slow(self.name)

    def join(self, seconds: float) -> None:
        """Wait for its thread to end, for so long at most."""
        if self._thread is not None:
            self._thread.join(seconds)

    def close(self) -> None:
        """Have it end once it has taken what is waiting."""
        try:
            self._queue.put_nowait(_End())
        except queue.Full:
            self._off.set()  # it is far behind: it ends after the step that it has

    def _run(self) -> None:
        tracker: Any = None
        last: StepRecord | None = None
        try:
            while not self._off.is_set():
                record = self._queue.get()
                if isinstance(record, _End):
                    break
                if last is None or record.branch != last.branch or record.step <= last.step:
                    if tracker is not None:
                        tracker.finish()
                    tracker = self._start(record)
                tracker.log({n: v for n, v in record.metrics.items() if v is not None}, step=record.step)
                last = record
            if tracker is not None:
                tracker.finish()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - other people's code; training does not depend on it
            self._off.set()
            traceback.print_exc()
            self._mirror.failed(self.name, error)

    def _start(self, first: StepRecord) -> Any:
        """Begin a run: steps of one branch in ascending order."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        settings = self._mirror.settings
        self._folder.mkdir(exist_ok=True)
        kind: Any = LOGGER_TYPE_TO_CLASS[self.name]
        run = settings.name if first.branch == "main" else f"{settings.name}-{first.branch}"
        if self.name == "tensorboard":  # what it has of these steps and later ones, from before a rewind, is void
            tracker = kind(run, str(self._folder), purge_step=first.step)
        elif self.name == "wandb":
            tracker = kind(PROJECT, name=run, dir=str(self._folder))
        else:
            tracker = kind(PROJECT, name=run)
        tracker.start()
        about = {"session": settings.name, "seed": settings.seed, "task": short_name(settings.task)}
        tracker.store_init_configuration({**first.values, **about, "model": Path(settings.model).name})
        return tracker
