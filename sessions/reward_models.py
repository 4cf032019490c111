"""What is known of a reward model beside its tensors: how it was made, what it was trained on, how good it is."""

from __future__ import annotations

import math

import msgspec

from sessions.errors import InvalidValue
from sessions.records import Record

KINDS = ("head", "lora", "full")
"""What is trained: heads on a frozen trunk, adapters in it as well, or all of it."""
TIES = ("skip", "average")
KEPT_REPORTS = 100
"""Trainings of which a reward model remembers the report."""
RATES = {"head": 1e-2, "lora": 1e-3, "full": 1e-4}
"""Default learning rate of the heads, or of the adapters or the trunk, beside which the heads have theirs."""
EPOCHS = {"head": 30, "lora": 1, "full": 1}
"""Default times through the orderings. A linear head on a frozen trunk is far from its best after one."""


class RewardModelSettings(Record):
    """How a reward model is made and trained.

    :ivar heads: each begins and is trained differently, so that they disagree where little is known.
    :ivar epochs: times through the orderings; 0: those of the kind, in :data:`EPOCHS`.
    :ivar learning_rate: 0: that of the kind, in :data:`RATES`.
    :ivar batch: orderings of an optimizer step.
    :ivar ties: what tied responses of a ranking mean to the loss.
    :ivar centering: weight of the term that keeps scores near 0.
    :ivar rank: of the adapters.
    :ivar seed: of starts, samples and orders.
    """

    kind: str = "head"
    heads: int = 4
    epochs: int = 0
    learning_rate: float = 0.0
    batch: int = 8
    ties: str = "skip"
    centering: float = 0.01
    weight_decay: float = 0.01
    rank: int = 8
    seed: int = 0

    @property
    def rate(self) -> float:
        """The learning rate, the default filled in."""
        return self.learning_rate or RATES[self.kind]

    @property
    def passes(self) -> int:
        """The epochs, the default filled in."""
        return self.epochs or EPOCHS[self.kind]

    def check(self) -> RewardModelSettings:
        """Itself, if it can be used.

        :raises InvalidValue: naming the value that cannot.
        """
        for name, value, allowed in (("kind", self.kind, KINDS), ("ties", self.ties, TIES)):
            if value not in allowed:
                raise InvalidValue(f"{name}: {value!r} is none of {', '.join(allowed)}")
        for name, whole, least, most in (
            ("heads", self.heads, 1, 64),
            ("epochs", self.epochs, 0, 1000),
            ("batch", self.batch, 1, 100_000),
            ("rank", self.rank, 1, 1024),
        ):
            if not least <= whole <= most:
                raise InvalidValue(f"{name}: {whole} is out of bounds; allowed: {least} to {most:,}")
        for name, number, limit in (
            ("learning_rate", self.learning_rate, 1.0),
            ("centering", self.centering, 100.0),
            ("weight_decay", self.weight_decay, 1.0),
        ):
            if not (math.isfinite(number) and 0 <= number <= limit):
                raise InvalidValue(f"{name}: {number:g} is out of bounds; allowed: 0 to {limit:g}")
        return self


class RewardModelFigures(Record):
    """How good a reward model is on some orderings; None: there were too few to say.

    :ivar pairs: preferences of one response over another that were looked at.
    :ivar accuracy: share of them in which the preferred one has the higher score; equal scores count half.
    :ivar log_loss: mean of -log p of what was preferred, nats; 0.693 is a coin's.
    :ivar calibration: expected calibration error of p: pairs in five bins of equal width by how sure the model is
        of the one that it prefers (0.5 to 1); the mean over pairs of how far the share of right ones in a bin is from
        the mean p there.
    :ivar length_correlation: Spearman correlation of score and tokens over the responses.
    :ivar agreement: share of the pairs that all heads put in the same order.
    """

    pairs: int = 0
    accuracy: float | None = None
    log_loss: float | None = None
    calibration: float | None = None
    length_correlation: float | None = None
    agreement: float | None = None


class RewardModelReport(Record):
    """One training.

    :ivar version: that came of it.
    :ivar orderings: that it was trained on.
    :ivar pairs: preferences in them of one response over another.
    :ivar left_out: orderings that were not used because a response of theirs is longer than the model's context.
    :ivar steps: optimizer steps.
    :ivar loss: mean over the last epoch, each batch before its step: nats an ordering, without centering.
    :ivar held_out: on the held-out orderings.
    :ivar drift: how far the scores of the reference samples are from those of the version before: root mean square, in
        standard deviations; None for the first.
    :ivar mean: of the reference samples' scores before they were normalised.
    :ivar std: of them.
    :ivar seconds: that it took.
    """

    version: int = 1
    orderings: int = 0
    pairs: int = 0
    left_out: int = 0
    steps: int = 0
    loss: float | None = None
    held_out: RewardModelFigures = msgspec.field(default_factory=RewardModelFigures)
    drift: float | None = None
    mean: float | None = None
    std: float | None = None
    seconds: float = 0.0

    def metrics(self) -> dict[str, float]:
        """By the names of :mod:`sessions.metrics`; what was not measured is absent."""
        values = {
            "reward_model/version": float(self.version),
            "reward_model/loss": self.loss,
            "reward_model/accuracy": self.held_out.accuracy,
            "reward_model/log_loss": self.held_out.log_loss,
            "reward_model/calibration": self.held_out.calibration,
            "reward_model/length_correlation": self.held_out.length_correlation,
            "reward_model/agreement": self.held_out.agreement,
            "reward_model/drift": self.drift,
        }
        return {name: value for name, value in values.items() if value is not None}


class RewardModelState(Record):
    """Everything of a reward model that is not a tensor.

    :ivar version: how many trainings led to it; 0: it is untrained.
    :ivar gains: of each head; its score is gain x raw score + bias.
    :ivar biases: of each head.
    :ivar trained: orderings that it was trained on.
    :ivar reports: of the trainings, oldest first; the newest :data:`KEPT_REPORTS`.
    """

    settings: RewardModelSettings
    version: int = 0
    gains: list[float] = []
    biases: list[float] = []
    trained: int = 0
    reports: list[RewardModelReport] = []

    def describe(self) -> list[str]:
        """Lines for people: what it is, and a line for each training, the newest first."""
        lines = [
            f"reward model version {self.version}, kind {self.settings.kind}, {self.settings.heads} heads, "
            f"trained on {self.trained:,} orderings",
            "",
            "version  orderings   pairs  held out  accuracy  calibration  length   agree    drift    loss",
        ]
        for report in reversed(self.reports):
            figures = report.held_out
            lines.append(
                f"{report.version:7}  {report.orderings:9,}  {report.pairs:6,}  {figures.pairs:8,}  "
                f"{_number(figures.accuracy):>8}  {_number(figures.calibration):>11}  "
                f"{_number(figures.length_correlation):>6}  {_number(figures.agreement):>6}  "
                f"{_number(report.drift):>7}  {_number(report.loss):>6}"
            )
        return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def reward_model_lines(state: RewardModelState | None) -> list[str]:
    """What there is to say of a session's reward model, if it has one."""
    if state is None:
        return ["there is no reward model yet; `reward-model train` trains one from what was rated"]
    return state.describe()
