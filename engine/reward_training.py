r"""Training a reward model on what people prefer, and measuring it on what they prefer elsewhere.

.. math::
    L = \frac{1}{B} \sum_o \frac{1}{H} \sum_h w_{h,o} \big[ \ell(r_{h,o}) + c \, (2 \bar r_{h,o})^2 \big]

over the B orderings of an optimizer step and H heads, with :math:`\ell` the loss of pairs or rankings
(:mod:`engine.preference_losses`), c ``centering``, and :math:`w_{h,o}` how often ordering o is in the bootstrap sample
of head h: a Poisson number of mean 1 that depends on the seed, the head and what the ordering says, so that a head has
the same sample in every version. Orderings about held-out prompts (:func:`sessions.orderings.held_out`) are never
trained on. AdamW; the learning rate rises over the first tenth of the steps and falls linearly to 0. With a frozen
trunk each response is read once and only the heads are run: that is cheap, and one epoch would leave them far from
their best, so their default is more.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from torch import Tensor

from engine.preference_losses import MOST_TIED, bradley_terry, centering, plackett_luce
from engine.randomness import permutation, stream
from engine.reward_model import RewardModel
from engine.statistics import spearman
from engine.supervised import Lesson
from sessions.errors import InputFileError, SessionError
from sessions.orderings import Ordering, better_worse, held_out
from sessions.reward_models import RewardModelFigures, RewardModelReport, RewardModelSettings

HEAD_RATE = 1e-2
"""Learning rate of the heads beside adapters or a trunk that are trained."""
MAX_GRAD_NORM = 1.0
LEAST_PAIRS = 10
"""Held-out preferences, or responses, under which nothing is said of them."""
LEAST_BINNED = 30
"""Held-out preferences under which nothing is said of the calibration."""
BINS = 5
REFERENCE_SAMPLES = 1024
"""Most responses of the training orderings that scores are normalised on, where no others are given."""

SafePoint = Callable[[], None]


def _nothing() -> None:
    """A safe point where nobody waits."""


@dataclass(frozen=True, slots=True)
class Example:
    """An ordering as tokens.

    :ivar rows: of its responses, best first, as places in a list of rows.
    :ivar tiers: how many of them share each tier.
    :ivar key: names it among all orderings.
    """

    rows: list[int]
    tiers: list[int]
    margin: float
    key: str


@dataclass(frozen=True, slots=True)
class Examples:
    """Orderings as tokens; a response that occurs several times is one row.

    :ivar left_out: orderings with a response that is longer than the model's context.
    """

    rows: list[Lesson]
    all: list[Example]
    left_out: int = 0

    @property
    def pairs(self) -> int:
        """Preferences of one response over another."""
        return sum(len(better_worse(example.tiers)) for example in self.all)


def encode_orderings(model: RewardModel, orderings: Iterable[Ordering], safe_point: SafePoint = _nothing) -> Examples:
    """Orderings as tokens.

    :raises InputFileError: naming the source of one that cannot be encoded, or has too many ties to average over.
    """
    rows: list[Lesson] = []
    places: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    found: list[Example] = []
    left_out = 0
    averages = model.state.settings.ties == "average"
    for ordering in orderings:
        safe_point()
        if averages and max(ordering.sizes) > MOST_TIED:
            raise InputFileError(
                f"preferences {ordering.source}: {max(ordering.sizes)} tied responses, and over {MOST_TIED} are too "
                "many to average over; skip ties"
            )
        where = f"preferences {ordering.source}"
        encoded = [model.encode(ordering.prompt, response, where) for response in ordering.responses]
        if any(len(row.prompt) + len(row.tokens) > model.context for row in encoded):
            left_out += 1
            continue
        own = []
        for row in encoded:
            place = places.setdefault((tuple(row.prompt), tuple(row.tokens)), len(rows))
            if place == len(rows):
                rows.append(row)
            own.append(place)
        key = hashlib.sha256(msgspec.json.encode(ordering)).hexdigest()
        found.append(Example(own, ordering.sizes, ordering.margin, key))
    return Examples(rows, found, left_out)


# -------------------------------------------------------------------------------------------- the loss


def bootstrap_weights(examples: Sequence[Example], heads: int, seed: int) -> Tensor:
    """w [heads, N]: how often each ordering is in each head's sample."""
    each = [stream("reward model bootstrap", seed, example.key).poisson(1.0, heads) for example in examples]
    return torch.from_numpy(np.array(each, dtype=np.float32).reshape(len(examples), heads).T.copy())


def losses(
    raw: Tensor, examples: Sequence[Example], places: Sequence[Sequence[int]], ties: str
) -> tuple[Tensor, Tensor]:
    """Each ordering's loss [heads, B] and its centering term [heads, B].

    :param raw: [heads, N], scores before they are normalised.
    :param places: of each ordering's responses among the N, best first.
    """
    loss: list[Tensor] = [raw.new_zeros(raw.shape[0])] * len(examples)
    centred = list(loss)
    pairs = [i for i, example in enumerate(examples) if example.tiers == [1, 1]]
    if pairs:
        index = torch.tensor([places[i] for i in pairs], device=raw.device)
        scores = raw[:, index]  # [heads, pairs, 2]
        margins = torch.tensor([examples[i].margin for i in pairs], device=raw.device)
        own = bradley_terry(scores[..., 0], scores[..., 1], margins)
        level = centering(scores)
        for k, i in enumerate(pairs):
            loss[i], centred[i] = own[:, k], level[:, k]
    for i, example in enumerate(examples):
        if example.tiers != [1, 1]:
            scores = raw[:, torch.tensor(list(places[i]), device=raw.device)]
            loss[i], centred[i] = plackett_luce(scores, example.tiers, ties), centering(scores)
    return torch.stack(loss, 1), torch.stack(centred, 1)


# ------------------------------------------------------------------------------------------- the steps


def train(
    model: RewardModel,
    orderings: Iterable[Ordering],
    *,
    reference: Sequence[Lesson] = (),
    before: RewardModel | None = None,
    safe_point: SafePoint = _nothing,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> RewardModelReport:
    """Train an untrained model, normalise its scores and measure it.

    A model whose training was left in the middle is of no use; train a :meth:`~RewardModel.successor` of one that is.

    :param orderings: all of them; those about held-out prompts are only measured on.
    :param reference: rows of prompt and response tokens that scores are normalised on; none: the training responses.
    :param before: the version before, which drift is measured against.
    :param safe_point: called before each minibatch and each pass over a part of one; it may block or raise.
    :param progress: given (optimizer steps taken, of how many, loss of the last).
    :raises InputFileError: if nothing is left to train on.
    :raises SessionError: if the loss or its gradient is not finite.
    """
    began = time.perf_counter()
    every = list(orderings)
    learned = encode_orderings(model, (o for o in every if not held_out(o.prompt)), safe_point)
    secret = encode_orderings(model, (o for o in every if held_out(o.prompt)), safe_point)
    if not learned.all:
        raise InputFileError(
            f"of {len(every)} orderings none is left to train on ({len(secret.all)} are held out for measuring, "
            f"{learned.left_out} are longer than the model's {model.context} tokens); give more"
        )
    training = Training(model, learned, safe_point)
    loss = training.run(progress)
    samples = list(reference) or _spread(learned.rows, REFERENCE_SAMPLES)
    states = model.states(samples, safe_point)
    mean, std = model.normalise(states)
    report = RewardModelReport(
        version=(before.version if before else model.version) + 1,
        orderings=len(learned.all),
        pairs=learned.pairs,
        left_out=learned.left_out + secret.left_out,
        steps=training.steps,
        loss=loss,
        held_out=figures(model, secret, safe_point),
        drift=None if before is None or not before.version else _drift(model, before, samples, states, safe_point),
        mean=mean,
        std=std,
        seconds=time.perf_counter() - began,
    )
    model.trained(report)
    return report


class Training:
    """AdamW on a reward model's heads, and on its adapters or trunk.

    :ivar steps: optimizer steps there are.
    """

    def __init__(self, model: RewardModel, examples: Examples, safe_point: SafePoint = _nothing) -> None:
        self._model, self._examples, self._safe_point = model, examples, safe_point
        settings = self._settings = model.state.settings
        self._weights = bootstrap_weights(examples.all, settings.heads, settings.seed).to(model.device)
        self._each = -(-len(examples.all) // settings.batch)
        self.steps = self._each * settings.passes
        states = model.states(_spread(examples.rows, REFERENCE_SAMPLES) if self._reads else examples.rows, safe_point)
        model.heads.standardise(states)
        self._states = None if self._reads else states
        self._parameters = [*model.heads.parameters(), *model.trunk_parameters]
        groups = [{"params": list(model.heads.parameters()), "rate": HEAD_RATE if self._reads else settings.rate}]
        if self._reads:
            groups.append({"params": model.trunk_parameters, "rate": settings.rate})
        fused = model.device.type in {"cpu", "cuda"}
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=settings.weight_decay, fused=fused)

    @property
    def _reads(self) -> bool:
        """Whether rows are read again in every step, because the trunk changes."""
        return bool(self._model.trunk_parameters)

    def run(self, progress: Callable[[int, int, float], None]) -> float:
        """Every epoch goes through all orderings in a seeded order of its own.

        :returns: mean loss over the last epoch.
        """
        count, batch = len(self._examples.all), self._settings.batch
        total = 0.0
        for number in range(self.steps):
            self._safe_point()
            epoch, place = divmod(number, self._each)
            total = 0.0 if place == 0 else total
            order = permutation("reward model", self._settings.seed, epoch, n=count)
            chosen = [int(i) for i in order[place * batch : (place + 1) * batch]]
            loss = self._step(number, chosen)
            total += loss * len(chosen)
            progress(number + 1, self.steps, loss)
        return total / count

    def _rate(self, number: int) -> float:
        """What the learning rate is multiplied by in a step, from 0."""
        rise = max(1, self.steps // 10)
        return min(1.0, (number + 1) / rise) * (1 - number / self.steps)

    def _step(self, number: int, chosen: Sequence[int]) -> float:
        """One optimizer step.

        :returns: the loss of its orderings before it, the mean over heads, none of them weighed.
        """
        optimizer = self._optimizer
        try:
            loss = self._model.budget.retry(lambda: self._backward(chosen), optimizer.zero_grad)
            norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, MAX_GRAD_NORM))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise SessionError(
                    f"the reward model's loss is not finite at step {number + 1} of {self.steps}; lower its learning "
                    f"rate (it was {self._settings.rate:g})"
                )
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * self._rate(number)
            optimizer.step()
        finally:
            optimizer.zero_grad(set_to_none=True)
        return loss

    def _backward(self, chosen: Sequence[int]) -> float:
        total = 0.0
        for k, part in enumerate(self._parts(chosen)):
            if k:
                self._safe_point()
            examples = [self._examples.all[i] for i in part]
            rows = list(dict.fromkeys(row for example in examples for row in example.rows))
            place = {row: k for k, row in enumerate(rows)}
            with torch.enable_grad():
                states = self._read(rows)
                raw = self._model.heads(states)
                places = [[place[row] for row in example.rows] for example in examples]
                loss, centred = losses(raw, examples, places, self._settings.ties)
                weighed = self._weights[:, part] * (loss + self._settings.centering * centred)
                (weighed.mean(0).sum() / len(chosen)).backward()
            total += float(loss.detach().mean(0).sum())
        return total / len(chosen)

    def _read(self, rows: Sequence[int]) -> Tensor:
        if self._states is not None:
            return self._states[torch.tensor(rows, device=self._states.device)]
        return self._model.read([self._examples.rows[row] for row in rows])

    def _parts(self, chosen: Sequence[int]) -> list[list[int]]:
        """Orderings cut into sets that fit in memory; one ordering is never cut."""
        if self._states is not None:
            return [list(chosen)]
        parts: list[list[int]] = []
        width = length = count = 0
        for i in sorted(chosen, key=self._size):
            rows = [self._examples.rows[row] for row in self._examples.all[i].rows]
            wider = max(width, *(len(row.prompt) for row in rows))
            longer = max(length, *(len(row.tokens) + 1 for row in rows))
            if not parts or (count + len(rows)) * (wider + longer) > self._model.budget.tokens:
                parts.append([])
                count = 0
                wider, longer = max(len(row.prompt) for row in rows), max(len(row.tokens) + 1 for row in rows)
            parts[-1].append(i)
            width, length, count = wider, longer, count + len(rows)
        return parts

    def _size(self, index: int) -> int:
        rows = [self._examples.rows[row] for row in self._examples.all[index].rows]
        return max(len(row.prompt) + len(row.tokens) for row in rows)


def _spread(rows: Sequence[Lesson], most: int) -> list[Lesson]:
    """At most so many of the rows, evenly from all."""
    return list(rows) if len(rows) <= most else [rows[i * len(rows) // most] for i in range(most)]


# ----------------------------------------------------------------------------------------- measuring


def figures(model: RewardModel, examples: Examples, safe_point: SafePoint = _nothing) -> RewardModelFigures:
    """How good a model is on some orderings."""
    if not examples.rows:
        return RewardModelFigures()
    raw = model.raw(model.states(examples.rows, safe_point))
    score = model.normalised(raw).mean(0)
    lengths = [float(len(row.tokens)) for row in examples.rows]
    found = RewardModelFigures(
        length_correlation=spearman(score.tolist(), lengths) if len(lengths) >= LEAST_PAIRS else None
    )
    two = [(e.rows[i], e.rows[j]) for e in examples.all for i, j in better_worse(e.tiers)]
    found.pairs = len(two)
    if len(two) < LEAST_PAIRS:
        return found
    better, worse = torch.tensor(two).unbind(1)
    apart = score[better] - score[worse]
    found.accuracy = float(((apart > 0).double() + 0.5 * (apart == 0).double()).mean())
    each = raw[:, better] - raw[:, worse]  # [heads, pairs]
    p = each.double().sigmoid().mean(0)
    found.log_loss = float(-p.clamp(min=1e-12).log().mean())
    found.agreement = float(((each > 0).all(0) | (each < 0).all(0)).double().mean())
    if len(two) >= LEAST_BINNED:
        found.calibration = calibration_error(p.tolist())
    return found


def calibration_error(p: Sequence[float]) -> float:
    """Expected calibration error of the probabilities given to what was preferred.

    The model's own favourite of each pair has max(p, 1 - p), and is right where p is over one half.
    """
    bins: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for one in p:
        sure = max(one, 1 - one)
        right = 0.5 if one == 0.5 else float(one > 0.5)
        bins[min(BINS - 1, int((sure - 0.5) * 2 * BINS))].append((sure, right))
    apart = [abs(math.fsum(share - mean for mean, share in own)) for own in bins]
    return math.fsum(apart) / len(p)


def _drift(
    model: RewardModel, before: RewardModel, samples: Sequence[Lesson], states: Tensor, safe_point: SafePoint
) -> float:
    """Root mean square of how far the scores of some rows have moved."""
    now = model.normalised(model.raw(states)).mean(0)
    then = before.score(samples, safe_point).mean(0)
    return float((now - then).double().square().mean().sqrt())


__all__ = ["RewardModelSettings", "Training", "encode_orderings", "figures", "train"]
