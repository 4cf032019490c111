"""A live engine: what a person can do to it while it trains."""

from __future__ import annotations

import asyncio
import math
import uuid
from pathlib import Path

import pytest

from sessions import wire
from sessions.checkpoints import read_state
from sessions.client import Client, attached
from sessions.commands import Acknowledge, QueryGroups, QuerySeries, Rate, Retract, Set, Skip, Subscribe
from sessions.errors import EngineUnreachable
from sessions.people import whoami
from sessions.records import GroupHead, SeriesData
from sessions.store import Store
from sessions.wire import GroupDetail
from tests.engine.live import Live, live, session
from tests.engine.small import early_letters, same_weights, small_task


def rate(group: str, who: str = "ann", **values: float) -> Rate:
    return Rate(group=group, mode="likert", values=values or {"A": 5.0}, who=who)


# ----------------------------------------------------------------------------------------- what clients see


async def test_a_snapshot_and_then_the_events() -> None:
    async with live() as tested:
        snapshot = tested.snapshots[-1]
        assert snapshot.values["group_size"] == 4
        assert snapshot.start_values == snapshot.values
        assert (snapshot.task.name, snapshot.task.components) == ("small", {"early": 1.0})
        assert list(tested.engine.board.checkpoints) == [0]
        assert (snapshot.status.session, snapshot.status.finished_steps) == ("s", 0)
        assert tested.client.welcome.seq <= snapshot.seq

        await tested.step(2)
        await tested.until(lambda: len(tested.of(wire.StepDone)) == 2)
        one, two = tested.of(wire.StepDone)
        assert (one.record.step, two.record.step) == (1, 2)
        assert len(one.record.advantages) == 16
        assert [len(e.heads) for e in tested.of(wire.GroupsScored)] == [4, 4]
        assert {h.status for e in tested.of(wire.GroupsChanged) for h in e.heads} == {"updated"}
        numbered = [e.seq for e in tested.events if e.seq]
        assert numbered == sorted(set(numbered))

        async with Client(tested.client.path, "second") as second:
            async for message in second.messages():
                if isinstance(message, wire.Snapshot):
                    break
            assert message.seq >= numbered[-1]
            assert {h.name for h in message.heads} == {f"{s}.{n}" for s in (1, 2) for n in (1, 2, 3, 4)}
            series = {s.name: s for s in message.series}
            assert series["reward/mean"].steps == [1, 2]
            assert series["reward/mean"].values == [r.metrics["reward/mean"] for r in (one.record, two.record)]
            assert message.last_step == two.record
            assert message.status.finished_steps == 2
            await tested.until(lambda: any("second" in c for b in tested.beats for c in b.clients))


async def test_the_metrics_of_a_step_have_known_names() -> None:
    from sessions.metrics import METRICS, WARM_UP_PREFIX

    async with live(evaluate_every=1, reference_every=1) as tested:
        await tested.step(2)  # the first one is the evaluation before step 1
        await tested.until(lambda: any(e.record.step == 1 for e in tested.of(wire.StepDone)))
        metrics = tested.of(wire.StepDone)[-1].record.metrics
        assert set(metrics) - set(METRICS) == {"reward/early"}
        # Of other algorithms, of the warm-up, or of knobs that are off here.
        others = ("value/", "trpo/", "reward_model/", WARM_UP_PREFIX)
        elsewhere = {name for name in METRICS if name.startswith(others)} | {
            "kl/full", "ratio/min", "update/optimizer_steps", "groups/replaced", "reward/repetition_correlation",
            "curriculum/level",
        }  # fmt: skip
        elsewhere |= {name for name in METRICS if name.startswith("ratings/") and name != "ratings/used"}
        missing = set(METRICS) - set(metrics) - elsewhere
        assert missing == {"ratio/first_error", "reward/length_correlation"} & missing
        assert metrics["time/step"] > 0
        assert all(v is None or math.isfinite(v) for v in metrics.values())


async def test_queries() -> None:
    async with live() as tested:
        await tested.step(3)
        client = tested.client
        (series,) = await client.query(QuerySeries(names=["reward/mean"], first=2, last=3), list[SeriesData])
        assert series.steps == [2, 3]
        heads = await client.query(QueryGroups(limit=5), list[GroupHead])
        assert [h.name for h in heads] == ["3.4", "3.3", "3.2", "3.1", "2.4"]
        assert [h.name for h in await client.query(QueryGroups(before=2), list[GroupHead])] == [
            "1.4", "1.3", "1.2", "1.1",
        ]  # fmt: skip
        detail = await client.query(parse("response 2.3"), GroupDetail)
        assert detail.group.name == "2.3"
        assert [len(r.tokens) == r.length for r in detail.group.responses] == [True] * 4
        assert (await tested.query("response 2.3B"))["letter"] == "B"
        events = await tested.query("events 5")
        assert len(events) == 5
        assert (await tested.query("status"))["finished_steps"] == 3
        for words in ("response 9.1", "response 2.9", "response 2.3Z", "series nothing"):
            answer = await tested.do(words)
            assert answer.status == "rejected", words


def parse(words: str):
    from sessions.commands import parse_words

    return parse_words(words)


async def test_growing_text_goes_to_those_who_asked() -> None:
    async with live() as tested:
        tested.hold.at("sampling", 3)
        await tested.first("resume")
        await tested.held()
        async with attached(tested.client.path, "other") as other:
            assert (await other.send(Subscribe(growing=2))).status == "applied"
            assert (await tested.do(Subscribe(growing=0))).status == "applied"
            await tested.until(lambda: tested.growing)
        newest = tested.growing[-1]
        group = newest.group
        assert (newest.step, newest.groups, len(newest.texts)) == (1, 4, 4)
        assert all(len(t) <= 3 for t in newest.texts)
        assert any(newest.texts)
        await tested.do(Subscribe(growing=group))
        tested.hold.release()
        await tested.until(lambda: tested.of(wire.StepDone))
        record = await tested.client.query(parse(f"response 1.{group}"), GroupDetail)
        for shown, response in zip(newest.texts, record.group.responses, strict=True):
            assert response.text.startswith(shown)


# ------------------------------------------------------------------------------------ pause, step, discard


async def test_pause_takes_effect_at_the_next_decode_step() -> None:
    async with live(max_new_tokens=50) as tested:
        control = tested.engine.control
        tested.hold.at("sampling", 2)
        assert (await tested.do("resume")).status == "applied"
        await tested.held()
        waiting = asyncio.create_task(tested.do("pause"))
        await tested.until(lambda: control.pausing)
        assert not control.paused
        tested.hold.release()
        answer = await waiting
        assert (answer.status, answer.step) == ("applied", 1)
        assert "in step 1, sampling" in answer.text
        longest = int(tested.engine.growth[1].lengths.max())
        assert longest == 2
        await tested.until(lambda: tested.beats[-1].state == "PAUSED")
        assert "paused by" in tested.beats[-1].note
        assert (await tested.do("pause")).text == f"it is paused already, by {whoami()}"
        assert int(tested.engine.growth[1].lengths.max()) == longest
        await tested.do("resume")
        await tested.until(lambda: tested.engine.learner.step >= 1)
        await tested.until(lambda: tested.notes("paused"))


async def test_a_step_at_a_time() -> None:
    async with live() as tested:
        for n in (1, 2):
            first = await tested.first("step")
            assert (first.status, first.text) == ("accepted", f"runs step {n}")
            await tested.until(lambda n=n: tested.engine.step == n + 1 and tested.engine.control.paused)
            assert tested.engine.learner.step == n
            assert tested.engine.control.phase == "idle"


async def test_a_step_from_inside_one_finishes_it() -> None:
    async with live() as tested:
        await pause_in(tested, "sampling", 2)
        answers = [a async for a in tested.client.answers(parse("step"))]
        assert [a.status for a in answers] == ["accepted", "applied"]
        assert answers[0].text == "finishes step 1, then pauses"
        assert tested.engine.learner.step == 1
        assert "before step 2" in answers[1].text


async def pause_in(tested: Live, phase: str, number: int) -> None:
    """From a pause before a step to a pause inside it."""
    tested.hold.at(phase, number)
    await tested.do("resume")
    await tested.held()
    waiting = asyncio.create_task(tested.do("pause"))
    await tested.until(lambda: tested.engine.control.pausing)
    tested.hold.release()
    assert (await waiting).status == "applied"


async def test_a_pause_that_is_resumed_before_it_came_is_answered() -> None:
    async with live() as tested:
        tested.hold.at("sampling", 1)
        await tested.do("resume")
        await tested.held()
        waiting = asyncio.create_task(tested.do("pause"))
        await tested.until(lambda: tested.engine.control.pausing)
        await tested.do("resume")
        answer = await waiting
        assert answer.status == "rejected"
        assert "resumed before" in answer.text
        tested.hold.release()
        await tested.until(lambda: tested.engine.learner.step >= 1)


@pytest.mark.parametrize(("phase", "number"), [("sampling", 2), ("scoring", 1), ("updating", 0)])
async def test_discard_drops_the_step_and_takes_the_next_prompts(phase: str, number: int) -> None:
    async with live() as tested:
        await tested.step()
        before = tested.weights
        await pause_in(tested, phase, number)
        answer = await tested.do("discard")
        assert (answer.status, answer.text) == ("applied", "step 2 is dropped and starts again")
        await tested.until(lambda: tested.engine.control.phase == "idle" and tested.engine.control.paused)
        assert same_weights(before, tested.weights)
        assert tested.engine.learner.step == 1
        await tested.step()
        await tested.until(lambda: tested.engine.learner.step == 2)
        heads = await tested.client.query(QueryGroups(), list[GroupHead])
        of_step = {h.number: h.status for h in heads if h.step == 2}
        order = [p.text for p in tested.engine.learner.task.take(0, 0, 12)]
        if phase == "updating":  # its groups had been committed
            assert of_step == {**dict.fromkeys((1, 2, 3, 4), "discarded"), **dict.fromkeys((5, 6, 7, 8), "updated")}
        else:
            assert of_step == dict.fromkeys((5, 6, 7, 8), "updated")
        learned = [h.prompt for h in reversed(heads) if h.step == 2 and h.status == "updated"]
        assert learned == order[8:12]
        await tested.until(lambda: tested.notes("discarded"))


async def test_what_cannot_be_discarded() -> None:
    async with live(epochs=2) as tested:
        answer = await tested.do("discard")
        assert (answer.status, answer.text[:24]) == ("rejected", "there is no paused step ")
        await pause_in(tested, "updating", 2)  # the second epoch: the optimizer has stepped
        answer = await tested.do("discard")
        assert answer.status == "rejected"
        assert "can only be finished" in answer.text
        await tested.do("resume")
        await tested.until(lambda: tested.engine.learner.step >= 1)
        answer = await tested.do("discard")
        assert answer.status == "rejected"


async def test_the_first_evaluation_cannot_be_discarded() -> None:
    async with live(evaluate_every=5) as tested:
        await pause_in(tested, "evaluating", 1)
        assert tested.engine.control.phase == "evaluating"
        assert (await tested.do("discard")).status == "rejected"
        assert (await tested.do("step")).text == "paused before step 1"
        await tested.until(lambda: tested.of(wire.StepDone))
        assert tested.of(wire.StepDone)[0].record.step == 0
        await tested.step()


async def test_pausing_changes_no_bit() -> None:
    async with live(session("a", paused=False, steps=4), epochs=2) as tested:
        await tested.ended()
        expected = tested.weights
    async with live(session("b", steps=4), epochs=2) as tested:
        for phase, number in (("sampling", 2), ("scoring", 1), ("updating", 0), ("updating", 1)):
            await pause_in(tested, phase, number)
            if phase != "updating" or number:
                await tested.do("step") if tested.engine.learner.step < 3 else await tested.do("resume")
            else:
                await tested.do("step")
        await tested.ended()
        assert same_weights(expected, tested.weights)


# ------------------------------------------------------------------------------------------------- setting


@pytest.mark.parametrize(
    ("words", "boundary", "applied"),
    [
        ("set learning_rate 5e-3", "minibatch", 2),
        ("set minibatches 2", "update", 2),
        ("set group_size 3", "rollout", 3),
    ],
)
async def test_a_change_is_accepted_and_then_applied_at_its_boundary(words: str, boundary: str, applied: int) -> None:
    name = words.split()[1]
    async with live() as tested:
        await tested.step()
        await pause_in(tested, "sampling", 1)
        answers: list[wire.Answer] = []

        async def ask() -> None:
            async for answer in tested.client.answers(parse(words)):
                answers.append(answer)

        asking = asyncio.create_task(ask())
        await tested.until(lambda: answers)
        assert (answers[0].status, answers[0].step) == ("accepted", 2)
        assert answers[0].text == f"{name} applies at the next {boundary}"
        assert not asking.done()
        await tested.do("step")
        if applied == 3:
            await tested.do("step")
        await asyncio.wait_for(asking, 60)
        assert (answers[1].status, answers[1].step) == ("applied", applied)
        await tested.until(lambda: len(tested.of(wire.Changed)) == 2)
        pending, done = (e.change for e in tested.of(wire.Changed))
        assert (pending.status, pending.accepted_step, pending.applied_step) == ("pending", 2, 0)
        assert (done.id, done.status, done.applied_step) == (pending.id, "applied", applied)
        await tested.until(lambda: len(tested.of(wire.StepDone)) == applied)
        records = {e.record.step: e.record for e in tested.of(wire.StepDone)}
        assert records[applied].values[name] == done.new
        assert records[applied - 1].values[name] == done.old
        (kept,) = await tested.engine.write(tested.engine.store.changes)
        assert kept == done


async def test_changes_that_clash() -> None:
    async with live() as tested:
        answer = await tested.do(Set(values={"clip_low": 0.1}, expect={"clip_low": 0.3}))
        assert answer.status == "rejected"
        assert "clip_low is 0.2 now, not 0.3" in answer.text
        first = asyncio.create_task(tested.do(Set(values={"clip_low": 0.1}, expect={"clip_low": 0.2})))
        await tested.until(lambda: tested.of(wire.Changed))
        second = asyncio.create_task(tested.do("set clip_low 0.3"))
        answer = await first
        assert answer.status == "rejected"
        assert "another change took its place" in answer.text
        assert (await tested.do("set group_size 4")).text == "it has that value already"
        assert (await tested.do(Set(values={"group_size": 1}))).status == "rejected"
        answer = await tested.do("set top_p 0.9")
        assert (answer.status, "--allow-sampler-mismatch" in answer.text) == ("rejected", True)
        assert (await tested.do(Set(values={"lerning_rate": 1}))).text.endswith("did you mean learning_rate?")
        await tested.step()
        assert (await second).status == "applied"
        assert tested.engine.knobs.number("clip_low") == 0.3
        statuses = [c.status for c in await tested.engine.write(tested.engine.store.changes)]
        assert sorted(statuses) == ["applied", "superseded"]


async def test_several_knobs_at_once_end_as_applied() -> None:
    async with live(session(paused=False)) as tested:
        for i in range(5):
            values = {
                "clip_low": 0.1 + i / 100,
                "clip_high": 0.21 + i / 100,
                "max_grad_norm": 1.5 + i,
                "adam_beta1": 0.8,
            }
            answer = await tested.do(Set(values={**values, "adam_beta1": 0.8 + i / 100}))
            assert answer.status == "applied"
        await tested.do("pause")
        changes = await tested.engine.write(tested.engine.store.changes)
        assert len(changes) == 20
        assert {c.status for c in changes} == {"applied"}


async def test_a_live_change_equals_a_scheduled_one_bit_for_bit() -> None:
    async with live(session("a", paused=False, steps=4, sets=["learning_rate=5e-3@3", "group_size=3@4"])) as tested:
        await tested.ended()
        expected = tested.weights
        changes = {c.name: c for c in tested.engine.board.changes.values()}
        assert {n: (c.who, c.status, c.applied_step) for n, c in changes.items()} == {
            "learning_rate": ("--set", "applied", 3),
            "group_size": ("--set", "applied", 4),
        }
    async with live(session("b", steps=4)) as tested:
        await tested.step(2)
        await tested.first("set learning_rate 5e-3")
        await pause_in(tested, "sampling", 1)
        await tested.first("set group_size 3")
        await tested.do("resume")
        await tested.ended()
        assert same_weights(expected, tested.weights)


async def test_a_coefficient_set_from_zero_measures_the_reference_first() -> None:
    async with live(kl_coefficient=0.0, reference_every=0) as tested:
        await tested.step(2)
        await tested.first("set kl_coefficient 0.04")
        await tested.step()
        await tested.until(lambda: len(tested.of(wire.StepDone)) == 3)
        records = [e.record for e in tested.of(wire.StepDone)]
        assert "kl/k3" not in records[1].metrics
        assert records[2].metrics["kl/k3"] < 0.1
        assert records[2].metrics["loss/kl"] < 0.01


# ------------------------------------------------------------------------------------------------- ratings


async def test_a_rating_while_paused_before_the_update_is_on_time() -> None:
    async with live() as tested:
        await pause_in(tested, "updating", 0)
        command = rate("1.2", A=5.0, C=1.0)
        answer = await tested.do(command)
        assert answer.status == "applied"
        assert answer.text == f"saved; update 1 will use it (rating {command.id})"
        await tested.until(lambda: tested.of(wire.RatingSaved))
        await tested.do("step")
        await tested.until(lambda: tested.uses)
        (use,) = tested.uses
        assert (use.rating, use.fate, use.step) == (command.id, "on_time", 1)
        assert use.advantages["A"] > use.automatic["A"]
        detail = await tested.client.query(parse("response 1.2"), GroupDetail)
        assert [r.rated_reward for r in detail.group.responses] == [1.0, None, 0.0, None]
        assert [r.advantage for r in detail.group.responses] == [use.advantages[x] for x in "ABCD"]
        assert detail.uses == [use]
        assert detail.head.ratings == {"A": "5", "C": "1"}
        await tested.until(lambda: tested.of(wire.StepDone))
        assert tested.of(wire.StepDone)[-1].record.metrics["ratings/used"] == 1


async def test_a_rating_after_its_update_joins_the_next_one() -> None:
    async with live() as tested:
        await tested.step()
        command = rate("1.2", A=5.0, B=1.0)
        answer = await tested.do(command)
        assert "the next update takes the group in" in answer.text
        await tested.step()
        await tested.until(lambda: tested.uses)
        (use,) = tested.uses
        assert (use.rating, use.fate, use.step) == (command.id, "late", 2)
        assert 0 < use.kl < 0.2
        await tested.until(lambda: len(tested.of(wire.StepDone)) == 2)
        metrics = tested.of(wire.StepDone)[-1].record.metrics
        assert (metrics["groups/late"], metrics["ratings/used"]) == (1, 1)
        await tested.step()
        await tested.until(lambda: len(tested.of(wire.StepDone)) == 3)
        assert tested.of(wire.StepDone)[-1].record.metrics["groups/late"] == 0
        assert len(tested.uses) == 1


async def test_a_late_group_is_measured_against_a_new_reference_for_its_reward() -> None:
    values = {"kl_placement": "reward", "kl_estimator": "k1", "kl_coefficient": 0.1, "reference_refresh_steps": 1}
    async with live(**values) as tested:
        await tested.step()
        await tested.do(rate("1.2", A=5.0, B=1.0))
        await tested.step()
        await tested.until(lambda: tested.uses)
        assert (tested.uses[0].fate, tested.uses[0].step) == ("late", 2)
        assert not tested.of(wire.AlarmRaised)


async def test_a_rating_of_a_group_the_policy_has_left_behind() -> None:
    async with live(learning_rate=3e-2, rating_max_kl=1e-6) as tested:
        await tested.step()
        await tested.do(rate("1.1"))
        await tested.step()
        await tested.until(lambda: tested.uses)
        (use,) = tested.uses
        assert (use.fate, use.step) == ("reward_model_only", 0)
        assert use.kl > 1e-6
        assert tested.engine.board.series["groups/late"].values[-1] == 0


async def test_ratings_change_the_weights_and_only_through_their_update() -> None:
    weights = []
    for name, said in (("a", None), ("b", rate("1.1", A=5.0)), ("c", rate("1.1", A=5.0))):
        async with live(session(name, steps=2)) as tested:
            await pause_in(tested, "updating", 0)
            if said is not None:
                await tested.do(said)
            await tested.do("resume")
            await tested.ended()
            weights.append(tested.weights)
    assert not same_weights(weights[0], weights[1])
    assert same_weights(weights[1], weights[2])


async def test_taking_a_rating_back() -> None:
    async with live(session("plain", steps=2)) as tested:
        await tested.do("resume")
        await tested.ended()
        plain = tested.weights
    async with live(session("back", steps=2)) as tested:
        await pause_in(tested, "updating", 0)
        command = rate("1.1", A=5.0)
        await tested.do(command)
        assert (await tested.do(Retract(rating=command.id, who=command.who))).text == "taken back"
        assert "before" in (await tested.do(Retract(rating=command.id))).text
        assert (await tested.do(Retract(rating="none"))).status == "rejected"
        detail = await tested.client.query(parse("response 1.1"), GroupDetail)
        assert detail.head.ratings == {}
        assert detail.ratings[0].retracted > 0
        await tested.do("resume")
        await tested.ended()
        assert same_weights(plain, tested.weights)
    async with live(session("used")) as tested:
        await pause_in(tested, "updating", 0)
        await tested.do(rate("1.1", A=5.0))
        await tested.do("step")
        rating_id = next(iter(tested.engine.board.ratings))
        answer = await tested.do(Retract(rating=rating_id))
        assert "update 1 had used it" in answer.text
        await tested.step()
        assert tested.engine.board.series["groups/late"].values[-1] == 0


async def test_ratings_that_cannot_be() -> None:
    async with live() as tested:
        await tested.step()
        bad = [
            Rate(group="9.1", mode="likert", values={"A": 5}),
            Rate(group="1.1", mode="likert", values={"Z": 5}),
            Rate(group="1.1", mode="likert", values={"A": 6}),
            Rate(group="1.1", mode="stars", values={"A": 5}),
            Rate(group="1.1", mode="likert", values={}),
            Rate(group="1.1A", mode="likert", values={"A": 5}),
            Rate(group="nonsense", mode="likert", values={"A": 5}),
        ]
        for command in bad:
            assert (await tested.do(command)).status == "rejected", command
        assert await tested.engine.write(tested.engine.store.recent_ratings) == []


async def test_a_repeated_command_has_one_effect_and_one_answer() -> None:
    async with live() as tested:
        await tested.step()
        command = rate("1.1")
        first = await tested.do(command)
        async with attached(tested.client.path, "other") as other:
            assert await other.send_and_wait(command) == first
            both = rate("1.2")
            answers = await asyncio.gather(tested.do(both), other.send_and_wait(both))
        assert len({(a.status, a.text) for a in answers}) == 1
        assert len(await tested.engine.write(tested.engine.store.recent_ratings)) == 2
        await tested.until(lambda: len(tested.of(wire.RatingSaved)) == 2)


async def test_skipping() -> None:
    async with live() as tested:
        await tested.step()
        assert (await tested.do("skip 1.2B unclear")).text == "skipped"
        assert (await tested.do(Skip(response="1.2"))).text == "skipped"
        assert (await tested.do("skip 1.2Z")).status == "rejected"
        await tested.until(lambda: len(tested.of(wire.Skipped)) == 2)
        assert tested.of(wire.Skipped)[0].skip.reason == "unclear"


# ------------------------------------------------------------------------------------------------ the gate


async def test_the_gate_waits_until_a_group_is_rated() -> None:
    async with live(rating_gate="wait 1", group_size=2) as tested:
        running = asyncio.create_task(tested.step())
        await tested.until(lambda: tested.beats and tested.beats[-1].state == "WAIT")
        assert "0 of 1 groups" in tested.beats[-1].note
        assert tested.engine.learner.step == 0
        await tested.do(rate("1.2", A=5.0))
        assert tested.engine.learner.step == 0
        await tested.do(rate("1.2", B=1.0))
        await asyncio.wait_for(running, 60)
        await tested.until(lambda: len(tested.uses) == 2)
        assert {u.fate for u in tested.uses} == {"on_time"}


async def test_a_rating_taken_back_at_the_gate_does_not_count_and_a_skip_neither() -> None:
    async with live(rating_gate="wait 2", group_size=2) as tested:
        running = asyncio.create_task(tested.step())
        await tested.until(lambda: tested.beats and tested.beats[-1].state == "WAIT")
        given = rate("1.1", A=5.0, B=1.0)
        await tested.do(given)
        skip = Skip(response="1.2A")
        await tested.do(skip)
        await tested.until(lambda: "1 of 2 groups" in tested.beats[-1].note)
        await tested.do(Retract(rating=given.id))
        await tested.until(lambda: "0 of 2 groups" in tested.beats[-1].note)
        assert (await tested.do(Retract(rating=skip.id))).text == "it waits for a rating again"
        await tested.do(rate("1.1", A=5.0, B=1.0))
        await tested.until(lambda: "1 of 2 groups" in tested.beats[-1].note)
        assert tested.engine.learner.step == 0
        await tested.do(rate("1.2", A=2.0, B=3.0))
        await asyncio.wait_for(running, 60)


@pytest.mark.parametrize("way", ["set rating_gate async", "stop", "stop --now"])
async def test_ways_out_of_the_gate(way: str) -> None:
    async with live(session(paused=False), rating_gate="wait 2") as tested:
        await tested.until(lambda: tested.beats and tested.beats[-1].state == "WAIT")
        answer = await tested.do(way)
        assert answer.status == "applied"
        if way.startswith("set"):
            await tested.until(lambda: tested.engine.learner.step > 1)
        else:
            await tested.ended()
            assert tested.engine.learner.step == 0
            assert tested.engine.exit_code == 0


async def test_a_timeout_goes_on_without_ratings() -> None:
    async with live(rating_gate="timeout 0.2") as tested:
        await tested.step()
        assert tested.engine.learner.step == 1


async def test_pausing_discarding_and_saving_while_a_step_waits() -> None:
    async with live(session(paused=False), rating_gate="wait 2") as tested:
        await tested.until(lambda: tested.beats and tested.beats[-1].state == "WAIT")
        assert (await tested.do("checkpoint")).text == "checkpoint of step 0 is on disk"
        answer = await tested.do("pause")
        assert "in step 1, waiting" in answer.text
        await tested.until(lambda: tested.beats[-1].state == "PAUSED")
        assert (await tested.do("discard")).status == "applied"
        await tested.until(lambda: tested.engine.control.phase == "idle")
        await tested.do("resume")
        await tested.until(lambda: tested.beats[-1].state == "WAIT")
        heads = await tested.client.query(QueryGroups(), list[GroupHead])
        assert [h.status for h in heads] == ["scored"] * 4 + ["discarded"] * 4


# -------------------------------------------------------------------------------- checkpoints, alarms, end


async def test_a_checkpoint_while_paused() -> None:
    async with live() as tested:
        await tested.step()
        await pause_in(tested, "sampling", 2)
        answer = await tested.do("checkpoint")
        assert (answer.status, answer.step, answer.text) == ("applied", 1, "checkpoint of step 1 is on disk")
        assert (tested.engine.folder.checkpoints / "1" / "manifest.json").exists()
        await tested.until(lambda: [e for e in tested.of(wire.CheckpointSaved) if e.checkpoint.step == 1])
        await tested.until(lambda: tested.beats[-1].checkpoint_step == 1)


async def test_checkpoints_come_by_themselves() -> None:
    async with live(session(paused=False, steps=5), checkpoint_steps=2) as tested:
        await tested.ended()
        reasons = {c.step: c.reason for c in tested.engine.board.checkpoints.values()}
        assert reasons == {0: "start of RL", 2: "every 2 steps", 4: "every 2 steps", 5: "end of the session"}


async def test_a_checkpoint_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live() as tested:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(tested.engine.learner, "write", full)
        answer = await tested.do("checkpoint")
        assert answer.status == "rejected"
        assert "No space left" in answer.text
        monkeypatch.undo()
        await tested.step()


@pytest.mark.parametrize("now", [False, True])
async def test_stop(now: bool) -> None:
    folder = session()
    async with live(folder) as tested:
        await tested.step(2)
        await pause_in(tested, "sampling", 2)
        answer = await tested.do("stop --now" if now else "stop")
        assert (answer.status, answer.text) == ("applied", "stopped after step 2")
        await tested.ended()
        assert tested.engine.exit_code == 0
    assert tested.hung_up
    assert (folder.checkpoints / "2").exists() != now
    assert folder.engine() is None
    assert not Path(tested.client.path).exists()
    with pytest.raises(EngineUnreachable):
        async with Client(tested.client.path, "late"):
            pass
    store = Store(folder.database)
    assert [h.status for h in store.heads("main", limit=4)] == ["updated"] * 4  # nothing of step 3 was committed
    assert store.answer(answer.id) == answer
    store.close()


async def test_stop_while_paused_inside_an_update_finishes_the_step() -> None:
    async with live(epochs=2) as tested:
        await pause_in(tested, "updating", 2)
        answer = await tested.do("stop")
        assert answer.text == "stopped after step 1"
        await tested.ended()
        assert max(tested.engine.board.checkpoints) == 1
        assert tested.engine.board.last_step.step == 1


async def test_an_engine_that_is_cancelled_while_paused_ends() -> None:
    async with live() as tested:
        await pause_in(tested, "sampling", 1)
        tested.serving.cancel()
        await asyncio.wait([tested.serving], timeout=60)
        assert tested.serving.done()
        await tested.until(lambda: tested.hung_up)


async def test_stop_while_loading_is_kept() -> None:
    folder = session(paused=False)
    async with live(folder) as tested:
        tested.engine.stop(now=False)
        await tested.ended()
        assert tested.engine.exit_code == 0


@pytest.mark.parametrize("where", [("sampling", 3), ("scoring", 1), ("updating", 0), ("updating", 2)])
async def test_stopped_and_resumed_equals_never_stopped(where: tuple[str, int]) -> None:
    async with live(session("a", paused=False, steps=4), epochs=2) as tested:
        await tested.ended()
        expected = tested.weights
        rewards = tested.engine.board.series["reward/mean"].values
    folder = session("b", steps=4)
    async with live(folder, epochs=2) as tested:
        await tested.step()
        await pause_in(tested, *where)
        await tested.do("stop")
        await tested.ended()
    async with live(folder, epochs=2) as tested:
        assert tested.engine.learner.step == (2 if where == ("updating", 2) else 1)
        await tested.do("resume")
        await tested.ended()
        assert same_weights(expected, tested.weights)
        assert tested.engine.board.series["reward/mean"].values == rewards
        assert await_statuses(folder) <= {"updated", "discarded"}


@pytest.mark.parametrize("now", [False, True])
async def test_changes_outlive_their_engine(now: bool) -> None:
    """Applied after the newest checkpoint, or still waiting: they take effect at the same boundaries as ever."""

    async def until_step_4(tested: Live) -> None:
        await tested.step()
        await tested.do("checkpoint")
        await tested.first("set learning_rate 5e-3")
        await tested.step(2)
        await tested.first("set human_weight 0.5")
        await pause_in(tested, "sampling", 1)
        await tested.first("set group_size 3")
        await tested.first("set clip_low 0.1")

    async with live(session("a", steps=6)) as tested:
        await until_step_4(tested)
        await tested.do("resume")
        await tested.ended()
        expected = tested.weights
        changes = {c.id: c for c in tested.engine.board.changes.values()}
    folder = session("b", steps=6)
    async with live(folder) as tested:
        await until_step_4(tested)
        await tested.do("stop --now" if now else "stop")
        await tested.ended()
    async with live(folder) as tested:
        assert tested.engine.learner.step == 3
        await tested.do("resume")
        await tested.ended()
        assert same_weights(expected, tested.weights)
        again = tested.engine.board.changes.values()
        assert [(c.name, c.new, c.status, c.applied_step) for c in again] == [
            (c.name, c.new, c.status, c.applied_step) for c in changes.values()
        ]
        assert tested.engine.board.start_values["learning_rate"] == 1e-3


async def test_a_checkpoint_is_written_before_what_may_undo_what_was_learned() -> None:
    async with live() as tested:
        await tested.step()
        await tested.first("set clip_low 0.1")
        await tested.step()
        assert list(tested.engine.board.checkpoints) == [0]
        await tested.first("set learning_rate=0.5 group_size=3")
        await tested.until(lambda: 2 in tested.engine.board.checkpoints)
        saved = tested.engine.board.checkpoints[2]
        assert saved.reason == "before learning_rate 0.001 -> 0.5, group_size 4 -> 3"
        state = read_state(tested.engine.folder.checkpoint(saved.path))
        assert state.values["learning_rate"] == 1e-3
        assert [c.name for c in state.pending] == ["learning_rate", "group_size"]
        await tested.first("set learning_rate 0.4")  # there is one of this step
        await tested.step()
        assert list(tested.engine.board.checkpoints) == [0, 2]


async def test_a_rating_while_its_update_runs_is_called_late() -> None:
    async with live(epochs=2) as tested:
        await pause_in(tested, "updating", 1)
        answer = await tested.do(rate("1.1", A=5.0))
        assert "the next update takes the group in" in answer.text
        await tested.step()
        assert tested.uses == []
        await tested.step()
        await tested.until(lambda: tested.uses)
        assert (tested.uses[0].fate, tested.uses[0].step) == ("late", 2)


def await_statuses(folder) -> set[str]:
    store = Store(folder.database, read_only=True)
    statuses = {h.status for h in store.heads("main", limit=100)}
    store.close()
    return statuses


# --------------------------------------------------------------------------------------------- what goes wrong


async def test_a_reward_function_that_fails_leaves_its_rows_out() -> None:
    def sometimes(prompts, completions, **_):
        return [math.nan if len(text) % 2 else early_letters([""], [text])[0] for text in completions]

    async with live(task=small_task(function=sometimes)) as tested:
        await tested.step()
        await tested.until(lambda: tested.of(wire.StepDone))
        metrics = tested.of(wire.StepDone)[0].record.metrics
        assert 0 < metrics["response/failed"] < 16
        failed = 0
        for number in (1, 2, 3, 4):
            detail = await tested.client.query(parse(f"response 1.{number}"), GroupDetail)
            for r in detail.group.responses:
                assert bool(r.failed) == bool(len(r.text) % 2)
                if r.failed:
                    failed += 1
                    assert (r.reward, r.advantage) == (None, 0.0)
        assert failed == metrics["response/failed"]
        await tested.until(lambda: tested.of(wire.AlarmRaised))
        assert tested.of(wire.AlarmRaised)[0].alarm.rule == "reward failed"
        alarm = tested.of(wire.AlarmRaised)[0].alarm
        assert (await tested.do(Acknowledge(alarm=alarm.id))).text == "1 acknowledged"
        assert (await tested.do(Acknowledge(alarm=alarm.id))).status == "rejected"
        assert (await tested.do("acknowledge")).text.endswith("acknowledged")
        assert tested.engine.board.alarms[alarm.id].acknowledged > 0


async def test_an_exception_inside_a_step_pauses_the_run_with_an_alarm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with live() as tested:
        await tested.step()
        learner = tested.engine.learner
        before, good = tested.weights, learner.measure_reference

        def broken(*_):
            raise MemoryError("out of memory")

        monkeypatch.setattr(learner, "measure_reference", broken)
        await tested.do("resume")
        await tested.until(lambda: tested.of(wire.AlarmRaised))
        alarm = tested.of(wire.AlarmRaised)[-1].alarm
        assert alarm.message == "step 2 failed while updating: MemoryError: out of memory"
        await tested.paused()
        await tested.until(lambda: tested.engine.control.phase == "idle")
        assert same_weights(before, tested.weights)
        assert learner.step == 1
        monkeypatch.setattr(learner, "measure_reference", good)
        await tested.step()
        assert learner.step == 2
        assert learner.cursor == 12
    assert "MemoryError" in capsys.readouterr().err


async def test_a_gradient_that_is_not_finite_is_skipped_and_the_run_pauses() -> None:
    async with live() as tested:
        await tested.step()
        before = tested.weights
        parameter = tested.engine.learner.policy.parameters[0]
        handle = parameter.register_hook(lambda grad: grad * math.nan)
        await tested.do("resume")
        await tested.until(lambda: tested.of(wire.AlarmRaised))
        assert "not finite" in tested.of(wire.AlarmRaised)[-1].alarm.message
        await tested.paused()
        assert same_weights(before, tested.weights)
        handle.remove()
        await tested.step()
        assert not same_weights(before, tested.weights)


async def test_an_error_that_names_responses_hands_them_to_its_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    class NotFinite(ArithmeticError):
        responses = ("1.2A", "1.2C")

    def broken(*_):
        raise NotFinite("the loss is not finite")

    async with live() as tested:
        monkeypatch.setattr(tested.engine.learner, "measure_reference", broken)
        await tested.do("resume")
        await tested.until(lambda: tested.of(wire.AlarmRaised))
        assert tested.of(wire.AlarmRaised)[-1].alarm.responses == ["1.2A", "1.2C"]
        await tested.paused()


# ------------------------------------------------------------------------------------------------ watches


async def test_a_persons_watch_pauses_the_run_and_names_responses() -> None:
    async with live() as tested:
        answer = await tested.do("watch advantage/abs_max > 0.01 for 2 pause")
        assert (answer.status, answer.text) == (
            "applied", "watches advantage/abs_max high: advantage/abs_max > 0.01 for 2 pause"
        )  # fmt: skip
        await tested.do("resume")
        await tested.until(lambda: tested.of(wire.AlarmRaised))
        await tested.paused()
        assert tested.engine.learner.step == 2
        alarm = tested.of(wire.AlarmRaised)[0].alarm
        assert (alarm.rule, alarm.step) == ("advantage/abs_max high", 2)
        assert alarm.message.endswith(": advantage/abs_max > 0.01 for 2 @2")
        group = (await tested.client.query(parse("group 2.1"), GroupDetail)).group
        everyone = {f"2.{n}{letter}" for n in (1, 2, 3, 4) for letter in "ABCD"}
        assert len(alarm.responses) == 3
        assert set(alarm.responses) <= everyone
        assert group.responses[0].advantage is not None
        await tested.until(lambda: tested.beats[-1].note.startswith("paused by alarm: advantage/abs_max high"))
        states = {s["name"]: s for s in await tested.query("watches")}
        assert states["advantage/abs_max high"] == {
            "name": "advantage/abs_max high", "rule": "advantage/abs_max > 0.01 for 2 pause", "on": True,
            "state": "holds", "own": True, "standing": True, "fired": 2,
        }  # fmt: skip
        assert states["entropy"]["state"] == "quiet"
        await tested.do("acknowledge")
        states = {s["name"]: s for s in await tested.query("watches")}
        assert "standing" not in states["advantage/abs_max high"]
        who = tested.of(wire.Noted)
        assert any(n.kind == "watch" and n.text.endswith("> 0.01 for 2 pause") and n.who for n in who)


async def test_a_watch_may_ask_for_a_checkpoint() -> None:
    async with live() as tested:
        await tested.do("watch tokens: response/length > 0 checkpoint")
        await tested.step()
        await tested.until(lambda: [e for e in tested.of(wire.CheckpointSaved) if e.checkpoint.step == 1])
        assert tested.of(wire.CheckpointSaved)[-1].checkpoint.reason == "alarm: tokens"


async def test_watches_are_taken_away_and_brought_back() -> None:
    async with live() as tested:
        assert (await tested.do("watch late: loop/lag > 9")).status == "applied"
        assert (await tested.do("unwatch late")).text == "late is gone"
        answer = await tested.do("unwatch late")
        assert (answer.status, answer.text.split(";")[0]) == ("rejected", "unknown watch 'late'")
        assert (await tested.do("unwatch all truncated")).text == (
            "all truncated is off; `watch all truncated` switches it on again"
        )
        assert (await tested.do("unwatch all truncated")).status == "rejected"
        states = {s["name"]: s["state"] for s in await tested.query("watches")}
        assert (states["all truncated"], states["truncated"]) == ("off", "quiet")
        assert (await tested.do("watch all truncated")).text.startswith("all truncated is on again")
        assert (await tested.do("watch all truncated")).text.startswith("all truncated is on already")
        instead = await tested.do("watch groups/dead_fraction > 0.5 for 9")
        assert instead.text == (
            "watches dead groups: groups/dead_fraction > 0.5 for 9, in place of groups/dead_fraction > 0.8 for 3"
        )
        assert (await tested.do("unwatch groups/dead_fraction")).text == (
            "dead groups is gone; the default stands again: groups/dead_fraction > 0.8 for 3"
        )


async def test_a_watch_on_a_reward_component_that_the_task_has_not_is_refused() -> None:
    async with live() as tested:
        assert (await tested.do("watch reward/early > 0.1")).status == "applied"
        answer = await tested.do("watch reward/eary > 0.1")
        assert (answer.status, answer.text) == ("rejected", "unknown metric 'reward/eary'; did you mean reward/early?")


async def test_watches_outlive_their_engine(home: Path) -> None:
    folder = session()
    async with live(folder) as tested:
        await tested.do("watch response/length > 0.5 pause")
        await tested.do("unwatch entropy")
        await tested.step()
        await tested.until(lambda: tested.of(wire.AlarmRaised))
        await tested.do("watch response/length > 0.25 pause")
        await tested.do("stop")
        await tested.ended()
    async with live(folder) as tested:
        states = {s["name"]: s for s in await tested.query("watches")}
        assert states["response/length high"]["rule"] == "response/length > 0.25 pause"
        assert states["response/length high"]["state"] == "quiet"  # it was made after the step that it would hold in
        assert states["entropy"]["state"] == "off"
        await tested.do("resume")
        await tested.until(lambda: tested.of(wire.AlarmRaised))
        await tested.paused()
        assert tested.engine.learner.step == 2


async def test_a_rollout_that_breaks_an_invariant_is_an_alarm_and_not_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live() as tested:
        await tested.step()
        await tested.until(lambda: tested.of(wire.StepDone))
        assert tested.of(wire.StepDone)[0].record.metrics["invariants/broken"] == 0
        sampler = tested.engine.learner.sampler
        good = sampler.sample

        def spoiled(*arguments):
            groups = good(*arguments)
            groups[2].record.responses[1].ended ^= True
            return groups

        monkeypatch.setattr(sampler, "sample", spoiled)
        await tested.step()
        await tested.until(lambda: [e for e in tested.of(wire.AlarmRaised) if e.alarm.rule == "invariants"])
        alarm = next(e.alarm for e in tested.of(wire.AlarmRaised) if e.alarm.rule == "invariants")
        assert (alarm.level, alarm.responses) == ("error", ["2.3B"])
        assert alarm.message.startswith("2.3B c")
        assert tested.engine.learner.step == 2


async def test_a_run_that_fails_again_and_again_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live() as tested:
        monkeypatch.setattr(tested.engine.learner, "measure_reference", None)
        for n in (1, 2):
            await tested.do("resume")
            await tested.until(lambda n=n: len(tested.of(wire.AlarmRaised)) == n)
            await tested.paused()
        await tested.do("resume")
        await tested.ended()
        assert tested.engine.exit_code == 1
        assert tested.beats[-1].state == "FAILED"
        assert "TypeError" in tested.beats[-1].note


async def test_what_cannot_be_built_is_said_to_those_who_watch() -> None:
    from sessions.errors import InputFileError

    def build(settings, control, folder):
        raise InputFileError("model nowhere: no such folder")

    folder = session()
    from engine.engine import Engine

    engine = Engine(folder, folder.settings(), build)
    await engine.serve()
    assert engine.exit_code == 2
    assert engine.failure == "model nowhere: no such folder"


async def test_commands_while_it_loads(home: Path) -> None:
    import threading

    go = threading.Event()

    def slow(settings, control, folder):
        assert go.wait(60)
        raise KeyError("enough")

    from engine.engine import Engine

    folder = session()
    engine = Engine(folder, folder.settings(), slow)
    serving = asyncio.create_task(engine.serve())
    async with asyncio.timeout(60):
        while folder.engine() is None:
            await asyncio.sleep(0.003)
        async with attached(folder.engine().socket, "early") as client:
            answer = await client.send_and_wait(Set(values={"clip_low": 0.1}))
            assert (answer.status, answer.text) == ("rejected", "the engine is still loading; try again")
            assert (await client.query_json(parse("status")))["state"] == "LOADING"
            assert (await client.send_and_wait(parse("watches"))).status == "rejected"
            go.set()
            await serving
    assert engine.failure == "KeyError: 'enough'"


async def test_ids_are_the_clients(home: Path) -> None:
    async with live() as tested:
        name = str(uuid.uuid4())
        answer = await tested.do(Set(id=name, values={"group_size": 4}))
        assert answer.id == name
