"""Rows of a rollout as batches: padded, or as trees side by side; and cut into micro-batches that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from engine.tree import Tree, block_mask, common, first_fit, in_order, make_tree

TREE_WIDTH = 1024
"""Most tokens of a tree: its attention grows with their square, and beyond this that costs more than sharing saves."""


class Sized(Protocol):
    """What takes a row of a batch: tokens that are given, and tokens that are scored."""

    @property
    def prompt(self) -> list[int]: ...

    @property
    def tokens(self) -> list[int]: ...


_S = TypeVar("_S", bound=Sized)


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts and responses as a model reads them, and where its answers about each response token are.

    A padded batch has a response a line, prompts padded on the left and responses on the right; a packed one has
    trees side by side (:mod:`engine.tree`).

    :ivar ids: [lines, W].
    :ivar attention: [lines, W], 1 on real tokens; packed: [lines, 1, W, W], what is added to attention scores.
    :ivar positions: [lines, W], counting a token's own past from 0.
    :ivar source: [rows, T], index into the lines one after the other of the state that each token is predicted from.
    :ivar targets: [rows, T], the response tokens.
    :ivar mask: [rows, T], true on real response tokens.
    :ivar temperature: [rows].
    """

    ids: Tensor
    attention: Tensor
    positions: Tensor
    source: Tensor
    targets: Tensor
    mask: Tensor
    temperature: Tensor

    @property
    def packed(self) -> bool:
        return self.attention.dim() == 4

    def gather(self, states: Tensor) -> Tensor:
        """States [lines, W, D] -> [rows, T, D], those that the response tokens are predicted from."""
        rows = states.flatten(0, 1).index_select(0, self.source.flatten())
        return rows.view(*self.source.shape, -1)


def make_batch(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    temperatures: Sequence[float],
    pad: int,
    device: torch.device,
) -> Batch:
    """Pad rows of prompt and response tokens into a batch. Masks come from lengths, never from token values."""
    rows = len(prompts)
    width = max(len(p) for p in prompts)
    length = max(len(r) for r in responses)
    ids = torch.full((rows, width + length), pad, dtype=torch.long)
    attention = torch.zeros(rows, width + length, dtype=torch.long)
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids[i, width - len(prompt) : width] = torch.tensor(prompt)
        ids[i, width : width + len(response)] = torch.tensor(response)
        attention[i, width - len(prompt) : width + len(response)] = 1
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    source = torch.arange(rows)[:, None] * (width + length) + torch.arange(width - 1, width + length - 1)
    targets, mask = _padded(responses, pad)
    temperature = torch.tensor(temperatures, dtype=torch.float32)
    parts = (ids, attention, positions, source, targets, mask, temperature)
    return Batch(*(part.to(device) for part in parts))


def pack_batch(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    temperatures: Sequence[float],
    pad: int,
    device: torch.device,
) -> Batch:
    """The same rows as trees side by side, in as few lines as the largest tree's width allows."""
    places = [
        [members[k] for k in part]
        for members in _by_prompt(prompts)
        for part in _parts(prompts[members[0]], [responses[i] for i in members], TREE_WIDTH)
    ]
    trees = [make_tree(prompts[part[0]], [responses[i] for i in part]) for part in places]
    order = sorted(range(len(trees)), key=lambda i: -len(trees[i].tokens))
    width = len(trees[order[0]].tokens)
    put = first_fit((len(trees[i].tokens) for i in order), width)
    lines = 1 + max(line for line, _ in put)
    ids = torch.full((lines, width), pad, dtype=torch.long)
    positions = torch.zeros(lines, width, dtype=torch.long)
    ends = torch.arange(1, width + 1).repeat(lines, 1)  # padding sees itself alone
    sources: list[list[int]] = [[] for _ in prompts]
    for i, (line, start) in zip(order, put, strict=True):
        _put(trees[i], places[i], line, start, ids, positions, ends, sources)
    targets, mask = _padded(responses, pad)
    source, _ = _padded(sources, 0)
    temperature = torch.tensor(temperatures, dtype=torch.float32)
    return Batch(
        ids.to(device),
        block_mask(ends.to(device)),
        positions.to(device),
        source.to(device),
        targets.to(device),
        mask.to(device),
        temperature.to(device),
    )


def _put(
    tree: Tree,
    rows: Sequence[int],
    line: int,
    start: int,
    ids: Tensor,
    positions: Tensor,
    ends: Tensor,
    sources: list[list[int]],
) -> None:
    """Write a tree into a line."""
    here = slice(start, start + len(tree.tokens))
    ids[line, here] = torch.tensor(tree.tokens)
    positions[line, here] = torch.tensor(tree.positions)
    ends[line, here] = torch.tensor(tree.ends) + start
    first = line * ids.shape[1] + start
    for row, source in zip(rows, tree.sources, strict=True):
        sources[row] = [first + node for node in source]


def _padded(values: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Rows of numbers [rows, T], and where they are real."""
    length = max(map(len, values))
    lengths = torch.tensor([len(row) for row in values])
    whole = torch.tensor([[*row, *[fill] * (length - len(row))] for row in values], dtype=torch.long)
    return whole, torch.arange(length) < lengths[:, None]


# --------------------------------------------------------------------------------------------- micro-batches


def padded_micro_batches(rows: Sequence[_S], tokens: int, scored: int | None) -> Iterator[list[_S]]:
    """Cut rows into sets that fit in memory; it never changes a result, because denominators are the minibatch's.

    :param tokens: most prompt and response tokens, padding included.
    :param scored: most response tokens, padding included; None: any number.
    """
    batch: list[_S] = []
    width = length = 0
    for row in sorted(rows, key=lambda r: (len(r.prompt), len(r.tokens))):
        wider, longer = max(width, len(row.prompt)), max(length, len(row.tokens))
        size = len(batch) + 1
        if batch and (size * (wider + longer) > tokens or _over(size * (longer + 1), scored)):
            yield batch
            batch, wider, longer = [], len(row.prompt), len(row.tokens)
        batch.append(row)
        width, length = wider, longer
    if batch:
        yield batch


def packed_micro_batches(rows: Sequence[_S], tokens: int, scored: int | None) -> Iterator[list[_S]]:
    """The same for packed batches; rows too long to be part of a tree are in padded sets of their own."""
    short = [row for row in rows if fits(row)]
    prompts = [row.prompt for row in short]
    trees = [
        ([short[members[k]] for k in part], size)
        for members in _by_prompt(prompts)
        for part, size in _sized_parts(
            prompts[members[0]], [short[i].tokens for i in members], min(TREE_WIDTH, tokens), scored
        )
    ]
    batch: list[_S] = []
    filled: list[int] = []
    width = length = 0
    for members, size in sorted(trees, key=lambda tree: -tree[1]):
        longer = max(length, *(len(row.tokens) for row in members))
        line = next((i for i, used in enumerate(filled) if used + size <= width), None)
        too_wide = line is None and width * (len(filled) + 1) > tokens
        if batch and (too_wide or _over((len(batch) + len(members)) * longer, scored)):
            yield batch
            batch, filled, line, longer = [], [], None, max(len(row.tokens) for row in members)
        if not batch:
            width = size
        if line is None:
            filled.append(size)
        else:
            filled[line] += size
        batch += members
        length = longer
    if batch:
        yield batch
    yield from padded_micro_batches([row for row in rows if not fits(row)], tokens, scored)


def fits(row: Sized) -> bool:
    """Whether a row is short enough to be part of a tree."""
    return len(row.prompt) + len(row.tokens) - 1 <= TREE_WIDTH


def _over(count: int, limit: int | None) -> bool:
    return limit is not None and count > limit


def _by_prompt(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Places of rows with the same prompt, in the order in which the prompts come."""
    found: dict[tuple[int, ...], list[int]] = {}
    for i, prompt in enumerate(prompts):
        found.setdefault(tuple(prompt), []).append(i)
    return list(found.values())


def _parts(prompt: Sequence[int], responses: Sequence[Sequence[int]], width: int) -> list[list[int]]:
    """Responses to one prompt cut into trees of at most ``width`` tokens, or of one response."""
    return [part for part, _ in _sized_parts(prompt, responses, width, None)]


def _sized_parts(
    prompt: Sequence[int], responses: Sequence[Sequence[int]], width: int, scored: int | None
) -> list[tuple[list[int], int]]:
    """Those trees, each with its number of tokens."""
    parts: list[tuple[list[int], int]] = []
    part: list[int] = []
    size = longest = 0
    last: Sequence[int] = ()
    for i in in_order(responses):
        read = responses[i][:-1]
        more = len(read) - common(last, read)
        longest = max(longest, len(responses[i]))
        if part and (size + more > width or _over((len(part) + 1) * longest, scored)):
            parts.append((part, size))
            part, longest = [], len(responses[i])
        if not part:
            size, more = len(prompt), len(read)
        part.append(i)
        size += more
        last = read
    parts.append((part, size))
    return parts
