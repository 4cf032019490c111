"""Cutting a rollout into minibatches and micro-batches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rollout import minibatches
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
    group.rows()[1].record_old([-3.0] * 3)
    assert group.rows()[1].old == [-3.0, -3.0, -3.0]
    assert group.rows()[0].old == [-1.0, -1.0, -1.0]
