"""The update of GRPO and PPO: passes over a rollout, cut into minibatches and micro-batches, one optimizer step a
minibatch.

The objective (:mod:`engine.objectives`) says what is minimised. Every denominator is over the whole minibatch and all
processes, so neither the cut into micro-batches nor the number of processes changes a gradient. An update that fails
half-way leaves the weights as they were.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from accelerate.utils import gather_object

from engine.control import Control
from engine.knobs import Knobs
from engine.objectives import Objective, Part
from engine.optimizer import Optimizer, Saved, relative_size
from engine.passes import Budget, batch_of, micro_batches
from engine.policy import Policy
from engine.rollout import RolloutGroup, Row, minibatches
from engine.tally import Tally


class NonFinite(ArithmeticError):
    """A loss or gradient was not finite; every weight is as it was before the update.

    :ivar responses: names of those it came from.
    """

    def __init__(self, what: str, responses: Sequence[str]) -> None:
        shown = ", ".join(responses[:3]) + (f" and {len(responses) - 3} more" if len(responses) > 3 else "")
        super().__init__(f"{what} is not finite, from {shown or 'the whole minibatch'}; no weight has changed")
        self.responses = list(responses)


@dataclass
class Update:
    """Everything an update needs.

    :ivar objective: what a micro-batch minimises.
    :ivar optimizers: the policy's, unless it is not to be trained now, and the value model's, where there is one.
    :ivar budget: how much one forward and backward may hold.
    :ivar at_minibatch: called before each optimizer step's forward passes, where changes take effect.
    :ivar stop_kl: an update stops before the minibatch that finds KL(old, new) over this; 0: never.
    """

    policy: Policy
    objective: Objective
    optimizers: dict[str, Optimizer]
    knobs: Knobs
    control: Control
    budget: Budget
    at_minibatch: Callable[[], None]
    stop_kl: float = 0.0
    tally: Tally = field(default_factory=Tally)

    def run(self, groups: Sequence[RolloutGroup], *key: str | int) -> dict[str, float]:
        """``epochs`` passes over the rollout in ``minibatches`` sets of whole groups; one optimizer step for each.

        :param groups: of all processes; each trains its own, and every denominator is over all.
        :param key: names the shuffling of groups.
        :returns: the update's metrics.
        :raises NonFinite: naming responses; every weight is as it was before.
        """
        plan = self.plan(groups, *key)
        before = {name: optimizer.watch() for name, optimizer in self.optimizers.items()}
        saved = [Saved(optimizer) for optimizer in self.optimizers.values()] if len(plan) > 1 else []
        for optimizer in self.optimizers.values():
            optimizer.allocate()
        try:
            stepped = self._passes(plan)
        except Exception:
            for kept in saved:
                kept.restore()
            raise
        metrics = self.tally.results(self.policy.accelerator)
        metrics["update/optimizer_steps"] = float(stepped)
        policy = self.optimizers.get("policy")
        if stepped and policy:
            metrics["update/relative_size"] = relative_size(before["policy"], policy.watch())
            metrics["learning_rate"] = policy.learning_rate
        return metrics

    def plan(self, groups: Sequence[RolloutGroup], *key: str | int) -> list[list[RolloutGroup]]:
        """The minibatches of all epochs, in order."""
        parts = self.knobs.whole("minibatches")
        return [m for epoch in range(self.knobs.whole("epochs")) for m in minibatches(groups, parts, *key, epoch)]

    def _passes(self, plan: Sequence[Sequence[RolloutGroup]]) -> int:
        """Step for each minibatch; how many there were."""
        stepped = 0
        for index, minibatch in enumerate(plan):
            self.at_minibatch()
            rows = [row for group in minibatch for row in group.rows()]
            self._note_left_out(rows)
            if not any(self.objective.teaches(row) for row in rows):
                continue  # all dead: stepping would only follow the optimizer's momentum
            kl = self._gradient(rows, first=stepped == 0, progress=(index, len(plan)))
            if stepped and self.stop_kl > 0 and kl > self.stop_kl:
                self._clear()
                break
            norms = {name: optimizer.clip() for name, optimizer in self.optimizers.items()}
            if not all(map(math.isfinite, norms.values())):
                culprits = self._culprits(rows)
                self._clear()
                raise NonFinite(f"the gradient of minibatch {index + 1} of {len(plan)}", culprits)
            if not stepped:
                later = [row for minibatch in plan[index + 1 :] for group in minibatch for row in group.rows()]
                self.objective.old.before_moving([row for row in later if self.objective.reaches(row)])
            self.control.commit()
            for name, optimizer in self.optimizers.items():
                optimizer.step()
                self.tally.add("grad/norm" if name == "policy" else f"{name}/grad_norm", norms[name])
            stepped += 1
        return stepped

    def _note_left_out(self, rows: Sequence[Row]) -> None:
        """Let rows that have no forward pass count in the entropy, with what the sampler saw."""
        taught = any(self.objective.teaches(row) for row in rows)
        for row in rows:
            if taught and self.objective.reaches(row):
                continue
            if row.group.own and row.sampled_entropies:
                self.tally.add("entropy", math.fsum(row.sampled_entropies), len(row.sampled_entropies))
                row.response.entropies = row.response.entropies or row.sampled_entropies

    def _clear(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.clear()

    def _gradient(self, rows: Sequence[Row], *, first: bool, progress: tuple[int, int]) -> float:
        """The gradient of one minibatch, in smaller micro-batches where memory asks for them; its mean KL(old, new)."""
        tally = copy.deepcopy(self.tally)

        def undo() -> None:
            self._clear()
            self.objective.old.forget()
            self.tally = copy.deepcopy(tally)

        return self.budget.retry(lambda: self._backward(rows, first=first, progress=progress), undo)

    def _backward(self, rows: Sequence[Row], *, first: bool, progress: tuple[int, int]) -> float:
        """The gradient of one minibatch, in micro-batches; its mean KL(old, new) over all processes."""
        over = self.objective.denominators(rows)
        mine = [row for row in rows if row.group.own and self.objective.reaches(row)]
        batches = list(micro_batches(self.policy, mine, self.budget.tokens, keeps_logits=self.objective.keeps_logits))
        accelerator = self.policy.accelerator
        moved = Tally()
        if not batches and accelerator.num_processes > 1 and "policy" in self.optimizers:
            self._join_reduction(rows[0])
        for i, part in enumerate(batches):
            self.control.advance(progress[0] * len(batches) + i, progress[1] * len(batches))
            last = i + 1 == len(batches)
            with nullcontext() if last else accelerator.no_sync(self.policy.scorer):
                loss: Part = self.objective.part(part, over, self.tally, first=first)
                if accelerator.num_processes == 1 and not math.isfinite(float(loss.total.detach())):
                    self._clear()  # several processes find out together, from the gradient
                    raise NonFinite("the loss", self._culprits(part))
                # the reduction over processes is a mean, and the denominators are already those of all
                accelerator.backward(loss.total * accelerator.num_processes)
            moved.add("kl", loss.kl_old_new, loss.tokens)
        return moved.results(accelerator).get("kl", 0.0)

    def _join_reduction(self, row: Row) -> None:
        """A process without a share still takes part in the reduction of gradients, with zeros."""
        scores = self.policy.scorer(batch_of(self.policy, [row]))
        self.policy.accelerator.backward(scores.logprobs.sum() * 0.0)

    def _culprits(self, rows: Sequence[Row]) -> list[str]:
        """Which of this process's rows have a loss or gradient that is not finite, tried one by one."""
        found = []
        over = self.objective.denominators(rows)
        with self.policy.accelerator.no_sync(self.policy.scorer):
            for row in rows:
                if not row.group.own or not self.objective.reaches(row):
                    continue
                self._clear()
                loss = self.objective.part([row], over, Tally(), first=False)
                if math.isfinite(float(loss.total.detach())):
                    self.policy.accelerator.backward(loss.total)
                    if self._finite_gradients():
                        continue
                found.append(row.name)
        self._clear()
        if self.policy.accelerator.num_processes > 1:
            found = [name for part in gather_object([found]) for name in part]
        return found

    def _finite_gradients(self) -> bool:
        gradients = [p.grad for o in self.optimizers.values() for p in o.parameters if p.grad is not None]
        return all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
