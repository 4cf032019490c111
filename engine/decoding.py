"""Decoding: the model's next logits, one token a row at a time, behind a cache of keys and values.

A prompt is read once and its cache spread over its group. Prompts are padded on the left, so the newest token of every
row is in the same slot of the cache, and padding only ever masks slots before a prompt begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from engine.batches import make_batch
from engine.policy import Policy
from engine.randomness import stream

ROOM = 4
"""Tokens that the caches grow by at least, and by half of their length: growing copies them, and so does dropping rows,
which copies the room too."""


class Decoder(Protocol):
    """A batch of rows that is continued token by token."""

    def step(self, token: Tensor) -> Tensor:
        """Append a token to each row.

        :param token: [rows].
        :returns: logits of the tokens that follow, [rows, V].
        """

    def keep(self, rows: Tensor) -> None:
        """Let go of all rows but these.

        :param rows: [kept], ascending.
        """


@dataclass(slots=True)
class Prefill:
    """The prompts, read.

    :ivar logits: [prompts, V], of each prompt's first response token.
    :ivar attention: [prompts, P], 1 on real tokens.
    :ivar cache: of ``prompts`` rows.
    :ivar repeats: rows that each prompt is to be continued by.
    """

    logits: Tensor
    attention: Tensor
    cache: DynamicCache
    repeats: int

    def spread(self) -> Tensor:
        """Logits for every row, [prompts x repeats, V]."""
        return self.logits.repeat_interleave(self.repeats, 0)


def prefill(policy: Policy, prompts: Sequence[Sequence[int]], repeats: int, *, shared: bool = True) -> Prefill:
    """Read the prompts.

    :param repeats: rows that each prompt is continued by, one after the other.
    :param shared: read each once; otherwise once for each of its rows.
    """
    if not shared:
        prompts, repeats = [prompt for prompt in prompts for _ in range(repeats)], 1
    ids, attention = left_padded(prompts, policy.pad, policy.device)
    cache = DynamicCache(config=policy.model.config)
    logits = policy.model(
        input_ids=ids,
        attention_mask=attention,
        position_ids=(attention.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return Prefill(logits, attention, cache, repeats)


DECODE_TOLERANCE = 0.1
"""Nats by which a decoded token's log-probability may differ: a model that forgets its past is off by more."""


@torch.no_grad()
def why_not_decoded(policy: Policy) -> str:
    """Why a model says something else token by token than at once; empty if it says the same.

    Models that keep their past in a cache of their own take no notice of ours, and would be sampled without it.
    """
    rows = stream("decoding").integers(policy.vocabulary, size=(2, 7)).tolist()
    try:
        batch = make_batch([row[:3] for row in rows], [row[3:] for row in rows], [1.0, 1.0], policy.pad, policy.device)
        want = policy.full_precision_scorer(batch).logprobs
        read = prefill(policy, [row[:3] for row in rows], 1)
        decoder, logits = GrowingDecoder(policy, read, 4), read.spread()
        off = 0.0
        for t in range(4):
            token = torch.tensor([row[3 + t] for row in rows], device=policy.device)
            found = logits.float().log_softmax(-1).gather(-1, token[:, None]).squeeze(1)
            off = max(off, float((found - want[:, t]).abs().max()))
            if t < 3:
                logits = decoder.step(token)
    except Exception as error:  # noqa: BLE001 - models raise many kinds when they are given what they do not take
        text = str(error).strip().splitlines()
        return f"{type(error).__name__}: {text[0][:80] if text else ''}"
    return "" if off <= DECODE_TOLERANCE else f"its log-probabilities are off by {off:.1f} nats"


class GrowingDecoder:
    """Decoding with caches that grow with the longest row.

    :param room: tokens that a row may still get.
    """

    def __init__(self, policy: Policy, read: Prefill, room: int) -> None:
        self._model, self._cache = policy.model, read.cache
        rows, self._width = len(read.attention) * read.repeats, read.attention.shape[1]
        each = torch.arange(rows, device=policy.device) // read.repeats
        plain = masks_alone(policy.model, self._cache)
        for i, layer in enumerate(self._cache.layers):
            if type(layer) is DynamicLayer and layer.is_initialized:
                self._cache.layers[i] = GrowingLayer(layer, read.repeats, room)
            elif read.repeats > 1:
                layer.reorder_cache(each)
        self._position = read.attention.sum(1)[each][:, None]
        self._attention: Tensor | None = None
        if not bool(read.attention.all()):
            whole = torch.nn.functional.pad(read.attention, (0, room), value=1)[each]
            self._attention = additive_mask(whole, policy.model.dtype) if plain else whole

    def step(self, token: Tensor) -> Tensor:
        self._width += 1
        logits: Tensor = self._model(
            input_ids=token[:, None],
            attention_mask=None if self._attention is None else self._attention[..., : self._width],
            position_ids=self._position,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self._position = self._position + 1
        return logits

    def keep(self, rows: Tensor) -> None:
        for layer in self._cache.layers:
            layer.reorder_cache(rows)
        self._position = self._position[rows]
        if self._attention is not None:
            self._attention = self._attention[rows]


class GrowingLayer(DynamicLayer):
    """A cache layer that writes new keys and values into room allocated before, where DynamicLayer copies them all.

    :param read: the prompts' keys and values, [prompts, heads, P, D] each.
    :param repeats: rows for each prompt.
    :param room: tokens that a row may still get.
    """

    def __init__(self, read: DynamicLayer, repeats: int, room: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = read.dtype, read.device, True
        length = read.keys.shape[-2]
        self._kept = [_roomier(t, repeats, min(room, max(ROOM, length // 2))) for t in (read.keys, read.values)]
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (kept[..., :length, :] for kept in self._kept)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        begin = self.keys.shape[-2]
        end = begin + key_states.shape[-2]
        if end > self._kept[0].shape[-2]:
            more = max(end - begin, ROOM, begin // 2)
            self._kept = [_roomier(t, 1, more) for t in (self.keys, self.values)]
        for kept, states in zip(self._kept, (key_states, value_states), strict=True):
            kept[..., begin:end, :] = states
        self._show(end)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        length = self.keys.shape[-2]
        self._kept = [kept.index_select(0, beam_idx) for kept in self._kept]
        self._show(length)


def _roomier(states: Tensor, repeats: int, room: int) -> Tensor:
    """States [n, heads, length, D] as [n x repeats, heads, length + room, D], the room uninitialised."""
    n, heads, length, size = states.shape
    made = states.new_empty(n * repeats, heads, length + room, size)
    made.unflatten(0, (n, repeats))[..., :length, :] = states[:, None]
    return made


def masks_alone(model: Any, cache: DynamicCache) -> bool:
    """Whether a mask of [rows, 1, queries, keys], added to the attention scores, is all that a model makes of padding.

    So it is with rotary positions in ``sdpa`` or ``eager`` attention over the whole past. Others read the padding mask
    themselves (ALiBi, linear attention) or lay a window over it, and get the padding mask.

    :param cache: as the model's configuration makes it.
    """
    config = model.config.get_text_config()
    return (
        getattr(config, "_attn_implementation", "") in {"sdpa", "eager"}
        and bool(getattr(config, "rope_parameters", None))
        and not getattr(config, "alibi", False)
        and all(type(layer) is DynamicLayer for layer in cache.layers)
    )


def additive_mask(attention: Tensor, dtype: torch.dtype) -> Tensor:
    """0 on real tokens and the least number of ``dtype`` on padding: [rows, keys] as [rows, 1, 1, keys]."""
    mask = torch.zeros(attention.shape, dtype=dtype, device=attention.device)
    return mask.masked_fill_(attention == 0, torch.finfo(dtype).min)[:, None, None]


def left_padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and padding mask (1 on real tokens), [prompts, P] each."""
    width = max(len(p) for p in prompts)
    ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    attention = torch.zeros(len(prompts), width, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        attention[i, width - len(prompt) :] = 1
    return ids.to(device), attention.to(device)
