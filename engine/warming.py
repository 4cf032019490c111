"""The warm-up as a phase of a session: supervised fine-tuning before checkpoint 0 and the first step of RL.

It has steps, a branch and metrics of its own. Nothing of it is kept but its records until it is finished: an engine
that is stopped inside it starts it again from its beginning, with the same numbers. Then checkpoint 0 is written, so
the reference of RL is the warmed model.

No torch is imported here before there is something to warm up.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from engine.control import Stopping
from engine.words import one_line
from sessions.checkpoints import names
from sessions.errors import SessionError, WorkbenchError
from sessions.examples import read_examples
from sessions.metrics import WARM_UP_PREFIX
from sessions.records import WARM_UP, StepRecord

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.groups import Evaluation
    from engine.learner import Learner
    from engine.supervised import FineTuning

EVALUATIONS = 10
"""How often the held-out prompts are answered on the way."""
RISE = 50
"""Most optimizer steps over which the learning rate rises; a tenth of them in a short warm-up."""
RECENT = 20
"""Steps whose times say how long the rest takes."""
LAST = 5
"""Steps whose mean loss is that of the end: an epoch's last step may have one example, and its loss be luck."""


class Warming:
    """One warm-up under way.

    :param text: what it learns from, in words.
    :ivar steps: optimizer steps it takes.
    :ivar done: of them.
    :ivar accuracy: the newest held-out accuracy; None where none was measured.
    :ivar finished: whether its weights are those of checkpoint 0.
    """

    def __init__(self, training: FineTuning, text: str) -> None:
        self.training, self.text, self.steps = training, text, training.steps
        self.done = 0
        self.finished = False
        self.loss: float | None = None
        self.first_loss: float | None = None
        self.accuracy: float | None = None
        self.first_accuracy: float | None = None
        self._judged = -1
        self.seconds: deque[float] = deque(maxlen=RECENT)
        self._losses: deque[float] = deque(maxlen=LAST)

    def take(self, loss: float, seconds: float) -> None:
        """A step was taken."""
        self.done += 1
        self.loss = loss
        self.first_loss = loss if self.first_loss is None else self.first_loss
        self._losses.append(loss)
        self.seconds.append(seconds)

    def judge(self, accuracy: float) -> None:
        """The held-out prompts were answered."""
        self.accuracy, self._judged = accuracy, self.done
        self.first_accuracy = accuracy if self.first_accuracy is None else self.first_accuracy

    @property
    def note(self) -> str:
        """``loss 0.431, held-out 12.0%``."""
        parts = [f"loss {self.loss:.3f}"] if self.loss is not None else []
        parts += [f"held-out {self.accuracy:.1%}"] if self.accuracy is not None else []
        return ", ".join(parts)

    @property
    def left(self) -> float | None:
        """Seconds to go, evaluations left out."""
        return (self.steps - self.done) * sum(self.seconds) / len(self.seconds) if self.seconds else None

    def outcome(self) -> str:
        """``loss 2.314 -> 0.431 (mean of the last 5 steps), held-out accuracy 1.2% -> 58.0%``."""
        end = sum(self._losses) / len(self._losses) if self._losses else 0.0
        over = f" (mean of the last {len(self._losses)} steps)" if len(self._losses) > 1 else ""
        text = f"loss {self.first_loss or 0:.3f} -> {end:.3f}{over}"
        if self.first_accuracy is not None and self.accuracy is not None and self._judged == self.steps:
            text += f", held-out accuracy {self.first_accuracy:.1%} -> {self.accuracy:.1%}"
        return text


async def prepare(engine: Engine) -> Warming | None:
    """The warm-up that a session still has before it; None where there is none.

    What an earlier try has recorded moves to a branch of its own.

    :raises InputFileError: if its file cannot be used.
    """
    learner = engine.learner
    if not learner.settings.warm_up or names(learner.folder):
        return None
    warming = await engine.compute(_load, learner)
    if await engine.write(engine.store.last_step, WARM_UP) is not None:
        name, _ = await engine.write(engine.store.set_aside, WARM_UP, -1, "the warm-up started again")
        for metric in [m for m in engine.board.series if m.startswith(WARM_UP_PREFIX)]:
            del engine.board.series[metric]
        await engine.note("warm-up", f"starts again from its beginning; the earlier records are kept on {name}")
    engine.control.phase, engine.control.total = "warming up", warming.steps
    return warming


def _load(learner: Learner) -> Warming:
    """On the compute thread: read and encode the file."""
    from engine.supervised import FineTuning, encode_all, epochs_plan

    settings, control = learner.settings, learner.control
    path = Path(settings.warm_up)
    secret = [asked for p in learner.task.evaluation for asked in (p.text, p.messages) if asked]
    lessons = encode_all(learner.policy, read_examples(path), str(path), secret)
    plan, steps = epochs_plan(
        len(lessons.rows), settings.warm_up_batch, settings.seed, settings.warm_up_epochs
    )  # fmt: skip
    training = FineTuning(
        learner.policy,
        lessons.rows,
        plan,
        steps,
        learning_rate=settings.warm_up_learning_rate,
        micro_tokens=settings.micro_tokens,
        rise=max(1, min(RISE, steps // 10)),
        safe_point=lambda: control.advance(control.done, steps),
    )
    return Warming(training, f"{path.name}, {lessons.describe()}, {steps:,} steps")


async def warm_up(engine: Engine) -> bool:
    """Take the steps of the engine's warm-up, if it has one before it.

    :returns: whether RL may begin; not so when the session was stopped inside the warm-up.
    """
    warming = engine.warming
    if warming is None:
        return True
    try:
        await _run(engine, warming)
    except Stopping:
        if not warming.finished:
            text = f"stopped after {warming.done} of {warming.steps} steps; it starts again from its beginning"
            await engine.note("warm-up", text)
            return False
    await engine.note("warm-up", f"done: {warming.outcome()}")
    engine.warming, engine.step = None, 0
    engine.control.count_anew()
    engine.service.beat_now()
    return True


async def _run(engine: Engine, warming: Warming) -> None:
    control, steps = engine.control, warming.steps
    engine.step = 1
    await engine.note("warm-up", f"begins: {warming.text}")
    await engine.compute(control.begin, "warming up", steps)
    evaluate = bool(engine.knobs.whole("evaluate_every") and engine.learner.task.evaluation)
    if evaluate:
        await _evaluate(engine, warming)
        await _record(engine, 0, {"warmup/accuracy": warming.accuracy or 0.0})
        await engine.compute(control.begin, "warming up", steps)
    every = -(-steps // EVALUATIONS)
    for number in range(1, steps + 1):
        engine.step = number
        metrics = await engine.compute(_step, engine, warming, number)
        try:
            if number == steps:
                control.phase = "saving"
                await engine.checkpoint("start of RL")
                warming.finished = True
            if evaluate and (number == steps or number % every == 0):
                result = await _evaluate(engine, warming)
                metrics["warmup/accuracy"] = result.accuracy
                engine.evaluated = result if number == steps else None
        finally:
            await _record(engine, number, metrics)


async def _evaluate(engine: Engine, warming: Warming) -> Evaluation:
    result = await engine.compute(engine.learner.evaluate)
    warming.judge(result.accuracy)
    return result


def _step(engine: Engine, warming: Warming, number: int) -> dict[str, float]:
    """On the compute thread: one optimizer step, and its metrics."""
    control = engine.control
    control.phase, control.done, control.total = "warming up", number - 1, warming.steps
    control.begin_step(number)
    began = control.clock()
    try:
        metrics = warming.training.step(number)
    except (WorkbenchError, Stopping):
        raise
    except Exception as error:
        raise SessionError(
            f"the warm-up failed at step {number} of {warming.steps}: {one_line(error)}; "
            "if memory ran out, start another session with a smaller --warm-up-batch"
        ) from error
    seconds = max(control.clock() - began, 1e-9)
    metrics["warmup/tokens_per_second"] = metrics.pop("tokens") / seconds
    warming.take(metrics["warmup/loss"], seconds)
    control.done = number
    return metrics


async def _record(engine: Engine, number: int, metrics: dict[str, float]) -> None:
    await engine.keep_step(StepRecord(branch=WARM_UP, step=number, time=time.time(), metrics=dict(metrics)))
