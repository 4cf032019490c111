"""How much is drawn without a key."""

from __future__ import annotations

from screens.pace import LONGEST_REST, LONGEST_SILENCE, Pace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Driver:
    def __init__(self) -> None:
        self.data = ""

    def write(self, data: str) -> None:
        self.data += data


def test_the_bucket_empties_and_fills() -> None:
    clock = Clock()
    pace = Pace(1000, clock)
    assert pace.may_draw()
    pace.spend(1500)
    assert not pace.may_draw()
    clock.now = 0.6
    assert pace.may_draw()
    assert pace.written == 1500


def test_the_rate_holds_over_time() -> None:
    clock = Clock()
    pace = Pace(8000, clock)
    for _ in range(600):
        clock.now += 0.5
        if pace.may_draw():
            pace.spend(20_000)
    assert pace.written / clock.now < 8100


def test_a_burst_silences_the_screen_for_a_bounded_time() -> None:
    clock = Clock()
    pace = Pace(1000, clock)
    pace.spend(10**9)
    clock.now = LONGEST_SILENCE + 0.1
    assert pace.may_draw()


def test_what_keys_cause_is_counted_but_never_held_back() -> None:
    pace = Pace(10, Clock())
    driver = Driver()
    pace.count(driver)
    driver.write("é" * 50)
    driver.write("more")
    assert driver.data == "é" * 50 + "more"
    assert pace.written == 104
    assert not pace.may_draw()


def test_the_processor_gets_its_rest() -> None:
    clock = Clock()
    pace = Pace(1000, clock)
    pace.worked(0.02)
    assert not pace.may_draw()
    clock.now = 0.51
    assert pace.may_draw()
    pace.worked(100.0)
    clock.now += LONGEST_REST + 0.01
    assert pace.may_draw()
