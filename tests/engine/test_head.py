"""Log-probabilities from states: against autograd through plain logits, and by finite differences."""

import pytest
import torch

from engine.head import read_tokens


def case(*, bias: bool, dtype: torch.dtype = torch.float32):
    made = torch.Generator().manual_seed(3)
    hidden = torch.randn(7, 5, generator=made, dtype=dtype, requires_grad=True)
    weight = torch.randn(11, 5, generator=made, dtype=dtype, requires_grad=True)
    shift = torch.randn(11, generator=made, dtype=dtype, requires_grad=True) if bias else None
    targets = torch.tensor([0, 10, 3, 3, 7, 1, 5])
    temperature = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.7, 1.3, 1.0], dtype=dtype)
    return hidden, weight, shift, targets, temperature


def plain(hidden, weight, bias, targets, temperature):
    logits = torch.nn.functional.linear(hidden, weight, bias) / temperature[:, None]
    log_p = logits.log_softmax(-1)
    return log_p.gather(-1, targets[:, None]).squeeze(-1), -(log_p.exp() * log_p).sum(-1)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (0.7, -0.4)])
def test_values_and_gradients_are_those_of_plain_logits(size: int, bias: bool, weights: tuple[float, float]) -> None:
    arguments = case(bias=bias)
    leaves = [t for t in arguments[:3] if t is not None]
    slope = torch.linspace(-1, 2, 7)
    found = []
    for values in (plain(*arguments), read_tokens(*arguments, size)):
        parts = [w * (slope * v).sum() for w, v in zip(weights, values, strict=True) if w]
        found.append((values, torch.autograd.grad(sum(parts), leaves)))
    torch.testing.assert_close(found[1][0], found[0][0])
    for a, b in zip(found[1][1], found[0][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_only_what_needs_a_gradient_gets_one() -> None:
    hidden, weight, _, targets, temperature = case(bias=False)
    frozen = weight.detach()
    logprobs, _ = read_tokens(hidden, frozen, None, targets, temperature, 3)
    logprobs.sum().backward()
    assert hidden.grad is not None
    assert frozen.grad is None
    states = hidden.detach()
    read_tokens(states, weight, None, targets, temperature, 3)[0].sum().backward()
    assert weight.grad is not None


def test_states_in_bf16_are_read_in_fp32() -> None:
    hidden, weight, bias, targets, temperature = case(bias=True)
    rough = hidden.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logprobs, entropy = read_tokens(rough, weight, bias, targets, temperature, 3)
    assert logprobs.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close((logprobs, entropy), plain(rough.float(), weight, bias, targets, temperature))
    logprobs.sum().backward()
    assert rough.grad.dtype == torch.bfloat16


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    hidden, weight, bias, targets, temperature = case(bias=True)
    logprobs, _ = read_tokens(hidden, weight, bias, targets, temperature, 3)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        torch.autograd.grad(logprobs.sum(), hidden, create_graph=True)
