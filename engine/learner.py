"""One step of learning, in the pieces the engine's loop calls: everything that runs on the compute thread.

It knows models, tasks and algorithms, and nothing of sockets, stores or screens. Several processes run the same
learner side by side: prompts are sharded, whole groups to a rank; every rank knows all groups' rewards, so
advantages and denominators are the same everywhere.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from accelerate.utils import broadcast_object_list, gather_object

from engine import checkpointing, static_decoding
from engine.batches import make_batch
from engine.control import Control
from engine.divergences import k3
from engine.groups import Evaluation, GroupSampler, OnStart
from engine.invariants import Broken, audit_mask, audit_parameters, audit_questions, audit_responses, widest
from engine.knobs import Knobs
from engine.memory import check_memory, peak_memory
from engine.optimizer import Optimizer
from engine.passes import Budget, score
from engine.policy import Policy
from engine.reference import Reference
from engine.reward_model import RewardModel
from engine.reward_scores import score_groups
from engine.rollout import RolloutGroup, Row
from engine.snapshot import Copies, Snapshot
from engine.statistics import is_dead, reward_statistics
from engine.tasks import Task
from engine.tasks.curriculum import Curriculum
from engine.tasks.task import Prompt
from engine.training import Training
from engine.trust_region import SelfCheck
from engine.value_model import ValueModel
from sessions.checkpoints import Damaged, FisherState, HeldRollout, TrainingState, read_state
from sessions.records import Checkpoint, Group, Rating, SessionSettings
from sessions.reward_models import RewardModelSettings
from sessions.shortcuts import active

if TYPE_CHECKING:
    from engine.plan import Planner

NONE: Mapping[int, Group] = MappingProxyType({})


class Learner:
    """A policy, its task and its optimizer.

    :param folder: of the session's checkpoints.
    :param given: a reward model that was trained before.
    :ivar branch: whose steps it makes.
    :ivar seed: of that branch's noise and order of prompts.
    :ivar step: finished steps.
    :ivar cursor: prompts taken so far.
    :ivar step_cursor: the same when the step in progress began for the first time; a dropped try moves only the cursor.
    :ivar curriculum: chooses the prompts; None: they come in the task's own order.
    :ivar sampler: asks the policy the task's questions.
    :ivar training: the policy's optimizer, value model and algorithms.
    :ivar copies: the memory of snapshots.
    :ivar replaced: dead groups of the newest step whose places others took.
    :ivar logged: what reward functions logged of the newest step's responses, by metric.
    :ivar planner: knows what its steps take, where an engine has asked for one.
    :ivar reward_model: scores what is sampled; None: there is none yet.
    :ivar reward_ratings: how many ratings the session had when it was trained.
    :ivar reward_untold: whether no step that was recorded has the figures of its training.
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
        given: RewardModel | None = None,
    ) -> None:
        self.settings, self.task, self.policy = settings, task, policy
        self.knobs, self.control, self.folder, self.branch = knobs, control, folder, branch
        self.seed = settings.seed
        self.reference = Reference(policy, lambda: checkpointing.policy_weights(folder / "0"))
        budget = Budget(settings.micro_tokens, shared=policy.accelerator.num_processes > 1)
        budget.release = lambda: static_decoding.release(policy.model)
        self.training = Training(policy, self.reference, knobs, control, budget, task.reward_range)
        self.step = 0
        self.cursor = self.step_cursor = 0
        self.curriculum = Curriculum(task) if task.curriculum else None
        self.sampler = GroupSampler(policy, task, knobs, control, settings.seed, branch, active(settings.plain))
        self.sampler.steps = settings.steps
        self._taken = 0
        self.replaced: list[RolloutGroup] = []
        self.logged: dict[str, float] = {}
        self.copies = Copies()
        self.planner: Planner | None = None
        self.reward_model = given
        self._given = given
        self._by_text = given is not None and not _same_tokens(policy, given.policy)
        self.reward_ratings = 0
        self.reward_untold = False
        self._reward_kept = given
        self._checked = SelfCheck()
        self._held_out: frozenset[str] | None = None
        accelerator = policy.accelerator
        self.rank, self.ranks = accelerator.process_index, accelerator.num_processes

    @property
    def optimizer(self) -> Optimizer:
        """The policy's optimizer."""
        return self.training.optimizer

    @property
    def reward_is_new(self) -> bool:
        """Whether the reward model in use is in no checkpoint yet."""
        return self.reward_model is not self._reward_kept

    # ---------------------------------------------------------------------------------------- sampling

    def sample(
        self,
        step: int,
        first_number: int = 1,
        on_start: OnStart = lambda _, __: None,
        recorded: Mapping[int, Group] = NONE,
    ) -> list[RolloutGroup]:
        """Sample and score the groups of a step.

        :param first_number: of the step's groups; above 1 when a try at the step was discarded.
        :param recorded: number -> a group that was scored before: the one that comes out with the same texts takes its
            scores. The reward model, or a reward function, may be another by now.
        :returns: the groups of all ranks. With ``dynamic_sampling`` a dead group's place is taken by the next prompt's,
            at most so many times; the dead ones are in :attr:`replaced`.

        The data cursor moves on when the step is learned from or dropped, so a checkpoint taken meanwhile samples
        the same prompts again.
        """
        count = self.knobs.whole("prompts_per_step")
        self._taken, self.replaced = 0, []
        self._take_logged()  # of a try that was left it counts for nothing
        if self.task.named is not None:
            self.task.named.process.begin_step()
        self.sampler.scoring_seconds = 0.0
        groups = self._ask(step, count, first_number, on_start, recorded)
        for _ in range(self.knobs.whole("dynamic_sampling") if self.knobs.text("algorithm") == "grpo" else 0):
            dead = [i for i, group in enumerate(groups) if _replaced(group, recorded)]
            if not dead:
                break
            fresh = self._ask(step, len(dead), first_number + self._taken, on_start, recorded)
            for i, group in zip(dead, fresh, strict=True):
                self.replaced.append(groups[i])
                groups[i] = group
        self.logged = self._take_logged()
        return groups

    def _take_logged(self) -> dict[str, float]:
        return self.task.named.take_logged() if self.task.named is not None else {}

    def _ask(
        self, step: int, count: int, first_number: int, on_start: OnStart, recorded: Mapping[int, Group]
    ) -> list[RolloutGroup]:
        """Groups for the next prompts."""
        before = self.prompts(self.step_cursor, self.cursor + self._taken - self.step_cursor)
        prompts = self.prompts(self.cursor + self._taken, count)
        self._taken += count
        groups = self.sampler.sample(step, prompts, first_number, on_start, before)
        if self.reward_model is not None and self.ranks == 1:
            weight = self.knobs.number("reward_model_weight")
            score_groups(self.reward_model, groups, weight, by_text=self._by_text, safe_point=self.control.safe_point)
        for group in groups:
            if (scored := recorded.get(group.record.number)) is not None:
                _score_as_recorded(group.record, scored)
        return groups

    def prompts(self, cursor: int, count: int) -> list[Prompt]:
        """The ``count`` prompts from ``cursor`` on, as long as no further step has finished."""
        return (self.curriculum or self.task).take(self.seed, cursor, count)

    def new_reward_model(self, settings: RewardModelSettings) -> RewardModel:
        """An untrained reward model from the start of RL, or from that of the one that was given.

        :raises WorkbenchError: if it cannot be made.
        """
        now = self.reward_model
        if now is not None and now.kind == settings.kind:
            return now.successor(settings)
        policy = copy.copy(self._given.policy if self._given is not None else self.policy)
        policy.tokenizer = copy.deepcopy(policy.tokenizer)  # it encodes on another thread than the policy's
        first = lambda: checkpointing.policy_weights(self.folder / "0")  # noqa: E731
        if policy.adapters:  # it begins at the start of RL as a plain model, whose weights it shares while it can
            return RewardModel(policy.merged(first()), settings, own=settings.kind != "full")
        return RewardModel(policy, settings, weights=None if self._given is not None else first)

    def check_algorithm(self, name: str) -> None:
        """Refuse to switch to an algorithm that cannot run here.

        :raises Refused: with the reason.
        """
        check_memory(name, self.policy, self.planner.graph() if self.planner else 0.0)

    def audit(self, groups: Sequence[RolloutGroup]) -> list[Broken]:
        """Check the invariants of a rollout before it is learned from."""
        fresh = [g.record for g in groups if not g.late]
        late = [g.record for g in groups if g.late]
        ends, pad = self.policy.end_tokens, self.policy.pad
        broken = audit_responses(fresh, ends, self.knobs.whole("max_new_tokens")) + audit_responses(late, ends, None)
        if rows := widest([*fresh, *late]):
            prompts, tokens = [g.prompt_tokens for g, _ in rows], [r.tokens for _, r in rows]
            batch = make_batch(prompts, tokens, [g.temperature for g, _ in rows], pad, torch.device("cpu"))
            broken += audit_mask(batch, rows)
        if self._held_out is None:
            self._held_out = frozenset(prompt.text for prompt in self.task.evaluation)
        return broken + audit_questions(fresh, self._held_out) + audit_parameters(self.policy.parameters)

    # ---------------------------------------------------------------------------------------- learning

    def late_groups(self, groups: Sequence[Group]) -> list[RolloutGroup]:
        """Groups of earlier steps for this update; rank 0 knows them, and all ranks get them."""
        shared = [list(groups)]
        if self.ranks > 1:
            broadcast_object_list(shared)
        for group in shared[0]:  # it may have been measured against an earlier reference, or another branch's
            for response in group.responses:
                response.reference_logprobs = []
        return [RolloutGroup(g, own=i % self.ranks == self.rank, late=True) for i, g in enumerate(shared[0])]

    def drift_limit(self) -> float:
        """Largest drift of a group that may still join an update."""
        return self.knobs.number("rating_max_kl")

    def drift(self, group: Group, safe_point: Callable[[], None] = lambda: None) -> float:
        """How far the policy has moved on a group's tokens since it was sampled: mean k3(old, now), nats a token."""
        rows = RolloutGroup(group).rows()
        now: list[float] = []
        old: list[float] = []

        def compare(part: list[Row]) -> None:
            safe_point()
            for row, values in zip(part, score(self.policy, self.policy.plain_scorer, part), strict=True):
                now.extend(values)
                old.extend(row.response.logprobs)

        self.training.budget.each(self.policy, rows, compare)
        # sampled from old, so k3 with the roles of policy and reference taken by old and now
        return float(k3(torch.tensor(old), torch.tensor(now)).mean()) if now else math.inf

    def measure_reference(self, step: int, groups: Sequence[RolloutGroup]) -> None:
        """Write l_ref into the groups, if this step compares the policy with its reference."""
        self.training.measure_reference(step, groups)

    def advantages(self, groups: Sequence[RolloutGroup], ratings: Mapping[str, Sequence[Rating]]) -> None:
        """Write rated rewards and advantages into every group, with and without the ratings.

        :param ratings: group name -> its standing ratings; rank 0 knows them, and all ranks get them.
        """
        if self.ranks > 1:
            shared = [dict(ratings)]
            broadcast_object_list(shared)
            ratings = shared[0]
        self.training.advantages(groups, ratings)

    def update(self, step: int, groups: Sequence[RolloutGroup], at_minibatch: Callable[[], None]) -> dict[str, float]:
        """Change the policy, and measure the step.

        :param at_minibatch: called where changes with boundary minibatch take effect.
        :returns: every metric of the step but its times.
        """
        asked = self.curriculum.measure([*self.replaced, *groups]) if self.curriculum else []
        self.training.self_check = copy.deepcopy(self._checked)  # a try that is left in the middle has checked nothing
        metrics = self.training.update(step, self.seed, groups, at_minibatch)
        self._checked = copy.deepcopy(self.training.self_check)
        self.control.commit()  # also where every group was dead: the step is learned and cannot be dropped any more
        metrics |= reward_statistics(groups, self.task.reward_range)
        metrics |= self.logged
        if self.knobs.whole("dynamic_sampling"):
            metrics["groups/replaced"] = float(len(self.replaced))
        if self.curriculum:
            metrics |= self.curriculum.learn(asked)
        self.step = step
        self.take_on()
        self.step_cursor = self.cursor
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

    def evaluate(self, most: int | None = None, samples: int | None = None, *, beside: bool = False) -> Evaluation:
        """Answer the held-out prompts, or the first so many.

        :param samples: further answers to each, for pass@k; None: as ``eval_samples`` says.
        :param beside: whether it is made inside a phase of a step.
        """
        return self.sampler.evaluate(most, samples, beside=beside, finished=self.step)

    def save(self, reason: str) -> Checkpoint:
        """Write a checkpoint of the finished step, now."""
        snapshot = self.snapshot(reason)
        try:
            return self.write(snapshot)
        finally:
            self.copies.give_back()

    def snapshot(self, reason: str) -> Snapshot:
        """Copy all that a checkpoint of the finished step holds; its memory is in use until it is given back.

        :raises RuntimeError: if another one's still is.
        """
        training, value = self.training, self.training.value_model
        made = self.reward_model if self.reward_model is not self._given else None
        state = TrainingState(
            step=self.step,
            cursor=self.cursor,
            step_cursor=self.step_cursor,
            optimizer_steps=self.optimizer.steps,
            values=self.knobs.values_after(self.step),
            reference_refreshed=self.reference.refreshed,
            last_algorithm=training.last_algorithm,
            value_model=value.kind if value else "",
            value_steps=value.optimizer.steps if value else 0,
            value_updates=value.updates if value else 0,
            branch=self.branch,
            seed=None if self.seed == self.settings.seed else self.seed,
            pending=self.knobs.pending,
            fisher=_of_check(self._checked),
            micro_tokens=training.budget.tokens if training.budget.tokens < self.settings.micro_tokens else 0,
            reward_model=made.state if made is not None else None,
            reward_ratings=self.reward_ratings,
            reward_untold=self.reward_untold,
            curriculum=self.curriculum.state if self.curriculum else None,
        )
        files: dict[str, Mapping[str, torch.Tensor]] = {
            "policy": self.policy.weights(),
            "optimizer": self.optimizer.tensors(),
        }
        if self.reference.refreshed:
            files["reference"] = self.reference.weights()
        if value:
            files |= {"value": value.tensors(), "value_optimizer": value.optimizer.tensors()}
        if made is not None:
            files["reward_model"] = made.tensors()
        copied = self.copies.take(files)
        self._reward_kept = self.reward_model
        return Snapshot(state, copied.pop("policy"), copied, reason)

    def write(self, snapshot: Snapshot, name: str = "") -> Checkpoint:
        """Write a snapshot to disk; on any thread, and training may go on meanwhile.

        :param name: of the checkpoint's folder; empty: its step.
        :raises OSError: if the disk will not have it.
        """
        return checkpointing.write_checkpoint(self.folder, snapshot, self.policy, name)

    def load(self, path: Path, state: TrainingState | None = None) -> None:
        """Go on from a checkpoint, whatever was trained before: weights, optimizers, value model, cursor, reference.

        :param state: of the checkpoint, where it has been read and every file checked.
        :raises Damaged: naming a file that is not what was written.
        """
        state = state or read_state(path)
        try:
            self._load(path, state)
        except (KeyError, ValueError, IndexError) as error:  # tensors of something else
            raise Damaged(f"checkpoint {path.name}: it is not this session's ({error})") from None

    def _load(self, path: Path, state: TrainingState) -> None:
        self.policy.load(checkpointing.policy_weights(path))
        training = self.training
        self.optimizer.load(checkpointing.tensors(path, "optimizer") or {}, state.optimizer_steps)
        if reference := checkpointing.tensors(path, "reference"):
            self.reference.load(reference, state.reference_refreshed)
        else:
            self.reference.begin_again()
        training.value_model = None
        if value := checkpointing.tensors(path, "value"):
            training.value_model = ValueModel(state.value_model, self.policy, self.knobs)
            optimizer = checkpointing.tensors(path, "value_optimizer") or {}
            training.value_model.load(value, optimizer, state.value_steps, state.value_updates)
        self._load_reward_model(path, state)
        training.last_algorithm, training.trust_region = state.last_algorithm, None
        self._checked = _check_of(state.fisher)
        training.budget.tokens = state.micro_tokens or self.settings.micro_tokens
        self.step, self.cursor, self._taken = state.step, state.cursor, 0
        self.step_cursor = state.step_cursor if state.step_cursor >= 0 else state.cursor
        self.replaced = []
        if self.curriculum:
            self.curriculum.begin(state.curriculum)

    def _load_reward_model(self, path: Path, state: TrainingState) -> None:
        self.reward_model, self.reward_ratings = self._given, state.reward_ratings
        tensors = checkpointing.tensors(path, "reward_model")
        if state.reward_model is not None and tensors:
            model = self.new_reward_model(state.reward_model.settings)
            model.load(tensors, state.reward_model)
            self.reward_model = model
        self.reward_untold = state.reward_untold and self.reward_model is not None
        self._reward_kept = self.reward_model

    def work_on(self, branch: str, seed: int) -> None:
        """Make the steps of a branch from here on.

        :param seed: of its noise and order of prompts.
        """
        self.branch = self.sampler.branch = branch
        self.seed = self.sampler.seed = seed

    def take_up(self, held: HeldRollout) -> list[RolloutGroup]:
        """The groups of a step that were sampled before the training left it, as :meth:`sample` gave them."""
        self._taken = held.taken
        self.replaced = [RolloutGroup(group) for group in held.replaced]
        self.logged = dict(held.logged)
        groups = [RolloutGroup(group) for group in held.groups]
        for group, entropies in zip(groups, held.entropies or [[] for _ in groups], strict=True):
            group.entropies = entropies
        return groups

    @property
    def taken(self) -> int:
        """Prompts that the step in progress has taken and not learned from."""
        return self._taken


def _replaced(group: RolloutGroup, recorded: Mapping[int, Group]) -> bool:
    """Whether another takes a group's place. One that was scored before had its place taken, or not, by the rewards of
    then: it may have been scored anew since."""
    before = recorded.get(group.record.number)
    if before is not None and _alike(group.record, before):
        return before.status == "replaced"
    return is_dead(group)


def _alike(group: Group, recorded: Group) -> bool:
    return [r.text for r in group.responses] == [r.text for r in recorded.responses]


def _score_as_recorded(group: Group, recorded: Group) -> None:
    if not _alike(group, recorded):
        return
    for response, before in zip(group.responses, recorded.responses, strict=True):
        response.components, response.heads = before.components, before.heads
        response.reward, response.failed = before.reward, before.failed


def _of_check(check: SelfCheck) -> FisherState | None:
    if check == SelfCheck():
        return None
    return FisherState(done=sorted(check.done), exists=check.exists, agrees=check.agrees, why=check.why)


def _check_of(state: FisherState | None) -> SelfCheck:
    if state is None:
        return SelfCheck()
    return SelfCheck(done=set(state.done), exists=state.exists, agrees=state.agrees, why=state.why)


def _same_tokens(one: Policy, other: Policy) -> bool:
    """Whether two models read prompts and responses as the same tokens."""
    alike = one.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    return alike and one.uses_chat_template == other.uses_chat_template and one.end_tokens == other.end_tokens
