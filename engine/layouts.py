"""Whether a model can be trained on packed batches, found out by looking and by trying.

A packed batch (:mod:`engine.tree`) needs attention that takes a mask of any shape, positions that are told and not
counted, and an output layer that alone makes the logits. What a model's configuration says against it is read; the
rest is tried on a few made-up rows, packed and one by one. A model that fails is trained on padded batches.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.batches import Batch, make_batch, pack_batch
from engine.randomness import stream
from engine.scorer import TokenScorer

TOLERANCE = 3e-4
"""Nats by which a token's log-probability may differ, on fp32 weights, beside 1e-5 of the largest one's size."""


def why_not_packed(model: Any) -> str:
    """The reason why a model's configuration rules packed batches out; empty if nothing does."""
    config = model.config.get_text_config()
    attention = str(getattr(config, "_attn_implementation", "") or "")
    if attention not in {"", "eager", "sdpa"}:
        return f"its attention is {attention}, which takes no block mask"
    kinds = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention", "attention"})
    if kinds:
        return f"it has layers of {', '.join(kinds)}"
    if getattr(config, "sliding_window", None):
        return f"its attention slides over {config.sliding_window} tokens"
    if getattr(model, "_is_stateful", False):
        return "it is recurrent"
    return ""


@torch.no_grad()
def reads_states(model: Any, device: torch.device) -> str:
    """Why the output layer alone does not make the model's logits from its decoder's states; empty if it does."""
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap:  # which small logits hardly show
        return f"its logits are capped at {cap:g}"
    return _differs(model, device, packed=False)


@torch.no_grad()
def differs_packed(model: Any, device: torch.device) -> str:
    """Why a model that reads states says something else on packed rows; empty if it says the same."""
    return why_not_packed(model) or _differs(model, device, packed=True)


def _differs(model: Any, device: torch.device, *, packed: bool) -> str:
    plain, short = TokenScorer(model), TokenScorer(model, reads_states=True)
    try:
        rows = _rows(int(model.config.get_text_config().vocab_size))
        batch = _batch(rows, device, packed=packed)
        one_by_one = [plain(_batch([row], device, packed=False)).logprobs[0] for row in rows]
        together = short(batch).logprobs
        want = torch.cat(one_by_one)
        got = torch.cat([together[i, : len(own)] for i, own in enumerate(one_by_one)])
        off = float((want - got).abs().max())
        allowed = TOLERANCE + 1e-5 * float(want.abs().max())
        return "" if off <= allowed else f"its log-probabilities differ by {off:.1e} nats"
    except Exception as error:  # noqa: BLE001 - models raise many kinds when they are given what they do not take
        text = str(error).strip().splitlines()
        return f"{type(error).__name__}: {text[0][:80] if text else ''}"
    finally:
        for scorer in (plain, short):
            scorer.forget()


Row = tuple[list[int], list[int]]


def _rows(vocabulary: int) -> list[Row]:
    """Two prompts with responses of different lengths, some of which begin alike."""
    tokens = stream("layouts").integers(vocabulary, size=64).tolist()
    first, second, shared = tokens[:5], tokens[5:14], tokens[14:17]
    return [
        (first, [*shared, *tokens[17:20]]),
        (first, tokens[20:27]),
        (first, [*shared, *tokens[27:29]]),
        (second, tokens[29:31]),
        (second, tokens[31:40]),
    ]


def _batch(rows: list[Row], device: torch.device, *, packed: bool) -> Batch:
    make = pack_batch if packed else make_batch
    return make([p for p, _ in rows], [r for _, r in rows], [1.0] * len(rows), 0, device)
