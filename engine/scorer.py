"""What a model says of the response tokens of a batch: the forward pass of training."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.batches import Batch
from engine.head import read_tokens

CHUNK = 2**23
CUDA_CHUNK = 2**26
"""Most response tokens x vocabulary of logits that exist at a time: 32 MB in fp32, 256 MB on CUDA."""

SMALL_SHARE = 8
"""So many times fewer logits are held: making them again would cost more than they take."""


class Scores(NamedTuple):
    """What a forward pass says of a batch's response tokens; values where the mask is false mean nothing.

    :ivar logprobs: [rows, T] of the tempered distribution, in fp32.
    :ivar entropy: [rows, T] of that distribution, nats; without gradient unless that was asked for.
    :ivar hidden: [rows, T, D], the state before each token that the output layer reads; None unless asked for.
    :ivar logits: [rows, T, V], tempered, in fp32; None unless asked for.
    """

    logprobs: Tensor
    entropy: Tensor
    hidden: Tensor | None
    logits: Tensor | None


def logits_chunk(*, on_cuda: bool) -> int:
    """Most response tokens x vocabulary of logits that exist at a time."""
    return CUDA_CHUNK if on_cuda else CHUNK


class TokenScorer(nn.Module):
    """Log-probabilities of response tokens, as one module that can be distributed.

    :param reads_states: whether the output layer alone turns the decoder's states into logits. Then logits are made
        for response tokens only; else the whole model is run on padded batches.
    :param chunked: whether they are made a bounded number at a time, and again in the backward pass.
    """

    def __init__(self, model: Any, *, reads_states: bool = False, chunked: bool = True) -> None:
        super().__init__()
        self.model = model
        self.reads_states, self.chunked = reads_states, chunked
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._listens = False
        self._seen_states: Tensor | None = None
        self._hook = self._head.register_forward_pre_hook(self._seen)

    def forget(self) -> None:
        """Leave the model as it was."""
        self._hook.remove()

    def forward(
        self, batch: Batch, *, keep_hidden: bool = False, keep_logits: bool = False, entropy_gradient: bool = False
    ) -> Scores:
        """Score a batch."""
        if not self.reads_states:
            return self._whole(batch, keep_hidden, keep_logits, entropy_gradient)
        states = self.model.get_decoder()(
            input_ids=batch.ids, attention_mask=batch.attention, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        if keep_logits:
            hidden = batch.gather(states)
            logits = self._head(hidden).float() / batch.temperature[:, None, None]
            logprobs, entropy = _of_logits(logits, batch.targets, entropy_gradient)
            return Scores(logprobs, entropy, hidden if keep_hidden else None, logits)
        mask = batch.mask
        logprobs, entropy = self._read(
            states.flatten(0, 1).index_select(0, batch.source[mask]),
            batch.targets[mask],
            batch.temperature[:, None].expand(mask.shape)[mask],
            entropy_gradient,
        )
        nothing = torch.zeros(mask.shape, device=mask.device)
        return Scores(
            nothing.masked_scatter(mask, logprobs),
            nothing.masked_scatter(mask, entropy),
            batch.gather(states) if keep_hidden else None,
            None,
        )

    @property
    def _head(self) -> nn.Module:
        head: nn.Module = self.model.get_output_embeddings()
        return head

    def _read(
        self, hidden: Tensor, targets: Tensor, temperature: Tensor, entropy_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies [N] from the states [N, D] before N tokens."""

        def part(hidden: Tensor, targets: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
            logits = self._head(hidden).float() / temperature[:, None]
            return _of_logits(logits, targets, entropy_gradient)

        size = max(1, logits_chunk(on_cuda=hidden.is_cuda) // self._vocabulary)
        if not self.chunked or SMALL_SHARE * len(targets) <= size:
            return part(hidden, targets, temperature)
        head = self._head
        if type(head) is nn.Linear and head.weight.dtype == torch.float32:
            logprobs, entropy = read_tokens(hidden, head.weight, head.bias, targets, temperature, size)
            return logprobs, entropy if entropy_gradient else entropy.detach()
        pieces = []
        for inputs in zip(hidden.split(size), targets.split(size), temperature.split(size), strict=True):
            if torch.is_grad_enabled():
                pieces.append(checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False))
            else:
                pieces.append(part(*inputs))
        return torch.cat([logprobs for logprobs, _ in pieces]), torch.cat([entropy for _, entropy in pieces])

    @property
    def _vocabulary(self) -> int:
        return int(self.model.config.get_text_config().vocab_size)

    # ----------------------------------------------------------------------------------- the whole model

    def _seen(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._listens:
            self._seen_states = inputs[0]

    def _whole(self, batch: Batch, keep_hidden: bool, keep_logits: bool, entropy_gradient: bool) -> Scores:
        """The same through the model's own forward pass, whatever it does to its logits."""
        length = batch.targets.shape[1]
        keep = {"logits_to_keep": length + 1} if self._keeps else {}
        self._listens = True
        try:
            output = self.model(
                input_ids=batch.ids,
                attention_mask=batch.attention,
                position_ids=batch.positions,
                use_cache=False,
                **keep,
            )
        finally:
            self._listens = False
            hidden, self._seen_states = self._seen_states, None
        assert hidden is not None, "the model did not run its output layer"
        logits = output.logits[:, -(length + 1) : -1].float() / batch.temperature[:, None, None]
        logprobs, entropy = _of_logits(logits, batch.targets, entropy_gradient)
        hidden = hidden[:, -(length + 1) : -1]
        return Scores(logprobs, entropy, hidden if keep_hidden else None, logits if keep_logits else None)


def _of_logits(logits: Tensor, targets: Tensor, entropy_gradient: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the targets [...] and entropies [...] of tempered logits [..., V] in fp32."""
    normaliser = logits.logsumexp(-1)
    logprobs = logits.gather(-1, targets[..., None]).squeeze(-1) - normaliser
    with (
        torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()),
        torch.autocast(logits.device.type, enabled=False),
    ):
        expected = torch.einsum("...v,...v->...", (logits - normaliser[..., None]).exp(), logits)
        entropy = normaliser - expected
    return logprobs, entropy
