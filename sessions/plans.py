"""What a step is expected to take: memory and seconds, as they are and as a change would make them.

A :class:`Plan` is the engine's answer to :class:`~sessions.commands.QueryPlan`. Every number says in ``basis`` where
it comes from; what is not known is absent, and ``unknown`` says why.
"""

from __future__ import annotations

from sessions.hyperparameters import Value, hyperparameter
from sessions.records import Record


class PlanPart(Record):
    """One line of where it goes: bytes, or seconds.

    :ivar now: with the values in force or on their way; None: not known.
    :ivar then: with the values asked about too.
    """

    name: str
    now: float | None
    then: float | None


class Plan(Record):
    """Memory and seconds of a step.

    :ivar step: the newest that was made.
    :ivar algorithm: that would run.
    :ivar memory_now: peak of the process (on CUDA: of its allocations), bytes.
    :ivar memory_then: the same after the change.
    :ivar memory_most: as far as that may go: where responses that were cut grow to the limit.
    :ivar memory_available: what the process holds already and what it may still take, bytes.
    :ivar memory_total: of the machine or the GPU.
    :ivar values: that would change, with what follows from those asked about.
    :ivar seconds_now: of a step, waiting for people left out.
    :ivar seconds_least: end of the range that holds ``seconds_then`` nine times in ten, with responses that
        were cut ending soon after.
    :ivar seconds_most: the other end; with responses that were cut growing to the limit.
    :ivar memory_parts: where the memory goes at its peak.
    :ivar seconds_parts: where the seconds go.
    :ivar basis: what the numbers come from.
    :ivar unknown: why there are no seconds.
    :ivar warning: what should be known before the change is applied.
    :ivar model: what is trained, one line.
    """

    step: int
    algorithm: str
    memory_now: float
    memory_then: float
    memory_most: float
    memory_available: float
    memory_total: float
    values: dict[str, Value] = {}
    seconds_now: float | None = None
    seconds_then: float | None = None
    seconds_least: float | None = None
    seconds_most: float | None = None
    memory_parts: list[PlanPart] = []
    seconds_parts: list[PlanPart] = []
    basis: str = ""
    unknown: str = ""
    warning: str = ""
    model: str = ""

    @property
    def ratio(self) -> float | None:
        """Seconds of a step after the change, in seconds before it."""
        return self.seconds_then / self.seconds_now if self.seconds_then and self.seconds_now else None

    def line(self) -> str:
        """One line: ``memory about 1.2 -> 1.9 of 20 GB   step about 0.35 -> 0.61 s (x1.7)``.

        Where nothing would change, only what is.
        """
        change = gigabytes(self.memory_then)
        if self.values:
            change = f"{gigabytes(self.memory_now)} -> {change}"
        memory = f"memory about {change} of {gigabytes(self.memory_available)} GB"
        if self.seconds_then is None:
            return f"{memory}   step time: {self.unknown}"
        if not self.values or self.seconds_now is None or self.ratio is None:
            return f"{memory}   step about {seconds(self.seconds_then)} s"
        return (
            f"{memory}   step about {seconds(self.seconds_now)} -> {seconds(self.seconds_then)} s (x{self.ratio:.2g})"
        )

    def describe(self) -> str:
        """Lines for people."""
        changes = ", ".join(f"{name} {hyperparameter(name).show(value)}" for name, value in self.values.items())
        lines = [f"with {changes} ({self.algorithm}):" if changes else f"as it is ({self.algorithm}):", self.line()]
        if self.seconds_least is not None and self.seconds_most is not None:
            most = f", memory up to {gigabytes(self.memory_most)} GB" if self.memory_most > self.memory_then else ""
            lines.append(f"between {seconds(self.seconds_least)} and {seconds(self.seconds_most)} s a step{most}")
        if self.warning:
            lines.append(f"! {self.warning}")
        for title, parts, show in (
            ("GB at the peak", self.memory_parts, gigabytes),
            ("seconds", self.seconds_parts, seconds),
        ):
            if parts:
                lines.append(f"{title}:")
            for part in parts:
                now = "-" if part.now is None else show(part.now)
                then = "-" if part.then is None else show(part.then)
                lines.append(f"  {part.name:<28}{now:>9}" + (f" -> {then:>7}" if self.values else ""))
        lines.append(f"basis: {self.basis}")
        if self.model:
            lines.append(f"model: {self.model}")
        return "\n".join(lines)

    def at_the_start(self) -> str:
        """``about 1.2 GB of 20 GB available: optimizer 1.1, weights 0.5, ...``."""
        parts = sorted((p for p in self.memory_parts if (p.then or 0) >= 0.005e9), key=lambda p: -(p.then or 0))
        where = ", ".join(f"{p.name} {gigabytes(p.then or 0)}" for p in parts)
        warning = f"; {self.warning}" if self.warning else ""
        at_most = ""
        if gigabytes(self.memory_most) != gigabytes(self.memory_then):
            at_most = f" (at most {gigabytes(self.memory_most)})"
        return (
            f"about {gigabytes(self.memory_then)} GB{at_most} of {gigabytes(self.memory_available)} GB available"
            + (f": {where}" if where else "")
            + warning
        )


def gigabytes(size: float) -> str:
    """Bytes as GB with two digits that mean something: 0.042, 0.52, 1.9, 24."""
    amount = size / 1e9
    return f"{amount:.0f}" if amount >= 9.95 else f"{amount:.1f}" if amount >= 0.995 else f"{amount:.2g}"


def seconds(value: float) -> str:
    """Seconds, short: 0.35, 4.2, 61."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2g}"
