r"""The reward model: what people would think of a finished response.

Scalar heads read the state of a decoder at a response's last token, the end token; the decoder is the policy's, as it
was when RL began. With z the state and :math:`\mu, \varsigma` the mean and spread of such states before any training,

.. math:: r_h = w_h \cdot \frac{z - \mu}{\varsigma} + b_h , \qquad  s_h = g_h r_h + c_h ,

where gain g and bias c make scores have mean 0 and standard deviation 1 on reference samples. The score of a response
is the mean of the heads. Heads start at random and are trained on bootstrap samples, so what they disagree on is what
the orderings do not tell. Three kinds, by what is trained beside the heads:

====  ==============================================================
head  nothing: the trunk is frozen
lora  adapters in the trunk (peft)
full  the trunk
====  ==============================================================

Everything is in fp32, without dropout. The policy is never touched: not its weights, gradients, mode or randomness.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.adapters import begin
from engine.batches import Sized, fits, make_batch, pack_batch, packed_micro_batches, padded_micro_batches
from engine.loading import load_policy
from engine.passes import Budget
from engine.policy import Policy
from engine.randomness import stream
from engine.supervised import Lesson, encode_texts, end_token
from sessions.checkpoints import sync
from sessions.errors import InputFileError, SessionError, UsageError
from sessions.examples import Text
from sessions.export import new_folder
from sessions.orderings import Ordering, write_kept
from sessions.reward_models import KEPT_REPORTS, RewardModelReport, RewardModelSettings, RewardModelState

Named = Mapping[str, Tensor]
ORDERINGS = "orderings.jsonl"
"""What it was made of, in its folder."""
STATE, TENSORS = "reward_model.json", "heads.safetensors"
"""What a saved reward model has beside what transformers loads."""
MOST_STATE = 2**22
"""Bytes of :data:`STATE`."""
MICRO_TOKENS = 16_384
LORA_SCALE = 2.0
"""Adapters are multiplied by this (alpha over rank)."""
START = 0.1
"""Standard deviation of an untrained head's raw scores, about."""
_ADAPTER, _TRUNK, _HEADS = "adapter.", "trunk.", "heads."


def _nothing() -> None:
    """A safe point where nobody waits."""


class Heads(nn.Module):
    """Several scalar heads on one standardised state.

    :ivar weight: [heads, D].
    :ivar bias: [heads].
    :ivar centre: [D], mean of states before training.
    :ivar spread: [D], their standard deviation.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, width: int, heads: int, seed: int) -> None:
        super().__init__()
        start = [stream("reward model head", seed, head).normal(size=width) for head in range(heads)]
        scale = START / math.sqrt(width)
        self.weight = nn.Parameter(torch.stack([torch.from_numpy(row) for row in start]).float() * scale)
        self.bias = nn.Parameter(torch.zeros(heads))
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def forward(self, states: Tensor) -> Tensor:
        """States [N, D] -> raw scores [heads, N]."""
        return self.weight @ ((states.float() - self.centre) / self.spread).t() + self.bias[:, None]

    def standardise(self, states: Tensor) -> None:
        """Take mean and spread of states [N, D], so that one learning rate suits every model."""
        variance = states.var(0, correction=0)
        self.centre.copy_(states.mean(0))
        self.spread.copy_((variance + 0.01 * variance.mean() + 1e-12).sqrt())


class RewardModel:
    """A trunk and its heads.

    :param policy: whose architecture, tokenizer and device it has; it is not changed.
    :param weights: reads the weights that the trunk starts from, of the policy's whole model; None: as they are now.
    :param own: whether the policy is nobody else's: its trunk is then taken and not copied.
    :param budget: how many tokens a pass may hold.
    :ivar state: all of it that is not a tensor.
    :raises UsageError: if peft is wanted and not there.
    :raises InvalidValue: if the settings cannot be used.
    """

    def __init__(
        self,
        policy: Policy,
        settings: RewardModelSettings | None = None,
        *,
        weights: Callable[[], dict[str, Tensor]] | None = None,
        own: bool = False,
        budget: Budget | None = None,
    ) -> None:
        settings = _settled(settings or RewardModelSettings())
        if settings.kind == "lora":
            need_peft()
        self.policy, self.device = policy, policy.device
        self.state = RewardModelState(settings=settings, gains=[1.0] * settings.heads, biases=[0.0] * settings.heads)
        self.budget = budget or Budget(MICRO_TOKENS)
        self._weights, self._own = weights, own
        self._trunk = self._make_trunk()
        inside = {t.data_ptr(): name for name, t in policy.model.base_model.state_dict().items()}
        self._places = {name: inside.get(t.data_ptr()) for name, t in policy.model.state_dict().items()}
        self._make_heads()
        self._make_adapters()

    @property
    def kind(self) -> str:
        """``head``, ``lora`` or ``full``."""
        return self.state.settings.kind

    @property
    def version(self) -> int:
        """How many trainings led to it."""
        return self.state.version

    def successor(self, settings: RewardModelSettings | None = None) -> RewardModel:
        """An untrained one from the same start, to be trained on all there is and to take this one's place.

        This one can score meanwhile. What is frozen is shared.

        :param settings: others, of the same kind.
        """
        settings = _settled(settings or self.state.settings)
        if settings.kind != self.kind:
            raise UsageError(f"a reward model of kind {self.kind} is not followed by one of kind {settings.kind}")
        other = copy.copy(self)
        heads = settings.heads
        other.state = msgspec.structs.replace(
            self.state, settings=settings, gains=[1.0] * heads, biases=[0.0] * heads, reports=list(self.state.reports)
        )
        if self.kind == "full":
            other._own = False
            other._trunk = other._make_trunk()
        elif self.kind == "lora":
            frozen = {id(p): p for name, p in self._trunk.named_parameters() if "lora_" not in name}
            other._trunk = copy.deepcopy(self._trunk, {**frozen, **{id(b): b for b in self._trunk.buffers()}})
        other._make_heads()
        other._start_adapters()
        return other

    # ---------------------------------------------------------------------------------------------- making

    def _make_trunk(self) -> Any:
        if self._own:
            trunk = self.policy.model.base_model
        else:
            trunk = self.policy.copied_trunk(self._weights() if self._weights is not None else None)
        return trunk.float().requires_grad_(self.kind == "full").eval()

    def _make_heads(self) -> None:
        settings = self.state.settings
        width = self.policy.model.get_output_embeddings().weight.shape[1]
        self.heads = Heads(width, settings.heads, settings.seed).to(self.device)

    def _make_adapters(self) -> None:
        if self.kind != "lora":
            return
        from peft import LoraConfig, inject_adapter_in_model

        rank = self.state.settings.rank
        config = LoraConfig(r=rank, lora_alpha=LORA_SCALE * rank, lora_dropout=0.0, target_modules="all-linear")
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # it starts them at random numbers of the global generator
            inject_adapter_in_model(config, self._trunk)
        self._trunk.to(self.device).eval()
        self._start_adapters()

    def _start_adapters(self) -> None:
        """Begin at the trunk."""
        begin(self._adapters(), "reward model adapter", self.state.settings.seed)

    def _adapters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self._trunk.named_parameters() if "lora_" in name)

    @property
    def trunk_parameters(self) -> list[nn.Parameter]:
        """What is trained beside the heads."""
        return [p for p in self._trunk.parameters() if p.requires_grad]

    # --------------------------------------------------------------------------------------------- reading

    def encode(self, prompt: Text, response: Text, where: str = "reward model") -> Lesson:
        """A prompt and a response to it as tokens, the way RL asks and answers, closed by an end token.

        :param where: begins errors.
        :raises InputFileError: if they are a conversation that the model has no chat template for.
        """
        asked, said = _only(prompt, "user"), _only(response, "assistant")
        if asked is not None and said is not None:  # what a conversation of two messages is to the chat template
            return encode_texts(self.policy, asked, said, where)
        if isinstance(prompt, str) or isinstance(response, str):
            raise InputFileError(f"{where}: of prompt and response, one is text and one a conversation")
        return encode_texts(self.policy, prompt, response, where)

    @property
    def context(self) -> int:
        """Most tokens of a row."""
        return self.policy.context or 2**31

    def closed(self, row: Sized) -> Lesson:
        """A row with an end token: one that was cut is read as if it ended there, as all did in training."""
        tokens = list(row.tokens)
        is_open = not tokens or tokens[-1] not in self.policy.end_tokens
        if is_open and len(row.prompt) + len(tokens) < self.context:
            tokens.append(end_token(self.policy))
        return Lesson(list(row.prompt), tokens)

    def read(self, rows: Sequence[Lesson]) -> Tensor:
        """The states [N, D] at the last tokens, in one forward pass; with gradient where gradients are on."""
        return self._read([self._followed(row) for row in rows])

    def _followed(self, row: Lesson) -> Lesson:
        """A row with one token more, which nothing reads: batches know from which state each token is predicted."""
        return Lesson(row.prompt, [*row.tokens, self.policy.pad])

    def _read(self, rows: Sequence[Lesson]) -> Tensor:
        policy = self.policy
        make = pack_batch if policy.packs and all(map(fits, rows)) else make_batch
        prompts, tokens = [row.prompt for row in rows], [row.tokens for row in rows]
        batch = make(prompts, tokens, [1.0] * len(rows), policy.pad, self.device)
        with torch.autocast(self.device.type, enabled=False):
            states = self._trunk(
                input_ids=batch.ids, attention_mask=batch.attention, position_ids=batch.positions, use_cache=False
            ).last_hidden_state
        last = batch.source.gather(1, batch.mask.sum(1, keepdim=True) - 1).squeeze(1)
        return states.flatten(0, 1).index_select(0, last).float()

    @torch.no_grad()
    def states(self, rows: Sequence[Sized], safe_point: Callable[[], None] = _nothing) -> Tensor:
        """The states [N, D] at the last tokens of any number of rows, without gradient.

        :param safe_point: called before each pass; it may block or raise.
        """
        whole = [self._followed(self.closed(row)) for row in rows]
        found: dict[int, Tensor] = {}

        def parts() -> None:
            left = [row for row in whole if id(row) not in found]
            cut = packed_micro_batches if self.policy.packs else padded_micro_batches
            for part in cut(left, self.budget.tokens, None):
                safe_point()
                for row, state in zip(part, self._read(part), strict=True):
                    found[id(row)] = state

        self.budget.retry(parts, _nothing)
        width = self.heads.weight.shape[1]
        return torch.stack([found[id(row)] for row in whole]) if whole else torch.zeros(0, width, device=self.device)

    # -------------------------------------------------------------------------------------------- scoring

    @torch.no_grad()
    def score(self, rows: Sequence[Sized], safe_point: Callable[[], None] = _nothing) -> Tensor:
        """Normalised scores [heads, N] of rows of prompt and response tokens, such as a group's; in main memory.

        Their mean over the heads is the reward.
        """
        return self.normalised(self.raw(self.states(rows, safe_point)))

    @torch.no_grad()
    def raw(self, states: Tensor) -> Tensor:
        """States [N, D] -> scores [heads, N] before they are normalised, in main memory."""
        return self.heads(states).cpu()

    def normalised(self, raw: Tensor) -> Tensor:
        """Raw scores [heads, N] -> scores."""
        return raw * torch.tensor(self.state.gains)[:, None] + torch.tensor(self.state.biases)[:, None]

    def probability(self, scores: Tensor) -> Tensor:
        """p [N, N] that a row would be preferred to a column, the mean over the heads: sigma of raw scores' difference.

        :param scores: [heads, N], normalised.
        """
        gains = torch.tensor(self.state.gains)[:, None]
        raw = scores / gains
        return (raw[:, :, None] - raw[:, None, :]).sigmoid().mean(0)

    def doubt(self, scores: Tensor) -> Tensor:
        """How little is known of each pair, [N, N]: 1 - |2 p - 1|, 1 where p is one half, 0 where it is 0 or 1.

        :param scores: [heads, N], normalised.
        """
        return 1 - (2 * self.probability(scores) - 1).abs()

    def normalise(self, states: Tensor) -> tuple[float, float]:
        """Make scores have mean 0 and standard deviation 1, head by head, on the states [N, D] of reference samples.

        :returns: mean and standard deviation before, the means over the heads.
        """
        raw = self.raw(states).double()
        if raw.shape[1] == 0:
            return 0.0, 0.0
        means, stds = raw.mean(1), raw.std(1, correction=0)
        known = stds > 1e-8
        gains = torch.where(known, 1 / stds.clamp(min=1e-8), 1.0)  # of samples all alike nothing is known but the mean
        self.state.gains = gains.tolist()
        self.state.biases = (-gains * means).tolist()
        return float(means.mean()), float(stds.mean())

    def trained(self, report: RewardModelReport) -> None:
        """A training is over."""
        self.state.version = report.version
        self.state.trained = report.orderings
        self.state.reports = [*self.state.reports, report][-KEPT_REPORTS:]

    # --------------------------------------------------------------------------------------------- keeping

    def tensors(self) -> dict[str, Tensor]:
        """What makes it, beside the weights that its trunk starts from; not copies, so training changes them."""
        named: dict[str, Tensor] = {_HEADS + name: t.detach() for name, t in self.heads.state_dict().items()}
        if self.kind == "lora":
            named |= {_ADAPTER + name: t.detach() for name, t in self._adapters()}
        if self.kind == "full":
            named |= {_TRUNK + name: t.detach() for name, t in self._trunk.state_dict().items()}
        return named

    def load(self, tensors: Named, state: RewardModelState) -> None:
        """Be what was kept; this one was made with settings of the same kind, heads and rank.

        :raises SessionError: if the tensors are of something else.
        """
        own = self.tensors()
        if wrong := sorted(name for name in {*own, *tensors} if _shape(own, name) != _shape(tensors, name)):
            raise SessionError(f"the reward model is of another model or kind: {', '.join(wrong[:3])}")
        if not (len(state.gains) == len(state.biases) == len(self.heads.bias)):
            raise SessionError("the reward model has not as many gains and biases as heads")
        numbers = [*state.gains, *state.biases]
        if not all(map(math.isfinite, numbers)) or 0.0 in state.gains:
            raise SessionError("the reward model's gains and biases are not numbers that can be used")
        with torch.no_grad():
            for name, tensor in tensors.items():
                own[name].copy_(tensor)
        self.state = state

    def save(self, folder: Path, orderings: Sequence[Ordering] = ()) -> None:
        """Write a folder that needs nothing else: what transformers loads as a language model, heads, state.

        It is written aside and renamed; nothing is ever overwritten.

        :param orderings: that it was made of: a session that begins with it trains its successors on them too.
        :raises InputFileError: if it is anything but a new or empty folder.
        """
        with new_folder(folder) as (place, _):
            self.policy.model.save_pretrained(place, state_dict=self._whole_model())
            self.policy.tokenizer.save_pretrained(place)
            parts = {name: t.contiguous() for name, t in self.tensors().items() if not name.startswith(_TRUNK)}
            save_file(parts, place / TENSORS)
            if orderings:
                write_kept(place / ORDERINGS, orderings)
            (place / STATE).write_bytes(msgspec.json.format(msgspec.json.encode(self.state)) + b"\n")
            for path in [*place.iterdir(), place]:
                sync(path)

    def _whole_model(self) -> dict[str, Tensor]:
        """The weights of the policy's model with the trunk's in their place, and in that of what is tied to them."""
        trunk = self._trunk.state_dict()
        own = {name.replace(".base_layer", ""): t for name, t in trunk.items() if "lora_" not in name}
        others = self.policy.model.state_dict()
        return {name: others[name] if inside is None else own[inside] for name, inside in self._places.items()}


def load_reward_model(folder: Path, accelerator: Any, *, trust_remote_code: bool = False) -> RewardModel:
    """A reward model as :meth:`RewardModel.save` wrote it; the folder may come from anywhere.

    :param accelerator: as of :func:`engine.policy.make_accelerator`.
    :raises InputFileError: saying what is missing or cannot be used.
    """
    state = read_state(folder)
    policy = load_policy(folder, accelerator, trust_remote_code=trust_remote_code)
    try:
        tensors = load_file(folder / TENSORS)
        if not all(bool(t.isfinite().all()) for t in tensors.values()):
            raise SessionError(f"{TENSORS} holds numbers that are not finite")
        model = RewardModel(policy, state.settings, own=True)
        if state.settings.kind == "full":  # its trunk is the language model's
            tensors |= {name: t for name, t in model.tensors().items() if name.startswith(_TRUNK)}
        model.load(tensors, state)
    except (OSError, SafetensorError, SessionError) as error:
        raise InputFileError(f"reward model {folder}: {error}; give a folder of `reward-model train`") from None
    return model


def read_state(folder: Path) -> RewardModelState:
    """What a saved reward model says of itself.

    :raises InputFileError: if the folder is none.
    """
    path = folder / STATE
    try:
        with path.open("rb") as file:
            data = file.read(MOST_STATE + 1)
        if len(data) > MOST_STATE:
            raise ValueError(f"more than {MOST_STATE:,} bytes")
        state = msgspec.json.decode(data, type=RewardModelState)
        state.settings.check()
    except OSError as error:
        raise InputFileError(
            f"reward model {folder}: {STATE} cannot be read ({error.strerror}); give a folder of `reward-model train`"
        ) from None
    except (ValueError, RecursionError, msgspec.MsgspecError, UsageError) as error:
        raise InputFileError(
            f"reward model {folder}: {STATE} is not what it should be ({error}); give a folder of `reward-model train`"
        ) from None
    return state


def need_peft() -> None:
    """Raise UsageError, naming the command that installs it, if peft is not there."""
    if find_spec("peft") is None:
        raise UsageError(
            "a reward model of kind lora needs the package peft; `pip install 'rl-workbench[lora]'` brings it, "
            "the kinds head and full need none"
        )


def _settled(settings: RewardModelSettings) -> RewardModelSettings:
    """Settings with the defaults of their kind filled in, for the record."""
    settings.check()
    return msgspec.structs.replace(settings, learning_rate=settings.rate, epochs=settings.passes)


def _only(text: Text, role: str) -> str | None:
    """What a text says, or a conversation of one message of that role."""
    if isinstance(text, str):
        return text
    return text[0]["content"] if len(text) == 1 and text[0]["role"] == role else None


def _shape(named: Named, name: str) -> torch.Size | None:
    return named[name].shape if name in named else None
