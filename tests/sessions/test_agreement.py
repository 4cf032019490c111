"""How far people agree with themselves, with each other and with the rewards."""

from __future__ import annotations

import random
from itertools import combinations, permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.agreement import (
    agreement_with,
    ordered_pairs,
    per_hour,
    raters,
    raters_alpha,
    repeated,
    self_agreement,
)
from sessions.modes import PAIR, RANK
from sessions.records import Rating
from tests.sessions.samples import rating


def twice(mode: str, *answers: tuple[dict, dict]) -> list[Rating]:
    """Ratings of questions that were asked twice."""
    found = []
    for step, (first, second) in enumerate(answers, 1):
        found.append(rating(step, id=f"{step}", mode=mode, values=first))
        found.append(rating(step, id=f"{step}again", mode=mode, values=second, repeats=f"{step}"))
    return found


def value(ratings: list[Rating]) -> float:
    found = self_agreement(ratings)
    assert found is not None
    return found.value


def test_nobody_asked_twice_has_no_self_agreement() -> None:
    assert self_agreement([rating(), rating(step=4)]) is None


@pytest.mark.parametrize(
    ("mode", "answer"),
    [("likert", {"A": 3.0}), ("thumbs", {"B": -1.0}), ("pair", {"A": 0.0, "B": 2.0}), ("rank", {"A": 2.0, "B": 1.0})],
)
def test_the_same_answers_agree_fully(mode: str, answer: dict) -> None:
    found = self_agreement(twice(mode, (answer, answer), (answer, answer)))
    assert found is not None
    assert (found.value, found.count) == (1.0, 2)


def every_answer(mode: str) -> list[dict[str, float]]:
    """The answers that a blind rater would give equally often."""
    if mode == "likert":
        return [{"A": v} for v in (1.0, 2.0, 3.0, 4.0, 5.0)]
    if mode == "thumbs":
        return [{"A": -1.0}, {"A": 1.0}]
    if mode == "pair":
        return [PAIR.answer(code, "A", "B") for code in (1, -1, 0, 9)]
    return [RANK.answer([[letter] for letter in order]) for order in permutations("ABCD")]


@pytest.mark.parametrize("mode", ["likert", "thumbs", "pair", "rank"])
def test_blind_answers_come_to_zero_in_every_mode(mode: str) -> None:
    assert value(twice(mode, *product(every_answer(mode), repeat=2))) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("mode", "first", "second", "expected"),
    [
        ("likert", {"A": 4}, {"A": 5}, 1 - 0.25 / 0.4),
        ("likert", {"A": 1}, {"A": 5}, 1 - 1 / 0.4),
        ("thumbs", {"A": 1}, {"A": -1}, 1 - 1 / 0.5),
        ("pair", {"A": 1, "B": 0}, {"A": 2, "B": 0}, 1.0),  # the strength is not the winner
        ("pair", {"A": 1, "B": 0}, {"A": 0, "B": 1}, 1 - 1 / 0.4375),
        ("pair", {"A": 1, "B": 0}, {"A": 1, "B": 1}, 1 - 0.5 / 0.4375),
        ("pair", {"A": 1, "B": 1}, {"A": 0, "B": 0}, 1 - 0.5 / 0.4375),
        ("rank", {"A": 1, "B": 2, "C": 3}, {"A": 1, "B": 3, "C": 2}, 1 - (1 / 3) / 0.5),
        ("rank", {"A": 1, "B": 2, "C": 3}, {"A": 1, "B": 2, "C": 2}, 1 - (0.5 / 3) / 0.5),
        ("rank", {"A": 1, "B": 2, "C": 3}, {"A": 3, "B": 2, "C": 1}, -1.0),
    ],
)
def test_how_far_two_answers_are_apart(mode: str, first: dict, second: dict, expected: float) -> None:
    assert value(twice(mode, (first, second))) == pytest.approx(expected)
    assert value(twice(mode, (second, first))) == pytest.approx(expected)


@given(st.lists(st.permutations("ABCDE"), min_size=2, max_size=2))
def test_rankings_without_ties_agree_as_kendalls_tau(orders: list) -> None:
    first, second = orders
    concordant = sum(
        1 if (first.index(a) < first.index(b)) == (second.index(a) < second.index(b)) else -1
        for a, b in combinations("ABCDE", 2)
    )
    answers = tuple(RANK.answer([[letter] for letter in order]) for order in orders)
    assert value(twice("rank", answers)) == pytest.approx(concordant / 10)


def test_each_mode_weighs_as_much_as_chance_would_part_its_answers() -> None:
    likert, thumbs = twice("likert", ({"A": 4}, {"A": 5})), twice("thumbs", ({"A": 1}, {"A": 1}), ({"A": 1}, {"A": 1}))
    for said in thumbs:
        said.id, said.repeats = f"thumbs {said.id}", said.repeats and f"thumbs {said.repeats}"
    assert value([*likert, *thumbs]) == pytest.approx(1 - 0.25 / (0.4 + 0.5 + 0.5))


@pytest.mark.parametrize(
    ("which", "change"),
    [(0, {"retracted": 9.0}), (1, {"retracted": 9.0}), (1, {"who": "bob"}), (1, {"mode": "thumbs"}),
     (1, {"values": {"C": 3.0}}), (1, {"repeats": "gone"})],
)  # fmt: skip
def test_a_repeat_that_does_not_stand_or_is_not_of_the_same_question_is_left_out(which: int, change: dict) -> None:
    ratings = twice("likert", ({"A": 3.0}, {"A": 3.0}))
    assert len(repeated(ratings)) == 1
    for name, new in change.items():
        setattr(ratings[which], name, new)
    assert repeated(ratings) == []


def test_a_first_answer_that_was_corrected_is_no_answer_to_compare_with() -> None:
    ratings = [*twice("likert", ({"A": 1.0}, {"A": 5.0})), rating(1, id="new", supersedes="1", values={"A": 5.0})]
    assert self_agreement(ratings) is None


# ------------------------------------------------------------------------------------------ with the rewards


def test_levels_given_one_by_one_are_compared_within_a_group_and_a_person() -> None:
    said = [
        rating(values={"A": 5.0}), rating(values={"B": 2.0}), rating(values={"C": 2.0}),
        rating(values={"D": 1.0}, who="bob"), rating(4, values={"A": 1.0}),
    ]  # fmt: skip
    assert sorted(ordered_pairs(said)) == [(("main", 3, 1), "A", "B"), (("main", 3, 1), "A", "C")]


def test_an_order_counts_once_however_often_a_person_and_a_mode_say_it_and_once_for_each_who_does() -> None:
    said = [
        rating(mode="pair", values={"A": 1, "B": 0}), rating(mode="pair", values={"A": 2, "B": 0}),
        rating(mode="pair", values={"A": 1, "B": 0}, who="bob"), rating(mode="rank", values={"A": 1, "B": 2}),
    ]  # fmt: skip
    assert ordered_pairs(said) == [(("main", 3, 1), "A", "B")] * 3


def test_repeats_and_what_was_taken_back_order_nothing() -> None:
    pair = {"A": 1.0, "B": 0.0}
    assert ordered_pairs([rating(mode="pair", values=pair, repeats="x")]) == []
    assert ordered_pairs([rating(mode="pair", values=pair, retracted=1.0)]) == []
    first = rating(id="1", mode="pair", values=pair)
    assert ordered_pairs([first, rating(mode="pair", values={"A": 1, "B": 1}, supersedes="1")]) == []


@given(
    st.lists(st.tuples(st.sampled_from(["ann", "bob"]), st.integers(1, 3), st.sampled_from("ABCD"), st.integers(1, 5)),
             max_size=20, unique_by=lambda t: t[:3]),
    st.dictionaries(st.tuples(st.integers(1, 3), st.sampled_from("ABCD")),
                    st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0]))),
)  # fmt: skip
def test_agreement_is_the_share_of_ordered_pairs_that_the_rewards_order_alike(said: list, rewards: dict) -> None:
    scores = []
    for (who, step, a, v), (who2, step2, b, w) in combinations(said, 2):
        if (who, step) == (who2, step2) and v != w:
            x, y = rewards.get((step, a)), rewards.get((step, b))
            if x is not None and y is not None:
                scores.append(0.5 if x == y else float((x > y) == (v > w)))
    of: dict = {}
    for (step, letter), reward in rewards.items():
        of.setdefault(("main", step, 1), {})[letter] = reward
    found = agreement_with([rating(s, who=who, values={x: float(v)}) for who, s, x, v in said], of)
    if not scores:
        assert found is None
    else:
        assert found is not None
        assert (found.value, found.count) == (pytest.approx(sum(scores) / len(scores)), len(scores))


# --------------------------------------------------------------------------------------------------- the pace


def at(*times: float, who: str = "ann", **more: object) -> list[Rating]:
    return [rating(time=time, who=who, **more) for time in times]


def test_the_pace_leaves_breaks_out_and_counts_each_person_alone() -> None:
    work = [20.0 * i for i in range(10)]
    assert per_hour(at(*work)) == pytest.approx(180)
    assert per_hour(at(*work, 5000, 5010)) == pytest.approx(3600 * 10 / 190)
    assert per_hour([*at(*work), *at(5, 35, who="bob")]) == pytest.approx(3600 * 10 / 210)
    assert per_hour(at(*reversed(work))) == pytest.approx(180)  # in whatever order they come
    assert per_hour([*at(*work), *at(10, 30, 50, retracted=60.0)]) == pytest.approx(180)


def test_no_pace_is_told_of_a_burst_or_of_a_few_answers() -> None:
    assert per_hour([]) is None
    assert per_hour(at(7, 7)) is None
    assert per_hour(at(*range(100))) is None  # a hundred, in 99 seconds
    assert per_hour(at(*range(121))) == pytest.approx(3600)
    assert per_hour(at(*[100.0 * i for i in range(9)])) is None  # nine, in 800 seconds
    assert per_hour(at(*[100.0 * i for i in range(10)])) == pytest.approx(36)
    assert per_hour(at(*[400.0 * i for i in range(50)])) is None  # never at work


# ------------------------------------------------------------------------------------------ between people


def table(mode: str, rows: dict[str, str]) -> list[Rating]:
    """Ratings from a textbook's table: person -> one character a unit, a star where the person said nothing."""
    return [
        rating(step, who=who, mode=mode, values={"A": float(answer)})
        for who, row in rows.items()
        for step, answer in enumerate(row.split(), 1)
        if answer != "*"
    ]


KRIPPENDORFF = {  # Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), part C
    "A": "1 2 3 3 2 1 4 1 2 * * *",
    "B": "1 2 3 3 2 2 4 1 2 5 * 3",
    "C": "* 3 3 3 2 3 4 2 2 5 1 *",
    "D": "1 2 3 3 2 4 4 1 2 5 1 *",
}
BINARY = {  # the same, part A: two observers, no missing data, 0.095
    "Meg": "-1 1 -1 -1 -1 -1 -1 -1 1 -1",
    "Owen": "1 1 1 -1 -1 1 -1 -1 -1 -1",
}


def test_alpha_of_the_textbooks_ordinal_table() -> None:
    found = raters_alpha(table("likert", KRIPPENDORFF))
    assert found is not None
    assert (found.value, found.count) == (pytest.approx(0.815, abs=5e-4), 40)


def test_alpha_of_the_textbooks_binary_table() -> None:
    found = raters_alpha(table("thumbs", BINARY))
    assert found is not None
    assert found.value == pytest.approx(0.095, abs=5e-4)


def nominal_alpha(units: list[list[str]]) -> float:
    """From the definition: observed over expected disagreement, pair by pair of values."""
    units = [unit for unit in units if len(unit) > 1]
    n = sum(map(len, units))
    observed = sum(sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units) / n
    everything = [value for unit in units for value in unit]
    expected = sum(a != b for a, b in permutations(everything, 2)) / (n * (n - 1))
    return 1 - observed / expected


def test_pairs_and_rankings_of_the_same_two_responses_are_compared() -> None:
    drawn = random.Random(3)
    said, units = [], []
    for step in range(1, 30):
        codes = [drawn.choice([1, -1, 2, 0, 9]) for _ in range(3)]
        for who, code in zip("abc", codes):
            said.append(rating(step, who=who, mode="pair", values=PAIR.answer(code, "A", "B")))
        units.append([{1: "A", 2: "A", -1: "B", 0: "tie", 9: "bad"}[code] for code in codes])
        if step % 3 == 0:  # a fourth ranks
            order = drawn.choice([{"A": 1, "B": 2}, {"A": 2, "B": 1}, {"A": 1, "B": 1}])
            said.append(rating(step, who="d", mode="rank", values=order))
            units[-1].append("tie" if len(set(order.values())) == 1 else min(order, key=order.__getitem__))
    found = raters_alpha(said)
    assert found is not None
    assert found.value == pytest.approx(nominal_alpha(units))
    assert found.count == sum(map(len, units))


def test_a_ranking_says_something_of_every_two_of_its_responses() -> None:
    orders = [
        ({"A": 1, "B": 2, "C": 3}, {"A": 2, "B": 1, "C": 3}),
        ({"A": 3, "B": 1, "C": 2}, {"A": 1, "B": 3, "C": 2}),
    ]
    said = [
        rating(step, who=who, mode="rank", values=values)
        for step, both in enumerate(orders, 1)
        for who, values in zip("ab", both)
    ]
    units = [
        ["first" if values[x] < values[y] else "second" for values in both]
        for both in orders
        for x, y in (("A", "B"), ("A", "C"), ("B", "C"))
    ]
    found = raters_alpha(said)
    assert found is not None
    assert (found.value, found.count) == (pytest.approx(nominal_alpha(units)), 12)


def test_scales_are_weighted_with_the_answers_they_rest_on() -> None:
    ordinal, binary = table("likert", KRIPPENDORFF), table("thumbs", BINARY)
    one, other, both = raters_alpha(ordinal), raters_alpha(binary), raters_alpha(ordinal + binary)
    assert one is not None
    assert other is not None
    assert both is not None
    assert (both.count, both.value) == (60, pytest.approx((one.value * 40 + other.value * 20) / 60))


@pytest.mark.parametrize(
    "said",
    [
        [],
        [rating(values={"A": 5.0}), rating(4, values={"A": 1.0})],
        [rating(values={"A": 5.0}), rating(values={"B": 1.0}, who="bob")],
        [rating(values={"A": 5.0}), rating(values={"A": 5.0}, who="bob")],
        [rating(values={"A": 5.0}), rating(values={"A": 1.0}, who="bob", retracted=3.0)],
        [rating(values={"A": 5.0}), rating(values={"A": 1.0}, mode="thumbs", who="bob")],
    ],
    ids=["nothing", "one person", "nothing in common", "one answer only", "taken back", "another scale"],
)
def test_there_is_no_alpha_where_nothing_can_be_compared(said: list) -> None:
    assert raters_alpha(said) is None


def test_raters_are_those_whose_ratings_stand() -> None:
    said = [rating(who="bob"), rating(who="ann"), rating(who="cat", retracted=1.0), rating(who="ann")]
    assert raters(said) == ["ann", "bob"]
