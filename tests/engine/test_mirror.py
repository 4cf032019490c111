"""Metrics reach accelerate's trackers, and whatever a tracker does, training goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from accelerate import tracking

from engine import mirror
from sessions.folders import SessionFolder
from sessions.store import Store
from sessions.wire import AlarmRaised
from tests.engine.live import Live, live, session


class Fake(tracking.GeneralTracker):
    """Keeps what it is given; a subclass does what it likes in one of the places."""

    name = "trackio"
    requires_logging_directory = False
    main_process_only = False
    made: list[Fake]

    def __init__(self, project: str, **options: Any) -> None:
        super().__init__()
        self.project, self.options = project, options
        self.config: dict[str, Any] = {}
        self.logged: list[tuple[int | None, dict[str, Any]]] = []
        self.threads: set[str] = set()
        self.finished = False
        self.made.append(self)

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.threads.add(threading.current_thread().name)
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


def use(monkeypatch: pytest.MonkeyPatch, kind: type[Fake] = Fake, name: str = "trackio") -> list[Fake]:
    """Have accelerate know that tracker by the name; those that are made."""
    kind.made = []
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, name, kind)
    return kind.made


def alarms(engine: Live) -> list[str]:
    return [e.alarm.message for e in engine.of(AlarmRaised) if e.alarm.rule == "tracker"]


async def test_each_step_reaches_the_tracker_with_its_metrics_and_the_values_once(monkeypatch) -> None:
    made = use(monkeypatch)
    folder = session(track=["trackio"], seed=7)
    async with live(folder) as engine:
        await engine.step(3)
    [tracker] = made
    with_records = Store(folder.database)
    steps = [(r.step, {n: v for n, v in r.metrics.items() if v is not None}) for r in with_records.steps("main")]
    values = with_records.last_step("main").values
    with_records.close()
    assert tracker.logged == steps
    assert len(steps) >= 3
    assert values.items() <= tracker.config.items()
    assert {n: tracker.config[n] for n in ("session", "seed", "task", "model")} == {
        "session": "s", "seed": 7, "task": "arithmetic", "model": "tiny",
    }  # fmt: skip
    assert (tracker.project, tracker.options) == ("rl-workbench", {"name": "s"})
    assert tracker.threads == {"track trackio"}
    assert tracker.finished


async def test_without_trackers_there_is_no_thread() -> None:
    async with live() as engine:
        await engine.step()
        assert not [t.name for t in threading.enumerate() if t.name.startswith("track ")]


@pytest.mark.parametrize("place", ["__init__", "start", "store_init_configuration", "log"])
@pytest.mark.parametrize("error", [RuntimeError("no\nnetwork"), SystemExit(3)])
async def test_one_that_raises_is_switched_off_with_one_alarm_and_training_goes_on(monkeypatch, place, error) -> None:
    calls = []

    def raises(*_: Any, **__: Any) -> None:
        calls.append(place)
        raise error

    made = use(monkeypatch, type("Raises", (Fake,), {place: raises}))
    monkeypatch.setattr(mirror, "WAITING", 3)
    async with live(session(track=["trackio"])) as engine:
        await engine.step()
        await engine.until(lambda: alarms(engine))
        await engine.step(5)  # which it is not given, and so cannot be too slow for
        assert engine.engine.learner.step == 6
        assert len(alarms(engine)) == 1
        assert alarms(engine)[0].startswith("trackio is switched off: ")
        assert "\n" not in alarms(engine)[0]
    assert calls == [place]
    assert len(made) <= 1
    assert engine.engine.exit_code == 0


async def test_one_that_fails_leaves_the_others_alone(monkeypatch) -> None:
    def raises(*_: Any, **__: Any) -> None:
        raise RuntimeError("no")

    use(monkeypatch, type("Raises", (Fake,), {"log": raises}), "wandb")
    made = use(monkeypatch)
    async with live(session(track=["wandb", "trackio"])) as engine:
        await engine.step(3)
        await engine.until(lambda: alarms(engine))
    assert [step for step, _ in made[0].logged][-3:] == [1, 2, 3]


async def test_one_that_hangs_holds_up_neither_a_step_nor_the_end(monkeypatch, capsys) -> None:
    let_go = threading.Event()

    def hangs(*_: Any, **__: Any) -> None:
        let_go.wait(60)

    monkeypatch.setattr(mirror, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(mirror, "WAITING", 2)
    use(monkeypatch, type("Hangs", (Fake,), {"log": hangs}))
    try:
        async with live(session(track=["trackio"])) as engine:
            await engine.step(6)
            assert engine.engine.learner.step == 6
            await engine.until(lambda: alarms(engine))
            assert alarms(engine) == ["trackio does not keep up: steps are left out of it"]
            assert [t.daemon for t in threading.enumerate() if t.name == "track trackio"] == [True]
            engine.engine.stop(now=True)
            await engine.ended()
            assert engine.engine.mirror.left_behind
        assert engine.engine.exit_code == 0
        said = capsys.readouterr().out
        assert "trackio took too long to finish; it is left behind" in said
        assert "trackio was too slow for" in said
    finally:
        let_go.set()


async def test_one_that_finishes_in_time_is_not_left_behind(monkeypatch) -> None:
    use(monkeypatch)
    async with live(session(track=["trackio"])) as engine:
        await engine.step()
        engine.engine.stop(now=True)
        await engine.ended()
        assert not engine.engine.mirror.left_behind


class _Engine:
    """As much of an engine as a mirror needs."""

    def __init__(self, folder: SessionFolder) -> None:
        self.folder, self.settings = folder, folder.settings()

    def soon(self, *_: Any) -> None:
        raise AssertionError("nothing fails here")


def steps(*names: tuple[str, int]) -> list[Any]:
    from sessions.wire import StepDone
    from tests.sessions.samples import step_record

    return [StepDone(time=0.0, step=n, record=step_record(n, branch, **{"kl/k3": None})) for branch, n in names]


async def test_going_back_begins_another_run_and_the_warm_up_is_left_out(monkeypatch) -> None:
    made = use(monkeypatch)
    mirrored = mirror.Mirror(_Engine(session(track=["trackio"])))  # type: ignore[arg-type]
    for event in steps(("warm-up", 1), ("main", 1), ("main", 2), ("main", 2), ("main", 3), ("try", 4), ("try", 5)):
        mirrored.note(event)
    await mirrored.close()
    assert [[step for step, _ in run.logged] for run in made] == [[1, 2], [2, 3], [4, 5]]
    assert [run.options["name"] for run in made] == ["s", "s", "s-try"]
    assert all(run.finished for run in made)
    assert made[0].logged[0][1] == {"reward/mean": 0.501}


async def test_tensorboard_finds_the_metrics_in_the_folder_of_the_session(monkeypatch) -> None:
    """The real one; what was logged of a step before the session went back is void."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("SECRET_API_KEY", "hunter2-in-the-environment")
    folder = session(track=["tensorboard"])
    mirrored = mirror.Mirror(_Engine(folder))  # type: ignore[arg-type]
    for event in steps(("main", 1), ("main", 2), ("main", 3), ("main", 2)):
        mirrored.note(event)
    await mirrored.close()
    logs = folder.path / "trackers" / "s"
    read = EventAccumulator(str(logs))
    read.Reload()
    assert [(e.step, round(e.value, 3)) for e in read.Scalars("reward/mean")] == [(1, 0.501), (2, 0.502)]
    written = [p for p in folder.path.rglob("*") if p.is_file()]
    assert len(written) > 2
    assert all(b"hunter2" not in p.read_bytes() for p in written)


LEFT_BEHIND = """
import asyncio, atexit, sys, time
from pathlib import Path
import engine.__main__ as process
import engine.engine

class Ended:
    exit_code = 3
    class mirror:
        left_behind = True
    def __init__(self, *_): atexit.register(time.sleep, 600)
    async def serve(self): print("served")

engine.engine.Engine = Ended
asyncio.run(process._serve(None, None))
"""


def test_the_process_does_not_wait_for_what_one_left_behind_does_at_its_end(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", LEFT_BEHIND], cwd=root, env=os.environ, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (3, "served\n"), done.stderr
