"""Loading a model and its tokenizer: a folder, a GGUF file or a model of the hub; safetensors and JSON only."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator

from engine import gguf, hub
from engine.adapters import Attach
from engine.chat import check_template
from engine.control import Control
from engine.policy import Policy
from engine.soundness import check_tokenizer
from engine.words import one_line
from sessions.errors import InputFileError, UsageError
from sessions.folders import cache_home
from sessions.model_files import check_model_folder, stored_type
from sessions.models import parse_model
from sessions.shortcuts import SHORTCUTS

_ANY_LAYER = re.compile(r"\.\d+\.")
TINY = Path(__file__).parent / "tiny_model"
"""The model that travels with the package."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a model lies.

    :ivar commit: of the hub that it is of; empty: it is not from there.
    """

    folder: Path
    commit: str = ""


def find_model(
    model: str, commit: str = "", *, control: Control | None = None, trust_remote_code: bool = False
) -> Found:
    """Find a model by its name; what has to be fetched or converted first is, once.

    :param commit: of a hub model that was used before, and is again; or another revision of it.
    :param control: told what takes long.
    :raises WorkbenchError: if there is none, or it is none that can be trained.
    """
    name, control = parse_model(model).at(commit), control or Control()
    match name.kind:
        case "known":
            return Found(TINY if name.place == "tiny" else _fetched(name.place))
        case "folder":
            return Found(Path(name.place))
        case "gguf":
            return Found(gguf.converted(Path(name.place), control))
        case "hub":
            folder = hub.snapshot(name, control, code=trust_remote_code)
            return Found(folder, folder.name)


def model_folder(model: str) -> Path:
    """The folder of a model by its name, as :func:`find_model` finds it."""
    return find_model(model).folder


def _fetched(name: str) -> Path:
    folder = cache_home() / name
    if not (folder / "config.json").exists():
        raise UsageError(f"model {name} has not been fetched yet; run `workbench fetch {name}` once")
    return folder


def load_policy(
    path: Path,
    accelerator: Accelerator,
    *,
    chat_template: bool = True,
    shortcuts: Collection[str] = tuple(SHORTCUTS),
    trust_remote_code: bool = False,
    attach: Attach | None = None,
    name: str = "",
) -> Policy:
    """Load any causal language model that transformers can, with fp32 master weights.

    A model's folder may come from anywhere: only safetensors are read, and code of its own is run only when asked for.

    :param trust_remote_code: whether Python code in the folder may be run.
    :param attach: puts adapters into the model, which are trained instead of it.
    :param name: as people call it; empty: by its folder.
    :raises InputFileError: with the reason, if it cannot be loaded.
    """
    name = name or str(path)
    check_model_folder(path, name)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    what = "its config.json cannot be used"
    try:
        transformers.AutoConfig.from_pretrained(path, **options)  # else it is the tokenizer that complains of it
        what = "its tokenizer cannot be loaded"
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **options)
        what = "cannot be loaded as a causal language model"
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            path,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report, and refused by name
            **options,
        )
    except Exception as error:  # noqa: BLE001 - transformers raises many kinds; all mean that the folder is unusable
        if "trust_remote_code" in str(error):
            raise InputFileError(
                f"model {name}: it needs Python code of its own; read it, and add --trust-remote-code if it may run"
            ) from None
        raise InputFileError(f"model {name}: {what} ({one_line(error)})") from None
    _check_complete(report, name)
    _check_layers(model, report, name)
    _check_finite(model, name)
    check_tokenizer(model, tokenizer, name)
    if chat_template and getattr(tokenizer, "chat_template", None):
        check_template(tokenizer)
    adapters = attach(model) if attach else None
    policy = Policy(model, tokenizer, accelerator, chat_template=chat_template, shortcuts=shortcuts, adapters=adapters)
    policy.stored = stored_type(path)
    return policy


def _check_complete(report: dict[str, Any], name: str) -> None:
    """Refuse weights that transformers has made up because the folder does not hold them.

    :param report: of ``from_pretrained``.
    """
    if wrong := report.get("mismatched_keys"):
        first, stored, wanted = min((str(key), tuple(found), tuple(asked)) for key, found, asked in wrong)
        raise InputFileError(
            f"model {name}: the shape of its weights {first} is {stored}, and its config.json says {wanted}; copy or "
            "fetch the model again"
        )
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise InputFileError(
            f"model {name}: its folder lacks the weights {missing[0]}{more}, which would be random; give the folder of "
            "a whole causal language model"
        )


def _check_layers(model: Any, report: dict[str, Any], name: str) -> None:
    """Refuse weights of layers that the configuration has not: they would be left out without a word.

    Other weights that nothing asks for (a vision tower, a second head) are none of the language model's.
    """
    own = {_ANY_LAYER.sub(".*.", key) for key in model.state_dict()}
    beyond = sorted(key for key in report.get("unexpected_keys") or () if _ANY_LAYER.search(key))
    beyond = [key for key in beyond if _ANY_LAYER.sub(".*.", key) in own or _layers_of(model) < 1]
    if beyond:
        raise InputFileError(
            f"model {name}: it has weights of more layers ({beyond[0]}) than the {_layers_of(model)} that "
            "its config.json says; copy or fetch the model again"
        )


def _layers_of(model: Any) -> int:
    return int(getattr(model.config.get_text_config(), "num_hidden_layers", 1))


def _check_finite(model: Any, name: str) -> None:
    for key, weights in model.named_parameters():
        if weights.is_floating_point() and not bool(torch.isfinite(weights).all()):
            raise InputFileError(
                f"model {name}: its weights {key} hold values that are not finite; copy or fetch the model again"
            )
