"""A wall clock that jumps, by days and both ways: orders and spans do not come from it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from engine import service
from sessions import wire
from sessions.commands import Rate
from tests.engine.live import Live, live, session
from tests.faults.count import Count
from tests.faults.harness import Given, database_whole, ratings_kept

DAY = 86_400.0
real = time.time


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock by so many days from the true time; monotonic time goes on."""
    monkeypatch.setattr(service, "BEAT_SECONDS", 0.02)

    def by(days: float) -> None:
        monkeypatch.setattr(time, "time", lambda: real() + days * DAY)

    return by


JUMPS = [(0, -3, -2), (0, 3, -400), (3, 0, 0), (-9000, 0, 9000)]


@pytest.mark.parametrize("jumps", JUMPS)
async def test_a_clock_that_jumps_changes_no_order(
    jumps: tuple[float, float, float], jump: Callable[[float], None], count: Count
) -> None:
    folder, given = session(), {}

    async def rate(tested: Live, value: float, who: str, comment: str) -> None:
        command = Rate(group="1.1", mode="likert", values={"A": value}, comment=comment, who=who)
        assert (await tested.do(command)).status == "applied"
        given[command.id] = Given("1.1", {"A": value}, comment)

    first, second, third = jumps
    count.injected["a clock that jumps"] += 2
    jump(first)
    async with live(folder) as tested:
        await tested.step(2)
        await rate(tested, 1, "ann", "first")
        await rate(tested, 2, "bob", "second")
        await tested.first("set learning_rate=2e-3")
        jump(second)
        await rate(tested, 5, "ann", "third")
        detail = await tested.query("group 1.1")
        assert [r["comment"] for r in detail["ratings"]] == ["first", "second", "third"]
        assert detail["ratings"][2]["supersedes"] == detail["ratings"][0]["id"]
        assert detail["head"]["ratings"] == {"A": "5"}  # the newest answer is shown, whatever its time
        await tested.do("watch reward/mean > -1")  # made on a day after the steps that it will look at
        jump(third)
        await tested.do("step")
        await tested.until(lambda: [e for e in tested.of(wire.AlarmRaised) if e.alarm.rule.startswith("reward/mean")])
        await rate(tested, 3, "bob", "fourth")
        await tested.first("set learning_rate=3e-3")
        await tested.step()
        await tested.until(lambda: len(tested.of(wire.StepDone)) == 4)
        applied = [e.change.new for e in tested.of(wire.Changed) if e.change.status == "applied"]
        assert applied == [2e-3, 3e-3]
        assert [e.record.step for e in tested.of(wire.StepDone)] == [1, 2, 3, 4]
        assert all(e.record.metrics["time/step"] >= 0 for e in tested.of(wire.StepDone))
        assert all(0 <= beat.elapsed < DAY for beat in tested.beats)
        seqs = [e.seq for e in tested.events if e.seq]
        assert seqs == sorted(seqs)
        uses = {e.use.rating: e.use.fate for e in tested.of(wire.RatingUsed)}
        ids = list(given)
        assert uses[ids[2]] == "late"
        assert uses[ids[0]] == "unused"  # the third took its place
        await tested.do("stop --now")  # no checkpoint: what follows goes back to the beginning
        await tested.ended()
    jump(first)
    async with live(folder) as tested:
        events = [wire.describe(e) for e in reversed(await tested.engine.write(tested.engine.store.events))]
        told = [text for kind, text in events if kind == "step"]
        assert [text.split()[1] for text in told][:4] == ["1", "2", "3", "4"]
        await tested.step(5 - tested.engine.learner.step)
        assert tested.engine.learner.step == 5
        assert tested.engine.knobs.number("learning_rate") == 3e-3
        series = await tested.query("series reward/mean")
        assert series[0]["steps"] == [1, 2, 3, 4, 5]
    ratings_kept(folder, given, count)
    database_whole(folder)
    count.acknowledged += len(given)
    count.recovered["a clock that jumps"] += 2
