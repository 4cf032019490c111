"""The reward functions that people bring: which they are, the process that runs them, and what replaces it."""

from __future__ import annotations

import contextlib
import math
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from engine.rewards.component import Failed, RewardFunction
from engine.rewards.process import NamedFunction, RewardProcess
from engine.rewards.worker import one_line
from sessions.errors import UsageError
from sessions.reward_files import read_source
from sessions.reward_kinds import RewardSpec, named_parts

MOST_METRICS = 100
"""Names that functions may log in a step."""
_LOGS: ContextVar[bool] = ContextVar("logs", default=True)


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """What functions log is of no step: this thread asks them about answers that none learns from."""
    before = _LOGS.set(False)
    try:
        yield
    finally:
        _LOGS.reset(before)


class NamedRewards:
    """Every named reward of a session, run by one process.

    :param columns: of the task's rows.
    :param folder: that the process works in.
    :param timeout: seconds for the responses to one prompt.
    :ivar process: that runs them.
    """

    def __init__(
        self, rewards: Sequence[RewardSpec], columns: Sequence[str] = (), folder: str = "", timeout: float = 60.0
    ) -> None:
        self._rewards, self._columns = list(rewards), list(columns)
        self._folder, self._timeout = folder, timeout
        self._lock = threading.Lock()
        self._logged: dict[str, list[float]] = {}
        self.process = self.fresh()

    @property
    def names(self) -> list[str]:
        """Of the components."""
        return [reward.name for reward in self._rewards]

    def fresh(self, keep: Callable[[RewardProcess], None] = lambda _: None) -> RewardProcess:
        """Another process with the code as it is now, started; whoever asks for it ends it.

        :param keep: is given it before it has loaded the code, so that it can be ended meanwhile.
        :raises UsageError: one line that says what in which file cannot be used.
        """
        functions = []
        for reward in self._rewards:
            where, function = named_parts(reward.spec.use)
            source = None
            if where.endswith(".py"):
                source = read_source(Path(where))
            functions.append(NamedFunction(reward.name, where, function, source))
        process = RewardProcess(functions, self._columns, self._folder, self._timeout)
        keep(process)
        try:
            process.start()
        except Failed as error:
            process.close()
            raise UsageError(f"reward {error}") from None
        except BaseException:
            process.close()
            raise
        return process

    def use(self, process: RewardProcess) -> None:
        """Ask this process from the next call on; the one before it is ended after its last."""
        before, self.process = self.process, process
        if before is not process:
            before.retire()

    def function(self, name: str) -> RewardFunction:
        """One of the functions, with TRL's signature."""

        def reward(**given: Any) -> Sequence[Any]:
            return self.call(self.process, name, given)

        return reward

    def call(self, process: RewardProcess, name: str, given: Mapping[str, Any], *, log: bool = True) -> list[Any]:
        """Ask a function of a process.

        :param given: TRL's keyword arguments.
        :param log: whether the metrics that it logs are kept.
        :raises Failed: if it has not done its work.
        """
        state = given.get("trainer_state", types.SimpleNamespace())
        arguments = {key: value for key, value in given.items() if key != "trainer_state"}
        values, metrics = process.call(name, arguments, vars(state))
        if log and _LOGS.get():
            self._log(metrics)
        return values

    def _log(self, metrics: Sequence[Any]) -> None:
        with self._lock:
            for pair in metrics:
                if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], int | float):
                    name = f"logged/{one_line(pair[0])[:80]}"
                    if name in self._logged or len(self._logged) < MOST_METRICS:
                        self._logged.setdefault(name, []).append(float(pair[1]))

    def take_logged(self) -> dict[str, float]:
        """The mean of every metric that functions have logged since the last call."""
        with self._lock:
            logged, self._logged = self._logged, {}
        return {name: math.fsum(values) / len(values) for name, values in logged.items() if values}

    def close(self) -> None:
        """End the process."""
        self.process.close()
