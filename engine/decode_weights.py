"""Weights laid out for decoding: packed for few rows on a CPU, in bf16 on CUDA.

Both are copies of the linear layers' weights, made anew for each rollout because the weights have changed since, and
read only while it is sampled. Embeddings and norms are read where they are, and so is an output layer in fp32.

Adapters are added to the copy that is packed. Rounded to bf16, a sum would lose what little they add at first, so
there they are computed beside, as in training.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.adapters import layers, whole_weight
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
    if policy.device.type == "cuda" and policy.bf16:
        found: dict[nn.Module, Callable[[Tensor], Tensor]] = {layer: _rounded(layer) for layer in linear_layers(policy)}
    elif policy.device.type == "cpu" and not policy.bf16 and rows <= PACKED_ROWS and steps >= PACKED_STEPS:
        around = {layer.get_base_layer(): layer for layer in layers(policy.model)}
        packed = _worth_packing(policy)
        found = {around.get(plain, plain): _packed(plain, around.get(plain)) for plain in packed}
        if not packed:  # a small model: a sum costs little, and one product is faster than three
            found = {around[plain]: _whole(plain, around[plain]) for plain in linear_layers(policy) if plain in around}
    else:
        found = {}
    try:
        for layer, forward in found.items():
            layer.__dict__["forward"] = forward  # read before the class's own
        yield
    finally:
        for layer in found:
            layer.__dict__.pop("forward", None)


def linear_layers(policy: Policy) -> list[nn.Linear]:
    """The layers that compute just what ``nn.Linear`` does, from fp32 weights: not an output layer kept in fp32."""
    return [
        module
        for module in policy.model.modules()
        if type(module) is nn.Linear and "forward" not in vars(module) and module.weight.dtype == torch.float32
    ]


def _worth_packing(policy: Policy) -> list[nn.Linear]:
    """The layers to pack; empty where it does not pay."""
    large = [layer for layer in linear_layers(policy) if layer.weight.numel() >= PACKED_LAYER]
    pays = sum(layer.weight.numel() for layer in large) >= PACKED_MODEL
    return large if pays and packing_works() else []


_bf16: weakref.WeakKeyDictionary[nn.Linear, tuple[Tensor, Tensor | None]] = weakref.WeakKeyDictionary()
"""Copies that stay where they are, because recorded decode steps read them there."""


def _rounded(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    """A layer with weights in bf16: what autocast computes, with the weights cast once a rollout."""
    own = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    if layer not in _bf16:
        _bf16[layer] = own[0].to(torch.bfloat16), None if own[1] is None else own[1].to(torch.bfloat16)
    weight, bias = _bf16[layer]
    weight.copy_(own[0])
    if bias is not None and own[1] is not None:
        bias.copy_(own[1])
    return lambda x: F.linear(x.to(torch.bfloat16), weight, bias)


def _packed(layer: nn.Linear, adapted: nn.Module | None) -> Callable[[Tensor], Tensor]:
    """A layer, or the one with adapters around it, with packed weights."""
    whole = layer.weight.detach() if adapted is None else whole_weight(adapted)
    weight, bias = _pack(whole), None if layer.bias is None else layer.bias.detach()
    return lambda x: _apply(x, weight, bias)


def _whole(layer: nn.Linear, adapted: nn.Module) -> Callable[[Tensor], Tensor]:
    """A layer with adapters as one without."""
    weight, bias = whole_weight(adapted), None if layer.bias is None else layer.bias.detach()
    return lambda x: F.linear(x, weight, bias)


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
