"""The engine's side of the socket: status, snapshots, and what each command does.

Every command that changes something is answered once as accepted and once as applied or rejected, or at once as
one of these; the answer is kept with the command's id, and a repeat gets the same one.
"""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from engine.gate import RatingGate
from engine.machine import Machine
from engine.words import one_line
from sessions import commands as c
from sessions import wire
from sessions.errors import InvalidValue, Refused, WorkbenchError
from sessions.folders import EngineInfo
from sessions.modes import rating_mode
from sessions.records import (
    Change,
    Checkpoint,
    GroupHead,
    Rating,
    ResponseName,
    SkipRecord,
    Status,
    head_of,
    parse_response_name,
)
from sessions.server import Server, is_query

if TYPE_CHECKING:
    from engine.engine import Engine

VERSION = "0.1.0"
BEAT_SECONDS = 1.0
GROWING_SECONDS = 0.2
"""At most five frames a second of growing text."""
WAIT_ALARM_SECONDS = 600.0

Reply = Callable[[wire.Answer], None]


class Service:
    """Serves one engine's clients; everything here runs on the event loop.

    :ivar state_word: DONE or FAILED once the session has ended.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._server = Server(engine.folder.socket_path(), self)
        self._machine = Machine(engine.folder.path)
        self._open: dict[str, list[Reply]] = {}
        self._pausing: list[str] = []
        self._stops: list[str] = []
        self._changes_lock = asyncio.Lock()
        self._changes: dict[str, set[str]] = {}
        self._waiting = ""
        self._ready = False
        self._lag = 0.0
        self._started = time.time()
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
        for command_id in self._stops:
            self._applied(command_id, self._engine.step, f"stopped after step {self._engine.step}")
        for command_id in list(self._open):
            self._answer(wire.Answer(id=command_id, status="rejected", text="the session has ended"))
        self.beat_now()
        await self._server.close()

    def loaded(self) -> None:
        """The learner is there; commands are served from here on."""
        self._ready = True
        self._lag = 0.0  # importing torch holds the interpreter for seconds; that is no lag of the loop's own
        for connection in self._server.connections:
            connection.resync()
        self.beat_now()

    def send(self, event: wire.AnyEvent) -> None:
        """An event for every client."""
        self._server.send_event(event, _size(event))

    def clients_changed(self) -> None:
        self.beat_now()

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
        return Status(
            time=time.time(),
            session=engine.folder.name,
            branch=engine.branch,
            state=state,
            phase=control.phase,
            algorithm=engine.knobs.text("algorithm") if engine.loaded else "",
            step=engine.step,
            finished_steps=finished,
            steps=engine.settings.steps,
            done=control.done,
            total=control.total,
            note=note,
            elapsed=time.time() - self._started,
            left=left,
            tokens_per_second=latest.metrics.get("speed/tokens_per_second") if latest else None,
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
        if not self._ready:
            return "LOADING", "loading torch, the tokenizer and the model"
        if control.paused:
            return "PAUSED", f"paused by {control.paused_by}; space goes on, . runs one step"
        if self._waiting:
            return "WAIT", self._waiting
        if control.stopping:
            return "RUN", "stopping at the next safe point"
        return "RUN", "pausing at the next safe point" if control.pausing else ""

    def beat_now(self) -> None:
        """Tell every client the status."""
        self._server.send_beat(wire.Beat(status=self.status()))

    async def _beat(self) -> None:
        while True:
            self._machine.measure()
            if not self._engine.folder.database.exists():
                self._engine.lose(f"{self._engine.folder.path}: has been removed; what is trained is kept nowhere")
            self.beat_now()
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
            for command_id in self._pausing:
                self._applied(command_id, self._engine.step, f"paused {where}")
            self._pausing.clear()
            self._engine.spawn(self._engine.note("paused", f"paused {where}", control.paused_by))
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

    def changes_accepted(self, changes: Sequence[Change]) -> None:
        """Changes of the schedule have come due."""
        self._engine.spawn(self._keep_changes(changes))

    def changes_applied(self, changes: Sequence[Change]) -> None:
        """Changes have taken effect at their boundary."""
        self._engine.spawn(self._keep_changes(changes))

    async def _keep_changes(self, changes: Sequence[Change]) -> None:
        async with self._changes_lock:  # first come, first written: a change is not pending after it was applied
            for change in changes:
                self._engine.publish(await self._engine.write(self._engine.store.put_change, change))
                if change.status != "pending":
                    self._change_settled(change)

    def _change_settled(self, change: Change) -> None:
        for command_id, waiting in list(self._changes.items()):
            if change.id not in waiting:
                continue
            waiting.discard(change.id)
            if change.status == "superseded":
                del self._changes[command_id]
                text = f"{change.name}: another change took its place before the next {change.boundary}"
                self._answer(wire.Answer(id=command_id, status="rejected", text=text))
            elif not waiting:
                del self._changes[command_id]
                self._applied(command_id, change.applied_step, f"applied at step {change.applied_step}")

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
                self._waiting = f"waits for ratings: {gate.rated()} of {gate.wanted} groups{until}; r rates"
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
            self._waiting = ""
            self.beat_now()

    # ----------------------------------------------------------------------------------------- commands

    async def command(self, command: c.Command, reply: Reply) -> None:
        """Serve a command; see :class:`sessions.server.Backend`."""
        try:
            if is_query(command):
                data = wire.encode_json(await self._query(command))
                reply(wire.Answer(id=command.id, status="data", data=data))
                return
            if command.id in self._open:
                self._open[command.id].append(reply)
                reply(wire.Answer(id=command.id, status="accepted", text="this command is under way"))
                return
            self._open[command.id] = [reply]
            kept = await self._engine.write(self._engine.store.answer, command.id)
            if kept is None and not self._ready and not isinstance(command, c.Stop):
                kept = wire.Answer(id=command.id, status="rejected", text="the engine is still loading; try again")
            if kept is not None:
                for waiting in self._open.pop(command.id):
                    waiting(kept)
                return
            await self._obey(command)
        except WorkbenchError as error:
            answer = wire.Answer(id=command.id, status="rejected", text=str(error))
            if command.id in self._open:
                self._answer(answer)
            else:
                reply(answer)
        except Exception as error:  # noqa: BLE001 - a full disk, a bug: whoever asked should read it, and ask again
            traceback.print_exc()
            text = f"it failed ({one_line(error)}); the engine's log has the whole trace"
            for waiting in self._open.pop(command.id, [reply]):
                waiting(wire.Answer(id=command.id, status="rejected", text=text))

    def _answer(self, answer: wire.Answer) -> None:
        """Give an answer to everybody who asked, and keep it."""
        replies = self._open[answer.id] if answer.status == "accepted" else self._open.pop(answer.id, [])
        for reply in replies:
            reply(answer)
        self._engine.write_later(self._engine.store.put_answer, answer)

    def _accepted(self, command: c.Command, text: str) -> None:
        self._answer(wire.Answer(id=command.id, status="accepted", step=self._engine.step, text=text))

    def _applied(self, command_id: str, step: int, text: str) -> None:
        if command_id in self._open:
            self._answer(wire.Answer(id=command_id, status="applied", step=step, text=text))

    async def _obey(self, command: c.Command) -> None:
        engine, control = self._engine, self._engine.control
        match command:
            case c.Pause():
                if control.paused:
                    self._applied(command.id, engine.step, "it is paused already")
                    return
                self._pausing.append(command.id)
                self._accepted(command, "pauses at the next safe point")
                control.pause(command.who)
                self.beat_now()
            case c.Resume():
                control.resume()
                for command_id in self._pausing:
                    text = f"{command.who} resumed before it had paused"
                    self._answer(wire.Answer(id=command_id, status="rejected", text=text))
                self._pausing.clear()
                await engine.note("resumed", f"{command.who} resumed", command.who)
                self._applied(command.id, engine.step, "goes on")
            case c.Step():
                self._step(command)
            case c.Discard():
                if not control.paused or control.phase == "idle" or engine.step == 0:
                    raise Refused("there is no paused step to discard; pause inside one first")
                if not control.discard():
                    raise Refused(f"the update of step {engine.step} has changed weights; it can only be finished")
                self._applied(command.id, engine.step, f"step {engine.step} is dropped and starts again")
            case c.Stop():
                self._accepted(command, "stops at the next safe point" + ("" if command.now else ", saving first"))
                self._stops.append(command.id)
                await engine.note("stopping", f"{command.who} stops the session", command.who)
                engine.stop(now=command.now)
                self.beat_now()
            case c.Set():
                await self._set(command)
            case c.Rate():
                await self._rate(command)
            case c.Retract():
                await self._retract(command)
            case c.Skip():
                await self._skip(command)
            case c.TakeCheckpoint():
                self._accepted(command, "writes a checkpoint at the next safe point between updates")
                control.ask(lambda: self._take_checkpoint(command))
            case c.Acknowledge():
                await self._acknowledge(command)
            case _:
                raise Refused(f"{type(command).__name__}: this engine does not serve it")

    def _step(self, command: c.Command) -> None:
        engine, control = self._engine, self._engine.control
        inside = not control.paused or control.phase != "idle"
        self._pausing.append(command.id)
        self._accepted(command, f"finishes step {engine.step}, then pauses" if inside else f"runs step {engine.step}")
        control.pause_before(engine.step + 1, command.who)
        self.beat_now()

    def _take_checkpoint(self, command: c.Command) -> None:
        """On the compute thread."""
        engine = self._engine
        try:
            saved = engine.learner.save(f"{command.who} asked")
        except OSError as error:
            text = f"the checkpoint could not be written: {error.strerror}; free some disk and try again"
            engine.soon(self._answer, wire.Answer(id=command.id, status="rejected", text=text))
            return
        event = engine.write_now(engine.store.put_checkpoint, saved, engine.branch)
        engine.soon(engine.publish, event)
        engine.soon(self._applied, command.id, saved.step, f"checkpoint of step {saved.step} is on disk")
        engine.soon(self.beat_now)

    async def _set(self, command: c.Set) -> None:
        engine = self._engine
        new, superseded = engine.knobs.request(command, engine.step)
        if not new:
            await self._keep_changes(superseded)
            self._applied(command.id, engine.step, "it has that value already")
            return
        self._changes[command.id] = {change.id for change in new}
        text = "; ".join(f"{change.name} applies at the next {change.boundary}" for change in new)
        self._accepted(command, text)
        if self._waiting and any(change.name == "rating_gate" for change in new):
            engine.gate.open()  # whoever changes the gate while the step waits at it does not want it to wait
        await self._keep_changes([*superseded, *new])

    async def _group_head(self, name: ResponseName) -> GroupHead:
        return await self._engine.write(self._engine.store.head, name, self._engine.branch)

    async def _rate(self, command: c.Rate) -> None:
        engine, store = self._engine, self._engine.store
        name = parse_response_name(command.group)
        if name.letter or not command.values:
            raise InvalidValue("a rating names a group, such as 812.3, and at least one of its responses")
        mode = rating_mode(command.mode)
        for value in command.values.values():
            mode.check(value)
        group = await engine.write(store.group, name, engine.branch)
        unknown = set(command.values) - {r.letter for r in group.responses}
        if unknown:
            raise InvalidValue(f"group {command.group} has no response {', '.join(sorted(unknown))}")
        standing = await engine.write(store.standing_ratings, name, engine.branch)
        mine = [r for r in standing if r.who == command.who and set(r.values) == set(command.values)]
        rating = Rating(
            id=command.id,
            time=time.time(),
            who=command.who,
            branch=group.branch,
            step=name.step,
            group=name.group,
            mode=mode.name,
            values=dict(command.values),
            comment=command.comment,
            order=command.order,
            blind=command.blind,
            seconds=command.seconds,
            supersedes=mine[-1].id if mine else "",
        )
        engine.publish(await engine.write(store.add_rating, rating))
        engine.gate.judged(f"{name.step}.{name.group}", set(command.values))
        await self._head_changed(name)
        ahead = group.status == "scored" and name.step == engine.step != engine.rated_step
        when = f"update {engine.step} will use it" if ahead else "the next update takes the group in, if it may"
        if group.status == "discarded":
            when = "its step was discarded, no update will use it"
        text = f"saved; {when} (rating {rating.id})"
        self._applied(command.id, engine.step, text)

    async def _head_changed(self, name: ResponseName) -> None:
        head = await self._group_head(name)
        self._engine.publish(wire.GroupsChanged(time=time.time(), step=name.step, heads=[head]))

    async def _retract(self, command: c.Retract) -> None:
        engine = self._engine
        rating = await engine.write(engine.store.rating, command.rating)
        event = await engine.write(engine.store.retract, command.rating, command.who, time.time())
        engine.publish(event)
        if rating is not None:
            await self._head_changed(ResponseName(rating.step, rating.group))
        used = event.used_in if isinstance(event, wire.RatingRetracted) else 0
        text = f"taken back; update {used} had used it, and nothing is un-trained" if used else "taken back"
        self._applied(command.id, engine.step, text)

    async def _skip(self, command: c.Skip) -> None:
        engine = self._engine
        name = parse_response_name(command.response)
        group = await engine.write(engine.store.group, name, engine.branch)
        if name.letter and name.letter not in {r.letter for r in group.responses}:
            raise InvalidValue(f"group {name.step}.{name.group} has no response {name.letter}")
        skip = SkipRecord(
            id=command.id,
            time=time.time(),
            who=command.who,
            branch=group.branch,
            step=name.step,
            group=name.group,
            letter=name.letter,
            reason=command.reason,
        )
        engine.publish(await engine.write(engine.store.add_skip, skip))
        engine.gate.judged(f"{name.step}.{name.group}", {name.letter} if name.letter else set())
        self._applied(command.id, engine.step, "skipped")

    async def _acknowledge(self, command: c.Acknowledge) -> None:
        engine = self._engine
        alarms = [a for a in engine.board.alarms.values() if not a.acknowledged]
        if command.alarm:
            alarms = [a for a in alarms if a.id == command.alarm]
            if not alarms:
                raise InvalidValue(f"no open alarm with the id {command.alarm!r}")
        for alarm in alarms:
            seen = msgspec.structs.replace(alarm, acknowledged=time.time())
            engine.publish(await engine.write(engine.store.put_alarm, seen))
        self._applied(command.id, engine.step, f"{len(alarms)} acknowledged")

    # ------------------------------------------------------------------------------------------ queries

    async def _query(self, command: c.Command) -> Any:
        engine, store, branch = self._engine, self._engine.store, self._engine.branch
        match command:
            case c.QueryStatus():
                return self.status()
            case c.QuerySeries():
                unknown = [n for n in command.names if n not in engine.board.series]
                if unknown:
                    known = ", ".join(sorted(engine.board.series)) or "none yet"
                    raise InvalidValue(f"no series {unknown[0]!r}; there are: {known}")
                limit = min(max(command.limit, 4), 100_000)
                return [engine.board.series[n].window(command.first, command.last, limit) for n in command.names]
            case c.QueryGroups():
                limit = min(max(command.limit, 1), 2000)
                return await engine.write(
                    lambda: store.heads(branch, command.before, limit, unrated=command.unrated)
                )  # fmt: skip
            case c.QueryGroup():
                return await engine.write(self._detail, parse_response_name(command.group))
            case c.QueryResponse():
                name = parse_response_name(command.response)
                group = await engine.write(store.group, name, branch)
                found = [r for r in group.responses if r.letter == name.letter]
                if not found:
                    raise InvalidValue(f"group {group.name} has no response {name.letter!r}")
                return found[0]
            case c.QueryEvents():
                return await engine.write(store.events, command.before, min(max(command.limit, 1), 2000))
        raise Refused(f"{type(command).__name__}: this engine does not serve it")

    def _detail(self, name: ResponseName) -> wire.GroupDetail:
        store, branch = self._engine.store, self._engine.branch
        group = store.group(name, branch)
        ratings = store.ratings_of(name, branch)
        return wire.GroupDetail(
            group=group,
            ratings=ratings,
            uses=store.uses_of(ratings),
            head=head_of(group, store.shown_ratings(name, branch)),
        )


def _size(event: wire.AnyEvent) -> int:
    """About how many bytes an event is on the wire."""
    match event:
        case wire.StepDone(record=record):
            return 2000 + 12 * len(record.advantages)
        case wire.GroupsScored(heads=heads) | wire.GroupsChanged(heads=heads):
            return 100 + 400 * len(heads)
    return 400


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
