"""What several people say of a group, in any modes, beside the equations written down anew."""

from __future__ import annotations

import math
from statistics import fmean, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.credit import apply_ratings, write_advantages
from engine.rollout import RolloutGroup
from sessions.records import Group, Rating, Response

LETTERS = "ABCD"
NUMBERS = st.floats(-3, 3, allow_nan=False).map(lambda x: round(x, 3))


@st.composite
def answers(draw: Any) -> tuple[str, dict[str, float]]:
    """A mode, and an answer in it."""
    mode = draw(st.sampled_from(["thumbs", "likert", "pair", "rank", "edit", "critique"]))
    if mode == "pair":
        two = draw(st.permutations(LETTERS))[:2]
        return mode, dict(zip(two, draw(st.sampled_from([(1, 0), (2, 0), (0, 1), (0.5, 0.5), (0, 0)])), strict=True))
    if mode == "rank":
        named = draw(st.permutations(LETTERS))[: draw(st.integers(2, 4))]
        raw = [draw(st.integers(1, 3)) for _ in named]
        return mode, {
            letter: float(1 + sorted(set(raw)).index(place)) for letter, place in zip(named, raw, strict=True)
        }
    if mode in {"edit", "critique"}:
        return mode, {draw(st.sampled_from(LETTERS)): 1.0}
    named = draw(st.permutations(LETTERS))[: draw(st.integers(1, 4))]
    allowed = [-1, 1] if mode == "thumbs" else [1, 2, 3, 4, 5]
    return mode, {letter: float(draw(st.sampled_from(allowed))) for letter in named}


def heights(mode: str, values: dict[str, float]) -> tuple[bool, dict[str, float]]:
    """Whether an answer carries a level, and h of each response."""
    if mode == "thumbs":
        return True, {letter: float(v > 0) for letter, v in values.items()}
    if mode == "likert":
        return True, {letter: (v - 1) / 4 for letter, v in values.items()}
    if mode == "pair":
        if set(values.values()) == {0}:
            return True, values
        return False, {a: 0.5 if len(set(values.values())) == 1 else float(v > 0) for a, v in values.items()}
    if mode == "rank":
        k = len(values)
        h = {}
        for letter, place in values.items():
            ahead = sum(other < place for other in values.values())
            tied = sum(other == place for other in values.values())
            h[letter] = fmean((k - p) / (k - 1) for p in range(ahead + 1, ahead + tied + 1))
        return False, h
    return False, {}


def expected(
    rewards: dict[str, float | None], said: list[tuple[str, dict[str, float]]], w: float, low: float, high: float
) -> dict[str, float | None]:
    """Section by section: rewards after the ratings of people who said one thing each."""
    levels: dict[str, list[float]] = {}
    compared: dict[str, list[float]] = {}
    for mode, values in said:
        level, h = heights(mode, values)
        for letter, x in h.items():
            if letter in rewards:
                (levels if level else compared).setdefault(letter, []).append(x)
    result = dict(rewards)
    if w == 0:
        return result
    targets: dict[str, float] = {}
    if len(compared) > 1:
        known = [r for letter in compared if (r := rewards[letter]) is not None]
        m = fmean(known) if known else (low + high) / 2
        mean = fmean(fmean(x) for x in compared.values())
        targets = {letter: m + (fmean(x) - mean) * (high - low) for letter, x in compared.items()}
    targets |= {letter: low + fmean(x) * (high - low) for letter, x in levels.items()}
    for letter, target in targets.items():
        before = rewards[letter]
        result[letter] = target if before is None else (1 - w) * before + w * target
    return result


@given(
    st.lists(st.none() | NUMBERS, min_size=4, max_size=4),
    st.sets(st.integers(0, 3), max_size=2),
    st.lists(answers(), max_size=4),
    st.lists(answers(), max_size=2),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([(0.0, 1.0), (-1.0, 2.0)]),
    st.booleans(),
)
def test_any_ratings_of_several_people_are_what_the_equations_say(
    automatic: list[float | None],
    failed: set[int],
    said: list[tuple[str, dict[str, float]]],
    gone: list[tuple[str, dict[str, float]]],
    w: float,
    bounds: tuple[float, float],
    late: bool,
) -> None:
    """:param gone: what was said and taken back: it was looked at before, and counts for nothing now."""
    responses = [
        Response(letter=a, text=a, length=1, ended=True, reward=r, failed="x" if i in failed else "")
        for i, (a, r) in enumerate(zip(LETTERS, automatic, strict=True))
    ]
    group = RolloutGroup(
        Group("main", 1, 1, prompt_id="p", prompt="p", answer="", temperature=1.0, responses=responses),
        late=late,
    )

    def given_by(what: list[tuple[str, dict[str, float]]]) -> list[Rating]:
        return [
            Rating(id=f"r{i}", time=0.0, who=f"p{i}", branch="main", step=1, group=1, mode=mode, values=values)
            for i, (mode, values) in enumerate(what)
        ]

    apply_ratings([group], {group.record.name: given_by([*said, *gone])}, w, bounds)
    apply_ratings([group], {group.record.name: given_by(said)}, w, bounds)
    write_advantages([group], {}, "group")
    rewards = {a: automatic[i] for i, a in enumerate(LETTERS) if i not in failed}
    wanted = expected(rewards, said, w, *bounds)
    found = [r for r in wanted.values() if r is not None]
    spread = stdev(found) if len(found) > 1 else 0.0
    if abs(spread - 1e-6) < 1e-9:
        return
    for letter, advantage in zip(LETTERS, group.advantages, strict=True):
        reward = wanted.get(letter)
        right = 0.0 if reward is None or spread < 1e-6 else (reward - fmean(found)) / (spread + 1e-4)
        assert math.isfinite(advantage)
        assert advantage == pytest.approx(right, abs=1e-6)
