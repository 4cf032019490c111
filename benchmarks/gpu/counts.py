"""How much work a step needs at least: bytes that decoding must move, and operations that an update must do.

Both follow from the model's shape and the lengths of prompts and responses alone, so they are the same for every
implementation; the share of the roofline that one reaches is this over what the machine could have done meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.workload import Shape


def layer_weights(shape: Shape) -> int:
    """Entries of one layer's matrices: query and output, key and value, gate, up and down."""
    head = shape.hidden // shape.heads
    attention = 2 * shape.hidden * shape.hidden + 2 * shape.hidden * shape.kv_heads * head
    return attention + 3 * shape.hidden * shape.intermediate


def head_weights(shape: Shape) -> int:
    """Entries of the output layer."""
    return shape.hidden * shape.vocabulary


def matrix_weights(shape: Shape) -> int:
    """N: the weights that each token is multiplied by; the embedding, of which it only reads a row, is not among
    them unless it is the output layer too."""
    return shape.layers * layer_weights(shape) + head_weights(shape)


def cache_entries(shape: Shape) -> int:
    """Entries of the cache for one token: a key and a value for each layer and key-value head."""
    return 2 * shape.layers * shape.kv_heads * (shape.hidden // shape.heads)


def decode_bytes(shape: Shape, cache_lengths: Sequence[int], bytes_each: int) -> int:
    """Bytes that one decode step moves: every weight once, every row's cache once, and one token more written a row.

    :param cache_lengths: tokens in the cache of each row, before the step.
    :param bytes_each: of a weight and of a cache entry.
    """
    entries = cache_entries(shape)
    moved = matrix_weights(shape) + entries * sum(cache_lengths) + entries * len(cache_lengths)
    return bytes_each * moved


def sampling_bytes(shape: Shape, prompt: int, length: int, rows: int, bytes_each: int) -> int:
    """Bytes of all decode steps for rows of one prompt length and one response length.

    The first token comes with the prompt, whose pass is bound by operations and is left out; the last is only drawn.
    """
    steps = range(length - 1)
    return sum(decode_bytes(shape, [prompt + i] * rows, bytes_each) for i in steps)


def attention_pairs(prompt: int, responses: Sequence[int]) -> int:
    """Pairs of a query and a key that it may see, in a group read as a tree: the prompt once, then each response,
    which sees the prompt and itself."""
    return prompt * (prompt + 1) // 2 + sum(r * prompt + r * (r + 1) // 2 for r in responses)


def update_flops(shape: Shape, groups: Sequence[tuple[int, Sequence[int]]]) -> int:
    """Operations of one forward and backward pass over groups read as trees.

    2 for each weight and token forward and 4 backward make the usual 6 N tokens; the output layer is needed at
    response tokens only. Attention multiplies twice for each pair (scores, then values): 2 x 2 x hidden forward and
    twice that backward, in every layer.

    :param groups: (tokens of the prompt, tokens of each response).
    """
    body = shape.layers * layer_weights(shape)
    tokens = sum(prompt + sum(responses) for prompt, responses in groups)
    answered = sum(sum(responses) for _, responses in groups)
    pairs = sum(attention_pairs(prompt, responses) for prompt, responses in groups)
    return 6 * body * tokens + 6 * head_weights(shape) * answered + 12 * shape.layers * shape.hidden * pairs
