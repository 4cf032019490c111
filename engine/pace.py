r"""How fast the machine is: the cost of each kind of work, fitted to what recent steps took.

A phase of a step takes :math:`T = \sum_j \theta_j x_j`: counts x of its work, each with a cost :math:`\theta_j \ge 0`.
Recent steps are much alike, so they do not tell the costs apart by themselves; a rough guess of their proportions,
from the sizes of the model, decides what the steps leave open. With :math:`\theta_j = s g_j \varphi_j`, g the guess
and s the median of T over its prediction,

.. math::
    \varphi = \arg\min \sum_i w_i \Big(\frac{T_i - s\, g x_i \varphi}{\sigma \hat T_i}\Big)^2
              + \sum_j \Big(\frac{\varphi_j - 1}{\tau}\Big)^2

with Huber weights w, so that a step that something disturbed counts for little, and :math:`\sigma` the spread of the
relative residuals. Its curvature gives the range of a prediction.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
DOUBT = 2.0
"""tau: how far, relative to itself, a cost may be from the guess."""
LEAST_NOISE = 0.03
"""sigma is never believed to be less: the next step will not be like the last."""
FEW_NOISE = 0.15
"""sigma while there are too few steps to tell."""
FEW = 4
ROUNDS = 12
SCALE, SCALE_DOUBT = 1.2, 0.2
"""s before anything was measured, and its standard deviation: 1.1 to 1.25 on the embedded model."""
PEAK_NOISE = 0.03
"""Relative standard deviation of a peak around what two steps alike would give."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Costs and what is known of them.

    :ivar costs: [k] seconds a unit of work.
    :ivar covariance: [k, k] of them.
    :ivar noise: relative spread of a step around its prediction.
    """

    costs: Array
    covariance: Array
    noise: float

    def seconds(self, work: Sequence[float]) -> float:
        """Of so much work."""
        return float(np.asarray(work) @ self.costs)

    def spread(self, work: Sequence[float]) -> float:
        """Standard deviation of one step's seconds around :meth:`seconds`."""
        x = np.asarray(work)
        return float(np.sqrt(x @ self.covariance @ x + (self.noise * self.seconds(work)) ** 2))


def fit(work: Sequence[Sequence[float]], seconds: Sequence[float], guess: Sequence[float]) -> Pace:
    """The costs of steps.

    :param work: [n, k] counts, n at least 1.
    :param seconds: [n] that they took.
    :param guess: [k] of the costs, above 0; only their proportions matter.
    """
    x, t, g = np.asarray(work, dtype=float), np.asarray(seconds, dtype=float), np.asarray(guess, dtype=float)
    likely = np.maximum(x @ g, 1e-12)
    scale = float(np.median(t / likely))
    if not scale > 0:  # it took no time at all
        return Pace(np.zeros(len(g)), np.zeros((len(g), len(g))), FEW_NOISE)
    unit = scale * g
    design = x * unit  # [n, k] seconds of each kind, were the guess right
    share = np.ones(len(g))
    noise, weights = FEW_NOISE, np.ones(len(t))
    for _ in range(ROUNDS):
        expected = np.maximum(design @ share, 1e-9)
        residuals = (t - expected) / expected
        if len(t) >= FEW:
            noise = max(LEAST_NOISE, 1.4826 * float(np.median(np.abs(residuals))))
        weights = np.minimum(1.0, 2 * noise / np.maximum(np.abs(residuals), 1e-12))
        precision = weights / (noise * expected) ** 2
        curvature = (design.T * precision) @ design + np.eye(len(g)) / DOUBT**2
        share = _least(curvature, design.T @ (precision * t) + np.ones(len(g)) / DOUBT**2)
    covariance = np.linalg.inv(curvature) * np.outer(unit, unit)
    return Pace(share * unit, covariance, noise)


def _least(curvature: Array, slope: Array) -> Array:
    r"""The :math:`\varphi \ge 0` [k] of least :math:`\varphi'A\varphi / 2 - b'\varphi`: where that has a negative part,
    the best of those with some parts 0, every choice of which is tried, because there are at most eight.

    :param curvature: A [k, k], positive definite.
    :param slope: b [k].
    """
    inside: Array = np.linalg.solve(curvature, slope).astype(float)
    if (inside >= 0).all():
        return inside
    best, least = np.zeros(len(slope)), 0.0
    for chosen in itertools.product((False, True), repeat=len(slope)):
        free = np.flatnonzero(chosen)
        found = np.zeros(len(slope))
        found[free] = np.linalg.solve(curvature[np.ix_(free, free)], slope[free])
        value = float(found @ curvature @ found / 2 - slope @ found)
        if (found >= 0).all() and value < least:
            best, least = found, value
    return best


@dataclass(frozen=True, slots=True)
class Calibration:
    r"""Peak memory as :math:`P = b + R + s T`: the process itself, what is counted and stays, what comes and goes.

    :ivar base: b, bytes of the process beside what is counted.
    :ivar scale: s: the backward pass has temporaries of its own, and an allocator keeps some of what it is given back.
    :ivar measured: peaks that it was fitted to.
    """

    base: float
    scale: float
    measured: int = 0


def calibrate(peaks: Sequence[tuple[float, float, float]], base: float, *, base_doubt: float) -> Calibration:
    """Fit b and s to peaks, as far as they tell them apart; else both stay near what was expected.

    :param peaks: (R, T, P) of steps that raised the peak.
    :param base: b as it was before the first step.
    :param base_doubt: standard deviation of it, bytes.
    """
    if not peaks:
        return Calibration(base, SCALE)
    kept, passing, peak = (np.asarray(column, dtype=float) for column in zip(*peaks, strict=True))
    noise = PEAK_NOISE * peak
    design = np.stack([np.full(len(peak), base_doubt), SCALE_DOUBT * passing], 1)  # b and s, each in its doubt
    missing = peak - kept - base - SCALE * passing
    curvature = (design.T / noise**2) @ design + np.eye(2)
    off = np.linalg.solve(curvature, design.T @ (missing / noise**2))
    return Calibration(
        float(max(0.0, base + base_doubt * off[0])), float(max(0.1, SCALE + SCALE_DOUBT * off[1])), len(peak)
    )
