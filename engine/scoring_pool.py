"""Scoring beside sampling: a thread that turns finished groups into scored ones while the compute thread goes on.

A group is handed over as soon as the last of its responses has ended; it is then read as text and its reward functions
run, one group after the other in the order they came. What comes out belongs to the place that a group has among its
prompts, so neither the order of finishing nor the threads' timing is seen in a result.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")

ScoreTokens = Callable[[int, list[list[int]]], _T]
"""(place of a group, the tokens of its responses) -> what comes of it. It may block for as long as it takes: on a
reward function of its own thread, or on a process that runs them."""


class ScoringPool:
    """Scores for one sampler; one round of groups at a time.

    Rounds never run at once: reward functions need not be safe to call from two threads, and one that is still busy
    with a group of a dropped round holds up the next round and nothing else.
    """

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()

    def round(self, work: ScoreTokens[_T], on_done: Callable[[], None]) -> Round[_T]:
        """Begin a round.

        :param work: called on the scoring thread.
        :param on_done: called there after each group.
        """
        return Round(work, on_done, self._one_at_a_time)


class Round(Generic[_T]):
    """The groups of one call of the sampler, each scored once.

    A context manager: on leaving it, what has not begun is dropped, and nobody sees what is still under way. The
    thread starts with the first group and ends with the round. It is a daemon: a function that never returns
    does not hold up the end of the process.
    """

    def __init__(self, work: ScoreTokens[_T], on_done: Callable[[], None], lock: threading.Lock) -> None:
        self._work, self._on_done, self._lock = work, on_done, lock
        self._groups: queue.SimpleQueue[tuple[int, list[list[int]]] | None] = queue.SimpleQueue()
        self._results: dict[int, Future[_T]] = {}
        self._thread: threading.Thread | None = None
        self._over = False

    def __enter__(self) -> Round[_T]:
        return self

    def __exit__(self, *_: Any) -> None:
        self._over = True
        self._groups.put(None)

    def submit(self, place: int, tokens: list[list[int]]) -> None:
        """Hand over a finished group; returns at once."""
        self._results[place] = Future()
        self._groups.put((place, tokens))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)
            self._thread.start()

    def done(self, place: int) -> bool:
        """Whether a group that was handed over has been scored."""
        return self._results[place].done()

    def result(self, place: int) -> _T:
        """What came of a group; waits for it. Raises what its work raised."""
        return self._results[place].result()

    def _run(self) -> None:
        while (group := self._groups.get()) is not None:
            place, tokens = group
            with self._lock:
                if self._over:
                    return
                try:
                    result = self._work(place, tokens)
                except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
                    self._results[place].set_exception(error)
                else:
                    self._results[place].set_result(result)
            self._on_done()
