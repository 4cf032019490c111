"""What each command does: people's orders to a running session.

Every command that changes something is answered once as accepted and once as applied or rejected, or at once as
one of these; the answer is kept with the command's id, and a repeat gets the same one.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from engine.control import Discarded, Leaving, Stopping
from engine.evaluating import evaluate
from engine.late import beside_updates
from engine.queries import answer_query
from engine.watching import KEY
from engine.words import one_line
from sessions import commands as c
from sessions import wire
from sessions.errors import InvalidValue, Refused, WorkbenchError
from sessions.giving import rated_group, rating_of, skip_of
from sessions.hyperparameters import hyperparameter
from sessions.importing import Received, give_back
from sessions.orderings import check_ordering
from sessions.presets import preset
from sessions.records import Change, Group, GroupHead, Rating, ResponseName, parse_response_name
from sessions.server import is_query
from sessions.store import Store
from sessions.watch_book import WatchBook

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.service import Service

Reply = Callable[[wire.Answer], None]


class Orders:
    """The commands that are under way, and who waits for their answers; everything runs on the event loop."""

    def __init__(self, engine: Engine, service: Service) -> None:
        self._engine, self._service = engine, service
        self._open: dict[str, list[Reply]] = {}
        self._pausing: list[str] = []
        self._stops: list[str] = []
        self._changes_lock = asyncio.Lock()
        self._watches_lock = asyncio.Lock()
        self._changes: dict[str, set[str]] = {}

    def close(self) -> None:
        """The session has ended: answer what is still open."""
        after = f"stopped after step {self._engine.step}"
        if self._engine.warming is not None:
            after = "stopped inside the warm-up, which starts again from its beginning"
        for command_id in self._stops:
            self._applied(command_id, self._engine.step, after)
        for command_id in list(self._open):
            self._answer(wire.Answer(id=command_id, status="rejected", text="the session has ended"))

    def paused(self, text: str) -> None:
        """The compute thread has paused: that is what some wait for."""
        for command_id in self._pausing:
            self._applied(command_id, self._engine.step, text)
        self._pausing.clear()

    def changes_accepted(self, changes: Sequence[Change]) -> None:
        """Changes of the schedule have come due."""
        self._engine.spawn(self._keep_changes(changes))

    def changes_applied(self, changes: Sequence[Change]) -> None:
        """Changes have taken effect at their boundary."""
        self._engine.spawn(self._keep_changes(changes))

    async def changes_kept(self) -> None:
        """Wait until what was accepted and applied so far is written."""
        async with self._changes_lock:
            pass

    async def _keep_changes(self, changes: Sequence[Change]) -> None:
        async with self._changes_lock:  # first come, first written: a change is not pending after it was applied
            self._engine.publish(*await self._engine.write(self._engine.store.put_changes, changes))
            for change in changes:
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

    async def serve(self, command: c.Command, reply: Reply) -> None:
        """Serve a command; ``reply`` may be called more than once, and later."""
        try:
            if is_query(command):
                data = wire.encode_json(await answer_query(self._engine, command))
                reply(wire.Answer(id=command.id, status="data", data=data))
                return
            if command.id in self._open:
                self._open[command.id].append(reply)
                reply(wire.Answer(id=command.id, status="accepted", text="this command is under way"))
                return
            self._open[command.id] = [reply]
            kept = await self._engine.write(self._engine.store.answer, command.id)
            if kept is None and not self._service.ready and not isinstance(command, c.Stop):
                kept = wire.Answer(id=command.id, status="rejected", text="the engine is still loading; try again")
            if kept is not None and kept.status == "accepted":
                self._take_up(command, kept)
                return
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

    def _take_up(self, command: c.Command, kept: wire.Answer) -> None:
        """A repeat of what an engine accepted that ended before it said what became of it: nothing is done twice."""
        changes = [change for change in self._engine.board.changes.values() if change.command == command.id]
        pending = {change.id for change in changes if change.status == "pending"}
        applied = max((change.applied_step for change in changes if change.status == "applied"), default=0)
        if pending:
            self._changes[command.id] = pending
            self._answer(kept)
        elif applied:
            self._applied(command.id, applied, f"applied at step {applied}")
        else:
            text = "the engine ended before it said what became of this; look, and ask anew if it has to be done"
            self._answer(wire.Answer(id=command.id, status="rejected", text=text))

    def _answer(self, answer: wire.Answer) -> None:
        """Give an answer to everybody who asked, and keep it."""
        replies = self._open[answer.id] if answer.status == "accepted" else self._open.pop(answer.id, [])
        for reply in replies:
            reply(answer)
        self._engine.write_later(self._engine.store.put_answer, answer)

    def _accepted(self, command: c.Command, text: str) -> None:
        self._answer(wire.Answer(id=command.id, status="accepted", step=self._engine.step, text=text))

    def _applied(self, command_id: str, step: int, text: str, data: str = "") -> None:
        if command_id in self._open:
            self._answer(wire.Answer(id=command_id, status="applied", step=step, text=text, data=data))

    def done(self, command_id: str, step: int, text: str, data: str = "") -> None:
        """A command that took its time has been carried out."""
        self._applied(command_id, step, text, data)

    def refused(self, command_id: str, text: str) -> None:
        """A command that was accepted could not be carried out."""
        if command_id in self._open:
            self._answer(wire.Answer(id=command_id, status="rejected", text=text))

    async def _obey(self, command: c.Command) -> None:
        engine, control = self._engine, self._engine.control
        match command:
            case c.Pause():
                if control.holds and not command.before_update:
                    by = f", by {control.paused_by}" if control.paused_by else ""
                    self._applied(command.id, engine.step, f"it is paused already{by}")
                    return
                self._pausing.append(command.id)
                if command.before_update:
                    self._accepted(command, "pauses before the next update")
                    control.pause_at("updating", command.who)
                else:
                    self._accepted(command, "pauses at the next safe point")
                    control.pause(command.who)
                self._service.beat_now()
            case c.Resume():
                await self.go_on(command.who)
                self._applied(command.id, engine.step, "goes on")
            case c.Step():
                await self._step(command)
            case c.Discard() | c.TakeCheckpoint() if engine.warming is not None:
                raise Refused("not inside the warm-up: checkpoint 0 is written when it ends; `stop` leaves it")
            case c.Discard():
                if not control.paused or control.phase == "idle" or engine.step == 0:
                    raise Refused("there is no paused step to discard; pause inside one first")
                if engine.step <= engine.learner.step and not control.committed:
                    raise Refused(f"step {engine.step} has been learned; nothing is in progress that could be dropped")
                if not control.discard(command.who):
                    raise Refused(f"the update of step {engine.step} has changed weights; it can only be finished")
                self._applied(command.id, engine.step, f"step {engine.step} is dropped and starts again")
            case c.Stop():
                saving = "" if command.now or engine.warming is not None else ", saving first"
                self._accepted(command, f"stops at the next safe point{saving}")
                self._stops.append(command.id)
                await engine.note("stopping", f"{command.who} stops the session", command.who)
                engine.stop(now=command.now)
                self._service.beat_now()
            case c.Set():
                await self._set(command)
            case c.Rate():
                await self._rate(command)
            case c.Retract():
                await self._retract(command)
            case c.Skip():
                await self._skip(command)
            case c.Picked():
                await self._picked(command)
            case c.TrainRewardModel():
                self._accepted(command, await engine.reward.ask(command))
            case c.Reload() if engine.warming is not None:
                raise Refused("not inside the warm-up")
            case c.Reload():
                self._accepted(command, await engine.reloader.ask(command))
            case c.ImportRatings():
                await self._import_ratings(command)
            case c.ImportOrderings():
                await self._import_orderings(command)
            case c.TakeCheckpoint():
                self._accepted(command, "writes a checkpoint at the next safe point between updates")
                engine.spawn(self._take_checkpoint(command))
            case c.Preview():
                self._preview(command)
            case c.Evaluate():
                self._accepted(command, evaluate(self._engine, command, self._answer))
            case c.Rewind() | c.Fork() | c.Switch() | c.RenameBranch() | c.Race():
                self._accepted(command, await engine.moves.ask(command))
                self._service.beat_now()
            case c.DeleteBranch():
                text = await engine.moves.delete(command.branch)
                await engine.note("branch", f"{command.who}: {text}", command.who)
                self._applied(command.id, engine.step, text)
            case c.Acknowledge():
                await self._acknowledge(command)
            case c.AddWatch():
                await self._watch(command, lambda: engine.watching.with_rule(command.rule))
            case c.RemoveWatch():
                await self._watch(command, lambda: engine.watching.without(command.name))
            case _:
                raise Refused(f"{type(command).__name__}: this engine does not serve it")

    async def go_on(self, who: str) -> None:
        """End a pause, or what leads to one."""
        self._engine.control.resume()
        for command_id in self._pausing:
            text = f"{who} resumed before it had paused"
            self._answer(wire.Answer(id=command_id, status="rejected", text=text))
        self._pausing.clear()
        await self._engine.note("resumed", f"{who} resumed", who)

    async def _step(self, command: c.Command) -> None:
        engine, control = self._engine, self._engine.control
        inside = not control.paused or control.phase != "idle"
        what = f"finishes step {engine.step}, then pauses" if inside else f"runs step {engine.step}"
        self._pausing.append(command.id)
        self._accepted(command, what)
        control.pause_before(engine.step + 1, command.who)
        await engine.note("stepping", f"{command.who} {what}", command.who)
        self._service.beat_now()

    async def _take_checkpoint(self, command: c.Command) -> None:
        try:
            saved = await self._engine.saver.save_once(f"{command.who} asked")
        except Exception as error:  # noqa: BLE001 - whoever asked should read it, and the training go on
            text = str(error)
            if not isinstance(error, WorkbenchError):
                traceback.print_exc()
                text = f"the checkpoint could not be written: {one_line(error)}"
            self._answer(wire.Answer(id=command.id, status="rejected", text=text))
            return
        self._applied(command.id, saved.step, f"checkpoint of step {saved.step} is on disk")

    def _preview(self, command: c.Preview) -> None:
        engine = self._engine
        if not (engine.control.paused or self._service.waiting):
            raise Refused("the run is not paused; `pause update` pauses before the next update, where it can be tried")
        if engine.rollout is None:
            raise Refused(f"step {engine.step} has no scored responses to try; `pause update` pauses where it has")
        if engine.control.committed:
            raise Refused(f"the update of step {engine.step} has changed weights; try the next one before its update")
        self._accepted(command, "computes on a copy")
        engine.control.ask(lambda: self._try(command))

    def _try(self, command: c.Preview) -> None:
        """On the compute thread."""
        engine = self._engine
        try:
            found = engine.try_update(command.algorithm)
        except (Stopping, Discarded, Leaving):
            answer = wire.Answer(id=command.id, status="rejected", text="the step has ended")
            engine.soon(self._answer, answer)
            raise
        except Exception as error:  # noqa: BLE001 - it was only a try: whoever asked should read why it failed
            if not isinstance(error, WorkbenchError):
                traceback.print_exc()
            text = str(error) if isinstance(error, WorkbenchError) else f"it failed: {one_line(error)}"
            engine.soon(self._answer, wire.Answer(id=command.id, status="rejected", text=text))
            return
        data = wire.encode_json(found)
        answer = wire.Answer(id=command.id, status="applied", step=found.step, text=found.describe(), data=data)
        engine.soon(self._answer, answer)

    async def _set(self, command: c.Set) -> None:
        engine = self._engine
        if engine.moves.going:
            engine.moves.check_there()
        if command.preset:
            published = preset(command.preset).settings(engine.knobs.whole("max_new_tokens"))
            command = msgspec.structs.replace(command, values={**published, **command.values})
        if not command.values:
            raise InvalidValue("set needs at least one hyperparameter and its value, or a preset")
        if "algorithm" in command.values:
            engine.learner.check_algorithm(str(command.values["algorithm"]))
        new, superseded = engine.knobs.request(command, engine.step)
        if not new:
            await self._keep_changes(superseded)
            self._applied(command.id, engine.step, "it has that value already")
            return
        self._changes[command.id] = {change.id for change in new}
        text = "; ".join(f"{change.name} applies at the next {change.boundary}" for change in new)
        await self._keep_changes([*superseded, *new])  # whatever happens to the engine, an accepted change counts
        self._accepted(command, text)
        if self._service.waiting and any(change.name == "rating_gate" for change in new):
            engine.gate.open()  # whoever changes the gate while the step waits at it does not want it to wait
        if any(hyperparameter(change.name).risky for change in new):
            engine.spawn(self._checkpoint_first(new))

    async def _checkpoint_first(self, changes: Sequence[Change]) -> None:
        """Before what may undo what was learned: a checkpoint of the finished step, unless there is one.

        Inside an update the weights are no finished step's any more; the newest checkpoint and the records stand.
        """
        engine = self._engine
        if engine.control.committed or engine.learner.step in engine.board.checkpoints or engine.control.stopping:
            return
        what = ", ".join(f"{change.name} {change.old} -> {change.new}" for change in changes)
        try:
            await engine.saver.save_once(f"before {what}")
        except Exception as error:  # noqa: BLE001 - the change stands, and people should know that this does not
            traceback.print_exc()
            await engine.note("checkpoint", f"none was written before {what}: {one_line(error)}")

    async def _group_head(self, name: ResponseName) -> GroupHead:
        return await self._engine.write(self._engine.store.head, name, self._engine.branch)

    async def _rate(self, command: c.Rate) -> None:
        engine, store = self._engine, self._engine.store
        name = rated_group(command)
        group = await engine.write(store.group, name, engine.branch)
        standing = await engine.write(store.standing_ratings, name, engine.branch)
        rating = rating_of(command, group, standing, time.time())
        engine.publish(await engine.write(_add_rating, store, rating, group))
        await self._head_changed(name)
        ahead = group.status == "scored" and name.step == engine.step != engine.rated_step
        when = f"update {engine.step} will use it" if ahead else "the next update takes the group in, if it may"
        if group.status == "discarded":
            when = "its step was discarded, no update will use it"
        if aside := beside_updates(rating):
            when = aside.why
        else:
            engine.gate.judged(f"{name.step}.{name.group}", set(command.values))
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
            await self._taken_back(rating.branch, rating.step, rating.group)
        if isinstance(event, wire.Skipped):
            await self._taken_back(event.skip.branch, event.skip.step, event.skip.group)
            self._applied(command.id, engine.step, "it waits for a rating again")
            return
        used = event.used_in if isinstance(event, wire.RatingRetracted) else 0
        whose = f"{rating.who}'s rating is " if rating is not None and rating.who != command.who else ""
        text = f"{whose}taken back" + (f"; update {used} had used it, and nothing is un-trained" if used else "")
        self._applied(command.id, engine.step, text)

    async def _taken_back(self, branch: str, step: int, number: int) -> None:
        """The gate counts what is judged still."""
        engine, name = self._engine, f"{step}.{number}"
        if engine.gate.closed and step == engine.step:
            judged = await engine.write(engine.store.judged, branch, step)
            engine.gate.taken_back(name, judged.get(name))

    async def _skip(self, command: c.Skip) -> None:
        engine = self._engine
        name = parse_response_name(command.response)
        group = await engine.write(engine.store.group, name, engine.branch)
        skip = skip_of(command, group, time.time())
        engine.publish(await engine.write(engine.store.add_skip, skip))
        engine.gate.judged(f"{name.step}.{name.group}", {name.letter} if name.letter else set())
        self._applied(command.id, engine.step, "skipped")

    async def _picked(self, command: c.Picked) -> None:
        engine = self._engine
        name = parse_response_name(command.group)
        group = await engine.write(lambda: engine.store.group(name, engine.branch, tokens=False))
        event = wire.GroupPicked(
            time=time.time(), step=group.step, group=group.name, rule=command.rule, who=command.who
        )  # fmt: skip
        engine.publish(await engine.write(engine.store.add_event, event))
        self._applied(command.id, engine.step, "noted")

    async def _import_ratings(self, command: c.ImportRatings) -> None:
        engine = self._engine
        found = Received()
        for returned in command.ratings:
            rating = returned.rating
            event = await engine.write(give_back, engine.store, returned, engine.branch, found)
            if event is not None:
                engine.publish(event)
                await self._head_changed(ResponseName(rating.step, rating.group, branch=rating.branch))
                if beside_updates(rating) is None and not rating.repeats and rating.branch == engine.branch:
                    engine.gate.judged(f"{rating.step}.{rating.group}", set(rating.values))
        if found.new:
            told = wire.Imported(
                time=time.time(), step=engine.step, who=command.who, source=command.source, ratings=found.new
            )
            engine.publish(await engine.write(engine.store.add_event, told))
        self._received(command.id, found)

    async def _import_orderings(self, command: c.ImportOrderings) -> None:
        engine = self._engine
        for ordering in command.orderings:
            check_ordering(ordering)
        added, event = await engine.write(
            lambda: engine.store.add_orderings(command.orderings, command.source, command.who, time.time(), engine.step)
        )
        if event is not None:
            engine.publish(event)
        self._received(command.id, Received(new=added, known=len(command.orderings) - added))

    def _received(self, command_id: str, found: Received) -> None:
        answer = wire.Answer(
            id=command_id, status="applied", step=self._engine.step, text=found.describe(), data=wire.encode_json(found)
        )
        self._answer(answer)

    async def _acknowledge(self, command: c.Acknowledge) -> None:
        engine = self._engine
        alarms = [a for a in engine.board.alarms.values() if not a.acknowledged]
        if command.alarm:
            alarms = [a for a in alarms if a.id == command.alarm]
            if not alarms:
                raise InvalidValue(f"no open alarm with the id {command.alarm!r}")
        for alarm in alarms:
            seen = msgspec.structs.replace(alarm, acknowledged=time.time(), acknowledged_by=command.who)
            engine.publish(await engine.write(engine.store.put_alarm, seen))
        self._applied(command.id, engine.step, f"{len(alarms)} acknowledged")

    async def _watch(self, command: c.Command, change: Callable[[], tuple[WatchBook, str]]) -> None:
        """Change the watches: on disk first, then in the watchdog."""
        engine = self._engine
        async with self._watches_lock:  # a change starts from the book that the one before it has left
            book, text = change()
            await engine.write(engine.store.set_meta, KEY, wire.encode_json(book))
            engine.watching.use(book)
        await engine.note("watch", f"{command.who}: {text}", command.who)
        self._applied(command.id, engine.step, text)


def _add_rating(store: Store, rating: Rating, group: Group) -> wire.AnyEvent:
    """On the store's thread: keep a rating, unless a rewind has taken its group away since it was looked at.

    :raises Refused: if another group has its name now, or none.
    """
    name = ResponseName(rating.step, rating.group)
    try:
        found = store.group(name, rating.branch, tokens=False)
    except InvalidValue:
        found = None
    if (
        found is None
        or found.branch != group.branch
        or [r.text for r in found.responses] != [r.text for r in group.responses]
    ):
        raise Refused(f"group {name.step}.{name.group} has gone to another branch meanwhile; look again")
    return store.add_rating(rating)
