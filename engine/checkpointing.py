"""Checkpoints: a folder of safetensors and JSON, written aside, synced and renamed, with a manifest of hashes.

``checkpoints/STEP/``: ``policy/`` (a folder that transformers loads), ``optimizer.safetensors``,
``reference.safetensors`` where the reference was refreshed, ``value.safetensors`` and ``value_optimizer.safetensors``
where there is a value model, ``state.json``, ``manifest.json``. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.policy import Policy
from sessions.errors import SessionError
from sessions.hyperparameters import Value
from sessions.records import Checkpoint, Record

KEEP = 3
"""Newest checkpoints kept; checkpoint 0, the start of RL, always is."""


class TrainingState(Record):
    """``state.json``: everything of a session's training that is not a tensor.

    :ivar step: finished steps.
    :ivar cursor: prompts taken so far.
    :ivar step_cursor: prompts taken by finished steps; fewer where tries at the next step were dropped, -1: not known.
    :ivar optimizer_steps: optimizer steps taken so far.
    :ivar last_algorithm: of the newest update.
    :ivar value_model: its kind; empty where there is none.
    :ivar value_steps: optimizer steps that it has taken.
    :ivar value_updates: updates that it has been trained in.
    """

    step: int
    cursor: int
    optimizer_steps: int
    values: dict[str, Value]
    step_cursor: int = -1
    reference_refreshed: int = 0
    last_algorithm: str = ""
    value_model: str = ""
    value_steps: int = 0
    value_updates: int = 0


class Manifest(Record):
    """``manifest.json``: the SHA-256 of every other file."""

    files: dict[str, str]


def save_checkpoint(
    folder: Path,
    state: TrainingState,
    policy: Policy,
    files: Mapping[str, Mapping[str, Tensor]],
    reason: str,
) -> Checkpoint:
    """Write ``folder/STEP``; a reader sees all of it or nothing.

    :param folder: the session's ``checkpoints``.
    :param files: name -> the tensors of ``NAME.safetensors``; one without tensors is not written.
    :raises OSError: if the disk will not have it; what was written of it is removed.
    """
    temporary = folder / f".{state.step}.partial"
    try:
        return _save(folder, temporary, state, policy, files, reason)
    except SafetensorError as error:
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise OSError(errno.EIO, str(error)) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save(
    folder: Path,
    temporary: Path,
    state: TrainingState,
    policy: Policy,
    files: Mapping[str, Mapping[str, Tensor]],
    reason: str,
) -> Checkpoint:
    final = folder / str(state.step)
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "policy").mkdir(parents=True)
    policy.model.save_pretrained(temporary / "policy")
    policy.tokenizer.save_pretrained(temporary / "policy")
    for name, named in files.items():
        if named:
            save_file(_untied(named), temporary / f"{name}.safetensors")
    (temporary / "state.json").write_bytes(msgspec.json.format(msgspec.json.encode(state)))
    written = sorted(p for p in temporary.rglob("*") if p.is_file())
    manifest = Manifest(files={str(p.relative_to(temporary)): _sha256(p) for p in written})
    (temporary / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    size = 0
    for path in [*written, temporary / "manifest.json"]:
        size += path.stat().st_size
        _sync(path)
    replaced = folder / f".{state.step}.replaced"
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    temporary.rename(final)
    _sync(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    _prune(folder)
    return Checkpoint(step=state.step, time=time.time(), path=str(final.name), bytes=size, reason=reason)


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step, if there is one."""
    steps = [int(p.name) for p in folder.glob("*") if p.name.isdigit() and (p / "manifest.json").exists()]
    return folder / str(max(steps)) if steps else None


def read_state(path: Path) -> TrainingState:
    """The state of a checkpoint, after checking every file against the manifest.

    :raises SessionError: naming the file that is missing or damaged.
    """
    try:
        manifest = msgspec.json.decode((path / "manifest.json").read_bytes(), type=Manifest)
        for name, digest in manifest.files.items():
            if _sha256(path / name) != digest:
                raise SessionError(f"checkpoint {path}: {name} is damaged; remove the folder to use an earlier one")
        return msgspec.json.decode((path / "state.json").read_bytes(), type=TrainingState)
    except (OSError, msgspec.DecodeError) as error:
        raise SessionError(f"checkpoint {path}: cannot be read ({error}); remove it to use an earlier one") from None


def policy_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint's ``policy`` folder, whatever number of files they are in.

    :raises SessionError: if there are none.
    """
    weights: dict[str, Tensor] = {}
    for part in sorted((path / "policy").glob("*.safetensors")):
        weights.update(load_file(part))
    if not weights:
        raise SessionError(f"checkpoint {path}: its weights are missing")
    return weights


def tensors(path: Path, name: str) -> dict[str, Tensor] | None:
    """The tensors of ``NAME.safetensors`` in a checkpoint; None if it has none."""
    file = path / f"{name}.safetensors"
    return load_file(file) if file.exists() else None


def _untied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    seen: set[int] = set()
    kept = {}
    for name, tensor in weights.items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            kept[name] = tensor.contiguous()
    return kept


def _prune(folder: Path) -> None:
    steps = sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())
    for step in [s for s in steps if s > 0][:-KEEP]:
        shutil.rmtree(folder / str(step), ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
