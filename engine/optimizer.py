"""The policy's optimizer: AdamW, stepped only on finite gradients, its knobs read before each step."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from engine.knobs import Knobs
from engine.policy import Policy
from engine.randomness import stream

SAMPLE = 100_000
"""Parameters watched for the size of an update."""


class PolicyOptimizer:
    """AdamW on the policy's trainable parameters.

    :ivar steps: optimizer steps taken in this session.
    :ivar learning_rate: of the last step, warm-up applied.
    """

    def __init__(self, policy: Policy, knobs: Knobs) -> None:
        self._policy = policy
        self._knobs = knobs
        self.steps = 0
        self.learning_rate = 0.0
        fused = policy.device.type in {"cpu", "cuda"}
        plain = torch.optim.AdamW(policy.parameters, lr=0.0, fused=fused)
        self.optimizer: Any = policy.accelerator.prepare_optimizer(plain)
        self._watched = _watched(policy.parameters)

    def step(self) -> float | None:
        """Clip, step and clear the gradient.

        :returns: the gradient's norm before clipping; None if it was not finite, and then no weight has changed.
        """
        accelerator: Accelerator = self._policy.accelerator
        knobs = self._knobs
        norm = float(accelerator.clip_grad_norm_(self._policy.parameters, knobs.number("max_grad_norm")))
        if math.isfinite(norm):
            warmup = knobs.whole("lr_warmup_steps")
            rise = min(1.0, (self.steps + 1) / warmup) if warmup else 1.0
            self.learning_rate = knobs.number("learning_rate") * rise
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate
                group["betas"] = (knobs.number("adam_beta1"), knobs.number("adam_beta2"))
                group["weight_decay"] = knobs.number("weight_decay")
            self.optimizer.step()
            self.steps += 1
        self.optimizer.zero_grad(set_to_none=True)
        return norm if math.isfinite(norm) else None

    def clear(self) -> None:
        """Forget gradients of an update that was dropped."""
        self.optimizer.zero_grad(set_to_none=True)

    def watch(self) -> Tensor:
        """A copy of the watched parameters [at most 100,000]."""
        parts = [p.detach().flatten()[index] for p, index in self._watched]
        return torch.cat(parts).float().clone()

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's state as named tensors, for a checkpoint."""
        state = self.optimizer.state_dict()["state"]
        return {
            f"{index}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
            for index, entry in state.items()
            for name, value in entry.items()
        }

    def load(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Take the state of a checkpoint."""
        whole = self.optimizer.state_dict()
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
        self.steps = steps


def relative_size(before: Tensor, after: Tensor) -> float:
    """Norm of the change over the norm, on the watched parameters."""
    return float((after - before).norm() / before.norm().clamp(min=1e-12))


def _watched(parameters: list[torch.nn.Parameter]) -> list[tuple[torch.nn.Parameter, Tensor]]:
    total = sum(p.numel() for p in parameters)
    if total <= SAMPLE:
        return [(p, torch.arange(p.numel(), device=p.device)) for p in parameters]
    chosen = torch.from_numpy(stream("watched parameters").integers(total, size=SAMPLE)).sort().values
    watched, start = [], 0
    for parameter in parameters:
        inside = chosen[(chosen >= start) & (chosen < start + parameter.numel())] - start
        if len(inside):
            watched.append((parameter, inside.to(parameter.device)))
        start += parameter.numel()
    return watched
