"""One step of learning, in the pieces the engine's loop calls: everything that runs on the compute thread.

It knows models, tasks and algorithms, and nothing of sockets, stores or screens. Several processes run the same
learner side by side: prompts are sharded, whole groups to a rank; every rank knows all groups' rewards, so
advantages and denominators are the same everywhere.
"""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list, gather_object

from engine import checkpointing
from engine.control import Control
from engine.credit import apply_ratings, reward_penalties, write_advantages
from engine.divergences import k3
from engine.groups import Evaluation, GroupSampler, OnStart
from engine.knobs import Knobs
from engine.optimizer import PolicyOptimizer
from engine.policy import Policy, load_weights
from engine.reference import Reference, tally_divergence
from engine.rollout import RolloutGroup, micro_batches
from engine.statistics import reward_statistics
from engine.tally import Tally
from engine.tasks import Task
from engine.update import LOGITS_LIMIT, Update, score
from sessions.records import Checkpoint, Group, Rating, SessionSettings


class Learner:
    """A policy, its task and its optimizer.

    :param folder: of the session's checkpoints.
    :ivar step: finished steps.
    :ivar cursor: prompts taken so far.
    :ivar sampler: asks the policy the task's questions.
    """

    def __init__(
        self,
        settings: SessionSettings,
        task: Task,
        policy: Policy,
        knobs: Knobs,
        control: Control,
        folder: Path,
        branch: str = "main",
    ) -> None:
        self.settings, self.task, self.policy = settings, task, policy
        self.knobs, self.control, self.folder, self.branch = knobs, control, folder, branch
        self.optimizer = PolicyOptimizer(policy, knobs)
        self.reference = Reference(policy, lambda: checkpointing.policy_weights(folder / "0"))
        self.step = 0
        self.cursor = 0
        self.sampler = GroupSampler(policy, task, knobs, control, settings.seed, branch)
        self._taken = 0
        accelerator = policy.accelerator
        self.rank, self.ranks = accelerator.process_index, accelerator.num_processes

    # ---------------------------------------------------------------------------------------- sampling

    def sample(self, step: int, first_number: int = 1, on_start: OnStart = lambda _, __: None) -> list[RolloutGroup]:
        """Sample and score the groups of a step.

        :param first_number: of the step's groups; above 1 when a try at the step was discarded.
        :returns: the groups of all ranks, in the order of their prompts.

        The data cursor moves on when the step is learned from or dropped, so a checkpoint taken meanwhile samples
        the same prompts again.
        """
        self._taken = self.knobs.whole("prompts_per_step")
        prompts = self.task.take(self.settings.seed, self.cursor, self._taken)
        return self.sampler.sample(step, prompts, first_number, on_start)

    # ---------------------------------------------------------------------------------------- learning

    def late_groups(self, groups: Sequence[Group]) -> list[RolloutGroup]:
        """Groups of earlier steps for this update; rank 0 knows them, and all ranks get them."""
        shared = [list(groups)]
        if self.ranks > 1:
            broadcast_object_list(shared)
        for group in shared[0]:
            if group.step <= self.reference.refreshed:  # measured against a reference that has been replaced
                for response in group.responses:
                    response.reference_logprobs = []
        return [RolloutGroup(g, own=i % self.ranks == self.rank, late=True) for i, g in enumerate(shared[0])]

    def drift_limit(self) -> float:
        """Largest drift of a group that may still join an update."""
        return self.knobs.number("rating_max_kl")

    def drift(self, group: Group) -> float:
        """How far the policy has moved on a group's tokens since it was sampled: mean k3(old, now), nats a token."""
        rows = RolloutGroup(group).rows()
        now: list[float] = []
        old: list[float] = []
        for batch in micro_batches(rows, self.settings.micro_tokens, LOGITS_LIMIT, self.policy.vocabulary):
            self.control.safe_point()
            for row, values in zip(batch, score(self.policy, self.policy.plain_scorer, batch), strict=True):
                now += values
                old += row.response.logprobs
        # sampled from old, so k3 with the roles of policy and reference taken by old and now
        return float(k3(torch.tensor(old), torch.tensor(now)).mean()) if now else math.inf

    def measure_reference(self, step: int, groups: Sequence[RolloutGroup]) -> None:
        """Write l_ref into the groups, if this step compares the policy with its reference."""
        every = self.knobs.whole("reference_every")
        if self.knobs.number("kl_coefficient") > 0 or (every > 0 and step % every == 0):
            self.reference.score(groups, self.settings.micro_tokens, self.control.safe_point)

    def advantages(self, groups: Sequence[RolloutGroup], ratings: Mapping[str, Sequence[Rating]]) -> None:
        """Write rated rewards and advantages into every group, with and without the ratings.

        :param ratings: group name -> its standing ratings; rank 0 knows them, and all ranks get them.
        """
        if self.ranks > 1:
            shared = [dict(ratings)]
            broadcast_object_list(shared)
            ratings = shared[0]
        knobs = self.knobs
        apply_ratings(groups, ratings, knobs.number("human_weight"), self.task.reward_range)
        penalties: dict[str, float] = {}
        beta = knobs.number("kl_coefficient")
        if knobs.text("kl_placement") == "reward" and beta > 0:
            penalties = reward_penalties(groups, beta)
            if self.ranks > 1:
                penalties = {name: lost for part in gather_object([penalties]) for name, lost in part.items()}
        write_advantages(groups, penalties, knobs.text("advantage_scale"))

    def update(self, step: int, groups: Sequence[RolloutGroup], at_minibatch: Callable[[], None]) -> dict[str, float]:
        """Change the policy, and measure the step.

        :param at_minibatch: called where changes with boundary minibatch take effect.
        :returns: every metric of the step but its times.
        """

        def boundary() -> None:
            at_minibatch()
            if self.knobs.number("kl_coefficient") > 0:  # which may have been 0 until this boundary
                self.reference.score(groups, self.settings.micro_tokens, self.control.safe_point)

        update = Update(self.policy, self.optimizer, self.knobs, self.control, self.settings.micro_tokens, boundary)
        try:
            metrics = update.run(groups, self.settings.seed, step)
        finally:
            self.optimizer.clear()
        self.control.commit()  # also where every group was dead: the step is learned and cannot be dropped any more
        tally = Tally()
        tally_divergence(groups, tally)
        metrics |= tally.results(self.policy.accelerator)
        metrics |= reward_statistics(groups, self.task.reward_range)
        self.step = step
        self.take_on()
        refresh = self.knobs.whole("reference_refresh_steps")
        if refresh and step % refresh == 0:
            self.reference.refresh(step)
        if self.ranks > 1:
            self._share_measurements(groups)
        metrics["memory/peak"] = peak_memory() / 1e9
        return metrics

    def take_on(self) -> None:
        """The sampled prompts are spent: learned from, or dropped with their step."""
        self.cursor += self._taken
        self._taken = 0

    def _share_measurements(self, groups: Sequence[RolloutGroup]) -> None:
        """Give rank 0, which keeps the records, what the other ranks measured on their responses."""
        mine = [
            (i, place, r.entropies, r.reference_logprobs, r.kl)
            for i, g in enumerate(groups)
            if g.own
            for place, r in enumerate(g.record.responses)
        ]
        for i, place, entropies, reference, kl in gather_object(mine):
            response = groups[i].record.responses[place]
            response.entropies, response.reference_logprobs, response.kl = entropies, reference, kl

    def run_step(self) -> dict[str, float]:
        """A whole step without an engine: no ratings, no records."""
        step = self.step + 1
        self.knobs.begin_step(step)
        self.control.begin_step(step)
        self.knobs.apply("rollout", step)
        groups = self.sample(step)
        self.control.begin("updating")
        self.knobs.apply("update", step)
        self.measure_reference(step, groups)
        self.advantages(groups, {})
        return self.update(step, groups, lambda: (self.knobs.apply("minibatch", step), None)[1])

    # -------------------------------------------------------------------------- evaluation, checkpoints

    def evaluate(self) -> Evaluation:
        """Answer the held-out prompts greedily."""
        return self.sampler.evaluate()

    def save(self, reason: str) -> Checkpoint:
        """Write a checkpoint of the finished step."""
        state = checkpointing.TrainingState(
            step=self.step,
            cursor=self.cursor,
            optimizer_steps=self.optimizer.steps,
            values=self.knobs.values,
            reference_refreshed=self.reference.refreshed,
        )
        reference = self.reference.weights() if self.reference.refreshed else None
        optimizer = self.optimizer.tensors()
        return checkpointing.save_checkpoint(self.folder, state, self.policy, optimizer, reference, reason)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint: weights, optimizer, data cursor and reference."""
        state = checkpointing.read_state(path)
        load_weights(self.policy.model, checkpointing.policy_weights(path))
        if optimizer := checkpointing.tensors(path, "optimizer"):
            self.optimizer.load(optimizer, state.optimizer_steps)
        if reference := checkpointing.tensors(path, "reference"):
            self.reference.load(reference, state.reference_refreshed)
        self.step, self.cursor = state.step, state.cursor


def peak_memory() -> int:
    """Largest resident memory of this process so far, or of its GPU where it has one; bytes."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
