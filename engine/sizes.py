"""What a model's parts take in memory, counted: from its tensors, its config and one small forward pass.

The bytes that a forward pass keeps for its backward pass are counted as autograd saves them, so no table of
architectures is needed. The pass draws no random number and leaves no gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.batches import make_batch, pack_batch
from engine.policy import Policy

PROBE_PROMPT, PROBE_RESPONSE = 16, 48
"""Tokens of the forward pass that is counted."""
GRADIENT_OF_LOGITS = 2
"""fp32 tensors as large as the logits that the backward pass adds: their gradient, and that of the tempered ones."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a policy's parts, and what one token adds.

    :ivar parameters: how many are trained.
    :ivar weights: of all parameters and buffers, those that are shared counted once.
    :ivar trainable: of the parameters that are trained; their gradient is as large, each moment of AdamW too.
    :ivar learned: of the weights that a checkpoint holds, and a reference once more: all, or those of adapters.
    :ivar trunk: of the parameters below the output layer that a separate value model has once more.
    :ivar head: of the value model's head.
    :ivar cache: of one token in the cache of keys and values.
    :ivar layers: that the cache is cut into.
    :ivar vocabulary: tokens.
    :ivar activation: kept for the backward pass for each input token.
    :ivar logits: the same for each response token, where logits are held, and the gradients of those.
    """

    parameters: int
    weights: int
    trainable: int
    learned: int
    trunk: int
    head: int
    cache: int
    layers: int
    vocabulary: int
    activation: float
    logits: float


def count(policy: Policy) -> Sizes:
    """Count a policy; on the thread that computes, because a forward pass is made."""
    model = policy.model
    config = model.config.get_text_config()
    width = model.get_output_embeddings().weight.shape[1]
    activation, logits = _kept(policy)
    return Sizes(
        parameters=sum(p.numel() for p in policy.parameters),
        weights=_bytes([*model.parameters(), *model.buffers()]),
        trainable=_bytes(policy.parameters),
        learned=_bytes(policy.weights().values()),
        trunk=_bytes(p for p in model.base_model.parameters() if policy.adapters is None or p.requires_grad),
        head=4 * (width + 1),
        cache=cache_bytes(config, 2 if policy.bf16 else 4),
        layers=int(config.num_hidden_layers),
        vocabulary=policy.vocabulary,
        activation=activation,
        logits=logits,
    )


def cache_bytes(config: object, element: int) -> int:
    """Bytes that one token takes in the cache: a key and a value in every layer for every head that has its own.

    :param element: bytes of a number.
    """
    heads = int(getattr(config, "num_attention_heads"))  # noqa: B009 - a config has no type that names it
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    size = int(getattr(config, "head_dim", None) or getattr(config, "hidden_size") // heads)  # noqa: B009
    return int(getattr(config, "num_hidden_layers")) * shared * size * 2 * element  # noqa: B009


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of the storages behind them, each once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _kept(policy: Policy) -> tuple[float, float]:
    """Bytes that a forward pass keeps for its backward pass: a token, and a response token where they are logits."""
    own = {p.untyped_storage().data_ptr() for p in (*policy.model.parameters(), *policy.model.buffers())}
    kept: dict[int, tuple[int, bool]] = {}
    held: list[Tensor] = []  # while they are counted no storage may be freed and its place taken by another

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            wide = tensor.dim() > 1 and tensor.shape[-1] == policy.vocabulary
            kept[storage.data_ptr()] = (storage.nbytes(), wide or kept.get(storage.data_ptr(), (0, False))[1])
            held.append(tensor)
        return tensor

    token = policy.pad
    make = pack_batch if policy.packs else make_batch
    batch = make([[token] * PROBE_PROMPT], [[token] * PROBE_RESPONSE], [1.0], policy.pad, policy.device)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        policy.plain_scorer(batch)
    logits = sum(size for size, wide in kept.values() if wide)
    rest = sum(size for size, wide in kept.values() if not wide)
    tokens = PROBE_PROMPT + PROBE_RESPONSE
    return rest / tokens, logits / PROBE_RESPONSE + GRADIENT_OF_LOGITS * 4 * policy.vocabulary
