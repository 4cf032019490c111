"""Wishes of one thread, safe points of another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from engine.control import Control, Discarded, Stopping
from tests.engine.small import wait_for


class Worker:
    """A thread that runs ``body`` and keeps how it ended."""

    def __init__(self, body: Callable[[], None]) -> None:
        self.ended: Exception | str = ""
        self._thread = threading.Thread(target=self._run, args=(body,), daemon=True)
        self._thread.start()

    def _run(self, body: Callable[[], None]) -> None:
        try:
            body()
            self.ended = "done"
        except Exception as error:  # noqa: BLE001 - the tests look at it
            self.ended = error

    def join(self) -> Exception | str:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.ended


@pytest.fixture
def control() -> Iterator[Control]:
    made = Control()
    yield made
    made.stop(now=True)  # no thread is left behind


class Counter:
    """Passes safe points until told to end, and counts them."""

    def __init__(self, control: Control) -> None:
        self.passed = 0
        self.enough = False
        self._control = control
        self.worker = Worker(self._body)

    def _body(self) -> None:
        while not self.enough:
            self._control.advance(self.passed + 1, 0)
            self.passed += 1


def test_nobody_wishes_anything(control: Control) -> None:
    control.begin("sampling", 5)
    control.advance(2, 5)
    assert (control.phase, control.done, control.total) == ("sampling", 2, 5)
    assert not control.wanted


def test_pause_holds_the_next_safe_point_and_resume_lets_it_go(control: Control) -> None:
    counter = Counter(control)
    wait_for(lambda: counter.passed > 3)
    control.pause("ann")
    wait_for(lambda: control.paused)
    at = counter.passed
    assert control.done == at + 1
    assert control.paused_by == "ann"
    assert counter.passed == at
    control.resume()
    wait_for(lambda: counter.passed > at)
    assert not control.paused
    counter.enough = True
    assert counter.worker.join() == "done"


def test_changes_are_told_when_it_pauses_and_when_it_goes_on() -> None:
    seen: list[bool] = []
    control = Control(on_change=lambda: seen.append(control.paused))
    control.pause("ann")
    worker = Worker(control.safe_point)
    wait_for(lambda: control.paused)
    control.resume()
    assert worker.join() == "done"
    assert seen == [True, False]


def test_the_clock_stands_still_while_paused(control: Control) -> None:
    began = control.clock()
    control.pause("ann")
    worker = Worker(control.safe_point)
    wait_for(lambda: control.paused)
    until = threading.Event()
    until.wait(0.2)
    control.resume()
    worker.join()
    assert control.clock() - began < 0.15


def test_stop_ends_it_at_the_next_safe_point(control: Control) -> None:
    counter = Counter(control)
    wait_for(lambda: counter.passed > 0)
    control.stop(now=False)
    assert isinstance(counter.worker.join(), Stopping)
    assert control.stopping
    assert not control.stopping_now


@pytest.mark.parametrize("now", [True, False])
def test_stop_ends_a_pause(control: Control, now: bool) -> None:
    control.pause("ann")
    worker = Worker(control.safe_point)
    wait_for(lambda: control.paused)
    control.stop(now=now)
    assert isinstance(worker.join(), Stopping)
    assert not control.paused


def test_stop_waits_for_an_update_that_has_stepped_the_optimizer(control: Control) -> None:
    control.begin_step(1)
    control.commit()
    control.stop(now=False)
    control.advance(1, 2)
    with pytest.raises(Stopping):
        control.finish_step()


def test_stop_now_does_not(control: Control) -> None:
    control.commit()
    control.stop(now=True)
    with pytest.raises(Stopping):
        control.advance(1, 2)


def test_stop_while_paused_inside_such_an_update_goes_on_to_its_end(control: Control) -> None:
    control.commit()
    control.pause("ann")

    def rest_of_the_update() -> None:
        control.safe_point()
        control.safe_point()
        control.finish_step()

    worker = Worker(rest_of_the_update)
    wait_for(lambda: control.paused)
    control.stop(now=False)
    assert isinstance(worker.join(), Stopping)


def test_a_pause_after_a_stop_does_not_hold_it_up(control: Control) -> None:
    control.commit()
    control.stop(now=False)
    control.pause("ann")
    control.safe_point()
    with pytest.raises(Stopping):
        control.finish_step()


def test_discard_drops_a_paused_step_and_leaves_it_paused(control: Control) -> None:
    control.begin_step(1)
    control.pause("ann")
    worker = Worker(control.safe_point)
    wait_for(lambda: control.paused)
    assert control.discard()
    assert isinstance(worker.join(), Discarded)
    again = Worker(lambda: control.begin_step(1))
    wait_for(lambda: control.paused)
    control.resume()
    assert again.join() == "done"
    control.safe_point()


def test_an_update_that_has_stepped_cannot_be_discarded(control: Control) -> None:
    control.begin_step(1)
    control.commit()
    assert not control.discard()
    control.safe_point()
    control.finish_step()
    control.begin_step(2)
    assert control.discard()
    with pytest.raises(Discarded):
        control.safe_point()


def test_a_finished_step_cannot_be_discarded_by_a_wish_that_came_late(control: Control) -> None:
    control.begin_step(1)
    control.commit()
    control.finish_step()
    control.discard()
    control.begin_step(2)
    control.safe_point()


def test_pause_before_a_step(control: Control) -> None:
    reached: list[int] = []

    def body() -> None:
        for step in (4, 5, 6):
            control.begin_step(step)
            reached.append(step)
            control.safe_point()

    control.pause_before(5, "ann")
    worker = Worker(body)
    wait_for(lambda: control.paused)
    assert reached == [4]
    control.pause_before(6, "ann")
    wait_for(lambda: reached == [4, 5] and control.paused)
    control.resume()
    assert worker.join() == "done"
    assert reached == [4, 5, 6]


def test_resume_withdraws_pause_before(control: Control) -> None:
    control.pause_before(5, "ann")
    control.resume()
    control.begin_step(5)


def test_finish_step_does_not_pause(control: Control) -> None:
    control.pause("ann")
    control.finish_step()
    worker = Worker(lambda: control.begin_step(2))
    wait_for(lambda: control.paused)
    control.resume()
    assert worker.join() == "done"


def test_the_end_of_a_step_says_whether_the_compute_thread_has_anything_to_do(control: Control) -> None:
    control.commit()
    assert not control.end_step()
    assert not control.committed
    control.pause("ann")  # the next step pauses before it begins
    assert not control.end_step()
    control.resume()
    control.commit()
    control.ask(lambda: None)
    assert control.end_step()
    control.finish_step()
    assert not control.end_step()
    control.stop(now=False)
    assert control.end_step()


def test_a_wish_to_drop_a_step_does_not_outlive_it(control: Control) -> None:
    assert control.discard()
    control.end_step()
    control.safe_point()


def test_errands_run_on_the_compute_thread_in_order_paused_or_not(control: Control) -> None:
    ran: list[tuple[int, int]] = []

    def errand(number: int) -> Callable[[], None]:
        return lambda: ran.append((number, threading.get_ident()))

    control.ask(errand(1))
    control.ask(errand(2))
    assert control.wanted
    control.safe_point()
    assert [n for n, _ in ran] == [1, 2]
    control.pause("ann")
    worker = Worker(control.safe_point)
    wait_for(lambda: control.paused)
    control.ask(errand(3))
    wait_for(lambda: len(ran) == 3)
    assert control.paused
    control.resume()
    worker.join()
    assert ran[2][1] != threading.get_ident()


def test_errands_wait_until_the_weights_are_those_of_a_finished_step(control: Control) -> None:
    ran: list[int] = []
    control.commit()
    control.ask(lambda: ran.append(1))
    control.safe_point()
    assert ran == []
    control.finish_step()
    assert ran == [1]


# ------------------------------------------------------------------------------------ waiting for another thread


@pytest.fixture
def waiting(control: Control) -> tuple[threading.Event, Worker]:
    """Something to come true, and a worker that waits for it, with no other reason to wake."""
    ready = threading.Event()
    worker = Worker(lambda: control.wait_for(ready.is_set))
    wait_for(lambda: control._changed._waiters)
    return ready, worker


def test_waiting_ends_when_whoever_is_waited_for_says_so(
    control: Control, waiting: tuple[threading.Event, Worker]
) -> None:
    ready, worker = waiting
    control.wake()
    wait_for(lambda: control._changed._waiters)
    assert worker.ended == ""
    ready.set()
    control.wake()
    assert worker.join() == "done"


def test_a_pause_while_waiting_holds_it(control: Control, waiting: tuple[threading.Event, Worker]) -> None:
    ready, worker = waiting
    control.pause("ann")
    wait_for(lambda: control.paused)
    ready.set()
    control.wake()
    assert control.paused
    control.resume()
    assert worker.join() == "done"


@pytest.mark.parametrize(
    ("wish", "raised"),
    [(lambda c: c.stop(now=False), Stopping), (lambda c: c.stop(now=True), Stopping), (Control.discard, Discarded)],
)
def test_what_ends_the_step_ends_waiting(
    control: Control, waiting: tuple[threading.Event, Worker], wish: Callable[[Control], object], raised: type
) -> None:
    wish(control)
    assert isinstance(waiting[1].join(), raised)


def test_errands_run_while_waiting(control: Control, waiting: tuple[threading.Event, Worker]) -> None:
    ran = threading.Event()
    control.ask(ran.set)
    assert ran.wait(10)
    assert waiting[1].ended == ""
    waiting[0].set()
    control.wake()
    assert waiting[1].join() == "done"


@pytest.mark.parametrize(
    "way", [Control.resume, lambda c: c.stop(now=False), lambda c: c.pause_before(3, "ann")]
)  # fmt: skip
def test_waiting_for_the_end_of_a_pause(control: Control, way: Callable[[Control], object]) -> None:
    control.wait_resumed()  # nobody has asked for one
    control.pause("ann")
    worker = Worker(control.wait_resumed)
    wait_for(lambda: control._changed._waiters)
    assert worker.ended == ""
    way(control)
    assert worker.join() == "done"
