"""Safe points: where the compute thread lets people in.

Between decode steps, micro-batches, evaluations and phases the compute thread calls :meth:`Control.safe_point`; there
it notices that it should pause, stop, or drop the step. The event loop only sets wishes and never waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sessions.records import Phase


class Stopping(Exception):
    """The session ends here; raised at a safe point."""


class Discarded(Exception):
    """The step in progress is dropped; raised at a safe point."""


class Leaving(Exception):
    """The training goes elsewhere: to another step or branch; raised at a safe point."""


class Control:
    """The wishes of people and the progress of the compute thread.

    :param on_change: called on the compute thread when it pauses or goes on.
    :param on_tell: called on the compute thread with a line for people, while it does what takes long.
    :ivar phase: what the compute thread is doing, with ``done`` of ``total`` parts.
    :ivar aside: what takes long inside that phase, or a pause, and is no part of it; empty: nothing.
    :ivar loading: what takes long while the session loads; empty: nothing in particular.
    :ivar on_note: keeps and tells a line of a kind.
    """

    def __init__(
        self, on_change: Callable[[], None] = lambda: None, on_tell: Callable[[str], None] = lambda text: None
    ) -> None:
        self._on_change, self.tell = on_change, on_tell
        self._changed = threading.Condition()
        self._pause = False
        self._pause_before = 0
        self._pause_phase = ""
        self._stop = False
        self._stop_now = False
        self._discard = False
        self._leave = False
        self._resumed = 0
        self._through = False
        self._committed = False
        self._errands: list[tuple[Callable[[], None], tuple[Phase, ...]]] = []
        self._paused_total = 0.0
        self.paused = False
        self.paused_by = ""
        self.discarded_by = ""
        self.phase: Phase = "idle"
        self.done = 0
        self.total = 0
        self.aside = ""
        self.loading = ""
        self.on_note: Callable[[str, str], None] = lambda kind, text: None

    # ------------------------------------------------------------------------- wishes, from the event loop

    def pause(self, who: str) -> None:
        """Pause at the next safe point; without effect once a stop has been asked for."""
        with self._changed:
            self._pause, self.paused_by = not self._stop, who
            self._changed.notify_all()

    def resume(self) -> None:
        """Go on: whoever asks for a pause from here on gets another one."""
        with self._changed:
            self._pause, self._pause_before, self._pause_phase = False, 0, ""
            self._resumed += 1
            self._changed.notify_all()

    def pause_at(self, phase: Phase, who: str) -> None:
        """Pause when the next phase of that name is about to begin; going on now if paused."""
        with self._changed:
            self._pause, self._pause_phase, self.paused_by = False, "" if self._stop else phase, who
            self._changed.notify_all()

    def pause_before(self, step: int, who: str) -> None:
        """Go on until ``step`` is about to begin, then pause."""
        with self._changed:
            self._pause, self._pause_before, self.paused_by = False, 0 if self._stop else step, who
            self._changed.notify_all()

    def stop(self, *, now: bool) -> None:
        """End at the next safe point; without ``now`` not inside an update that has stepped the optimizer.

        A run paused inside such an update goes on to the end of the step.
        """
        with self._changed:
            self._stop, self._stop_now = True, self._stop_now or now
            self._pause, self._pause_before = False, 0
            self._changed.notify_all()

    def discard(self, who: str = "") -> bool:
        """Drop the step in progress; false if its update has stepped the optimizer already."""
        with self._changed:
            if self._committed:
                return False
            self._discard, self.discarded_by = True, who
            self._changed.notify_all()
            return True

    def leave(self) -> None:
        """Leave the step in progress, before its update or after it, to go elsewhere; a pause goes on after that."""
        with self._changed:
            self._leave = True
            self._changed.notify_all()

    def run_through(self, through: bool) -> None:
        """Whether a pause waits: what is computed again is no step that anybody could look into."""
        with self._changed:
            self._through = through
            self._changed.notify_all()

    def left(self) -> None:
        """The training is where it should go."""
        with self._changed:
            self._leave = self._committed = self._discard = False

    def ask(self, errand: Callable[[], None], not_while: tuple[Phase, ...] = ()) -> None:
        """Have the compute thread run something at its next safe point where the weights are those of a finished
        step, paused or not.

        :param not_while: phases that it waits out.
        """
        with self._changed:
            self._errands.append((errand, not_while))
            self._changed.notify_all()

    @property
    def committed(self) -> bool:
        """Whether the update of the step in progress has changed weights."""
        return self._committed

    @property
    def holds(self) -> bool:
        """Whether it is paused, and nobody has asked it to go on."""
        return self.paused and self._pause

    @property
    def pausing(self) -> bool:
        """Whether a pause has been asked for."""
        return self._pause

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do at a safe point."""
        return self._pause or self._discard or self._leave or self._ready_errands()

    @property
    def stopping(self) -> bool:
        """Whether a stop has been asked for."""
        return self._stop

    @property
    def stopping_now(self) -> bool:
        return self._stop_now

    # ---------------------------------------------------------------------------------- from any thread

    def wake(self) -> None:
        """Something that :meth:`wait_for` waits for may have come true."""
        with self._changed:
            self._changed.notify_all()

    def wait_resumed(self) -> None:
        """Wait until no pause is asked for any more, or a stop is."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pause or self._stop)

    def end_step(self) -> bool:
        """The step is learned and recorded, and the compute thread rests.

        :returns: whether it has anything to do before the next step begins: then it should :meth:`finish_step`.
        """
        with self._changed:
            self._committed = self._discard = False
            return self._stop or self._leave or bool(self._errands)

    # --------------------------------------------------------------------------- on the compute thread

    def note(self, kind: str, text: str) -> None:
        """Have a line kept and told; from any thread."""
        self.on_note(kind, text)

    def clock(self) -> float:
        """Seconds that do not pass while paused."""
        return time.monotonic() - self._paused_total

    def begin(self, phase: Phase, total: int = 0) -> None:
        """Enter a phase of ``total`` parts; a safe point."""
        with self._changed:
            if phase == self._pause_phase:
                self._pause, self._pause_phase = True, ""
        self.phase, self.done, self.total = phase, 0, total
        self.safe_point()

    def advance(self, done: int, total: int) -> None:
        """Report progress inside a phase; a safe point."""
        self.done, self.total = done, total
        self.safe_point()

    def wait_for(self, ready: Callable[[], bool], *, pauses: bool = True) -> None:
        """Wait for another thread's work; a safe point for as long as it lasts.

        :param ready: whether there is nothing to wait for; whoever makes it true calls :meth:`wake`.
        :param pauses: whether it pauses there and runs errands; else it only leaves.
        """
        while not ready():
            with self._changed:
                self._changed.wait_for(lambda: ready() or (pauses and self.wanted) or self._wishes())
            if not ready():
                (self.safe_point if pauses else self.raise_wishes)()

    def finish_step(self) -> None:
        """The step is learned and recorded: errands are run, and the session may end here.

        It does not pause: there is no step in progress, and the next one pauses before it begins.

        :raises Stopping: if the session should end.
        :raises Leaving: if the training should go elsewhere.
        """
        with self._changed:
            self._committed = self._discard = False
        self._run_errands()
        with self._changed:
            self._raise_wishes()

    def commit(self) -> None:
        """The update is about to change weights: from here on the step can only be finished."""
        with self._changed:
            self._committed = True

    def begin_step(self, step: int) -> None:
        """A step is about to begin; a safe point."""
        with self._changed:
            self._committed = False
            self._discard = False
            if self._pause_before and step >= self._pause_before:
                self._pause, self._pause_before = True, 0
        self.safe_point()

    def count_anew(self) -> None:
        """Steps begin again at 1: a pause before the next one is a pause before that."""
        with self._changed:
            self._pause_before = min(self._pause_before, 1)

    def safe_point(self) -> None:
        """Pause here if somebody asked for it.

        :raises Stopping: if the session should end.
        :raises Discarded: if the step should be dropped.
        :raises Leaving: if the training should go elsewhere.
        """
        self._run_errands()
        with self._changed:
            self._raise_wishes()
            if not self.pausing or self._through:
                return
            self.paused, resumed = True, self._resumed
        self._on_change()
        began = time.monotonic()
        try:
            while self._hold(resumed):
                self._run_errands()
        finally:
            with self._changed:
                self._paused_total += time.monotonic() - began
                self.paused = False
            self._on_change()

    def _hold(self, resumed: int) -> bool:
        """Wait while paused; true when there are errands to run meanwhile, false when the run goes on."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._pause or self._resumed != resumed or self._ready_errands() or self._wishes()
            )
            self._raise_wishes()
            return self._pause and self._resumed == resumed

    def _ready_errands(self) -> bool:
        return not self._committed and any(self.phase not in phases for _, phases in self._errands)

    def _run_errands(self) -> None:
        while True:
            with self._changed:
                if not self._ready_errands():
                    return
                place = next(i for i, (_, phases) in enumerate(self._errands) if self.phase not in phases)
                errand, _ = self._errands.pop(place)
            errand()

    def _wishes(self) -> bool:
        return self._stop_now or ((self._stop or self._discard or self._leave) and not self._committed)

    def raise_wishes(self) -> None:
        """Stop or drop here if somebody asked for it, but do not pause.

        :raises Stopping: if the session should end.
        :raises Discarded: if the step should be dropped.
        """
        with self._changed:
            self._raise_wishes()

    def _raise_wishes(self) -> None:
        if not self._wishes():
            return
        if self._stop:
            raise Stopping
        if self._discard:
            self._discard = False
            raise Discarded
        raise Leaving
