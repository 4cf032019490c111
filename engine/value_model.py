r"""The value model: what a response will be worth, estimated before each of its tokens.

A scalar head reads the direction of the state from which the policy predicts token t; :math:`V_t` is its guess of the
return from there on. (Only the direction, because models differ a hundredfold in the size of their states, and
``value_learning_rate`` should mean the same for all.) It begins at the mean score of its first rollout. Three kinds,
by where the head's gradient goes:

========  ==========================================================================================
head      it stops at the policy's trunk
shared    it flows into the policy's trunk, weighed by ``value_coefficient``
separate  the head sits on a trunk of its own, a copy of the policy's when the value model was made;
          with adapters they are the copy, and the base is shared
========  ==========================================================================================

It is not the reward model: that one reads a finished response, and is not trained beside the policy.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.batches import Batch
from engine.knobs import Knobs
from engine.optimizer import Optimizer
from engine.policy import Policy
from engine.scorer import Scores

SEPARATE = "separate"


class ValueModel:
    """A head, its trunk and its optimizer.

    :ivar updates: updates that it has been trained in; the first ``value_warmup_steps`` train it alone.
    """

    def __init__(self, kind: str, policy: Policy, knobs: Knobs) -> None:
        self.kind, self._knobs, self._accelerator = kind, knobs, policy.accelerator
        self._fused = "fused_adamw" in policy.shortcuts
        width = policy.model.get_output_embeddings().weight.shape[1]
        self.head = nn.Linear(width, 1).to(policy.device)
        nn.init.zeros_(self.head.weight)  # alike for every state at first, which no seed has to choose
        nn.init.zeros_(self.head.bias)
        self.trunk: Any = policy.trunk_to_train() if kind == SEPARATE else None
        self._adapters = policy.adapters
        self.optimizer = self._make_optimizer()
        self.updates = 0

    def _make_optimizer(self) -> Optimizer:
        trunk = self.trunk.parameters() if self.trunk is not None else ()
        parameters = [*self.head.parameters(), *(p for p in trunk if p.requires_grad)]
        return Optimizer(
            parameters, self._accelerator, self._knobs, rate="value_learning_rate", reduce=True, fused=self._fused
        )

    def estimate(self, batch: Batch, scores: Scores | None, *, alone: bool = True) -> Tensor:
        """V [rows, T] in fp32, with gradient where gradients are on.

        :param scores: of the policy on the batch, with its states; a model with a trunk of its own needs none.
        :param alone: whether the policy's trunk is to be left alone, of whatever kind the value model is.
        """
        if self.trunk is not None:
            states = self.trunk(
                input_ids=batch.ids, attention_mask=batch.attention, position_ids=batch.positions, use_cache=False
            )
            return self._of_states(batch.gather(states.last_hidden_state))
        assert scores is not None
        assert scores.hidden is not None
        hidden = scores.hidden
        if self.kind == "shared" and not alone:
            weight = self._knobs.number("value_coefficient")
            hidden = hidden.detach() + weight * (hidden - hidden.detach())  # the value; its gradient, weighed
        else:
            hidden = hidden.detach()
        return self._of_states(hidden)

    def _of_states(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(F.normalize(hidden.float(), dim=-1)).squeeze(-1)

    def begin_at(self, value: float) -> None:
        """Before it has learned anything: estimate ``value`` everywhere."""
        if self.updates == 0:
            nn.init.constant_(self.head.bias, value)

    @property
    def warmup_left(self) -> int:
        """Updates in which it is still trained alone."""
        return max(0, self._knobs.whole("value_warmup_steps") - self.updates)

    def shadow(self, knobs: Knobs) -> ValueModel:
        """A copy that can be trained without touching this one."""
        copied = copy.copy(self)
        copied._knobs = knobs
        shared: list[Tensor] = []
        if self.trunk is not None:
            shared = [*(p for p in self.trunk.parameters() if not p.requires_grad), *self.trunk.buffers()]
        copied.head = copy.deepcopy(self.head)
        copied.trunk = copy.deepcopy(self.trunk, {id(tensor): tensor for tensor in shared})
        copied.optimizer = copied._make_optimizer()
        copied.optimizer.load(self.optimizer.tensors(), self.optimizer.steps)
        return copied

    def tensors(self) -> dict[str, Tensor]:
        """Its weights by name; not copies, so the next step changes them."""
        named: dict[str, Tensor] = {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}
        if self.trunk is not None:
            trunk = self._adapters.weights(self.trunk) if self._adapters else self.trunk.state_dict()
            named |= {f"trunk.{name}": tensor for name, tensor in trunk.items()}
        return named

    def load(self, tensors: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], steps: int, updates: int) -> None:
        """Take the weights and the optimizer of a checkpoint."""
        for prefix, module in (("head.", self.head), ("trunk.", self.trunk)):
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            if module is self.trunk and module is not None and self._adapters:
                self._adapters.put(module, own)
            elif module is not None:
                module.load_state_dict(own)
        if optimizer:
            self.optimizer.load(optimizer, steps)
        self.updates = updates
