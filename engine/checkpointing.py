"""Checkpoints: a folder of safetensors and JSON, written aside, synced and renamed, with a manifest of hashes.

``checkpoints/STEP/``: ``policy/`` (a folder that transformers loads), ``optimizer.safetensors``,
``reference.safetensors`` where the reference was refreshed, ``value.safetensors`` and ``value_optimizer.safetensors``
where there is a value model, ``state.json``, ``manifest.json``. Nothing is ever unpickled.

What is written is a :class:`~engine.snapshot.Snapshot`, so that the model may go on learning meanwhile.
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
from engine.snapshot import Snapshot, TrainingState
from sessions.errors import SessionError
from sessions.records import Checkpoint, Record

KEEP = 3
"""Newest checkpoints kept; checkpoint 0, the start of RL, always is."""
PARTIAL, REPLACED = ".partial", ".replaced"
"""``.STEP.partial``: being written; ``.STEP.replaced``: the earlier one, until the other has its name."""


class Manifest(Record):
    """``manifest.json``: the SHA-256 of every other file."""

    files: dict[str, str]


def write_checkpoint(folder: Path, snapshot: Snapshot, policy: Policy) -> Checkpoint:
    """Write ``folder/STEP``; a reader sees all of it or nothing.

    :param folder: the session's ``checkpoints``.
    :param policy: whose architecture and tokenizer are written; its weights are those of the snapshot.
    :raises OSError: if the disk will not have it; what was written of it is removed.
    """
    temporary = folder / f".{snapshot.state.step}{PARTIAL}"
    try:
        return _write(folder, temporary, snapshot, policy)
    except SafetensorError as error:
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise OSError(errno.EIO, str(error)) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, temporary: Path, snapshot: Snapshot, policy: Policy) -> Checkpoint:
    state = snapshot.state
    final = folder / str(state.step)
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "policy").mkdir(parents=True)
    policy.model.save_pretrained(temporary / "policy", state_dict=dict(snapshot.weights))
    policy.tokenizer.save_pretrained(temporary / "policy")
    for name, named in snapshot.files.items():
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
    for directory in (temporary / "policy", temporary):
        _sync(directory)
    replaced = folder / f".{state.step}{REPLACED}"
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    temporary.rename(final)
    _sync(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    _prune(folder)
    return Checkpoint(step=state.step, time=time.time(), path=str(final.name), bytes=size, reason=snapshot.reason)


def tidy(folder: Path) -> None:
    """Remove what an engine that was killed while it wrote has left, and put back what it was about to replace.

    Only while no engine of the session writes.
    """
    for path in folder.glob(f".*{REPLACED}"):
        final = folder / path.name.removeprefix(".").removesuffix(REPLACED)
        if not final.exists():
            path.rename(final)
    for pattern in (f".*{PARTIAL}", f".*{REPLACED}"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


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
