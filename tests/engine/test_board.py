"""What an engine keeps in memory of a branch."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.board import Board
from sessions.branches import Branch
from sessions.store import Store
from tests.sessions.samples import step_record


def test_first_values_are_the_first_that_were_measured_on_a_line(tmp_path: Path) -> None:
    store = Store(tmp_path / "session.db")
    measured: list[tuple[str, int, dict[str, float | None]]] = [
        ("main", 1, {"entropy": None}),
        ("main", 2, {"entropy": 4.0, "loss/policy": 0.0}),
        ("main", 3, {"entropy": 3.0, "kl/k3": 0.3}),
        ("try", 3, {"entropy": 2.0, "kl/k3": 0.1}),
    ]
    store.add_branch(Branch(name="try", parent="main", step=2))
    for branch, step, metrics in measured:
        store.add_step(msgspec.structs.replace(step_record(step), branch=branch, metrics=metrics), [], 500)
    assert Board(store, "main").first_values() == {"entropy": 4.0, "loss/policy": 0.0, "kl/k3": 0.3}
    assert Board(store, "try").first_values() == {"entropy": 4.0, "loss/policy": 0.0, "kl/k3": 0.1}
    store.close()
