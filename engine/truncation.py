"""Cutting the tail off a distribution before sampling from it: top-k, top-p, min-p.

They apply in this order after the temperature, as in transformers, each to what the one before it left::

    top-k   the k likeliest tokens, and those that tie with the last of them
    top-p   the smallest set of likeliest tokens whose probabilities sum to p or more
    min-p   the tokens at least min_p times as probable as the likeliest

What is left is renormalised. The policy's own distribution is not: a truncated sampler is another distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Truncation:
    """How much of a distribution is sampled from; the default is all of it.

    :ivar top_k: 0: off.
    :ivar top_p: 1: off.
    :ivar min_p: 0: off.
    """

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def off(self) -> bool:
        return self == WHOLE

    def __call__(self, log_probabilities: Tensor) -> Tensor:
        """The truncated and renormalised distribution.

        :param log_probabilities: [..., V], normalised.
        :returns: [..., V], minus infinity for the tokens that were cut.
        """
        left = log_probabilities
        if self.top_k:
            left = top_k(left, self.top_k)
        if self.top_p < 1:
            left = top_p(left, self.top_p)
        if self.min_p:
            left = min_p(left, self.min_p)
        return left if self.off else left.log_softmax(-1)


WHOLE = Truncation()
"""No truncation."""


def top_k(log_probabilities: Tensor, k: int) -> Tensor:
    """Cut all but the k likeliest; what ties with the last of them stays.

    :param log_probabilities: [..., V], up to a constant; minus infinity stays out.
    """
    least = log_probabilities.topk(min(k, log_probabilities.shape[-1])).values[..., -1:]
    return log_probabilities.masked_fill(log_probabilities < least, -math.inf)


def top_p(log_probabilities: Tensor, p: float) -> Tensor:
    """Cut every token that those before it, from the likeliest down, make up for: their mass is p or more.

    :param log_probabilities: [..., V], up to a constant; minus infinity stays out.
    """
    ordered, tokens = log_probabilities.sort(descending=True, stable=True)
    mass = ordered.softmax(-1)
    wide = mass if mass.device.type == "mps" else mass.double()
    cut = wide.cumsum(-1) - wide >= p
    cut[..., 0] = False
    return log_probabilities.masked_fill(torch.zeros_like(cut).scatter(-1, tokens, cut), -math.inf)


def min_p(log_probabilities: Tensor, least: float) -> Tensor:
    """Cut the tokens less than ``least`` times as probable as the likeliest.

    :param log_probabilities: [..., V], up to a constant; minus infinity stays out.
    """
    floor = log_probabilities.amax(-1, keepdim=True) + math.log(least)
    return log_probabilities.masked_fill(log_probabilities < floor, -math.inf)
