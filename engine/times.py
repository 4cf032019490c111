"""How long the phases of a step take."""

from __future__ import annotations

from engine.control import Control


class Times:
    """Seconds of each phase of a step, pauses left out.

    :param after: the times of the step before, if nothing but its records and its checkpoint came between.
    """

    def __init__(self, control: Control, after: Times | None = None) -> None:
        self._control = control
        self._last: float = control.clock() if after is None else after._last
        self._seconds: dict[str, float] = {}
        self.mark("saving")

    def mark(self, phase: str, within: float = 0.0, name: str = "") -> None:
        """A phase ends here; ``within`` seconds of it belong to the phase ``name``."""
        now = self._control.clock()
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._last - within
        if name:
            self._seconds[name] = within
        self._last = now

    def metrics(self, tokens: int) -> dict[str, float]:
        """Times of the phases, of the step without waiting, and the tokens a second."""
        self.mark("saving")
        whole = sum(seconds for phase, seconds in self._seconds.items() if phase != "waiting")
        metrics = {f"time/{phase}": seconds for phase, seconds in self._seconds.items()}
        metrics["time/step"] = whole
        metrics["speed/tokens_per_second"] = tokens / max(whole, 1e-9)
        return metrics
