"""The policy: a causal language model, its tokenizer and the accelerator that runs it.

Device, precision, gradient synchronisation and clipping go through one ``accelerate.Accelerator``, so several
processes are a launch option. Weights are fp32 masters; on CUDA the computation is bf16 under autocast, with the
head and the log-softmax in fp32.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from engine import adapters as lora
from engine.adapters import Adapters
from engine.batches import Batch
from engine.chat import end_of_turn, must_merge_system, render
from engine.layouts import differs_packed, reads_states
from engine.scorer import Scores, TokenScorer
from engine.soundness import context_of, rows_of
from sessions.errors import SessionError, UsageError
from sessions.shortcuts import SHORTCUTS

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


class _Autocast(nn.Module):
    """A scorer in the precision of training, without the accelerator keeping it."""

    def __init__(self, scorer: TokenScorer, accelerator: Accelerator) -> None:
        super().__init__()
        self.scorer, self._accelerator = scorer, accelerator

    def forward(self, batch: Batch, **wanted: bool) -> Scores:
        with self._accelerator.autocast():
            scores: Scores = self.scorer(batch, **wanted)
        return scores


class Policy:
    """A model to train.

    :ivar model: the plain model, for sampling and saving.
    :ivar scorer: the forward pass of training; its backward pass reduces gradients over all processes.
    :ivar plain_scorer: the same without that, for passes without gradient, which ranks make in different numbers.
    :ivar full_precision_scorer: the same in fp32 throughout, for what bf16 would round away.
    :ivar end_tokens: any of them ends a response.
    :ivar merges_system: whether a system message becomes a part of the user's, because the template takes none.
    :ivar stored: the type that its weights are stored in, where it was loaded from a folder.
    :ivar shortcuts: those that are taken (:mod:`sessions.shortcuts`).
    :ivar packs: whether groups are trained on as trees; ``why_padded`` says why they are not.
    :ivar adapters: what is trained instead of the model, which is frozen then; None: the model is.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        accelerator: Accelerator,
        *,
        chat_template: bool = True,
        shortcuts: Collection[str] = tuple(SHORTCUTS),
        adapters: Adapters | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.adapters = adapters
        self.tokenizer = tokenizer
        self._tokenizing = threading.Lock()  # one that encodes may not be read from another thread meanwhile
        self.device: torch.device = accelerator.device
        self.model: Any = model.to(self.device)
        _no_dropout(self.model)
        _no_padding_row(self.model)
        self.bf16 = accelerator.mixed_precision == "bf16"
        if self.bf16:
            _full_precision_head(self.model)
        self.shortcuts = frozenset(shortcuts)
        self._choose_layout()
        self.full_precision_scorer = self._scorer_of(self.model)
        self.plain_scorer: nn.Module = self._scorer_of(self.model)
        self.scorer: nn.Module = accelerator.prepare_model(self.plain_scorer)
        self.scorer.train()
        self.uses_chat_template = chat_template and bool(getattr(tokenizer, "chat_template", None))
        self.merges_system = self.uses_chat_template and must_merge_system(tokenizer)
        turn = end_of_turn(tokenizer) if self.uses_chat_template else None
        self.end_tokens = end_tokens(model, tokenizer, turn)
        self.stored = ""
        self._rows = rows_of(model)
        sep = getattr(tokenizer, "sep_token_id", None)
        self._closing = self.end_tokens | ({int(sep)} if sep is not None else set())
        named = tokenizer.pad_token_id
        self.pad = named if named is not None and named < self._rows else min(self.end_tokens)
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        if not self.parameters:
            raise UsageError(
                "the model has no trainable parameters, so nothing would be learned; unfreeze some, or train adapters"
            )

    def _choose_layout(self) -> None:
        """Packed or padded batches, and how logits are made: what the shortcuts ask for and the model can."""
        wanted = self.shortcuts & {"tree", "chunked_logits"}
        self.why_padded = reads_states(self.model, self.device) if wanted else "the shortcuts are turned off"
        self._reads_states = not self.why_padded
        if self._reads_states:
            turned_off = "" if "tree" in self.shortcuts else "the shortcut tree is turned off"
            self.why_padded = turned_off or differs_packed(self.model, self.device)
        self.packs = not self.why_padded

    def _scorer_of(self, model: Any) -> TokenScorer:
        chunked = "chunked_logits" in self.shortcuts
        return TokenScorer(model, reads_states=self._reads_states, chunked=chunked)

    @property
    def chunks_logits(self) -> bool:
        """Whether the logits of a whole micro-batch never exist at once."""
        return self._reads_states and "chunked_logits" in self.shortcuts

    @property
    def context(self) -> int | None:
        """Tokens that it can look at, prompt and response; None: nothing says."""
        return context_of(self.model)

    def encode_prompt(self, prompt: str | Sequence[Mapping[str, str]]) -> list[int]:
        """A question as tokens, in the chat template if the tokenizer has one.

        :param prompt: a text, which becomes the user's message, or chat messages.
        Plain text gets what the tokenizer puts around it, such as a token that begins every text, but not what closes
        it; a template has put its own there.

        :raises UsageError: if they are messages and there is no template for them, or it refuses them, or the model
            has no embedding for one of the tokens.
        """
        if isinstance(prompt, str):
            if not self.uses_chat_template:
                return self._known(self._opened(prompt))
            prompt = [{"role": "user", "content": prompt}]
        return self._known(self.encode_text(self.render(prompt, answer=True)))

    def render(self, messages: Sequence[Mapping[str, str]], *, answer: bool) -> str:
        """Chat messages as the template writes them.

        :param answer: whether what opens an answer follows.
        :raises UsageError: if there is no template, or it refuses them.
        """
        if not self.uses_chat_template:
            raise UsageError(
                "the prompts are chat messages and the model has no chat template to put them into; give a "
                "model with one (its -Instruct version), or a column of plain text with prompt=COLUMN"
            )
        with self._tokenizing:
            return render(self.tokenizer, messages, merges_system=self.merges_system, answer=answer)

    def _opened(self, text: str) -> list[int]:
        """A text as tokens with what the tokenizer puts before it."""
        with self._tokenizing:
            tokens = list(self.tokenizer(text)["input_ids"])
            bare = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        while bare and len(tokens) > len(bare) and tokens[-len(bare) :] != bare and tokens[-1] in self._closing:
            tokens.pop()
        return tokens

    def _known(self, tokens: list[int]) -> list[int]:
        beyond = [token for token in tokens if token >= self._rows]
        if beyond:
            raise UsageError(
                f"a prompt holds {self.names(beyond)[0]!r}, token {beyond[0]:,} of the tokenizer, and the model has "
                f"embeddings for {self._rows:,}; leave such prompts out, or give the tokenizer that it was trained with"
            )
        return tokens

    def encode_text(self, text: str) -> list[int]:
        """A text as tokens, as it is."""
        with self._tokenizing:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def names(self, tokens: Iterable[int]) -> list[str]:
        """Tokens as the tokenizer's vocabulary has them, special ones too."""
        with self._tokenizing:
            return [str(self.tokenizer.convert_ids_to_tokens(token)) for token in tokens]

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens as text, special tokens left out."""
        with self._tokenizing:
            return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def token_ends(self, tokens: Sequence[int]) -> tuple[str, list[int]]:
        """The text of a response, and where in it each token ends (characters).

        A token that is a part of a character ends where the character before it does.
        """
        text, ends = "", []
        start = 0
        for i in range(len(tokens)):
            shown = self.decode(tokens[start:i]).rstrip("�")  # the character that this token may complete
            longer = self.decode(tokens[start : i + 1])
            if not longer.endswith("�") and longer.startswith(shown):
                text += longer[len(shown) :]
                start = max(start, i - 3)  # a few tokens of context decide about blanks between words
            ends.append(len(text))
        whole = self.decode(tokens)
        return whole, [min(end, len(whole)) for end in ends]

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """No gradients, and the precision of training."""
        with torch.no_grad(), self.accelerator.autocast():
            yield

    # ------------------------------------------------------------------------------------- what is learned

    def weights(self, model: Any = None) -> dict[str, Tensor]:
        """What a checkpoint holds, by name: the whole model's weights or those of its adapters; not copies.

        :param model: a copy of the model; None: the model.
        """
        model = self.model if model is None else model
        return dict(model.state_dict()) if self.adapters is None else self.adapters.weights(model)

    def learned_names(self) -> list[str]:
        """Names among :meth:`weights` of what is no buffer."""
        return [n for n, _ in self.model.named_parameters()] if self.adapters is None else list(self.weights())

    def load(self, weights: dict[str, Tensor], model: Any = None) -> None:
        """Take over weights as :meth:`weights` names them.

        :param model: a copy of the model that does; None: the model.
        :raises SessionError: if they are of another model.
        """
        model = self.model if model is None else model
        if self.adapters is None:
            load_weights(model, weights)
        else:
            self.adapters.put(model, weights)

    def save(self, folder: Path | str, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the model, or the adapters that are trained, as a folder that transformers or peft loads.

        :param weights: instead of the present ones.
        """
        folder, weights = Path(folder), self.weights() if weights is None else weights
        if self.adapters is None:
            # under the names that the model has here, not those of an older format of its family
            self.model.save_pretrained(folder, state_dict=dict(weights), save_original_format=False)
        else:
            self.adapters.save(folder, weights)
        self.tokenizer.save_pretrained(folder)

    # ---------------------------------------------------------------------------------------------- copies

    def make_reference(self, state: dict[str, Tensor] | None = None) -> TokenScorer:
        """A frozen copy of the model, with the given weights or the present ones, as a scorer of its own.

        With adapters it is a copy of those, on the same base; where they add nothing it is the base.
        """
        frozen = self._copied_model(self._frozen() if self.adapters else None)
        if state is not None:
            self.load(state, frozen)
        for parameter in frozen.parameters():
            parameter.requires_grad_(False)
        if self.adapters:
            self.adapters.rest(frozen)
        frozen.eval()
        return self._scorer_of(frozen)

    def shadow(self) -> Policy:
        """A copy that can be trained without touching this one; weights that do not train are shared."""
        copied = copy.copy(self)
        copied.model = self._copied_model(self._frozen())
        copied.full_precision_scorer = self._scorer_of(copied.model)
        copied.scorer = copied.plain_scorer = _Autocast(copied.full_precision_scorer, self.accelerator)
        copied.parameters = [p for p in copied.model.parameters() if p.requires_grad]
        return copied

    def merged(self, weights: dict[str, Tensor]) -> Policy:
        """A copy without adapters: a plain model with the given ones added to its weights; the others are shared.

        Nothing of it trains.
        """
        copied = copy.copy(self)
        copied.model = self._copied_model(self._frozen())
        self.load(weights, copied.model)
        lora.merge(copied.model)
        copied.adapters = None
        copied.full_precision_scorer = copied.scorer = copied.plain_scorer = self._scorer_of(copied.model)
        copied.parameters = []
        return copied

    def copied_trunk(self, weights: dict[str, Tensor] | None = None) -> Any:
        """A copy of the decoder, with the weights of a whole model or the present ones; its output is its states."""
        copied = self._copied_model()
        if weights is not None:
            load_weights(copied, weights)
        return copied.base_model

    def trunk_to_train(self) -> Any:
        """A copy of the decoder to be trained by itself; with adapters they are what trains, on the same base."""
        if self.adapters:
            return copy.deepcopy(self.model.base_model, self._frozen())
        return copy.deepcopy(self.model.base_model).requires_grad_(True)

    def _frozen(self) -> dict[int, Any]:
        """What a copy may share: everything that does not train."""
        tensors = [*(p for p in self.model.parameters() if not p.requires_grad), *self.model.buffers()]
        return {id(tensor): tensor for tensor in tensors}

    def _copied_model(self, shared: dict[int, Any] | None = None) -> Any:
        copied = copy.deepcopy(self.model, shared)
        head = copied.get_output_embeddings()
        head._forward_pre_hooks.clear()  # it was the original's scorer that listened
        for parameter in copied.parameters():
            parameter.grad = None
        if self.bf16:
            _full_precision_head(copied)
        return copied


def make_accelerator(device: str = "auto", precision: str = "auto") -> Accelerator:
    """The one accelerator of this process.

    :param device: ``auto`` (CUDA, else MPS, else CPU), ``cpu``, ``cuda`` or ``mps``.
    :param precision: ``auto`` (bf16 compute on CUDA that has units for it, else fp32), ``fp32`` or ``bf16``.
    :raises UsageError: if the device is not there, or cannot compute so.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda: torch sees no CUDA device; use --device cpu or auto")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device mps: torch sees no Apple GPU; use --device cpu or auto")
    on_mps = device in {"auto", "mps"} and not torch.cuda.is_available() and torch.backends.mps.is_available()
    on_cuda = device in {"auto", "cuda"} and torch.cuda.is_available()
    fast = on_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        precision = "bf16" if fast else "fp32"
    if precision == "bf16" and on_mps:
        raise UsageError("precision bf16: is not used on an Apple GPU; use --precision fp32 or auto")
    if precision == "bf16" and on_cuda and not fast:
        raise UsageError("precision bf16: this GPU has no bf16 units; use --precision fp32 or auto")
    # ranks run different numbers of forward passes, so none of these may be collective; no buffer ever changes
    plain = DistributedDataParallelKwargs(broadcast_buffers=False)
    mixed = "bf16" if precision == "bf16" else "no"
    return Accelerator(cpu=device == "cpu", mixed_precision=mixed, kwargs_handlers=[plain])


def load_weights(model: Any, weights: dict[str, Tensor]) -> None:
    """Put weights into a model; tied weights are stored once and may be missing by their second name.

    :raises SessionError: if any other weight is missing or unknown.
    """
    missing, unexpected = model.load_state_dict(weights, strict=False)
    model.tie_weights()
    present = model.state_dict()
    loaded = {present[name].data_ptr() for name in weights if name in present}
    lost = [name for name in missing if present[name].data_ptr() not in loaded]
    if lost or unexpected:
        raise SessionError(f"the checkpoint is of another model: {', '.join([*lost, *unexpected][:3])}")


def end_tokens(model: Any, tokenizer: Any, turn: int | None = None) -> frozenset[int]:
    """Every token that ends a response: the generation config's (it may list several), the tokenizer's, the template's.

    :param turn: that the chat template closes an answer with.
    :raises UsageError: if there is none, because no response would ever end.
    """
    configured = getattr(model.generation_config, "eos_token_id", None)
    several: Iterable[int | None] = configured if isinstance(configured, list | tuple) else [configured]
    found = {token for token in (*several, tokenizer.eos_token_id, turn) if token is not None}
    if not found:
        raise UsageError("the model names no end token, so no response would ever end; set eos_token_id in its config")
    return frozenset(int(token) for token in found)


def _no_dropout(model: nn.Module) -> None:
    """Dropout off for good: with it the ratio is not 1 before the first step."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "hidden_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def _no_padding_row(model: nn.Module) -> None:
    """Let the padding token's embedding have a gradient like any other's.

    Padding is masked by length, so it needs no row without one; and where padding and end are the same token, the
    row is that of a token that prompts hold, whose gradient would be left out of every derivative of the model.
    """
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.padding_idx = None


def _full_precision_head(model: Any) -> None:
    """Run the output layer in fp32 under autocast: bf16 logits put 1e-2 nats of noise on every token."""
    head = model.get_output_embeddings()

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), head.weight.float(), head.bias)

    head.forward = forward
