"""The policy of a checkpoint as a folder of its own: every file checked against the checkpoint's manifest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import msgspec

from sessions.checkpoints import Manifest
from sessions.errors import InvalidValue, SessionError
from sessions.export_files import Written
from sessions.folders import SessionFolder
from sessions.records import Checkpoint
from sessions.store import Store

POLICY = "policy"
ADAPTERS = "adapter_config.json"
"""In a policy's folder when it holds adapters and not the whole model."""
ACCURACY = "eval/accuracy"
_CHUNK = 1 << 20


def kept_checkpoints(folder: SessionFolder, store: Store, branch: str) -> list[Checkpoint]:
    """The checkpoints of a branch that are still on disk, oldest first."""
    return [c for c in store.checkpoints(branch) if (folder.checkpoint(c.path) / "manifest.json").is_file()]


def choose_checkpoint(
    folder: SessionFolder, store: Store, branch: str, *, step: int | None = None, best: bool = False
) -> Checkpoint:
    """The newest checkpoint of a branch, that of a step, or the one with the best held-out accuracy.

    :raises SessionError: if there is none.
    :raises InvalidValue: naming the steps that have one.
    """
    kept = kept_checkpoints(folder, store, branch)
    if not kept:
        raise SessionError(f"session {folder.name!r} has no checkpoint of branch {branch} on disk")
    if step is not None:
        found = [c for c in kept if c.step == step]
        if not found:
            there = ", ".join(str(c.step) for c in kept)
            raise InvalidValue(f"--step {step}: no checkpoint of that step is kept; there are those of {there}")
        return found[-1]
    if not best:
        return kept[-1]
    measured = accuracies(store, branch, kept)
    if not measured:
        raise SessionError(
            f"session {folder.name!r}: no kept checkpoint is of a step that was evaluated (evaluate_every); give --step"
        )
    return max((c for c in kept if c.step in measured), key=lambda c: (measured[c.step], c.step))


def accuracies(store: Store, branch: str, checkpoints: Iterable[Checkpoint]) -> dict[int, float]:
    """Step -> held-out accuracy, of those checkpoints whose step was evaluated."""
    found = {}
    for checkpoint in checkpoints:
        record = store.step(branch, checkpoint.step)
        value = record.metrics.get(ACCURACY) if record else None
        if value is not None:
            found[checkpoint.step] = value
    return found


def copy_policy(checkpoint: Path, target: Path) -> list[Written]:
    """Copy a checkpoint's policy, checking what is copied.

    :param target: an empty folder.
    :raises SessionError: naming the file that is missing or damaged.
    """
    try:
        manifest = msgspec.json.decode((checkpoint / "manifest.json").read_bytes(), type=Manifest)
        files = {n: digest for n, digest in sorted(manifest.files.items()) if PurePosixPath(n).parts[:1] == (POLICY,)}
        if not files:
            raise SessionError(f"checkpoint {checkpoint}: its manifest names no file of the policy")
        return [_copy(checkpoint, target, name, digest) for name, digest in files.items()]
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SessionError(
            f"checkpoint {checkpoint}: cannot be read ({error}); a running session may have replaced it: try again, "
            "or give another --step"
        ) from None


def _copy(checkpoint: Path, target: Path, name: str, digest: str) -> Written:
    inside = PurePosixPath(name).relative_to(POLICY)
    if not inside.parts or ".." in inside.parts:
        raise SessionError(f"checkpoint {checkpoint}: its manifest names {name!r}, which lies outside the policy")
    to = target / inside
    to.parent.mkdir(parents=True, exist_ok=True)
    found, size = hashlib.sha256(), 0
    with (checkpoint / name).open("rb") as source, to.open("xb") as copy:
        while chunk := source.read(_CHUNK):
            found.update(chunk)
            copy.write(chunk)
            size += len(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    if found.hexdigest() != digest:
        raise SessionError(f"checkpoint {checkpoint}: {name} is damaged; give the --step of another one")
    return Written(file=str(inside), bytes=size)


Merge = Callable[[Path, Path], None]
"""From a folder with adapters to an empty one, which then holds the whole model."""
