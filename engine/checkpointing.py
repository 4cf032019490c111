"""Writing a checkpoint, aside, synced and renamed, and reading its tensors; :mod:`sessions.checkpoints` has the rest.

What is written is a :class:`~engine.snapshot.Snapshot`, so that the model may go on learning meanwhile.
"""

from __future__ import annotations

import errno
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
from engine.snapshot import Snapshot
from sessions.checkpoints import PARTIAL, REPLACED, Damaged, Manifest, sha256, sync
from sessions.errors import SessionError
from sessions.records import Checkpoint


def write_checkpoint(folder: Path, snapshot: Snapshot, policy: Policy, name: str = "") -> Checkpoint:
    """Write ``folder/NAME``; a reader sees all of it or nothing.

    :param folder: the session's ``checkpoints``.
    :param policy: whose architecture and tokenizer are written; its weights are those of the snapshot.
    :param name: of the checkpoint's folder; empty: its step.
    :raises OSError: if the disk will not have it; what was written of it is removed.
    :raises SessionError: if the weights are not finite.
    """
    snapshot.check_finite(policy.learned_names())
    name = name or str(snapshot.state.step)
    temporary = folder / f".{name}{PARTIAL}"
    try:
        return _write(folder, temporary, name, snapshot, policy)
    except SafetensorError as error:
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise OSError(errno.EIO, str(error)) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, temporary: Path, name: str, snapshot: Snapshot, policy: Policy) -> Checkpoint:
    state, final = snapshot.state, folder / name
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "policy").mkdir(parents=True)
    policy.save(temporary / "policy", snapshot.weights)
    for part, named in snapshot.files.items():
        if named:
            save_file(_untied(named), temporary / f"{part}.safetensors")
    (temporary / "state.json").write_bytes(msgspec.json.format(msgspec.json.encode(state)))
    if snapshot.rollout is not None:
        (temporary / "rollout.json").write_bytes(msgspec.json.encode(snapshot.rollout))
    written = sorted(p for p in temporary.rglob("*") if p.is_file())
    manifest = Manifest(files={str(p.relative_to(temporary)): sha256(p) for p in written})
    (temporary / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    size = 0
    for path in [*written, temporary / "manifest.json"]:
        size += path.stat().st_size
        sync(path)
    for directory in (temporary / "policy", temporary):
        sync(directory)
    replaced = folder / f".{name}{REPLACED}"
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    temporary.rename(final)
    sync(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    return Checkpoint(
        step=state.step, time=time.time(), path=name, bytes=size, reason=snapshot.reason, branch=state.branch
    )


def policy_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint's ``policy`` folder, whatever number of files they are in.

    :raises SessionError: if there are none.
    """
    weights: dict[str, Tensor] = {}
    for part in sorted((path / "policy").glob("*.safetensors")):
        weights.update(_load(part, path))
    if not weights:
        raise SessionError(f"checkpoint {path}: its weights are missing")
    return weights


def _load(file: Path, path: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise Damaged(f"checkpoint {path.name}: {file.name} cannot be read ({error})") from None


def tensors(path: Path, name: str) -> dict[str, Tensor] | None:
    """The tensors of ``NAME.safetensors`` in a checkpoint; None if it has none."""
    file = path / f"{name}.safetensors"
    return _load(file, path) if file.exists() else None


def _untied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    seen: set[int] = set()
    kept = {}
    for name, tensor in weights.items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            kept[name] = tensor.contiguous()
    return kept
