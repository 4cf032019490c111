"""The clock of the peer comparisons, with a time that the test moves."""

from __future__ import annotations

import pytest

from benchmarks.peers.clock import REST, Clock


class Hands:
    """Wall and processor seconds."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __call__(self) -> tuple[float, float]:
        return self.wall, self.cpu

    def move(self, wall: float, cpu: float) -> None:
        self.wall, self.cpu = self.wall + wall, self.cpu + cpu


def test_a_phase_does_not_count_the_phases_inside_it() -> None:
    hands = Hands()
    clock = Clock(hands)
    hands.move(100.0, 100.0)
    clock.begin()
    hands.move(1.0, 0.5)
    with clock.phase("update"):
        hands.move(2.0, 2.0)
        with clock.phase("sampling"):
            hands.move(4.0, 3.0)
        hands.move(8.0, 8.0)
    clock.lap(7)
    step = clock.steps[0]
    assert step.phases == {REST: (1.0, 0.5), "update": (10.0, 10.0), "sampling": (4.0, 3.0)}
    assert (step.wall, step.cpu, step.tokens) == (15.0, 13.5, 7)


def test_a_step_begins_where_the_one_before_ended() -> None:
    hands = Hands()
    clock = Clock(hands)
    for seconds in (1.0, 2.0, 3.0):
        hands.move(seconds, seconds)
        clock.lap(0)
    assert [step.wall for step in clock.steps] == [1.0, 2.0, 3.0]


def test_a_phase_open_over_the_end_of_a_step_is_shared_between_both() -> None:
    hands = Hands()
    clock = Clock(hands)
    with clock.phase("update"):
        hands.move(1.0, 1.0)
        clock.lap(0)
        hands.move(2.0, 2.0)
    clock.lap(0)
    assert [step.phases["update"][0] for step in clock.steps] == [1.0, 2.0]


def test_a_wrapped_method_is_timed_and_closes_its_phase_when_it_raises() -> None:
    hands = Hands()
    clock = Clock(hands)

    class Owner:
        def work(self, seconds: float) -> float:
            hands.move(seconds, seconds)
            if seconds > 5:
                raise ValueError
            return seconds

    owner = Owner()
    clock.wrap(owner, "work", "work")
    assert owner.work(2.0) == 2.0
    with pytest.raises(ValueError):
        owner.work(6.0)
    hands.move(1.0, 1.0)
    clock.lap(0)
    assert clock.steps[0].phases == {REST: (1.0, 1.0), "work": (8.0, 8.0)}
