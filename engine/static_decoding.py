"""Decoding in buffers that never move, so that a step can be recorded once as a CUDA graph and replayed.

On a GPU a decode step is hundreds of small kernels, and launching them takes longer than running them. A graph launches
all of them at once, but reads and writes the addresses it was recorded with. So tokens, positions, mask, logits and the
caches of keys and values are allocated once for the most rows and the longest response; a step is recorded for each
bucket of rows and of length that is reached, over the first rows and slots of the buffers. Finished rows leave by
moving the others to the front. The buffers stay from one rollout to the next, as do the recorded steps.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from engine.decoding import Prefill, additive_mask, masks_alone
from engine.policy import Policy

LEAST_LENGTH = 64
"""Slots of the shortest bucket."""

_log = logging.getLogger(__name__)

Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Given work on fixed addresses that may be done any number of times, records it: what comes back does it again."""


def bucket(n: int, least: int = 1) -> int:
    """The smallest of least x (1, 2, 3, 4, 6, 8, 12, 16, ...) that holds ``n``: at most half as much again."""
    size = least
    while size < n:
        size *= 2
    between = size * 3 // 4
    return between if size > least and size % 4 == 0 and n <= between else size


class SlotLayer(DynamicLayer):
    """A cache layer over the first rows and slots of a buffer; new keys and values go where ``slot`` points.

    :param keys: [rows, heads, length, D], and so ``values``.
    :param slot: [1].
    """

    def __init__(self, keys: Tensor, values: Tensor, slot: Tensor) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.keys, self.values, self._slot = keys, values, slot

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.keys.index_copy_(2, self._slot, key_states.to(self.dtype))
        self.values.index_copy_(2, self._slot, value_states.to(self.dtype))
        return self.keys, self.values


class Buffers:
    """What the steps of one model read and write.

    :ivar rows: that the buffers hold.
    :ivar length: slots of each row.
    """

    def __init__(self, policy: Policy, read: Prefill, rows: int, length: int) -> None:
        device, states = policy.device, [(layer.keys, layer.values) for layer in read.cache.layers]
        self.rows, self.length = rows, length
        self.addresses = addresses(policy.model)
        # what attention computes in: under autocast it would cast the whole cache in every step
        self.dtype = torch.bfloat16 if policy.bf16 else read.cache.layers[0].keys.dtype
        self.token = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.position = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.slot = torch.zeros(1, dtype=torch.long, device=device)
        self.mask = torch.zeros(rows, 1, 1, length, dtype=self.dtype, device=device)
        self.logits = torch.zeros(rows, read.logits.shape[-1], dtype=read.logits.dtype, device=device)
        self.states = [
            tuple(torch.zeros(rows, t.shape[1], length, t.shape[3], dtype=self.dtype, device=device) for t in pair)
            for pair in states
        ]
        self.steps: dict[tuple[int, int, int], Callable[[], None]] = {}

    def fits(self, policy: Policy, rows: int, length: int) -> bool:
        """Whether a rollout of that size can use them, and the weights are where the recorded steps read them."""
        return self.rows >= rows and self.length >= length and self.addresses == addresses(policy.model)


_kept: weakref.WeakKeyDictionary[Any, Buffers] = weakref.WeakKeyDictionary()
_given_up: weakref.WeakSet[Any] = weakref.WeakSet()


def can_record(model: Any, cache: DynamicCache) -> bool:
    """Whether a model's steps can be recorded, as far as is known; what speaks against it is logged once.

    :param cache: as the model's configuration makes it.
    """
    if model not in _given_up and not masks_alone(model, cache):
        _give_up(model, "its attention is not over the whole past with rotary positions")
    return model not in _given_up


def _give_up(model: Any, reason: str) -> None:
    _given_up.add(model)
    _log.warning("sampling launches every operation by itself: no decode step of this model is recorded (%s)", reason)


def release(model: Any) -> None:
    """Free the buffers and the recorded steps of a model; the next rollout makes others."""
    _kept.pop(model, None)


def addresses(model: Any) -> tuple[int, ...]:
    """Where the weights are."""
    return tuple(t.data_ptr() for t in (*model.parameters(), *model.buffers()))


class StaticDecoder:
    """Decoding in buffers that stay.

    :param read: of a model that :func:`engine.decoding.masks_alone` is true of.
    :param room: tokens that a row may still get.
    :param record: records a step; None: every step is run as it is.
    """

    def __init__(self, policy: Policy, read: Prefill, room: int, record: Recorder | None = None) -> None:
        self._policy, self._record = policy, record
        prompts, self._width = read.attention.shape
        self._rows = prompts * read.repeats
        rows, length = bucket(self._rows), bucket(self._width + room, LEAST_LENGTH)
        kept = _kept.get(policy.model)
        if kept is None or not kept.fits(policy, rows, length):
            if kept is not None:
                rows, length = max(rows, kept.rows), max(length, kept.length)
            kept = None
            release(policy.model)
            _kept[policy.model] = Buffers(policy, read, rows, length)
        self._in = _kept[policy.model]
        self._laid_out = laid_out(policy.model)
        self._fill(read)

    def _fill(self, read: Prefill) -> None:
        """The prompts, each in all of its rows."""
        into, shape = self._in, (len(read.attention), read.repeats)
        into.slot.fill_(self._width)
        into.mask.fill_(torch.finfo(into.dtype).min)
        spread = into.mask[: self._rows, ..., : self._width].unflatten(0, shape)
        spread.copy_(additive_mask(read.attention, into.dtype)[:, None])
        into.position[: self._rows].unflatten(0, shape).copy_(read.attention.sum(1)[:, None, None])
        for buffers, layer in zip(into.states, read.cache.layers, strict=True):
            for buffer, states in zip(buffers, (layer.keys, layer.values), strict=True):
                buffer[: self._rows, :, : self._width].unflatten(0, shape).copy_(states[:, None])

    def step(self, token: Tensor) -> Tensor:
        into = self._in
        into.token[: self._rows, 0] = token
        self._width += 1
        self._step(bucket(self._rows), min(bucket(self._width, LEAST_LENGTH), into.length))()
        into.slot += 1
        into.position += 1
        return into.logits[: self._rows]

    def _step(self, rows: int, length: int) -> Callable[[], None]:
        """The work of a step over the first rows and slots, recorded if that can be done."""
        key = rows, length, self._laid_out
        if key not in self._in.steps:
            work = self._work(rows, length)
            if self._record is None or self._policy.model in _given_up:
                return work
            try:
                self._in.steps[key] = self._record(work)
            except RuntimeError as error:
                _give_up(self._policy.model, str(error).strip().splitlines()[0])
                return work
        return self._in.steps[key]

    def _work(self, rows: int, length: int) -> Callable[[], None]:
        """Open the newest slot in the mask, append keys and values, and write logits; again makes no difference."""
        into, policy = self._in, self._policy
        cache = DynamicCache()
        cache.layers = [SlotLayer(k[:rows, :, :length], v[:rows, :, :length], into.slot) for k, v in into.states]

        def work() -> None:
            into.mask.index_fill_(3, into.slot, 0.0)
            # no cache of cast weights: a recorded step would keep reading it after it is gone
            with torch.autocast(policy.device.type, torch.bfloat16, enabled=policy.bf16, cache_enabled=False):
                output = policy.model(
                    input_ids=into.token[:rows],
                    attention_mask=into.mask[:rows, ..., :length],
                    position_ids=into.position[:rows],
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
            into.logits[:rows] = output.logits[:, -1]

        return work

    def keep(self, rows: Tensor) -> None:
        into, count = self._in, len(rows)
        for buffer in (t for pair in into.states for t in pair):
            buffer[:count, :, : self._width] = buffer[rows, :, : self._width]
        into.mask[:count], into.position[:count] = into.mask[rows], into.position[rows]
        self._rows = count


def laid_out(model: Any) -> int:
    """How many layers compute otherwise than their class does: other weights than the model's own."""
    return sum("forward" in vars(module) for module in model.modules())


@functools.cache
def _stream_and_pool() -> tuple[torch.cuda.Stream, Any]:
    return torch.cuda.Stream(), torch.cuda.graph_pool_handle()


def record_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record CUDA work as a graph.

    All graphs take their memory from one pool, which is safe in any order of replay: each leaves its result in a
    buffer outside of it, and they never run at the same time.

    :raises RuntimeError: if the work waits for the device, or does what a graph cannot hold.
    """
    stream, pool = _stream_and_pool()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # libraries set themselves up when first used, which cannot be recorded
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # other threads of the engine may use the device meanwhile
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        work()
    replay: Callable[[], None] = graph.replay
    return replay
