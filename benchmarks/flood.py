"""An engine with nothing behind it, which tells screens of a training as fast as they read.

It serves a session's socket with the product's own server, and sends the records of a few real steps again and
again under later step numbers: three events a step, and now and then a rating, an alarm, a note.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

import msgspec

from sessions import wire
from sessions.commands import Command
from sessions.folders import EngineInfo, SessionFolder
from sessions.records import Alarm, GroupHead, Rating, Status, StepRecord
from sessions.server import MAX_MESSAGES, Server
from sessions.store import Store

BATCH = MAX_MESSAGES - 56
"""Events in one delta: fewer than make the server send a snapshot instead."""
HEADS = 200


class Flood:
    """Serves a session that has no engine, as a context manager; a thread of its own does.

    :param folder: whose newest steps are the pattern.
    """

    def __init__(self, folder: SessionFolder, pattern: int = 12) -> None:
        self.folder = folder
        store = Store(folder.database, read_only=True)
        try:
            self._records = store.steps("main")[-pattern:]
            heads = store.heads("main", limit=HEADS)
            self._series = store.series_data("main", 100)
        finally:
            store.close()
        self._heads = {r.step: [h for h in heads if h.step == r.step] for r in self._records}
        self._records = [r for r in self._records if self._heads[r.step]]
        self.step = self._records[-1].step
        self.sent = 0
        self._seq = 0
        self._ready = threading.Event()
        self._stopped: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="flood", daemon=True)

    # ------------------------------------------------------------------------------------------------- life

    def __enter__(self) -> Flood:
        self._lock = self.folder.lock()
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._loop is not None and self._stopped is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
        self.folder.forget_engine()
        os.close(self._lock)

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._server = Server(self.folder.socket_path(), self)
        await self._server.start()
        self.folder.write_engine(
            EngineInfo(pid=os.getpid(), socket=self._server.path, started=time.time(), version="flood")
        )
        self._ready.set()
        try:
            while not self._stopped.is_set():
                self._server.send_beat(wire.Beat(status=self._status()))
                await asyncio.sleep(1.0)
        finally:
            await self._server.close()

    # ---------------------------------------------------------------------------- what the server asks for

    def welcome(self) -> wire.Welcome:
        return wire.Welcome(
            protocol=wire.PROTOCOL, version="flood", session=self.folder.name, database="", seq=0, pid=os.getpid()
        )

    def snapshot(self) -> wire.Snapshot:
        last = self._records[-1]
        return wire.Snapshot(
            seq=self._seq,
            status=self._status(),
            values=dict(last.values),
            start_values=dict(last.values),
            series=self._series,
            heads=[head for heads in self._heads.values() for head in heads],
            last_step=last,
        )

    async def command(self, command: Command, reply: Callable[[wire.Answer], None]) -> None:
        reply(wire.Answer(id=command.id, status="rejected", text="nothing is behind this engine"))

    def clients_changed(self) -> None:
        pass

    def _status(self) -> Status:
        return Status(
            time=time.time(), session=self.folder.name, branch="main", state="RUN", phase="sampling",
            algorithm="grpo", step=self.step, finished_steps=self.step,
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------- flooding

    @property
    def resyncs(self) -> int:
        """How often a screen had fallen behind and was sent a snapshot in place of events."""
        return sum(c.resyncs for c in self._server.connections) if self._server else 0

    def send(self, count: int) -> None:
        """Send at least so many events to every screen; returns when they have read them."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._send(count), self._loop).result()

    async def _send(self, count: int) -> None:
        assert self._server is not None
        until = self.sent + count
        while self.sent < until:
            full = self.sent + BATCH
            while self.sent < full:
                self.step += 1
                for event in self._events(self.step):
                    self._server.send_event(event)
                    self.sent += 1
            # not at the rate that a screen asks for, which would take minutes, but as fast as it reads
            await asyncio.gather(*(connection.flush() for connection in self._server.connections))

    def _events(self, step: int) -> Iterator[wire.AnyEvent]:
        record = self._records[step % len(self._records)]
        now = time.time()
        heads = [msgspec.structs.replace(head, step=step) for head in self._heads[record.step]]
        yield wire.GroupsScored(time=now, step=step, heads=_fresh(heads))
        yield self._numbered(wire.StepDone(time=now, step=step, record=_at(record, step, now)))
        yield wire.GroupsChanged(time=now, step=step, heads=heads)
        if step % 10 == 0:
            yield self._numbered(wire.Noted(time=now, step=step, kind="note", text=f"what happened at step {step}"))
        if step % 25 == 0:
            rating = Rating(
                id=f"rating-{step}", time=now, who="ann", branch="main", step=step, group=1, mode="likert",
                values={"A": 4.0, "B": 2.0},
            )  # fmt: skip
            yield self._numbered(wire.RatingSaved(time=now, step=step, rating=rating))
        if step % 150 == 0:
            alarm = Alarm(id=f"alarm-{step}", time=now, step=step, rule="kl", message=f"kl is high at step {step}")
            yield self._numbered(wire.AlarmRaised(time=now, step=step, alarm=alarm))

    def _numbered(self, event: wire.AnyEvent) -> wire.AnyEvent:
        self._seq += 1
        return msgspec.structs.replace(event, seq=self._seq)


def _fresh(heads: list[GroupHead]) -> list[GroupHead]:
    return [msgspec.structs.replace(head, status="scored", kl=None) for head in heads]


def _at(record: StepRecord, step: int, when: float) -> StepRecord:
    return msgspec.structs.replace(record, step=step, time=when)
