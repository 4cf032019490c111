"""An evaluation that somebody asks for while the session trains."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.control import Discarded, Leaving, Stopping
from engine.words import one_line
from sessions import wire
from sessions.commands import Evaluate
from sessions.errors import Refused
from sessions.evaluations import words_of
from sessions.hyperparameters import hyperparameter
from sessions.records import Phase

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.groups import Evaluation

Answer = Callable[[wire.Answer], None]
_NOT_WHILE: tuple[Phase, ...] = ("sampling", "evaluating")


def evaluate(engine: Engine, command: Evaluate, answer: Answer) -> str:
    """Have the present policy asked the held-out prompts, at the next safe point where the weights are those of a
    finished step and nothing is being sampled: buffers of a sampling in progress are its own.

    :param answer: is given what came of it, on the event loop.
    :returns: what is said meanwhile.
    :raises Refused: where there is nothing to ask, or nobody that could be.
    :raises InvalidValue: if so many samples are not allowed.
    """
    samples = None if command.samples < 0 else int(hyperparameter("eval_samples").parse(command.samples))
    prompts = len(engine.learner.task.evaluation)
    if not prompts:
        raise Refused("the task holds no prompts out; nothing can be evaluated")
    if engine.warming is not None:
        raise Refused("not inside the warm-up, which evaluates itself")
    if engine.learner.ranks > 1:
        raise Refused("an evaluation on command needs a session of one process; evaluate_every works in all")
    if engine.control.holds and engine.control.phase in _NOT_WHILE:
        if engine.control.phase == "evaluating":
            raise Refused("the run is paused inside an evaluation, whose buffers are in use; `resume` finishes it")
        raise Refused(
            f"the run is paused inside the sampling of step {engine.step}, whose buffers are in use; `step` finishes "
            "the step, `pause update` pauses after the sampling"
        )
    engine.control.ask(lambda: _ask(engine, command, samples, answer), not_while=_NOT_WHILE)
    waits = ", once the responses of this step are sampled" if engine.control.phase == "sampling" else ""
    return f"asks {prompts} held-out prompts{waits}"


def _ask(engine: Engine, command: Evaluate, samples: int | None, answer: Answer) -> None:
    """On the compute thread."""

    def refused(text: str) -> None:
        engine.soon(answer, wire.Answer(id=command.id, status="rejected", text=text))

    try:
        found = engine.learner.evaluate(samples=samples, beside=True)
    except (Stopping, Discarded, Leaving):
        refused("the session went elsewhere before the evaluation was done")
        raise
    except Exception as error:  # noqa: BLE001 - a judge of the user's, or memory that ran out
        traceback.print_exc()
        refused(f"the evaluation failed: {one_line(error)}")
        return
    engine.soon(_keep, engine, command, found, engine.learner.step, engine.branch, answer)


def _keep(engine: Engine, command: Evaluate, found: Evaluation, step: int, branch: str, answer: Answer) -> None:
    async def keep() -> None:
        if engine.branch != branch:  # it was left while this was on its way
            answer(wire.Answer(id=command.id, status="rejected", text=f"branch {branch} was left meanwhile"))
            return
        if step == 0 and engine.board.last_step is None:
            await engine.keep_first_evaluation(found, command.who)
        else:
            await engine.keep_evaluation(step, found, command.who, measured=True)
        data = wire.encode_json({"step": step, "metrics": found.metrics})
        text = f"after step {step}: {words_of(found.metrics)}"
        answer(wire.Answer(id=command.id, status="applied", step=step, text=text, data=data))

    engine.spawn(keep())
