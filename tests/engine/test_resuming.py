"""An engine that ends anywhere, and the next that goes on: beside one that never ended, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import engine as engine_module
from engine import resuming, watchdog
from engine.engine import Engine
from sessions import wire
from sessions.commands import QueryGroups, Rate, Set
from sessions.errors import EngineUnreachable
from sessions.folders import ExitInfo, SessionFolder
from sessions.records import GroupHead, StepRecord
from sessions.store import Store
from tests.engine.live import Live, live, session
from tests.engine.small import random_policy, same_weights, small_task

Act = Callable[[Live], Awaitable[None]]
UNTIMED = ("time/", "speed/", "memory/", "loop/", "ratings/per_hour")
PPO = {"algorithm": "ppo", "kl_placement": "reward", "kl_estimator": "k1", "value_warmup_steps": 1}
TRPO = {"algorithm": "trpo", "kl_placement": "reward", "kl_estimator": "k1", "kl_coefficient": 0.0, "damping": 0.1}


def rate(group: str, **values: float) -> Rate:
    return Rate(group=group, mode="likert", values=values or {"A": 5.0}, who="ann")


async def pause_in(tested: Live, phase: str, number: int) -> None:
    """Hold the next step there, paused."""
    tested.hold.at(phase, number)
    await tested.do("resume")
    await tested.held()
    await tested.first("pause")
    tested.hold.release()
    await tested.paused()


def rows(folder: SessionFolder, branch: str = "main") -> list[StepRecord]:
    """What was recorded of every step, without what depends on the clock."""
    store = Store(folder.database, read_only=True)
    try:
        found = store.steps(branch)
        groups = {h.name: (h.status, h.rewards, h.ratings) for h in store.heads(branch, limit=1000)}
    finally:
        store.close()
    for record in found:
        record.time = 0.0
        record.metrics = {k: v for k, v in record.metrics.items() if not k.startswith(UNTIMED)}
        if record.inputs is not None:  # a rating has another id in another run
            record.inputs.ratings = {name: ["?"] * len(ids) for name, ids in record.inputs.ratings.items()}
    return [(record, {n: g for n, g in groups.items() if n.startswith(f"{record.step}.")}) for record in found]


async def finish(tested: Live) -> None:
    await tested.do("resume")
    await tested.ended()


async def whole(acts: list[Act], steps: int, **values: Any) -> tuple[list[torch.Tensor], list[Any]]:
    """Weights and rows of a session in which all of that happens, and that never ends early."""
    folder = session("whole", steps=steps)
    async with live(folder, **values) as tested:
        for act in acts:
            await act(tested)
        await finish(tested)
        return tested.weights, rows(folder)


_WHOLE: dict[str, tuple[list[torch.Tensor], list[Any]]] = {}


async def whole_once(acts: list[Act], steps: int, **values: Any) -> tuple[list[torch.Tensor], list[Any]]:
    """The same, made once for all cases of a test that are compared with it; ``acts`` are those of the test."""
    name = f"{len(acts)} {steps} {sorted(values.items())}"
    if name not in _WHOLE:
        _WHOLE[name] = await whole(acts, steps, **values)
    return _WHOLE[name]


async def interrupted(
    acts: list[Act], steps: int, end: str, after: int, **values: Any
) -> tuple[list[torch.Tensor], list[Any], Live]:
    """The same, with an end of the engine after so many acts and another one that goes on."""
    folder = session("cut", steps=steps)
    async with live(folder, **values) as tested:
        for act in acts[:after]:
            await act(tested)
        await tested.first(end)
        await tested.ended()
    async with live(folder, **values) as tested:
        for act in acts[after:]:
            await act(tested)
        await finish(tested)
    return tested.weights, rows(folder), tested


def act(words: str | Rate) -> Act:
    async def do(tested: Live) -> None:
        answer = await tested.first(words)
        assert answer.status in ("accepted", "applied"), answer

    return do


def step(count: int = 1) -> Act:
    return lambda tested: tested.step(count)


def inside(phase: str, number: int) -> Act:
    return lambda tested: pause_in(tested, phase, number)


async def checkpoint(tested: Live) -> None:
    assert (await tested.do("checkpoint")).status == "applied"


BUSY: list[Act] = [
    step(),
    checkpoint,
    act(rate("1.1", A=5.0, B=1.0)),  # late: joins update 2
    act("set learning_rate 2e-3"),
    step(),
    inside("updating", 2),  # in the update of step 3, between minibatches
    act("set clip_low 0.1"),
    step(),
    inside("updating", 0),  # before the update of step 4
    act(rate("4.2", B=2.0)),  # on time
    act("set group_size 3"),
    step(),
    act(rate("1.1", A=1.0)),  # again, of a group that was rated late
    step(2),
]


@pytest.mark.parametrize("end", ["stop", "stop --now"])
@pytest.mark.parametrize(
    ("values", "after"),
    [*(({}, after) for after in (5, 8, 11, 14)), (PPO, 8), (PPO, 13), (TRPO, 11)],
    ids=["grpo-5", "grpo-8", "grpo-11", "grpo-14", "ppo-8", "ppo-13", "trpo-11"],
)
async def test_ended_and_gone_on_equals_never_ended(end: str, values: dict[str, Any], after: int) -> None:
    values = {"epochs": 2, "minibatches": 2, "rating_max_kl": 5.0, **values}
    weights, expected = await whole_once(BUSY, 8, **values)
    found, again, tested = await interrupted(BUSY, 8, end, after, **values)
    assert same_weights(weights, found)
    assert again == expected
    assert not [e for e in tested.of(wire.AlarmRaised) if e.alarm.rule == "checkpoint"]


@pytest.mark.parametrize(
    ("phase", "number"), [("sampling", 1), ("scoring", 1), ("updating", 0), ("updating", 1), ("updating", 3)]
)
@pytest.mark.parametrize("end", ["stop", "stop --now"])
async def test_an_end_inside_a_step_changes_nothing(phase: str, number: int, end: str) -> None:
    values = {"epochs": 2, "minibatches": 2}
    undisturbed = [step(), checkpoint, step(2)]
    weights, expected = await whole_once(undisturbed, 6, **values)
    acts = [*undisturbed, inside(phase, number)]
    found, again, _ = await interrupted(acts, 6, end, len(acts), **values)
    assert same_weights(weights, found)
    assert again == expected


@pytest.mark.parametrize("end", ["stop", "stop --now"])
async def test_groups_that_wait_for_ratings_wait_for_them_again(end: str) -> None:
    async def wait(tested: Live) -> None:
        await tested.do("resume")
        await tested.until(lambda: tested.engine.service.waiting)

    async def rated(tested: Live) -> None:
        for number in (1, 2):
            await tested.do(rate(f"1.{number}", A=5.0, B=1.0, C=2.0, D=3.0))
        await tested.until(lambda: tested.engine.learner.step == 1)

    values = {"rating_gate": "wait 2"}
    folder = session("s", steps=2)
    async with live(folder, **values) as tested:
        await wait(tested)
        await tested.do(rate("1.1", A=5.0, B=1.0, C=2.0, D=3.0))
        await tested.first(end)
        await tested.ended()
    async with live(folder, **values) as tested:
        await wait(tested)
        assert "1 of 2 groups" in tested.engine.service.waiting
        await tested.do(rate("1.2", A=5.0, B=1.0, C=2.0, D=3.0))
        await tested.until(lambda: tested.engine.learner.step == 1)
        await tested.until(lambda: len(tested.uses) == 2)
        assert {use.fate for use in tested.uses} == {"on_time"}
        found = tested.weights
    folder = session("other", steps=2)
    async with live(folder, **values) as tested:
        await wait(tested)
        await rated(tested)
        assert same_weights(found, tested.weights)


async def test_a_dropped_try_is_not_computed_again_and_its_prompts_stay_spent() -> None:
    acts = [
        step(),
        checkpoint,
        inside("updating", 2),
        act("pause"),
        inside("updating", 0),
        act("discard"),
        lambda tested: tested.until(lambda: tested.engine.control.phase == "idle" and tested.engine.control.paused),
        step(2),
    ]
    weights, expected = await whole(acts, 6, epochs=2)
    found, again, _ = await interrupted(acts, 6, "stop --now", len(acts), epochs=2)
    assert same_weights(weights, found)
    assert again == expected
    numbers = [record.inputs.number for record, _ in again]
    assert numbers[2] == 5


async def test_what_is_computed_again_samples_and_scores_nothing() -> None:
    scored: list[str] = []

    def reward(completions: list[str], **_: Any) -> list[float]:
        scored.extend(completions)
        return [len(set(text)) / 10 for text in completions]

    folder = session(steps=0)
    async with live(folder, task=small_task(12, reward)) as tested:
        await tested.step(4)
        await tested.do("stop --now")
        await tested.ended()
        weights, count = tested.weights, len(scored)
    assert count
    async with live(folder, task=small_task(12, reward)) as tested:
        assert tested.engine.learner.step == 4
        assert same_weights(weights, tested.weights)
        assert len(scored) == count
        texts = [e.text for e in tested.engine.board.events if isinstance(e, wire.Noted) and e.kind == "resumed"]
        assert texts == ["from checkpoint 0; steps 1 to 4 were computed again from the records, bit for bit"]


async def test_where_tokens_are_no_longer_kept_the_steps_are_sampled_again() -> None:
    folder = session(steps=0, keep_token_steps=1)
    async with live(folder) as tested:
        await tested.step(4)
        await tested.do("stop --now")
        await tested.ended()
        weights, expected = tested.weights, rows(folder)
    async with live(folder) as tested:
        assert same_weights(weights, tested.weights)
        assert rows(folder) == expected


async def test_steps_that_come_out_otherwise_move_with_their_ratings_to_a_branch_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = session(steps=0)
    async with live(folder) as tested:
        await tested.step(2)
        await tested.do("checkpoint")
        await tested.step(3)
        rating = rate("4.1", A=1.0)
        await tested.do(rating)
        await tested.do("stop --now")
        await tested.ended()
    good = resuming._difference

    def other_device(record: StepRecord, metrics: dict[str, float]) -> tuple[float, str]:
        return good(record, {**metrics, "grad/norm": metrics["grad/norm"] * (1.5 if record.step == 4 else 1.0)})

    monkeypatch.setattr(resuming, "_difference", other_device)
    async with live(folder) as tested:
        assert tested.engine.learner.step == 3
        store = Store(folder.database, read_only=True)
        branches, left, kept = store.branches(), store.steps("main"), store.steps("main~1")
        (moved,) = store.recent_ratings()
        store.close()
        assert [s.step for s in left] == [1, 2, 3]
        assert [(s.branch, s.step) for s in kept][-2:] == [("main~1", 4), ("main~1", 5)]
        assert (branches["main~1"].parent, branches["main~1"].step, branches["main~1"].abandoned) == ("main", 3, True)
        assert (moved.id, moved.branch) == (rating.id, "main~1")
        text = next(e.text for e in tested.engine.board.events if "grad/norm" in getattr(e, "text", ""))
        assert "2 recorded steps from 4 on are kept on main~1" in text
        await tested.step()
        assert [s.step for s in tested.engine.store.steps("main")] == [1, 2, 3, 4]


async def test_a_changed_record_is_found_out() -> None:
    folder = session(steps=0)
    async with live(folder) as tested:
        await tested.step(3)
        await tested.do("stop --now")
        await tested.ended()
    store = Store(folder.database)
    record = store.steps("main")[1]
    record.values["clip_low"] = 0.123
    body = wire.msgspec.json.encode(record)
    store._db.execute("UPDATE steps SET body=? WHERE step=2", (body,))
    store.close()
    async with live(folder) as tested:
        assert tested.engine.learner.step == 1
        assert any("clip_low came out otherwise" in getattr(e, "text", "") for e in tested.engine.board.events)


async def test_records_of_an_earlier_version_move_aside() -> None:
    folder = session(steps=0)
    async with live(folder) as tested:
        await tested.step(2)
        await tested.do("stop --now")
        await tested.ended()
    store = Store(folder.database)
    for record in store.steps("main"):
        record.inputs = None
        store._db.execute("UPDATE steps SET body=? WHERE step=?", (wire.msgspec.json.encode(record), record.step))
    store.close()
    async with live(folder) as tested:
        assert tested.engine.learner.step == 0
        assert any("an earlier version recorded it" in getattr(e, "text", "") for e in tested.engine.board.events)
        await tested.step()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": lambda path: (path / "policy" / "model.safetensors").write_bytes(
        (path / "policy" / "model.safetensors").read_bytes()[:-7]
    ),
    "flipped": lambda path: _flip(path / "optimizer.safetensors"),
    "missing": lambda path: (path / "state.json").unlink(),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "not JSON": lambda path: (path / "manifest.json").write_text("{"),
    "outside": lambda path: (path / "manifest.json").write_text(json.dumps({"files": {"../0/state.json": "x"}})),
    "empty": lambda path: [file.unlink() for file in path.rglob("*") if file.is_file()],
}


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_checkpoint_is_told_and_an_earlier_one_used(damage: str) -> None:
    folder = session(steps=0)
    async with live(folder, kl_coefficient=0.04) as tested:
        await tested.step(2)
        await tested.do("checkpoint")
        await tested.step(2)
        await tested.do("stop")
        await tested.ended()
        weights = tested.weights
    DAMAGES[damage](folder.checkpoints / "4")
    async with live(folder, kl_coefficient=0.04) as tested:
        assert tested.engine.learner.step == 4
        assert same_weights(weights, tested.weights)
        (alarm,) = [a for a in tested.engine.board.alarms.values() if a.rule == "checkpoint"]
        assert alarm.message.startswith("a checkpoint is damaged, and an earlier one is used: checkpoint 4")
        assert alarm.step == 4
        assert ".4.damaged" in alarm.message
        assert not (folder.checkpoints / "4").exists()
        await tested.step()


async def test_the_start_of_rl_is_made_again_where_it_is_damaged() -> None:
    folder = session(steps=0)
    async with live(folder, kl_coefficient=0.04) as tested:
        await tested.step(2)
        await tested.do("stop")
        await tested.ended()
    _flip(folder.checkpoints / "0" / "policy" / "model.safetensors")
    async with live(folder, kl_coefficient=0.04) as tested:
        assert tested.engine.learner.step == 2
        await tested.step()
        assert tested.engine.board.last("kl/k3") is not None
        found = tested.weights
    folder = session("other", steps=0)
    async with live(folder, kl_coefficient=0.04) as tested:
        await tested.step(3)
        assert same_weights(found, tested.weights)


async def test_with_no_whole_checkpoint_the_records_are_enough() -> None:
    folder = session(steps=0)
    async with live(folder) as tested:
        await tested.step(3)
        await tested.do("stop")
        await tested.ended()
        weights = tested.weights
    for name in ("0", "3"):
        _flip(folder.checkpoints / name / "policy" / "model.safetensors")
    async with live(folder) as tested:
        assert tested.engine.learner.step == 3
        assert same_weights(weights, tested.weights)


async def test_with_no_whole_checkpoint_what_a_warm_up_made_cannot_be_had_again(tmp_path: Path) -> None:
    folder = session(steps=0)
    async with live(folder) as tested:
        await tested.step(2)
        await tested.do("stop")
        await tested.ended()
    folder.write_settings(wire.msgspec.structs.replace(folder.settings(), warm_up=str(tmp_path / "lessons.jsonl")))
    for name in ("0", "2"):
        _flip(folder.checkpoints / name / "policy" / "model.safetensors")
    with pytest.raises((AssertionError, EngineUnreachable, TimeoutError)):
        async with live(folder):
            pass
    store = Store(folder.database, read_only=True)
    (failed,) = [e for e in store.events() if isinstance(e, wire.Noted) and e.kind == "failed"]
    store.close()
    assert "none of its checkpoints is whole, and its steps began with a warm-up" in failed.text


async def test_a_checkpoint_without_a_row_is_adopted_and_a_row_without_one_forgotten() -> None:
    folder = session(steps=0)
    async with live(folder) as tested:
        await tested.step(2)
        await tested.do("checkpoint")
        await tested.step()
        await tested.do("stop")
        await tested.ended()
    store = Store(folder.database)
    store._db.execute("DELETE FROM checkpoints WHERE step=3")  # killed between the folder and its row
    (folder.checkpoints / "2").rename(folder.checkpoints / ".2.doomed")  # and between a rename and the row's end
    store.close()
    async with live(folder) as tested:
        assert sorted(tested.engine.board.checkpoints) == [0, 3]
        assert tested.engine.learner.step == 3
        assert sorted(p.name for p in folder.checkpoints.iterdir()) == ["0", "3"]


async def test_people_can_stop_and_watch_while_steps_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = session(steps=0)
    async with live(folder) as tested:
        await tested.step(4)
        await tested.do("stop --now")
        await tested.ended()
        weights = tested.weights
    good, seen = resuming._again, []

    def stopped(engine: Engine, number: int) -> Any:
        seen.append((engine.service.status().state, engine.service.status().note))
        if number == 3:
            engine.control.stop(now=False)
        return good(engine, number)

    monkeypatch.setattr(resuming, "_again", stopped)
    with pytest.raises((AssertionError, TimeoutError, EngineUnreachable)):
        async with live(folder):
            pass
    monkeypatch.undo()
    assert seen[0] == ("LOADING", "computes steps 1 to 4 again from their records")
    store = Store(folder.database, read_only=True)
    assert [c.step for c in store.checkpoints("main")][-1] == 2  # it had come so far
    store.close()
    async with live(folder) as tested:
        assert tested.engine.learner.step == 4
        assert same_weights(weights, tested.weights)


async def test_a_change_made_while_steps_are_computed_again_waits_for_the_first_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = session(steps=0)
    async with live(folder) as tested:
        await tested.step(3)
        await tested.do("stop --now")
        await tested.ended()
    good = resuming._again

    def hurried(engine: Engine, number: int) -> Any:
        if number == 1:
            engine.knobs.request(Set(values={"learning_rate": 0.5}), number)
        return good(engine, number)

    monkeypatch.setattr(resuming, "_again", hurried)
    async with live(folder) as tested:
        assert tested.engine.learner.step == 3
        assert tested.engine.knobs.number("learning_rate") == 1e-3
        await tested.step()
        assert tested.engine.knobs.number("learning_rate") == 0.5


async def test_a_kept_rollout_is_learned_from_as_it_was_sampled() -> None:
    """On a device that samples otherwise each time too: stopped between sampling and update, nothing is asked twice."""
    folder = session(steps=0)
    async with live(folder) as tested:
        await pause_in(tested, "updating", 0)
        heads = await tested.client.query(QueryGroups(), list[GroupHead])
        await tested.do("stop")
        await tested.ended()
    assert (folder.checkpoints / "0" / "rollout.json").exists()
    async with live(folder) as tested:
        tested.engine.learner.policy.model.load_state_dict(random_policy(seed=3).model.state_dict())
        await tested.step()
        again = await tested.client.query(QueryGroups(), list[GroupHead])
        assert [(h.name, h.rewards) for h in again] == [(h.name, h.rewards) for h in heads]
        assert {h.status for h in again} == {"updated"}


async def test_rated_groups_of_a_killed_step_are_learned_from_where_samples_differ() -> None:
    folder = session(steps=0)
    async with live(folder) as tested:
        await pause_in(tested, "updating", 0)
        await tested.do(rate("1.1"))
        await tested.do("stop --now")
        await tested.ended()
    async with live(folder) as tested:
        tested.engine.learner.policy.model.load_state_dict(random_policy(seed=3).model.state_dict())
        await tested.step()
        await tested.until(lambda: tested.uses)
        assert (tested.uses[0].fate, tested.uses[0].step) == ("on_time", 1)
        assert any("learns from the groups that were rated" in text for text in tested.notes("resumed"))


async def test_unrated_groups_of_a_killed_step_make_room_where_samples_differ() -> None:
    folder = session(steps=0)
    async with live(folder) as tested:
        await pause_in(tested, "updating", 0)
        before = await tested.client.query(QueryGroups(), list[GroupHead])
        await tested.do("stop --now")
        await tested.ended()
    async with live(folder) as tested:
        tested.engine.learner.policy.model.load_state_dict(random_policy(seed=3).model.state_dict())
        await tested.step()
        after = await tested.client.query(QueryGroups(), list[GroupHead])
        assert [h.name for h in after] == [h.name for h in before]
        assert [h.rewards for h in after] != [h.rewards for h in before]
        assert {h.status for h in after} == {"updated"}


async def test_the_reference_a_refresh_made_is_that_of_what_is_computed_again() -> None:
    acts = [step(), checkpoint, act(rate("1.1", A=5.0)), step(3)]
    values = {"kl_coefficient": 0.1, "reference_refresh_steps": 2, "rating_max_kl": 5.0}
    weights, expected = await whole(acts, 6, **values)
    found, again, _ = await interrupted(acts, 6, "stop --now", len(acts), **values)
    assert same_weights(weights, found)
    assert again == expected


async def test_the_watches_of_the_next_engine_look_back_at_the_newest_steps_and_the_first_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (engine_module, watchdog):
        monkeypatch.setattr(module, "HISTORY", 2)
    folder = session(steps=0)
    async with live(folder) as tested:
        await tested.step(4)
        await tested.first("stop")
        await tested.ended()
    async with live(folder) as tested:
        await tested.paused()
        dog, recorded = tested.engine.watching.dog, tested.engine.store.steps("main")
        first = next(r.metrics["entropy"] for r in recorded if "entropy" in r.metrics)
        assert [r.step for r in dog._steps] == [3, 4]
        assert dog._first["entropy"] == first != recorded[-1].metrics["entropy"]
        assert first not in [r.metrics["entropy"] for r in recorded[-2:]]


@pytest.mark.parametrize("end", ["stop", "stop --now"])
@pytest.mark.parametrize("phase", ["sampling", "scoring", "updating"])
async def test_prompts_of_a_dropped_try_stay_spent_where_nothing_of_it_was_scored(phase: str, end: str) -> None:
    async def settled(tested: Live) -> None:
        await tested.until(lambda: tested.engine.control.phase == "idle" and tested.engine.control.paused)

    acts = [step(), inside(phase, 0), act("set group_size 3"), act("discard"), settled, step()]
    weights, expected = await whole(acts, 4, epochs=2)
    found, again, _tested = await interrupted(acts, 4, end, len(acts) - 1, epochs=2)
    assert [record.inputs.number for record, _ in again] == [1, 5, 1, 1]
    assert {len(rewards) for _, rewards, _ in again[1][1].values()} >= {3}  # what was set counts for the next try
    assert again == expected
    assert same_weights(weights, found)


@pytest.mark.parametrize("end", ["stop", "stop --now"])
async def test_a_step_goes_on_whose_first_group_was_replaced(end: str) -> None:
    def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [0.0 if prompts[0] == prompt else len(set(text)) / 10 for prompt, text in zip(prompts, completions)]

    async def run(folder: SessionFolder, end: str) -> tuple[Any, Any]:
        task = small_task(12, reward)
        async with live(folder, task=task, dynamic_sampling=1) as tested:
            await tested.step()
            await pause_in(tested, "updating", 0)
            if end:
                await tested.first(end)
                await tested.ended()
            else:
                await tested.step(2)
                return tested.weights, rows(folder)
        async with live(folder, task=task, dynamic_sampling=1) as tested:
            await tested.step(2)
            return tested.weights, rows(folder)

    weights, expected = await run(session("whole", steps=0), "")
    assert expected[1][0].inputs.groups[0] != 1  # another took the first one's place
    found, again = await run(session("cut", steps=0), end)
    assert again == expected
    assert same_weights(weights, found)


async def test_a_late_rating_of_a_step_that_was_lost_in_its_evaluation_is_used_again() -> None:
    acts = [step(1), checkpoint, act(rate("1.1", A=5.0, B=1.0)), inside("evaluating", 0)]
    values = {"evaluate_every": 2, "rating_max_kl": 5.0}
    weights, expected = await whole(acts, 3, **values)
    found, again, tested = await interrupted(acts, 3, "stop --now", len(acts), **values)
    assert next(record.inputs.late for record, _ in again if record.step == 2) == ["1.1"]
    assert again == expected
    assert same_weights(weights, found)
    assert [(use.fate, use.step) for use in tested.uses] == [("late", 2)]


async def test_a_step_whose_evaluation_fails_is_recorded() -> None:
    folder = session(steps=0)
    broken, good = [False], small_task().judge

    def judge(prompt: Any, text: str) -> bool:
        if broken[0]:
            raise ValueError("no such answer")
        return good(prompt, text)

    task = replace(small_task(), judge=judge)
    async with live(folder, task=task, evaluate_every=2) as tested:
        await tested.step()
        broken[0] = True
        await tested.do("step")
        await tested.until(lambda: tested.of(wire.AlarmRaised))
        (alarm,) = [e.alarm for e in tested.of(wire.AlarmRaised)]
        assert "the evaluation after step 2 failed: ValueError: no such answer" in alarm.message
        await tested.step()
        weights = tested.weights
        await tested.do("stop --now")
        await tested.ended()
    broken[0] = False
    async with live(folder, task=task, evaluate_every=2) as tested:
        assert tested.engine.learner.step == 3
        assert same_weights(weights, tested.weights)


@pytest.mark.parametrize("end", ["stop", "stop --now"])
async def test_what_a_person_sets_after_the_schedule_stays_where_the_schedule_changed_nothing(end: str) -> None:
    folder = session(steps=0, sets=["clip_low=0.2@2"])  # which it is already
    async with live(folder) as tested:
        await tested.step()
        await tested.first("set clip_low 0.1")
        await tested.do(end)
        await tested.ended()
    async with live(folder) as tested:
        await tested.step()
        assert tested.engine.knobs.number("clip_low") == 0.1


@pytest.mark.parametrize("end", ["stop", "stop --now"])
@pytest.mark.parametrize("after", [6, 7])
async def test_what_a_dropped_try_had_applied_counts_from_the_beginning_of_the_next(after: int, end: str) -> None:
    async def settled(tested: Live) -> None:
        await tested.until(lambda: tested.engine.control.phase == "idle" and tested.engine.control.paused)

    acts = [step(), checkpoint, act("set kl_coefficient 0.5"), inside("updating", 1), act("discard"), settled, step()]
    values = {"kl_coefficient": 0.01, "epochs": 2}
    weights, expected = await whole(acts, 4, **values)
    found, again, _ = await interrupted(acts, 4, end, after, **values)
    assert again == expected
    assert same_weights(weights, found)


async def test_a_long_way_back_is_kept_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = session(steps=0)
    async with live(folder) as tested:
        await tested.step(4)
        await tested.do("stop --now")
        await tested.ended()
        weights = tested.weights
    monkeypatch.setattr(engine_module, "CHECKPOINT_SECONDS", -1.0)
    async with live(folder) as tested:
        assert sorted(tested.engine.board.checkpoints) == [0, 1, 2, 3]
        assert same_weights(weights, tested.weights)
        await tested.do("stop --now")
        await tested.ended()
    async with live(folder) as tested:
        assert any("from checkpoint 3; step 4" in getattr(e, "text", "") for e in tested.engine.board.events)
        assert same_weights(weights, tested.weights)


async def test_why_the_engine_before_ended_is_on_record_once() -> None:
    folder = session(steps=0)
    cause = ExitInfo(
        pid=1,
        code=None,
        signal="SIGKILL",
        out_of_memory=False,
        peak_memory_bytes=0,
        started=1.0,
        ended=2.0,
        cause="killed by SIGKILL",
    )
    folder.write_exit(cause)
    folder.forget_exit()
    assert folder.exit() is None
    for _ in range(2):
        async with live(folder) as tested:
            texts = [e.text for e in tested.engine.board.events if getattr(e, "kind", "") == "failed"]
            assert texts == ["the engine before this one: killed by SIGKILL"]
            await tested.do("stop")
            await tested.ended()
