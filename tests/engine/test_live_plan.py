"""Plans over the socket, from an engine that trains."""

from __future__ import annotations

import re

import msgspec

from sessions.commands import QueryPlan, Set
from sessions.hyperparameters import Value
from sessions.plans import Plan
from sessions.wire import Changed
from tests.engine.live import Live, live


async def planned(tested: Live, values: dict[str, Value]) -> Plan:
    answer = await tested.do(QueryPlan(values=values))
    assert answer.status == "data", answer
    return msgspec.json.decode(answer.data, type=Plan)


async def test_a_session_begins_with_its_memory_and_knows_its_seconds_after_a_step() -> None:
    async with live() as tested:
        (note,) = [e for e in await tested.query("events 50") if e.get("kind") == "memory plan"]
        # of this process, which holds what earlier tests have left too
        assert re.match(r"about \d+\.\d+ GB of \d+(\.\d+)? GB available: process", note["text"])
        before = await planned(tested, {"group_size": 8})
        assert before.unknown == "known after the first step"
        assert before.memory_then >= before.memory_now > 100e6  # torch alone
        await tested.step(2)
        after = await planned(tested, {"group_size": 8, "prompts_per_step": 16})
        assert after.seconds_now is not None
        assert after.seconds_then is not None
        assert 0 < after.seconds_now < after.seconds_then
        assert after.step == 2
        assert "last 2 steps of grpo" in after.basis
        assert after.values == {"group_size": 8, "prompts_per_step": 16}
        same = await planned(tested, {"group_size": 4})  # which it is
        assert (same.values, same.seconds_then, same.memory_then) == ({}, same.seconds_now, same.memory_now)


async def test_what_follows_is_planned_too_and_what_does_not_go_together_is_refused() -> None:
    async with live() as tested:
        await tested.step()
        trpo = await planned(tested, {"algorithm": "trpo"})
        assert (trpo.algorithm, trpo.values["kl_placement"]) == ("trpo", "reward")
        assert "trpo has not run here" in trpo.basis
        refused = await tested.do(QueryPlan(values={"kl_placement": "reward"}))
        assert refused.status == "rejected"
        assert "kl_placement reward goes with kl_estimator k1" in refused.text
        refused = await tested.do(QueryPlan(values={"group_size": 1}))
        assert (refused.status, "out of bounds" in refused.text) == ("rejected", True)


async def test_a_plan_is_answered_while_a_step_computes_and_changes_nothing() -> None:
    async with live() as tested:
        await tested.step()
        tested.hold.at("updating", 0)
        await tested.first("resume")
        await tested.held()
        assert (await planned(tested, {"epochs": 4})).values == {"epochs": 4}
        tested.hold.release()
        assert not tested.of(Changed)
        assert tested.engine.knobs.whole("epochs") == 1


async def test_the_plan_of_a_change_is_that_of_the_changed_session() -> None:
    async with live() as tested:
        await tested.step()
        ahead = await planned(tested, {"group_size": 8})
        await tested.first(Set(values={"group_size": 8}))
        now = await planned(tested, {})
        assert now.seconds_now == ahead.seconds_then
