"""Loading a model and its tokenizer: by name or folder, from safetensors and JSON only."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator

from engine.adapters import Attach
from engine.policy import Policy
from sessions.errors import InputFileError, UsageError
from sessions.folders import cache_home
from sessions.shortcuts import SHORTCUTS

TINY = Path(__file__).parent / "tiny_model"
"""The model that travels with the package."""


def model_folder(model: str) -> Path:
    """The folder of a model by name (``tiny``, ``smollm2``) or path.

    :raises InputFileError: if there is none.
    """
    if model == "tiny":
        return TINY
    if model == "smollm2":
        fetched = cache_home() / "smollm2"
        if not (fetched / "config.json").exists():
            raise UsageError("model smollm2 has not been fetched yet; run `workbench fetch smollm2` once")
        return fetched
    path = Path(model).expanduser()
    if not (path / "config.json").is_file():
        raise InputFileError(f"model {model}: no folder with a config.json there; known names: tiny, smollm2")
    return path


def load_policy(
    path: Path,
    accelerator: Accelerator,
    *,
    chat_template: bool = True,
    shortcuts: Collection[str] = tuple(SHORTCUTS),
    trust_remote_code: bool = False,
    attach: Attach | None = None,
) -> Policy:
    """Load any causal language model that transformers can, with fp32 master weights.

    A model's folder may come from anywhere: only safetensors are read, and code of its own is run only when asked for.

    :param trust_remote_code: whether Python code in the folder may be run.
    :param attach: puts adapters into the model, which are trained instead of it.
    :raises InputFileError: with the reason, if it cannot be loaded.
    """
    _refuse_pickles(path)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **options)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, **options
        )
    except Exception as error:  # noqa: BLE001 - transformers raises many kinds; all mean that the folder is unusable
        if "trust_remote_code" in str(error):
            raise InputFileError(
                f"model {path}: it needs Python code of its own; read it, and add --trust-remote-code if it may run"
            ) from None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputFileError(f"model {path}: cannot be loaded as a causal language model ({reason})") from None
    adapters = attach(model) if attach else None
    return Policy(model, tokenizer, accelerator, chat_template=chat_template, shortcuts=shortcuts, adapters=adapters)


def _refuse_pickles(path: Path) -> None:
    """Refuse weights that could only be read by unpickling, which runs whatever code they hold.

    :raises InputFileError: if a folder of a model has no others.
    """
    for kind in ("adapter_model", "*"):
        pickles = [p.name for end in ("bin", "pt", "pth", "ckpt") for p in sorted(path.glob(f"{kind}.{end}"))]
        if pickles and not any(path.glob(f"{kind}.safetensors")):
            raise InputFileError(
                f"model {path}: its weights are pickled ({pickles[0]}), and reading a pickle runs what is in it; "
                "give a folder with .safetensors, which save_pretrained writes"
            )
