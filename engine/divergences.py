r"""The divergence of the policy from its reference, estimated on sampled tokens or exact. Pure functions.

With :math:`L = \log\pi(o_t) - \log\pi_\mathrm{ref}(o_t)` for a token sampled from the policy:

========  ======================  ============================================================
k1        L                       unbiased, may be negative; as a loss its gradient is 0 in expectation
k2        L^2 / 2                 biased; as a loss it has the exact reverse-KL gradient
k3        exp(-L) - 1 + L         unbiased, never negative; as a loss it has the forward-KL gradient
k3_ratio  k3 times rho            as k3; as a loss it has the exact reverse-KL gradient
full      sum over the vocabulary the exact KL(policy, reference) at the token's place, value and gradient
========  ======================  ============================================================

Source: Schulman, "Approximating KL divergence" (2020); DeepSeekMath (arXiv 2402.03300) equation 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are held inside +-20 before exp: beyond, fp32 estimates are meaningless and would poison a sum."""


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """L; any shape."""
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """L^2 / 2; any shape."""
    return (logprobs - reference).square() / 2


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """exp(-L) - 1 + L; any shape."""
    log_ratio = (reference - logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return torch.expm1(log_ratio) - log_ratio


def divergence(estimator: str, logprobs: Tensor, reference: Tensor, ratio: Tensor | None = None) -> Tensor:
    """The estimator of that name, for each token.

    :param logprobs: of the sampled tokens under the policy; carries the gradient.
    :param reference: the same under the reference.
    :param ratio: rho = exp(l - l_old), needed by ``k3_ratio``; carries a gradient too.
    """
    if estimator == "k1":
        return k1(logprobs, reference)
    if estimator == "k2":
        return k2(logprobs, reference)
    if estimator == "k3":
        return k3(logprobs, reference)
    if estimator == "k3_ratio":
        if ratio is None:
            raise ValueError("k3_ratio needs the importance ratio")
        return k3(logprobs, reference) * ratio
    raise ValueError(f"unknown estimator {estimator!r}")


def kl_old_new(logprobs: Tensor, old: Tensor) -> Tensor:
    """(rho - 1) - log rho on tokens sampled from the old policy: unbiased for KL(old, new), never negative."""
    log_ratio = (logprobs - old).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return torch.expm1(log_ratio) - log_ratio


def full_kl(logits: Tensor, other: Tensor) -> Tensor:
    r"""The exact :math:`\mathrm{KL}(p, q) = \sum_v p_v (\log p_v - \log q_v)`, nats.

    :param logits: of p [..., V]; tempered.
    :param other: of q [..., V]; tempered alike.
    :returns: [...], never negative beyond rounding; carries the gradient of both.
    """
    p, q = logits.log_softmax(-1), other.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def entropy(logits: Tensor) -> Tensor:
    r""":math:`-\sum_v p_v \log p_v` of tempered logits [..., V], nats; carries the gradient."""
    p = logits.log_softmax(-1)
    return -(p.exp() * p).sum(-1)
