"""Cutting a rollout into minibatches and micro-batches."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.rollout import micro_batches, minibatches
from tests.engine.small import rollout_group


@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 5))
def test_minibatches_cover_every_group_once(groups: int, count: int, seed: int) -> None:
    made = [rollout_group(number=i) for i in range(groups)]
    parts = minibatches(made, count, seed)
    assert len(parts) == min(count, groups)
    assert sorted(g.record.number for part in parts for g in part) == list(range(groups))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_minibatches_are_shuffled_by_their_key() -> None:
    made = [rollout_group(number=i) for i in range(12)]
    orders = {tuple(g.record.number for part in minibatches(made, 3, key) for g in part) for key in range(5)}
    assert len(orders) == 5
    assert minibatches(made, 1, 0) == [made]
    assert minibatches(made, 3, 1) == minibatches(made, 3, 1)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12),
    st.integers(1, 80),
    st.integers(1, 400),
)
def test_micro_batches_hold_every_row_once_and_keep_their_limits(
    shapes: list[tuple[int, int]], tokens: int, logits: int
) -> None:
    vocabulary = 7
    groups = [
        rollout_group([1.0], [length], number=i, prompt_tokens=[1] * prompt)
        for i, (prompt, length) in enumerate(shapes)
    ]
    rows = [row for group in groups for row in group.rows()]
    seen = []
    for batch in micro_batches(rows, tokens, logits, vocabulary):
        width = max(len(r.prompt) for r in batch)
        length = max(len(r.response.tokens) for r in batch)
        if len(batch) > 1:  # a single row that is too large has to go somewhere
            assert len(batch) * (width + length) <= tokens
            assert len(batch) * (length + 1) * vocabulary <= logits
        seen += [r.group.record.number for r in batch]
    assert sorted(seen) == list(range(len(shapes)))


def test_rows_leave_out_what_failed_and_what_has_no_tokens() -> None:
    group = rollout_group([1.0, 0.0, 0.5])
    group.record.responses[0].failed = "early: raised"
    group.record.responses[1].tokens = []
    group.advantages = [0.1, 0.2, 0.3]
    (row,) = group.rows()
    assert (row.place, row.advantage, row.prompt) == (2, pytest.approx(0.3), [5, 6, 7])


def test_old_log_probabilities_are_the_samplers_until_a_pass_has_made_others() -> None:
    group = rollout_group([1.0, 0.0])
    assert group.rows()[1].old == [-1.0, -1.0, -1.0]
    group.old_logprobs = [[-2.0] * 3, [-3.0] * 3]
    assert group.rows()[1].old == [-3.0, -3.0, -3.0]
