"""Streams named by keys."""

from __future__ import annotations

import numpy as np
import pytest

from engine.randomness import evaluation_noise, permutation, response_noise, stream


def test_the_same_key_gives_the_same_numbers() -> None:
    assert stream("a", 1).random(5).tolist() == stream("a", 1).random(5).tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [(("a", 1), ("a", 2)), (("a", 1), ("a", "1")), (("ab", "c"), ("a", "bc")), (("a",), ("a", "")), ((1, 2), (12,))],
)
def test_different_keys_give_different_numbers(one: tuple[str | int, ...], other: tuple[str | int, ...]) -> None:
    assert stream(*one).random(4).tolist() != stream(*other).random(4).tolist()


def test_noise_is_the_same_in_every_version() -> None:
    """Recorded runs can only be computed again while these numbers stay."""
    recorded = [0.7008668479740119, 0.5154603068722602, 0.15269522757659382]
    assert response_noise(0, 1, "37+48", 2, 3).tolist() == recorded


def test_a_longer_request_begins_with_the_shorter() -> None:
    assert response_noise(7, 3, "p", 1, 40)[:9].tolist() == response_noise(7, 3, "p", 1, 9).tolist()


def test_every_part_of_the_key_matters() -> None:
    base = {"seed": 1, "step": 2, "prompt_id": "p", "index": 3, "attempt": 0}
    first = {"seed": 9, "step": 9, "prompt_id": "q", "index": 9, "attempt": 9}
    rows = [response_noise(**base, length=8)]
    rows += [response_noise(**{**base, name: value}, length=8) for name, value in first.items()]
    assert len({tuple(r.tolist()) for r in rows}) == 6


def test_noise_is_uniform() -> None:
    values = np.concatenate([response_noise(0, step, "p", i, 100) for step in range(10) for i in range(10)])
    assert values.min() >= 0
    assert values.max() < 1
    counts, _ = np.histogram(values, bins=10, range=(0, 1))
    assert abs(counts - 1000).max() < 5 * np.sqrt(900)


def test_a_permutation_is_one() -> None:
    order = permutation("x", 3, n=50)
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() == permutation("x", 3, n=50).tolist()
    assert order.tolist() != permutation("x", 4, n=50).tolist()


def test_evaluation_has_streams_of_its_own() -> None:
    rows = [evaluation_noise(1, "p", 8), evaluation_noise(2, "p", 8), evaluation_noise(1, "q", 8)]
    rows.append(response_noise(1, 0, "p", 0, 8))
    assert len({tuple(r.tolist()) for r in rows}) == 4
    assert evaluation_noise(1, "p", 3).tolist() == rows[0][:3].tolist()
