"""The promises that the benchmarks measure: a floor that must hold and a goal to reach for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise.

    :ivar better: whether ``less`` or ``more`` than the floor is wanted.
    :ivar unit: of floor, goal and what is measured; ``x`` means times the peer's.
    """

    what: str
    floor: float
    goal: float
    unit: str
    better: Literal["less", "more"] = "less"

    def measured(self, value: float, spread: str = "") -> dict[str, Any]:
        """The promise with what was found, for a benchmark's JSON.

        :param spread: the smallest and the largest, or whatever says how sure the value is.
        """
        return {**asdict(self), "measured": value, "spread": spread, "verdict": self.verdict(value)}

    def verdict(self, value: float) -> str:
        """``goal`` reached, ``floor`` held, or ``missed``."""
        sign = 1 if self.better == "less" else -1
        if sign * value <= sign * self.goal:
            return "goal"
        return "floor" if sign * value <= sign * self.floor else "missed"


GRPO = Promise("GRPO step against TRL, tiny 16 x 8, kl_coefficient 0", 2.2, 3.0, "x", "more")
GRPO_REFERENCE = Promise("the same with a reference or several epochs", 2.4, 3.2, "x", "more")
SMOLLM2 = Promise("SmolLM2-135M fp32, per token", 1.6, 2.0, "x", "more")
SMOLLM2_MEMORY = Promise("peak memory of it", 0.75, 0.65, "x")
OVERHEAD = Promise("processor seconds of loop, store and socket, of the compute thread's", 2.0, 1.0, "%")
SCREEN_CPU = Promise("a screen process at 2 Hz while training, of a core", 8.0, 5.0, "%")
KEY_P50 = Promise("key to paint while training, p50", 50.0, 30.0, "ms")
KEY_P99 = Promise("key to paint while training, p99", 200.0, 100.0, "ms")
BYTES_SMALL = Promise("bytes to an 80x24 terminal while training", 20.0, 10.0, "KB/s")
BYTES_LARGE = Promise("bytes to a 160x48 terminal while training", 35.0, 20.0, "KB/s")
ATTACH = Promise("workbench attach to 10,000 steps: exec to painted history", 1.5, 1.0, "s")
REPLAY = Promise("workbench replay of 10,000 steps: exec to painted charts", 1.0, 0.8, "s")
REPLAY_STEP = Promise("a step along it: key to paint, p50", 50.0, 30.0, "ms")
MEMORY = Promise("screen process after 200,000 events", 150.0, 100.0, "MB")
GROWTH = Promise("its growth over the second half of them", 5.0, 1.0, "%")
