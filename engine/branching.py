"""Going elsewhere: back to a step, to another branch, to a new one, and races of algorithms.

What a person asks for waits until the training may leave the step in progress: at once before its update, else after
it. The present state is checkpointed first, with the groups that wait for their update, so that whoever comes back
goes on from there bit for bit. Then the records are changed in one transaction, and the learner is brought to where
they say: an engine that is killed anywhere in between goes on from what the records say.
"""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING

import msgspec

from engine.knobs import Knobs
from engine.resuming import go_to
from engine.threads import UNWRITABLE
from engine.words import one_line
from sessions import checkpoints, wire
from sessions import commands as c
from sessions.branches import Branch, check_branch_name, find_branch, owner_of
from sessions.checkpoints import NotFinite
from sessions.errors import InvalidValue, Refused, WorkbenchError
from sessions.hyperparameters import Value
from sessions.presets import preset
from sessions.records import MAIN, Change, Record

if TYPE_CHECKING:
    from engine.engine import Engine

RACE = "race"
"""Where the database's meta table has the race that is under way."""
Move = c.Rewind | c.Fork | c.Switch | c.RenameBranch | c.Race


class RaceState(Record):
    """A race under way.

    :ivar source: the branch whose step ``step`` all racers begin at.
    :ivar steps: that each takes.
    :ivar begun: the racers' branches so far, in the order of ``algorithms``.
    :ivar home: the branch that was trained before it.
    """

    number: int
    source: str
    step: int
    steps: int
    algorithms: list[str]
    values: dict[str, Value] = {}
    begun: list[str] = []
    home: str = MAIN


class Moves:
    """What one engine has been asked to go to; everything runs on the event loop.

    :ivar going: whether it is between two places: what anybody sets would belong to neither.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wanted: Move | None = None
        self._last: Move | None = None
        self._arrived = False
        self.going = False
        kept = engine.store.meta(RACE)
        self._race = msgspec.json.decode(kept, type=RaceState) if kept else None

    @property
    def racing(self) -> bool:
        """Whether the steps that are made belong to a race."""
        return self._race is not None

    @property
    def note(self) -> str:
        """How far a race is, one line; empty without one."""
        race = self._race
        if race is None or not race.begun:
            return ""
        done = max(0, self._engine.learner.step - race.step)
        return f"race {race.number}: {race.algorithms[len(race.begun) - 1]}, {done} of {race.steps} steps"

    # ------------------------------------------------------------------------------------------------ asking

    async def ask(self, command: Move) -> str:
        """Take on what a person asks for.

        :returns: what will happen, one line.
        :raises Refused: if it cannot be now.
        :raises UsageError: if it cannot be at all.
        """
        engine = self._engine
        if engine.warming is not None:
            raise Refused("not before the first step: there is no checkpoint to go back to yet")
        self.check_there()
        if self.racing and not (isinstance(command, c.Race) and not command.algorithms):
            raise Refused("a race is under way; `race stop` gives it up")
        text = await self._check(command)
        self.check_there()  # somebody else may have been quicker
        self._wanted = command
        engine.control.leave()
        return text

    def check_there(self) -> None:
        """Refuse what cannot be asked for while the training goes elsewhere.

        :raises Refused: if it does, or will.
        """
        if self._wanted is not None:
            what = f"{self._wanted.who}'s {self._wanted.__struct_config__.tag}"
            raise Refused(f"{what} is under way: the training goes to another step or branch; look again in a moment")
        if self.going:
            raise Refused("a race goes on with its next algorithm; look again in a moment")

    async def _check(self, command: Move) -> str:
        engine, store = self._engine, self._engine.store
        branches = await engine.write(store.branches)
        expected = getattr(command, "expect", "")
        if expected and expected != engine.branch:
            by = f" ({self._last.who}'s {self._last.__struct_config__.tag})" if self._last is not None else ""
            raise Refused(f"branch {engine.branch} is trained now{by}, not {expected}; look again")
        match command:
            case c.Rewind(step=step):
                self._check_step(step, engine.learner.step)
                saved = [x.step for x in await engine.write(store.checkpoints, engine.branch) if x.step <= step]
                first = max(saved, default=0) + 1
                again = f", computing {_steps(first, step)} again" if first <= step < engine.learner.step else ""
                return f"goes back to step {step}{again}, and keeps what came after it on a branch of its own"
            case c.Fork():
                check_branch_name(command.name)
                self._check_free(command.name, branches)
                source = find_branch(command.source or engine.branch, branches).name
                await self._step_of(command.step, source)
                await self._changes(command, source, await self._step_of(command.step, source))
                return f"starts branch {command.name}"
            case c.Switch(branch=name):
                if find_branch(name, branches).name == engine.branch:
                    raise Refused(f"branch {name} is the one that is trained")
                return f"goes to branch {name}"
            case c.RenameBranch():
                find_branch(command.branch, branches)
                self._check_free(check_branch_name(command.name), branches)
                if command.branch == MAIN:
                    raise Refused("main keeps its name; fork from it to have another")
                return f"renames {command.branch} to {command.name}"
            case c.Race(algorithms=[]):
                if not self.racing:
                    raise Refused("there is no race under way")
                return "gives the race up"
            case c.Race():
                if command.steps < 1 or len(set(command.algorithms)) < max(2, len(command.algorithms)):
                    raise InvalidValue("a race needs at least two algorithms, each once, and steps")
                step = await self._step_of(command.step, engine.branch)
                for algorithm in command.algorithms:
                    engine.learner.check_algorithm(algorithm)
                    wanted = c.Fork(name="x", values={"algorithm": algorithm, **command.values}, who=command.who)
                    await self._changes(wanted, engine.branch, step)
                return f"races {', '.join(command.algorithms)} for {command.steps} steps from step {step}"

    def _check_free(self, name: str, branches: dict[str, Branch]) -> None:
        if name in branches:
            raise InvalidValue(f"there is a branch {name} already; choose another name")

    def _check_step(self, step: int, newest: int) -> None:
        if not 0 <= step <= newest:
            raise InvalidValue(f"there is no step {step} to go to; they are 0 to {newest}")

    async def _step_of(self, step: int, branch: str) -> int:
        """A step of a branch's line; -1: its newest."""
        engine = self._engine
        last = await engine.write(engine.store.last_step, branch)
        newest = engine.learner.step if branch == engine.branch else last.step if last else 0
        if step < 0:
            return newest
        self._check_step(step, newest)
        return step

    async def _changes(self, fork: c.Fork, source: str, step: int) -> list[Change]:
        """What is to be different on a new branch, as changes that wait for its first step.

        :raises InvalidValue: if they do not go together, or with the values there.
        """
        engine = self._engine
        record = await engine.write(engine.store.step, source, step)
        values = record.values if record is not None and record.values else engine.first_values
        if step == engine.learner.step and source == engine.branch:
            values = engine.knobs.values
        knobs = Knobs({**engine.first_values, **values}, mismatch=engine.settings.allow_sampler_mismatch)
        knobs.branch = fork.name
        wanted = dict(fork.values)
        if fork.preset:
            wanted = {**preset(fork.preset).settings(knobs.whole("max_new_tokens")), **wanted}
        if "algorithm" in wanted:
            engine.learner.check_algorithm(str(wanted["algorithm"]))
        changes, _ = knobs.request(c.Set(values=wanted, who=fork.who), step + 1)
        return changes

    # ------------------------------------------------------------------------------------------------ going

    async def make(self) -> None:
        """Go where somebody wants to, or where a race goes next; between steps, while nothing is computed."""
        command, engine = self._wanted, self._engine
        engine.control.left()
        engine.control.run_through(True)  # who is paused stays so, and arrives all the same
        self.going, self._arrived = command is not None or self._racer_is_done(), False
        try:
            if self.going:
                async with engine.saver.moving():
                    await engine.service.orders.changes_kept()
                    if command is not None:
                        await self._obey(command)
                    await self._race_on()
        finally:
            self._wanted, self.going = None, False
            engine.control.run_through(False)

    async def _obey(self, command: Move) -> None:
        engine, before = self._engine, self._engine.branch
        try:
            text = await self._go(command)
        except (WorkbenchError, *UNWRITABLE) as error:
            text = str(error)
            if not isinstance(error, WorkbenchError):
                traceback.print_exc()
                text = f"it could not be written: {one_line(error)}; free some disk and try again"
            await self._stay(before)
            engine.service.orders.refused(command.id, text)
            return
        self._last = command
        if isinstance(command, c.Race) and command.algorithms and engine.control.pausing:
            await engine.service.orders.go_on(command.who)  # nobody asks for a race to wait
        await engine.note("branch", f"{command.who}: {text}", command.who)
        engine.service.orders.done(command.id, engine.learner.step, text)

    async def _stay(self, branch: str) -> None:
        """Go on where the training was left, with the groups that wait for their update."""
        engine = self._engine
        if self._arrived and engine.control.stopping:
            engine.control.stop(now=True)  # the next engine goes on from what the records say
        elif self._arrived:
            await engine.write(engine.store.use_branch, branch)
            await self._arrive(branch)
        elif engine.rollout is not None:
            engine.held = await engine.compute(engine.held_rollout)
            engine.rollout = None

    async def _keep(self, reason: str) -> None:
        """See that the present state can be come back to; where its weights are none any more, from before them."""
        engine = self._engine
        try:
            await engine.keep_present(reason)
        except NotFinite:
            step = engine.learner.step
            text = f"the weights of step {step} are not finite: no checkpoint of it is kept, its records are"
            await engine.note("checkpoint", text)

    async def _go(self, command: Move) -> str:
        """Do it.

        :returns: what was done, one line.
        """
        engine, store, here = self._engine, self._engine.store, self._engine.branch
        await self._check(command)  # what was asked for may have become something else while it waited
        match command:
            case c.Rewind(step=step):
                left = engine.learner.step
                await self._keep(f"before a rewind to step {step}")
                name, moved = await engine.write(store.rewind, here, step, f"{command.who} went back from {left}")
                await self._arrive(here)
                kept = f"; {moved} steps are kept on {name}" if name else ""
                return f"went back from step {left} to {engine.learner.step} of {here}{kept}"
            case c.Fork():
                source = command.source or here
                step = await self._step_of(command.step, source)
                changes = await self._changes(command, source, step)
                await self._leave()
                await self._fork(command.name, source, step, f"{command.who} forked it", changes, command.seed)
                return f"started branch {command.name} at step {step} of {source}"
            case c.Switch(branch=name):
                await self._leave()
                await engine.write(store.use_branch, name)
                await self._arrive(name)
                return f"went from {here} to step {engine.learner.step} of {name}"
            case c.RenameBranch():
                await self._keep("before a branch is renamed")
                await engine.write(store.rename_branch, command.branch, command.name)
                await self._arrive(command.name if command.branch == here else here)
                return f"renamed {command.branch} to {command.name}"
            case c.Race(algorithms=[]):
                number = self._race.number if self._race else 0
                await self._end_race()
                return f"gave race {number} up"
            case c.Race():
                step = await self._step_of(command.step, here)
                taken = await engine.write(store.branches)
                number = next(n for n in range(1, 1_000_000) if not any(b.startswith(f"race-{n}-") for b in taken))
                race = RaceState(
                    number=number,
                    source=here,
                    step=step,
                    steps=command.steps,
                    algorithms=command.algorithms,
                    values=command.values,
                    home=here,
                )
                await self._leave()
                await engine.write(store.set_meta, RACE, wire.encode_json(race))
                self._race = race
                return f"race {number} begins: {', '.join(command.algorithms)}, {command.steps} steps from step {step}"

    async def _leave(self) -> None:
        """See that the present branch can be compared and come back to."""
        await self._keep(f"before leaving {self._engine.branch}")
        await self._engine.probe()

    async def _fork(
        self, name: str, source: str, step: int, why: str, changes: list[Change], seed: int | None, race: str = ""
    ) -> None:
        engine, store = self._engine, self._engine.store
        line = await engine.write(store.line, source)
        parent = owner_of(line, step) if step else source
        if seed is None and parent != source:  # at the very step where the source begins, or before
            branches = await engine.write(store.branches)
            seed = branches[source].seed if step >= branches[source].step else None
        branch = Branch(name=name, parent=parent, step=step, time=time.time(), why=why, seed=seed)
        await engine.write(store.add_branch, branch, changes, {RACE: race} if race else {})
        await self._arrive(name)

    async def _arrive(self, branch: str) -> None:
        """Bring the learner to a branch's newest step."""
        engine, self._arrived = self._engine, True
        await engine.saver.idle()
        engine.rollout = engine.growth = None
        engine.timings = []
        await go_to(engine, branch)
        if engine.learner.step:
            await self._keep(f"start of {branch}")

    # ------------------------------------------------------------------------------------------------- racing

    def _racer_is_done(self) -> bool:
        """Whether it is the next racer's turn, or the race is over."""
        race, engine = self._race, self._engine
        return race is not None and not (
            engine.branch in race.begun and engine.learner.step < race.step + race.steps
        )  # fmt: skip

    async def _race_on(self) -> None:
        """Let the next racer run, if this one has made its steps."""
        if not self._racer_is_done():
            return
        try:
            await self._next_racer()
        except WorkbenchError as error:
            await self._end_race()
            self._engine.control.pause("an error")
            await self._engine.alarm("race", f"the race could not go on, and is over: {error}")

    async def _next_racer(self) -> None:
        race, engine = self._race, self._engine
        assert race is not None
        if engine.branch in race.begun:
            await self._leave()
        if len(race.begun) == len(race.algorithms):
            await self._end_race()
            names = " ".join(race.begun)
            await engine.note("race", f"race {race.number} is over: workbench compare {engine.folder.name} {names}")
            engine.control.pause("the race, which is over")
            return
        algorithm = race.algorithms[len(race.begun)]
        name = f"race-{race.number}-{algorithm}"
        fork = c.Fork(name=name, values={"algorithm": algorithm, **race.values}, who=f"race {race.number}")
        changes = await self._changes(fork, race.source, race.step)
        self._race = race = msgspec.structs.replace(race, begun=[*race.begun, name])
        why = f"{algorithm} in race {race.number}"
        await self._fork(name, race.source, race.step, why, changes, None, wire.encode_json(race))
        await engine.note("race", f"{name} begins at step {race.step} of {race.source}")

    async def _end_race(self) -> None:
        race, engine = self._race, self._engine
        if race is None:
            return
        await self._keep("end of a race")
        await engine.write(engine.store.end_race, race.home)
        self._race = None
        await self._arrive(race.home)

    # ----------------------------------------------------------------------------------------------- deleting

    async def delete(self, name: str) -> str:
        """Forget a branch and its checkpoints.

        :raises Refused: if others begin on it, or it is trained.
        """
        engine, store = self._engine, self._engine.store
        branches = await engine.write(store.branches)
        branch = find_branch(name, branches)
        children = [b.name for b in branches.values() if b.parent == name and not b.deleted]
        if name == engine.branch or self._wanted is not None or self.racing:
            raise Refused(
                f"branch {name} cannot be deleted while the session trains it or goes elsewhere; switch first"
            )
        if name == MAIN:
            raise Refused("main cannot be deleted; delete the session instead")
        if children:
            raise Refused(f"branch {name} is where {', '.join(children)} began; delete that first")
        saved = await engine.write(store.delete_branch, branch.name)
        await engine.beside(checkpoints.remove, engine.folder.checkpoints, [found.path for found in saved])
        engine.board.branches = [b for b in engine.board.branches if b.name != name]
        engine.service.show_again()
        return f"deleted {name}; what people rated on it is kept"


def _steps(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"
