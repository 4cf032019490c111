"""Whether a model, its tokenizer and what is asked of it go together: checked before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from sessions.errors import InputFileError, InvalidValue

if TYPE_CHECKING:
    from engine.policy import Policy
    from engine.tasks import Prompt

CAUSAL_TOLERANCE = 1e-3
"""Nats by which what comes later may change what was said before, beside 1e-4 of the largest."""
LONGEST = 32
"""Prompts with the most text that are encoded at the start."""


class UnusablePrompt(Exception):
    """A prompt met while sampling that the model cannot take; the step is dropped, and the session goes on."""


def context_of(model: Any) -> int | None:
    """Tokens that a model can look at: prompt and response; None if nothing says."""
    config = model.config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        told = getattr(config, name, None)
        if isinstance(told, int) and told > 0:
            return told
    return None


def rows_of(model: Any) -> int:
    """Tokens that a model has an embedding for."""
    return int(model.get_input_embeddings().weight.shape[0])


def check_tokenizer(model: Any, tokenizer: Any, name: str) -> None:
    """Refuse a tokenizer whose ordinary tokens a model has no embedding for.

    Tokens that were added later and that the embedding was never resized for (a padding token, an image's) are let
    pass: a prompt that holds one is refused when it is met.

    :raises InputFileError: if it is of another model.
    """
    rows = rows_of(model)
    added = set(getattr(tokenizer, "added_tokens_decoder", {}))
    beyond = [token for token in tokenizer.get_vocab().values() if token >= rows and token not in added]
    if beyond:
        raise InputFileError(
            f"model {name}: its tokenizer is not its own: it has tokens up to {max(beyond):,}, and the model has "
            f"embeddings for {rows:,}; put the tokenizer that it was trained with into its folder"
        )


def why_not_causal(policy: Policy) -> str:
    """Why a model is none that says one token after another; empty if it is one."""
    width = min(rows_of(policy.model), policy.vocabulary)
    first = [(7 * i + 3) % width for i in range(6)]
    rows = torch.tensor([first, [*first[:4], *((t + 1) % width for t in first[4:])]], device=policy.device)
    with torch.no_grad():
        logits = policy.model(input_ids=rows, use_cache=False).logits[:, :4].float().log_softmax(-1)
    off, size = float((logits[0] - logits[1]).abs().max()), float(logits.abs().max())
    if off <= CAUSAL_TOLERANCE + 1e-4 * size:
        return ""
    return f"what it says about a token depends on the tokens after it, by {off:.2g} nats"


def longest_prompt(policy: Policy, *several: Sequence[Prompt]) -> tuple[int, str]:
    """Tokens and id of the longest prompt: of those with the most text, which is nearly always right."""
    from engine.tasks.context import longest

    prompts = [prompt for prompts in several for prompt in longest(prompts, LONGEST)]
    return max(((len(policy.encode_prompt(p.messages or p.text)), p.id) for p in prompts), default=(0, ""))


class Room:
    """What the context leaves for responses.

    :ivar most: tokens that ``max_new_tokens`` may be; None: nothing limits it.
    """

    def __init__(self, context: int | None, longest: int = 0, prompt: str = "") -> None:
        self._context, self._longest, self._prompt = context, longest, prompt
        self.most = None if context is None else context - longest

    def check(self, max_new_tokens: float) -> None:
        """Refuse more than there is room for.

        :raises InvalidValue: with the numbers, and what to set.
        """
        if self.most is None or max_new_tokens <= self.most:
            return
        what = f"prompt {self._prompt} has {self._longest:,} tokens"
        if self.most < 1:
            raise InvalidValue(
                f"{what} and the model's context only {self._context:,}; leave the prompt out, or give a model that "
                "takes more"
            )
        raise InvalidValue(
            f"max_new_tokens {max_new_tokens:,.0f}: {what}, and both together are more than the {self._context:,} of "
            f"the model's context; set max_new_tokens to {self.most:,} at most, or leave long prompts out"
        )


def room_for(policy: Policy, *prompts: Sequence[Prompt]) -> Room:
    """What a model's context leaves for responses to a task's prompts."""
    context = policy.context
    return Room(context) if context is None else Room(context, *longest_prompt(policy, *prompts))
