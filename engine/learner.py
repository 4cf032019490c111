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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object

from engine import checkpointing
from engine.advantages import group_relative_advantages
from engine.control import Control
from engine.divergences import k1, k3
from engine.knobs import Knobs
from engine.optimizer import PolicyOptimizer
from engine.policy import Policy, load_weights
from engine.randomness import response_noise
from engine.ratings import rated_rewards
from engine.reference import Reference, tally_divergence
from engine.rollout import RolloutGroup, micro_batches
from engine.sampling import Growth, Samples, sample
from engine.scoring import score_group
from engine.statistics import effective_reward, reward_statistics
from engine.tally import Tally
from engine.tasks import Prompt, Task
from engine.update import LOGITS_LIMIT, Update, score
from sessions.records import Checkpoint, Group, Rating, Response, SessionSettings, letters

EVALUATION_ROWS = 250
"""Held-out prompts answered at once."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Greedy answers to the held-out prompts.

    :ivar accuracy: share judged right.
    :ivar length: mean tokens.
    """

    accuracy: float
    length: float


class Learner:
    """A policy, its task and its optimizer.

    :param folder: of the session's checkpoints.
    :ivar step: finished steps.
    :ivar cursor: prompts taken so far.
    :ivar scoring_seconds: that the reward functions of the newest step took.
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
        self.scoring_seconds = 0.0
        self._taken = 0
        self._prompts: dict[str, list[int]] = {}
        accelerator = policy.accelerator
        self.rank, self.ranks = accelerator.process_index, accelerator.num_processes

    # ---------------------------------------------------------------------------------------- sampling

    def sample(
        self, step: int, first_number: int = 1, on_start: Callable[[Sequence[Prompt], Growth], None] | None = None
    ) -> list[RolloutGroup]:
        """Sample and score the groups of a step.

        :param first_number: of the step's groups; above 1 when a try at the step was discarded.
        :param on_start: given this rank's prompts and their growing responses.
        :returns: the groups of all ranks, in the order of their prompts.

        The data cursor moves on when the step is learned from or dropped, so a checkpoint taken meanwhile samples
        the same prompts again.
        """
        knobs = self.knobs
        count, group_size = knobs.whole("prompts_per_step"), knobs.whole("group_size")
        length, temperature = knobs.whole("max_new_tokens"), knobs.number("temperature")
        prompts = self.task.take(self.settings.seed, self.cursor, count)
        mine = list(range(self.rank, count, self.ranks))
        self._taken = count
        self.control.begin("sampling", len(mine) * group_size)
        samples = self._sample(step, prompts, mine, group_size, length, temperature, on_start)
        groups = []
        for k, i in enumerate(mine):
            rows = range(k * group_size, (k + 1) * group_size)
            groups.append(
                Group(
                    branch=self.branch,
                    step=step,
                    number=first_number + i,
                    prompt_id=prompts[i].id,
                    prompt=prompts[i].text,
                    answer=prompts[i].answer,
                    temperature=temperature,
                    responses=[self._response(place, row, samples) for place, row in enumerate(rows)],
                    prompt_tokens=self._encode(prompts[i]),
                )
            )
        began = self.control.clock()
        self._score(groups, [prompts[i] for i in mine])
        self.scoring_seconds = self.control.clock() - began
        return self._all_ranks(groups)

    def _sample(
        self,
        step: int,
        prompts: Sequence[Prompt],
        mine: Sequence[int],
        group_size: int,
        length: int,
        temperature: float,
        on_start: Callable[[Sequence[Prompt], Growth], None] | None,
    ) -> Samples:
        if not mine:
            return Samples()
        noise = []
        for i in mine:
            earlier = sum(p.id == prompts[i].id for p in prompts[:i])  # a small task repeats prompts inside a step
            for index in range(group_size):
                noise.append(response_noise(self.settings.seed, step, prompts[i].id, index, length, earlier))
        return sample(
            self.policy,
            [self._encode(prompts[i]) for i in mine],
            group_size,
            length,
            temperature,
            np.stack(noise),
            safe_point=self.control.advance,
            on_start=lambda growth: on_start([prompts[i] for i in mine], growth) if on_start else None,
        )

    def _encode(self, prompt: Prompt) -> list[int]:
        if prompt.id not in self._prompts:
            if len(self._prompts) > 100_000:
                self._prompts.clear()
            self._prompts[prompt.id] = self.policy.encode_prompt(prompt.text)
        return self._prompts[prompt.id]

    def _response(self, place: int, row: int, samples: Samples) -> Response:
        tokens = samples.tokens[row]
        text, ends = self.policy.token_ends(tokens)
        return Response(
            letter=letters(place),
            text=text,
            length=len(tokens),
            ended=samples.ended[row],
            tokens=tokens,
            ends=ends,
            logprobs=samples.logprobs[row],
        )

    def _score(self, groups: Sequence[Group], prompts: Sequence[Prompt]) -> None:
        """The automatic reward of every response."""
        self.control.begin("scoring", len(groups))
        for done, (group, prompt) in enumerate(zip(groups, prompts, strict=True)):
            scored = score_group(self.task.components, prompt, [r.text for r in group.responses])
            for response, result in zip(group.responses, scored, strict=True):
                response.components, response.reward = result.components, result.reward
                response.failed = result.failed
            self.control.advance(done + 1, len(groups))

    def _all_ranks(self, groups: list[Group]) -> list[RolloutGroup]:
        """Every rank's groups, in the order of their numbers; each rank trains its own."""
        own = {group.number for group in groups}
        everywhere = gather_object(groups) if self.ranks > 1 else groups
        ordered = sorted(everywhere, key=lambda group: group.number)
        return [RolloutGroup(group, own=group.number in own) for group in ordered]

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
            for row, values in zip(batch, score(self.policy, self.policy.scorer, batch), strict=True):
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

        :param ratings: group name -> its standing ratings.
        """
        if self.ranks > 1:
            shared = [dict(ratings)]
            broadcast_object_list(shared)
            ratings = shared[0]
        weight = self.knobs.number("human_weight")
        for group in groups:
            responses = group.record.responses
            changed = rated_rewards(
                {r.letter: r.reward for r in responses if not r.failed},
                ratings.get(group.record.name, ()),
                weight,
                self.task.reward_range,
            )
            for response in responses:
                response.rated_reward = changed.get(response.letter) if weight > 0 else None
        penalties = self._reward_penalties(groups)
        self._write_advantages(groups, penalties, rated=False)
        self._write_advantages(groups, penalties, rated=True)
        for group in groups:
            for response, advantage, automatic in zip(
                group.record.responses, group.advantages, group.automatic, strict=True
            ):
                response.advantage, response.automatic_advantage = advantage, automatic

    def _reward_penalties(self, groups: Sequence[RolloutGroup]) -> dict[str, float]:
        """kl_coefficient x sum of k1 over a response's tokens, where the divergence is placed in the reward."""
        beta = self.knobs.number("kl_coefficient")
        if self.knobs.text("kl_placement") != "reward" or beta == 0:
            return {}
        penalties = {}
        for group in groups:
            for row in group.rows() if group.own else ():
                old, reference = torch.tensor(row.old), torch.tensor(row.response.reference_logprobs)
                penalties[f"{group.record.name}{row.response.letter}"] = beta * float(k1(old, reference).sum())
        if self.ranks > 1:
            return {name: value for part in gather_object([penalties]) for name, value in part.items()}
        return penalties

    def _write_advantages(self, groups: Sequence[RolloutGroup], penalties: Mapping[str, float], *, rated: bool) -> None:
        width = max(len(g.record.responses) for g in groups)
        rewards = torch.full((len(groups), width), math.nan, dtype=torch.float64)
        for i, group in enumerate(groups):
            for j, response in enumerate(group.record.responses):
                reward = effective_reward(response) if rated else response.reward
                if reward is not None and not response.failed:
                    rewards[i, j] = reward - penalties.get(f"{group.record.name}{response.letter}", 0.0)
        values, dead = group_relative_advantages(rewards, self.knobs.text("advantage_scale"))
        for i, group in enumerate(groups):
            row = values[i, : len(group.record.responses)].tolist()
            if rated:
                group.advantages, group.dead = row, bool(dead[i])
            else:
                group.automatic = row

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
        """Answer the held-out prompts greedily; draws no random number."""
        prompts = self.task.evaluation
        self.control.begin("evaluating", len(prompts))
        right = tokens = 0
        mine = list(prompts[self.rank :: self.ranks])
        for start in range(0, len(mine), EVALUATION_ROWS):
            part = mine[start : start + EVALUATION_ROWS]
            samples = sample(
                self.policy,
                [self._encode(p) for p in part],
                1,
                self.knobs.whole("max_new_tokens"),
                1.0,
                None,
                safe_point=lambda done, total: self.control.safe_point(),
            )
            right += sum(self.task.judge(p, self.policy.decode(t)) for p, t in zip(part, samples.tokens, strict=True))
            tokens += sum(map(len, samples.tokens))
            self.control.advance(start + len(part), len(mine))
        if self.ranks > 1:
            parts = gather_object([(right, tokens)])
            right, tokens = sum(p[0] for p in parts), sum(p[1] for p in parts)
        return Evaluation(right / len(prompts), tokens / len(prompts))

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
