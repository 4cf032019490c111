"""Packed and padded batches of the same rows, and the cut into micro-batches."""

import math
from itertools import count

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import batches
from engine.batches import fits, make_batch, pack_batch, packed_micro_batches, padded_micro_batches
from engine.scorer import TokenScorer
from tests.engine.small import random_policy, rollout_group

CPU = torch.device("cpu")
TOKENS = st.integers(3, 9)


@st.composite
def asked(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], list[float]]:
    """Rows of which some share a prompt and some begin alike."""
    prompts = draw(st.lists(st.lists(TOKENS, min_size=1, max_size=6), min_size=1, max_size=3))
    responses = draw(st.lists(st.lists(TOKENS, min_size=1, max_size=7), min_size=1, max_size=8))
    rows = [prompts[draw(st.integers(0, len(prompts) - 1))] for _ in responses]
    return rows, responses, [draw(st.sampled_from([0.5, 1.0, 1.7])) for _ in responses]


def scored(policy, batch, weights):
    """Log-probabilities, entropies and the gradient of a weighted sum of both."""
    scorer = TokenScorer(policy.model, reads_states=batch.packed)
    try:
        scores = scorer(batch, entropy_gradient=True)
        total = torch.where(batch.mask, weights * (scores.logprobs + 0.3 * scores.entropy), 0.0).sum()
        gradient = torch.autograd.grad(total, policy.parameters)
    finally:
        scorer.forget()
    return scores.logprobs[batch.mask].detach(), scores.entropy[batch.mask].detach(), gradient


@pytest.fixture(scope="module")
def policy():
    return random_policy(hidden=32, layers=2, spread=4.0)


@settings(deadline=None, max_examples=30)
@given(asked())
def test_a_packed_batch_has_the_log_probabilities_and_gradients_of_a_padded_one(policy, rows) -> None:
    plain, packed = make_batch(*rows, 0, CPU), pack_batch(*rows, 0, CPU)
    assert torch.equal(plain.mask, packed.mask)
    assert torch.equal(plain.targets[plain.mask], packed.targets[packed.mask])
    assert bool((packed.attention == 0).any(-1).all())  # padding sees itself: nothing to see would be NaN in bf16
    weights = torch.linspace(-1, 1, plain.mask.numel()).view(plain.mask.shape)
    want, got = scored(policy, plain, weights), scored(policy, packed, weights)
    torch.testing.assert_close(got[0], want[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(got[1], want[1], atol=1e-4, rtol=0)
    size = math.sqrt(sum(float(g.square().sum()) for g in want[2]))
    off = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(got[2], want[2], strict=True)))
    assert off <= 1e-4 * size + 1e-7


def test_a_packed_batch_holds_a_prompt_once_and_fewer_tokens_than_a_padded_one() -> None:
    prompts, responses = [[5, 6, 7, 8]] * 4, [[9, 9, 3], [9, 9, 4], [9, 8], [7]]
    batch = pack_batch(prompts, responses, [1.0] * 4, 0, CPU)
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9, 9]]  # what is only predicted is not read
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert make_batch(prompts, responses, [1.0] * 4, 0, CPU).ids.numel() == 28


def test_the_states_of_tokens_are_gathered_from_where_they_are_predicted() -> None:
    prompts, responses = [[5, 6], [7]], [[8, 9], [3, 4, 5]]
    for make in (make_batch, pack_batch):
        batch = make(prompts, responses, [1.0, 1.0], 0, CPU)
        read = batch.gather(batch.ids[..., None]).squeeze(-1)
        assert read[batch.mask].tolist() == [6, 8, 7, 3, 4]


def test_small_trees_stand_side_by_side_and_keep_to_themselves(policy) -> None:
    prompts = [[5, 6, 7, 8, 9, 3], [4, 4], [3, 9], [7]]
    responses = [[9, 9, 3, 4], [8, 9, 5], [5, 5, 5], [6]]
    rows = (prompts, responses, [1.0, 0.5, 2.0, 1.0])
    packed, plain = pack_batch(*rows, 0, CPU), make_batch(*rows, 0, CPU)
    assert packed.ids.shape == (2, 9)  # 9 tokens, and 4 + 4 + 1
    weights = torch.ones(plain.mask.shape)
    want, got = scored(policy, plain, weights), scored(policy, packed, weights)
    torch.testing.assert_close(got[0], want[0], atol=1e-4, rtol=0)
    for a, b in zip(got[2], want[2], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_group_wider_than_a_tree_may_be_is_cut_into_several(policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "TREE_WIDTH", 8)
    rows = ([[5, 6, 7]] * 5, [[9, 9, 3], [9, 8, 4, 4], [3, 8], [7, 7, 7], [9, 9, 3]], [1.0] * 5)
    packed, plain = pack_batch(*rows, 0, CPU), make_batch(*rows, 0, CPU)
    assert packed.ids.shape == (2, 7)  # 3 + 1 + 2 tokens, and 3 + 3 + 1
    weights = torch.ones(plain.mask.shape)
    torch.testing.assert_close(scored(policy, packed, weights)[0], scored(policy, plain, weights)[0], atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------- micro-batches


def made(shapes: list[tuple[int, list[int]]]):
    """A row for each length of a response, prompts of the given lengths."""
    number = count()
    groups = []
    for prompt, lengths in shapes:
        group = rollout_group([1.0] * len(lengths), lengths, number=len(groups), prompt_tokens=[1] * prompt)
        for response in group.record.responses:
            response.tokens = [2 + next(number) % 3 for _ in response.tokens]
        groups.append(group)
    return [row for group in groups for row in group.rows()]


SHAPES = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=5)), min_size=1, max_size=8
)


@settings(deadline=None)
@given(SHAPES, st.integers(1, 80), st.one_of(st.none(), st.integers(1, 60)))
def test_padded_micro_batches_hold_every_row_once_and_keep_their_limits(
    shapes, tokens: int, scored: int | None
) -> None:
    rows = made(shapes)
    seen = []
    for batch in padded_micro_batches(rows, tokens, scored):
        width, length = max(len(r.prompt) for r in batch), max(len(r.tokens) for r in batch)
        if len(batch) > 1:  # a single row that is too large has to go somewhere
            assert len(batch) * (width + length) <= tokens
            assert scored is None or len(batch) * (length + 1) <= scored
        seen += [r.name for r in batch]
    assert sorted(seen) == sorted(r.name for r in rows)


@settings(deadline=None)
@given(SHAPES, st.integers(1, 80), st.one_of(st.none(), st.integers(1, 60)))
def test_packed_micro_batches_hold_every_row_once_and_keep_their_limits(
    shapes, tokens: int, scored: int | None
) -> None:
    rows = made(shapes)
    seen = []
    for batch in packed_micro_batches(rows, tokens, scored):
        packed = pack_batch([r.prompt for r in batch], [r.tokens for r in batch], [1.0] * len(batch), 0, CPU)
        if len(batch) > 1:
            assert packed.ids.numel() <= tokens
            assert scored is None or packed.mask.numel() <= scored
        seen += [r.name for r in batch]
    assert sorted(seen) == sorted(r.name for r in rows)


def test_rows_too_long_for_a_tree_are_in_micro_batches_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "TREE_WIDTH", 8)
    rows = made([(3, [2, 6, 7]), (4, [2])])
    cut = list(packed_micro_batches(rows, 1000, None))
    assert sorted([r.name for r in batch if not fits(r)] for batch in cut) == [[], ["1.0C"]]


def test_a_roomy_budget_makes_one_micro_batch() -> None:
    rows = made([(3, [2, 6, 7]), (4, [2]), (1, [1, 1])])
    assert [len(batch) for batch in packed_micro_batches(rows, 1000, None)] == [6]
    assert [len(batch) for batch in padded_micro_batches(rows, 1000, None)] == [6]
