"""The words of the filter over groups."""

import pytest

from screens.sample_filter import parse_filter
from sessions.errors import InvalidValue
from sessions.records import GroupHead


def head(step: int = 812, number: int = 3, **fields: object) -> GroupHead:
    given = {"mean": 0.5, "std": 0.53, "rewards": [1.0, 0.0], "kl": 0.03, "prompt": "A Train leaves"} | fields
    return GroupHead(branch="main", step=step, number=number, **given)  # type: ignore[arg-type]


DEAD = head(flags=["dead"], std=0.0, mean=1.0, rewards=[1.0, 1.0])
CUT = head(800, flags=["truncated", "high_kl"], mean=0.1, rewards=[0.0, 0.2])
RATED = head(820, flags=["rated"], ratings={"A": "4"}, prompt="#### 19")
ALL = {"dead": DEAD, "cut": CUT, "rated": RATED}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", "dead cut rated"),
        ("flag:dead", "dead"),
        ("dead", "dead"),
        ("flag:trunc", "cut"),
        ("flag:kl", "cut"),
        ("unrated", "dead cut"),
        ("-flag:dead", "cut rated"),
        ("std<.1", "dead"),
        ("std>=0.53", "cut rated"),
        ("mean=.1", "cut"),
        ("reward>0.8", "dead rated"),
        ("kl>1", ""),
        ("step:812", "dead"),
        ("step:810..", "dead rated"),
        ("step:..811", "cut"),
        ("step:800..812", "dead cut"),
        ('text:"####"', "rated"),
        ("text:train", "dead cut"),
        ('"a train"', "dead cut"),
        ("step:810.. flag:rated", "rated"),
        ('text:"####', "rated"),
    ],
)
def test_filters(words: str, found: str) -> None:
    test = parse_filter(words)
    assert [name for name, group in ALL.items() if test(group)] == found.split()


@pytest.mark.parametrize("words", ["flag:purple", "step:late", "step:1...2"])
def test_what_cannot_be_read_is_named(words: str) -> None:
    with pytest.raises(InvalidValue, match=words.split(":")[0]):
        parse_filter(words)


def test_a_group_without_numbers_is_never_smaller() -> None:
    assert not parse_filter("std<1")(head(std=None))
