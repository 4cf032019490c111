"""What is trained, in one line: read from the model itself before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.policy import Policy
from sessions.plans import gigabytes

FEW = 6
"""End tokens that are named."""


def describe_model(policy: Policy, kept: Mapping[str, float], gradients: float) -> str:
    """Family, sizes, precision, bytes, and what of the tokenizer decides how responses begin and end.

    :param kept: bytes that stay from step to step, by their names.
    :param gradients: bytes of those.
    """
    config = policy.model.config.get_text_config()
    total = sum(p.numel() for p in policy.model.parameters())
    trained = sum(p.numel() for p in policy.parameters)
    sizes = f"{_count(total)} parameters" + ("" if trained == total else f", {_count(trained)} trained")
    if tied := _tied(policy.model):
        sizes += f", {_count(tied)} of them tied (input and output embeddings)"
    stored = f"stored in {policy.stored}, " if policy.stored else ""
    computed = "bf16" if policy.bf16 else "fp32"
    amounts = {**kept, "gradients": gradients}
    amounts = {name: amounts[name] for name in ("weights", "gradients", "optimizer", "reference") if amounts.get(name)}
    layers = getattr(config, "num_hidden_layers", None)
    depth = f", {layers} layer{'s' * (layers != 1)}" if layers else ""
    parts = [
        f"{config.model_type}{depth}, {sizes}",
        f"{stored}fp32 weights computed in {computed} on {policy.device}",
        ", ".join(f"{name} {gigabytes(size)}" for name, size in amounts.items()) + " GB",
        f"vocabulary {policy.vocabulary:,}, context {'not told' if policy.context is None else f'{policy.context:,}'}",
        f"a response ends with {_ends(policy)}",
        _template(policy),
    ]
    return "; ".join(parts)


def _tied(model: Any) -> int:
    """Numbers that are both the input's and the output's embedding."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    return int(first.weight.numel()) if last is not None and last.weight is first.weight else 0


def _ends(policy: Policy) -> str:
    tokens = sorted(policy.end_tokens)
    return " or ".join(policy.names(tokens[:FEW])) + (f" or {len(tokens) - FEW} more" if len(tokens) > FEW else "")


def _template(policy: Policy) -> str:
    if not policy.uses_chat_template:
        return "the chat template is not used" if policy.tokenizer.chat_template else "no chat template"
    return "chat template" + (", system messages go into the user's" if policy.merges_system else "")


def _count(number: int) -> str:
    """How many, short: 512, 12.3k, 134.5M, 1.2B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return str(number)
