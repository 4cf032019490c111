"""What the system does to an engine: a full disk, a folder that has gone, errors nobody thought of."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from typing import Any

import pytest
import torch

from engine.control import Control
from engine.engine import Engine
from engine.knobs import Knobs
from engine.learner import Learner
from engine.policy import Policy
from sessions import wire
from sessions.commands import Rate, new_id
from sessions.folders import SessionFolder
from sessions.records import SessionSettings
from sessions.shortcuts import active
from tests.engine.live import live, session
from tests.engine.small import make_knobs, random_policy, same_weights, small_task


async def disk(engine: Engine, *, full: bool) -> None:
    """Let SQLite find the disk full, or free again."""

    def limit() -> None:
        for db in (engine.store._db, engine.store._strict):
            pages = db.execute("PRAGMA page_count").fetchone()[0] if full else 2**30
            db.execute(f"PRAGMA max_page_count={pages}")

    await engine.write(limit)


async def fill(engine: Engine) -> None:
    """Use up the pages that are there, and the room in the last one of the groups."""

    def use_up() -> None:
        db = engine.store._db
        for row in ("meta VALUES ('filling ' || ?, zeroblob(900))", "groups (branch, step) VALUES ('filling', ?)"):
            with contextlib.suppress(sqlite3.OperationalError):
                for i in range(100_000):
                    db.execute(f"INSERT INTO {row}", (i,))

    await disk(engine, full=True)
    await engine.write(use_up)


async def test_a_full_disk_pauses_the_run_and_loses_no_step() -> None:
    async with live(session("undisturbed")) as undisturbed:
        await undisturbed.step(3)
        expected = undisturbed.weights
    async with live() as tested:
        await tested.step()
        await fill(tested.engine)
        rated = await tested.do(Rate(group="1.1", mode="likert", values={"A": 5.0}, comment="é" * 4000))
        assert rated.status == "rejected"
        assert "full" in rated.text

        await tested.do("resume")
        await tested.until(lambda: [e for e in tested.of(wire.AlarmRaised) if e.alarm.rule == "disk"])
        alarm = tested.of(wire.AlarmRaised)[-1].alarm
        assert alarm.message.startswith("the groups of step 2 could not be written: OperationalError")
        assert "full" in alarm.message
        await tested.paused()

        await disk(tested.engine, full=False)
        answer = await tested.do("step")  # finishes the step that could not be written
        assert answer.status == "applied"
        await tested.until(lambda: [e.record.step for e in tested.of(wire.StepDone)] == [1, 2])
        await tested.step()
        assert not [e for e in tested.of(wire.Noted) if e.kind == "error"]
        assert (await tested.query("group 2.1"))["group"]["status"] == "updated"
        assert same_weights(expected, tested.weights)


async def test_a_step_is_recorded_once_the_disk_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live() as tested:
        good = tested.engine.store.add_step

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(tested.engine.store, "add_step", full)
        await tested.do("resume")
        await tested.paused_again()
        assert tested.of(wire.AlarmRaised)[-1].alarm.message.startswith("step 1 could not be written: OSError")
        after_update = tested.weights
        assert (await tested.do("discard")).status == "rejected"  # its update has changed weights
        monkeypatch.setattr(tested.engine.store, "add_step", good)
        await tested.do("step")
        await tested.until(lambda: [e.record.step for e in tested.of(wire.StepDone)] == [1])
        assert same_weights(after_update, tested.weights)


async def test_a_checkpoint_that_comes_by_itself_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(checkpoint_steps=1) as tested:
        good = tested.engine.learner.write

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(tested.engine.learner, "write", full)
        await tested.do("resume")
        await tested.paused_again()
        message = tested.of(wire.AlarmRaised)[-1].alarm.message
        assert message.startswith("the checkpoint of step 1 could not be written: OSError: [Errno 28]")
        assert tested.of(wire.StepDone)[0].record.step == 1
        assert 1 not in tested.engine.board.checkpoints
        monkeypatch.setattr(tested.engine.learner, "write", good)
        await tested.do("step")
        await tested.until(lambda: 1 in tested.engine.board.checkpoints)
        assert not [e for e in tested.of(wire.Noted) if e.kind == "error"]  # no step was dropped


async def test_a_session_whose_folder_is_removed_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.service.BEAT_SECONDS", 0.02)
    async with live() as tested:
        shutil.rmtree(tested.engine.folder.path)
        await tested.ended()
        assert tested.engine.exit_code == 1
        assert "has been removed" in tested.engine.failure
        assert not tested.engine.folder.path.exists()


async def test_an_error_nobody_thought_of_is_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with live() as tested:

        def broken(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError("by nothing")

        command = Rate(group="1.1", mode="likert", values={"A": 5.0}, id=new_id())
        await tested.step()
        good = tested.engine.store.add_rating
        monkeypatch.setattr(tested.engine.store, "add_rating", broken)
        answer = await tested.do(command)
        assert (answer.status, "ZeroDivisionError: by nothing" in answer.text) == ("rejected", True)
        monkeypatch.setattr(tested.engine.store, "add_rating", good)
        assert (await tested.do(command)).status == "applied"  # it is not held against a second try
    assert "ZeroDivisionError" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------- out of memory


async def test_a_step_that_does_not_fit_in_memory_is_made_in_smaller_parts_and_people_are_told() -> None:
    async with live(session("roomy")) as roomy:
        await roomy.step(2)
        expected = roomy.weights
    async with live(session("tight")) as tested:
        decoder = tested.engine.learner.policy.model.get_decoder()

        def check(_, __, named) -> None:
            if torch.is_grad_enabled() and named["input_ids"].numel() > 40:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        decoder.register_forward_pre_hook(check, with_kwargs=True)
        await tested.step(2)
        await tested.until(lambda: tested.of(wire.AlarmRaised))
        alarm = tested.of(wire.AlarmRaised)[0].alarm
        assert (alarm.rule, alarm.level) == ("memory", "warn")
        assert "micro-batches hold at most" in alarm.message
        assert "--micro-tokens" in alarm.remedy
        assert not [e for e in tested.of(wire.Noted) if e.kind == "error"]
        for a, b in zip(expected, tested.weights, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


async def test_a_model_that_is_trained_on_padded_rows_says_so_once() -> None:
    def padded(settings: SessionSettings, control: Control, where: SessionFolder) -> tuple[Learner, Knobs]:
        plain = random_policy()
        policy = Policy(plain.model, plain.tokenizer, plain.accelerator, shortcuts=active(["tree"]))
        knobs = make_knobs()
        return Learner(settings, small_task(), policy, knobs, control, where.checkpoints), knobs

    async with live(build=padded) as tested:
        await tested.step()
        events = await tested.engine.write(tested.engine.store.events)
        told = [e for e in events if isinstance(e, wire.Noted) and e.kind == "layout"]
        assert len(told) == 1
        assert "padded rows" in told[0].text
        assert "tree is turned off" in told[0].text
