"""The prefix tree: what each token sees, against a mask made token by token from its own past."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.tree import block_mask, common, first_fit, make_tree

TOKENS = st.integers(0, 2)  # few, so that responses begin alike
PROMPT = st.lists(TOKENS, min_size=1, max_size=4)
RESPONSES = st.lists(st.lists(TOKENS, min_size=1, max_size=6), min_size=1, max_size=6)


def past(tree, node: int) -> list[int]:
    """The tokens that a node sees, itself included, in their order."""
    seen = block_mask(torch.tensor([tree.ends]))[0, 0, node] == 0
    return [tree.tokens[j] for j in range(len(tree.tokens)) if seen[j]]


@given(PROMPT, RESPONSES)
def test_every_token_is_predicted_from_exactly_its_own_past(prompt: list[int], responses: list[list[int]]) -> None:
    tree = make_tree(prompt, responses)
    for response, source in zip(responses, tree.sources, strict=True):
        assert len(source) == len(response)
        for t, node in enumerate(source):
            assert past(tree, node) == [*prompt, *response[:t]]
            assert tree.positions[node] == len(prompt) + t - 1


@given(PROMPT, RESPONSES)
def test_the_tree_holds_every_different_beginning_once(prompt: list[int], responses: list[list[int]]) -> None:
    tree = make_tree(prompt, responses)
    beginnings = {tuple(response[:t]) for response in responses for t in range(1, len(response))}
    assert len(tree.tokens) == len(prompt) + len(beginnings)


@given(st.lists(PROMPT, min_size=2, max_size=3), RESPONSES)
def test_trees_side_by_side_do_not_see_each_other(prompts: list[list[int]], responses: list[list[int]]) -> None:
    trees = [make_tree(prompt, responses) for prompt in prompts]
    starts = [sum(len(tree.tokens) for tree in trees[:i]) for i in range(len(trees))]
    ends = [end + start for tree, start in zip(trees, starts, strict=True) for end in tree.ends]
    mask = block_mask(torch.tensor([ends]))[0, 0]
    for start, tree in zip(starts, trees, strict=True):
        here = slice(start, start + len(tree.tokens))
        alone = block_mask(torch.tensor([tree.ends]))[0, 0]
        assert torch.equal(mask[here, here], alone)
        outside = mask[here].clone()
        outside[:, here] = -1.0
        assert bool((outside < 0).all())


def test_the_mask_is_added_and_never_boolean() -> None:
    mask = block_mask(torch.tensor([[2, 2, 3]]))
    least = torch.finfo(torch.float32).min
    assert mask.dtype == torch.float32
    assert mask[0, 0].tolist() == [[0.0, least, least], [0.0, 0.0, least], [least, least, 0.0]]


@given(st.lists(st.integers(1, 10), min_size=1, max_size=20))
def test_things_put_into_rows_do_not_overlap_and_do_not_stick_out(sizes: list[int]) -> None:
    places = first_fit(sizes, 10)
    for row in {row for row, _ in places}:
        spans = sorted((start, start + size) for (r, start), size in zip(places, sizes, strict=True) if r == row)
        assert spans[-1][1] <= 10
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert {row for row, _ in places} == set(range(1 + max(row for row, _ in places)))


@given(st.lists(TOKENS, max_size=5), st.lists(TOKENS, max_size=5))
def test_a_common_beginning_is_the_longest_one(a: list[int], b: list[int]) -> None:
    n = common(a, b)
    assert a[:n] == b[:n]
    assert n == len(a) or n == len(b) or a[n] != b[n]
