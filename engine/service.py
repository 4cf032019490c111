"""The engine's side of the socket: status and heartbeat, snapshots, growing text, and waiting at the gate."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.gate import RatingGate
from engine.machine import Machine
from engine.orders import Orders, Reply
from engine.visits import Visits
from sessions import commands as c
from sessions import wire
from sessions.folders import EngineInfo
from sessions.records import WARM_UP, Checkpoint, Status
from sessions.server import Server

if TYPE_CHECKING:
    from engine.engine import Engine

VERSION = "0.1.0"
BEAT_SECONDS = 1.0
GROWING_SECONDS = 0.2
"""At most five frames a second of growing text."""
WAIT_ALARM_SECONDS = 600.0


class Service:
    """Serves one engine's clients; everything here runs on the event loop.

    :ivar orders: what people asked for.
    :ivar ready: whether the learner is loaded.
    :ivar waiting: what the step waits for at the gate, one line; empty when it does not.
    :ivar state_word: DONE or FAILED once the session has ended.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._server = Server(engine.folder.socket_path(), self)
        self._machine = Machine(engine.folder.path)
        self._visits = Visits()
        self.orders = Orders(engine, self)
        self.waiting = ""
        self.ready = False
        self._lag = 0.0
        self._started = time.monotonic()
        self.state_word = ""
        self.device = ""

    # --------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Listen, and say where."""
        await self._server.start()
        info = EngineInfo(pid=os.getpid(), socket=self._server.path, started=time.time(), version=VERSION)
        self._engine.folder.write_engine(info)
        self._engine.spawn(self._beat())
        self._engine.spawn(self._grow())

    async def close(self) -> None:
        """Answer what is still open, and hang up."""
        self.orders.close()
        self.beat_now()
        await self._server.close()

    def loaded(self) -> None:
        """The learner is there; commands are served from here on."""
        self.ready = True
        self._lag = 0.0  # importing torch holds the interpreter for seconds; that is no lag of the loop's own
        for connection in self._server.connections:
            connection.resync()
        self.beat_now()

    def show_again(self) -> None:
        """Everything is another: give every client a fresh snapshot."""
        for connection in self._server.connections:
            connection.resync()

    def send(self, event: wire.AnyEvent) -> None:
        """An event for every client."""
        self._server.send_event(event)

    def clients_changed(self) -> None:
        self.beat_now()
        self._note_visits()

    def _note_visits(self) -> None:
        """Keep who has come and who has left; not of those who are sent away at the end."""
        if not self._engine.ended:
            here = [connection.hello for connection in self._server.connections]
            for who, text in self._visits.news(here, time.monotonic()):
                self._engine.spawn(self._engine.note("client", text, who))

    async def command(self, command: c.Command, reply: Reply) -> None:
        """Serve a command; see :class:`sessions.server.Backend`."""
        await self.orders.serve(command, reply)

    # ------------------------------------------------------------------------------------------- status

    def welcome(self) -> wire.Welcome:
        return wire.Welcome(
            protocol=wire.PROTOCOL,
            version=VERSION,
            session=self._engine.folder.name,
            database=self._engine.store.database_id,
            seq=self._engine.board.seq,
            pid=os.getpid(),
        )

    def snapshot(self) -> wire.Snapshot:
        values = self._engine.knobs.values if self._engine.loaded else {}
        return self._engine.board.snapshot(self.status(), values)

    def status(self) -> Status:
        """What the engine is doing now."""
        engine, control = self._engine, self._engine.control
        state, note = self._state()
        finished = engine.learner.step if engine.loaded else 0
        latest = engine.board.last_step
        newest = max(engine.board.checkpoints.values(), key=lambda x: x.step, default=None)
        recent = sum(engine.timings) / len(engine.timings) if engine.timings else None
        left = (engine.settings.steps - finished) * recent if engine.settings.steps and recent else None
        speed = latest.metrics.get("speed/tokens_per_second") if latest else None
        warming = engine.warming
        if warming is not None:
            left, speed = warming.left, engine.board.last("warmup/tokens_per_second")
        return Status(
            time=time.time(),
            session=engine.folder.name,
            branch=WARM_UP if warming else engine.branch,
            state=state,
            phase=control.phase,
            algorithm=engine.knobs.text("algorithm") if engine.loaded else "",
            step=engine.step,
            finished_steps=finished,
            steps=engine.settings.steps,
            done=control.done,
            total=control.total,
            note=note,
            elapsed=time.monotonic() - self._started,
            left=left,
            tokens_per_second=speed,
            pid=os.getpid(),
            clients=[connection.title for connection in self._server.connections],
            checkpoint_step=newest.step if newest else 0,
            checkpoint_time=newest.time if newest else 0.0,
            device=self.device,
            cpu_percent=self._machine.cpu_percent,
            memory_bytes=self._machine.memory_bytes,
            memory_total=self._machine.memory_total,
            disk_free=self._machine.disk_free,
            rating_queue=engine.board.waiting_groups,
        )

    def _state(self) -> tuple[Any, str]:
        control = self._engine.control
        if self.state_word:
            return self.state_word, self._engine.failure
        if not self.ready:
            return "LOADING", self._engine.again or control.loading or "loading torch, the tokenizer and the model"
        if control.paused:
            aside = f", {control.aside}" if control.aside else ""
            return "PAUSED", f"paused by {control.paused_by}{aside}; space goes on, . runs one step"
        if self.waiting:
            return "WAIT", self.waiting
        if control.stopping:
            return "RUN", "stopping at the next safe point"
        if control.aside:
            return "RUN", control.aside + (", then pauses" if control.pausing else "")
        if self._engine.again:
            return "RUN", self._engine.again + (", then pauses" if control.pausing else "")
        if control.pausing:
            return "RUN", "pausing at the next safe point"
        return "RUN", self._engine.warming.note if self._engine.warming else self._engine.moves.note

    def beat_now(self) -> None:
        """Tell every client the status."""
        self._server.send_beat(wire.Beat(status=self.status()))

    async def _beat(self) -> None:
        while True:
            self._machine.measure()
            if not self._engine.folder.database.exists():
                self._engine.lose(f"{self._engine.folder.path}: has been removed; what is trained is kept nowhere")
            self.beat_now()
            self._note_visits()
            due = time.monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            self._lag = max(self._lag, time.monotonic() - due)

    def take_lag(self) -> float:
        """The longest delay of the event loop since the last call, seconds."""
        lag, self._lag = self._lag, 0.0
        return lag

    def control_changed(self) -> None:
        """The compute thread has paused or goes on."""
        control = self._engine.control
        if control.paused:
            where = f"in step {self._engine.step}, {control.phase}"
            if control.total:
                where += f" {control.done}/{control.total}"
            if control.phase == "idle":
                where = f"before step {self._engine.step}"
            self.orders.paused(f"paused {where}")
            by = control.paused_by
            self._engine.spawn(self._engine.note("paused", f"paused {where}" + (f" by {by}" if by else ""), by))
        self.beat_now()

    async def _grow(self) -> None:
        """Send growing text to those who asked for it."""
        sent: dict[int, tuple[int, ...]] = {}
        while True:
            await asyncio.sleep(GROWING_SECONDS)
            growth = self._engine.growth
            if growth is None:
                continue
            decode = self._engine.learner.policy.decode
            for connection in self._server.connections:
                if connection.growing < 0:
                    continue
                message, mark = _growing(self._engine.step, growth, connection.growing, decode)
                if sent.get(id(connection)) != mark:
                    sent[id(connection)] = mark
                    connection.latest(message)

    # ---------------------------------------------------------------------------------- what the loop says

    def ratings_used(self, events: Sequence[wire.AnyEvent]) -> None:
        self._engine.publish(*events)

    def checkpointed(self, checkpoint: Checkpoint) -> None:
        self.beat_now()

    async def wait_at(self, gate: RatingGate) -> None:
        """Hold the step at the gate until enough is rated; WAIT is what people see."""
        control = self._engine.control
        began, alarmed = time.monotonic(), False
        try:
            while not gate.satisfied and not control.stopping:
                control.done = gate.rated()
                left = gate.seconds_left
                until = f", at most {left:.0f} s more" if left is not None else ""
                self.waiting = f"waits for ratings: {gate.rated()} of {gate.wanted} groups{until}; r rates"
                self.beat_now()
                await gate.news(min(0.5, left) if left is not None else 0.5)
                if control.wanted:  # people who pause, discard or want a checkpoint need not wait for the gate
                    await self._engine.compute(control.safe_point)
                waited = time.monotonic() - began
                if waited > WAIT_ALARM_SECONDS and not alarmed and not self._server.connections:
                    alarmed = True
                    text = f"step {self._engine.step} has waited 10 minutes for ratings and nobody is attached"
                    await self._engine.alarm("waiting", text, level="warn", remedy=":set rating_gate async")
        finally:
            self.waiting = ""
            self.beat_now()


def _growing(
    step: int, growth: tuple[Sequence[Any], Any], wanted: int, decode: Callable[[Sequence[int]], str]
) -> tuple[wire.Growing, tuple[int, ...]]:
    """The text so far of one group, and a mark that changes when it does."""
    prompts, rows = growth
    size = rows.group_size
    if wanted == 0:
        open_rows = (~rows.ended).nonzero().flatten()
        group = int(open_rows[0]) // size if len(open_rows) else len(prompts) - 1
    else:
        group = min(wanted, len(prompts)) - 1
    places = range(group * size, (group + 1) * size)
    message = wire.Growing(
        step=step,
        group=group + 1,
        groups=len(prompts),
        prompt=prompts[group].text,
        texts=[decode(rows.row(i)) for i in places],
        ended=[bool(rows.ended[i]) for i in places],
    )
    return message, (step, group, *(int(rows.lengths[i]) for i in places))
