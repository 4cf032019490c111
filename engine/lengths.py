r"""How long responses are, and would be under another limit.

A response that was cut at ``max_new_tokens`` says only that it would have been longer, so the lengths of recent steps
are a censored sample and their survival function is the product-limit estimate

.. math::
    S(t) = \prod_{u \le t} \Big(1 - \frac{d_u}{n_u}\Big),

with d_u the responses that ended with their u-th token and n_u those that had at least u tokens. Beyond the longest
response seen nothing was observed: the estimate goes on with the mean hazard, ended responses over tokens, and the
bounds with none, every response that was cut running into the limit, or with 1, each ending one token later.

Source: Kaplan and Meier (1958).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Survival = npt.NDArray[np.float64]
"""[limit]: at t, the chance that a response has more than t tokens, so 1 at first."""


def survival(lengths: Sequence[int], ended: Sequence[bool], limit: int, *, beyond: float | None = None) -> Survival:
    """S [limit] of responses sampled under ``limit``.

    :param lengths: tokens of each response seen, at least one of them.
    :param ended: whether it closed with an end token; false: it was cut.
    :param beyond: hazard beyond the longest response seen: 0 for the upper bound, 1 for the lower; None: the mean one.
    """
    longest = max(lengths)
    seen = np.asarray(lengths)
    stopped = np.bincount(seen[np.asarray(ended, dtype=bool)], minlength=longest + 1)[1 : longest + 1]
    at_least = np.bincount(seen, minlength=longest + 1)[::-1].cumsum()[::-1][1 : longest + 1]
    hazard = np.zeros(max(limit, longest))
    hazard[:longest] = stopped / at_least
    hazard[longest:] = stopped.sum() / seen.sum() if beyond is None else beyond
    after = np.cumprod(1 - hazard)
    return np.concatenate([[1.0], after[: limit - 1]])


def mean_length(alive: Survival) -> float:
    """Expected tokens of a response: the sum of S."""
    return float(alive.sum())


def longest_of(alive: Survival, rows: float) -> float:
    """Expected tokens of the longest of so many responses, which is how many decode steps they take."""
    return float((1 - (1 - alive) ** rows).sum())
