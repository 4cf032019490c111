"""Checkpoints that are damaged on disk: the session goes on from an older one, and says which one was damaged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sessions.folders import SessionFolder
from tests.faults.count import Count
from tests.faults.harness import SECONDS, alarms, notes, recovered, small_session
from tests.faults.nursery import Nursery

pytestmark = pytest.mark.timeout(240)


def truncate(name: str) -> Callable[[Path], None]:
    return lambda checkpoint: os.truncate(checkpoint / name, (checkpoint / name).stat().st_size // 2)


def empty(name: str) -> Callable[[Path], None]:
    return lambda checkpoint: os.truncate(checkpoint / name, 0)


def flip(name: str) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        content = bytearray((checkpoint / name).read_bytes())
        content[len(content) // 2] ^= 1
        (checkpoint / name).write_bytes(content)

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / name).unlink()


def other_manifest(checkpoint: Path) -> None:
    """Hashes that were made anew for what is not the checkpoint any more: its files are read and cannot be used."""
    (checkpoint / "optimizer.safetensors").write_bytes(b"\xff" * 64)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"]["optimizer.safetensors"] = hashlib.sha256(b"\xff" * 64).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a truncated model": truncate("policy/model.safetensors"),
    "a flipped byte in the model": flip("policy/model.safetensors"),
    "a flipped byte in the optimizer": flip("optimizer.safetensors"),
    "a flipped byte in the state": flip("state.json"),
    "an empty state": empty("state.json"),
    "an empty manifest": empty("manifest.json"),
    "a missing model": remove("policy/model.safetensors"),
    "a missing optimizer": remove("optimizer.safetensors"),
    "a missing state": remove("state.json"),
    "a missing manifest": remove("manifest.json"),
    "a missing folder": shutil.rmtree,
    "files that are whole and cannot be read": other_manifest,
}
SHORT = ("a truncated model", "a flipped byte in the optimizer", "a missing state", "a missing folder")


@pytest.fixture
def trained(nursery: Nursery) -> SessionFolder:
    """A session of seven steps with checkpoints 0, 3, 6 and 7."""
    folder = small_session(steps=7)
    process = nursery.engine(folder.path)
    process.join(SECONDS)
    assert process.exitcode == 0, folder.log_tail(20)
    return folder


def other(folder: SessionFolder, name: str) -> SessionFolder:
    copied = SessionFolder(folder.path.with_name(name))
    shutil.copytree(folder.path, copied.path)
    copied.write_settings(msgspec.structs.replace(folder.settings(), name=name))
    return copied


@pytest.mark.parametrize(
    "damages", [SHORT, pytest.param(tuple(DAMAGES), marks=pytest.mark.faults)], ids=["short", "all"]
)
def test_a_session_goes_on_from_the_checkpoint_before_a_damaged_one(
    damages: tuple[str, ...], trained: SessionFolder, nursery: Nursery, count: Count
) -> None:
    for number, name in enumerate(damages):
        folder = other(trained, f"s{number}")
        DAMAGES[name](folder.checkpoints / "7")
        kind = f"checkpoint: {name}"
        count.injected[kind] += 1
        said, raised = len(notes(folder)), len(alarms(folder))
        recovered(folder, count, kind, nursery=nursery)
        told = [*notes(folder)[said:], *alarms(folder)[raised:]]
        assert any("from checkpoint 6" in line for line in told), told
        assert any("checkpoint 7" in line for line in told), told


def test_a_session_whose_newer_checkpoints_are_all_damaged_goes_on_from_its_first(
    trained: SessionFolder, nursery: Nursery, count: Count
) -> None:
    kind = "checkpoint: all but the first damaged"
    for step in (3, 6, 7):
        DAMAGES["a truncated model"](trained.checkpoints / str(step))
    count.injected[kind] += 1
    recovered(trained, count, kind, nursery=nursery)


def test_a_session_without_a_whole_checkpoint_goes_on_from_the_model_and_its_records(
    trained: SessionFolder, nursery: Nursery, count: Count
) -> None:
    kind = "checkpoint: all damaged"
    for step in (0, 3, 6, 7):
        DAMAGES["a truncated model"](trained.checkpoints / str(step))
    count.injected[kind] += 1
    recovered(trained, count, kind, nursery=nursery)
    told = [*notes(trained), *alarms(trained)]
    assert any("from checkpoint 0; steps 1 to 7 were computed again" in line for line in told), told
    assert sum("is not what was written" in line for line in alarms(trained)) == 4
