"""Rewinds, forks, switches and races of a live session: where they arrive, and what they leave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

from engine import branching
from sessions import wire
from sessions.branches import BranchInfo, Probe
from sessions.checkpoints import read_state
from sessions.commands import Fork, QueryBranches, Rate, Rewind, Switch
from sessions.errors import Refused
from sessions.records import ResponseName
from sessions.store import Store
from tests.engine.live import Live, live, session
from tests.engine.small import same_weights
from tests.engine.test_resuming import pause_in, rows

PPO = {"algorithm": "ppo", "kl_placement": "reward", "kl_estimator": "k1", "value_warmup_steps": 1}


def rate(group: str, **values: float) -> Rate:
    return Rate(group=group, mode="likert", values=values or {"A": 5.0}, who="ann")


async def settled(tested: Live) -> None:
    """Paused before a step, wherever it went."""
    await tested.until(lambda: tested.engine.control.paused and tested.engine.control.phase == "idle")


async def go(tested: Live, words: Any) -> str:
    """Carry out a move; what was said."""
    answer = await tested.do(words)
    assert answer.status == "applied", answer
    await settled(tested)
    return answer.text


def steps_of(tested: Live, branch: str) -> list[tuple[str, int]]:
    store = Store(tested.engine.folder.database, read_only=True)
    try:
        return [(s.branch, s.step) for s in store.steps(branch)]
    finally:
        store.close()


@pytest.mark.parametrize("target", [0, 2, 3, 5])
@pytest.mark.parametrize("checkpoint_steps", [0, 2])
async def test_a_rewind_is_where_the_step_was_bit_for_bit(target: int, checkpoint_steps: int) -> None:
    async with live(session(steps=0), checkpoint_steps=checkpoint_steps, epochs=2) as tested:
        seen = {0: tested.weights}
        for number in range(1, 6):
            await tested.step()
            seen[number] = tested.weights
        before = rows(tested.engine.folder)
        text = await go(tested, Rewind(step=target))
        assert same_weights(tested.weights, seen[target])
        assert tested.engine.learner.step == target
        if target < 5:
            assert text.startswith(f"went back from step 5 to {target} of main; {5 - target} steps are kept on main~1")
            assert steps_of(tested, "main~1")[-1] == ("main~1", 5)
        assert [step for _, step in steps_of(tested, "main")] == list(range(1, target + 1))
        await tested.step(5 - target)  # nothing has changed: it takes the same way
        assert same_weights(tested.weights, seen[5])
        assert rows(tested.engine.folder) == before


async def test_what_was_asked_for_after_a_step_is_left_behind_by_a_rewind_to_it() -> None:
    """Also where the step's checkpoint was written later, and knows of it."""
    async with live(session(steps=0), checkpoint_steps=0) as tested:
        await tested.step(2)
        await tested.first("set epochs 3")
        await tested.do("checkpoint")
        (saved,) = [c for c in tested.engine.board.checkpoints.values() if c.step == 2]
        state = read_state(tested.engine.folder.checkpoints / saved.path)
        assert [change.name for change in state.pending] == ["epochs"]
        await tested.step(2)
        assert tested.engine.knobs.whole("epochs") == 3
        await go(tested, "rewind 2")
        await tested.step()
        assert tested.engine.knobs.whole("epochs") == 1
        await go(tested, "switch main~1")
        assert tested.engine.knobs.whole("epochs") == 3


async def test_a_rewind_says_beforehand_which_steps_it_computes_again() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(2)
        await tested.do("checkpoint")
        await tested.step(3)
        said = {}
        for target in (4, 2, 1):
            answer = await tested.client.send(Rewind(step=target))
            assert answer.status == "accepted", answer
            said[target] = answer.text
            await settled(tested)
            await tested.until(lambda target=target: tested.engine.learner.step == target)
            await settled(tested)
        assert said[4].startswith("goes back to step 4, computing steps 3 to 4 again, and keeps")
        assert said[2].startswith("goes back to step 2, and keeps")
        assert said[1].startswith("goes back to step 1, computing step 1 again, and keeps")


async def test_everybody_sees_the_branch_as_it_is_after_a_rewind() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(3)
        await tested.do(rate("3.1"))
        await tested.first("set learning_rate 5e-4")
        await tested.step()
        count = len(tested.snapshots)
        await go(tested, "rewind 2")
        await tested.until(lambda: len(tested.snapshots) > count and tested.snapshots[-1].last_step)
        snapshot = tested.snapshots[-1]
        assert snapshot.last_step.step == 2
        assert [s.steps[-1] for s in snapshot.series if s.name == "reward/mean"] == [2]
        assert snapshot.changes == []
        assert {h.step for h in snapshot.heads} == {1, 2}
        assert [(b.name, b.abandoned) for b in snapshot.branches] == [("main", False), ("main~1", True)]
        assert tested.engine.knobs.number("learning_rate") == 1e-3
        assert tested.engine.store.rating(tested.engine.store.recent_ratings()[0].id).branch == "main~1"


async def test_going_back_and_forth_between_branches_loses_nothing() -> None:
    """One that is left between sampling and update goes on there, with the ratings it had and those it gets."""
    values = {"epochs": 2, "minibatches": 2}
    async with live(session("a", steps=0), **values) as tested:
        await tested.step(2)
        await pause_in(tested, "updating", 0)
        await tested.do(rate("3.1", A=5.0, B=1.0))
        await go(tested, Fork(name="try", step=1, values={"learning_rate": 5e-3, "group_size": 3}))
        assert (tested.engine.branch, tested.engine.learner.step) == ("try", 1)
        await tested.step(2)
        assert tested.engine.knobs.whole("group_size") == 3
        assert steps_of(tested, "try") == [("main", 1), ("try", 2), ("try", 3)]
        tried = tested.weights
        await go(tested, "switch main")
        assert (tested.engine.branch, tested.engine.learner.step) == ("main", 2)
        await tested.do(rate("3.2", A=2.0))
        await tested.step()
        await tested.until(lambda: len(tested.uses) == 2)
        assert {(u.fate, u.step, u.branch) for u in tested.uses} == {("on_time", 3, "main")}
        assert tested.engine.knobs.whole("group_size") == 4
        found = tested.weights
        await go(tested, "switch try")
        assert same_weights(tested.weights, tried)
    async with live(session("b", steps=0), **values) as tested:
        await tested.step(2)
        await pause_in(tested, "updating", 0)
        await tested.do(rate("3.1", A=5.0, B=1.0))
        await tested.do(rate("3.2", A=2.0))
        await tested.step()
        assert same_weights(tested.weights, found)


async def test_a_fork_begins_with_its_changes_and_leaves_its_source_alone() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(3)
        weights = tested.weights
        await go(tested, Fork(name="ppo", values=PPO, step=2))
        assert tested.engine.knobs.text("algorithm") == "grpo"  # until its first step
        await tested.step()
        assert tested.engine.knobs.text("algorithm") == "ppo"
        infos = {i.branch.name: i for i in await tested.client.query(QueryBranches(), list[BranchInfo])}
        assert (infos["ppo"].branch.parent, infos["ppo"].branch.step, infos["ppo"].active) == ("main", 2, True)
        assert infos["ppo"].begun_with["algorithm"] == "grpo"
        assert infos["ppo"].values["algorithm"] == "ppo"
        assert infos["main"].tip == 3
        await go(tested, "switch main")
        assert same_weights(tested.weights, weights)
        assert tested.engine.learner.training.value_model is None


async def test_a_fork_with_a_seed_draws_other_noise_and_its_children_inherit_it() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(2)
        texts = {}
        for name, seed in (("same", None), ("other", 7)):
            await go(tested, Fork(name=name, step=1, source="main", seed=seed))
            await tested.step()
            group = tested.engine.store.group(ResponseName(2, 1), name)
            texts[name] = [r.text for r in group.responses]
        assert texts["same"] == [r.text for r in tested.engine.store.group(ResponseName(2, 1), "main").responses]
        assert texts["other"] != texts["same"]
        await go(tested, Fork(name="child"))
        assert tested.engine.learner.seed == 7
    async with live(tested.engine.folder) as tested:
        assert (tested.engine.branch, tested.engine.learner.seed) == ("child", 7)


async def test_back_over_where_a_branch_began() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(3)
        await go(tested, Fork(name="try"))
        await tested.step(2)
        tip = tested.weights
        await go(tested, "rewind 1")
        assert steps_of(tested, "try") == [("main", 1)]
        assert steps_of(tested, "try~1") == [("main", 1), ("main", 2), ("main", 3), ("try~1", 4), ("try~1", 5)]
        assert steps_of(tested, "main")[-1] == ("main", 3)
        await tested.step(4)
        assert same_weights(tested.weights, tip)  # nothing is different there either
        assert steps_of(tested, "try")[1:] == [("try", step) for step in (2, 3, 4, 5)]


async def test_a_rewind_inside_a_step_keeps_its_groups_on_the_branch_it_leaves() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(2)
        await pause_in(tested, "updating", 0)
        command = rate("3.1", A=5.0)
        await tested.do(command)
        await go(tested, "rewind 2")
        assert tested.engine.store.rating(command.id).branch == "main~1"
        await tested.step()
        assert tested.uses == []
        await go(tested, "switch main~1")
        await tested.step()
        use = tested.engine.store.rating_use(command.id, "main~1")  # its event may have come in a snapshot
        assert (use.fate, use.branch) == ("on_time", "main~1")


@pytest.mark.parametrize("moment", ["records", "arrived"])
async def test_an_engine_that_ends_on_its_way_arrives_with_the_next(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = session(steps=0)
    async with live(folder) as tested:
        seen = {}
        for number in range(1, 5):
            await tested.step()
            seen[number] = tested.weights
        good = branching.go_to

        async def killed(engine: Any, branch: str) -> None:
            if moment == "arrived":
                await good(engine, branch)
            engine.control.stop(now=True)
            raise branching.WorkbenchError("killed here")

        monkeypatch.setattr(branching, "go_to", killed)
        await tested.first("rewind 2")
        await tested.ended()
        monkeypatch.undo()
    async with live(folder) as tested:
        assert tested.engine.learner.step == 2
        assert same_weights(tested.weights, seen[2])
        assert steps_of(tested, "main~1")[-1] == ("main~1", 4)


async def test_what_cannot_be_gone_to() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(2)
        for words, why in (
            ("rewind 3", "there is no step 3 to go to; they are 0 to 2"),
            ("switch mian", "unknown branch 'mian'; did you mean main?"),
            ("switch main", "is the one that is trained"),
            ("fork try --at 9", "there is no step 9"),
            ("fork try --from nowhere", "unknown branch"),
            ("delete main", "cannot be deleted"),
            ("delete nowhere", "unknown branch"),
            ("rename main other", "main keeps its name"),
            ("race stop", "there is no race"),
            (Rewind(step=1, expect="try"), "branch main is trained now, not try"),
            (Switch(branch="main", expect="try"), "branch main is trained now, not try"),
            (Fork(name="../up"), "cannot name a branch"),
            (Fork(name="bad", values={"kl_placement": "reward"}), "kl_estimator"),
        ):
            answer = await tested.do(words)
            assert answer.status == "rejected", words
            assert why in answer.text
        await go(tested, "fork try")
        answer = await tested.do("fork try")
        assert "there is a branch try already" in answer.text
        answer = await tested.do("delete try")
        assert "while the session trains it" in answer.text


async def test_a_branch_is_renamed_and_another_deleted_with_its_checkpoints() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(2)
        await go(tested, "fork one --at 1")
        await tested.step()
        command = rate("2.1")
        await tested.do(command)
        await go(tested, "rename one better")
        assert tested.engine.branch == "better"
        await tested.step()
        assert steps_of(tested, "better") == [("main", 1), ("better", 2), ("better", 3)]
        await go(tested, "switch main")
        saved = [c.path for c in tested.engine.store.checkpoints_of("better")]
        assert saved
        await tested.do("delete better")
        assert not any((tested.engine.folder.checkpoints / path).exists() for path in saved)
        assert tested.engine.store.rating(command.id) is not None
        answer = await tested.do("switch better")
        assert "unknown branch" in answer.text
        await tested.step()


async def race_and_pause(tested: Live, words: str) -> None:
    """Start a race in a paused session, and pause in the first racer's first step."""
    tested.hold.at("sampling", 0)
    await tested.first(words)
    await tested.held()
    pausing = asyncio.create_task(tested.do("pause"))
    await tested.until(lambda: tested.engine.control.pausing)
    tested.hold.release()
    assert "in step" in (await pausing).text


async def test_a_race_runs_each_algorithm_from_the_same_step_and_comes_home() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(2)
        home = tested.weights
        await tested.first("race grpo,ppo,trpo 2 kl_coefficient=0 damping=0.1")
        await tested.until(lambda: any("is over" in getattr(e, "text", "") for e in tested.engine.board.events))
        await settled(tested)
        assert (tested.engine.branch, tested.engine.learner.step) == ("main", 2)
        assert same_weights(tested.weights, home)
        racers = ["race-1-grpo", "race-1-ppo", "race-1-trpo"]
        infos = {i.branch.name: i for i in await tested.client.query(QueryBranches(), list[BranchInfo])}
        assert [infos[name].values["algorithm"] for name in racers] == ["grpo", "ppo", "trpo"]
        assert [(infos[name].branch.step, infos[name].tip) for name in racers] == [(2, 4)] * 3
        first = [
            [r.text for n in (1, 2, 3, 4) for r in tested.engine.store.group(ResponseName(3, n), name).responses]
            for name in racers
        ]
        assert first[0] == first[1] == first[2]  # the same prompts, policy and noise
        for name in racers:
            probes = await tested.client.query(wire.COMMANDS["probes"](branch=name), list[Probe])
            assert [(p.branch, p.step) for p in probes] == [(name, 4)] * 4
        await tested.step()
        assert not tested.engine.moves.racing


async def test_a_race_outlives_its_engine() -> None:
    folder = session(steps=3)
    async with live(folder) as tested:
        await tested.step(2)
        await race_and_pause(tested, "race grpo,trpo 3 damping=0.1")
        await tested.step()
        answer = await tested.do("rewind 1")
        assert "a race is under way" in answer.text
        await tested.do("stop --now")
        await tested.ended()
    async with live(folder) as tested:
        assert tested.engine.branch == "race-1-grpo"
        await tested.do("resume")
        await tested.until(lambda: any("is over" in getattr(e, "text", "") for e in tested.engine.board.events))
        await settled(tested)
        assert [step for _, step in steps_of(tested, "race-1-trpo")] == [1, 2, 3, 4, 5]
        assert tested.engine.branch == "main"


async def test_a_race_is_given_up() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step()
        await race_and_pause(tested, "race grpo,trpo 3")
        await go(tested, "race stop")
        assert (tested.engine.branch, tested.engine.learner.step) == ("main", 1)
        await tested.step()


async def test_a_session_that_has_made_its_steps_can_go_back_where_it_is_paused() -> None:
    folder = session(steps=2, paused=False)
    async with live(folder) as tested:
        await tested.ended()
    folder.write_settings(wire.msgspec.structs.replace(folder.settings(), paused=True))
    async with live(folder) as tested:
        await go(tested, "rewind 1")
        await tested.do("resume")
        await tested.ended()
        assert steps_of(tested, "main") == [("main", 1), ("main", 2)]
        assert steps_of(tested, "main~1") == [("main", 1), ("main~1", 2)]


async def test_answers_to_the_probe_prompts_are_kept_with_every_evaluation() -> None:
    async with live(session(steps=0), evaluate_every=1) as tested:
        await tested.step()
        probes = tested.engine.store.probes("main")
        evaluation = tested.engine.learner.task.evaluation
        assert [(p.place, p.prompt, p.step) for p in probes] == [(i, q.text, 1) for i, q in enumerate(evaluation)]
        record = tested.engine.store.step("main", 1)
        assert record is not None
        assert record.metrics["eval/accuracy"] == sum(p.right for p in probes) / len(probes)


async def test_checkpoints_that_no_rule_keeps_leave_the_disk_and_the_records() -> None:
    folder = session(steps=0, keep_last=2, keep_best=0)
    async with live(folder, checkpoint_steps=1) as tested:
        await tested.step(3)
        await go(tested, "fork try")
        await tested.step(4)
        await tested.until(lambda: 7 in tested.engine.board.checkpoints)
        await tested.do("checkpoint")
        rows_left = {(c.branch, c.step): c.path for c in tested.engine.store.all_checkpoints()}
        # main's newest two, of which one is where try begins, and the reference
        assert set(rows_left) == {("main", 0), ("main", 2), ("main", 3), ("try", 6), ("try", 7)}
        assert sorted(p.name for p in folder.checkpoints.iterdir()) == sorted(rows_left.values())
        assert sorted(tested.engine.board.checkpoints) == [0, 2, 3, 6, 7]


async def test_what_the_step_in_progress_has_changed_is_not_that_of_the_step_before() -> None:
    """Its groups wait in the checkpoint of the step before; who goes back there finds the values of that step."""
    folder = session(steps=0)
    async with live(folder) as tested:
        await tested.step(1)
        await tested.first("set group_size 2")
        await pause_in(tested, "updating", 0)
        await tested.do("stop")
        await tested.ended()
    async with live(folder) as tested:
        assert tested.engine.knobs.whole("group_size") == 2
        await go(tested, "rewind 1")
        assert tested.engine.knobs.whole("group_size") == 4
        await go(tested, "switch main~1")
        assert tested.engine.knobs.whole("group_size") == 2
        await tested.step()
        assert len(tested.engine.store.group(ResponseName(2, 1), "main~1").responses) == 2


async def test_a_fork_with_another_seed_begins_where_its_source_was() -> None:
    """What comes before it was made with another seed, and is computed again with that."""
    async with live(session(steps=0, keep_token_steps=1), minibatches=2, epochs=2) as tested:
        seen = {}
        for number in range(1, 4):
            await tested.step()
            seen[number] = tested.weights
        await go(tested, Fork(name="other", step=2, seed=7))
        assert same_weights(tested.weights, seen[2])
        assert tested.engine.store.branches()["other"].step == 2
        await tested.step(2)
        tip = tested.weights
        await go(tested, Fork(name="child", step=2, source="other"))
        assert tested.engine.learner.seed == 7  # though its steps up to there are main's
        await go(tested, "switch other")
        await go(tested, "rewind 1")
        assert same_weights(tested.weights, seen[1])
        await go(tested, "switch other~1")  # it begins on main, and was made with the same seed
        for path in tested.engine.folder.checkpoints.glob("4*"):
            (path / "manifest.json").unlink()
        await go(tested, "switch child")
        await go(tested, "switch other~1")
        assert (tested.engine.learner.step, tested.engine.learner.seed) == (4, 7)
        assert same_weights(tested.weights, tip)


async def test_back_over_where_a_branch_began_before_it_had_a_step() -> None:
    """What was made of it so far belongs to no step of its line: not its checkpoint, nor what was to change."""
    async with live(session(steps=0)) as tested:
        seen = {}
        for number in range(1, 4):
            await tested.step()
            seen[number] = tested.weights
        await go(tested, Fork(name="try", step=2, values=PPO))
        assert [c.step for c in tested.engine.store.checkpoints_of("try")] == [2]
        await tested.first("set group_size 3")
        await go(tested, "rewind 1")
        assert tested.engine.learner.step == 1
        assert same_weights(tested.weights, seen[1])
        await tested.step(2)
        assert same_weights(tested.weights, seen[3])
        assert tested.engine.knobs.text("algorithm") == "grpo"


async def test_weights_that_are_not_finite_can_be_left() -> None:
    async with live(session(steps=0)) as tested:
        seen = {}
        for number in range(1, 5):
            await tested.step()
            seen[number] = tested.weights
        with torch.no_grad():
            tested.engine.learner.policy.parameters[0].fill_(float("nan"))
        await go(tested, "rewind 2")
        assert same_weights(tested.weights, seen[2])
        assert any("the weights of step 4 are not finite" in getattr(e, "text", "") for e in tested.engine.board.events)
        await tested.step(2)
        assert same_weights(tested.weights, seen[4])
        with torch.no_grad():
            tested.engine.learner.policy.parameters[0].fill_(float("nan"))
        await go(tested, "fork try --at 1")
        assert same_weights(tested.weights, seen[1])


async def test_of_two_who_want_to_go_elsewhere_at_once_one_is_refused() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(3)
        ask = tested.engine.moves.ask
        told, refused = await asyncio.gather(ask(Rewind(step=1)), ask(Rewind(step=2)), return_exceptions=True)
        assert told.startswith("goes back to step 1")
        assert "goes to another step or branch" in str(refused)
        await tested.until(lambda: tested.engine.learner.step == 1)
        await settled(tested)


async def test_what_is_set_on_the_way_is_refused_and_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(2)
        good, answers = branching.go_to, []

        async def slow(engine: Any, branch: str) -> None:
            answers.append(await tested.first("set clip_low 0.1"))
            answers.append(await tested.first("switch main"))
            await good(engine, branch)

        monkeypatch.setattr(branching, "go_to", slow)
        await go(tested, "rewind 1")
        monkeypatch.undo()
        assert [a.status for a in answers] == ["rejected"] * 2
        assert all("is under way" in a.text for a in answers)


@pytest.mark.parametrize("error", [Refused("not here"), OSError(28, "No space left on device")], ids=["no", "disk"])
async def test_who_cannot_go_goes_on_in_the_step_that_was_left(error: Exception, monkeypatch: Any) -> None:
    """Nothing is sampled again: what people rated stays what they saw, and what is set waits for the next step."""
    async with live(session("a", steps=0)) as tested:
        await tested.step()
        await pause_in(tested, "updating", 0)
        await tested.do(rate("2.1"))
        await tested.first("set group_size 2")
        before = tested.engine.store.group(ResponseName(2, 1), "main")

        def fails(*_: Any) -> Any:
            raise error

        monkeypatch.setattr(tested.engine.store, "rewind", fails)
        answer = await tested.do("rewind 1")
        assert answer.status == "rejected"
        assert str(getattr(error, "strerror", None) or error) in answer.text
        await settled(tested)
        await tested.step()
        after = tested.engine.store.group(ResponseName(2, 1), "main")
        assert [r.tokens for r in after.responses] == [r.tokens for r in before.responses]
        await tested.until(lambda: tested.uses)
        assert (tested.uses[0].fate, tested.uses[0].step) == ("on_time", 2)
        found = tested.weights
        await tested.step()
        assert len(tested.engine.store.group(ResponseName(3, 1), "main").responses) == 2
    async with live(session("b", steps=0)) as tested:
        await tested.step()
        await pause_in(tested, "updating", 0)
        await tested.do(rate("2.1"))
        await tested.step()
        assert same_weights(tested.weights, found)


async def test_a_rating_of_a_group_that_a_rewind_takes_away_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(2)
        store = tested.engine.store
        good, moved = store.standing_ratings, []

        def overtaken(name: Any, branch: str) -> Any:
            if not moved:
                moved.append(store.rewind("main", 1, "a rewind"))
            return good(name, branch)

        monkeypatch.setattr(store, "standing_ratings", overtaken)
        answer = await tested.do(rate("2.1"))
        assert answer.status == "rejected"
        assert "group 2.1 has gone to another branch" in answer.text
        assert store.recent_ratings() == []


async def test_a_race_that_cannot_go_on_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(session(steps=0)) as tested:
        await tested.step()

        def small(name: str) -> None:
            if name == "trpo" and tested.engine.branch == "race-1-grpo":
                raise Refused("trpo needs more memory")

        monkeypatch.setattr(tested.engine.learner, "check_algorithm", small)
        await tested.first("race grpo,trpo 2 damping=0.1")
        await tested.until(lambda: any("more memory" in a.message for a in tested.engine.board.alarms.values()))
        await settled(tested)
        assert (tested.engine.branch, tested.engine.learner.step) == ("main", 1)
        assert not tested.engine.moves.racing
        await tested.step()


async def test_a_late_group_is_compared_with_the_reference_of_the_branch_it_joins() -> None:
    """Another branch has refreshed its own, and measured the same group with that."""
    values = {"kl_coefficient": 0.3, "reference_refresh_steps": 2, "rating_max_kl": 50.0}
    found = []
    for elsewhere in (False, True):
        async with live(session(f"s{elsewhere}", steps=0), **values) as tested:
            await tested.step()
            if elsewhere:
                await go(tested, "fork try")
                await tested.step(2)
                await tested.do(rate("1.1"))
                await tested.step()
                await tested.until(lambda tested=tested: [u for u in tested.uses if u.branch == "try"])
                await go(tested, "switch main")
            else:
                await tested.do(rate("1.1"))
            await tested.step()
            await tested.until(lambda tested=tested: [u for u in tested.uses if u.branch == "main"])
            found.append(tested.weights)
            if elsewhere:
                await go(tested, "rewind 1")
                await go(tested, "switch main~1")  # and computed again
    assert same_weights(*found)


async def test_a_checkpoint_that_was_asked_for_meanwhile_is_of_the_branch_that_is_there_then() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(3)
        seen = tested.weights
        await tested.step(2)
        await tested.first("set learning_rate 5e-3")  # a checkpoint of step 5 is written first
        await go(tested, "rewind 3")
        await tested.do("checkpoint")
        assert (tested.engine.learner.step, tested.engine.branch) == (3, "main")
        assert same_weights(tested.weights, seen)
        assert max(c.step for c in tested.engine.store.checkpoints_of("main")) == 3
