"""Which responses an alarm names."""

from __future__ import annotations

import math

import pytest

from engine.blame import LONGEST_REASON, MOST, blamed, first_failure
from sessions.records import Group, Response, letters
from sessions.watch_words import parse_watch
from sessions.watches import DEFAULT_WATCHES

REWARDS = [0.1, 0.9, 0.5, 0.3]


def group(number: int, responses: list[Response]) -> Group:
    return Group(
        branch="main", step=7, number=number, prompt_id="p", prompt="?", answer="", temperature=1.0, responses=responses
    )


def groups() -> list[Group]:
    """7.1 with four rewards, and 7.2, which is dead."""
    varied = [
        Response(
            letter=letters(i), text="", length=2 + i, ended=i != 2, reward=r, components={"exact": 1 - r, "none": None},
            advantage=[-1.4, 0.2, 0.1, 1.1][i], kl=[0.1, 0.2, 0.4, 0.3][i], entropies=[r, r],
        )
        for i, r in enumerate(REWARDS)
    ]  # fmt: skip
    alike = [Response(letter=letters(i), text="", length=9, ended=True, reward=0.2) for i in range(2)]
    alike[1].failed = "exact: boom"
    return [group(1, varied), group(2, alike)]


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ("response/truncated_fraction > 0.3", ["7.1C"]),
        ("response/failed > 0", ["7.2B"]),
        ("groups/dead_fraction > 0.3", ["7.2"]),
        ("groups/all_wrong_fraction > 0.3", ["7.2"]),
        ("response/length > 8", ["7.2A", "7.2B", "7.1D"]),
        ("response/length < 8", ["7.1A", "7.1B", "7.1C"]),
        ("abs reward/length_correlation > 0.8", ["7.2A", "7.2B", "7.1D", "7.1A", "7.1B", "7.1C"]),
        ("reward/mean > 0.3", ["7.1B", "7.1C", "7.1D"]),
        ("reward/mean < 0.3", ["7.1A", "7.2A", "7.2B"]),
        ("reward/exact > 0.3", ["7.1A", "7.1D", "7.1C"]),
        ("reward/none > 0.3", []),
        ("advantage/abs_max over its bound", ["7.1A", "7.1D", "7.1B"]),
        ("kl/k3 jumps 5x", ["7.1C", "7.1D", "7.1B"]),
        ("kl/full > 1", ["7.1C", "7.1D", "7.1B"]),
        ("entropy falls 50%", ["7.1A", "7.1D", "7.1C"]),
        ("reward/mean rises while eval/accuracy falls over 20", ["7.1B", "7.1C", "7.1D"]),
        ("reward/mean falls while eval/accuracy falls over 20", ["7.1A", "7.2A", "7.2B"]),
        ("kl/old_new > 1", []),
        ("loop/lag > 0.5", []),
    ],
)
def test_who_is_named(rule: str, names: list[str]) -> None:
    assert blamed(parse_watch(rule, check=False)[0].condition, groups()) == names


@pytest.mark.parametrize("field", ["reward", "advantage", "kl", "logprobs", "entropies", "values", "returns"])
def test_what_is_not_finite_is_named(field: str) -> None:
    found = groups()
    value = [-1.0, math.inf] if field.endswith("s") else math.nan
    setattr(found[0].responses[3], field, value)
    condition = parse_watch("anything is not finite")[0].condition
    assert blamed(condition, found) == ["7.1D"]
    assert blamed(condition, groups()) == []


def test_with_a_value_model_the_largest_advantage_is_a_tokens() -> None:
    found = groups()
    found[0].responses[2].advantages = [0.1, -9.0, 8.8]
    found[0].responses[0].advantages = [0.1]
    condition = parse_watch("advantage/abs_max > 5")[0].condition
    assert blamed(condition, found) == ["7.1C", "7.1D", "7.1B"]


def test_an_alarm_names_only_so_many() -> None:
    cut = [Response(letter=letters(i), text="", length=2, ended=False) for i in range(30)]
    assert len(blamed(parse_watch("response/truncated_fraction > 0")[0].condition, [group(1, cut)])) == MOST


def test_what_rises_while_a_check_falls_names_the_rewarded_that_the_check_likes_least() -> None:
    found = groups()
    for response, check in zip(found[0].responses, [0.9, 0.4, 0.1, 0.7]):
        response.components["check"] = check
        response.reward = 1.0 if response.letter in "BC" else 0.0
    condition = parse_watch("reward/automatic rises while reward/check falls over 20", check=False)[0].condition
    assert blamed(condition, found) == ["7.1C", "7.1B", "7.1D"]


@pytest.mark.parametrize("rule", ["reward/repetition_correlation > 0.8", "response/repetition > 0.5"])
def test_the_most_repetitive_are_named_and_where_it_is_a_matter_of_both_the_least(rule: str) -> None:
    found = groups()
    for response, share in zip(found[0].responses, [0.4, 0.0, 0.9, 0.2]):
        response.repetition = share
    most, least = ["7.1C", "7.1A", "7.1D"], ["7.1B"]
    assert blamed(parse_watch(rule)[0].condition, found) == most + (least if "correlation" in rule else [])


def test_names_that_only_the_caller_knows_come_before_those_that_groups_show() -> None:
    known = {"ratings/reward_agreement": ["3.1B", *map(str, range(20))]}
    condition = parse_watch("reward/automatic rises while ratings/reward_agreement falls over 20")[0].condition
    assert blamed(condition, groups(), known) == known["ratings/reward_agreement"][:MOST]
    assert blamed(condition, groups(), {"ratings/reward_agreement": []}) == ["7.1B", "7.1C", "7.1D"]
    assert blamed(parse_watch("kl/full > 1")[0].condition, groups(), known) == ["7.1C", "7.1D", "7.1B"]


def test_an_alarm_about_failed_rewards_says_why_in_a_line() -> None:
    watches = {watch.name: watch for watch in DEFAULT_WATCHES}
    for name in ("reward failed", "reward failures"):
        assert first_failure(watches[name], groups()) == "exact: boom"
    assert first_failure(watches["loop lag"], groups()) == ""
    assert first_failure(watches["reward failed"], groups()[:1]) == ""
    many = groups()
    many[1].responses[1].failed = "exact: raised\nValueError: " + "x" * 5000
    said = first_failure(watches["reward failed"], many)
    assert said.startswith("exact: raised ValueError: xxx")
    assert len(said) == LONGEST_REASON
