"""Several people at once, doing anything in any order: everything is answered, nothing breaks."""

from __future__ import annotations

import asyncio
import random

import pytest

from sessions.client import Client, attached
from sessions.commands import (
    Acknowledge,
    Command,
    Discard,
    Pause,
    QueryEvents,
    QueryGroup,
    QueryGroups,
    QueryStatus,
    Rate,
    Resume,
    Retract,
    Set,
    Skip,
    Step,
    Subscribe,
    TakeCheckpoint,
)
from sessions.store import Store
from tests.engine.live import Live, live, session


def anything(rng: random.Random, tested: Live, rated: list[str]) -> Command:
    """A command that may or may not be possible now."""
    step = max(tested.engine.step - rng.randint(0, 3), 0)
    group = f"{step}.{rng.randint(1, 5)}"
    knobs = [
        {"learning_rate": rng.choice([0.0, 1e-4, 1e-3])},
        {"clip_low": rng.choice([0.1, 0.2]), "clip_high": rng.choice([0.2, 0.3]), "epochs": rng.randint(1, 2)},
        {"group_size": rng.randint(2, 5), "prompts_per_step": rng.randint(1, 5)},
        {"kl_coefficient": rng.choice([0.0, 0.04]), "minibatches": rng.randint(1, 3)},
        {"rating_gate": rng.choice(["async", "async", "wait 1", "timeout 0.05"])},
        {"human_weight": rng.choice([0.0, 0.5, 1.0]), "rating_max_kl": rng.choice([0.0, 1e-5, 0.2])},
        {"kl_placement": "reward", "kl_estimator": "k1"},
        {"kl_placement": "loss", "kl_estimator": rng.choice(["k2", "k3", "k3_ratio"])},
        {"advantage_scale": rng.choice(["group", "batch", "none"]), "evaluate_every": rng.randint(0, 3)},
        {"reference_refresh_steps": rng.randint(0, 3), "temperature": rng.choice([0.7, 1.0])},
        {"checkpoint_steps": rng.randint(0, 4), "max_new_tokens": rng.randint(1, 8)},
    ]
    values = {x: float(rng.randint(1, 5)) for x in rng.sample("ABCD", rng.randint(1, 4))}
    return rng.choice(
        [
            Pause(), Resume(), Resume(), Resume(), Step(), Discard(), TakeCheckpoint(), Acknowledge(), QueryStatus(),
            Set(values=rng.choice(knobs)), Set(values=rng.choice(knobs)), Set(values={"rating_gate": "async"}),
            Rate(group=group, mode="likert", values=values, who=rng.choice(["ann", "bob"])),
            Rate(group=group, mode="thumbs", values={"A": rng.choice([-1.0, 1.0])}, who="ann"),
            Retract(rating=rng.choice(rated or ["none"])), Skip(response=f"{group}A"), Skip(response=group),
            QueryGroups(), QueryGroup(group=group), QueryEvents(limit=20), Subscribe(growing=rng.randint(-1, 4)),
        ]
    )  # fmt: skip


async def person(tested: Live, client: Client, seed: int, count: int) -> list[Command]:
    rng = random.Random(seed)
    rated: list[str] = []
    waiting: list[asyncio.Task] = []
    for _ in range(count):
        command = anything(rng, tested, rated)
        if isinstance(command, Rate):
            rated.append(command.id)
        waiting.append(asyncio.create_task(client.send_and_wait(command)))
        await asyncio.wait(waiting[-1:], timeout=rng.choice([0, 0.005, 0.03]))
    await client.send_and_wait(Set(values={"rating_gate": "async"}))
    async with asyncio.timeout(90):
        while open_ones := [t for t in waiting if not t.done()]:  # the last pause may hold them all
            await client.send_and_wait(Resume())
            await asyncio.wait(open_ones, timeout=0.05)
    answers = [t.result() for t in waiting]
    assert {a.status for a in answers} <= {"applied", "rejected", "data"}
    assert not [a.text for a in answers if "internal" in a.text or "Error" in a.text]
    return answers


@pytest.mark.parametrize("seed", [0, 1, 2])
async def test_three_people_do_anything(seed: int) -> None:
    folder = session(paused=False)
    async with live(folder) as tested:
        async with attached(tested.client.path, "b") as second, attached(tested.client.path, "c") as third:
            people = [tested.client, second, third]
            for answers in await asyncio.gather(*(person(tested, c, 10 * seed + i, 60) for i, c in enumerate(people))):
                assert len(answers) == 60
        at = tested.engine.learner.step
        await tested.do("resume")
        await tested.until(lambda: tested.engine.learner.step > at)
        assert (await tested.do("stop")).status == "applied"
        await tested.ended()
        assert (tested.engine.exit_code, tested.engine.failure) == (0, "")
        rules = {a.rule for a in tested.engine.board.alarms.values()}
        assert "step failed" not in rules
        assert not rules & {"non-finite", "sampler gap", "ratio error", "advantage bound"}
        last = tested.engine.learner.step
        board = tested.engine.board
    store = Store(folder.database)
    assert [r.step for r in store.steps("main") if r.step] == list(range(1, last + 1))
    assert {h.status for h in store.heads("main", limit=5000)} <= {"updated", "discarded"}
    assert not [c for c in store.changes() if c.status == "applied" and not c.applied_step]
    assert {c.id: c.status for c in store.changes()} == {c.id: c.status for c in board.changes.values()}
    for rating in store.recent_ratings(1000):
        use = store.rating_use(rating.id)
        assert use is None or use.step <= last
    store.close()
