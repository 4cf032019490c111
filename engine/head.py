r"""Log-probabilities and entropies straight from states and the output layer, without holding logits.

With z the tempered logits of a token, p their softmax and H its entropy,

.. math::
    \log p_y = z_y - \mathrm{logsumexp}(z), \qquad
    \frac{\partial \log p_y}{\partial z} = e_y - p, \qquad
    \frac{\partial H}{\partial z} = -p \odot (\log p + H) .

The logits of a bounded number of tokens exist at a time; the backward pass makes them again, turns them into the
gradient in place and adds that of the layer's weights up in one buffer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Tokens(torch.autograd.Function):
    """(states [N, D], weight [V, D], bias [V] or None, targets [N], temperature [N], size) -> log p [N], H [N]."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropy = torch.empty_like(temperature), torch.empty_like(temperature)
        normaliser = torch.empty_like(temperature)
        for part in _parts(len(targets), size):
            logits = _logits(hidden[part], weight, bias, temperature[part])
            normaliser[part] = logits.logsumexp(-1)
            log_p = logits.sub_(normaliser[part, None])
            logprobs[part] = log_p.gather(-1, targets[part, None]).squeeze(-1)
            entropy[part] = -torch.einsum("nv,nv->n", log_p.exp(), log_p)
        ctx.save_for_backward(hidden, weight, bias, targets, temperature, normaliser, entropy)
        ctx.size = size
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, of_logprobs: Tensor | None, of_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # a graph of this pass was asked for
            raise RuntimeError("log-probabilities read in chunks: trying to differentiate twice; ask for logits")
        hidden, weight, bias, targets, temperature, normaliser, entropy = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        of_hidden = torch.empty_like(hidden) if needs_hidden else None
        of_weight = torch.zeros_like(weight) if needs_weight else None
        of_bias = torch.zeros_like(bias) if bias is not None and needs_bias else None
        for part in _parts(len(targets), ctx.size):
            log_p = _logits(hidden[part], weight, bias, temperature[part]).sub_(normaliser[part, None])
            gradient = _of_logits(
                log_p,
                targets[part],
                entropy[part],
                None if of_logprobs is None else of_logprobs[part],
                None if of_entropy is None else of_entropy[part],
            ).div_(temperature[part, None])
            if of_hidden is not None:
                torch.mm(gradient, weight, out=of_hidden[part])
            if of_weight is not None:
                of_weight.addmm_(gradient.t(), hidden[part])
            if of_bias is not None:
                of_bias += gradient.sum(0)
        return of_hidden, of_weight, of_bias, None, None, None


def _of_logits(
    log_p: Tensor, targets: Tensor, entropy: Tensor, of_logprobs: Tensor | None, of_entropy: Tensor | None
) -> Tensor:
    """The gradient of tempered logits [n, V]; ``log_p`` is used up."""
    p = log_p.exp()
    if of_entropy is None:
        gradient = p.mul_(torch.zeros_like(entropy)[:, None] if of_logprobs is None else -of_logprobs[:, None])
    else:
        slope = log_p.add_(entropy[:, None]).mul_(of_entropy[:, None])
        gradient = p.mul_((slope if of_logprobs is None else slope.add_(of_logprobs[:, None])).neg_())
    if of_logprobs is not None:
        gradient[torch.arange(len(targets), device=targets.device), targets] += of_logprobs
    return gradient


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: Tensor) -> Tensor:
    return torch.nn.functional.linear(hidden, weight, bias).div_(temperature[:, None])


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def read_tokens(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [N] of tokens and entropies [N], tempered, in fp32, both with gradient; once differentiable.

    :param hidden: [N, D], the states before the tokens.
    :param weight: [V, D] of the output layer, in fp32.
    :param bias: [V], or None.
    :param targets: [N], the tokens.
    :param temperature: [N].
    :param size: tokens whose logits exist at a time.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        logprobs, entropy = _Tokens.apply(hidden.float(), weight, bias, targets, temperature, size)
    return logprobs, entropy
