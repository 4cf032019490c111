"""The reward model's life in a session: trained anew from what people said, beside the steps, taken up between them.

Each version is trained from the same start on all there is: the session's ratings, on whatever branch, and the
orderings that were imported. A thread of its own trains it; the model in use scores meanwhile. The next step that
begins takes the new one up. What is recorded of a step holds its scores, so a step that is computed again needs no
reward model; one that is sampled again takes the recorded scores.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from engine.words import one_line
from sessions import commands as c
from sessions import wire
from sessions.errors import Refused, WorkbenchError
from sessions.examples import Text
from sessions.orderings import Ordering, held_out, read_kept
from sessions.records import Group
from sessions.reward_models import RewardModelReport, RewardModelSettings, RewardModelState
from sessions.store import Store
from sessions.taught import orderings_of

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.reward_model import RewardModel

LEAST = 4
"""Orderings to train on below which there is nothing to learn."""
REFERENCE_GROUPS = 16
"""Of the first groups of the session, on whose responses scores are normalised: the policy had not learned yet."""


RESTS = 1.0
"""For as long as it works, times this, the training rests: the interpreter runs one thread at a time, and one that is
never idle would hold up every operation of a step."""
LONGEST_REST = 0.1
"""Seconds."""


GIVEN = "reward_model_orderings"
"""Key of what is known of the orderings of the reward model that a session was given."""


class Given(Exception):
    """The training of a reward model is given up: the session ends."""


@dataclass(frozen=True)
class _Trained:
    model: RewardModel
    report: RewardModelReport
    ratings: int
    asked: str


@dataclass(frozen=True)
class Material:
    """What a reward model is trained on.

    :ivar reference: prompt and response of samples of the beginning.
    :ivar ratings: how many ratings the session has.
    """

    orderings: list[Ordering]
    reference: list[tuple[Text, Text]]
    ratings: int

    @property
    def usable(self) -> int:
        """Orderings that may be trained on."""
        return sum(not held_out(ordering.prompt) for ordering in self.orderings)


def gather(database: Path) -> Material:
    """All that people said, in the order of the groups, and then what they imported.

    On another thread than those that a step waits for.
    """
    store = Store(database, read_only=True)
    try:
        return _gather(store)
    finally:
        store.close()


def _gather(store: Store) -> Material:
    orderings: list[Ordering] = []
    for name, branch in store.rated_groups():
        standing = store.standing_ratings(name, branch)
        if standing:
            orderings += orderings_of(store.group(name, branch, tokens=False), standing)
    after = 0
    while imported := store.orderings(after):
        orderings += [ordering for _, ordering in imported]
        after = imported[-1][0]
    first: Sequence[Group] = store.first_groups(REFERENCE_GROUPS)
    return Material(orderings, [(g.asked, g.said(r.text)) for g in first for r in g.responses], store.count_ratings())


def _add_given(store: Store, path: Path) -> tuple[int, wire.AnyEvent | None]:
    """On the store's thread."""
    return store.add_orderings(read_kept(path), f"the reward model {path.parent.name}", "", time.time())


class RewardKeeper:
    """Trains the next reward model of an engine and hands it to its learner.

    On the event loop, but for :meth:`take_up`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ready: _Trained | None = None
        self._given_up = Event()
        self._running = False
        self._tried_at = 0

    @property
    def busy(self) -> bool:
        """Whether a model is being trained."""
        return self._running

    def state(self) -> RewardModelState | None:
        """Of the model in use."""
        model = self._engine.learner.reward_model if self._engine.loaded else None
        return model.state if model is not None else None

    def figures(self) -> dict[str, float]:
        """Metrics of the training of the model in use, where no recorded step has them."""
        state = self.state() if self._engine.learner.reward_untold else None
        return state.reports[-1].metrics() if state is not None and state.reports else {}

    def give_up(self) -> None:
        """Leave a training; what it would have made is not taken up."""
        self._given_up.set()
        self._ready = None

    async def take_given(self) -> None:
        """As a session begins: take over what the reward model that it was given was made of.

        :raises InputFileError: if that cannot be read.
        """
        from engine.reward_model import ORDERINGS

        engine = self._engine
        folder = engine.settings.reward_model
        path = Path(folder) / ORDERINGS
        if not folder or not path.exists() or await engine.write(engine.store.meta, GIVEN) is not None:
            return
        added, event = await engine.write(_add_given, engine.store, path)
        if event is not None:
            engine.publish(event)
        await engine.write(engine.store.set_meta, GIVEN, str(added))

    def look_again(self) -> None:
        """The training is at another step or branch, where an earlier model may be in use, or none."""
        self._tried_at = 0

    # ---------------------------------------------------------------------------------------------- when

    async def ask(self, command: c.TrainRewardModel) -> str:
        """Somebody wants one trained now.

        :returns: what will happen.
        :raises Refused: if it cannot be.
        """
        engine = self._engine
        self._check()
        if self._running:
            raise Refused("a reward model is being trained already")
        self._running = True  # of two that ask at once the second is refused
        try:
            material = await engine.aside(gather, engine.folder.database)
            if material.usable < LEAST:
                raise Refused(
                    f"there are {material.usable} comparisons to train on and at least {LEAST} are needed (what one "
                    "person says of a group in one mode is one, and a fifth of all prompts is kept for measuring); "
                    "rate responses of more prompts, or import preferences"
                )
        except BaseException:
            self._running = False
            raise
        text = f"{command.who} has one trained on {material.usable} comparisons"
        await engine.note("reward model", text, command.who)
        engine.spawn(self._train(material, command.id))
        return f"trains on {material.usable} comparisons beside the steps; the next step that begins then uses it"

    def _check(self) -> None:
        engine = self._engine
        if engine.warming is not None:
            raise Refused("not inside the warm-up")
        if engine.learner.ranks > 1:
            raise Refused("a reward model needs a session of one process")

    async def after_step(self) -> None:
        """A step has ended: train where enough has been rated since."""
        engine = self._engine
        every = engine.knobs.whole("reward_model_every")
        if not every or self._running or engine.learner.ranks > 1:
            return
        ratings = await engine.write(engine.store.count_ratings)
        if ratings - max(engine.learner.reward_ratings, self._tried_at) < every:
            return
        self._tried_at = ratings
        self._running = True
        engine.spawn(self._train_again())

    async def _train_again(self) -> None:
        """Enough has been rated: train, if it can be trained on."""
        try:
            material = await self._engine.aside(gather, self._engine.folder.database)
        except BaseException:
            self._running = False
            raise
        if material.usable < LEAST:
            self._running = False
        else:
            await self._train(material, "")

    # -------------------------------------------------------------------------------------------- training

    async def _train(self, material: Material, asked: str) -> None:
        engine, orders = self._engine, self._engine.service.orders
        self._given_up = given_up = Event()
        try:
            model = await self._make()
            report = await engine.aside(_trained, model, engine.learner.reward_model, material, given_up)
        except (Given, asyncio.CancelledError):
            orders.refused(asked, "the training was left: the session ended")
        except Exception as error:  # noqa: BLE001 - the steps go on, and people should read why there is no new model
            if not isinstance(error, WorkbenchError):
                traceback.print_exc()
            text = f"no reward model came of {material.usable} comparisons: {one_line(error)}"
            orders.refused(asked, text)
            await engine.note("reward model", text)
        else:
            if self._ready is not None:
                orders.refused(self._ready.asked, "another was trained before a step began; that one is used")
            self._ready = _Trained(model, report, material.ratings, asked)
            await engine.note("reward model", f"version {report.version} is trained: {describe(report)}")
        finally:
            self._running = False

    async def _make(self) -> RewardModel:
        """A new model from the start of RL, made on the compute thread at a safe point."""
        engine = self._engine
        made: asyncio.Future[RewardModel] = asyncio.get_running_loop().create_future()
        settings = RewardModelSettings(kind=engine.knobs.text("reward_model_kind"), seed=engine.settings.seed)

        def make() -> None:
            try:
                model = engine.learner.new_reward_model(settings)
            except Exception as error:  # noqa: BLE001 - whoever waits for it raises it
                engine.soon(_give, made, None, error)
            else:
                engine.soon(_give, made, model, None)

        engine.control.ask(make)
        return await made

    def take_up(self) -> None:
        """On the compute thread, as a step begins or the session ends: use the newest model."""
        ready, self._ready = self._ready, None
        if ready is None:
            return
        learner = self._engine.learner
        learner.reward_model, learner.reward_ratings = ready.model, ready.ratings
        learner.reward_untold = True
        self._engine.soon(self._taken_up, ready)

    def _taken_up(self, ready: _Trained) -> None:
        report = ready.report
        text = f"version {report.version}: {describe(report)}; used from step {self._engine.step} on"
        self._engine.service.orders.done(ready.asked, self._engine.step, text)


def _give(made: asyncio.Future[RewardModel], model: RewardModel | None, error: Exception | None) -> None:
    if made.done():
        return
    if model is not None:
        made.set_result(model)
    elif error is not None:
        made.set_exception(error)


def _trained(model: RewardModel, before: RewardModel | None, material: Material, given_up: Event) -> RewardModelReport:
    """On the thread beside: train, normalise and measure."""
    from engine.reward_training import train

    worked = time.monotonic()

    def safe_point() -> None:
        nonlocal worked
        if given_up.is_set():
            raise Given
        time.sleep(min(LONGEST_REST, RESTS * (time.monotonic() - worked)))
        worked = time.monotonic()

    reference = [model.encode(prompt, text, "reference samples") for prompt, text in material.reference]
    return train(model, material.orderings, reference=reference, before=before, safe_point=safe_point)


def describe(report: RewardModelReport) -> str:
    """``57 comparisons, held-out accuracy 81% of 21 pairs, loss 0.43``."""
    parts = [f"{report.pairs:,} comparisons"]
    if report.held_out.accuracy is not None:
        parts.append(f"held-out accuracy {report.held_out.accuracy:.0%} of {report.held_out.pairs:,} pairs")
    if report.loss is not None:
        parts.append(f"loss {report.loss:.3f}")
    if report.drift is not None:
        parts.append(f"drift {report.drift:.2f}")
    return ", ".join(parts) + f", {report.seconds:.1f} s"
