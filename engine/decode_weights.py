"""Weights laid out for decoding: packed for few rows on a CPU, in bf16 on CUDA.

Both are copies of the linear layers' weights, made anew for each rollout because the weights have changed since, and
read only while it is sampled. Embeddings and norms are read where they are, and so is an output layer in fp32.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.policy import Policy

PACKED_ROWS = 64
"""Rows up to which packed weights are faster on a CPU (1.1 to 2.7 times, measured); also what they are packed for."""

PACKED_LAYER = 2**18
"""Parameters from which a linear layer gains by it: below, a call costs more than it saves."""

PACKED_MODEL = 20_000_000
"""Parameters in such layers from which packing pays: the weights of a smaller model stay in the cache of the CPU."""

PACKED_STEPS = 16
"""Tokens from which a rollout gains more than packing costs it."""

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def decode_weights(policy: Policy, rows: int, steps: int) -> Iterator[None]:
    """Let the model read weights laid out for sampling up to ``steps`` tokens on ``rows`` rows, where that is faster.

    The choice is a fixed rule and not a measurement: a rollout that is sampled again must have the same bits.
    """
    layers = list(_layers(policy, rows, steps))
    try:
        for layer in layers:
            layer.__dict__["forward"] = _packed(layer)  # read before the class's own
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _layers(policy: Policy, rows: int, steps: int) -> Iterator[nn.Linear]:
    """The layers to pack, empty where it does not pay."""
    if policy.device.type != "cpu" or policy.bf16 or rows > PACKED_ROWS or steps < PACKED_STEPS:
        return
    found = [
        module
        for module in policy.model.modules()
        if type(module) is nn.Linear
        and "forward" not in vars(module)
        and module.weight.dtype == torch.float32
        and module.weight.numel() >= PACKED_LAYER
    ]
    if sum(layer.weight.numel() for layer in found) >= PACKED_MODEL and packing_works():
        yield from found


def _packed(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight, bias = _pack(layer.weight.detach()), None if layer.bias is None else layer.bias.detach()
    return lambda x: _apply(x, weight, bias)


def _pack(weight: Tensor) -> Any:
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_ROWS)


def _apply(x: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
    """``F.linear`` with a packed weight."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


@functools.cache
def packing_works() -> bool:
    """Whether oneDNN's packed layers are there and agree with ``F.linear``; they are no public part of torch.

    Asked once a process; where they do not, the log says so and sampling reads the weights as they are.
    """
    with torch.no_grad():
        numbers = torch.linspace(-1, 1, 96 * 80 + 5 * 80 + 96)
        weight, x, bias = numbers[: 96 * 80].view(96, 80), numbers[96 * 80 : -96].view(5, 1, 80), numbers[-96:]
        try:
            gaps = [(_apply(x, _pack(weight), b) - F.linear(x, weight, b)).abs().max() for b in (None, bias)]
        except (AttributeError, RuntimeError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
        else:
            reason = "" if max(gaps) < 1e-4 else f"they differ from plain ones by {float(max(gaps)):.1e}"
    if reason:
        _log.warning("sampling reads plain weights: packed ones cannot be used here (%s)", reason)
    return not reason
