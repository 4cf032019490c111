"""What a session is refused for when it starts or goes on."""

from __future__ import annotations

from typing import Any

import pytest

from engine import groups, memory
from engine.control import Control
from engine.engine import Engine
from engine.learner import Learner
from engine.sampling import sample
from engine.start import start
from engine.tasks import Task
from sessions.commands import Set
from sessions.errors import InvalidValue, SessionError
from sessions.folders import SessionFolder
from sessions.shortcuts import SHORTCUTS
from tests.engine.live import session

SMALL = ["prompts_per_step=1", "group_size=2", "max_new_tokens=2"]


def begun(name: str, *sets: str, steps: int = 0) -> tuple[Any, Learner]:
    """A session's folder and its learner, after some steps and a checkpoint."""
    folder = session(name, sets=[*SMALL, *sets])
    learner, _ = start(folder.settings(), Control(), folder)
    learner.save("start of RL")
    for _ in range(steps):
        learner.run_step()
    learner.save("test")
    return folder, learner


def switch(learner: Learner, algorithm: str) -> None:
    """And write a checkpoint."""
    learner.knobs.request(Set(values={"algorithm": algorithm}), learner.step + 1)
    learner.knobs.apply("rollout", learner.step + 1)
    learner.save("after a switch")


async def failure(folder: SessionFolder) -> str:
    """What its engine ends with."""
    engine = Engine(folder, folder.settings(), start)
    engine.stop(now=True)
    await engine.serve()
    return engine.failure


async def test_memory_is_checked_for_what_is_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    started_so, _ = begun("a", "algorithm=trpo", "kl_placement=reward", "kl_estimator=k1")
    switched, learner = begun("b")
    switch(learner, "trpo")
    scheduled, _ = begun("c", "algorithm=trpo@3", steps=1)
    passed, learner = begun("d", "algorithm=trpo@2", "fisher_product=difference", "cg_iterations=1", steps=2)
    switch(learner, "grpo")

    monkeypatch.setattr(memory, "available_memory", lambda device: 1000)
    for folder in (started_so, switched, scheduled):
        assert "trpo needs 6 fp32 copies" in await failure(folder)
    assert await failure(passed) == ""


def test_a_stop_ends_a_task_that_takes_long_to_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_task(text: str, *given: Any, **_: Any) -> Task:
        given[-1](f"{text}: 4,096 rows read")
        raise AssertionError("it goes on")

    monkeypatch.setattr("engine.start.load_task", load_task)
    told: list[str] = []
    control = Control(on_tell=told.append)
    folder = session("stopped", sets=SMALL)
    with pytest.raises(AssertionError, match="it goes on"):
        start(folder.settings(), control, folder)
    assert told == ["arithmetic: 4,096 rows read"]
    control.stop(now=False)
    with pytest.raises(SessionError, match="stopped while the task was being made"):
        start(folder.settings(), control, folder)


def test_a_truncated_sampler_needs_the_sessions_leave() -> None:
    refused = session("e", sets=[*SMALL, "top_p=0.9"])
    with pytest.raises(InvalidValue, match="--allow-sampler-mismatch"):
        start(refused.settings(), Control(), refused)
    allowed = session("f", sets=[*SMALL, "top_p=0.9"], allow_sampler_mismatch=True)
    learner, knobs = start(allowed.settings(), Control(), allowed)
    assert knobs.number("top_p") == 0.9
    learner.knobs.request(Set(values={"min_p": 0.1}), 1)  # and so may what is set later


def test_shortcuts_are_turned_off_where_the_settings_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        groups, "sample", lambda *given, **more: (seen.append(more["shortcuts"]), sample(*given, **more))[1]
    )
    folder = session("g", sets=SMALL, plain=["compaction"], evaluation_rows=2)
    learner, _ = start(folder.settings(), Control(), folder)
    learner.sample(1)
    learner.evaluate()
    assert [set(SHORTCUTS) - set(shortcuts) for shortcuts in seen] == [{"compaction"}] * 2
