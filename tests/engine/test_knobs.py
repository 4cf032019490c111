"""Changes of hyperparameters on their way to their boundaries."""

from __future__ import annotations

import pytest

from engine.knobs import Knobs
from sessions.commands import Set
from sessions.errors import InvalidValue, Refused, UnknownName
from sessions.hyperparameters import defaults, parse_assignment


def knobs(*schedule: str) -> Knobs:
    return Knobs(defaults(), [parse_assignment(text) for text in schedule])


def ask(target: Knobs, step: int = 3, expect: dict | None = None, **values):
    return target.request(Set(values=values, who="ann", expect=expect or {}), step)


@pytest.mark.parametrize(
    ("name", "value", "boundary"),
    [("learning_rate", 5e-7, "minibatch"), ("epochs", 2, "update"), ("group_size", 16, "rollout")],
)
def test_a_change_waits_for_its_own_boundary(name: str, value: float, boundary: str) -> None:
    k = knobs()
    before = k.values[name]
    (change,), superseded = ask(k, **{name: value})
    assert (change.name, change.old, change.new, change.boundary) == (name, before, value, boundary)
    assert (change.status, change.accepted_step, change.applied_step, change.who) == ("pending", 3, 0, "ann")
    assert superseded == []
    for other in {"minibatch", "update", "rollout"} - {boundary}:
        assert k.apply(other, 4) == []
        assert k.values[name] == before
    assert k.pending == [change]
    (applied,) = k.apply(boundary, 4)
    assert (applied.id, applied.status, applied.applied_step) == (change.id, "applied", 4)
    assert k.values[name] == value
    assert k.pending == []
    assert k.apply(boundary, 5) == []


def test_several_at_once_are_applied_in_their_order() -> None:
    k = knobs()
    new, _ = ask(k, clip_low=0.1, clip_high=0.3, group_size=4)
    assert [c.name for c in new] == ["clip_low", "clip_high", "group_size"]
    assert [c.name for c in k.apply("minibatch", 3)] == ["clip_low", "clip_high"]
    assert [c.name for c in k.apply("rollout", 4)] == ["group_size"]


def test_a_later_change_supersedes_one_that_waits() -> None:
    k = knobs()
    (first,), _ = ask(k, group_size=4)
    (second,), (old,) = ask(k, group_size=6)
    assert (old.id, old.status) == (first.id, "superseded")
    assert k.pending == [second]
    assert second.old == 8
    k.apply("rollout", 4)
    assert k.values["group_size"] == 6


def test_going_back_withdraws_what_waits() -> None:
    k = knobs()
    (first,), _ = ask(k, group_size=4)
    new, (old,) = ask(k, group_size=8)
    assert new == []
    assert old.id == first.id
    assert k.pending == []


def test_the_value_it_has_already_changes_nothing() -> None:
    assert ask(knobs(), group_size=8) == ([], [])


def test_an_expectation_is_held_against_what_will_be() -> None:
    k = knobs()
    with pytest.raises(Refused, match="group_size is 8 now, not 4"):
        ask(k, group_size=16, expect={"group_size": 4})
    assert k.pending == []
    ask(k, group_size=4, expect={"group_size": 8})
    with pytest.raises(Refused, match=r"group_size is 4 now \(ann, step 3\), not 8; look again"):
        ask(k, group_size=16, expect={"group_size": 8})
    ask(k, group_size=16, expect={"group_size": "4"})
    assert k.pending[0].new == 16


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"group_size": 1}, InvalidValue),
        ({"learning_rate": "fast"}, InvalidValue),
        ({"lerning_rate": 1e-3}, UnknownName),
        ({"clip_low": 0.1, "group_size": 2.5}, InvalidValue),
        ({"kl_placement": "reward"}, InvalidValue),
        ({"kl_estimator": "k1"}, InvalidValue),
    ],
)
def test_a_refused_request_changes_nothing(values: dict, error: type[Exception]) -> None:
    k = knobs()
    with pytest.raises(error):
        ask(k, **values)
    assert k.pending == []
    assert k.values == defaults()


def test_values_that_only_go_together_are_accepted_together() -> None:
    k = knobs()
    ask(k, kl_placement="reward", kl_estimator="k1")
    with pytest.raises(InvalidValue):
        ask(k, kl_placement="loss")  # against what waits, not against what is
    k.apply("update", 3)
    assert (k.text("kl_placement"), k.text("kl_estimator")) == ("reward", "k1")


def test_the_schedule_comes_due_at_its_step() -> None:
    k = knobs("learning_rate=1e-5@4", "group_size=4@2", "clip_low=0.1@4")
    assert k.begin_step(1) == []
    assert [c.name for c in k.begin_step(2)] == ["group_size"]
    assert k.values["group_size"] == 8
    k.apply("rollout", 2)
    assert k.values["group_size"] == 4
    assert k.begin_step(3) == []
    due = k.begin_step(4)
    assert {c.name for c in due} == {"learning_rate", "clip_low"}
    assert {c.who for c in due} == {"--set"}
    assert k.begin_step(4) == []
    assert k.apply("minibatch", 4)
    assert k.number("learning_rate") == 1e-5


def test_the_schedule_replaces_what_a_person_set_and_says_so() -> None:
    k = knobs("group_size=4@3")
    (mine,), _ = ask(k, group_size=6)
    assert [(c.new, c.status) for c in k.begin_step(3)] == [(6, "superseded"), (4, "pending")]
    assert mine.id not in {c.id for c in k.pending}


def test_the_schedule_is_checked_together() -> None:
    k = knobs("kl_placement=reward@2")
    with pytest.raises(InvalidValue):
        k.begin_step(2)
    k = knobs("kl_placement=reward@2", "kl_estimator=k1@2")
    assert len(k.begin_step(2)) == 2


def test_a_step_that_begins_again_is_not_scheduled_twice() -> None:
    k = knobs("group_size=4@2")
    k.begin_step(2)
    k.apply("rollout", 2)
    ask(k, group_size=6)
    assert k.begin_step(2) == []
    k.apply("rollout", 2)
    assert k.values["group_size"] == 6


def test_values_are_copies() -> None:
    k = knobs()
    k.values["group_size"] = 99
    k.pending.append(None)
    assert k.whole("group_size") == 8
    assert k.pending == []


def test_going_back_applies_again_what_was_applied_and_then_what_waited() -> None:
    k = knobs("clip_low=0.1@4")
    ask(k, step=2, learning_rate=1e-4)
    (early,) = k.apply("minibatch", 2)
    ask(k, step=3, learning_rate=2e-4)
    (late,) = k.apply("minibatch", 3)
    k.begin_step(4)
    (scheduled,) = k.apply("minibatch", 4)
    (waiting,), _ = ask(k, step=4, group_size=4)
    schedule = [parse_assignment("clip_low=0.1@4"), parse_assignment("clip_high=0.3@6")]

    other = knobs()
    changes = [early, late, scheduled, waiting]
    other.go_back({**defaults(), "learning_rate": 1e-4}, schedule, changes, step=2, until=4)
    assert {c.name for c in other.pending} == {"learning_rate", "clip_low", "group_size"}
    (mine,), _ = ask(other, step=3, epochs=2)
    seen = {}
    for step in (3, 4, 5, 6):
        accepted = [c.name for c in other.begin_step(step)]
        applied = [c.name for b in ("rollout", "update", "minibatch") for c in other.apply(b, step)]
        values = other.values
        seen[step] = (accepted, applied, [values[n] for n in ("learning_rate", "clip_low", "group_size", "epochs")])
    assert seen == {
        3: ([], [], [2e-4, 0.2, 8, 1]),
        4: ([], [], [2e-4, 0.1, 8, 1]),  # what is computed again is recorded so, and what is new waits
        5: ([], ["group_size", "epochs"], [2e-4, 0.1, 4, 2]),
        6: (["clip_high"], ["clip_high"], [2e-4, 0.1, 4, 2]),
    }
    assert mine.status == "pending"


def test_a_change_between_minibatches_is_applied_again_between_the_same() -> None:
    k = knobs()
    k.apply("minibatch", 3)
    k.apply("minibatch", 3)
    ask(k, step=3, clip_low=0.1)
    (change,) = k.apply("minibatch", 3)
    assert (change.applied_step, change.applied_place) == (3, 2)
    other = knobs()
    other.go_back(defaults(), [], [change], step=2, until=3)
    lows = []
    for _ in range(4):
        assert other.apply("minibatch", 3) == []
        lows.append(other.number("clip_low"))
    assert lows == [0.2, 0.2, 0.1, 0.1]
    dropped = knobs()  # a try of two minibatches was dropped before the one that is computed again
    dropped.go_back(defaults(), [], [change], step=2, until=3)
    dropped.count_from(3, {"minibatch": 2})
    dropped.apply("minibatch", 3)
    assert dropped.number("clip_low") == 0.1
    assert dropped.minibatches(3) == 3
    assert dropped.minibatches(4) == 0


def test_what_waited_for_the_next_minibatch_does_not_come_earlier() -> None:
    k = knobs()
    k.apply("minibatch", 3)
    k.apply("minibatch", 3)
    (waiting,), _ = ask(k, step=3, clip_low=0.1)
    other = knobs()
    other.go_back(defaults(), [], [waiting], step=2, until=2)
    counts = [len(other.apply("minibatch", 3)) for _ in range(4)]
    assert counts == [0, 0, 1, 0]
    later = knobs()  # and where the step has fewer, in the next
    later.go_back(defaults(), [], [waiting], step=2, until=2)
    assert [len(later.apply("minibatch", step)) for step in (3, 4)] == [0, 1]


def test_a_change_replaces_what_is_on_its_way_and_not_what_is_applied_again() -> None:
    k = knobs()
    ask(k, step=3, clip_low=0.1)
    (applied,) = k.apply("minibatch", 3)
    other = knobs()
    other.go_back(defaults(), [], [applied], step=2, until=3)
    with pytest.raises(Refused, match=r"clip_low is 0\.1 now \(ann, step 3\), not 0\.2"):
        other.request(Set(values={"clip_low": 0.3}, expect={"clip_low": 0.2}), 3)
    (mine,), superseded = ask(other, step=3, clip_low=0.3)
    assert superseded == []
    assert mine.old == 0.1
    other.apply("minibatch", 3)
    assert other.number("clip_low") == 0.1
    assert other.apply("minibatch", 4) != []
    assert other.number("clip_low") == 0.3


def test_of_two_changes_of_a_knob_the_later_stands_whatever_boundary_comes_first() -> None:
    """The first was applied at the update of a try that was dropped, the second at the rollout of the next try."""
    k = knobs()
    ask(k, step=3, minibatches=2)
    (first,) = k.apply("update", 3)
    ask(k, step=3, minibatches=1, algorithm="ppo", kl_placement="reward", kl_estimator="k1")
    second = next(c for c in k.apply("rollout", 3) if c.name == "minibatches")
    assert (first.boundary, second.boundary) == ("update", "rollout")
    for until in (2, 3):  # of a step that was not finished, and of one that is computed again
        other = knobs()
        other.go_back(defaults(), [], [first, second], step=2, until=until)
        other.apply("rollout", 3)
        other.apply("update", 3)
        assert other.whole("minibatches") == 1


def test_what_another_branch_waits_for_does_not_come_here() -> None:
    k = knobs()
    (waiting,), _ = ask(k, step=3, clip_low=0.1)
    other = knobs()
    other.go_back(defaults(), [], [waiting], step=3, until=3, branch="try")
    assert other.pending == []
    (mine,), _ = ask(other, step=4, clip_low=0.3)
    assert mine.branch == "try"


def waiting(k: Knobs) -> dict[str, str]:
    return {c.name: c.boundary for c in k.pending}


def test_what_is_set_after_a_switch_goes_with_it() -> None:
    k = knobs()
    ask(k, algorithm="ppo")
    ask(k, kl_placement="reward", kl_estimator="k1", kl_coefficient=0.2, gamma=0.9)
    assert waiting(k) == {
        "algorithm": "rollout",
        "kl_placement": "rollout",
        "kl_estimator": "rollout",
        "kl_coefficient": "rollout",
        "gamma": "update",  # which says the same of either algorithm
    }
    k.apply("update", 3)
    assert k.text("kl_placement") == "loss"
    k.apply("rollout", 4)
    assert (k.text("algorithm"), k.text("kl_placement"), k.number("kl_coefficient")) == ("ppo", "reward", 0.2)


def test_values_that_only_go_with_one_that_waits_wait_with_it() -> None:
    k = Knobs({**defaults(), "max_new_tokens": 6})
    ask(k, overlong_penalty=8, max_new_tokens=12)
    assert waiting(k) == {"overlong_penalty": "rollout", "max_new_tokens": "rollout"}
    k = Knobs({**defaults(), "max_new_tokens": 6})
    ask(k, overlong_penalty=4, max_new_tokens=12)
    assert waiting(k) == {"overlong_penalty": "update", "max_new_tokens": "rollout"}


def test_a_boundary_is_that_of_the_values_it_is_set_with() -> None:
    k = knobs()
    ask(k, kl_placement="reward", kl_estimator="k1", kl_coefficient=0.2)
    assert waiting(k)["kl_coefficient"] == "update"


def test_what_follows_another_knob_goes_with_it() -> None:
    k = knobs()
    ask(k, value_model="separate")
    assert waiting(k) == {"value_model": "update", "value_learning_rate": "update"}
    ask(k, value_learning_rate=1e-4)
    assert waiting(k)["value_learning_rate"] == "update"


@pytest.mark.parametrize(("name", "value"), [("top_p", 0.9), ("top_k", 50), ("min_p", 0.05)])
def test_a_truncated_sampler_is_refused_for_training_unless_the_session_allows_it(name: str, value: float) -> None:
    refused = knobs(f"{name}={value}@5")
    with pytest.raises(InvalidValue, match=f"{name} .*not the policy.*--allow-sampler-mismatch"):
        ask(refused, **{name: value})
    with pytest.raises(InvalidValue, match="--allow-sampler-mismatch"):
        refused.begin_step(5)
    assert refused.pending == []
    ask(refused, **{f"eval_{name}": value})
    allowed = Knobs(defaults(), [parse_assignment(f"{name}={value}@5")], mismatch=True)
    assert [change.new for change in allowed.begin_step(5)] == [value]
