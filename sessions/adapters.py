"""The adapters of ``--lora``: their options, once, and folders of them as peft writes them.

Nothing here needs peft or torch; ``engine/adapters.py`` puts them into a model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sessions.errors import InputFileError, InvalidValue, UsageError
from sessions.paths import expanded
from sessions.specs import Kind, Option, Spec, names, parse_spec

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
BASE = "adapter_base.json"
"""Which model they were trained on, beside what peft writes."""
ALL_LINEAR = "all-linear"
MOST_CONFIG = 2**22
"""Bytes of :data:`CONFIG` and :data:`BASE`."""
LEARNING_RATE = 5e-5
"""Default with adapters, where the task proposes none: they take larger steps than a whole model (1e-6)."""

KIND = Kind(
    "lora",
    "adapters that are trained instead of the model: W + (alpha / r) B A in its linear layers",
    (
        Option("r", "whole", 16, "rank: columns of B and rows of A", low=1, high=4096),
        Option("alpha", "number", 32.0, "alpha / r scales what they add; it does not follow r", low=1e-6, high=1e6),
        Option("targets", "names", ALL_LINEAR, "names of layers (q_proj,v_proj), or all-linear: all but the head"),
        Option("exclude", "names", "", "names of layers that get none"),
        Option("layers", "names", "", "numbers of the decoder's layers that get some, such as 0,1,8-11; empty: all"),
        Option("rslora", "switch", False, "scale by alpha / sqrt(r), as larger ranks want it"),
        Option("dropout", "number", 0.0, "only 0: with dropout the sampled and the trained policy are not the same"),
        Option("from", "path", "", "a folder of adapters that are trained further, with their own r and targets"),
    ),
    needs="lora",
)
"""What ``--lora`` takes; ``r=16 alpha=32`` are the defaults of TRL's ``ModelConfig``."""

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """``--lora``, read.

    :ivar targets: names of layers, or ``("all-linear",)``.
    :ivar layers: numbers of the decoder's layers; empty: all.
    :ivar start: a folder of adapters to train further; None: new ones.
    """

    r: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = (ALL_LINEAR,)
    exclude: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    rslora: bool = False
    start: Path | None = None


def read_lora(text: str) -> LoraOptions:
    """The options of ``--lora``.

    :raises UsageError: one line that says what cannot be used.
    """
    spec = _parsed(text)
    values = KIND.read(spec, "run")
    if values["dropout"]:
        raise InvalidValue(
            f"--lora: dropout {values['dropout']}: only 0 is allowed: with it the policy that is trained is not the "
            "one that sampled, and the ratio is not 1 before the first step"
        )
    start = str(values["from"])
    if start and (others := [name for name in spec.options if name not in ("from", "dropout")]):
        raise UsageError(f"--lora: from={start} has {others[0]} of its own; leave {others[0]}= out")
    targets = names(values["targets"])
    if not targets or (ALL_LINEAR in targets and len(targets) > 1):
        raise InvalidValue(f"--lora: targets {values['targets']!r}: names of layers with commas, or all-linear alone")
    return LoraOptions(
        r=int(values["r"]),
        alpha=float(values["alpha"]),
        targets=targets,
        exclude=names(values["exclude"]),
        layers=_layers(str(values["layers"])),
        rslora=bool(values["rslora"]),
        start=Path(start) if start else None,
    )


def check_lora(text: str, *, started: bool = False) -> str:
    """The words of ``--lora``, checked as far as can be without the model; its path absolute.

    :param started: the session has checkpoints, so that what it began from is not needed any more.
    :raises UsageError: one line that says what, where and what to do.
    """
    if not text.strip():
        return ""
    options = read_lora(text)
    need_peft("--lora")
    if options.start is not None and not started:
        read_config(options.start)
    spec = KIND.canonical(_parsed(text), "run")
    return _words(spec.options) or f"r={options.r}"


def lora_words(options: Mapping[str, str]) -> str:
    """Options by name as the words of ``--lora``.

    :raises UsageError: if one of them cannot be used.
    """
    return _words(KIND.canonical(Spec("lora", options), "lora").options) or "r=16"


def need_peft(what: str) -> None:
    """Raise UsageError, naming the command that installs it, if peft is not there.

    :param what: needs it.
    """
    if find_spec("peft") is None:
        raise UsageError(f"{what} needs the package peft; `pip install 'rl-workbench[lora]'` brings it")


# --------------------------------------------------------------------------------------- folders of adapters


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds adapters and not a model."""
    return (folder / CONFIG).is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """``adapter_config.json``.

    :raises InputFileError: if it cannot be read, is not of LoRA, or there are no weights in safetensors beside it.
    """
    config = _json(folder, CONFIG)
    if config.get("peft_type") != "LORA":
        raise InputFileError(
            f"adapter {folder}: {CONFIG} is of {str(config.get('peft_type'))[:40]!r}; only LORA can be trained further"
        )
    if not (folder / WEIGHTS).is_file():
        raise InputFileError(f"adapter {folder}: no {WEIGHTS} there; peft's save_pretrained writes it")
    return config


def base_of(folder: Path) -> str:
    """The model that a folder of adapters says it was trained on, as ``--model`` takes it; empty: it does not say."""
    if (folder / BASE).is_file():
        named = _json(folder, BASE).get("model")
    else:
        named = _json(folder, CONFIG).get("base_model_name_or_path")
    return named if isinstance(named, str) else ""


def adapted(model: str, lora: str) -> tuple[str, str]:
    """What ``--model`` and ``--lora`` mean where the model is a folder of adapters: its base, and the adapters.

    :raises UsageError: if it does not name its base, or ``--lora`` says something else.
    """
    folder = expanded(model)
    try:
        if "\0" in model or not is_adapter(folder):
            return model, lora
    except OSError:  # too long for a name; what is none is said where it is read
        return model, lora
    folder = folder.resolve()
    own = _words({"from": str(folder)})
    if lora.strip() and read_lora(lora).start != folder:
        raise UsageError(
            f"--model {model}: it is a folder of adapters, which are trained further; leave --lora out, or give "
            "--model the model itself"
        )
    base = base_of(folder)
    if not base:
        raise UsageError(
            f"--model {model}: it is a folder of adapters that do not name their base; give --model BASE --lora {own}"
        )
    return base, own


def _parsed(text: str) -> Spec:
    return parse_spec(f"--lora {text}", "run")


def _words(options: Mapping[str, str]) -> str:
    return str(Spec("--lora", options)).removeprefix("--lora").strip()


def _layers(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in names(text):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise InvalidValue(f"--lora: layers {text!r}: numbers of layers with commas, such as 0,1,8-11")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InvalidValue(f"--lora: layers {text!r}: {part} ends before it begins")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        with (folder / name).open("rb") as file:  # a link, as the hub's cache has them, is as good
            data = file.read(MOST_CONFIG + 1)
        if len(data) > MOST_CONFIG:
            raise ValueError(f"more than {MOST_CONFIG:,} bytes")
        read = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputFileError(f"adapter {folder}: {name} cannot be read ({reason})") from None
    if not isinstance(read, dict):
        raise InputFileError(f"adapter {folder}: {name} holds no object")
    return read
