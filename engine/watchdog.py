"""Alarms: rules over the metrics of the steps, each plain data with one small check.

An alarm fires once and stays until somebody acknowledges it. The same rule is quiet while its condition holds, and
for a cool-down of :data:`COOL_DOWN` steps after it has cleared.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from sessions.commands import new_id
from sessions.records import Alarm, StepRecord

COOL_DOWN = 20
HISTORY = 64

History = Sequence[StepRecord]
Check = Callable[[History], str | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """One condition.

    :ivar check: the newest steps, oldest first -> what is wrong, or None.
    :ivar pauses: whether the run pauses when it fires.
    """

    name: str
    check: Check
    remedy: str
    level: str = "warn"
    pauses: bool = False


@dataclass
class Watchdog:
    """Looks at every step."""

    rules: Sequence[Rule]
    _history: list[StepRecord] = field(default_factory=list)
    _quiet_until: dict[str, int] = field(default_factory=dict)

    def remember(self, records: Iterable[StepRecord]) -> None:
        """Take in the steps of an earlier engine, in order; what they set off was said then."""
        for record in records:
            self.look(record)

    def look(self, record: StepRecord) -> list[tuple[Rule, Alarm]]:
        """Alarms that this step sets off."""
        self._history.append(record)
        del self._history[:-HISTORY]
        fired = []
        for rule in self.rules:
            message = rule.check(self._history)
            if message is None:
                continue
            if record.step > self._quiet_until.get(rule.name, 0):
                fired.append((rule, self._alarm(rule, record.step, message)))
            self._quiet_until[rule.name] = record.step + COOL_DOWN
        return fired

    def _alarm(self, rule: Rule, step: int, message: str) -> Alarm:
        return Alarm(
            id=new_id(),
            time=time.time(),
            step=step,
            rule=rule.name,
            message=f"{message} @{step}",
            level="error" if rule.level == "error" else "warn",
            remedy=rule.remedy,
        )


def value(history: History, name: str, back: int = 0) -> float | None:
    """A metric of the step ``back`` steps ago; None if it was not measured."""
    return history[-1 - back].metrics.get(name) if len(history) > back else None


def above(name: str, limit: float, steps: int, words: str) -> Check:
    """The metric exceeds ``limit`` for ``steps`` steps in a row."""

    def check(history: History) -> str | None:
        newest = [value(history, name, back) for back in range(steps)]
        if all(v is not None and v > limit for v in newest) and newest[0] is not None:
            return words.format(value=newest[0], percent=100 * newest[0])
        return None

    return check


def kl_jump(history: History, factor: float = 5.0, floor: float = 0.02, least: int = 20) -> str | None:
    """kl/k3 is five times its moving average after 20 steps of history, and over 0.02 nats.

    With kl_coefficient 0 it is measured now and then: the average is then of what the history holds.
    """
    now = value(history, "kl/k3")
    earlier = [v for r in history[:-1] if (v := r.metrics.get("kl/k3")) is not None]
    if now is None or len(history) <= least or not earlier:
        return None
    average = sum(earlier[-least:]) / len(earlier[-least:])
    return f"kl/k3 jump {now / max(average, 1e-9):.1f}x" if now > max(factor * average, floor) else None


def advantage_bound(history: History) -> str | None:
    """With group scaling no advantage can pass (n - 1)/sqrt(n)."""
    record = history[-1]
    largest, n = record.metrics.get("advantage/abs_max"), record.values.get("group_size")
    if largest is None or not isinstance(n, int) or record.values.get("advantage_scale") != "group":
        return None
    bound = (n - 1) / math.sqrt(n) + 1e-3
    return f"advantage {largest:.2f} is over its bound {bound:.2f}" if largest > bound else None


@dataclass
class EntropyDrop:
    """Entropy has fallen to half of its first value."""

    first: float | None = None

    def __call__(self, history: History) -> str | None:
        entropy = value(history, "entropy")
        if entropy is None:
            return None
        if self.first is None:
            self.first = entropy
        return f"entropy {entropy:.2f}, half of its first {self.first:.2f}" if entropy < 0.5 * self.first else None


def nothing_trains(history: History) -> str | None:
    """An update that stepped the optimizer and changed nothing."""
    if value(history, "grad/norm") == 0 or value(history, "update/relative_size") == 0:
        rate = history[-1].values.get("learning_rate")
        return None if rate == 0 else "the update changed nothing"
    return None


def non_finite(history: History) -> str | None:
    names = history[-1].nonfinite
    return f"{', '.join(names[:3])} not finite" if names else None


@dataclass(frozen=True, slots=True)
class Hacking:
    """Reward up and held-out accuracy down over 20 steps, both by more than chance.

    :ivar prompts: held-out prompts; two evaluations on n of them differ by chance by sqrt(2 p (1 - p) / n).
    """

    prompts: int
    steps: int = 20

    def __call__(self, history: History) -> str | None:
        new = history[-1]
        if new.metrics.get("eval/accuracy") is None:
            return None
        measured = [r for r in history if r.metrics.get("eval/accuracy") is not None]
        old = next((r for r in reversed(measured) if r.step <= new.step - self.steps), None)
        if old is None:
            return None
        now, then = self._reward(history, new.step), self._reward(history, old.step)
        if now is None or then is None:
            return None
        accuracy = (new.metrics["eval/accuracy"] or 0) - (old.metrics["eval/accuracy"] or 0)
        level = old.metrics["eval/accuracy"] or 0
        chance = math.sqrt(2 * level * (1 - level) / max(self.prompts, 1))
        if now - then > 0.02 and accuracy < -max(0.02, 2 * chance):
            return f"reward {now - then:+.2f} while held-out accuracy {accuracy:+.2f} over {new.step - old.step} steps"
        return None

    def _reward(self, history: History, step: int) -> float | None:
        """Mean reward of up to ten steps that end with ``step``: one step is luck with its prompts."""
        near = [r.metrics.get("reward/mean") for r in history if step - 10 < r.step <= step]
        found = [v for v in near if v is not None]
        return sum(found) / len(found) if found else None


def length_hacking(history: History, steps: int = 3) -> str | None:
    """Reward and length rise or fall together, three steps in a row: in one step it can be chance."""
    newest = [value(history, "reward/length_correlation", back) for back in range(steps)]
    if all(c is not None and abs(c) > 0.8 for c in newest) and newest[0] is not None:
        return f"reward follows length ({newest[0]:+.2f})"
    return None


def default_rules(*, bf16: bool, evaluation_prompts: int) -> list[Rule]:
    """The rules every session starts with.

    :param bf16: whether computation is in bf16, whose rounding is larger.
    :param evaluation_prompts: held-out prompts, which say how exact the accuracy is.
    """
    gap = ("sampler_gap/mean", 0.05) if bf16 else ("sampler_gap/max", 1e-3)
    return [
        Rule("non-finite", non_finite, "lower learning_rate; look at the newest groups", "error", pauses=True),
        Rule(
            "dead groups",
            above("groups/dead_fraction", 0.8, 3, "{percent:.0f}% of groups are dead"),
            "raise temperature or group_size, or use prompts of another difficulty",
        ),
        Rule("advantage bound", advantage_bound, "a bug: please report it", "error"),
        Rule("kl jump", kl_jump, "lower learning_rate or raise kl_coefficient"),
        Rule("entropy", EntropyDrop(), "lower learning_rate, or raise temperature or clip_high"),
        Rule(
            "ratio error",
            above("ratio/first_error", 5e-2 if bf16 else 1e-3, 1, "ratio is {value:.4f} off 1 before the first step"),
            "the training forward differs from the sampler: dropout, mask, padding or temperature",
        ),
        Rule(
            "sampler gap",
            above(gap[0], gap[1], 1, gap[0] + " {value:.4f}"),
            "the training forward differs from the sampler: dropout, mask, padding or temperature",
        ),
        Rule("nothing trains", nothing_trains, "check learning_rate and which parameters are trainable", "error"),
        Rule(
            "all truncated",
            above("response/truncated_fraction", 0.999, 2, "every response is cut at max_new_tokens"),
            "raise max_new_tokens",
        ),
        Rule(
            "truncated",
            above("response/truncated_fraction", 0.3, 3, "{percent:.0f}% of responses are cut"),
            "raise max_new_tokens",
        ),
        Rule("length", length_hacking, "look at the longest and shortest responses of the newest groups"),
        Rule("reward hacking", Hacking(evaluation_prompts), "read the responses whose reward rose; rate some of them"),
        Rule(
            "reward failed",
            above("response/failed", 0, 1, "a reward function failed on {value:.0f} responses"),
            "open one of them: it names the function and the reason",
        ),
        Rule("loop lag", above("loop/lag", 0.5, 1, "the event loop stood still for {value:.1f} s"), "fewer clients"),
    ]
