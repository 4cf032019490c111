r"""Adapters that are trained instead of the model they sit in (LoRA, through peft).

Every adapted linear layer computes

.. math:: W x + s\, B A x , \qquad s = \alpha / r \ \text{ or }\ \alpha / \sqrt r ,

with W frozen; B begins at zeros, so the model begins as it was. peft's layers are put into the model in place: it stays
the transformers model that it was, with its decoder, its head and its config, and only its trainable parameters are
others. A copy that can be trained, or is a reference, shares W.

Weights of adapters are named as in the files of peft, whose folders these are.

Source: Hu et al. (arXiv 2106.09685); Kalajdzievski (arXiv 2312.03732) for the scale of rslora.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from engine.randomness import stream
from sessions.adapters import ALL_LINEAR, BASE, WEIGHTS, LoraOptions, base_of, need_peft, read_config
from sessions.errors import InputFileError, SessionError, UnknownName, UsageError

NAME = "default"
"""Of the adapters among a layer's; there are no others."""
_INSIDE, _BEFORE = ".lora_", "base_model.model."
_READ = {
    "r", "lora_alpha", "target_modules", "exclude_modules", "fan_in_fan_out", "use_rslora", "layers_to_transform",
    "layers_pattern", "rank_pattern", "alpha_pattern",
}  # fmt: skip
"""What is taken over from the configuration of adapters that are trained further."""
_UNUSED = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "init_lora_weights", "runtime_config", "megatron_core", "qalora_group_size", "loftq_config",
    "eva_config", "corda_config", "lora_ga_config", "ensure_weight_tying",
}  # fmt: skip
"""What says how they were made, or nothing about what they compute. Dropout is off here in any case."""
_CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
"""Ways to begin that put other weights into the base."""
_SAMPLE = 1024

_log = logging.getLogger(__name__)

Attach = Callable[[Any], "Adapters"]
"""Puts adapters into a model."""


@dataclass(frozen=True, slots=True)
class Base:
    """The model that adapters are trained on.

    :ivar model: as ``--model`` takes it.
    :ivar place: as transformers loads it.
    :ivar fingerprint: of its weights.
    """

    model: str
    place: str
    fingerprint: str


class Adapters:
    """The adapters of a model, and of its copies.

    :ivar base: that they are trained on.
    :ivar config: peft's.
    """

    def __init__(self, config: Any, base: Base) -> None:
        self.config, self.base = config, base

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Their tensors in a model or a part of it, by peft's names; not copies."""
        return {_outside(name): tensor for name, tensor in model.state_dict().items() if _INSIDE in name}

    def put(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Take over weights as :meth:`weights` names them.

        :raises SessionError: if they are of other adapters.
        """
        own = self.weights(model)
        if wrong := different(own, weights):
            raise SessionError(f"the adapters are of another model, or of other layers or ranks: {_some(wrong)}")
        with torch.no_grad():
            for name, tensor in weights.items():
                own[name].copy_(tensor)

    def rest(self, model: nn.Module) -> None:
        """Leave them out of the computation of a frozen model where they add nothing."""
        for layer in layers(model):
            if adds_nothing(layer):
                layer.enable_adapters(False)

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write what ``PeftModel.from_pretrained`` loads, and which model it is for."""
        config = copy.copy(self.config)
        for name in ("target_modules", "exclude_modules"):  # as peft leaves them, sets that are never in one order
            if isinstance(found := getattr(config, name), set):
                setattr(config, name, sorted(found))
        config.inference_mode = True  # who loads them trains them only when asked to
        config.save_pretrained(str(folder))
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS, {"format": "pt"})
        known = {"model": self.base.model, "fingerprint": self.base.fingerprint}
        (folder / BASE).write_bytes(msgspec.json.format(msgspec.json.encode(known)) + b"\n")


def attach(model: Any, options: LoraOptions, seed: int, name: str = "", saved: Path | None = None) -> Adapters:
    """Put adapters into a model, and freeze the rest of it.

    :param seed: of the random numbers that A begins with.
    :param name: of the model, as ``--model`` takes it.
    :param saved: a folder that a session wrote, whose adapters these are, whatever the options say.
    :raises UsageError: one line that says what does not fit.
    :raises SessionError: if the model is not the one that the session trained on.
    """
    need_peft("--lora")
    place = _place(model, name)
    base = Base(name or place, place, fingerprint(model))
    if saved is not None:
        if (told := fingerprint_of(saved)) and told != base.fingerprint:
            raise SessionError(
                f"model {base.model}: the session's adapters were trained on other weights than it has now; put the "
                "model back that the session was started with, or start another one"
            )
        return _continued(model, saved, base)
    if options.start is not None:
        return _continued(model, options.start, base)
    config = _config(model, options, base)
    _inject(model, config, "--lora")
    begin(_matrices(model), "policy adapter", seed)
    return Adapters(config, base)


def _place(model: Any, name: str) -> str:
    """Where transformers finds a model: its name on the hub, or the folder that it was loaded from."""
    of_hub = "/" in name and not name.startswith(("/", ".", "~")) and not Path(name).exists()
    return name.partition("@")[0] if of_hub else str(getattr(model, "name_or_path", "") or name)


def _config(model: Any, options: LoraOptions, base: Base) -> Any:
    from peft import LoraConfig

    found = linear_names(model)
    if options.targets == (ALL_LINEAR,):
        targets = _short(found, model)
    else:
        targets = [_known(name, found, model) for name in options.targets]
    exclude = [_known(name, found, model) for name in options.exclude]
    if options.layers and (most := _decoder_layers(model)) <= options.layers[-1]:
        raise UsageError(f"--lora: layers: there is no layer {options.layers[-1]}; the model's are 0 to {most - 1}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LoraConfig(
            r=options.r,
            lora_alpha=int(options.alpha) if options.alpha.is_integer() else options.alpha,
            lora_dropout=0.0,
            target_modules=targets,
            exclude_modules=exclude or None,
            layers_to_transform=list(options.layers) or None,
            use_rslora=options.rslora,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
            task_type="CAUSAL_LM",
            base_model_name_or_path=base.place,
        )


def linear_names(model: Any) -> list[str]:
    """The linear layers that can have adapters: all but the output layer."""
    head = model.get_output_embeddings()
    return [n for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]


def _short(found: list[str], model: Any) -> list[str]:
    """Names that mean these layers, as other programs like them: last parts, unless other layers end alike."""
    last = sorted({whole.rpartition(".")[2] for whole in found})
    meant = sum(any(_is(name, whole) for name in last) for whole, _ in model.named_modules())
    return last if meant == len(found) else sorted(found)


def _known(name: str, found: Iterable[str], model: Any) -> str:
    """The name of a layer, or of several alike."""
    every = list(found)
    if any(_is(name, whole) for whole in every):
        return name
    if any(_is(name, n) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Embedding)):
        raise UsageError(
            f"--lora: {name} is the output layer or the embedding, which get no adapters here; name other layers"
        )
    raise UnknownName("layer of --lora", name, {whole.rpartition(".")[2] for whole in every})


def _is(name: str, whole: str) -> bool:
    return whole == name or whole.endswith("." + name)


def _decoder_layers(model: Any) -> int:
    return int(model.config.get_text_config().num_hidden_layers)


def _inject(model: Any, config: Any, where: str) -> None:
    """Put peft's layers in; the global random generator stays as it is.

    :raises UsageError: if no layer is named, or one that cannot have adapters.
    """
    from peft import inject_adapter_in_model

    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    devices = [p.device for p in model.parameters() if p.is_cuda][:1]
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inject_adapter_in_model(config, model, adapter_name=NAME)
    except (ValueError, TypeError, KeyError, AttributeError, re.error) as error:  # target_modules may be a pattern
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UsageError(f"{where}: no adapters can be put into the model ({text})") from None
    if (model.get_input_embeddings(), model.get_output_embeddings()) != ends:
        raise UsageError(f"{where}: the output layer or the embedding would have adapters, which none can have here")
    for _, matrix in _matrices(model):
        matrix.data = matrix.data.float()


def _matrices(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if "lora_" in name)


@torch.no_grad()
def begin(matrices: Iterable[tuple[str, nn.Parameter]], purpose: str, seed: int) -> None:
    """Let adapters begin at nothing: each pair of matrices is a random one times zeros.

    :param matrices: by name, which with the purpose and the seed is all that the random ones depend on.
    """
    for name, matrix in matrices:
        if "lora_B" in name:
            matrix.zero_()
            continue
        bound = 1 / math.sqrt(matrix.shape[1])
        random = stream(purpose, seed, name)
        matrix.copy_(torch.from_numpy(random.uniform(-bound, bound, matrix.shape)).float())


# ------------------------------------------------------------------------------------------- trained further


def _continued(model: Any, folder: Path, base: Base) -> Adapters:
    """Adapters as a folder has them.

    :raises InputFileError: if they are of another model, or do what adapters cannot do here.
    """
    where = f"adapter {folder}"
    read = read_config(folder)
    _check_kind(read, where)
    _check_same(folder, base)
    config = _as_read(read, base, where)
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputFileError(f"{where}: {WEIGHTS} cannot be read ({error})") from None
    trained = base_of(folder) or "another model"
    try:
        _inject(model, config, where)
    except UsageError as error:
        raise InputFileError(f"{error}; they are for {trained}, and this is {base.model}") from None
    made = Adapters(config, base)
    if wrong := different(made.weights(model), weights):
        raise InputFileError(
            f"{where}: for another model than {base.model} ({_some(wrong)}); give --model the one they were trained "
            f"on ({trained})"
        )
    if not all(bool(t.isfinite().all()) for t in weights.values()):
        raise InputFileError(f"{where}: {WEIGHTS} holds numbers that are not finite")
    made.put(model, weights)
    return made


def _check_kind(read: Mapping[str, Any], where: str) -> None:
    """Refuse what would compute something else than the formula above."""
    from peft import LoraConfig

    usual = LoraConfig().to_dict()
    for name, value in read.items():
        if name in _READ | _UNUSED or not value or value == usual.get(name) or (name, value) == ("bias", "none"):
            continue
        raise InputFileError(f"{where}: it uses {name}, which cannot be trained further here; merge it into its model")
    begun = read.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(_CHANGES_BASE):
        raise InputFileError(
            f"{where}: it began by {begun[:40]}, which changes the base; convert it to plain LoRA, or merge it"
        )


def _check_same(folder: Path, base: Base) -> None:
    """Refuse adapters that are known to be for another model."""
    told, trained = fingerprint_of(folder), base_of(folder)
    if told and told != base.fingerprint:
        raise InputFileError(
            f"adapter {folder}: for another model than {base.model}: its base is {trained}, with other weights; give "
            "--model that"
        )
    if not told and trained and trained not in (base.place, base.model):
        _log.warning(
            "the adapter %s says that its base is %s; it is trained further on %s", folder, trained, base.model
        )


def _as_read(read: Mapping[str, Any], base: Base, where: str) -> Any:
    from peft import LoraConfig

    taken = {name: read[name] for name in _READ if name in read}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return LoraConfig(**taken, lora_dropout=0.0, task_type="CAUSAL_LM", base_model_name_or_path=base.place)
    except (ValueError, TypeError) as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputFileError(f"{where}: its configuration cannot be used ({text})") from None


def different(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that only one side has, or in another shape."""
    return sorted(n for n in {*own, *given} if n not in own or n not in given or own[n].shape != given[n].shape)


def _some(wrong: list[str]) -> str:
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return wrong[0].removeprefix(_BEFORE)[:120] + more


def _outside(name: str) -> str:
    """A name in the model as files have it."""
    return _BEFORE + name.replace(f".{NAME}.", ".")


# -------------------------------------------------------------------------------------------------- layers


def layers(model: nn.Module) -> Iterator[Any]:
    """The layers of a model that have adapters."""
    return (module for module in model.modules() if _has_adapters(module))


def _has_adapters(module: nn.Module) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "get_base_layer")


def adds_nothing(layer: Any) -> bool:
    """Whether a layer's adapters are a product with zeros."""
    return not any(bool(b.weight.any()) for b in layer.lora_B.values())


@torch.no_grad()
def whole_weight(layer: Any) -> Tensor:
    """W + s B A of an adapted layer, in its base layer's layout; W itself where that is the same."""
    weight: Tensor = layer.get_base_layer().weight.detach()
    return weight if adds_nothing(layer) else weight + layer.get_delta_weight(NAME).to(weight.dtype)


def merge(model: Any) -> None:
    """Put plain layers in the place of adapted ones; W is shared where nothing is added, and never changed."""
    for name, layer in [(n, m) for n, m in model.named_modules() if _has_adapters(m)]:
        plain, weight = layer.get_base_layer(), whole_weight(layer)
        if weight is not plain.weight.detach() and not adds_nothing(layer):
            plain.weight = nn.Parameter(weight, requires_grad=False)
        model.set_submodule(name, plain)
    for left in ("peft_config", "_hf_peft_config_loaded"):
        vars(model).pop(left, None)


# ---------------------------------------------------------------------------------------------------- base


@torch.no_grad()
def fingerprint(model: nn.Module) -> str:
    """Of every weight that is not an adapter's: names, shapes and values, whatever file they came from.

    Of the values, the sum of their bits in fp32, which no single change keeps, and a sample in its order.
    """
    found = hashlib.sha256()
    for name, tensor in sorted(
        (n.replace(".base_layer", ""), p) for n, p in model.named_parameters() if "lora_" not in n
    ):
        flat = tensor.detach().flatten()
        step = max(1, len(flat) // _SAMPLE)
        sample = flat[::step].float().cpu().contiguous().view(torch.uint8)
        bits = sum(int(part.float().view(torch.int32).sum(dtype=torch.int64)) for part in flat.split(2**24))
        found.update(f"{name} {tuple(tensor.shape)} {bits} ".encode())
        found.update(sample.numpy().tobytes())
    return found.hexdigest()


def fingerprint_of(folder: Path) -> str:
    """That of the base of saved adapters; empty where the folder does not know."""
    path = folder / BASE
    try:
        told = msgspec.json.decode(path.read_bytes()[: 2**20], type=dict[str, str]).get("fingerprint", "")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InputFileError(f"adapter {folder}: {BASE} cannot be read ({error})") from None
    return told
