"""The plan of a step: what it will take in memory and seconds, and what it would take with other hyperparameters.

Memory is counted (:mod:`engine.memory`) and calibrated with the peaks of steps that raised it; seconds are counts of
work (:mod:`engine.work`) at the pace of recent steps (:mod:`engine.pace`). How long responses will be is what recent
ones say (:mod:`engine.lengths`). A plan changes nothing, draws no random number, and is told with what it is based on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import pace, work
from engine.groups import EVALUATION_ROWS
from engine.knobs import Knobs
from engine.lengths import Survival, longest_of, mean_length, survival
from engine.memory import Held, Need, available_memory, held_memory, need, peak_memory, total_memory
from engine.observed import Observed, observe
from engine.rollout import RolloutGroup
from engine.sizes import Sizes, count
from engine.summary import describe_model
from engine.work import Rollout, Search
from sessions.hyperparameters import Value, check_together, hyperparameter, switched
from sessions.plans import Plan, PlanPart, gigabytes

if TYPE_CHECKING:
    from engine.learner import Learner

WINDOW = 20
"""Steps that a plan looks back on."""
PEAKS = 8
"""Steps that raised the peak and are remembered."""
PROMPTS = 64
"""Prompts whose lengths are looked at before the first step."""
SURE = 1.645
"""Standard deviations on each side that hold nine steps in ten."""
BORROWED = 0.3
"""Relative doubt in the pace of another algorithm."""
EXTRAPOLATED = 0.25
"""Relative doubt in a change of the seconds: on the embedded model changes were off by 10 to 30 percent of
themselves."""
PART_NAMES = {"saving": "records, evaluation"}
"""Phases whose seconds are more than their name says."""
UNCOUNTED = 250e6
"""Bytes that the first steps take beside what is counted, give or take: libraries that are loaded when first used."""
UNCOUNTED_SHARE = 0.5
"""The same in the bytes of the weights: copies of them that nobody told of."""


@dataclass(frozen=True)
class Expected:
    """A step that is to be made: its rollout, and the survival function of the lengths in it."""

    rollout: Rollout
    alive: Survival


class Planner:
    """Watches the steps of a learner, and plans.

    Made on the thread that computes, because the model is counted; afterwards used on the event loop only.

    :ivar sizes: of the policy.
    """

    def __init__(self, learner: Learner) -> None:
        policy = learner.policy
        self._learner = learner
        before = peak_memory()
        self._on_cuda = policy.device.type == "cuda"
        present = held_memory()
        self.sizes: Sizes = count(policy)
        taken = {"tree": policy.packs, "chunked_logits": policy.chunks_logits}
        self._shortcuts = {name for name in policy.shortcuts if taken.get(name, True)}
        self._evaluated = -(-len(learner.task.evaluation) // learner.ranks)
        first = learner.prompts(learner.cursor, PROMPTS)
        self._prompts = [len(policy.encode_prompt(prompt.messages or prompt.text)) for prompt in first]
        self._base = max(0.0, present - self._kept_now())
        self._peak = max(before, peak_memory())
        self._peaks: deque[tuple[float, float, float]] = deque(maxlen=PEAKS)
        self._steps: dict[str, deque[Observed]] = {}
        self._recent: deque[Observed] = deque(maxlen=WINDOW)

    @property
    def _micro_tokens(self) -> int:
        return self._learner.training.budget.tokens

    # ------------------------------------------------------------------------------------------- what was

    def record(
        self,
        step: int,
        values: Mapping[str, Value],
        sampled: Sequence[RolloutGroup],
        metrics: Mapping[str, float],
    ) -> None:
        """Take up a step that was made.

        :param values: that it was made with.
        :param sampled: its groups, the replaced ones too; those of this process count.
        :param metrics: of the step, with its times.
        """
        knobs = Knobs(values)
        update = self._learner.training.trust_region if knobs.text("algorithm") == "trpo" else None
        observed = observe(
            step, knobs, sampled, metrics, update, self._micro_tokens, self._shortcuts, self._evaluated
        )  # fmt: skip
        if observed is None:
            return
        self._steps.setdefault(observed.algorithm, deque(maxlen=WINDOW)).append(observed)
        self._recent.append(observed)
        self._note_peak(knobs, observed)

    def _note_peak(self, knobs: Knobs, observed: Observed) -> None:
        """Remember a step that raised the peak: of the others it is only known that they took no more."""
        peak = peak_memory()
        if peak > self._peak:
            self._peak = peak
            alive = survival(observed.lengths, observed.ended, int(observed.rollout.longest))
            counted = self._need(knobs, Expected(observed.rollout, alive))
            self._peaks.append((counted.resident, counted.passing, float(peak)))

    # ---------------------------------------------------------------------------------------- what will be

    def plan(self, given: Mapping[str, Value]) -> Plan:
        """The plan of a step with some hyperparameters set, beside that of a step as it is.

        :param given: name -> value; what follows from them is set too.
        :raises InvalidValue: if they do not go together.
        """
        knobs = self._learner.knobs
        due = {**knobs.values, **{change.name: change.new for change in knobs.pending}}
        wanted = {hyperparameter(name).name: hyperparameter(name).parse(value) for name, value in given.items()}
        ahead = {**due, **switched(due, wanted)}
        check_together(ahead)
        now, then = Knobs(due), Knobs(ahead)
        changed = {name: value for name, value in ahead.items() if value != due[name]}
        memory = self._memory(now, then)
        seconds_now, seconds_then = self._seconds(now), self._seconds(then)
        plan = Plan(step=self._learner.step, algorithm=then.text("algorithm"), values=changed, **memory)
        plan.basis = self._basis(then)
        plan.model = self.model()
        if seconds_now is None or seconds_then is None:
            plan.unknown = "known after the first step"
            return plan
        plan.seconds_parts = [
            PlanPart(name=name, now=seconds_now.parts.get(name, 0.0), then=seconds_then.parts.get(name, 0.0))
            for name in dict.fromkeys((*seconds_now.parts, *seconds_then.parts))
        ]
        shortest, longest = self._seconds(then, beyond=1.0), self._seconds(then, beyond=0.0)
        assert shortest is not None
        assert longest is not None
        plan.seconds_now, plan.seconds_then = seconds_now.total, seconds_then.total
        off = EXTRAPOLATED * abs(seconds_then.total - seconds_now.total)
        plan.seconds_least = max(0.0, shortest.total - SURE * math.hypot(shortest.spread, off))
        plan.seconds_most = longest.total + SURE * math.hypot(longest.spread, off)
        return plan

    def model(self) -> str:
        """What is trained, one line, with the bytes that it takes as it is."""
        kept = self._need(self._learner.knobs, self._expected(self._learner.knobs)).kept
        return describe_model(self._learner.policy, kept, float(self.sizes.trainable))

    def graph(self) -> float:
        """Bytes of the graph that TRPO's Fisher products would differentiate; 0 while no step tells how long responses
        are."""
        if not self._recent:
            return 0.0
        knobs = Knobs({**self._learner.knobs.values, "algorithm": "trpo"})
        parts = self._need(knobs, self._expected(knobs)).phases["updating"]
        scale = self._calibration().scale
        return scale * sum(parts[name] for name in ("activations", "logits", "Fisher graph's gradient"))

    def _expected(self, knobs: Knobs, *, beyond: float | None = None, steps: int = 1) -> Expected:
        """The rollout of a step: lengths as in recent steps, or while there are none as long as they may be.

        :param steps: among which the longest response is looked for: a peak is that of the worst of several.
        """
        limit, recent = knobs.whole("max_new_tokens"), self._recent
        groups = float(-(-knobs.whole("prompts_per_step") // self._learner.ranks))
        if recent:
            lengths = [n for step in recent for n in step.lengths]
            ended = [e for step in recent for e in step.ended]
            alive, prompts = (
                survival(lengths, ended, limit, beyond=beyond),
                [n for step in recent for n in step.prompts],
            )
            dead = float(np.mean([step.dead for step in recent]))
        else:
            alive, prompts, dead = np.ones(limit), self._prompts, 0.0
        tries = knobs.whole("dynamic_sampling") if knobs.text("algorithm") == "grpo" else 0
        rollout = Rollout(
            groups=groups,
            group_size=float(knobs.whole("group_size")),
            prompt=float(np.mean(prompts)),
            width=float(max(prompts)),
            response=mean_length(alive),
            longest=longest_of(alive, steps * groups * knobs.whole("group_size")),
            dead=dead ** (tries + 1) if dead else 0.0,
        )
        return Expected(rollout, alive)

    # -------------------------------------------------------------------------------------------- memory

    def _need(self, knobs: Knobs, expected: Expected) -> Need:
        training = self._learner.training
        held = Held(
            optimizer=self._learner.optimizer.steps > 0,
            reference=self._learner.reference.loaded,
            value_model=training.value_model.kind if training.value_model else "",
        )
        return need(
            self.sizes,
            expected.rollout,
            expected.alive,
            knobs,
            self._micro_tokens,
            self._shortcuts,
            held,
            evaluated=min(self._evaluated, EVALUATION_ROWS),
            on_cuda=self._on_cuda,
        )

    def _kept_now(self) -> float:
        """What is counted of what the process holds when it has loaded a session."""
        sizes, kept = self.sizes, float(self.sizes.weights)
        kept += 2 * sizes.trainable if self._learner.optimizer.steps else 0
        kept += sizes.learned if self._learner.reference.loaded else 0
        value_model = self._learner.training.value_model
        return kept + (3 * sizes.trunk if value_model is not None and value_model.kind == "separate" else 0)

    def _calibration(self) -> pace.Calibration:
        doubt = (0.0 if self._on_cuda else UNCOUNTED) + UNCOUNTED_SHARE * self.sizes.weights
        return pace.calibrate(list(self._peaks), self._base, base_doubt=doubt)

    def _memory(self, now: Knobs, then: Knobs) -> dict[str, Any]:
        """The fields of a plan that are about memory."""
        calibrated = self._calibration()
        needs = [self._need(knobs, self._expected(knobs, steps=WINDOW)) for knobs in (now, then)]
        most = self._need(then, self._expected(then, beyond=0.0, steps=WINDOW))

        def peak(needed: Need) -> float:
            return calibrated.base + needed.resident + calibrated.scale * needed.passing

        device = self._learner.policy.device
        available = float(available_memory(device) + held_memory())
        parts = [{"process": calibrated.base, **n.kept, **_scaled(n.widest, calibrated.scale)} for n in needs]
        known, would = peak(needs[0]), peak(needs[1])
        return {
            "memory_now": known,
            "memory_then": would,
            "memory_most": max(would, peak(most)),
            "memory_available": available,
            "memory_total": float(total_memory(device)),
            "memory_parts": [
                PlanPart(name=name, now=parts[0].get(name, 0.0), then=parts[1].get(name, 0.0))
                for name in dict.fromkeys((*parts[0], *parts[1]))
            ],
            "warning": _warning(would, max(would, peak(most)), available, measured=bool(self._recent)),
        }

    # -------------------------------------------------------------------------------------------- seconds

    def _seconds(self, knobs: Knobs, *, beyond: float | None = None) -> Seconds | None:
        """Of a step at the pace of recent ones; None before the first."""
        steps, own = self._paced(knobs.text("algorithm"))
        if not steps:
            return None
        rollout = self._expected(knobs, beyond=beyond).rollout
        found = [step.search for step in steps if step.search is not None]
        search = None
        if found:
            iterations, tries = (float(np.mean(column)) for column in zip(*((s.iterations, s.tries) for s in found)))
            search = Search(iterations, tries, found[-1].exact)
        update = work.learning(
            rollout,
            knobs,
            self._micro_tokens,
            self._shortcuts,
            compares=work.shared_by(knobs.whole("reference_every")),
            search=search,
        )
        extra, rounds = self._replaced(knobs, rollout.groups)
        evaluated = [s.evaluation_length for s in self._recent if s.evaluation_length is not None]
        answer = min(evaluated[-1] if evaluated else rollout.response, knobs.whole("max_new_tokens"))
        evaluations = work.shared_by(knobs.whole("evaluate_every"))
        wanted = {
            "sampling": [rollout.longest * rounds, rollout.sampled * extra, rollout.groups * extra * rollout.width],
            "scoring": [rollout.rows * extra],
            "updating": [update.tokens, update.calls, update.steps],
            "saving": [1.0, rollout.rows, self._evaluated * answer * evaluations],
        }
        guesses = self._guesses()
        total = variance = 0.0
        parts: dict[str, float] = {}
        for phase, counts in wanted.items():
            used = steps if phase == "updating" else list(self._recent)
            fitted = pace.fit([s.work[phase] for s in used], [s.seconds[phase] for s in used], guesses[phase])
            taken = fitted.seconds(counts)
            total += taken
            doubt = BORROWED * taken if phase == "updating" and not own else 0.0
            variance += fitted.spread(counts) ** 2 + doubt**2
            if phase != "updating":
                parts[PART_NAMES.get(phase, phase)] = taken
                continue
            stepping = float(fitted.costs[2]) * update.steps
            for name, tokens in update.passes.items():
                parts[name] = (taken - stepping) * tokens / update.tokens
            parts["optimizer steps"] = stepping
        return Seconds(total, variance**0.5, {name: s for name, s in parts.items() if s > 0})

    def _paced(self, algorithm: str) -> tuple[list[Observed], bool]:
        """Steps to take the update's pace from, and whether they are the algorithm's own."""
        own = list(self._steps.get(algorithm, ()))
        return (own, True) if own else (list(self._recent), False)

    def _replaced(self, knobs: Knobs, groups: float) -> tuple[float, float]:
        """Groups sampled for each that is learned from, and rounds of sampling, where dead ones are replaced."""
        tries = knobs.whole("dynamic_sampling") if knobs.text("algorithm") == "grpo" else 0
        dead = float(np.mean([step.dead for step in self._recent]))
        extra = 1 + sum(dead**k for k in range(1, tries + 1))
        return extra, 1 + sum(1 - (1 - dead**k) ** groups for k in range(1, tries + 1))

    def _guesses(self) -> dict[str, list[float]]:
        """Costs of each kind of work on a common machine: only their proportions are used."""
        sizes = self.sizes
        operations, bandwidth, launch = (1e14, 2e12, 1.5e-4) if self._on_cuda else (8e10, 1e10, 6e-4)
        token = 2 * sizes.parameters / operations + 3 * sizes.activation / bandwidth
        call = launch * sizes.layers
        drawn = token + 24 * sizes.vocabulary / bandwidth
        return {
            "sampling": [call + sizes.weights / bandwidth, drawn, token],
            "scoring": [1e-4],
            "updating": [token, call, 28 * sizes.parameters / bandwidth + 1e-3],
            "saving": [3e-3, 3e-5, 2 * drawn + call / 100],
        }

    def _basis(self, knobs: Knobs) -> str:
        """What the numbers come from, in words."""
        algorithm = knobs.text("algorithm")
        if not self._recent:
            return "memory counted from the model, every response as long as max_new_tokens allows; no step measured"
        steps, own = self._paced(algorithm)
        many = len(steps)
        said = f"seconds measured over the last {many} step{'s' if many != 1 else ''}"
        if own:
            said += f" of {algorithm}"
        else:
            others = " and ".join(sorted({step.algorithm for step in steps}))
            said += f" of {others}: {algorithm} has not run here, its update is counted at their pace"
        peaks = self._calibration().measured
        counted = f"calibrated with {peaks} measured peak{'s' if peaks != 1 else ''}" if peaks else "not calibrated yet"
        cut = 1 - float(np.mean([e for step in self._recent for e in step.ended]))
        lengths = f"lengths as in those steps ({cut:.0%} cut)"
        return f"{said}; memory counted, {counted}; {lengths}"


@dataclass(frozen=True)
class Seconds:
    """Of a step.

    :ivar spread: standard deviation.
    :ivar parts: where they go.
    """

    total: float
    spread: float
    parts: dict[str, float]


def _scaled(parts: Mapping[str, float], scale: float) -> dict[str, float]:
    return {name: scale * size for name, size in parts.items()}


def _warning(then: float, most: float, available: float, *, measured: bool) -> str:
    if measured and then > available:
        return (
            f"about {gigabytes(then)} GB is needed and {gigabytes(available)} GB is there: fewer prompts or responses, "
            "a smaller max_new_tokens or more minibatches take less"
        )
    if most > available:
        when = "if responses grow to max_new_tokens"
        return f"up to {gigabytes(most)} GB is needed {when}, and {gigabytes(available)} GB is there"
    return ""
