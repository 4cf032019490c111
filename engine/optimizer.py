"""AdamW for the policy and for the value model: stepped only on finite gradients, its knobs read before each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from engine.knobs import Knobs
from engine.randomness import stream

SAMPLE = 20_000
"""Parameters watched for the size of an update: its estimate is then right to about a percent."""


class Optimizer:
    """AdamW on some parameters.

    :param rate: the hyperparameter that is its learning rate.
    :param reduce: whether gradients are still this process's own when it steps: their mean over all is taken then,
        as losses are multiplied by the number of processes.
    :param fused: whether one kernel does a tensor's step, where the device has one.
    :ivar steps: optimizer steps taken in this session.
    :ivar learning_rate: of the last step, warm-up applied.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        accelerator: Accelerator,
        knobs: Knobs,
        *,
        rate: str = "learning_rate",
        reduce: bool = False,
        fused: bool = True,
    ) -> None:
        self.parameters = list(parameters)
        self._accelerator, self._knobs, self._rate, self._reduce = accelerator, knobs, rate, reduce
        self.steps = 0
        self.learning_rate = 0.0
        fused = fused and accelerator.device.type in {"cpu", "cuda"}
        plain = torch.optim.AdamW(self.parameters, lr=0.0, fused=fused)
        self.optimizer: Any = accelerator.prepare_optimizer(plain)
        accelerator._optimizers.remove(self.optimizer)  # kept for checkpoints that we write ourselves, and for ever
        self._watched = _watched(self.parameters)

    def allocate(self) -> None:
        """Make the moments of parameters that have none yet, so that no step runs out of memory half-way.

        :raises Exception: what the allocation raises; then some parameters have moments and some have none.
        """
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if self.optimizer.state.get(parameter):
                    continue
                first, second = torch.zeros_like(parameter), torch.zeros_like(parameter)
                device = parameter.device if group["fused"] else "cpu"
                step = torch.zeros((), dtype=torch.float32, device=device)
                self.optimizer.state[parameter] = {"step": step, "exp_avg": first, "exp_avg_sq": second}

    def clip(self) -> float:
        """Bring the gradient's norm to at most ``max_grad_norm``.

        :returns: the norm before; step only if it is finite.
        """
        if self._reduce and self._accelerator.num_processes > 1:
            for parameter in self.parameters:
                grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self._accelerator.reduce(grad, "mean")
        return float(self._accelerator.clip_grad_norm_(self.parameters, self._knobs.number("max_grad_norm")))

    def step(self) -> None:
        """Step, and clear the gradient."""
        knobs = self._knobs
        warmup = knobs.whole("lr_warmup_steps")
        rise = min(1.0, (self.steps + 1) / warmup) if warmup else 1.0
        self.learning_rate = knobs.number(self._rate) * rise
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
            group["betas"] = (knobs.number("adam_beta1"), knobs.number("adam_beta2"))
            group["weight_decay"] = knobs.number("weight_decay")
        self.optimizer.step()
        self.steps += 1
        self.clear()

    def clear(self) -> None:
        """Forget the gradient."""
        self.optimizer.zero_grad(set_to_none=True)

    def forget_direction(self) -> None:
        """Zero the first moment: it points where the policy was before another algorithm moved it."""
        for entry in self.optimizer.state_dict()["state"].values():
            entry["exp_avg"].zero_()

    def watch(self) -> Tensor:
        """A copy of the watched parameters [at most 100,000]."""
        parts = [p.detach().flatten()[index] for p, index in self._watched]
        return torch.cat(parts).float().clone()

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's state as named tensors; not copies, so the next step changes them."""
        state = self.optimizer.state_dict()["state"]
        return {
            f"{index}.{name}": torch.as_tensor(value).detach()
            for index, entry in state.items()
            for name, value in entry.items()
        }

    def load(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Take the state of a checkpoint, or of another optimizer of such parameters."""
        whole = self.optimizer.state_dict()
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value.clone()
        self.optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
        self.steps = steps


class Saved:
    """Parameters and the state of their optimizer as they are now, to go back to; kept in main memory."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._parameters = [p.detach().to("cpu", copy=True) for p in optimizer.parameters]
        self._state = {name: tensor.to("cpu", copy=True) for name, tensor in optimizer.tensors().items()}
        self._steps = optimizer.steps

    def restore(self) -> None:
        """Put everything back, bit for bit."""
        with torch.no_grad():
            for parameter, before in zip(self._optimizer.parameters, self._parameters, strict=True):
                parameter.copy_(before)
        self._optimizer.load(self._state, self._steps)
        self._optimizer.clear()


def relative_size(before: Tensor, after: Tensor) -> float:
    """Norm of the change over the norm, on the watched parameters."""
    return float((after - before).norm() / before.norm().clamp(min=1e-12))


def _watched(parameters: list[nn.Parameter]) -> list[tuple[nn.Parameter, Tensor]]:
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
