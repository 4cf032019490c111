"""TRPO's linear algebra and line search, against dense solvers and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.algorithms.trpo import conjugate_gradient, line_search, rayleigh_quotient, step_length

NAN, INF = math.nan, math.inf


def system(seed: int, n: int) -> tuple[Tensor, Tensor]:
    """A symmetric positive definite matrix with eigenvalues 0.5 to 3.5, and a right-hand side."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    values = 0.5 + 3 * torch.rand(n, generator=generator, dtype=torch.float64)
    matrix = (basis * values) @ basis.T
    return (matrix + matrix.T) / 2, torch.randn(n, generator=generator, dtype=torch.float64)


class Counted:
    """The product with a matrix, counting and keeping what it was asked."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.asked: list[Tensor] = []

    def __call__(self, v: Tensor) -> Tensor:
        self.asked.append(v.clone())
        return self.matrix @ v


SIZE = st.integers(1, 12)
SEED = st.integers(0, 10_000)
DAMPING = st.sampled_from([0.0, 0.1, 2.0])


@given(SEED, SIZE, DAMPING, st.booleans())
def test_it_solves_a_damped_system(seed: int, n: int, damping: float, known: bool) -> None:
    matrix, b = system(seed, n)
    product = Counted(matrix)
    first = matrix @ b if known else None
    found = conjugate_gradient(product, b, iterations=4 * n, tolerance=1e-12, damping=damping, first=first)
    exact = torch.linalg.solve(matrix + damping * torch.eye(n, dtype=torch.float64), b)
    torch.testing.assert_close(found.x, exact, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.fisher_x, matrix @ exact, rtol=1e-8, atol=1e-10)
    assert found.curvature == pytest.approx(float(exact @ matrix @ exact), rel=1e-8)
    assert len(product.asked) == len(found.residuals) - known


@given(SEED, st.integers(3, 12), DAMPING, st.integers(1, 3))
def test_what_it_reports_midway_is_true(seed: int, n: int, damping: float, iterations: int) -> None:
    """Residuals, x and F x after a few iterations, against the matrix itself."""
    matrix, b = system(seed, n)
    before = b.clone()
    damped = matrix + damping * torch.eye(n, dtype=torch.float64)
    history = [
        conjugate_gradient(lambda v: matrix @ v, b, iterations=k, tolerance=0.0, damping=damping)
        for k in range(iterations + 1)
    ]
    assert torch.equal(b, before)
    for k, found in enumerate(history):
        assert len(found.residuals) == k
        torch.testing.assert_close(found.fisher_x, matrix @ found.x, rtol=1e-9, atol=1e-12)
        if k:
            true = float(torch.linalg.vector_norm(b - damped @ found.x) / torch.linalg.vector_norm(b))
            assert found.residuals[-1] == pytest.approx(true, rel=1e-6, abs=1e-12)
            assert found.residuals[:-1] == pytest.approx(history[k - 1].residuals)


@given(SEED, st.integers(2, 10), st.integers(1, 10))
def test_each_iterate_minimises_the_quadratic_over_the_krylov_space(seed: int, n: int, k: int) -> None:
    """The definition of conjugate gradient: no other combination of b, Ab, A^2 b, ... is better."""
    k = min(k, n)
    matrix, b = system(seed, n)
    found = conjugate_gradient(lambda v: matrix @ v, b, iterations=k, tolerance=0.0).x.numpy()
    a, krylov = matrix.numpy(), [b.numpy()]
    for _ in range(k - 1):
        krylov.append(a @ krylov[-1] / np.linalg.norm(a @ krylov[-1]))
    space = np.linalg.qr(np.stack(krylov, 1))[0]
    best = space @ np.linalg.solve(space.T @ a @ space, space.T @ b.numpy())

    def quadratic(x: np.ndarray) -> float:
        return 0.5 * x @ a @ x - b.numpy() @ x

    scale = abs(quadratic(best))
    assert quadratic(found) == pytest.approx(quadratic(best), abs=1e-9 * scale)


@given(SEED, st.integers(4, 12), st.sampled_from([0.5, 0.1, 1e-2, 1e-4]))
def test_it_stops_at_the_first_residual_inside_the_tolerance(seed: int, n: int, tolerance: float) -> None:
    matrix, b = system(seed, n)
    product = Counted(matrix)
    found = conjugate_gradient(product, b, iterations=100, tolerance=tolerance)
    assert found.residuals[-1] <= tolerance
    assert all(r > tolerance for r in found.residuals[:-1])
    assert len(product.asked) == len(found.residuals)


@given(SEED, st.integers(2, 8), st.sampled_from([1e-6, 1e6]))
def test_the_tolerance_is_relative_to_the_right_hand_side(seed: int, n: int, scale: float) -> None:
    matrix, b = system(seed, n)
    plain = conjugate_gradient(lambda v: matrix @ v, b, iterations=20, tolerance=0.1)
    scaled = conjugate_gradient(lambda v: matrix @ v, scale * b, iterations=20, tolerance=0.1)
    assert len(scaled.residuals) == len(plain.residuals)
    torch.testing.assert_close(scaled.x / scale, plain.x)


def test_the_known_first_product_is_used_and_no_other() -> None:
    matrix, b = system(3, 6)
    plain, spared = Counted(matrix), Counted(matrix)
    a = conjugate_gradient(plain, b, iterations=4, tolerance=0.0, damping=0.3)
    c = conjugate_gradient(spared, b, iterations=4, tolerance=0.0, damping=0.3, first=matrix @ b)
    assert torch.equal(a.x, c.x)
    assert torch.equal(plain.asked[0], b)
    assert [torch.equal(x, y) for x, y in zip(plain.asked[1:], spared.asked, strict=True)] == [True] * 3
    other = conjugate_gradient(spared, b, iterations=4, tolerance=0.0, damping=0.3, first=2 * (matrix @ b))
    assert not torch.allclose(other.x, a.x)


def test_no_right_hand_side_gives_no_step_and_asks_for_no_product() -> None:
    product = Counted(torch.eye(3))
    found = conjugate_gradient(product, torch.zeros(3), iterations=5, tolerance=0.1)
    assert found.x.tolist() == [0, 0, 0]
    assert found.fisher_x.tolist() == [0, 0, 0]
    assert found.residuals == []
    assert found.curvature == 0
    assert product.asked == []


def test_a_direction_of_negative_curvature_is_not_taken() -> None:
    # From b = (1, 1): the first direction has curvature 2 - 1 > 0; the second one is of negative curvature.
    matrix, b = torch.diag(torch.tensor([2.0, -1.0], dtype=torch.float64)), torch.ones(2, dtype=torch.float64)
    found = conjugate_gradient(lambda v: matrix @ v, b, iterations=10, tolerance=0.0)
    assert len(found.residuals) == 1
    assert found.x.tolist() == pytest.approx([2.0, 2.0])  # b'b / b'Ab = 2/1
    assert found.fisher_x.tolist() == pytest.approx([4.0, -2.0])


@pytest.mark.parametrize("matrix", [[[-1.0, 0.0], [0.0, -2.0]], [[0.0, 0.0], [0.0, 0.0]], [[NAN, 0.0], [0.0, 1.0]]])
def test_without_any_good_direction_it_takes_none(matrix: list[list[float]]) -> None:
    found = conjugate_gradient(lambda v: torch.tensor(matrix) @ v, torch.ones(2), iterations=10, tolerance=0.0)
    assert found.x.tolist() == [0, 0]
    assert found.residuals == []


def test_damping_turns_a_flat_direction_into_a_good_one() -> None:
    flat, b = torch.zeros(2, 2), torch.tensor([1.0, -2.0])
    found = conjugate_gradient(lambda v: flat @ v, b, iterations=10, tolerance=1e-6, damping=0.5)
    assert found.x.tolist() == pytest.approx([2.0, -4.0])
    assert found.curvature == 0


@given(SEED, SIZE)
def test_the_rayleigh_quotient_lies_between_the_extreme_eigenvalues(seed: int, n: int) -> None:
    matrix, v = system(seed, n)
    values, vectors = np.linalg.eigh(matrix.numpy())
    found = rayleigh_quotient(v, matrix @ v)
    weights = (vectors.T @ v.numpy()) ** 2
    assert found == pytest.approx(float(weights @ values / weights.sum()), rel=1e-9)
    for value, vector in zip(values, vectors.T):
        along = torch.from_numpy(3 * vector)
        assert rayleigh_quotient(along, matrix @ along) == pytest.approx(value)
    assert rayleigh_quotient(torch.zeros(n), torch.zeros(n)) == 0


@given(SEED, SIZE, st.sampled_from([1e-3, 0.01, 0.5]), DAMPING)
def test_the_step_reaches_the_edge_of_the_trust_region_of_the_quadratic(
    seed: int, n: int, trust_region: float, damping: float
) -> None:
    """(s x)' F (s x) / 2 = delta with the undamped F, whatever damping x was found with."""
    matrix, b = system(seed, n)
    found = conjugate_gradient(lambda v: matrix @ v, b, iterations=3, tolerance=0.0, damping=damping)
    step = step_length(trust_region, found.curvature) * found.x
    assert 0.5 * float(step @ matrix @ step) == pytest.approx(trust_region, rel=1e-8)


def search(answers: list[tuple[float, float]], trust_region: float = 0.01, backtracks: int | None = None):
    """A line search over prepared answers, and the fractions it asked for."""
    asked: list[float] = []

    def attempt(fraction: float) -> tuple[float, float]:
        asked.append(fraction)
        return answers[len(asked) - 1]

    return line_search(attempt, trust_region, len(answers) if backtracks is None else backtracks), asked


def test_the_first_try_that_is_inside_and_better_is_accepted() -> None:
    answers = [(0.02, 1.0), (0.005, -0.1), (0.01, 0.3), (0.004, 0.5)]
    tries, asked = search(answers)
    assert asked == pytest.approx([1.0, 0.8, 0.64])
    assert [t.accepted for t in tries] == [False, False, True]
    assert [(t.kl, t.gain) for t in tries] == answers[:3]
    assert [t.fraction for t in tries] == asked


def test_the_edge_of_the_trust_region_is_inside_and_no_gain_is_no_improvement() -> None:
    assert search([(0.01, 0.1)])[0][0].accepted
    assert not search([(math.nextafter(0.01, 1), 0.1)])[0][0].accepted
    assert not search([(0.0, 0.0)])[0][0].accepted
    assert search([(-1e-9, 1e-9)])[0][0].accepted  # rounding may take a divergence below 0


def test_none_is_accepted() -> None:
    tries, asked = search([(1.0, 1.0)] * 10)
    assert len(tries) == 10
    assert asked == pytest.approx([0.8**j for j in range(10)])
    assert not any(t.accepted for t in tries)


@pytest.mark.parametrize(
    "answer", [(NAN, 1.0), (0.001, NAN), (INF, 1.0), (-INF, 1.0), (0.001, INF), (0.001, -INF), (NAN, NAN)]
)
def test_what_is_not_finite_is_never_accepted(answer: tuple[float, float]) -> None:
    tries, _ = search([answer, (0.001, 0.1)])
    assert [t.accepted for t in tries] == [False, True]


@pytest.mark.parametrize("backtracks", [0, 1, 3])
def test_no_more_tries_than_allowed(backtracks: int) -> None:
    assert len(search([(1.0, 1.0)] * 10, backtracks=backtracks)[0]) == backtracks


def test_an_exact_step_on_a_categorical_policy_stays_in_the_trust_region() -> None:
    """The whole recipe on a softmax of one state, whose Fisher matrix is diag(p) - pp' and whose KL is enumerable."""
    logits = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64)
    advantages = torch.tensor([1.0, -0.5, 0.2, -1.0], dtype=torch.float64)
    p = logits.softmax(0)
    fisher = torch.diag(p) - torch.outer(p, p)
    gradient = p * (advantages - p @ advantages)
    found = conjugate_gradient(lambda v: fisher @ v, gradient, iterations=10, tolerance=1e-10)
    length = step_length(1e-4, found.curvature)

    def attempt(fraction: float) -> tuple[float, float]:
        new = (logits + fraction * length * found.x).softmax(0)
        return float((p * (p / new).log()).sum()), float((new - p) @ advantages)

    tries = line_search(attempt, 1e-4, 10)
    assert tries[-1].accepted
    assert len(tries) <= 2
    assert tries[0].kl == pytest.approx(1e-4, rel=0.05)  # the quadratic is nearly exact this close
    assert tries[0].gain == pytest.approx(length * float(gradient @ found.x), rel=0.05)
