"""Truncated distributions against brute force over small vocabularies, transformers' warpers, and what must hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from engine.randomness import stream
from engine.sampling import pick, tempered
from engine.truncation import WHOLE, Truncation, top_p

LOGITS = st.lists(st.floats(-6, 6, width=32), min_size=1, max_size=9)
SOME = st.builds(
    Truncation,
    top_k=st.integers(0, 10),
    top_p=st.one_of(st.just(1.0), st.floats(1e-6, 1)),
    min_p=st.one_of(st.just(0.0), st.floats(1e-6, 1)),
)


def kept_by_hand(p: list[float], cut: Truncation) -> dict[int, float]:
    """Token -> probability, one rule after the other, with lists and sums."""
    left = sorted(range(len(p)), key=lambda token: (-p[token], token))
    if cut.top_k:
        least = p[left[min(cut.top_k, len(left)) - 1]]
        left = [token for token in left if p[token] >= least]
    if cut.top_p < 1:
        total, taken, mass = math.fsum(p[token] for token in left), [], 0.0
        for token in left:
            if taken and mass >= cut.top_p * total:
                break
            taken.append(token)
            mass += p[token]
        left = taken
    if cut.min_p:
        left = [token for token in left if p[token] >= cut.min_p * p[left[0]]]
    total = math.fsum(p[token] for token in left)
    return {token: p[token] / total for token in left}


def near_an_edge(p: list[float], cut: Truncation) -> bool:
    """Whether rounding may decide: a sum next to top_p, a probability next to min_p's share or the k-th."""
    order = sorted(p, reverse=True)
    left = [x for x in order if not cut.top_k or x >= order[min(cut.top_k, len(order)) - 1]]
    sums = np.cumsum(left) / math.fsum(left)
    close = any(0 < abs(a - b) < 1e-6 * b for a in p for b in p)
    return close or any(abs(s - cut.top_p) < 1e-5 for s in sums) or any(abs(x / order[0] - cut.min_p) < 1e-5 for x in p)


@given(LOGITS, SOME)
def test_what_is_kept_and_its_probabilities(logits: list[float], cut: Truncation) -> None:
    log_p = torch.tensor(logits).log_softmax(-1)
    p = log_p.double().exp().tolist()
    assume(not near_an_edge(p, cut))
    found = cut(log_p).double().exp().tolist()
    expected = kept_by_hand(p, cut)
    assert {token for token, x in enumerate(found) if x > 0} == set(expected)
    for token, x in expected.items():
        assert found[token] == pytest.approx(x, abs=1e-5)


@given(LOGITS, SOME)
def test_what_is_kept_are_the_likeliest_and_sums_to_one(logits: list[float], cut: Truncation) -> None:
    log_p = torch.tensor(logits).log_softmax(-1)
    found = cut(log_p)
    kept = found.isfinite()
    assert bool(kept[log_p.argmax()])
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-5)
    if not bool(kept.all()):
        assert float(log_p[kept].min()) >= float(log_p[~kept].max())
    if cut.top_k and cut.top_p == 1 and not cut.min_p:
        assert int(kept.sum()) >= min(cut.top_k, len(logits))
    if not cut.top_k and not cut.min_p:
        p = log_p.double().exp()
        assert float(p[kept].sum()) >= cut.top_p - 1e-6
        assert float(p[kept].sum() - p[kept].min()) < cut.top_p + 1e-6  # and none too many


@pytest.mark.parametrize(
    "cut",
    [
        Truncation(top_k=5),
        Truncation(top_k=1000),
        Truncation(top_p=0.9),
        Truncation(top_p=0.01),
        Truncation(min_p=0.1),
        Truncation(min_p=1.0),
        Truncation(top_k=20, top_p=0.7, min_p=0.2),
        Truncation(top_p=0.95, min_p=0.05),
    ],
)
def test_the_same_as_the_warpers_of_transformers_in_their_order(cut: Truncation) -> None:
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 300, generator=random)
    scores, nothing = logits.clone(), torch.empty(40, 0, dtype=torch.long)
    for warper in (
        TopKLogitsWarper(cut.top_k) if cut.top_k else None,
        TopPLogitsWarper(cut.top_p) if cut.top_p < 1 else None,
        MinPLogitsWarper(cut.min_p) if cut.min_p else None,
    ):
        scores = warper(nothing, scores) if warper else scores
    found = cut(logits.log_softmax(-1))
    assert torch.allclose(found, scores.log_softmax(-1), atol=1e-5)
    assert not torch.isfinite(found).all() or cut.top_k == 1000


def test_what_top_k_cut_does_not_count_for_top_p() -> None:
    p = torch.tensor([0.4, 0.3, 0.2, 0.1])
    assert Truncation(top_p=0.6)(p.log()).isfinite().tolist() == [True, True, False, False]
    assert Truncation(top_k=2, top_p=0.55)(p.log()).isfinite().tolist() == [True, False, False, False]  # 0.4 of 0.7


def test_ties_stay_with_top_k_and_the_first_goes_first_with_top_p() -> None:
    even = torch.full((4,), 0.25).log()
    assert Truncation(top_k=2)(even).isfinite().all()
    assert Truncation(top_p=0.5)(even).isfinite().tolist() == [True, True, False, False]
    assert top_p(even, 1e-6).isfinite().tolist() == [True, False, False, False]


def test_without_truncation_nothing_is_touched() -> None:
    log_p = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    assert WHOLE.off
    assert WHOLE(log_p) is log_p
    assert not any(cut.off for cut in (Truncation(top_k=1), Truncation(top_p=0.9), Truncation(min_p=0.1)))


def test_tokens_are_drawn_from_what_is_left_and_their_log_probabilities_are_of_it() -> None:
    logits, cut, temperature = torch.tensor([0.5, -1.0, 2.0, 0.0, -3.0]), Truncation(top_k=4, top_p=0.9), 1.3
    expected = kept_by_hand((logits.double() / temperature).softmax(-1).tolist(), cut)
    uniform = torch.from_numpy(stream("truncation test").random(20_000))
    tokens, logprobs = pick(cut(tempered(logits.expand(len(uniform), -1), temperature)), uniform)
    assert set(tokens.tolist()) == set(expected) != set(range(5))
    shares = np.bincount(tokens.numpy(), minlength=5) / len(uniform)
    for token, x in expected.items():
        assert shares[token] == pytest.approx(x, abs=0.02)
        assert logprobs[tokens == token].unique().tolist() == pytest.approx([math.log(x)], abs=1e-5)
