"""Bytes of a decode step and operations of an update, against counts made by hand and by torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import counts
from benchmarks.workload import Shape, random_policy

SMALL = Shape(hidden=8, layers=2, heads=4, kv_heads=2, intermediate=16, vocabulary=64)
"""Query and output 8 x 8, key and value 8 x 4, three matrices 8 x 16: 128 + 64 + 384 = 576 a layer; head 512."""


def test_the_weights_that_a_token_meets_are_those_of_the_matrices() -> None:
    assert counts.layer_weights(SMALL) == 576
    assert counts.matrix_weights(SMALL) == 2 * 576 + 512
    model = random_policy(SMALL, 16).model
    matrices = sum(p.numel() for name, p in model.named_parameters() if "norm" not in name)  # the head is tied
    assert counts.matrix_weights(SMALL) == matrices


def test_a_decode_step_moves_the_weights_once_and_the_cache_of_every_row() -> None:
    # a token's cache: 2 layers x (key and value) x 2 heads x 2 wide = 16 entries
    assert counts.decode_bytes(SMALL, [5, 7, 9], 2) == 2 * (1664 + 16 * (5 + 7 + 9) + 16 * 3)
    assert counts.decode_bytes(SMALL, [], 4) == 4 * 1664


def test_sampling_decodes_once_less_than_it_has_tokens() -> None:
    # 3 tokens, 2 rows, a prompt of 5: two decode steps, with 5 and then 6 tokens in each row's cache
    by_hand = counts.decode_bytes(SMALL, [5, 5], 2) + counts.decode_bytes(SMALL, [6, 6], 2)
    assert counts.sampling_bytes(SMALL, 5, 3, 2, 2) == by_hand
    assert counts.sampling_bytes(SMALL, 5, 1, 2, 2) == 0


def test_responses_see_the_prompt_and_themselves() -> None:
    # the prompt's 3 tokens see 1 + 2 + 3; a response of 2 sees 3 + 1, 3 + 2; one of 1 sees 3 + 1
    assert counts.attention_pairs(3, [2, 1]) == 6 + 9 + 4


def test_an_update_does_six_operations_a_weight_and_token() -> None:
    # 3 prompt and 3 response tokens through 1152 weights, 3 through the head; 19 pairs in 2 layers of width 8
    by_hand = 6 * 1152 * 6 + 6 * 512 * 3 + 12 * 2 * 8 * 19
    assert counts.update_flops(SMALL, [(3, [2, 1])]) == by_hand
    assert counts.update_flops(SMALL, [(3, [2, 1]), (3, [2, 1])]) == 2 * by_hand


@pytest.mark.parametrize("length", [5, 9])
def test_the_matrices_operations_are_those_that_torch_counts(length: int) -> None:
    """One row without a prompt; attention aside, which torch counts for every pair, also those that are masked."""
    model = random_policy(SMALL, 16).model
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones(1, length, dtype=torch.long)).logits.sum().backward()
    by_operation = counter.get_flop_counts()["Global"]
    attention = sum(n for operation, n in by_operation.items() if "bmm" in str(operation))
    ours = counts.update_flops(SMALL, [(0, [length])]) - 12 * 2 * 8 * counts.attention_pairs(0, [length])
    assert sum(by_operation.values()) - attention == ours
    assert attention >= 12 * 2 * 8 * counts.attention_pairs(0, [length])
