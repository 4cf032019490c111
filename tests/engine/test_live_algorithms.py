"""Switching algorithms, presets, trying updates and replacing dead groups in a live engine, over its socket."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from engine import memory
from sessions import wire
from sessions.records import Preview
from tests.engine.live import Live, live, session
from tests.engine.small import same_weights, small_task

QUICK = {"fisher_product": "exact", "cg_iterations": 3, "value_warmup_steps": 1}


def alike(count: int) -> Any:
    """A reward by which the first ``count`` prompts have dead groups."""

    def reward(prompts: list[str], completions: list[str], answer: list[str], **_: Any) -> list[float]:
        return [0.0 if int(answer[0]) < count else len(set(c)) / 10 + i / 10 for i, c in enumerate(completions)]

    return reward


async def test_the_algorithm_is_switched_mid_run() -> None:
    async with live(**QUICK) as tested:
        await tested.step()
        for algorithm in ("trpo", "ppo", "grpo"):
            accepted = await tested.first(f"set algorithm={algorithm}")
            assert accepted.status == "accepted"
            assert "algorithm applies at the next rollout" in accepted.text
            follows = "kl_placement applies at the next rollout" in accepted.text
            assert follows == (algorithm != "ppo")  # trpo has had it in the reward already
            await tested.step(2)
            values = tested.engine.knobs.values
            assert values["algorithm"] == algorithm
            assert values["kl_placement"] == ("loss" if algorithm == "grpo" else "reward")
        await tested.until(lambda: [e for e in tested.of(wire.StepDone) if e.record.step == 7])
        records = {e.record.step: e.record for e in tested.of(wire.StepDone)}
        assert records[1].trust_region is None
        assert records[2].trust_region is not None
        assert records[2].trust_region.tries
        assert "value/loss" in records[5].metrics
        assert "grad/norm" in records[7].metrics
        changes = [e.change for e in tested.of(wire.Changed) if e.change.status == "applied"]
        together = {c.command for c in changes if c.applied_step == 2}
        assert len(together) == 1  # what came with the switch belongs to it
        assert {c.name for c in changes if c.applied_step == 2} == {
            "algorithm", "kl_placement", "kl_estimator", "kl_coefficient",
        }  # fmt: skip


@pytest.mark.parametrize("algorithm", ["ppo", "trpo"])
async def test_a_switch_equals_a_run_started_so_bit_for_bit(algorithm: str) -> None:
    weights = []
    async with live(session("a"), **QUICK) as tested:
        await tested.step()
        await tested.first(f"set algorithm={algorithm}")
        await tested.step(2)
        weights.append(tested.weights)
    async with live(session("b", sets=[f"algorithm={algorithm}@2"]), **QUICK) as tested:
        await tested.step(3)
        weights.append(tested.weights)
        assert tested.engine.knobs.values["kl_placement"] == "reward"
    assert same_weights(*weights)


async def test_a_schedule_that_a_switch_has_made_impossible_is_left_out_and_said() -> None:
    async with live(session(sets=["kl_estimator=k2@3", "clip_low=0.1@4"]), **QUICK) as tested:
        await tested.step()
        await tested.first("set algorithm=ppo")
        await tested.step(3)
        (alarm,) = [e.alarm for e in tested.of(wire.AlarmRaised) if e.alarm.rule == "schedule"]
        assert "at step 3 is left out: kl_placement reward goes with kl_estimator k1" in alarm.message
        values = tested.engine.knobs.values
        assert (values["algorithm"], values["kl_estimator"], values["clip_low"]) == ("ppo", "k1", 0.1)


async def test_values_of_each_prefix_are_kept_with_the_response() -> None:
    async with live(algorithm="ppo", kl_placement="reward", kl_estimator="k1", gae_lambda=1.0) as tested:
        await tested.step()
        await tested.until(lambda: tested.of(wire.StepDone))
        for response in (await tested.query("group 1.1"))["group"]["responses"]:
            assert (
                len(response["values"]) == len(response["returns"]) == len(response["advantages"]) == response["length"]
            )
            assert response["returns"][-1] == pytest.approx(response["reward"], abs=1e-6)
            assert response["advantage"] == pytest.approx(
                sum(response["advantages"]) / response["length"], abs=1e-5
            )  # fmt: skip


async def test_an_algorithm_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda device: 1000)
    async with live() as tested:
        answer = await tested.do("set algorithm=trpo")
        assert answer.status == "rejected"
        assert "6 x 4 x" in answer.text
        assert "is available on cpu" in answer.text
        await tested.step()
        assert tested.engine.knobs.values["algorithm"] == "grpo"


async def test_a_preset_is_set_live() -> None:
    async with live() as tested:
        await tested.first("preset dapo")
        await tested.step()
        values = tested.engine.knobs.values
        assert (values["loss_aggregation"], values["clip_high"], values["overlong_penalty"]) == ("token", 0.28, 1)
        assert values["learning_rate"] == 1e-3  # not the preset's business


async def previewed(tested: Live, words: str = "preview") -> Preview:
    answer = await tested.do(words)
    assert answer.status == "applied", answer.text
    assert answer.text.startswith("what ")
    return msgspec.json.decode(answer.data, type=Preview)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "trpo"])
async def test_an_update_is_tried_and_then_made(algorithm: str) -> None:
    values = {**QUICK, "value_warmup_steps": 0, "algorithm": algorithm}
    if algorithm != "grpo":
        values |= {"kl_placement": "reward", "kl_estimator": "k1"}
    async with live(session("a"), **values) as tested:
        answer = await tested.do("preview")
        assert answer.status == "rejected"
        assert "has no scored responses to try" in answer.text
        assert (await tested.do("pause update")).status == "applied"
        assert tested.engine.control.phase == "updating"
        before = tested.weights
        found = await previewed(tested)
        assert same_weights(before, tested.weights)
        assert (found.step, found.algorithm, len(found.responses)) == (1, algorithm, 16)
        await tested.step()
        await tested.until(lambda: [e for e in tested.of(wire.StepDone) if e.record.step == 1])
        (record,) = [e.record for e in tested.of(wire.StepDone) if e.record.step == 1]
        assert found.grad_norm == record.metrics["grad/norm"]
        after = tested.weights
    async with live(session("b"), **values) as tested:
        await tested.step()
        assert same_weights(after, tested.weights)  # having tried changed nothing


async def test_a_try_sees_the_ratings_and_the_changes_that_wait() -> None:
    async with live() as tested:
        await tested.do("pause update")
        plain = await previewed(tested)
        await tested.do("rate 1.1A 5")
        rated = await previewed(tested)
        by_name = {r.name: r for r in rated.responses}
        assert by_name["1.1A"].reward == 1.0
        assert [r.advantage for r in plain.responses] != [r.advantage for r in rated.responses]
        await tested.first("set max_grad_norm=1e-6 advantage_scale=none")
        scaled = await previewed(tested)
        assert [r.advantage for r in scaled.responses] != [r.advantage for r in rated.responses]
        other = await previewed(tested, "preview trpo")
        assert other.algorithm == "trpo"
        assert other.trust_region is not None
        refused = await tested.do("preview ppo")
        assert refused.status == "rejected"
        assert "there is none yet" in refused.text
        assert tested.engine.knobs.values["algorithm"] == "grpo"
        record = json.loads((await tested.do("group 1.1")).data)["group"]["responses"][0]
        assert "rated_reward" not in record  # the update has not used it yet


async def test_a_try_at_the_gate() -> None:
    async with live(rating_gate="wait 1") as tested:
        await tested.first("resume")
        await tested.until(lambda: tested.engine.service.waiting)
        assert (await previewed(tested)).algorithm == "grpo"


async def test_a_try_while_it_runs_is_refused() -> None:
    async with live() as tested:
        tested.hold.at("sampling", 2)
        await tested.first("resume")
        await tested.held()
        answer = await tested.do("preview")
        assert answer.status == "rejected"
        assert "is not paused" in answer.text
        tested.hold.release()


async def test_a_try_inside_an_update_that_has_stepped_is_refused_at_once() -> None:
    async with live(epochs=4) as tested:
        tested.hold.at("updating", 3)
        await tested.first("resume")
        await tested.held()
        await tested.first("pause")
        tested.hold.release()
        await tested.paused()
        answer = await tested.do("preview")
        assert answer.status == "rejected"
        assert "the update of step 1 has changed weights" in answer.text


async def test_discarding_after_a_try() -> None:
    async with live() as tested:
        await tested.do("pause update")
        before = tested.weights
        await previewed(tested)
        await tested.do("discard")
        await tested.until(lambda: [e for e in tested.of(wire.GroupsChanged) if e.heads[0].status == "discarded"])
        assert same_weights(before, tested.weights)


# --------------------------------------------------------------------------------------------- dynamic sampling


async def test_dead_groups_are_replaced_and_kept_in_the_record() -> None:
    async with live(task=small_task(40, alike(20)), dynamic_sampling=3, prompts_per_step=4) as tested:
        await tested.step()
        await tested.until(lambda: tested.of(wire.StepDone))
        metrics = tested.of(wire.StepDone)[0].record.metrics
        heads = [h for e in tested.of(wire.GroupsScored) for h in e.heads]
        replaced = [h for h in heads if h.status == "replaced"]
        assert metrics["groups/replaced"] == len(replaced) > 0
        assert all(h.std == 0 for h in replaced)
        assert sorted(h.number for h in heads) == list(range(1, len(heads) + 1))
        assert len(heads) - len(replaced) == 4
        assert tested.engine.learner.cursor == len(heads)  # the replaced prompts count as asked


async def test_after_so_many_tries_a_dead_group_stays() -> None:
    async with live(task=small_task(12, alike(99)), dynamic_sampling=2, prompts_per_step=2) as tested:
        await tested.step()
        await tested.until(lambda: tested.of(wire.StepDone))
        metrics = tested.of(wire.StepDone)[0].record.metrics
        assert (metrics["groups/replaced"], metrics["groups/dead_fraction"]) == (4, 1.0)
        assert tested.engine.learner.cursor == 6


async def test_a_replaced_group_that_is_rated_joins_the_next_update() -> None:
    async with live(task=small_task(40, alike(20)), dynamic_sampling=3, prompts_per_step=4) as tested:
        await tested.step()
        await tested.until(lambda: tested.of(wire.StepDone))
        name = next(h.name for e in tested.of(wire.GroupsScored) for h in e.heads if h.status == "replaced")
        assert (await tested.do(f"rate {name}A 5")).status == "applied"
        await tested.step()
        await tested.until(lambda: tested.uses)
        (use,) = tested.uses
        assert (use.group, use.fate, use.step) == (name, "late", 2)
