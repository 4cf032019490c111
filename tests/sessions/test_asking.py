"""What is asked next: groups, pairs of responses, and silent repeats."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.asking import RULES, choose_pairs, choose_repeat, order_groups, repeat_due, waits
from sessions.errors import UnknownName
from sessions.hyperparameters import HYPERPARAMETERS
from sessions.records import Group, GroupHead, Rating, Response, letters
from tests.sessions.samples import group, rating


def head(step: int, number: int = 1, **more: float | None) -> GroupHead:
    return GroupHead(branch="main", step=step, number=number, prompt="q", mean=0.5, rewards=[], **{"std": None, **more})


def names(heads: list[GroupHead]) -> list[str]:
    return [h.name for h in heads]


def test_the_rules_are_those_of_the_hyperparameter() -> None:
    assert set(RULES) == set(HYPERPARAMETERS["rating_rule"].choices)


def test_newest_goes_from_the_last_step_back_and_within_a_step_in_order() -> None:
    heads = [head(3, 2), head(5, 2), head(3, 1), head(5, 1), head(4)]
    assert names(order_groups(heads, "newest")) == ["5.1", "5.2", "4.1", "3.1", "3.2"]


@pytest.mark.parametrize(("rule", "field"), [("uncertain", "doubt"), ("disagree", "discord"), ("spread", "std")])
def test_a_rule_puts_the_most_telling_first_and_what_it_knows_nothing_about_last(rule: str, field: str) -> None:
    known = {1: 0.2, 2: 0.9, 3: 0.0, 4: 0.9}
    heads = [head(6), *(head(step, **{field: value}) for step, value in known.items()), head(7)]
    assert names(order_groups(heads, rule)) == ["4.1", "2.1", "1.1", "3.1", "7.1", "6.1"]


def test_a_rule_does_not_look_at_what_another_looks_at() -> None:
    heads = [head(2, std=0.1, doubt=0.9, discord=0.5), head(1, std=0.5, doubt=0.2, discord=0.9)]
    assert {rule: names(order_groups(heads, rule))[0] for rule in ("newest", "uncertain", "disagree", "spread")} == {
        "newest": "2.1",
        "uncertain": "2.1",
        "disagree": "1.1",
        "spread": "1.1",
    }


@given(st.sets(st.tuples(st.integers(1, 50), st.integers(1, 9)), min_size=2, max_size=20), st.integers(), st.data())
def test_a_random_order_does_not_jump_as_groups_come_and_go(places: set, seed: int, data: st.DataObject) -> None:
    everything = order_groups([head(*place) for place in places], "random", seed)
    kept = data.draw(st.lists(st.sampled_from(sorted(places)), unique=True))
    assert names(order_groups([head(*place) for place in kept], "random", seed)) == [
        h.name for h in everything if (h.step, h.number) in kept
    ]


def test_random_is_another_order_under_another_seed_and_favours_no_step() -> None:
    heads = [head(step) for step in range(200)]
    first, second = (order_groups(heads, "random", seed) for seed in ("ann", "bob"))
    assert names(first) != names(second)
    for found in (first, second):  # the mean place in time of the first half: 99.5 with a standard deviation of 4.1
        assert sum(h.step for h in found[:100]) / 100 == pytest.approx(99.5, abs=16)


def test_an_unknown_rule_is_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="nearest"):
        order_groups([], "nearest")
    with pytest.raises(UnknownName, match="nearest"):
        choose_pairs(group(), "nearest", 1)


# --------------------------------------------------------------------------------------------------- pairs


@pytest.mark.parametrize(
    ("waiting", "what"),
    [
        (True, {}),
        (True, {"status": "updated"}),
        (True, {"flags": ["truncated"]}),
        (True, {"flags": ["dead"], "mean": None}),
        (False, {"flags": ["dead"]}),
        (False, {"ratings": {"A": "4"}}),
        (False, {"status": "discarded"}),
        (False, {"status": "replaced"}),
    ],
)
def test_a_group_waits_that_can_teach_and_that_nobody_has_rated(waiting: bool, what: dict) -> None:
    known = {"mean": 0.5, "std": None, "rewards": []} | what
    assert waits(GroupHead(branch="main", step=1, number=1, prompt="q", **known)) is waiting


def answers(*texts: str, **more: list) -> Group:
    """A group of these texts; ``more`` gives fields of the responses, one value each."""
    return Group(
        branch="main", step=3, number=1, prompt_id="p", prompt="q", answer="", temperature=1.0,
        responses=[
            Response(letter=letters(i), text=text, length=1, ended=True, **{k: v[i] for k, v in more.items()})
            for i, text in enumerate(texts)
        ],
    )  # fmt: skip


def unordered(pairs: list[tuple[str, str]]) -> list[str]:
    return ["".join(sorted(pair)) for pair in pairs]


texts = st.lists(st.sampled_from("uvwxyz"), min_size=0, max_size=9)


@given(texts, st.sampled_from(sorted(RULES)), st.integers(0, 40), st.integers())
def test_pairs_are_of_different_texts_and_none_comes_twice(texts: list, rule: str, count: int, seed: int) -> None:
    asked = answers(*texts, reward=[float(i % 3) for i in range(len(texts))])
    pairs = choose_pairs(asked, rule, count, seed)
    of = {r.letter: r.text for r in asked.responses}
    possible = [pair for pair in combinations(of, 2) if of[pair[0]] != of[pair[1]]]
    assert len(set(unordered(pairs))) == len(pairs) == min(count, len(possible))
    assert all(of[left] != of[right] for left, right in pairs)
    assert pairs == choose_pairs(asked, rule, 100, seed)[:count]


@given(st.integers(2, 16), st.sampled_from(sorted(RULES)), st.integers())
def test_each_pair_shows_two_more_responses_until_all_are_shown(n: int, rule: str, seed: int) -> None:
    asked = answers(*map(str, range(n)), reward=[math.sin(i) for i in range(n)])
    shown: set[str] = set()
    for number, pair in enumerate(choose_pairs(asked, rule, -(-n // 2), seed), 1):
        shown |= set(pair)
        assert len(shown) == min(2 * number, n)


@given(texts, st.integers())
def test_every_response_that_differs_from_another_is_shown_by_as_many_pairs_as_there_are_responses(
    texts: list, seed: int
) -> None:
    shown = {letter for pair in choose_pairs(answers(*texts), "random", len(texts), seed) for letter in pair}
    assert len(shown) == (len(texts) if len(set(texts)) > 1 else 0)


@given(st.lists(st.sampled_from("uvwx"), min_size=2, max_size=9), st.sampled_from(sorted(RULES)), st.integers())
def test_all_are_shown_by_as_few_pairs_as_can_be(texts: list, rule: str, seed: int) -> None:
    if len(set(texts)) < 2:
        return
    fewest = max(-(-len(texts) // 2), *(texts.count(text) for text in texts))
    asked = answers(*texts, reward=[math.sin(i) for i in range(len(texts))])
    shown = {letter for pair in choose_pairs(asked, rule, fewest, seed) for letter in pair}
    assert len(shown) == len(texts)


def test_a_pair_of_texts_asked_already_under_other_letters_comes_after_the_new_ones() -> None:
    pairs = choose_pairs(answers("x", "x", "y", "z"), "random", 9, 0)
    said = ["".join(sorted("xxyz"["ABCD".index(letter)] for letter in pair)) for pair in pairs]
    assert len(said) == 5
    assert len(set(said[:3])) == 3


def test_spread_compares_the_best_and_the_worst_first() -> None:
    asked = answers("a", "b", "c", "d", reward=[0.3, 1.0, 0.5, -1.0])
    assert unordered(choose_pairs(asked, "spread", 6))[:3] == ["BD", "AC", "CD"]


def test_uncertain_compares_first_what_the_reward_model_can_tell_apart_least() -> None:
    asked = answers("a", "b", "c", "d", heads=[[0.0, 0.0], [3.0, 3.1], [0.9, -0.9], [6.0, 6.0]])
    assert unordered(choose_pairs(asked, "uncertain", 6))[:3] == ["AC", "BD", "BC"]


def test_disagree_compares_first_what_components_order_in_opposite_ways() -> None:
    asked = answers("a", "b", "c", components=[{"x": 1.0, "y": 0.0}, {"x": 0.0, "y": 0.0}, {"x": 0.5, "y": 1.0}])
    assert unordered(choose_pairs(asked, "disagree", 3))[0] == "AC"


def test_what_a_rule_knows_nothing_about_is_compared_last() -> None:
    asked = answers("a", "b", "c", reward=[None, 0.5, 0.5])
    assert unordered(choose_pairs(asked, "spread", 3))[0] == "BC"


def test_neither_side_is_favoured_and_the_order_shown_stays() -> None:
    swapped = [
        left > right
        for number in range(200)
        for left, right in choose_pairs(group(number=number, rewards=[0.0, 1.0]), "newest", 1)
    ]
    assert swapped == []  # the two texts of the sample are equal
    asked = [answers("a", "b") for _ in range(200)]
    for number, one in enumerate(asked):
        one.number = number
    swapped = [left > right for one in asked for left, right in choose_pairs(one, "newest", 1)]
    assert 70 < sum(swapped) < 130
    assert [choose_pairs(one, "newest", 1) for one in asked] == [choose_pairs(one, "newest", 1) for one in asked]


# ------------------------------------------------------------------------------------------------- repeats


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5])
def test_repeats_come_at_the_share_asked_for(share: float) -> None:
    due = [repeat_due(asked, share, "ann") for asked in range(4000)]
    assert sum(due) / 4000 == pytest.approx(share, rel=0.15)


def test_every_stretch_of_twenty_questions_has_its_repeat_at_a_place_of_its_own() -> None:
    due = [asked for asked in range(2000) if repeat_due(asked, 0.05, "ann")]
    assert [asked // 20 for asked in due] == list(range(100))
    assert len({asked % 20 for asked in due}) > 10
    assert due != [asked for asked in range(2000) if repeat_due(asked, 0.05, "bob")]


def test_no_share_means_no_repeats() -> None:
    assert not any(repeat_due(asked, 0.0) for asked in range(1000))


def given_by(who: str, count: int, **more: object) -> list[Rating]:
    return [rating(step=i, id=f"{who}{i}", who=who, time=float(i), **more) for i in range(count)]


def test_only_a_persons_own_questions_come_again_and_not_the_last_ones() -> None:
    both = [r for pair in zip(given_by("ann", 30), given_by("bob", 30)) for r in pair]
    for seed in range(60):
        chosen = choose_repeat(both, "ann", seed, recent=20)
        assert chosen is not None
        assert (chosen.who, chosen.step < 10) == ("ann", True)
    assert choose_repeat(both, "ann", recent=30) is None
    assert choose_repeat(both, "cat", recent=0) is None


def test_every_question_comes_again_before_any_comes_a_third_time() -> None:
    ratings = given_by("ann", 8)
    seen = []
    for number in range(16):
        chosen = choose_repeat(ratings, "ann", "seed", recent=0)
        assert chosen is not None
        seen.append(chosen.id)
        ratings.append(rating(id=f"again{number}", repeats=chosen.id))
    assert sorted(seen[:8]) == sorted(seen[8:]) == [f"ann{i}" for i in range(8)]
    assert seen[:8] != seen[8:]


@pytest.mark.parametrize(
    "change",
    [{"retracted": 5.0}, {"repeats": "other"}, {"mode": "edit", "text": "x"}, {"mode": "critique"}],
)
def test_an_answer_that_does_not_stand_or_cannot_be_compared_is_not_asked_for_again(change: dict) -> None:
    assert choose_repeat([rating()], "ann", recent=0) is not None
    assert choose_repeat([rating(**change)], "ann", recent=0) is None


def test_of_a_changed_mind_the_newer_answer_is_asked_for_again() -> None:
    first, second = rating(id="1"), rating(id="2", supersedes="1")
    for seed in range(10):
        assert choose_repeat([first, second], "ann", seed, recent=0) is second
    second.retracted = 9.0
    assert choose_repeat([first, second], "ann", recent=0) is first


def test_the_last_questions_are_left_alone_however_the_newest_were_answered() -> None:
    ratings = given_by("ann", 5)
    ratings[4].retracted = 9.0
    assert {choose_repeat(ratings, "ann", seed, recent=3).id for seed in range(40)} == {"ann0", "ann1"}
    assert all(a.time < b.time for a, b in pairwise(ratings))
