"""Log-probabilities in chunks: the same as at once, and never more logits at a time than a chunk."""

import pytest
import torch

from engine import scorer as module
from engine.batches import make_batch, pack_batch
from engine.scorer import TokenScorer
from tests.engine.small import random_policy

ROWS = ([[5, 6, 7], [5, 6, 7], [8]], [[9, 3, 4, 5], [9, 4], [7, 7, 7]], [1.0, 0.5, 2.0])


@pytest.fixture
def policy():
    return random_policy(hidden=32, layers=2, spread=4.0)


@pytest.mark.parametrize("make", [make_batch, pack_batch])
def test_logits_made_in_chunks_give_the_log_probabilities_entropies_and_gradients_of_all_at_once(
    policy, make, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make(*ROWS, 0, torch.device("cpu"))
    found = []
    for chunked in (False, True):
        monkeypatch.setattr(module, "LOGITS_CHUNK", 2 * policy.vocabulary)
        scores = TokenScorer(policy.model, reads_states=True, chunked=chunked)(batch, entropy_gradient=True)
        gradient = torch.autograd.grad((scores.logprobs + 0.5 * scores.entropy).sum(), policy.parameters)
        found.append((scores.logprobs, scores.entropy, gradient))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
    for plain, cut in zip(found[0][2], found[1][2], strict=True):
        torch.testing.assert_close(cut, plain, rtol=1e-4, atol=1e-6)


def test_no_more_logits_exist_at_a_time_than_a_chunk(policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOGITS_CHUNK", 2 * policy.vocabulary)
    sizes = []
    head = policy.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, __, output: sizes.append(output.shape[:-1].numel()))
    batch = pack_batch(*ROWS, 0, torch.device("cpu"))
    kept = []
    scorer = TokenScorer(policy.model, reads_states=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.shape), t)[1], lambda t: t):
        scores = scorer(batch)
    scores.logprobs.sum().backward()
    handle.remove()
    assert sizes == [2, 2, 2, 2, 1, 1, 2, 2, 2, 2]  # 9 tokens, and again, from the last, for the backward pass
    assert not [shape for shape in kept if shape[-1:] == (policy.vocabulary,)]  # nothing of that size is held


def test_states_and_logits_are_there_when_they_are_asked_for_and_not_otherwise(policy) -> None:
    for make, reads in ((make_batch, False), (make_batch, True), (pack_batch, True)):
        batch = make(*ROWS, 0, torch.device("cpu"))
        scorer = TokenScorer(policy.model, reads_states=reads)
        lean, full = scorer(batch), scorer(batch, keep_hidden=True, keep_logits=True)
        assert (lean.hidden, lean.logits) == (None, None)
        torch.testing.assert_close(full.logprobs[batch.mask], lean.logprobs[batch.mask])
        again = policy.model.get_output_embeddings()(full.hidden) / batch.temperature[:, None, None]
        torch.testing.assert_close(again[batch.mask], full.logits[batch.mask])


def test_a_scorer_that_is_forgotten_leaves_no_hook_behind(policy) -> None:
    head = policy.model.get_output_embeddings()
    before = len(head._forward_pre_hooks)
    TokenScorer(policy.model).forget()
    assert len(head._forward_pre_hooks) == before


def test_the_entropy_is_in_fp32_under_autocast(policy) -> None:
    batch = pack_batch(*ROWS, 0, torch.device("cpu"))
    scorer = TokenScorer(policy.model, reads_states=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = scorer(batch, keep_logits=True)
    p = scores.logits.double().softmax(-1)
    torch.testing.assert_close(scores.entropy[batch.mask], -(p * p.log()).sum(-1).float()[batch.mask])
