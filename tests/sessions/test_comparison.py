"""Branches side by side, beside what brute force says of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.branches import END, Branch, Probe
from sessions.comparison import compare, differing, paired, parting, shared_step, standing
from sessions.errors import InvalidValue, UnknownName
from sessions.store import Store
from tests.sessions.samples import step_record


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """``main`` of ten steps, ``low`` forked from it at 6 with three, ``lower`` from that at 8 with four."""
    made = Store(tmp_path / "session.db")
    learn(made, "main", range(11), 1e-4)
    made.add_branch(Branch(name="low", parent="main", step=6, time=1.0))
    learn(made, "low", range(7, 10), 5e-5)
    made.add_branch(Branch(name="lower", parent="low", step=8, time=2.0))
    learn(made, "lower", range(9, 13), 1e-5)
    yield made
    made.close()


def learn(store: Store, branch: str, steps: range, rate: float) -> None:
    """Steps whose reward tells branch and step, and whose kl is its negative."""
    for step in steps:
        value = {"main": 0.0, "low": 100.0, "lower": 200.0}[branch] + step
        metrics: dict[str, float | None] = {"reward/mean": value, "kl/k3": -value}
        if step % 4 == 0:
            metrics["eval/accuracy"] = value / 1000
        record = msgspec.structs.replace(step_record(step, branch), metrics=metrics, values={"learning_rate": rate})
        store.add_step(record, [], 500)


def probe(branch: str, place: int, right: bool = True, prompt: str = "") -> Probe:
    return Probe(
        branch=branch, step=8, place=place, prompt=prompt or f"p{place}", answer=f"a{place}", text="t", right=right
    )


@given(st.data())
def test_lines_share_the_steps_that_the_same_branch_owns(data: st.DataObject) -> None:
    known = {"main": Branch(name="main")}
    for k in range(data.draw(st.integers(0, 6))):
        parent = data.draw(st.sampled_from(sorted(known)))
        known[f"b{k}"] = Branch(name=f"b{k}", parent=parent, step=data.draw(st.integers(0, 12)))
    a, b = (data.draw(st.sampled_from(sorted(known))) for _ in range(2))

    def owner(name: str, step: int) -> str:
        while known[name].parent and step <= known[name].step:
            name = known[name].parent
        return name

    shared = shared_step(known, a, b)
    assert shared == shared_step(known, b, a)
    together = [step for step in range(16) if owner(a, step) == owner(b, step)]
    if a == b:
        assert shared == END
    else:
        assert together == [step for step in range(16) if step <= shared]


def test_three_branches_part_where_the_first_leaves(store: Store) -> None:
    branches = store.branches()
    assert parting(branches, ["low", "lower"]) == 8
    assert parting(branches, ["low", "lower", "main"]) == 6
    assert parting(branches, ["main"]) == END


def test_a_standing_is_since_they_parted() -> None:
    points = {1: 5.0, 2: 1.0, 3: 4.0, 4: 4.0, 6: 3.0, 9: 9.0}
    found = standing("reward/mean", "b", points, parted=2, common=6)
    assert found.parted == (2, 1.0)
    assert found.mean == pytest.approx((4 + 4 + 3) / 3)
    assert found.common == (6, 3.0)
    assert found.tip == found.best == (9, 9.0)
    lower = standing("kl/k3", "b", points, parted=2, common=6)  # where lower is better
    assert lower.best == (6, 3.0)
    assert standing("reward/mean", "b", {3: 4.0, 4: 4.0}, 2, 9).best == (4, 4.0)  # the last of equals
    nothing = standing("reward/mean", "b", {1: 5.0}, parted=2, common=6)
    assert (nothing.parted, nothing.mean, nothing.common, nothing.best) == ((1, 5.0), None, None, None)


def test_a_comparison_of_the_records(store: Store) -> None:
    store.add_probes([probe("low", 0), probe("low", 1, right=False)])
    found = compare(store, "s", ["low", "lower"])
    assert [info.branch.name for info in found.branches] == ["low", "lower"]
    assert (found.parted, found.common) == (8, 9)
    assert found.values == {"learning_rate": [5e-5, 1e-5]}
    assert list(found.series) == ["reward/mean", "eval/accuracy", "kl/k3"]  # those that were measured
    rewards = {s.branch: s for s in found.standings if s.metric == "reward/mean"}
    assert rewards["low"].parted == rewards["lower"].parted == (8, 108.0)
    assert (rewards["low"].common, rewards["lower"].common) == ((9, 109.0), (9, 209.0))
    assert (rewards["low"].tip, rewards["lower"].tip) == ((9, 109.0), (12, 212.0))
    held_out = {s.branch: s for s in found.standings if s.metric == "eval/accuracy"}
    assert held_out["lower"].common is None  # none was held among the steps that both have
    assert held_out["lower"].best == (12, 0.212)
    assert found.series["reward/mean"][1].values == [*map(float, range(7)), 107.0, 108.0, 209.0, 210.0, 211.0, 212.0]
    # the newest answers of lower's line are those from before it began
    assert [[a.branch if a else None for a in pair.answers] for pair in found.probes] == [["low", "low"]] * 2


def test_metrics_are_chosen(store: Store) -> None:
    assert list(compare(store, "s", ["main", "low"], ["kl/k3"]).series) == ["kl/k3"]
    with pytest.raises(InvalidValue, match="no branch has measured 'entropy'"):
        compare(store, "s", ["main", "low"], ["entropy"])


def test_what_cannot_be_compared(store: Store) -> None:
    with pytest.raises(UnknownName, match="did you mean low"):
        compare(store, "s", ["main", "lo"])
    for names in (["main"], ["main", "main"]):
        with pytest.raises(InvalidValue, match="two branches"):
            compare(store, "s", names)


def test_values_that_differ() -> None:
    assert differing([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}]) == {"b": [2, 3], "c": [None, 4]}
    assert differing([{"a": 1}, {"a": 1}]) == {}


def test_answers_are_paired_by_their_prompt() -> None:
    columns = [[probe("a", 0), probe("a", 1, right=False)], [probe("b", 1), probe("b", 2)]]
    pairs = paired(columns)
    assert [(p.place, p.prompt, p.answer) for p in pairs] == [(0, "p0", "a0"), (1, "p1", "a1"), (2, "p2", "a2")]
    assert [[a.branch if a else "" for a in p.answers] for p in pairs] == [["a", ""], ["a", "b"], ["", "b"]]
    assert [p.agree for p in pairs] == [True, False, True]
    other = paired([[probe("a", 0)], [probe("b", 0, prompt="another")]])  # the task has other prompts by now
    assert [p.prompt for p in other] == ["another", "p0"]
