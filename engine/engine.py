"""The async engine: one session's loop, its commands, its records and its socket.

The event loop serves people; :meth:`Engine.run` is a background task on it that sends each phase of a step to one
compute thread and awaits it. The store has one writer thread. Nothing here imports torch: the learner comes from
``build`` once the socket is open, so a person sees the engine load.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from engine.agreements import Agreements
from engine.blame import first_failure
from engine.board import Board
from engine.branching import Moves
from engine.control import Control, Discarded, Leaving, Stopping
from engine.gate import RatingGate
from engine.knobs import Knobs
from engine.late import Candidate, Standing, collect, fates, standing_for
from engine.mirror import Mirror
from engine.resuming import Unfinished, adopt, as_they_were, go_to, hold, rated
from engine.reward_keeper import RewardKeeper
from engine.reward_reload import Reloader
from engine.rollout import RolloutGroup
from engine.saving import Saver
from engine.service import Service
from engine.task_changes import check_prompts
from engine.threads import UNWRITABLE, Threads
from engine.times import Times
from engine.warming import Warming, prepare, warm_up
from engine.watchdog import HISTORY, Evidence
from engine.watching import KEY, Watching
from engine.words import one_line
from sessions import checkpoints, wire
from sessions.branches import PROBES, Dropped, Probe
from sessions.checkpoints import Damaged, HeldRollout
from sessions.commands import new_id
from sessions.errors import InvalidValue, Refused, SessionError, WorkbenchError
from sessions.evaluations import HeldOut
from sessions.folders import SessionFolder
from sessions.hyperparameters import Value
from sessions.models import pinned
from sessions.records import (
    Alarm,
    Change,
    Group,
    GroupHead,
    Preview,
    Rating,
    RatingUse,
    ResponseName,
    SessionSettings,
    StepRecord,
    UpdateInputs,
    head_of,
)
from sessions.rose import WEIGHTS
from sessions.store import Store

if TYPE_CHECKING:
    from engine.groups import Evaluation
    from engine.invariants import Broken
    from engine.learner import Learner
    from engine.sampling import Growth
    from engine.tasks import Prompt
    from engine.training import Training

_T = TypeVar("_T")
MOST_FAILURES = 3
"""Steps in a row that may fail before the session ends as FAILED."""

CHECKPOINT_SECONDS = 300.0
"""Where checkpoints are written at all, there is one at least so often."""

Build = Callable[[SessionSettings, Control, SessionFolder], "tuple[Learner, Knobs]"]


class Engine(Threads):
    """One session being trained.

    :param build: makes the learner as it is before the first step, on the compute thread.
    :ivar branch: that is trained.
    :ivar rated_step: the newest step whose update has looked at its ratings: what comes after is late.
    :ivar rollout: the scored groups of the step in progress, until its update has been made.
    :ivar held: those of the next step, where the training was left between sampling and update.
    :ivar unfinished: what an engine that was killed has left of the step after the newest one.
    :ivar again: what is computed again from the records, one line; empty when nothing is.
    :ivar untouched: whether the learner is still as it was built.
    :ivar first_values: the hyperparameters that the session was started with.
    :ivar warming: the warm-up that comes before RL, until it is done.
    :ivar evaluated: what the held-out prompts gave with the present weights, if that is known before the first step.
    :ivar exit_code: of the process, once :meth:`serve` has returned.
    """

    def __init__(self, folder: SessionFolder, settings: SessionSettings, build: Build) -> None:
        super().__init__()
        self.folder, self.settings, self._build = folder, settings, build
        self.store = Store(folder.database)
        self.branch = self.store.active
        self.control = Control(on_change=self._control_changed, on_tell=self._told)
        self.control.on_note = lambda kind, text: self.soon(lambda: self.spawn(self.note(kind, text)))
        self.board = Board(self.store, self.branch)
        self._training: tuple[Learner, Knobs] | None = None
        self.service = Service(self)
        self.saver = Saver(self)
        self.mirror = Mirror(self)
        self.reward = RewardKeeper(self)
        self.reloader = Reloader(self)
        self.gate = RatingGate()
        self.exit_code = 0
        self.failure = ""
        self.growth: tuple[Sequence[Prompt], Growth] | None = None
        self.rollout: Sequence[RolloutGroup] | None = None
        self.held: HeldRollout | None = None
        self.unfinished = Unfinished(0)
        self.again = ""
        self.untouched = True
        self.first_values: dict[str, Value] = {}
        self.moves = Moves(self)
        self._saved_at = time.monotonic()
        self.step = 0
        self.rated_step = 0
        self.ended = False
        self.timings: list[float] = []
        self._failures = 0
        self._times: Times | None = None
        self.watching = Watching()
        self.agreements = Agreements()
        self._broken: list[Broken] = []
        self._weights: dict[str, float] = {}
        self.warming: Warming | None = None
        self.evaluated: Evaluation | None = None

    @property
    def loaded(self) -> bool:
        """Whether there is a learner yet."""
        return self._training is not None

    @property
    def learner(self) -> Learner:
        """What is being trained.

        :raises SessionError: while it is still loading.
        """
        if self._training is None:
            raise SessionError("the engine is still loading; try again in a few seconds")
        return self._training[0]

    @property
    def knobs(self) -> Knobs:
        """Its hyperparameters; raises as :attr:`learner` does."""
        if self._training is None:
            raise SessionError("the engine is still loading; try again in a few seconds")
        return self._training[1]

    def _control_changed(self) -> None:
        self.soon(self.service.control_changed)

    def _told(self, text: str) -> None:
        """A line from the compute thread while it loads; people who watch see it, and no record keeps it."""
        event = wire.Noted(time=time.time(), step=self.step, kind="task", text=text)
        self.soon(lambda: self.publish(event))

    # ------------------------------------------------------------------------------------------- events

    def publish(self, *events: wire.AnyEvent) -> None:
        """Tell everybody; on the event loop."""
        for event in events:
            self.board.note(event)
            self.agreements.note(event)
            self.service.send(event)
            self.mirror.note(event)

    async def note(self, kind: str, text: str, who: str = "") -> None:
        """Keep and tell a line."""
        event = wire.Noted(time=time.time(), step=self.step, kind=kind, text=text, who=who)
        self.publish(await self._kept(event, self.store.add_event, event))

    async def alarm(
        self, rule: str, message: str, *, level: str = "error", remedy: str = "", responses: Sequence[str] = ()
    ) -> None:
        """Raise an alarm that no rule over metrics covers."""
        alarm = Alarm(
            id=new_id(),
            time=time.time(),
            step=self.step,
            rule=rule,
            message=message,
            level="error" if level == "error" else "warn",
            responses=list(responses),
            remedy=remedy,
            branch=self.branch,
        )
        await self._raise_alarm(alarm)

    async def _raise_alarm(self, alarm: Alarm) -> None:
        event = wire.AlarmRaised(time=alarm.time, step=alarm.step, alarm=alarm)
        self.publish(await self._kept(event, self.store.put_alarm, alarm))

    async def _kept(
        self, event: wire.AnyEvent, function: Callable[..., wire.AnyEvent], *arguments: Any
    ) -> wire.AnyEvent:
        """An event as the store has kept it; where the disk will not have it, people are told all the same."""
        try:
            return await self.write(function, *arguments)
        except UNWRITABLE:
            traceback.print_exc()
            return event

    async def _persist(self, what: str, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do what must not be left out. While the disk will not have it the run is paused, and space tries again.

        :param what: is written, for the alarm.
        """
        while True:
            try:
                return await work()
            except UNWRITABLE as error:
                traceback.print_exc()
                if self.control.stopping:
                    raise
                self.control.pause("an error")
                text = f"{what} could not be written: {one_line(error)}"
                await self.alarm("disk", text, remedy="free some disk, then space tries again")
                await self.compute(self.control.safe_point)

    # --------------------------------------------------------------------------------------------- life

    async def serve(self) -> None:
        """Open the socket, load, train, leave; the whole life of the process."""
        self.begin()
        await self.service.start()
        try:
            run = asyncio.create_task(self.run())
            await run
        finally:
            self.ended = True
            self.reward.give_up()
            self.control.stop(now=True)  # a compute thread that is paused would hold up the end for ever
            await self.service.close()
            await self.mirror.close()
            self.reloader.close()
            if self.loaded and self.learner.task.named is not None:
                self.learner.task.named.close()
            await self.end(self.store.close)
            if self.exit_code == 0:
                self.folder.forget_engine()

    async def run(self) -> None:
        """Load the session and train until it is done, stopped or failed."""
        try:
            await self._load()
            if await warm_up(self):
                await self._train()
            await self._leave()
        except Stopping:  # while it was being brought to its newest step
            await self._leave()
        except WorkbenchError as error:
            self.failure, self.exit_code = str(error), error.exit_code
        except Exception as error:  # noqa: BLE001 - whatever it is, people should read it before the process ends
            traceback.print_exc()
            self.failure, self.exit_code = one_line(error), 1
        await self.saver.finish()
        if self.failure:
            self.service.state_word = "FAILED"
            await self.note("failed", self.failure)
            print(f"error: {self.failure}", flush=True)
        else:
            self.service.state_word = "DONE"
        self.service.beat_now()

    async def _load(self) -> None:
        self.control.phase = "loading"
        learner, knobs = self._training = await self.compute(self._build, self.settings, self.control, self.folder)
        self.first_values = knobs.values
        await self.write(check_prompts, self.store, learner.task)
        missing = await self.write(adopt, self.store, self.folder.checkpoints)
        if missing:
            await self.note("resumed", f"checkpoint {', '.join(missing)}: not on the disk any more")
        if await self.write(self.store.meta, "start_values") is None:
            await self.write(self.store.set_meta, "start_values", wire.encode_json(knobs.values))
        started = await self.write(self.store.meta, "start_values")
        self.board.start_values = msgspec.json.decode(started) if started else knobs.values
        self.board.task = learner.task.info()
        weights = self.board.task.components
        await self.write(self.store.set_meta, WEIGHTS, wire.encode_json(weights))
        self.watching = Watching(
            "bf16" if learner.policy.bf16 else "fp32",
            len(learner.task.evaluation),
            weights,
            await self.write(self.store.meta, KEY),
            self.settings.watches,
        )
        self.service.device = str(learner.policy.device)
        before = self.folder.last_exit()
        if before is not None and before.code != 0:
            await self.note("failed", f"the engine before this one: {before.cause}")
        self.folder.forget_last_exit()
        learner.training.budget.on_halved = lambda text: self.soon(self._short_of_memory, text)
        await self._see_to_the_start()
        await self.reward.take_given()
        await self.reloader.begin()
        self.warming = await prepare(self)
        self.control.run_through(True)
        try:
            await go_to(self, self.branch)
        finally:
            self.control.run_through(False)
        if learner.step == 0 and 0 not in self.board.checkpoints and self.warming is None:
            await self.checkpoint("start of RL")
        model, plan = await self.compute(_first_plan, learner)
        if self.settings.paused:
            self.control.pause("--paused")
        await self.note("started", f"{learner.task.name} on {learner.policy.device}, step {learner.step}")
        if self.settings.trust_remote_code:
            await self.note("trust", "code in the model's folder may run with all of your rights (--trust-remote-code)")
        for line in learner.task.notes:
            await self.note("task", line)
        if learner.policy.why_padded:
            why = learner.policy.why_padded
            await self.note("layout", f"responses are trained on as padded rows and not as trees of a group: {why}")
        settings = self.folder.settings()
        await self.note("model", f"{pinned(settings.model, settings.model_revision)}: {model}")
        await self.note("memory plan", plan)
        self.service.loaded()

    async def _see_to_the_start(self) -> None:
        """Make checkpoint 0, which is the reference, anew where it is damaged and the model still as it came."""
        start = self.folder.checkpoints / "0"
        if not start.exists() or self.settings.warm_up:
            return
        try:
            await self.compute(checkpoints.check, start)
        except Damaged as error:
            away = checkpoints.put_aside(self.folder.checkpoints, "0")
            await self.checkpoint("start of RL")
            text = f"{error}; it is left as {away}, and was made again from {self.settings.model}"
            await self.alarm("checkpoint", text, remedy="check the disk: what was written there has changed")

    async def show_branch(self) -> None:
        """Look at the branch that is trained: its records, for the watches and for everybody attached."""
        board = await self.write(Board, self.store, self.branch)
        board.task, board.start_values = self.board.task, self.board.start_values
        self.board, self.step, self._times = board, self.learner.step, None
        self.agreements.look_again()
        self.reward.look_again()
        self.watching.begin_again()
        newest = board.last_step.step if board.last_step is not None else 0
        self.watching.dog.remember(
            await self.write(self.store.steps, self.branch, newest - HISTORY), board.first_values()
        )  # fmt: skip
        self.service.show_again()

    async def checkpoint(self, reason: str, *, wait: bool = True) -> None:
        """Take a checkpoint of the finished step, now.

        :param wait: until it is on disk, as before anything that could need it; otherwise it is written meanwhile.
        """
        await self.saver.save(reason, wait=wait)
        self._saved_at = time.monotonic()

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the newest one was written long ago."""
        return time.monotonic() - self._saved_at > CHECKPOINT_SECONDS

    async def keep_present(self, reason: str) -> None:
        """See that what there is now can be gone on from: checkpoint it, unless it has one."""
        await self.saver.idle()
        saved = self.board.checkpoints.get(self.learner.step)
        if saved is None or self.rollout is not None or self.learner.reward_is_new:
            await self.checkpoint(reason)

    def held_rollout(self) -> HeldRollout | None:
        """On the compute thread: the scored groups that wait for their update, if the weights are those before it."""
        if self.rollout is None or self.learner.ranks > 1:
            return None
        step = self.rollout[0].record.step
        if self.learner.step >= step:
            return None
        learner, number = self.learner, self.learner.cursor - self.learner.step_cursor + 1
        held = self.write_now(hold, self.store, self.branch, step, self.rollout, number, learner.taken)
        return msgspec.structs.replace(held, logged=learner.logged)

    async def _leave(self) -> None:
        await self.saver.idle()
        if not self.control.stopping_now and self.warming is None:
            await self.compute(self.reward.take_up)
            await self.keep_present("end of the session")
        await self.note("ended", f"after step {self.learner.step}")

    def lose(self, why: str) -> None:
        """End as FAILED at the next safe point: there is nothing left to train for."""
        if not self.failure:
            self.failure, self.exit_code = why, 1
            self.stop(now=True)

    def stop(self, *, now: bool) -> None:
        """End the session at the next safe point; while it is still loading, as soon as it has loaded."""
        self.control.stop(now=now)
        self.gate.open()

    # --------------------------------------------------------------------------------------------- loop

    async def _train(self) -> None:
        try:
            while True:
                try:
                    await self.moves.make()
                    if self._done() and not self.control.pausing:
                        return
                    if self._unmeasured():
                        await self._measure_first()
                    await self._try_step(self.learner.step + 1)
                except Leaving:
                    continue  # where to is known at the top of the loop
        except Stopping:
            self.step = self.learner.step

    def _done(self) -> bool:
        """Whether the session has made the steps that it should."""
        return not self.moves.racing and 0 < self.settings.steps <= self.learner.step

    async def _try_step(self, step: int) -> None:
        """Make a step; what fails in it is told, and does not end the session before it has failed often."""
        self.step = step
        if self._done():  # paused all the same: people may want to go back, or elsewhere, before it ends
            await self.compute(self.control.begin_step, step)
            return
        try:
            await self._step(step)
            self._failures = 0
        except Discarded:
            who = self.control.discarded_by
            by = f" by {who}" if who else ""
            await self._drop("discarded", f"step {step} was discarded{by}; it starts again", who)
        except (Stopping, Leaving, WorkbenchError):
            raise
        except Exception as error:
            self._failures += 1
            if self._failures >= MOST_FAILURES:
                raise
            await self._failed(error)

    async def _failed(self, error: Exception) -> None:
        """A step could not be finished: keep what there is, pause, and say what and where."""
        traceback.print_exc()
        phase = self.control.phase
        self.control.pause("an error")
        await self.alarm(
            "step failed",
            f"step {self.step} failed while {phase}: {one_line(error)}",
            remedy="space tries the step again with the next prompts; the log has the whole trace",
            responses=list(getattr(error, "responses", ())),
        )
        await self._drop("error", f"step {self.step} was dropped: {one_line(error)}")

    async def _drop(self, kind: str, text: str, who: str = "") -> None:
        learner, step = self.learner, self.step
        learner.take_on()
        self.growth = self.rollout = self.held = None
        self.unfinished = Unfinished(0)
        dropped = Dropped(step=step, prompts=learner.cursor - learner.step_cursor, passes=self.knobs.passed(step))
        await self._persist(
            f"that step {step} was dropped", lambda: self.write(self.store.drop_try, self.branch, dropped)
        )
        heads = [h for h in self.board.heads.values() if h.step == self.step and h.status == "scored"]
        changed = [msgspec.structs.replace(h, status="discarded") for h in heads]
        self.publish(wire.GroupsChanged(time=time.time(), step=self.step, heads=changed))
        await self.note(kind, text, who)

    async def _step(self, step: int) -> None:
        learner = self.learner
        number = learner.cursor - learner.step_cursor + 1
        held, self.held = self.held, None
        if held is not None:
            self.rollout = groups = learner.take_up(held)
        begun = self.knobs.minibatches(step)
        times, groups = await self.compute(self._sample, step, number, None if held is None else groups)
        self.growth = None
        times.mark("sampling", within=learner.sampler.scoring_seconds, name="scoring")
        if held is None:
            groups = await self._keep_groups(step, groups)
        self.rollout = groups
        await self._see_to_rewards()
        if self.learner.reward_is_new and self.knobs.whole("checkpoint_steps"):
            await self.checkpoint("a new reward model", wait=False)
        await self._wait_for_ratings(step, groups)
        times.mark("waiting")
        inputs = UpdateInputs(
            cursor=learner.cursor, number=number, groups=[g.record.number for g in groups], minibatches=begun
        )
        metrics, learned, uses = await self.compute(self._learn, step, groups, inputs)
        self.rollout = None
        if uses:
            what = "what became of ratings"
            self.service.ratings_used(
                await self._persist(what, lambda: self.write(self.store.add_rating_uses, uses, step))
            )
        times.mark("updating")
        metrics |= await self._evaluation(step)
        times.mark("saving")
        await self._finish(step, groups, learned, metrics, times, inputs)

    async def _see_to_rewards(self) -> None:
        """Where a reward function's process has ended too often, pause before the update."""
        await self.reloader.look()
        named = self.learner.task.named
        if named is None or not named.process.stopped:
            return
        self.control.pause("an error")
        await self.alarm(
            "reward process",
            f"reward functions were not asked for the rest of step {self.step}: {named.process.stopped}",
            remedy="mend the function and `reload` it, or raise --reward-timeout; space goes on and asks it again",
        )

    async def _keep_groups(self, step: int, groups: list[RolloutGroup]) -> list[RolloutGroup]:
        """Commit the groups of a step, unless an engine that was killed had.

        :returns: those to learn from: of another device's samples those that people have rated.
        """
        replaced = self.learner.replaced
        for group in replaced:
            group.record.status = "replaced"
        unfinished, self.unfinished = self.unfinished, Unfinished(0)
        if unfinished.step == step and unfinished.groups:
            if as_they_were(unfinished, groups):
                return groups
            if await self.write(rated, self.store, unfinished.groups):
                text = f"step {step} was sampled otherwise than before; it learns from the groups that were rated"
                await self.note("resumed", text)
                self.learner.replaced = [RolloutGroup(group) for group in unfinished.replaced]
                return [RolloutGroup(group) for group in unfinished.groups]
        records = [g.record for g in (*replaced, *groups)]
        await self._persist(f"the groups of step {step}", lambda: self.write(self.store.add_groups, records))
        self.publish(wire.GroupsScored(time=time.time(), step=step, heads=[head_of(record) for record in records]))
        return groups

    def _begin(self, step: int, *, sampled: bool = False) -> None:
        """A step begins, and changes with boundary rollout take effect."""
        try:
            scheduled = self.knobs.begin_step(step)
        except InvalidValue as error:  # people have changed what the scheduled values were to go with
            self.soon(self._left_out, step, str(error))
            scheduled = self.knobs.begin_step(step)
        if scheduled:
            self.soon(self.service.orders.changes_accepted, scheduled)
        self.control.phase = "idle"
        self.control.begin_step(step)
        if not sampled:
            self._apply("rollout", step)
            self.reward.take_up()
        self.reloader.take_up()
        if (weights := self.knobs.reward_weights()) != self._weights:
            self._weights = weights
            self.soon(self._weigh, weights)

    def _weigh(self, weights: dict[str, float]) -> None:
        """On the event loop: reward components have these weights now."""
        task = self.board.task
        if task is not None:
            now = {name: weights.get(name, weight) for name, weight in task.components.items()}
            if now != task.components:
                self.board.task = msgspec.structs.replace(task, components=now)
                self.watching.weigh(now)

    def _sample(self, step: int, number: int, groups: list[RolloutGroup] | None) -> tuple[Times, list[RolloutGroup]]:
        """On the compute thread: begin a step, and sample and score its groups, numbered from ``number``.

        :param groups: that were sampled before the training left the step; None: none were.
        """
        self._begin(step, sampled=groups is not None)
        times, self._times = Times(self.control, self._times), None
        if groups is not None:
            return times, groups
        known = self.unfinished if self.unfinished.step == step else Unfinished(0)
        recorded = {group.number: group for group in (*known.groups, *known.replaced)}
        return times, self.learner.sample(step, number, self._grow, recorded)

    def _short_of_memory(self, text: str) -> None:
        remedy = "fewer --micro-tokens, responses or tokens need no second try"
        self.spawn(self.alarm("memory", text, level="warn", remedy=remedy))

    def _left_out(self, step: int, why: str) -> None:
        text = f"what --set asks for at step {step} is left out: {why}"
        self.spawn(self.alarm("schedule", text, level="warn", remedy="set what you want of it by hand"))

    def _apply(self, boundary: Any, step: int) -> None:
        applied: list[Change] = self.knobs.apply(boundary, step)
        if applied:
            self.soon(self.service.orders.changes_applied, applied)

    def _grow(self, prompts: Sequence[Prompt], growth: Growth) -> None:
        self.growth = (prompts, growth)

    async def _wait_for_ratings(self, step: int, groups: Sequence[RolloutGroup]) -> None:
        texts = {g.record.name: {r.letter: r.text for r in g.record.responses} for g in groups}
        self.gate.open_for(self.knobs.text("rating_gate"), texts)
        if self.gate.closed:
            for name, letters in (await self.write(self.store.judged, self.branch, step)).items():
                self.gate.judged(name, letters)
            self.control.phase, self.control.done, self.control.total = "waiting", 0, self.gate.wanted
            await self.service.wait_at(self.gate)
        self.gate.leave()

    def _learn(
        self, step: int, groups: list[RolloutGroup], inputs: UpdateInputs
    ) -> tuple[dict[str, float], list[RolloutGroup], list[RatingUse]]:
        """On the compute thread: ratings, advantages and the update.

        :param inputs: gets what the update is given.

        Ratings are collected as late as can be: a rating given while the run is paused before its update is in time.
        """
        learner = self.learner
        self.control.begin("updating")
        self._apply("update", step)
        learner.measure_reference(step, groups)
        candidates, standing = self.write_now(self._ratings, step, [g.record for g in groups])
        late = learner.late_groups([c.group for c in candidates if c.group is not None])
        drifts = {g.record.name: learner.drift(g.record, self.control.safe_point) for g in late}
        joining = [g for g in late if drifts[g.record.name] <= learner.drift_limit()]
        rollout = [*groups, *joining]
        if standing is None:
            learner.measure_reference(step, joining)
            standing = self.write_now(self._standing, step, [g.record for g in rollout])
        inputs.late = [g.record.name for g in joining]
        inputs.ratings = {name: [rating.id for rating in given] for name, given in standing.ratings.items() if given}
        learner.advantages(rollout, standing.ratings)
        self._broken = learner.audit(rollout)
        metrics = learner.update(step, rollout, lambda: self._apply("minibatch", step))
        metrics["invariants/broken"] = float(len(self._broken))
        uses = fates(step, candidates, drifts, learner.drift_limit(), rollout, standing)
        for use in uses:
            use.branch = self.branch
        metrics["ratings/used"] = float(sum(u.step == step for u in uses))
        return metrics, rollout, uses

    def _ratings(self, step: int, groups: Sequence[Group]) -> tuple[list[Candidate], Standing | None]:
        """On the store's thread: groups of earlier steps that may join; if there are none, the ratings for the update
        too, for which nothing has to be computed first."""
        candidates = collect(self.store, self.branch, step, self.learner.drift_limit())
        return candidates, None if candidates else self._standing(step, groups)

    def _standing(self, step: int, groups: Sequence[Group]) -> Standing:
        """On the store's thread, where ratings are written: what is rated from here on is late."""
        self.rated_step = step
        return standing_for(self.store, self.branch, groups)

    def try_update(self, algorithm: str) -> Preview:
        """On the compute thread: the update that the step in progress would make, with the present ratings and the
        changes that wait for it.

        :raises WorkbenchError: if it cannot be tried.
        """
        from engine.preview import own_copies, preview

        learner, store, step = self.learner, self.store, self.step
        if self.rollout is None:
            raise SessionError(f"step {step} has no scored responses to try")
        if learner.ranks > 1:
            raise Refused("a preview needs a session of one process")
        groups = own_copies(self.rollout)
        candidates = self.write_now(collect, store, self.branch, step, learner.drift_limit())
        late = learner.late_groups([c.group for c in candidates if c.group is not None])

        def rollout(trial: Training) -> list[RolloutGroup]:
            limit, safe_point = learner.drift_limit(), trial.control.safe_point
            return [*groups, *(g for g in late if learner.drift(g.record, safe_point) <= limit)]

        standing = self.write_now(standing_for, store, self.branch, [g.record for g in (*groups, *late)])
        coming = {c.name: c.new for c in self.knobs.pending if c.boundary != "rollout"}
        return preview(
            learner.training,
            step,
            learner.seed,
            rollout,
            standing.ratings,
            algorithm,
            {**self.knobs.values, **coming},
        )

    async def _evaluation(self, step: int) -> dict[str, float]:
        every = self.knobs.whole("evaluate_every")
        if not every or step % every or not self.learner.task.evaluation:
            return {}
        result = await self._evaluated()
        if result is None:
            return {}
        await self.keep_evaluation(step, result)
        return result.metrics

    async def _evaluated(self, most: int | None = None) -> Evaluation | None:
        """Answer the held-out prompts; None where that fails: the step is learned all the same, and must be recorded.

        :param most: so many of them; None: all.
        """
        try:
            return await self.compute(self.learner.evaluate, most, None if most is None else 0)
        except (Stopping, Leaving):
            raise
        except Exception as error:  # noqa: BLE001 - a judge of the user's, or memory that ran out
            traceback.print_exc()
            self.control.pause("an error")
            await self.alarm(
                "evaluation",
                f"the evaluation after step {self.learner.step} failed: {one_line(error)}",
                remedy="space goes on without it; the log has the whole trace",
            )
            return None

    async def keep_evaluation(self, step: int, result: Evaluation, who: str = "", *, measured: bool = False) -> None:
        """Keep and tell an evaluation.

        :param measured: whether the step is on record already, without its figures.
        """
        await self._keep_probes(step, result)
        evaluation = HeldOut(
            branch=self.branch,
            step=step,
            time=time.time(),
            answers=result.answers,
            who=who,
            temperature=self.knobs.number("eval_temperature"),
            metrics=result.metrics,
        )
        keep = partial(self.store.add_held_out, evaluation, measured=measured)
        self.publish(await self._persist(f"the evaluation after step {step}", lambda: self.write(keep)))

    async def _keep_probes(self, step: int, result: Evaluation) -> None:
        probes = [
            Probe(
                branch=self.branch,
                step=step,
                place=place,
                prompt=a.prompt,
                answer=a.reference,
                text=a.greedy.text,
                right=bool(a.greedy.right),
            )
            for place, a in enumerate(result.answers[:PROBES])
        ]
        await self._persist("the answers to the probe prompts", lambda: self.write(self.store.add_probes, probes))

    async def probe(self) -> None:
        """Have the branch's newest policy answer the probe prompts, so that branches can be compared where they are."""
        known = await self.write(self.store.probes, self.branch)
        if not self.learner.task.evaluation or any(p.step == self.learner.step for p in known):
            return
        if (result := await self._evaluated(PROBES)) is not None:
            await self._keep_probes(self.learner.step, result)

    def _unmeasured(self) -> bool:
        """Whether the policy should be evaluated before the first step, and has not been."""
        evaluates = self.knobs.whole("evaluate_every") and self.learner.task.evaluation
        return self.learner.step == 0 and bool(evaluates) and self.board.last_step is None

    async def _measure_first(self) -> None:
        """The held-out accuracy before the first step, as step 0."""
        self.step = 1
        await self.compute(self.control.begin, "idle")  # a pause before the first step is one before this too
        self.step = 0
        if not self._unmeasured():  # somebody has asked for it meanwhile
            return
        known, self.evaluated = self.evaluated, None
        result = known if known is not None else await self.compute(self.learner.evaluate)
        await self.keep_first_evaluation(result)

    async def keep_first_evaluation(self, result: Evaluation, who: str = "") -> None:
        """Keep and tell an evaluation before the first step, as step 0."""
        await self.keep_evaluation(0, result, who)
        metrics: dict[str, float | None] = dict(result.metrics)
        await self.keep_step(
            StepRecord(branch=self.branch, step=0, time=time.time(), metrics=metrics, values=self.knobs.values)
        )

    async def keep_step(self, record: StepRecord) -> None:
        """Keep and tell a step that no group belongs to."""
        keep = self.settings.keep_token_steps
        what = f"step {record.step} of {record.branch}"
        self.publish(await self._persist(what, lambda: self.write(self.store.add_step, record, [], keep)))

    async def _finish(
        self,
        step: int,
        groups: Sequence[RolloutGroup],
        learned: Sequence[RolloutGroup],
        metrics: dict[str, float],
        times: Times,
        inputs: UpdateInputs,
    ) -> None:
        for group in learned:
            group.record.status = "updated"
        tokens = sum(r.length for g in groups for r in g.record.responses)
        metrics |= times.metrics(tokens)
        self._times = times
        metrics["loop/lag"] = self.service.take_lag()
        metrics |= self.reward.figures()
        metrics |= await self._agreements()
        record = StepRecord(
            branch=self.branch,
            step=step,
            time=time.time(),
            metrics={name: value if _finite(value) else None for name, value in metrics.items()},
            nonfinite=[name for name, value in metrics.items() if not _finite(value)],
            advantages=[a for g in groups for a in g.advantages],
            values=self.knobs.values,
            trust_region=self.learner.training.trust_region,
            inputs=inputs,
            reward_code=self.reloader.used,
        )
        self.timings = [*self.timings[-19:], metrics["time/step"]]
        if self.learner.planner is not None:
            self.learner.planner.record(step, record.values, [*self.learner.replaced, *groups], metrics)
        records = [g.record for g in learned]
        keep = self.settings.keep_token_steps
        done, heads = await self._persist(
            f"step {step}", lambda: self.write(self._add_step, record, records, keep)
        )  # fmt: skip
        self.learner.reward_untold = False
        self.publish(done, wire.GroupsChanged(time=time.time(), step=step, heads=heads))
        if self.learner.curriculum is not None and self.learner.curriculum.moved:
            await self.note("curriculum", self.learner.curriculum.moved)
        asked = await self._watch(record, records)
        await self.reward.after_step()
        if self.control.end_step():
            await self.compute(self.control.finish_step)
        every = self.knobs.whole("checkpoint_steps")
        late = every and self.checkpoint_is_due
        if asked or late or (every and step % every == 0):
            self.control.phase = "saving"
            await self.checkpoint(asked or (f"every {every} steps" if step % every == 0 else "5 minutes"), wait=False)

    async def _agreements(self) -> dict[str, float]:
        """How far people agree, measured anew where a rating has come or gone since the last step."""
        if self.agreements.known is not None:
            return self.agreements.known
        ratings, came = list(self.board.ratings.values()), self.agreements.came
        try:
            return await self.write(self.agreements.measure, ratings, self._group_of, self.branch, came)
        except UNWRITABLE:  # the step is made, and must be recorded without them
            traceback.print_exc()
            return {}

    def _group_of(self, rating: Rating) -> Group | None:
        """On the store's thread: the group that a rating is about, without its tokens."""
        name = ResponseName(rating.step, rating.group, branch=rating.branch)
        with contextlib.suppress(InvalidValue):
            return self.store.group(name, rating.branch, tokens=False)
        return None

    async def _watch(self, record: StepRecord, groups: Sequence[Group]) -> str:
        """Raise the alarms of a step, and do what their watches say.

        :returns: why a checkpoint is wanted; empty if none is.
        """
        asked = ""
        for watch, alarm in self.watching.dog.look(
            record, Evidence(groups, self._broken, self.agreements.blamed), self.board.alarms.values()
        ):
            message = f"{alarm.message}: {why}" if (why := first_failure(watch, groups)) else alarm.message
            await self._raise_alarm(msgspec.structs.replace(alarm, message=message, branch=self.branch))
            if watch.action == "pause":
                self.control.pause(f"alarm: {watch.name}")
            elif watch.action == "checkpoint":
                asked = f"alarm: {watch.name}"
        return asked

    def _add_step(
        self, record: StepRecord, groups: Sequence[Group], keep: int
    ) -> tuple[wire.AnyEvent, list[GroupHead]]:
        """On the store's thread: keep a step; its groups as people see them from here on."""
        return self.store.add_step(record, groups, keep), self.store.heads_of(groups)


def _first_plan(learner: Learner) -> tuple[str, str]:
    """On the compute thread: have the learner's steps planned; the model, and what the first should take, in words."""
    from engine.plan import Planner

    learner.planner = Planner(learner)
    return learner.planner.model(), learner.planner.plan({}).at_the_start()


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")
