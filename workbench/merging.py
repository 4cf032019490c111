"""Adapters and the model that they were trained on, made into one model."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from sessions.errors import InputFileError, UsageError

WEIGHTS = "adapter_model.safetensors"


def need_peft() -> None:
    """Raise UsageError, naming the command that installs it, if peft is not there."""
    if find_spec("peft") is None:
        raise UsageError("--merge needs the package peft; `pip install peft` brings it, without --merge nothing does")


def merge_into(base: str, adapters: Path, target: Path) -> None:
    """Write the model of a session with its adapters merged into its weights, in fp32 as it was trained.

    :param base: the model that the session was started with.
    :param adapters: a folder as peft saves it, and the tokenizer.
    :param target: a folder; it gets what transformers loads.
    :raises InputFileError: if there are no adapters in safetensors.
    :raises SessionError: if the model is not what they were trained on any more.
    """
    if not (adapters / WEIGHTS).is_file():  # peft would look for a pickle next
        raise InputFileError(f"the checkpoint's policy has no {WEIGHTS}; its adapters cannot be merged")
    need_peft()
    import torch
    from transformers import AutoModelForCausalLM

    from engine.adapters import attach, merge
    from engine.loading import model_folder
    from sessions.adapters import LoraOptions

    model = AutoModelForCausalLM.from_pretrained(
        model_folder(base), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    attach(model, LoraOptions(), 0, base, adapters)
    merge(model)
    model.save_pretrained(target)
    for path in adapters.iterdir():
        if path.is_file() and not path.name.startswith("adapter_") and not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)
