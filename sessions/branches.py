"""Branches: lines of steps that share their beginnings.

A branch begins at a step of its parent and shares every step up to that one with it. Its *line* is all of its steps:
those of its ancestors up to where it left them, then its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from sessions.errors import InvalidValue, UnknownName
from sessions.hyperparameters import Value
from sessions.records import MAIN, WARM_UP, Checkpoint, Record

PROBES = 16
"""Held-out prompts whose answers are kept, so that branches can be compared by them: the probe prompts."""
END = 2**62
"""After every step."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")


class Branch(Record):
    """A line of steps in a session.

    :ivar parent: the branch that it continues; empty for ``main`` and the warm-up's.
    :ivar step: the last step that it shares with its parent.
    :ivar time: when it was made.
    :ivar why: one line for people: forked by whom, left by a rewind.
    :ivar seed: of its noise and its order of prompts; None: its parent's, or the session's.
    :ivar abandoned: whether a rewind, or a recomputation that went another way, left its steps behind.
    :ivar deleted: when a person deleted it; 0: not. What they rated on it is kept.
    """

    name: str
    parent: str = ""
    step: int = 0
    time: float = 0.0
    why: str = ""
    seed: int | None = None
    abandoned: bool = False
    deleted: float = 0.0


class Dropped(Record):
    """What tries at the step in progress have used up before they were dropped, with and without groups to show for it.

    :ivar prompts: that they took.
    :ivar passes: boundary -> how often the step has passed it.
    """

    step: int
    prompts: int
    passes: dict[str, int] = {}


class BranchInfo(Record):
    """A branch and what became of it.

    :ivar tip: its newest step.
    :ivar steps: of its own.
    :ivar metrics: of its newest step.
    :ivar evaluated: step and held-out accuracy of its newest evaluation.
    :ivar best: the same of its best one.
    :ivar values: the hyperparameters of its newest step.
    :ivar begun_with: those that its parent had at the step where it begins.
    :ivar checkpoints: its own, oldest first.
    """

    branch: Branch
    active: bool = False
    tip: int = 0
    steps: int = 0
    time: float = 0.0
    metrics: dict[str, float | None] = {}
    evaluated: tuple[int, float] | None = None
    best: tuple[int, float] | None = None
    values: dict[str, Value] = {}
    begun_with: dict[str, Value] = {}
    checkpoints: list[Checkpoint] = []


class Probe(Record):
    """What a branch answered to one of the fixed probe prompts.

    :ivar step: after which it was asked.
    :ivar place: of the prompt among the probe prompts.
    :ivar right: what the task's judge says.
    """

    branch: str
    step: int
    place: int
    prompt: str
    answer: str
    text: str
    right: bool


class Segment(NamedTuple):
    """Steps ``after + 1`` to ``last`` of a line, which ``branch`` owns."""

    branch: str
    after: int
    last: int


def line_of(branches: Mapping[str, Branch], name: str) -> list[Segment]:
    """The segments of a branch's line, oldest first.

    :param branches: by name; a branch that is not among them has no parent.
    :raises InvalidValue: if a branch is its own ancestor.
    """
    segments: list[Segment] = []
    last, seen = END, set()
    while True:
        if name in seen:
            raise InvalidValue(f"branch {name} is its own ancestor")
        seen.add(name)
        branch = branches.get(name)
        if branch is None or not branch.parent:
            segments.append(Segment(name, -1, last))
            return segments[::-1]
        if last > branch.step:
            segments.append(Segment(name, branch.step, last))
        name, last = branch.parent, min(last, branch.step)


def seed_of(branches: Mapping[str, Branch], name: str, session_seed: int) -> int:
    """The seed of a branch's noise and order of prompts: its own, or else its parent's; in the end the session's."""
    for _ in branches:
        branch = branches.get(name)
        if branch is None:
            break
        if branch.seed is not None:
            return branch.seed
        name = branch.parent
    return session_seed


def owner_of(line: Iterable[Segment], step: int) -> str:
    """The branch that owns a step of a line."""
    names = [segment.branch for segment in line if segment.after < step <= segment.last]
    return names[-1] if names else MAIN


def check_branch_name(name: str) -> str:
    """The name, if a person may give it to a branch.

    :raises InvalidValue: if not.
    """
    if not _NAME.fullmatch(name) or name in (MAIN, WARM_UP):
        raise InvalidValue(
            f"{name!r} cannot name a branch; use letters, digits, '.', '_' and '-', at most 48, and neither main nor "
            "warm-up"
        )
    return name


def aside_name(name: str, taken: Collection[str]) -> str:
    """``NAME~1``, or the first after it that is free: where a rewind leaves the steps of a branch."""
    return next(found for k in range(1, 1_000_000) if (found := f"{name}~{k}") not in taken)


def find_branch(name: str, branches: Mapping[str, Branch]) -> Branch:
    """A branch by name.

    :raises UnknownName: if there is none.
    """
    found = branches.get(name)
    if found is None or found.deleted:
        raise UnknownName("branch", name, [b.name for b in branches.values() if not b.deleted])
    return found


def differences(a: Mapping[str, Value], b: Mapping[str, Value]) -> dict[str, tuple[Value | None, Value | None]]:
    """Hyperparameters whose values differ: name -> both; None where one has no value."""
    return {name: (a.get(name), b.get(name)) for name in sorted({*a, *b}) if a.get(name) != b.get(name)}


def in_tree_order(branches: Iterable[Branch]) -> list[tuple[int, Branch]]:
    """Every branch after its parent, with its depth; siblings in the order of the steps that they begin at."""
    children: dict[str, list[Branch]] = {}
    known = {branch.name: branch for branch in branches}
    for branch in known.values():
        children.setdefault(branch.parent if branch.parent in known else "", []).append(branch)
    ordered: list[tuple[int, Branch]] = []

    def walk(parent: str, depth: int) -> None:
        for branch in sorted(children.get(parent, ()), key=lambda b: (b.step, b.time, b.name)):
            ordered.append((depth, branch))
            walk(branch.name, depth + 1)

    walk("", 0)
    return ordered
