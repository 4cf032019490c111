"""What becomes of ratings: one line of the table of fates after the other, on a real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.late import Candidate, collect, fates, standing_for
from engine.rollout import RolloutGroup
from sessions.records import Group, RatingUse
from sessions.store import Store
from tests.sessions.samples import group, rating, step_record

LIMIT = 0.2


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "s.db")
    yield made
    made.close()


def learned(store: Store, step: int = 3, number: int = 1, **more) -> Group:
    """A group whose update has passed."""
    record = group(step, number, **more)
    store.add_groups([record])
    record.status = "updated"
    store.add_step(step_record(step), [record], 500)
    return record


def on_rollout(record: Group, *, late: bool = False) -> RolloutGroup:
    n = len(record.responses)
    return RolloutGroup(record, late=late, advantages=[0.5] * n, automatic=[0.25] * n)


def settle(store: Store, step: int, fresh: list[Group], drift: float = 0.01, limit: float = LIMIT) -> list[RatingUse]:
    """An update, as the engine does it, with the same drift for every late group."""
    candidates = collect(store, "main", step, limit)
    late = [c.group for c in candidates if c.group is not None]
    drifts = {g.name: drift for g in late}
    joining = [on_rollout(g, late=True) for g in late if drift <= limit]
    rollout = [*map(on_rollout, fresh), *joining]
    standing = standing_for(store, "main", [g.record for g in rollout])
    uses = fates(step, candidates, drifts, limit, rollout, standing)
    store.add_rating_uses(uses, step)
    return uses


def test_on_time(store: Store) -> None:
    record = group(3)
    store.add_groups([record])
    said = rating(3, values={"A": 5.0})
    store.add_rating(said)
    (use,) = settle(store, 3, [record])
    assert (use.rating, use.group, use.fate, use.step, use.kl) == (said.id, "3.1", "on_time", 3, None)
    assert use.advantages == dict.fromkeys("ABCD", 0.5)
    assert use.automatic == dict.fromkeys("ABCD", 0.25)
    assert settle(store, 4, []) == []


def test_late_once_for_each_new_rating(store: Store) -> None:
    learned(store)
    store.add_rating(rating(3, values={"A": 5.0}))
    (candidate,) = collect(store, "main", 4, LIMIT)
    assert candidate.group is not None
    assert candidate.group.name == "3.1"
    (use,) = settle(store, 4, [])
    assert (use.fate, use.step, use.kl) == ("late", 4, 0.01)
    assert collect(store, "main", 5, LIMIT) == []
    again = rating(3, values={"B": 1.0})
    store.add_rating(again)
    (use,) = settle(store, 5, [])
    assert (use.rating, use.fate, use.step) == (again.id, "late", 5)


def test_both_of_two_raters_are_used_together(store: Store) -> None:
    learned(store)
    ids = set()
    for who in ("ann", "bob"):
        said = rating(3, values={"A": 5.0}, who=who)
        store.add_rating(said)
        ids.add(said.id)
    uses = settle(store, 4, [])
    assert {u.rating for u in uses} == ids
    assert {u.fate for u in uses} == {"late"}


def test_an_old_rating_counts_again_with_a_new_one_but_is_reported_once(store: Store) -> None:
    learned(store)
    first = rating(3, values={"A": 5.0})
    store.add_rating(first)
    settle(store, 4, [])
    second = rating(3, values={"B": 5.0})
    store.add_rating(second)
    candidates = collect(store, "main", 5, LIMIT)
    standing = standing_for(store, "main", [c.group for c in candidates if c.group])
    assert {r.id for r in standing.ratings["3.1"]} == {first.id, second.id}
    assert [u.rating for u in settle(store, 5, [])] == [second.id]


@pytest.mark.parametrize("drift", [0.21, 5.0])
def test_too_far(store: Store, drift: float) -> None:
    learned(store)
    said = rating(3)
    store.add_rating(said)
    (use,) = settle(store, 4, [], drift=drift)
    assert (use.rating, use.fate, use.step, use.kl) == (said.id, "reward_model_only", 0, drift)
    assert "over rating_max_kl 0.2" in use.why
    assert settle(store, 5, []) == []


def test_exactly_at_the_limit_joins(store: Store) -> None:
    learned(store)
    store.add_rating(rating(3))
    assert settle(store, 4, [], drift=LIMIT)[0].fate == "late"


def test_a_limit_of_zero_keeps_all_for_the_reward_model(store: Store) -> None:
    learned(store)
    store.add_rating(rating(3))
    (use,) = settle(store, 4, [], limit=0.0)
    assert (use.fate, use.why) == ("reward_model_only", "rating_max_kl is 0")


def test_replaced(store: Store) -> None:
    record = group(3)
    store.add_groups([record])
    first = rating(3, values={"A": 1.0})
    second = rating(3, values={"A": 5.0}, supersedes=first.id)
    store.add_rating(first)
    store.add_rating(second)
    found = {u.rating: u for u in settle(store, 3, [record])}
    assert found[second.id].fate == "on_time"
    learned(store, 5)
    third, fourth = rating(5, values={"A": 1.0}), rating(5, values={"A": 2.0})
    fourth.supersedes = third.id
    store.add_rating(third)
    store.add_rating(fourth)
    found |= {u.rating: u for u in settle(store, 6, [])}
    assert found[fourth.id].fate == "late"
    for old in (first, third):
        assert (found[old.id].fate, found[old.id].why) == ("unused", "a later rating took its place")


def test_discarded(store: Store) -> None:
    store.add_groups([group(3)])
    store.add_rating(rating(3))
    store.set_group_status("main", 3, "discarded")
    (use,) = settle(store, 3, [])
    assert (use.fate, use.step, use.why) == ("unused", 0, "its step was discarded")


def test_retracted_before_its_update_is_ignored(store: Store) -> None:
    learned(store)
    said = rating(3)
    store.add_rating(said)
    store.retract(said.id, "ann", 200.0)
    assert settle(store, 4, []) == []


def test_tokens_no_longer_kept(store: Store) -> None:
    learned(store, 3)
    for step in (4, 5):
        store.add_step(step_record(step), [], keep_token_steps=2)
    store.add_rating(rating(3))
    (use,) = settle(store, 6, [])
    assert (use.fate, use.why) == ("reward_model_only", "its tokens are no longer kept")


def test_groups_of_the_step_in_progress_are_not_late(store: Store) -> None:
    record = group(3)
    store.add_groups([record])
    store.add_rating(rating(3))
    assert all(c.group is None and not c.why for c in collect(store, "main", 3, LIMIT))


def test_rated_while_its_own_update_ran_is_late(store: Store) -> None:
    record = group(3)
    store.add_groups([record])
    assert settle(store, 3, [record]) == []
    store.add_rating(rating(3))
    record.status = "updated"
    store.add_step(step_record(3), [record], 500)
    assert settle(store, 4, [])[0].fate == "late"


def test_only_responses_on_which_a_reward_failed(store: Store) -> None:
    record = group(3)
    record.responses[0].failed = "accuracy: raised"
    store.add_groups([record])
    store.add_rating(rating(3, values={"A": 5.0}, who="ann"))
    store.add_rating(rating(3, values={"A": 5.0, "B": 5.0}, who="bob"))
    unused, used = sorted(settle(store, 3, [record]), key=lambda u: u.fate, reverse=True)
    assert (unused.fate, used.fate) == ("unused", "on_time")
    assert "a reward function failed" in unused.why


def test_other_branches_are_left_alone(store: Store) -> None:
    store.add_groups([group(3, branch="main~1")])
    store.add_rating(rating(3, branch="main~1"))
    assert collect(store, "main", 4, LIMIT) == []


def test_groups_without_ratings_are_not_in_what_stands(store: Store) -> None:
    store.add_groups([group(3, 1), group(3, 2)])
    store.add_rating(rating(3, 2))
    standing = standing_for(store, "main", [group(3, 1), group(3, 2)])
    assert set(standing.ratings) == {"3.2"}


def test_a_candidate_starts_empty() -> None:
    assert Candidate("3.1") == Candidate("3.1", [], None, "")


def test_a_rated_group_of_the_same_step_that_is_not_in_the_update_has_no_say(store: Store) -> None:
    store.add_groups([group(3, 1), group(3, 2)])
    said = rating(3, 1)
    store.add_rating(said)
    store.add_rating(rating(3, 2))
    assert standing_for(store, "main", [group(3, 1)]).ratings == {"3.1": [said]}


@pytest.mark.parametrize(
    ("more", "fate", "why"),
    [
        ({"mode": "edit", "values": {"A": 1.0}, "text": "better"}, "reward_model_only", "a demonstration and a pair"),
        ({"mode": "critique", "values": {"A": 1.0}, "flags": ["wrong"]}, "unused", "a critique moves no reward"),
        ({"repeats": "first"}, "unused", "a silent repeat"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_what_moves_no_reward_is_settled_and_brings_no_group_back(
    store: Store, more: dict, fate: str, why: str, late: bool
) -> None:
    record = learned(store) if late else group(3)
    if not late:
        store.add_groups([record])
    given = rating(3, 1, **more)
    store.add_rating(given)
    step = 4 if late else 3
    assert all(candidate.group is None for candidate in collect(store, "main", step, LIMIT))
    uses = settle(store, step, [] if late else [record])
    (use,) = uses
    assert (use.rating, use.fate, use.step) == (given.id, fate, 0)
    assert why in use.describe()
