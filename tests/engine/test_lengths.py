"""How long responses would be, from recent ones of which some were cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.lengths import longest_of, mean_length, survival

LENGTHS = st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=20)


def test_without_cuts_it_is_the_share_that_is_longer() -> None:
    lengths = [1, 3, 3, 5]
    alive = survival(lengths, [True] * 4, 6)
    assert alive.tolist() == pytest.approx([sum(n > t for n in lengths) / 4 for t in range(6)])
    assert mean_length(alive) == pytest.approx(3.0)


def test_a_smaller_limit_cuts_and_changes_nothing_before_it() -> None:
    lengths = [2, 4, 9]
    assert mean_length(survival(lengths, [True] * 3, 4)) == pytest.approx((2 + 4 + 4) / 3)


def test_cut_responses_count_as_long_as_they_were_seen() -> None:
    """By hand: of 4 at the start one ends with its 2nd token; of the 2 left at the 4th one ends, one was cut at 3."""
    alive = survival([2, 3, 4, 4], [True, False, True, False], 4)
    assert alive.tolist() == pytest.approx([1, 1, 3 / 4, 3 / 4])
    longer = survival([2, 3, 4, 4], [True, False, True, False], 6)
    assert longer[4] == pytest.approx(3 / 8)
    assert longer[5] == pytest.approx(3 / 8 * (1 - 2 / 13))  # two ended among 13 tokens


def test_a_constant_hazard_is_found_again_beyond_the_limit_that_cut_it() -> None:
    rng = np.random.default_rng(0)
    true = rng.geometric(0.1, size=20_000)
    seen, ended = np.minimum(true, 8), true <= 8
    expected = float(np.minimum(true, 30).mean())
    assert mean_length(survival(seen.tolist(), ended.tolist(), 30)) == pytest.approx(expected, rel=0.03)


def test_the_bound_lets_every_cut_response_run_into_the_limit() -> None:
    lengths, ended = [2, 4, 4, 3], [True, False, False, True]
    alive = survival(lengths, ended, 10, beyond=0.0)
    assert mean_length(alive) == pytest.approx((2 + 10 + 10 + 3) / 4)
    assert mean_length(survival([2, 3], [True, True], 10, beyond=0.0)) == pytest.approx(2.5)  # none was cut
    least = survival(lengths, ended, 10, beyond=1.0)
    assert mean_length(least) == pytest.approx((2 + 5 + 5 + 3) / 4)  # one more token each


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_longest_of_some_is_that_of_every_draw(rows: int) -> None:
    lengths = [1, 2, 2, 5]
    draws = [max(draw) for draw in itertools.product(lengths, repeat=rows)]
    assert longest_of(survival(lengths, [True] * 4, 8), rows) == pytest.approx(sum(draws) / len(draws))


@given(LENGTHS, st.integers(1, 30), st.integers(1, 30))
def test_it_falls_from_1_and_grows_with_the_limit(seen: list[tuple[int, bool]], limit: int, more: int) -> None:
    lengths, ended = [n for n, _ in seen], [e for _, e in seen]
    alive = survival(lengths, ended, limit)
    assert len(alive) == limit
    assert alive[0] == 1
    assert (np.diff(alive) <= 1e-12).all()
    longer = survival(lengths, ended, limit + more)
    assert mean_length(longer) >= mean_length(alive) - 1e-12
    assert mean_length(survival(lengths, ended, limit + more, beyond=0.0)) >= mean_length(longer) - 1e-12
    assert mean_length(alive) - 1e-9 <= longest_of(alive, 4) <= limit + 1e-9
