"""Snapshots: what a slow writer writes is the step it was taken at, bit for bit, whatever is learned meanwhile."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from engine import snapshot
from engine.checkpointing import Manifest
from engine.learner import Learner
from engine.snapshot import Copies, Snapshot
from tests.engine.small import make_learner

PPO: dict[str, Any] = {
    "algorithm": "ppo",
    "kl_placement": "reward",
    "kl_estimator": "k1",
    "value_model": "separate",
    "value_warmup_steps": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "grpo": {},
    "a refreshed reference": {"reference_refresh_steps": 1, "kl_coefficient": 0.1},
    "ppo": PPO,
}


def hashes(folder: Path) -> dict[str, str]:
    return msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest).files


def every_tensor(snapshot: Snapshot) -> list[Tensor]:
    return [*snapshot.weights.values(), *(t for named in snapshot.files.values() for t in named.values())]


def live_tensors(learner: Learner) -> list[Tensor]:
    value = learner.training.value_model
    live = [*learner.policy.model.state_dict().values(), *learner.optimizer.tensors().values()]
    if learner.reference.refreshed:
        live += learner.reference.weights().values()
    if value:
        live += [*value.tensors().values(), *value.optimizer.tensors().values()]
    return live


@pytest.mark.parametrize("case", CASES)
def test_a_late_write_is_the_checkpoint_of_its_step(tmp_path: Path, case: str) -> None:
    learner = make_learner(tmp_path, **CASES[case])
    for _ in range(2):
        learner.run_step()
    learner.save("at once")
    expected = hashes(tmp_path / "2")
    snapshot = learner.snapshot("later")
    assert not {t.untyped_storage().data_ptr() for t in every_tensor(snapshot)} & {
        t.untyped_storage().data_ptr() for t in live_tensors(learner)
    }
    for _ in range(2):
        learner.run_step()
    assert learner.write(snapshot).step == 2
    assert hashes(tmp_path / "2") == expected
    learner.copies.give_back()
    learner.save("at once")
    after = hashes(tmp_path / "4")
    moved = [name for name in expected if name.endswith(".safetensors") and after[name] == expected[name]]
    assert not moved, "training changed nothing of it, so the comparison shows nothing"


def test_the_memory_of_one_snapshot_serves_the_next(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, **PPO)
    learner.run_step()
    first = learner.snapshot("a")
    with pytest.raises(RuntimeError, match="before the one before"):
        learner.snapshot("b")
    learner.copies.give_back()
    where = [t.data_ptr() for t in every_tensor(first)]
    learner.run_step()
    second = learner.snapshot("b")
    assert [t.data_ptr() for t in every_tensor(second)] == where


def test_copies_are_dense_on_the_processor_and_tied_where_the_tensors_are() -> None:
    a, b = torch.arange(6.0).view(2, 3), torch.arange(6)
    copied = Copies().take({"x": {"a": a, "again": a, "turned": a.T, "whole": b, "empty": torch.zeros(0)}})["x"]
    assert copied["a"] is copied["again"]
    assert all(t.is_contiguous() for t in copied.values())
    for name, tensor in (("a", a), ("turned", a.T), ("whole", b)):
        assert torch.equal(copied[name], tensor)
    a.zero_()
    assert copied["a"].sum() == copied["turned"].sum() == 15


def test_a_tensor_of_another_shape_or_kind_gets_memory_of_its_own() -> None:
    copies = Copies()
    copies.take({"x": {"a": torch.ones(3), "b": torch.ones(2), "gone": torch.ones(1)}})
    copies.give_back()
    copied = copies.take({"x": {"a": torch.full((2, 2), 7.0), "b": torch.tensor([5, 6])}})["x"]
    assert copied["a"].tolist() == [[7.0, 7.0], [7.0, 7.0]]
    assert copied["b"].tolist() == [5, 6]
    assert copied["b"].dtype == torch.int64


@pytest.mark.parametrize(("kept", "stays"), [(23, False), (24, True)])
def test_the_memory_of_a_large_snapshot_is_given_back(monkeypatch: pytest.MonkeyPatch, kept: int, stays: bool) -> None:
    monkeypatch.setattr(snapshot, "KEPT", kept)
    copies = Copies()
    copied = weakref.ref(copies.take({"x": {"a": torch.ones(6)}})["x"]["a"])
    assert copied() is not None
    copies.give_back()
    assert (copied() is not None) == stays
