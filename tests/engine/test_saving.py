"""Checkpoints beside training: the run goes on while one is written, and what is on disk is what it should be."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from engine import checkpointing
from engine.snapshot import Snapshot
from sessions import wire
from sessions.checkpoints import read_state
from sessions.errors import SessionError
from sessions.records import Checkpoint
from tests.engine.live import Live, live, session

SECONDS = 60.0


class SlowDisk:
    """Holds each write of a live learner until a test lets it go; may refuse it instead."""

    def __init__(self, tested: Live, monkeypatch: pytest.MonkeyPatch) -> None:
        self._write = tested.engine.learner.write
        self._go = threading.Semaphore(0)
        self.begun: list[int] = []
        self.full = False
        self.broken = False
        monkeypatch.setattr(tested.engine.learner, "write", self)

    def __call__(self, snapshot: Snapshot, name: str = "") -> Checkpoint:
        self.begun.append(snapshot.state.step)
        assert self._go.acquire(timeout=SECONDS)
        if self.full:
            raise OSError(28, "No space left on device")
        if self.broken:
            raise RuntimeError("shared tensors")
        return self._write(snapshot)

    def release(self, writes: int = 1) -> None:
        self._go.release(writes)


def weights_on_disk(folder: Path) -> dict[str, Any]:
    return checkpointing.policy_weights(folder)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def told(tested: Live) -> list[Checkpoint]:
    """What the events say is on disk, the start of RL left out."""
    return [e.checkpoint for e in tested.of(wire.CheckpointSaved) if e.checkpoint.step]


def disk_alarms(tested: Live) -> list[str]:
    return [e.alarm.message for e in tested.of(wire.AlarmRaised) if e.alarm.rule == "disk"]


async def test_steps_go_on_while_a_checkpoint_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(session("undisturbed"), checkpoint_steps=2) as undisturbed:
        await undisturbed.step(2)
        await undisturbed.until(lambda: 2 in undisturbed.engine.board.checkpoints)
        expected = weights_on_disk(undisturbed.engine.folder.checkpoints / "2")
    async with live(checkpoint_steps=2) as tested:
        disk, folder = SlowDisk(tested, monkeypatch), tested.engine.folder.checkpoints
        await tested.step(3)
        assert disk.begun == [2]
        assert not (folder / "2").exists()
        assert 2 not in tested.engine.board.checkpoints
        assert not same(expected, tested.engine.learner.policy.model.state_dict())
        disk.release()
        await tested.until(lambda: [c.step for c in told(tested)] == [2])
        assert read_state(folder / "2").step == 2
        assert same(weights_on_disk(folder / "2"), expected)
        disk.release(100)


async def test_the_next_checkpoint_waits_for_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(checkpoint_steps=1) as tested:
        disk = SlowDisk(tested, monkeypatch)
        await tested.step()
        await tested.do("resume")
        await tested.until(lambda: tested.engine.learner.step == 2 and tested.engine.control.phase == "saving")
        waiting = asyncio.create_task(tested.do("pause"))
        assert (await waiting).text.startswith("paused in step 2, saving")
        assert disk.begun == [1]
        answer = await tested.do("discard")
        assert (answer.status, answer.text[:23]) == ("rejected", "step 2 has been learned")
        disk.release(100)
        await tested.do("step")
        await tested.until(lambda: sorted(tested.engine.board.checkpoints) == [0, 1, 2])
        assert disk.begun == [1, 2]


async def test_a_person_may_ask_for_one_while_another_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(checkpoint_steps=1) as tested:
        disk = SlowDisk(tested, monkeypatch)
        await tested.step()
        asking = asyncio.create_task(tested.do("checkpoint"))
        await tested.until(lambda: disk.begun == [1])
        assert not asking.done()
        disk.release(100)
        answer = await asking
        assert (answer.status, answer.text) == ("applied", "checkpoint of step 1 is on disk")
        await tested.until(lambda: len(told(tested)) == 2)
        reasons = [c.reason for c in told(tested)]
        assert reasons[0] == "every 1 steps"
        assert reasons[1].endswith(" asked")


@pytest.mark.parametrize("now", [False, True])
async def test_stopping_waits_for_the_last_one(now: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = session()
    async with live(folder, checkpoint_steps=1) as tested:
        disk = SlowDisk(tested, monkeypatch)
        await tested.step()
        await tested.until(lambda: disk.begun == [1])
        stopping = asyncio.create_task(tested.do("stop --now" if now else "stop"))
        await tested.until(lambda: tested.engine.control.stopping)
        assert not tested.serving.done()
        disk.release(100)
        await stopping
        await tested.ended()
        assert disk.begun == [1]
        assert max(tested.engine.board.checkpoints) == 1
    assert read_state(folder.checkpoints / "1").step == 1


async def test_a_disk_that_is_full_pauses_and_space_tries_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(session("undisturbed"), checkpoint_steps=1) as undisturbed:
        await undisturbed.step()
        await undisturbed.until(lambda: 1 in undisturbed.engine.board.checkpoints)
        expected = weights_on_disk(undisturbed.engine.folder.checkpoints / "1")
    async with live(checkpoint_steps=1) as tested:
        disk = SlowDisk(tested, monkeypatch)
        disk.full = True
        await tested.step()
        tested.hold.at("sampling", 1)
        await tested.do("resume")
        await tested.held()
        disk.release()
        await tested.until(lambda: disk_alarms(tested))
        tested.hold.release()
        await tested.paused()
        assert disk_alarms(tested) == [
            "the checkpoint of step 1 could not be written: OSError: [Errno 28] No space left on device"
        ]
        asked = await tested.do("checkpoint")
        assert (asked.status, asked.text.endswith("space tries that one again")) == ("rejected", True)

        disk.release()
        await tested.do("resume")  # the disk is still full
        await tested.until(lambda: len(disk_alarms(tested)) == 2)
        await tested.paused()
        disk.full = False
        disk.release(100)
        await tested.do("step")
        await tested.until(lambda: 1 in tested.engine.board.checkpoints)
        assert disk.begun[:3] == [1, 1, 1]
        assert tested.engine.saver.refused == ""
        assert same(weights_on_disk(tested.engine.folder.checkpoints / "1"), expected)
        assert not tested.notes("error")


async def test_a_disk_that_is_full_while_the_next_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed then, and the run is paused all the same."""
    async with live(checkpoint_steps=1) as tested:
        disk = SlowDisk(tested, monkeypatch)
        disk.full = True
        await tested.step()
        await tested.do("resume")
        await tested.until(lambda: tested.engine.learner.step == 2 and tested.engine.control.phase == "saving")
        disk.release()
        await tested.paused_again()
        disk.full = False
        disk.release(100)
        await tested.do("step")
        await tested.until(lambda: sorted(tested.engine.board.checkpoints) == [0, 1, 2])
        assert disk.begun == [1, 1, 2]


async def test_a_full_disk_at_the_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(checkpoint_steps=1) as tested:
        disk = SlowDisk(tested, monkeypatch)
        disk.full = True
        await tested.step()
        await tested.until(lambda: disk.begun == [1])
        await tested.first("stop")
        disk.release(100)
        await tested.ended()
        assert tested.engine.exit_code == 1
        assert "No space left" in tested.engine.failure


async def test_an_error_that_is_not_the_disks_pauses_and_space_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(checkpoint_steps=1) as tested:
        disk = SlowDisk(tested, monkeypatch)
        disk.broken = True
        disk.release(100)
        await tested.do("resume")
        await tested.paused_again()
        alarm = tested.of(wire.AlarmRaised)[0].alarm
        assert alarm.rule == "checkpoint"
        assert "could not be written: RuntimeError: shared tensors" in alarm.message
        disk.broken = False
        await tested.do("step")
        await tested.until(lambda: max(tested.engine.board.checkpoints) > 0)


async def test_a_session_that_fails_waits_for_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(checkpoint_steps=1) as tested:
        disk = SlowDisk(tested, monkeypatch)
        await tested.step()

        def broken(*_: Any) -> None:
            raise SessionError("nothing left to train")

        monkeypatch.setattr(tested.engine.learner, "sample", broken)
        await tested.do("resume")
        await tested.until(lambda: tested.engine.failure)
        assert not tested.serving.done()
        disk.release(100)
        await tested.ended()
        assert 1 in tested.engine.board.checkpoints


async def test_memory_that_is_not_there_for_the_copy_drops_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(checkpoint_steps=1) as tested:
        with monkeypatch.context() as patch:

            def none_left(*_: Any, **__: Any) -> None:
                raise MemoryError("no room for a copy")

            patch.setattr("engine.snapshot.torch.empty", none_left)
            tested.engine.learner.copies._memory.clear()
            await tested.do("resume")
            await tested.paused_again()
        assert (
            "the checkpoint of step 1 could not be written: MemoryError" in tested.of(wire.AlarmRaised)[0].alarm.message
        )
        await tested.do("step")
        await tested.until(lambda: max(tested.engine.board.checkpoints) == tested.engine.learner.step)
        assert not tested.notes("error")


async def test_an_engine_killed_while_it_wrote_goes_on_from_the_one_before() -> None:
    folder = session()
    async with live(folder, checkpoint_steps=2) as tested:
        await tested.step(3)
        await tested.until(lambda: 2 in tested.engine.board.checkpoints)
        await tested.do("stop --now")
        await tested.ended()
    (folder.checkpoints / ".4.partial" / "policy").mkdir(parents=True)
    async with live(folder, checkpoint_steps=2) as tested:
        assert tested.engine.learner.step == 3  # from the one before, and the records
        assert sorted(p.name for p in folder.checkpoints.iterdir()) == ["0", "2"]
