"""Which checkpoints are kept, what they may be called, and how they leave the disk."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.branches import Branch
from sessions.checkpoints import (
    HeldRollout,
    KeepRule,
    TrainingState,
    doomed,
    free_name,
    names,
    peek_state,
    put_aside,
    remove,
    tidy,
)
from sessions.records import Checkpoint
from tests.sessions.samples import change, checkpoint, group, rating


def saved(*steps: int, branch: str = "main") -> list[Checkpoint]:
    return [checkpoint(step, branch=branch, path=f"{step}" if branch == "main" else f"{step}~1") for step in steps]


def gone(checkpoints: list[Checkpoint], rule: KeepRule, *branches: Branch, **accuracy: float) -> list[tuple[str, int]]:
    known = {b.name: b for b in (Branch(name="main"), *branches)}
    judged = {("main", int(name[1:])): value for name, value in accuracy.items()}
    return sorted((c.branch, c.step) for c in doomed(checkpoints, known, judged, rule))


def test_the_newest_and_the_start_of_rl_stay() -> None:
    assert gone(saved(0, 10, 20, 30, 40), KeepRule(last=2, best=0)) == [("main", 10), ("main", 20)]
    assert gone(saved(0, 10), KeepRule(last=3, best=0)) == []
    assert gone(saved(0, 10, 20), KeepRule(last=0, best=0)) == [("main", 10)]  # the newest stays whatever is asked


def test_the_best_by_evaluation_stay() -> None:
    rule = KeepRule(last=1, best=2)
    assert gone(saved(0, 10, 20, 30, 40), rule, s10=0.5, s20=0.9, s30=0.7) == [("main", 10)]
    assert gone(saved(0, 10, 20, 30), KeepRule(last=1, best=1), s10=0.9, s20=0.9) == [
        ("main", 10)
    ]  # the later of equals


def test_every_nth_stays() -> None:
    assert gone(saved(0, 10, 20, 30, 40, 45), KeepRule(last=1, best=0, every=20)) == [("main", 10), ("main", 30)]


def test_what_a_branch_begins_at_stays() -> None:
    rule = KeepRule(last=1, best=0)
    fork = Branch(name="try", parent="main", step=25)
    assert gone(saved(0, 10, 20, 30, 40), rule, fork) == [("main", 10), ("main", 30)]
    deleted = msgspec.structs.replace(fork, deleted=5.0)
    assert gone(saved(0, 10, 20, 30, 40), rule, deleted) == [("main", 10), ("main", 20), ("main", 30)]


def test_each_branch_keeps_its_own() -> None:
    fork = Branch(name="try", parent="main", step=20)
    every = [*saved(0, 10, 20, 30), *saved(20, 30, 40, branch="try")]
    assert gone(every, KeepRule(last=1, best=0), fork) == [("main", 10), ("try", 20), ("try", 30)]


@given(st.data())
def test_whatever_the_rule_every_branch_can_be_gone_on_from(data: st.DataObject) -> None:
    """From the newest checkpoint of its line: it is never removed, nor is the one that any branch begins at."""
    branches = {"main": Branch(name="main")}
    for k in range(data.draw(st.integers(0, 4))):
        parent = data.draw(st.sampled_from(sorted(branches)))
        branches[f"b{k}"] = Branch(name=f"b{k}", parent=parent, step=data.draw(st.integers(0, 20)))
    every = []
    for name in branches:
        for step in data.draw(st.sets(st.integers(0, 20), max_size=6)) | ({0} if name == "main" else set()):
            every.append(checkpoint(step, branch=name, path=f"{step}~{len(every)}"))
    rule = KeepRule(*(data.draw(st.integers(0, 3)) for _ in range(2)), every=data.draw(st.sampled_from([0, 5])))
    left = [c for c in every if c.path not in {g.path for g in doomed(every, branches, {}, rule)}]
    for name, branch in branches.items():
        own = [c.step for c in every if c.branch == name]
        if own:
            assert max(own) in [c.step for c in left if c.branch == name]
        before = [c.step for c in every if c.branch == branch.parent and c.step <= branch.step]
        if branch.parent and before:
            assert max(before) in [c.step for c in left if c.branch == branch.parent]
    assert any((c.branch, c.step) == ("main", 0) for c in left)


def test_names(tmp_path: Path) -> None:
    assert free_name(640, []) == "640"
    assert free_name(640, ["640", "640~1", "12"]) == "640~2"
    for name in ("0", "640", "640~1", ".640.partial", "notes", "²", "6 4"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    (tmp_path / "8").symlink_to(tmp_path / "640")
    assert names(tmp_path) == ["0", "640", "640~1"]
    assert names(tmp_path / "none") == []


def test_what_is_removed_is_renamed_first_and_nothing_outside_is(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for path in (folder / "3", folder / "4", tmp_path / "precious"):
        path.mkdir(parents=True)
        (path / "file").write_text("x")
    remove(folder, ["3", "../precious", "..", "", "9"])
    assert sorted(p.name for p in folder.iterdir()) == ["4"]
    assert (tmp_path / "precious" / "file").exists()


def test_what_an_engine_was_removing_when_it_was_killed_is_gone(tmp_path: Path) -> None:
    (tmp_path / ".3.doomed" / "policy").mkdir(parents=True)
    tidy(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_one_is_put_aside_beside_those_before_it(tmp_path: Path) -> None:
    for expected in (".3.damaged", ".3.damaged2"):
        (tmp_path / "3").mkdir()
        assert put_aside(tmp_path, "3") == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == [".3.damaged", ".3.damaged2"]
    tidy(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # left for people to look at


def test_a_state_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert peek_state(tmp_path) is None
    state = TrainingState(step=3, cursor=48, optimizer_steps=3, values={"clip_low": 0.1}, pending=[change()])
    (tmp_path / "state.json").write_bytes(msgspec.json.encode(state))
    assert peek_state(tmp_path) == state


def test_a_rollout_comes_back_from_its_file_digit_for_digit() -> None:
    held = HeldRollout(
        step=3,
        taken=2,
        groups=[group(3, 2), group(3, 1)],
        replaced=[group(3, 3)],
        entropies=[[[0.1, 1 / 3, 2e-45]], [[]]],
        ratings=[rating()],
    )
    assert msgspec.json.decode(msgspec.json.encode(held), type=HeldRollout) == held


@pytest.mark.parametrize(
    "text", ['{"step": 3}', "[]", "{", '{"step": "x", "cursor": 1, "optimizer_steps": 1, "values": {}}']
)
def test_a_state_of_another_shape_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert peek_state(tmp_path) is None
