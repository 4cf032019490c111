"""A session with a long past: 10,000 steps and 640,000 responses, made of a short real one.

    python -m benchmarks.big_session FOLDER [--steps 10000] [--branches 0] [--rate-every 25]

The engine trains a few steps of the embedded model; their records, groups and responses are written again and again
under later step numbers, with a little noise on the metrics, through the same store that an engine writes with. What
comes out has ratings, changes, alarms and checkpoints, and a checkpoint of its last step, so that an engine goes on
with it. It starts paused. Branches leave ``main`` at steps that lie apart alike, and have 20 steps of their own each.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.processes import EngineProcess, own_home
from sessions.branches import Branch
from sessions.folders import SessionFolder
from sessions.records import (
    Alarm,
    Change,
    Group,
    Rating,
    RatingUse,
    ResponseName,
    SessionSettings,
    StepRecord,
    letters,
)
from sessions.store import Store

REAL_STEPS = 12
PROMPTS, GROUP = 8, 8
KEEP_TOKENS = 500
"""Steps whose responses still have their tokens, as in a session that was trained."""
CHANGE_EVERY, ALARM_EVERY, CHECKPOINT_EVERY = 400, 150, 50
RATE_EVERY, BRANCH_STEPS = 25, 20


def real_session(name: str) -> SessionFolder:
    """A few steps that an engine has trained."""
    settings = SessionSettings(
        name=name,
        steps=REAL_STEPS,
        nice=False,
        threads=1,
        sets=[f"prompts_per_step={PROMPTS}", f"group_size={GROUP}", "evaluate_every=4", "checkpoint_steps=0"],
    )
    with EngineProcess(settings) as engine:
        engine.until_ended(180)
        return engine.folder


def grow(folder: SessionFolder, steps: int, branches: int = 0, rate_every: int = RATE_EVERY) -> None:
    """Write the steps after the real ones, up to ``steps``, and branches."""
    random_numbers = random.Random(0)
    store = Store(folder.database)
    try:
        records = [record for record in store.steps("main") if record.step > 0]
        groups = [list(_groups(store, record.step)) for record in records]
        first = time.time() - 3 * steps

        def write(step: int, branch: str, *, tokens: bool) -> None:
            which, when = (step - 1) % len(records), first + 3 * step
            store.add_groups([_moved(group, step, branch, tokens=tokens) for group in groups[which]])
            record = _later(records[which], step, steps, when, random_numbers)
            store.add_step(msgspec.structs.replace(record, branch=branch), [], KEEP_TOKENS)

        for step in range(len(records) + 1, steps + 1):
            write(step, "main", tokens=step > steps - KEEP_TOKENS)
            _people(store, step, first + 3 * step, rate_every)
        for number in range(1, branches + 1):
            at, name = number * (steps - BRANCH_STEPS) // branches, f"try-{number}"
            store.add_branch(Branch(name=name, parent="main", step=at, time=first + 3 * at, why="ann forked it"))
            for step in range(at + 1, at + BRANCH_STEPS + 1):
                write(step, name, tokens=False)
        store.use_branch("main")
    finally:
        store.close()


def _groups(store: Store, step: int) -> Iterator[Group]:
    for number in range(1, PROMPTS + 1):
        yield store.group(ResponseName(step, number), "main")


def _moved(group: Group, step: int, branch: str, *, tokens: bool) -> Group:
    if tokens:
        return msgspec.structs.replace(group, step=step, branch=branch)
    arrays = ("tokens", "ends", "logprobs", "reference_logprobs", "entropies", "values", "returns", "advantages")
    without: dict[str, Any] = {name: [] for name in arrays}
    bare = [msgspec.structs.replace(response, **without) for response in group.responses]
    return msgspec.structs.replace(group, step=step, branch=branch, responses=bare)


def _later(record: StepRecord, step: int, steps: int, when: float, noise: random.Random) -> StepRecord:
    """The record with metrics that drift and scatter, as a long run's do; shares stay shares."""
    drift = math.log1p(step) / math.log1p(steps)

    def moved(value: float) -> float:
        factor = (0.5 + drift) * noise.lognormvariate(0.0, 0.1)
        return min(value * factor, 1.0) if 0 <= value <= 1 else value * factor

    metrics = {name: None if value is None else moved(value) for name, value in record.metrics.items()}
    return msgspec.structs.replace(record, step=step, time=when, metrics=metrics)


def _people(store: Store, step: int, when: float, rate_every: int) -> None:
    """What people and rules did at a step."""
    if step % rate_every == 0:
        rating = Rating(
            id=f"rating-{step}", time=when, who="ann", branch="main", step=step, group=1, mode="likert",
            values={letters(i): float(1 + i % 5) for i in range(4)},
        )  # fmt: skip
        store.add_rating(rating)
        use = RatingUse(rating=rating.id, group=f"{step}.1", fate="on_time", step=step, advantages={"A": 1.0})
        store.add_rating_uses([use], step)
    if step % CHANGE_EVERY == 0:
        store.put_change(
            Change(
                id=f"change-{step}", time=when, who="ann", name="learning_rate", old=1e-4, new=1e-4,
                boundary="minibatch", status="applied", accepted_step=step, applied_step=step,
            )
        )  # fmt: skip
    if step % ALARM_EVERY == 0:
        message = f"kl 0.{step % 90 + 10} is over 0.1"
        store.put_alarm(Alarm(id=f"alarm-{step}", time=when, step=step, rule="kl", message=message, acknowledged=when))


def save_weights(folder: SessionFolder, step: int) -> None:
    """A checkpoint of the last step, and what the store says of the earlier ones."""
    from engine.control import Control
    from engine.start import start

    learner, _ = start(folder.settings(), Control(), folder)
    learner.step = step
    saved = learner.save("made for a benchmark")
    store = Store(folder.database)
    try:
        for earlier in range(CHECKPOINT_EVERY, step, CHECKPOINT_EVERY):
            store.put_checkpoint(msgspec.structs.replace(saved, step=earlier, path=str(earlier)))
        store.put_checkpoint(saved)
    finally:
        store.close()


def make(folder: Path, steps: int, branches: int = 0, rate_every: int = RATE_EVERY) -> SessionFolder:
    """The session as a folder of that path, unless it is there already."""
    if (folder / "session.toml").exists():
        return SessionFolder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with own_home():
        real = real_session("big")
        grow(real, steps, branches, rate_every)
        os.environ["OMP_NUM_THREADS"] = "1"
        save_weights(real, steps)
        real.write_settings(msgspec.structs.replace(real.settings(), name=folder.name, steps=0, paused=True))
        real.forget_exit()
        partial = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.move(real.path, partial)
    partial.rename(folder)
    return SessionFolder(folder)


def main(words: Sequence[str]) -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--steps", type=int, default=10_000)
    arguments.add_argument("--branches", type=int, default=0)
    arguments.add_argument("--rate-every", type=int, default=RATE_EVERY, metavar="STEPS")
    given = arguments.parse_args(words)
    began = time.monotonic()
    folder = make(given.folder, given.steps, given.branches, given.rate_every)
    print(f"{folder.path}: {folder.size() / 1e6:.0f} MB, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
