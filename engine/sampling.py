"""Sampling: one function that turns prompts into groups of responses.

Each prompt is read once, its cache expanded to the group; finished rows leave the batch; the loop ends when all are
finished. (Each of these is a shortcut, and can be turned off.) Log-probabilities are taken while sampling, in fp32, of
the tempered distribution. A token is the inverse of the cumulative distribution at one uniform number of the
response's own stream, so what else is in the batch reaches it through the rounding of the logits at most.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.decode_weights import decode_weights
from engine.decoding import Decoder, GrowingDecoder, Prefill, prefill
from engine.policy import Policy
from engine.precision import wide
from engine.static_decoding import StaticDecoder, can_record, record_graph
from engine.truncation import WHOLE, Truncation
from sessions.shortcuts import SHORTCUTS

KEEP_BATCH = 0.75
"""Rows are dropped once this share or less of the batch is still alive: dropping copies the cache."""


@dataclass
class Growth:
    """The rows of a running sampler, readable from another thread while it writes.

    :ivar tokens: [rows, max_new_tokens]; row i holds ``lengths[i]`` tokens.
    :ivar group_size: rows of one prompt follow each other.
    """

    tokens: Tensor
    lengths: Tensor
    ended: Tensor
    group_size: int = 1

    def row(self, index: int) -> list[int]:
        """The tokens of a row so far."""
        row: list[int] = self.tokens[index, : int(self.lengths[index])].tolist()
        return row


OnFinished = Callable[[int, list[list[int]]], None]
"""Given the index of a prompt and the tokens of all its responses, once, as soon as the last of them is finished."""


class Finished:
    """Tells of each prompt whose responses are all finished while those of others still grow.

    :param tell: on the sampler's thread; it should hand the work on and return.
    """

    def __init__(self, growth: Growth, tell: OnFinished | None) -> None:
        self._growth, self._tell = growth, tell
        self._told = torch.zeros(len(growth.ended) // growth.group_size, dtype=torch.bool)

    def look(self, *, over: bool = False) -> None:
        """Tell of the prompts that are finished since the last look; of all that are left when sampling is over."""
        if self._tell is None:
            return
        size = self._growth.group_size
        finished = torch.ones_like(self._told) if over else self._growth.ended.view(-1, size).all(1)
        for i in (finished & ~self._told).nonzero().flatten().tolist():
            self._told[i] = True
            self._tell(i, [self._growth.row(j) for j in range(i * size, (i + 1) * size)])


@dataclass
class Samples:
    """What was sampled, rows of one prompt following each other.

    :ivar tokens: for each row, its tokens up to and including the first end token.
    :ivar logprobs: for each row, the log-probability of each token under the sampler.
    :ivar entropies: for each row, the policy's entropy before each token, nats, whatever was cut off for sampling;
        nothing where the likeliest tokens were taken.
    :ivar ended: whether a row closed with an end token.
    """

    tokens: list[list[int]] = field(default_factory=list)
    logprobs: list[list[float]] = field(default_factory=list)
    entropies: list[list[float]] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)


def sample(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    noise: npt.NDArray[np.float64] | None,
    *,
    truncation: Truncation = WHOLE,
    shortcuts: Collection[str] = SHORTCUTS,
    safe_point: Callable[[int, int], None] = lambda done, total: None,
    on_start: Callable[[Growth], None] = lambda growth: None,
    on_finished: OnFinished | None = None,
) -> Samples:
    """Sample ``group_size`` responses to each prompt.

    :param prompts: token ids, one list a prompt.
    :param noise: [prompts x group_size, max_new_tokens] uniform numbers in [0, 1); None: greedy.
    :param truncation: of the tempered distribution; log-probabilities are of what is left, renormalised.
    :param shortcuts: those to take of :data:`sessions.shortcuts.SHORTCUTS`.
    :param safe_point: called between decode steps with (finished rows, rows); it may block or raise.
    :param on_start: given the growing rows once, before the first token.
    :param on_finished: given each prompt's responses as soon as the last of them is finished, the others still growing.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(policy.inference())
        if "decode_weights" in shortcuts:
            stack.enter_context(decode_weights(policy, len(prompts) * group_size, max_new_tokens))
        return _sample(
            policy,
            prompts,
            group_size,
            max_new_tokens,
            temperature,
            noise,
            truncation,
            shortcuts,
            safe_point,
            on_start,
            on_finished,
        )


def _sample(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    noise: npt.NDArray[np.float64] | None,
    truncation: Truncation,
    shortcuts: Collection[str],
    safe_point: Callable[[int, int], None],
    on_start: Callable[[Growth], None],
    on_finished: OnFinished | None,
) -> Samples:
    rows, device = len(prompts) * group_size, policy.device
    growth = Growth(
        torch.full((rows, max_new_tokens), policy.pad, dtype=torch.long),
        torch.zeros(rows, dtype=torch.long),
        torch.zeros(rows, dtype=torch.bool),
        group_size,
    )
    logprobs = torch.zeros(rows, max_new_tokens, device=device)
    entropies = torch.zeros(rows, max_new_tokens, device=device)
    uniform = None if noise is None else torch.from_numpy(noise).to(device, wide(device))
    ends = torch.tensor(sorted(policy.end_tokens))
    on_start(growth)
    finished = Finished(growth, on_finished)

    read = prefill(policy, prompts, group_size, shared="shared_prefill" in shortcuts)
    logits = read.spread()
    decoder = open_decoder(policy, read, max_new_tokens, shortcuts)
    row = torch.arange(rows)  # which response each row of the batch is
    row_there = row.to(device)
    alive = torch.ones(rows, dtype=torch.bool)
    for i in range(max_new_tokens):
        policys = tempered(logits, temperature)
        token, logprobs[row_there, i] = pick(truncation(policys), None if uniform is None else uniform[row_there, i])
        if uniform is not None:
            entropies[row_there, i] = entropy(policys)
        new = token.cpu()
        growth.tokens[row, i] = new  # what follows an end token is never counted
        growth.lengths[row] += alive
        alive &= ~torch.isin(new, ends)
        growth.ended[row] = ~alive
        left = int(alive.sum())
        finished.look()
        safe_point(rows - left, rows)
        if left == 0 or i + 1 == max_new_tokens:
            break
        if left <= KEEP_BATCH * len(alive) and "compaction" in shortcuts:
            kept = alive.nonzero().squeeze(1)
            kept_there = kept.to(device)
            decoder.keep(kept_there)
            token, row_there = token[kept_there], row_there[kept_there]
            row, alive = row[kept], torch.ones(left, dtype=torch.bool)
        logits = decoder.step(token)
    finished.look(over=True)
    lengths = growth.lengths.tolist()
    return Samples(
        [tokens[:n] for tokens, n in zip(growth.tokens.tolist(), lengths, strict=True)],
        [values[:n] for values, n in zip(logprobs.tolist(), lengths, strict=True)],
        [values[:n] for values, n in zip(entropies.tolist(), lengths, strict=True)] if uniform is not None else [],
        growth.ended.tolist(),
    )


def open_decoder(policy: Policy, read: Prefill, room: int, shortcuts: Collection[str]) -> Decoder:
    """What continues the prompts: recorded steps on CUDA, where the model's cache is plain, else growing caches."""
    if "decode_graph" in shortcuts and policy.device.type == "cuda" and can_record(policy.model, read.cache):
        return StaticDecoder(policy, read, room, record_graph)
    return GrowingDecoder(policy, read, room)


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """The policy's log-probabilities [rows, V], in fp32."""
    return (logits.float() / temperature).log_softmax(-1)


def entropy(log_probabilities: Tensor) -> Tensor:
    """Of each row's distribution [rows, V], nats: [rows]."""
    return -(log_probabilities.exp() * log_probabilities).sum(-1)  # no einsum: bf16 would take it over


def pick(log_probabilities: Tensor, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token a row, with its log-probability.

    The token is the first whose cumulative probability exceeds u; sums are taken in fp64 where the device has it,
    because over a large vocabulary fp32 sums lose the rare tokens.

    :param log_probabilities: [rows, V], of the distribution to draw from.
    :param uniform: [rows] in [0, 1); None: the likeliest token.
    :returns: tokens [rows] and log-probabilities [rows].
    """
    if uniform is None:
        token = log_probabilities.argmax(-1)
    else:
        precise = wide(log_probabilities.device)
        cumulative = log_probabilities.exp().to(precise).cumsum(-1)
        target = uniform.to(precise)[:, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, target, right=True).squeeze(1)
        token = token.clamp(max=log_probabilities.shape[-1] - 1)
    return token, log_probabilities.gather(-1, token[:, None]).squeeze(1)
