"""Several people on one engine: events say who did what, and of two who disagree one is told about the other."""

from __future__ import annotations

import asyncio
import random
import uuid

import msgspec
import pytest

from sessions import wire
from sessions.client import Client, attached
from sessions.commands import (
    COMMANDS,
    QUERIES,
    Acknowledge,
    AddWatch,
    Command,
    DeleteBranch,
    Discard,
    Evaluate,
    Fork,
    ImportOrderings,
    ImportRatings,
    Pause,
    Picked,
    Preview,
    QueryResponse,
    Race,
    Rate,
    Reload,
    RemoveWatch,
    RenameBranch,
    Resume,
    Retract,
    Returned,
    Rewind,
    Set,
    Skip,
    Step,
    Stop,
    Switch,
    TakeCheckpoint,
    TrainRewardModel,
)
from sessions.hyperparameters import hyperparameter
from sessions.orderings import Ordering
from sessions.records import Rating, Response
from sessions.store import Store
from tests.engine.live import Live, live, session
from tests.engine.test_branching import race_and_pause, settled
from tests.engine.test_resuming import pause_in

PAIR = Ordering(prompt="p", tiers=[["a"], ["b"]])


def told(tested: Live, kind: str = "", since: int = 0) -> list[str]:
    """What the events say; those before a move, after which a client gets a snapshot, too."""
    events = [wire.describe(e) for e in tested.engine.board.events if e.seq > since]
    return [text for of, text in events if kind in ("", of)]


async def test_every_command_that_changes_something_names_its_sender() -> None:
    done: set[type[Command]] = set()

    async def named(command: Command, *words: str, wait: bool = True) -> None:
        """Somebody's command, and an event after it that names them beside these words."""
        seen = tested.engine.board.seq
        who = f"p{len(done)}"
        command = msgspec.structs.replace(command, who=who)
        answer = await (tested.do(command) if wait else tested.first(command))
        assert answer.status == ("applied" if wait else "accepted"), answer
        await tested.until(lambda: any(all(w in text for w in (who, *words)) for text in told(tested, since=seen)))
        done.add(type(command))

    async with live(session(steps=0), evaluate_every=0) as tested:
        await tested.step(2)
        await named(Step(), "runs step 3")
        await named(Set(values={"learning_rate": 2e-3}), "set learning_rate", wait=False)
        await named(TakeCheckpoint(), "asked")
        await named(Evaluate(), "had it evaluated")
        await named(Resume(), "resumed")
        await named(Pause(), "paused", "by")
        rating = Rate(group="2.1", mode="likert", values={"A": 4.0})
        await named(rating, "rated 2.1")
        await named(Retract(rating=rating.id), "'s rating", "back")
        skip = Skip(response="2.2A")
        await named(skip, "skipped 2.2A")
        await tested.do(Rate(group="1.1", mode="rank", values={"A": 1, "B": 2}))
        for number in range(1, 5):
            for step in (1, 2):
                await tested.do(Rate(group=f"{step}.{number}", mode="rank", values={"A": 1, "B": 2, "C": 3}))
        await named(TrainRewardModel(), "has one trained", wait=False)
        await named(Picked(group="2.3", rule="random"), "2.3 was put before")
        await named(ImportOrderings(source="pairs.jsonl", orderings=[PAIR]), "imported 1 preference from pairs.jsonl")
        back = Rating(id="r9", time=5.0, who="bo", branch="main", step=2, group=4, mode="thumbs", values={"A": 1.0})
        text = (await tested.client.query(QueryResponse(response="2.4A"), Response)).text
        await named(
            ImportRatings(source="old.jsonl", ratings=[Returned(rating=back, texts={"A": text})]),
            "imported 1 rating from old.jsonl",
        )
        await named(AddWatch(rule="kl/k3 > 9 for 3"), "watches")
        await named(RemoveWatch(name="kl/k3 high"), "kl/k3")
        await tested.engine.alarm("test", "something is odd")
        await named(Acknowledge(), "acknowledged by")
        await pause_in(tested, "updating", 0)
        await named(Discard(), "discarded by")
        await tested.do(Pause())
        await named(Fork(name="lower"), "started branch lower")
        await settled(tested)
        await named(Switch(branch="main"), "went from lower")
        await settled(tested)
        await named(RenameBranch(branch="lower", name="low"), "renamed lower to low")
        await settled(tested)
        await named(DeleteBranch(branch="low"), "low")
        await named(Rewind(step=1), "went back")
        await settled(tested)
        await named(Race(algorithms=["grpo", "ppo"], steps=500), "race 1 begins")
        await named(Stop(now=True), "stops", wait=False)
    # one of them changes nothing, test_named_rewards has the other
    assert done == set(COMMANDS.values()) - set(QUERIES) - {Preview, Reload}


async def test_screens_and_followers_are_named_when_they_come_and_go_and_scripts_are_not() -> None:
    async with live() as tested:
        async with attached(tested.client.path, "send", who="tuner") as script:
            await script.send_and_wait(Pause())
        async with attached(tested.client.path, "screen", who="ann", read_only=True):
            await tested.until(lambda: tested.notes("client"))
            await tested.until(lambda: any(c.startswith("ann") and "read-only" in c for c in tested.beats[-1].clients))
        await tested.until(lambda: len(tested.notes("client")) == 2)
        attached_text, left_text = tested.notes("client")
        assert attached_text.startswith("ann attached")
        assert left_text.startswith("ann left")
        assert {e.who for e in tested.of(wire.Noted) if e.kind == "client"} == {"ann"}
        await tested.do("stop")
        await tested.ended()


async def test_a_client_says_whose_it_is_in_every_command() -> None:
    async with live() as tested:
        async with attached(tested.client.path, "screen", who="tuner") as client:
            await client.send(Set(values={"learning_rate": 2e-3}, who="somebody else"))
        await tested.until(lambda: tested.of(wire.Changed))
        assert tested.of(wire.Changed)[0].change.who == "tuner"


# ------------------------------------------------------------------------------------------------ conflicts


async def test_of_two_changes_in_the_same_moment_one_wins_and_the_other_is_told_who_did() -> None:
    async with live(learning_rate=1e-4) as tested:
        await tested.step()
        path = tested.client.path
        async with attached(path, "screen", who="ann") as ann, attached(path, "screen", who="bob") as bob:
            expect = {"learning_rate": 1e-4}
            answers = dict(
                zip(
                    ("ann", "bob"),
                    await asyncio.gather(
                        ann.send(Set(values={"learning_rate": 5e-5}, expect=expect)),
                        bob.send(Set(values={"learning_rate": 2e-4}, expect=expect)),
                    ),
                    strict=True,
                )
            )
            won = [who for who, answer in answers.items() if answer.status == "accepted"]
            assert len(won) == 1
            (lost,) = {"ann", "bob"} - set(won)
            value = hyperparameter("learning_rate").show({"ann": 5e-5, "bob": 2e-4}[won[0]])
            was = hyperparameter("learning_rate").show(1e-4)
            assert answers[lost].status == "rejected"
            assert answers[lost].text == f"learning_rate is {value} now ({won[0]}, step 2), not {was}; look again"


async def test_who_takes_a_waiting_change_back_is_the_one_who_is_named() -> None:
    async with live(group_size=4) as tested:
        await tested.first(Set(values={"group_size": 6}, who="ann"))
        assert (await tested.do(Set(values={"group_size": 4}, who="bob"))).status == "applied"
        answer = await tested.do(Set(values={"group_size": 8}, expect={"group_size": 6}))
        assert "group_size is 4 now (bob, step" in answer.text


async def test_a_refusal_names_who_changed_it_also_after_a_restart() -> None:
    folder = session(steps=0)
    async with live(folder) as tested:
        await tested.first(Set(values={"clip_low": 0.1}, who="ann"))
        await tested.step()
        await tested.do("stop")
        await tested.ended()
    async with live(folder) as tested:
        answer = await tested.do(Set(values={"clip_low": 0.3}, expect={"clip_low": 0.2}))
        assert answer.text == "clip_low is 0.1 now (ann, step 1), not 0.2; look again"


KNOBS = {
    "learning_rate": [0.0, 1e-5, 1e-4, 1e-3],
    "clip_low": [0.1, 0.15, 0.2],
    "group_size": [2, 3, 4],
    "max_new_tokens": [2, 4, 8],
}


async def changes_something(client: Client, rng: random.Random, count: int) -> tuple[int, int]:
    """A person who changes what they believe to be there, and looks again when they are refused.

    :returns: how often they were accepted and refused.
    """
    believed: dict[str, float] = {}
    accepted = refused = 0
    for _ in range(count):
        name = rng.choice(list(KNOBS))
        if name not in believed:  # a guess: the refusal says what it is
            believed[name] = rng.choice(KNOBS[name])
        value = rng.choice(KNOBS[name])
        command = Set(values={name: value}, expect={name: believed[name]})
        answer = await asyncio.wait_for(client.send(command), 60)
        if answer.status == "rejected":
            refused += 1
            believed[name] = float(answer.text.split(" is ")[1].split(" ")[0])
        else:
            accepted += 1
            believed[name] = value
        await asyncio.sleep(rng.choice([0, 0, 0.002, 0.01]))
    return accepted, refused


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
async def test_whatever_two_people_change_the_history_has_no_gap(seed: int) -> None:
    """Each change that took effect replaced the value that the one before it had set."""
    rng = random.Random(seed)
    folder = session(steps=0, paused=False)
    async with live(folder, learning_rate=1e-4, clip_low=0.2, group_size=4, max_new_tokens=4) as tested:
        path = tested.client.path
        async with attached(path, "screen", who="ann") as ann, attached(path, "screen", who="bob") as bob:
            counts = await asyncio.gather(
                *(changes_something(person, random.Random(rng.random()), 60) for person in (ann, bob))
            )
        assert all(accepted for accepted, _ in counts)
        assert any(refused for _, refused in counts)
        at = tested.engine.learner.step
        await tested.until(lambda: tested.engine.learner.step > at + 1)
        assert tested.engine.knobs.pending == []
        in_force = tested.engine.knobs.values
        await tested.do("stop")
        await tested.ended()
    store = Store(folder.database, read_only=True)
    applied = [change for change in store.changes() if change.status == "applied"]
    store.close()
    assert {change.who for change in applied} == {"ann", "bob"}
    start = {"learning_rate": 1e-4, "clip_low": 0.2, "group_size": 4, "max_new_tokens": 4}
    for name, value in start.items():
        for change in sorted((c for c in applied if c.name == name), key=lambda c: (c.applied_step, c.time)):
            assert change.old == value
            value = change.new
        assert in_force[name] == value


async def test_a_move_names_whose_move_is_under_way_and_who_went_before() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(2)
        fork = asyncio.create_task(tested.do(Fork(name="lower", who="ann")))
        await asyncio.sleep(0)
        answer = await tested.do(Rewind(step=1, expect="main", who="bob"))
        assert answer.status == "rejected"
        assert "ann's fork" in answer.text
        assert (await fork).status == "applied"
        await settled(tested)
        for command in (
            Rewind(step=1, expect="main"), Switch(branch="main", expect="main"), Fork(name="b", expect="main"),
            Race(algorithms=["grpo", "ppo"], steps=2, expect="main"),
        ):  # fmt: skip
            answer = await tested.do(command)
            assert answer.text == "branch lower is trained now (ann's fork), not main; look again"
        assert tested.engine.branch == "lower"
        assert (await tested.do(Fork(name="b", expect="lower"))).status == "applied"


async def test_somebody_elses_rating_may_be_taken_back_and_both_are_named() -> None:
    async with live() as tested:
        await tested.step()
        rating = Rate(group="1.1", mode="likert", values={"A": 4.0}, who="ann")
        await tested.do(rating)
        assert (await tested.do(Retract(rating=rating.id, who="bob"))).text == "ann's rating is taken back"
        await tested.until(lambda: tested.of(wire.RatingRetracted))
        (event,) = tested.of(wire.RatingRetracted)
        assert (event.who, event.of) == ("bob", "ann")
        assert wire.describe(event)[1] == f"bob took ann's rating {rating.id[:8]} back"
        mine = Rate(group="1.1", mode="likert", values={"A": 4.0}, who="ann")
        await tested.do(mine)
        assert (await tested.do(Retract(rating=mine.id, who="ann"))).text == "taken back"


async def test_a_default_switched_on_again_is_paused_by_whom() -> None:
    async with live() as tested:
        await tested.do(Resume(who="ann"))
        await tested.do(Pause(who="bob"))
        assert (await tested.do(Pause(who="ann"))).text == "it is paused already, by bob"
        await tested.until(lambda: any(text.endswith(" by bob") for text in tested.notes("paused")))


# ------------------------------------------------------------------------------------------ the same id again


@pytest.mark.parametrize("words", ["fork", "rewind", "switch", "rename", "race"])
async def test_a_repeat_of_a_move_waits_for_the_same_end_and_has_no_second_effect(words: str) -> None:
    async with live(session(steps=0)) as tested:
        await tested.step(3)
        await tested.do(Fork(name="lower"))
        await settled(tested)
        await tested.step()
        command: Command = {
            "fork": Fork(name="again", id=str(uuid.uuid4())),
            "rewind": Rewind(step=2),
            "switch": Switch(branch="main"),
            "rename": RenameBranch(branch="lower", name="low"),
            "race": Race(algorithms=["grpo", "ppo"], steps=500),
        }[words]
        async with attached(tested.client.path, "other") as other:
            both = await asyncio.gather(
                *(asyncio.wait_for(c.send_and_wait(command), 60) for c in (tested.client, other, tested.client)[:2])
            )
            assert both[0] == both[1]
            assert both[0].status == "applied"
            again = await asyncio.wait_for(other.send_and_wait(command), 60)
        assert again == both[0]
        await tested.do("pause")
        branches = set(tested.engine.store.branches())
        assert (
            branches
            == {
                "fork": {"main", "lower", "again"},
                "rewind": {"main", "lower", "lower~1"},
                "switch": {"main", "lower"},
                "rename": {"main", "low"},
                "race": {"main", "lower", "race-1-grpo"},
            }[words]
        )
        assert len(told(tested, "branch")) == 2  # of the fork at the start, and of this


async def test_a_repeat_of_what_an_engine_left_open_waits_for_it_or_says_that_it_may_not_be_done() -> None:
    folder = session(steps=0)
    change = Set(values={"clip_low": 0.1}, who="ann")
    moved = Rewind(step=0, who="ann")
    async with live(folder) as tested:
        await tested.step(2)
        assert (await tested.first(change)).status == "accepted"
        await tested.do("checkpoint")
        await tested.do("stop --now")
        await tested.ended()
    store = Store(folder.database)  # as a kill leaves it: accepted, and no more
    store.put_answer(wire.Answer(id=change.id, status="accepted", text="clip_low applies at the next minibatch"))
    store.put_answer(wire.Answer(id=moved.id, status="accepted", text="goes back to step 0"))
    store.close()
    async with live(folder) as tested:
        assert (await tested.first(change)).status == "accepted"
        waiting = asyncio.create_task(tested.do(change))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        before = tested.engine.learner.step
        await tested.step()
        answer = await waiting
        assert (answer.status, answer.text) == ("applied", f"applied at step {before + 1}")
        assert len([c for c in tested.engine.board.changes.values() if c.name == "clip_low"]) == 1
        answer = await tested.do(moved)
        assert answer.status == "rejected"
        assert "the engine ended before it said what became of this" in answer.text
        assert (await tested.do(moved)) == answer
        assert tested.engine.learner.step == before + 1


async def test_a_paused_session_goes_on_with_a_race_in_the_name_of_who_asked() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step()
        await tested.do(Race(algorithms=["grpo", "trpo"], steps=2, values={"damping": 0.1}, who="ann"))
        await tested.until(lambda: any("is over" in text for text in told(tested, "race")))
        assert "ann resumed" in told(tested, "resumed")
        await settled(tested)
        assert tested.engine.branch == "main"


async def test_a_race_that_is_stopped_needs_no_branch_to_be_expected() -> None:
    async with live(session(steps=0)) as tested:
        await tested.step()
        await race_and_pause(tested, "race grpo,trpo 3 --expect main")
        assert (await tested.do("race stop")).status == "applied"
