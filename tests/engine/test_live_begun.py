"""What a session begins with beside its hyperparameters: its own watches."""

from __future__ import annotations

import pytest

from engine.watching import Watching
from sessions import wire
from sessions.errors import UnknownName
from tests.engine.live import live, session


async def test_a_session_begins_with_its_watches_and_keeps_what_becomes_of_them() -> None:
    folder = session(watches=["long: response/length > 0 for 2 pause", "groups/dead_fraction > 0.5 for 9"])
    async with live(folder) as tested:
        states = {s["name"]: s for s in await tested.query("watches")}
        assert states["long"]["rule"] == "response/length > 0 for 2 pause"
        assert states["dead groups"]["rule"] == "groups/dead_fraction > 0.5 for 9", "in place of the default"
        await tested.do("resume")
        await tested.until(lambda: tested.of(wire.AlarmRaised))
        await tested.paused()
        assert tested.engine.learner.step == 2
        assert [event.alarm.rule for event in tested.of(wire.AlarmRaised)] == ["long"]
        await tested.do("unwatch long")
    async with live(folder) as tested:
        states = {s["name"]: s for s in await tested.query("watches")}
        assert "long" not in states, "a person took it away"
        assert states["dead groups"]["own"]


def test_a_watch_of_a_component_that_the_task_has_not_is_refused() -> None:
    Watching(components={"exact": 1.0}, rules=["reward/exact < 0.1"])
    with pytest.raises(UnknownName, match=r"unknown metric 'reward/exakt'; did you mean reward/exact\?"):
        Watching(components={"exact": 1.0}, rules=["reward/exakt < 0.1"])
