"""Log-probabilities in chunks: the same as at once, and never more logits at a time than a chunk."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

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
        monkeypatch.setattr(module, "CHUNK", 2 * policy.vocabulary)
        scores = TokenScorer(policy.model, reads_states=True, chunked=chunked)(batch, entropy_gradient=True)
        gradient = torch.autograd.grad((scores.logprobs + 0.5 * scores.entropy).sum(), policy.parameters)
        found.append((scores.logprobs, scores.entropy, gradient))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
    for plain, cut in zip(found[0][2], found[1][2], strict=True):
        torch.testing.assert_close(cut, plain, rtol=1e-4, atol=1e-6)


class Largest(TorchDispatchMode):
    """The most tokens of any tensor that has a value for each of them and every token of the vocabulary.

    :param among: tokens there are: with more rows it is the turned weight of a layer.
    """

    def __init__(self, vocabulary: int, among: int) -> None:
        super().__init__()
        self.vocabulary, self.among, self.rows = vocabulary, among, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor) and tensor.shape[-1:] == (self.vocabulary,):
                rows = tensor.shape[:-1].numel()
                self.rows = max(self.rows, rows if rows <= self.among else 0)
        return made


class OtherHead(torch.nn.Linear):
    """A layer that nobody knows to be linear."""


@pytest.mark.parametrize("kind", [torch.nn.Linear, OtherHead])
@pytest.mark.parametrize("chunked", [True, False])
def test_no_more_logits_exist_at_a_time_than_a_chunk(
    policy, monkeypatch: pytest.MonkeyPatch, kind: type, chunked: bool
) -> None:
    monkeypatch.setattr(module, "CHUNK", 2 * policy.vocabulary)
    policy.model.get_output_embeddings().__class__ = kind
    batch = pack_batch(*ROWS, 0, torch.device("cpu"))
    scorer = TokenScorer(policy.model, reads_states=True, chunked=chunked)
    with Largest(policy.vocabulary, among=9) as largest:
        scorer(batch).logprobs.sum().backward()
    assert largest.rows == (2 if chunked else 9)


@pytest.mark.parametrize("kind", [torch.nn.Linear, OtherHead])
def test_chunks_of_any_head_give_the_gradients_of_all_at_once(
    policy, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    policy.model.get_output_embeddings().__class__ = kind
    batch = pack_batch(*ROWS, 0, torch.device("cpu"))
    found = []
    for size in (100, 2):
        monkeypatch.setattr(module, "CHUNK", size * policy.vocabulary)
        scores = TokenScorer(policy.model, reads_states=True)(batch, entropy_gradient=True)
        total = (scores.logprobs - 0.2 * scores.entropy).sum()
        found.append(torch.autograd.grad(total, policy.parameters))
    for plain, cut in zip(*found, strict=True):
        torch.testing.assert_close(cut, plain, rtol=1e-4, atol=1e-6)


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
