"""From scored groups to a changed policy: what GRPO, PPO and TRPO each do with a rollout.

An algorithm is two functions, :meth:`Training.advantages` and :meth:`Training.update`; both look at the
hyperparameter ``algorithm`` when they are called, so it can be switched between steps. A switch keeps the policy, the
optimizer that GRPO and PPO share, and the value model with its own; TRPO has no optimizer, and what it leaves behind
has its first moment forgotten.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from accelerate.utils import gather_object

from engine.algorithms.ppo import adapted_coefficient
from engine.control import Control
from engine.credit import apply_ratings, reward_penalties, write_advantages, write_value_advantages
from engine.knobs import Knobs
from engine.objectives import GroupRelative, Proximal
from engine.old_logprobs import OldLogprobs
from engine.optimizer import Optimizer, Saved, relative_size
from engine.passes import Budget, value_pass
from engine.policy import Policy
from engine.reference import Reference, tally_divergence
from engine.rollout import RolloutGroup
from engine.shaping import shape_rewards
from engine.statistics import effective_reward
from engine.tally import Tally
from engine.trust_region import SelfCheck, TrustRegion
from engine.update import Update
from engine.value_model import ValueModel
from sessions.records import Rating, TrustRegionStep

Ratings = Mapping[str, Sequence[Rating]]
"""Group name -> its standing ratings."""


@dataclass
class Training:
    """A policy and everything that an update of it needs or leaves behind.

    :ivar optimizer: the policy's, which GRPO and PPO share.
    :ivar value_model: made when an algorithm first needs one; kept when another takes over.
    :ivar last_algorithm: of the newest update.
    :ivar trust_region: how the newest update found its step, if TRPO made it.
    """

    policy: Policy
    reference: Reference
    knobs: Knobs
    control: Control
    budget: Budget
    reward_range: tuple[float, float]
    optimizer: Optimizer = field(init=False)
    value_model: ValueModel | None = None
    self_check: SelfCheck = field(default_factory=SelfCheck)
    last_algorithm: str = ""
    trust_region: TrustRegionStep | None = None
    _measured: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.optimizer = Optimizer(
            self.policy.parameters,
            self.policy.accelerator,
            self.knobs,
            fused="fused_adamw" in self.policy.shortcuts,
        )

    @property
    def algorithm(self) -> str:
        return self.knobs.text("algorithm")

    @property
    def needs_values(self) -> bool:
        """Whether the advantages come from a value model."""
        return self.algorithm == "ppo" or (self.algorithm == "trpo" and self.knobs.text("baseline") == "value")

    def _value_model(self) -> ValueModel:
        kind = self.knobs.text("value_model")
        if self.value_model is None or self.value_model.kind != kind:
            self.value_model = ValueModel(kind, self.policy, self.knobs)
        return self.value_model

    # -------------------------------------------------------------------------------------------- advantages

    def measure_reference(self, step: int, groups: Sequence[RolloutGroup]) -> None:
        """Write l_ref into the groups, if this step compares the policy with its reference."""
        if self.knobs.number("kl_coefficient") > 0 or self._compares(step):
            self.reference.score(groups, self.budget, self.control.safe_point)

    def _compares(self, step: int) -> bool:
        every = self.knobs.whole("reference_every")
        return every > 0 and step % every == 0

    def advantages(self, groups: Sequence[RolloutGroup], ratings: Ratings) -> None:
        """Write shaped and rated rewards and advantages into every group, with and without the ratings.

        :param groups: of all processes, with l_ref where the reward needs it.
        """
        knobs = self.knobs
        self._measured = {}
        shape_rewards([group for group in groups if not group.late], knobs)
        apply_ratings(groups, ratings, knobs.number("human_weight"), self.reward_range)
        in_reward = knobs.text("kl_placement") == "reward"
        beta = knobs.number("kl_coefficient") if in_reward else 0.0
        if self.needs_values:
            value_model = self._value_model()
            scores = [score for g in groups for r in g.record.responses if (score := effective_reward(r)) is not None]
            if scores:
                value_model.begin_at(sum(scores) / len(scores))
            # the penalty in the reward is measured from l_old, before the update
            value_pass(self.policy, groups, self.budget, self.control.safe_point, value_model, needs_old=beta > 0)
            self._measured = write_value_advantages(
                groups,
                self.policy.accelerator,
                gamma=knobs.number("gamma"),
                gae_lambda=knobs.number("gae_lambda"),
                kl_coefficient=beta,
            )
            return
        penalties: dict[str, float] = {}
        if beta > 0:
            penalties = reward_penalties(groups, beta)
            if self.policy.accelerator.num_processes > 1:
                penalties = {name: lost for part in gather_object([penalties]) for name, lost in part.items()}
        write_advantages(groups, penalties, knobs.text("advantage_scale"))

    # ------------------------------------------------------------------------------------------------ update

    def update(
        self, step: int, seed: int, groups: Sequence[RolloutGroup], at_minibatch: Callable[[], None]
    ) -> dict[str, float]:
        """Change the policy, the value model or both.

        :param at_minibatch: called where changes with boundary minibatch take effect.
        :returns: the update's metrics.
        """
        measured = self._divergence(step, groups)

        def boundary() -> None:
            at_minibatch()
            if self.knobs.number("kl_coefficient") > 0:  # which may have been 0 until this boundary
                self.reference.score(groups, self.budget, self.control.safe_point)

        if self.last_algorithm == "trpo" and self.algorithm != "trpo":
            self.optimizer.forget_direction()
        self.trust_region = None
        run = {"grpo": self._grpo, "ppo": self._ppo, "trpo": self._trpo}[self.algorithm]
        try:
            metrics = run(step, seed, groups, boundary)
        finally:
            self.optimizer.clear()
            if self.value_model is not None:
                self.value_model.optimizer.clear()
        self.last_algorithm = self.algorithm
        metrics = self._measured | measured | metrics | self._final_divergence(groups)
        self._adapt(metrics, groups)
        return metrics

    def _divergence(self, step: int, groups: Sequence[RolloutGroup]) -> dict[str, float]:
        """The exact divergence from the reference before the update, now and then: it costs two forward passes."""
        used = self.algorithm == "grpo" and self.knobs.text("kl_estimator") == "full"
        if not self._compares(step) or (used and self.knobs.number("kl_coefficient") > 0):
            return {}
        tally = Tally()
        self.reference.measure_full(groups, self.budget, self.control.safe_point, tally)
        return tally.results(self.policy.accelerator)

    def _final_divergence(self, groups: Sequence[RolloutGroup]) -> dict[str, float]:
        tally = Tally()
        tally_divergence(groups, tally)
        return tally.results(self.policy.accelerator)

    def _grpo(
        self, step: int, seed: int, groups: Sequence[RolloutGroup], boundary: Callable[[], None]
    ) -> dict[str, float]:
        objective = GroupRelative(self.policy, self.knobs, self.reference, self._old_logprobs(groups))
        update = Update(
            self.policy, objective, {"policy": self.optimizer}, self.knobs, self.control, self.budget, boundary
        )
        return update.run(groups, seed, step)

    def _old_logprobs(self, groups: Sequence[RolloutGroup]) -> OldLogprobs:
        steps = self.knobs.whole("epochs") * min(self.knobs.whole("minibatches"), len(groups))
        return OldLogprobs(self.policy, self.budget, self.control.safe_point, alone=steps == 1)

    def _ppo(
        self, step: int, seed: int, groups: Sequence[RolloutGroup], boundary: Callable[[], None]
    ) -> dict[str, float]:
        return self._with_value_model(step, seed, groups, boundary, value_only=self._value_model().warmup_left > 0)

    def _with_value_model(
        self,
        step: int,
        seed: int,
        groups: Sequence[RolloutGroup],
        boundary: Callable[[], None],
        *,
        value_only: bool,
    ) -> dict[str, float]:
        value_model = self._value_model()
        optimizers = {"value": value_model.optimizer}
        if not value_only:
            optimizers = {"policy": self.optimizer, **optimizers}
        update = Update(
            self.policy,
            Proximal(self.policy, self.knobs, value_model, self._old_logprobs(groups), value_only),
            optimizers,
            self.knobs,
            self.control,
            self.budget,
            boundary,
            stop_kl=0.0 if value_only else self.knobs.number("stop_kl"),
        )
        metrics = update.run(groups, seed, step)
        if metrics["update/optimizer_steps"]:  # none where no response has a reward
            value_model.updates += 1
        return {**metrics, "value/warmup_left": float(value_model.warmup_left)}

    def _trpo(
        self, step: int, seed: int, groups: Sequence[RolloutGroup], boundary: Callable[[], None]
    ) -> dict[str, float]:
        if not self.needs_values:
            return self._searched(step, seed, groups, boundary)
        value_model = self._value_model()
        warming = value_model.warmup_left > 0
        before, updates = Saved(value_model.optimizer), value_model.updates
        metrics = self._with_value_model(step, seed, groups, boundary, value_only=True)
        del metrics["update/optimizer_steps"]
        if warming:
            return metrics
        try:
            return metrics | self._searched(step, seed, groups, boundary)
        except Exception:  # the step is dropped, and what it did to the value model with it
            before.restore()
            value_model.updates = updates
            raise

    def _searched(
        self, step: int, seed: int, groups: Sequence[RolloutGroup], boundary: Callable[[], None]
    ) -> dict[str, float]:
        boundary()
        before = self.optimizer.watch()

        def search() -> tuple[TrustRegion, dict[str, float]]:
            region = TrustRegion(self.policy, self.knobs, self.control, self.budget, self.self_check)
            return region, region.run(groups, seed, step)

        # whatever interrupts a search, it leaves the old parameters and no gradient
        searched, metrics = self.budget.retry(search, lambda: None)
        if metrics.get("trpo/step_fraction"):
            metrics["update/relative_size"] = relative_size(before, self.optimizer.watch())
        self.trust_region = searched.found
        return metrics

    def _adapt(self, metrics: Mapping[str, float], groups: Sequence[RolloutGroup]) -> None:
        """Steer the coefficient of the divergence to its target."""
        target, kl = self.knobs.optional("kl_target"), metrics.get("kl/k3")
        if self.algorithm != "ppo" or target is None or kl is None:
            return
        responses = sum(len(group.record.responses) for group in groups)
        beta = self.knobs.number("kl_coefficient")
        self.knobs.adapt("kl_coefficient", adapted_coefficient(beta, kl, target, responses))

    # ------------------------------------------------------------------------------------------------ what-if

    def shadow(self, knobs: Knobs, control: Control) -> Training:
        """A copy to be trained without touching this one."""
        copied = Training(
            self.policy.shadow(), self.reference, knobs, control, self.budget, self.reward_range
        )  # fmt: skip
        copied.optimizer.load(self.optimizer.tensors(), self.optimizer.steps)
        if self.value_model is not None:
            copied.value_model = self.value_model.shadow(knobs)
        copied.self_check = copy.deepcopy(self.self_check)
        copied.last_algorithm = self.last_algorithm
        return copied
