"""Reloading the code of reward functions while a session trains: loaded in another process, tried on responses that
are scored already, the difference shown; used when somebody says so.

Responses that wait for their update when the code is taken up get the rewards that it gives; what has been learned
stays as it was. Code that cannot be used is refused, and the code in use stays.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from engine.rewards.component import Component
from engine.rewards.named import NamedRewards
from engine.rewards.process import RewardProcess
from engine.scoring import values_of, weighted
from engine.shaping import OVERLONG, TRUNCATION
from engine.tasks.dataset import PromptRows
from engine.words import one_line
from sessions import commands as c
from sessions import wire
from sessions.errors import Refused, WorkbenchError
from sessions.records import REWARD_MODEL, Group, GroupHead, Response
from sessions.reward_reloads import RewardReload, component_change
from sessions.store import Store

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.tasks import Prompt, Task

CODE = "reward_code"
"""Where the database's meta table has the hashes of the code that was used last."""

Values = tuple[dict[str, float | None], str]
"""Of one response: component -> value, and ``component: reason`` of the first that failed."""


@dataclass
class Reloaded:
    """Code that is loaded and not in use.

    :ivar found: name of a group -> what it makes of its responses.
    """

    process: RewardProcess
    found: dict[str, list[Values]] = field(default_factory=dict)


class Reloader:
    """Loads reward code anew for an engine; on the event loop, but for :meth:`take_up`.

    :ivar used: component -> hash of the code that scored the newest step.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._busy = False
        self._ready: Reloaded | None = None
        self._coming: tuple[Reloaded, c.Reload] | None = None
        self._trying: RewardProcess | None = None
        self._known: dict[str, str] = {}
        self.used: dict[str, str] = {}

    def close(self) -> None:
        """The session ends."""
        reloaded = (self._ready, self._coming[0] if self._coming else None)
        for process in (self._trying, *(r.process for r in reloaded if r is not None)):
            if process is not None:
                process.close()

    def _try(self, process: RewardProcess) -> None:
        self._trying = process

    # ------------------------------------------------------------------------------------- what is in use

    async def begin(self) -> None:
        """The session is loaded: say which code scores it, and whether that has changed since it was left."""
        engine, named = self._engine, self._engine.learner.task.named
        if named is None:
            return
        now = named.process.code
        kept = await engine.write(engine.store.meta, CODE)
        before = msgspec.json.decode(kept, type=dict[str, str]) if kept else {}
        changed = [f"{n} {before[n] or '?'} -> {code or '?'}" for n, code in now.items() if before.get(n, code) != code]
        if changed:
            text = f"the code has changed since the session was left: {', '.join(changed)}; what is scored is kept"
            await engine.note("reward code", text)
        elif not before:
            await engine.note("reward code", ", ".join(f"{n} {code or '(no file)'}" for n, code in now.items()))
        self.used = self._known = dict(now)
        await engine.write(engine.store.set_meta, CODE, wire.encode_json(now))

    async def look(self) -> None:
        """The groups of a step are scored: say if a process that was started again has loaded other code."""
        engine, named = self._engine, self._engine.learner.task.named
        if named is None:
            return
        now = dict(named.process.code)
        self.used = now
        if now != self._known:
            known, self._known = self._known, now
            changed = [f"{n} {known.get(n) or '?'} -> {code or '?'}" for n, code in now.items() if known.get(n) != code]
            await engine.note("reward code", f"the process was started again with other code: {', '.join(changed)}")
            await engine.write(engine.store.set_meta, CODE, wire.encode_json(now))

    # ------------------------------------------------------------------------------------------ commands

    async def ask(self, command: c.Reload) -> str:
        """Somebody wants the code loaded, or used.

        :returns: what will happen.
        :raises Refused: if it cannot be.
        """
        engine = self._engine
        named = engine.learner.task.named
        if named is None:
            raise Refused("no reward of this session is a function of a file or a module: there is nothing to reload")
        if engine.learner.ranks > 1:
            raise Refused("reloading needs a session of one process")
        if self._busy:
            raise Refused("reward code is being loaded already")
        if command.use and self._ready is None:
            raise Refused("there is no reloaded code to use; `reload` loads it and shows what it changes")
        self._busy = True
        engine.spawn(self._serve(command, named))
        return "takes up the reloaded code" if command.use else "loads the code and tries it beside the training"

    async def _serve(self, command: c.Reload, named: NamedRewards) -> None:
        try:
            await (self._use(command, named) if command.use else self._load(command, named))
        except Exception as error:  # noqa: BLE001 - whoever asked should read it, and the training go on
            if not isinstance(error, WorkbenchError):
                traceback.print_exc()
            text = str(error) if isinstance(error, WorkbenchError) else one_line(error)
            self._engine.service.orders.refused(command.id, f"{text}; the code in use stays")
        finally:
            self._busy, self._trying = False, None

    async def _load(self, command: c.Reload, named: NamedRewards) -> None:
        engine = self._engine
        process = await asyncio.to_thread(named.fresh, self._try)
        if self._ready is not None:
            self._ready.process.close()
        self._ready = ready = Reloaded(process)
        groups, waiting = await self._groups()
        ready.found = await asyncio.to_thread(
            _score, engine.learner.task, named, process, groups, engine.settings.steps
        )
        told = _difference(named, process, groups, ready.found, waiting=waiting)
        codes = ", ".join(f"{x.name} {x.old_code or '?'} -> {x.code or '?'}" for x in told.components)
        changes = sum(x.changed for x in told.components)
        text = f"{command.who} reloaded {codes}: {changes} values of step {told.step} change; not in use yet"
        await engine.note("reward code", text, command.who)
        data = wire.encode_json(told)
        engine.service.orders.done(command.id, engine.step, told.describe(), data)

    async def _groups(self) -> tuple[list[Group], bool]:
        """Those that wait for their update, or else those of the newest step."""
        if waiting := self._waiting():
            return waiting, True
        return await self._engine.write(_newest, self._engine.store, self._engine.branch), False

    def _waiting(self) -> list[Group]:
        """Those that wait for their update; also those that an engine which ended has left of the step that comes."""
        engine = self._engine
        if engine.rollout is None:
            unfinished = engine.unfinished
            begun = engine.control.phase in ("sampling", "scoring")
            return [] if begun or unfinished.step != engine.learner.step + 1 else unfinished.groups
        records = [group.record for group in engine.rollout]
        return records if engine.rated_step != records[0].step else []

    async def _use(self, command: c.Reload, named: NamedRewards) -> None:
        ready, self._ready = self._ready, None
        assert ready is not None
        groups, waiting = await self._groups()
        missing = [group for group in groups if waiting and group.name not in ready.found]
        if missing:  # the training has gone on since it was tried
            task, steps = self._engine.learner.task, self._engine.settings.steps
            self._trying = ready.process
            ready.found |= await asyncio.to_thread(_score, task, named, ready.process, missing, steps)
        self._engine.control.ask(lambda: self._take(ready, command))

    # ---------------------------------------------------------------------------- on the compute thread

    def _take(self, ready: Reloaded, command: c.Reload) -> None:
        """At a safe point."""
        engine = self._engine
        if engine.rollout is None and engine.control.phase in ("sampling", "scoring"):
            self._coming = ready, command  # one step is scored by one code
            return
        self._swap(ready, command)

    def take_up(self) -> None:
        """As a step begins: use what was asked for inside the step before."""
        coming, self._coming = self._coming, None
        if coming is not None:
            self._swap(*coming)

    def _swap(self, ready: Reloaded, command: c.Reload) -> None:
        engine = self._engine
        named = engine.learner.task.named
        assert named is not None
        named.use(ready.process)
        replaced, waited = [], 0
        self._known = dict(named.process.code)
        records = self._waiting()
        if records and all(record.name in ready.found for record in records):
            weights = {name: x.weight for name, x in engine.learner.task.components.items()}
            now, learned = engine.knobs.rewarding(records[0].step)
            weights |= now
            for record in records:
                waited += score_again(record, ready.found[record.name], named.names, weights, learned)
            replaced = engine.write_now(_keep, engine.store, records)
            self.used = dict(named.process.code)
        engine.soon(self._taken, command, replaced, waited)

    def _taken(self, command: c.Reload, replaced: list[GroupHead], changed: int) -> None:
        self._engine.spawn(self._tell(command, replaced, changed))

    async def _tell(self, command: c.Reload, replaced: list[GroupHead], changed: int) -> None:
        engine, named = self._engine, self._engine.learner.task.named
        assert named is not None
        if replaced:
            engine.publish(wire.GroupsChanged(time=time.time(), step=replaced[0].step, heads=replaced))
        what = f"the rewards of {changed} responses of step {replaced[0].step} are replaced" if replaced else ""
        what = what or "from the next scoring on"
        codes = ", ".join(f"{name} {code or '?'}" for name, code in named.process.code.items())
        await engine.note("reward code", f"{command.who} uses {codes}: {what}", command.who)
        await engine.write(engine.store.set_meta, CODE, wire.encode_json(named.process.code))
        engine.service.orders.done(command.id, engine.step, f"in use: {what}")


# ---------------------------------------------------------------------------------------------- the scoring


def _newest(store: Store, branch: str) -> list[Group]:
    """On the store's thread: the groups of the newest step that was learned."""
    last = store.last_step(branch)
    return store.groups_with(last.branch, last.step, "updated") if last else []


def _keep(store: Store, records: Sequence[Group]) -> list[GroupHead]:
    """On the store's thread."""
    store.add_groups(records)
    return store.heads_of(records)


def _score(
    task: Task, named: NamedRewards, process: RewardProcess, groups: Sequence[Group], steps: int
) -> dict[str, list[Values]]:
    """On a thread beside: what the functions of a process make of responses that are there."""

    def component(name: str) -> Component:
        return Component(lambda **given: named.call(process, name, given, log=False))

    process.begin_step()  # what an earlier try gave up is tried again
    functions = {name: component(name) for name in named.names}
    prompts = _prompts(task, {group.prompt_id for group in groups})
    found = {}
    for group in groups:
        texts = [response.text for response in group.responses]
        tokens = [response.tokens for response in group.responses]
        if prompt := prompts.get(group.prompt_id):
            state = {"global_step": group.step - 1, "max_steps": steps}
            found[group.name] = values_of(functions, prompt, texts, tokens, state)
    return found


def _prompts(task: Task, ids: set[str]) -> dict[str, Prompt]:
    """The prompts that groups were sampled for, with their columns."""
    if isinstance(task.prompts, PromptRows):  # there may be millions
        return task.prompts.named(ids)
    found: dict[str, Prompt] = {}
    for prompt in task.prompts:
        if prompt.id in ids:
            found[prompt.id] = prompt
            if len(found) == len(ids):
                break
    return found


def _difference(
    named: NamedRewards,
    process: RewardProcess,
    groups: Sequence[Group],
    found: Mapping[str, list[Values]],
    *,
    waiting: bool,
) -> RewardReload:
    groups = [group for group in groups if group.name in found]
    components = []
    for name in named.names:
        before, after = [], []
        for group in groups:
            for response, (values, failed) in zip(group.responses, found[group.name], strict=True):
                was = response.failed if _of(response.failed) == name else ""
                before.append((f"{group.name}{response.letter}", response.components.get(name), was))
                after.append((values[name], failed.partition(": ")[2] if _of(failed) == name else ""))
        codes = named.process.code.get(name, ""), process.code.get(name, "")
        components.append(component_change(name, before, after, codes))
    return RewardReload(step=groups[0].step if groups else 0, waiting=waiting, components=components)


def _of(failed: str) -> str:
    """The component that failed."""
    return failed.partition(":")[0]


def score_again(
    group: Group, found: Sequence[Values], named: Sequence[str], weights: Mapping[str, float], reward_model: float
) -> int:
    """Give the responses of a group other values of some components, and the reward that follows.

    :param found: one entry a response, of the components ``named``.
    :param weights: of all components of the task.
    :param reward_model: weight of the reward model's score.
    :returns: how many responses have another reward.
    """
    changed = 0
    for response, (values, failed) in zip(group.responses, found, strict=True):
        before = response.reward, response.failed
        response.components = {**response.components, **values}
        if not response.failed or _of(response.failed) in named:
            response.failed = failed
        _weigh(response, weights, reward_model)
        changed += (response.reward, response.failed) != before
    return changed


def _weigh(response: Response, weights: Mapping[str, float], reward_model: float) -> None:
    """The automatic reward of a response from its components."""
    own = {name: value for name, value in response.components.items() if name in weights}
    scored = weighted(weights, own, response.failed)
    reward, response.failed = scored.reward, scored.failed
    if reward is not None:
        reward += sum(response.components.get(name) or 0.0 for name in (OVERLONG, TRUNCATION))
    learned = response.components.get(REWARD_MODEL)
    if learned is not None and reward_model and not response.failed:
        reward = (reward or 0.0) + reward_model * learned
    response.reward = reward
