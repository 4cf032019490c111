r"""A group as one sequence: its prompt once, then its responses as the branches of a tree.

Two responses that begin alike share that beginning, as all share the prompt. Tokens stand in the order in which a
walk through the tree meets them, so the tokens below token j are those after it up to some end, and token i sees
token j exactly if

.. math::  j \le i < \mathrm{end}_j .

That is all an attention mask needs to know, whatever the number of trees side by side in a row. What a token is given
(itself, its past, its position) is what it would be given in a row of its own, so log-probabilities and gradients are
the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tree:
    """The tokens of a prompt and of what follows it.

    The last token of a response is predicted and never read, so it is not among them.

    :ivar tokens: [n].
    :ivar positions: [n], counting a token's own past from 0.
    :ivar ends: [n]; the tokens below token j are j + 1 .. ends[j] - 1.
    :ivar sources: for each response, the index of the token from whose state each of its tokens is predicted.
    """

    tokens: list[int]
    positions: list[int]
    ends: list[int]
    sources: list[list[int]]


def make_tree(prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> Tree:
    """The tree of a prompt (of at least one token) and responses to it."""
    tokens, positions = list(prompt), list(range(len(prompt)))
    ends = [0] * len(prompt)
    sources: list[list[int]] = [[] for _ in responses]
    path: list[int] = []  # the tokens of the response before this one
    read: Sequence[int] = ()
    for index in in_order(responses):
        last, read = read, responses[index][:-1]
        shared = common(last, read)
        for node in path[shared:]:
            ends[node] = len(tokens)
        del path[shared:]
        for token in read[shared:]:
            positions.append(len(prompt) + len(path))
            path.append(len(tokens))
            tokens.append(token)
            ends.append(0)
        sources[index] = [len(prompt) - 1, *path]
    for node in (*range(len(prompt)), *path):
        ends[node] = len(tokens)
    return Tree(tokens, positions, ends, sources)


def in_order(responses: Sequence[Sequence[int]]) -> list[int]:
    """Places of responses in the order of their tokens, so that those that begin alike follow each other."""
    return sorted(range(len(responses)), key=lambda i: list(responses[i][:-1]))


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with that are the same."""
    for i, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return i
    return min(len(first), len(second))


def first_fit(sizes: Iterable[int], width: int) -> list[tuple[int, int]]:
    """Put things side by side into rows of a width.

    :param sizes: at most ``width`` each; from the largest down wastes least.
    :returns: for each, its row and where in it it begins.
    """
    filled: list[int] = []
    places = []
    for size in sizes:
        row = next((i for i, used in enumerate(filled) if used + size <= width), len(filled))
        if row == len(filled):
            filled.append(0)
        places.append((row, filled[row]))
        filled[row] += size
    return places


def block_mask(ends: Tensor) -> Tensor:
    """What may be added to attention scores: 0 where token i sees token j, the least float elsewhere.

    Never boolean: some attention code adds a boolean mask, as 0 and 1, in silence.

    :param ends: [rows, n].
    :returns: [rows, 1, n, n] in fp32, the token that looks before the one looked at.
    """
    at = torch.arange(ends.shape[1], device=ends.device)
    sees = (at[None, :] <= at[:, None]) & (at[:, None] < ends[:, None, :])
    mask = torch.zeros(sees.shape, device=ends.device).masked_fill_(~sees, torch.finfo(torch.float32).min)
    return mask[:, None]
