"""Checkpoints while training goes on: a snapshot on the compute thread, then files, hashes and syncs beside it.

One is written at a time. Whoever wants another one waits for it; what nobody waits for has happened when its event is
published. While the disk will not have a checkpoint the run is paused, and space tries the same snapshot again.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engine.control import Leaving, Stopping
from engine.threads import UNWRITABLE
from engine.words import one_line
from sessions import checkpoints
from sessions.checkpoints import KeepRule, doomed, free_name
from sessions.errors import Refused
from sessions.records import Checkpoint
from sessions.store import Store

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.snapshot import Snapshot

POLL_SECONDS = 0.2
"""How often who waits for a checkpoint looks whether people want something meanwhile."""


class Saver:
    """One engine's checkpoints; everything runs on the event loop unless it says otherwise.

    :ivar refused: what the disk will not have, one line; empty when nothing waits for room.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writing: asyncio.Task[Any] | None = None
        self._stays = asyncio.Event()
        self._stays.set()
        self.refused = ""

    async def save(self, reason: str, *, wait: bool) -> None:
        """Take a checkpoint of the finished step; for the engine's loop, while nothing is computed.

        :param wait: until it is on disk; otherwise only until the copy has been made.
        :raises OSError: if it was waited for, and a stop was asked for while the disk would not have it.
        """
        snapshot = None
        while snapshot is None:  # a person's may have come in between
            await self.idle()
            try:
                snapshot = await self._engine.compute(self._take, reason)
            except Exception as error:  # out of memory: the step is learned, whatever becomes of this
                if wait:
                    raise
                await self._failed(self._engine.learner.step, error)
                return
        if wait:
            self._writing = writing = self._engine.spawn(self._keep(snapshot))
            await self._until(writing)
            writing.result()
        else:
            self._writing = self._engine.spawn(self._keep_beside(snapshot))

    async def save_once(self, reason: str) -> Checkpoint:
        """Take a checkpoint at the next safe point where the weights are those of a finished step, and wait for it.

        :raises Refused: while another one waits for room.
        :raises OSError: if the disk will not have it; it is not tried again.
        """
        while True:
            await self._stays.wait()
            while self._writing is not None and not self._writing.done():
                if self.refused:
                    raise Refused(f"{self.refused}; space tries that one again")
                await asyncio.wait({self._writing}, timeout=POLL_SECONDS)
            snapshot = await self._asked(reason)
            if snapshot is not None and not self._stays.is_set():
                self._engine.learner.copies.give_back()
            elif snapshot is not None:
                self._writing = writing = self._engine.spawn(self._put(snapshot))
                return await asyncio.shield(writing)

    @contextlib.asynccontextmanager
    async def moving(self) -> AsyncIterator[None]:
        """While the training goes elsewhere nobody else's checkpoint is begun: its step would be another branch's."""
        self._stays.clear()
        try:
            await self.idle()
            yield
        finally:
            self._stays.set()

    async def idle(self) -> None:
        """Wait until no checkpoint is being written; for the engine's loop, while nothing is computed."""
        if self._writing is not None:
            await self._until(self._writing)

    async def finish(self) -> None:
        """The session ends: wait for what is being written; what the disk will not have now is given up."""
        self._engine.control.stop(now=True)
        if self._writing is not None:
            await asyncio.wait({self._writing})

    # ------------------------------------------------------------------------------------------------ snapshots

    def _take(self, reason: str) -> Snapshot | None:
        """On the compute thread: copy everything, unless the copies before are still being written."""
        engine = self._engine
        if engine.learner.copies.in_use:
            return None
        snapshot = engine.learner.snapshot(reason)
        state = msgspec.structs.replace(snapshot.state, watches=engine.watching.book)
        return replace(snapshot, state=state, rollout=engine.held_rollout())

    async def _asked(self, reason: str) -> Snapshot | None:
        """The same as an errand of the compute thread."""
        taken: Future[Snapshot | None] = Future()

        def errand() -> None:
            try:
                taken.set_result(self._take(reason))
            except Exception as error:  # noqa: BLE001 - whoever asked should read it, and the training go on
                taken.set_exception(error)

        self._engine.control.ask(errand)
        return await asyncio.wrap_future(taken)

    # -------------------------------------------------------------------------------------------------- writing

    async def _until(self, writing: asyncio.Task[Any]) -> None:
        """Wait for a checkpoint. The compute thread has nothing to do meanwhile: it pauses if that is wished."""
        control = self._engine.control
        while not writing.done():
            await asyncio.wait({writing}, timeout=POLL_SECONDS)
            if control.wanted and not control.stopping:
                try:
                    await self._engine.compute(control.safe_point)
                except (Stopping, Leaving):
                    continue  # the session ends or goes elsewhere once this one is on disk

    async def _put(self, snapshot: Snapshot) -> Checkpoint:
        """Write it, once, and tell."""
        try:
            return await self._write(snapshot)
        finally:
            self._engine.learner.copies.give_back()

    async def _keep(self, snapshot: Snapshot) -> Checkpoint:
        """Write it, again and again while the disk will not have it, and tell."""
        engine, what = self._engine, f"the checkpoint of step {snapshot.state.step}"
        try:
            while True:
                try:
                    return await self._write(snapshot)
                except UNWRITABLE as error:
                    traceback.print_exc()
                    if engine.control.stopping:
                        raise
                    self.refused = f"{what} could not be written: {one_line(error)}"
                engine.control.pause("an error")
                await engine.alarm("disk", self.refused, remedy="free some disk, then space tries again")
                await engine.beside(engine.control.wait_resumed)
                self.refused = ""
        finally:
            engine.learner.copies.give_back()

    async def _keep_beside(self, snapshot: Snapshot) -> None:
        """The same where nobody waits for it."""
        try:
            await self._keep(snapshot)
        except UNWRITABLE:
            pass  # the session ends; the checkpoint of its end, if there is one, says what the disk says
        except Exception as error:  # noqa: BLE001 - whatever it is, people should read it
            await self._failed(snapshot.state.step, error)

    async def _failed(self, step: int, error: Exception) -> None:
        """Something that room on the disk would not mend."""
        traceback.print_exception(error)
        self._engine.control.pause("an error")
        text = f"the checkpoint of step {step} could not be written: {one_line(error)}"
        await self._engine.alarm("checkpoint", text, remedy="the log has the whole trace; space goes on without it")

    async def _write(self, snapshot: Snapshot) -> Checkpoint:
        engine, state, folder = self._engine, snapshot.state, self._engine.folder.checkpoints
        name = await engine.write(_name, engine.store, folder, state.branch, state.step)
        saved = await engine.beside(engine.learner.write, snapshot, name)
        engine.publish(await engine.write(engine.store.put_checkpoint, saved))
        engine.service.checkpointed(saved)
        await self._prune()
        return saved

    async def _prune(self) -> None:
        """Remove what no rule keeps: first from the disk, then from the records, so that no row names a part."""
        engine, settings = self._engine, self._engine.settings
        rule = KeepRule(settings.keep_last, settings.keep_best, settings.keep_every)
        gone = await engine.write(_doomed, engine.store, rule)
        if not gone:
            return
        await engine.beside(checkpoints.remove, engine.folder.checkpoints, gone)
        await engine.write(engine.store.forget_checkpoints, gone)
        for step in [c.step for c in engine.board.checkpoints.values() if c.path in gone]:
            del engine.board.checkpoints[step]


def _name(store: Store, folder: Path, branch: str, step: int) -> str:
    """On the store's thread: the folder of a checkpoint: that of the one it replaces, or one that is free."""
    rows = store.all_checkpoints()
    same = [row.path for row in rows if (row.branch, row.step) == (branch, step)]
    return same[0] if same else free_name(step, {row.path for row in rows} | set(checkpoints.names(folder)))


def _doomed(store: Store, rule: KeepRule) -> list[str]:
    """On the store's thread: the paths of the checkpoints that no rule keeps."""
    rows = store.all_checkpoints()
    return [row.path for row in doomed(rows, store.branches(), store.saved_accuracies(), rule)]
