"""Watches: the table, the line each is written as, and the book of a session's own."""

from __future__ import annotations

import math
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.errors import InvalidValue, UnknownName, UsageError
from sessions.hyperparameters import HYPERPARAMETERS
from sessions.metrics import METRICS
from sessions.watch_book import WatchBook, WatchState, find_watch, state_lines
from sessions.watch_words import parse_watch, watch_words
from sessions.watches import (
    DEFAULT_WATCHES,
    LONGEST,
    Apart,
    Bound,
    Fall,
    Jump,
    Limit,
    NonFinite,
    Watch,
    default_watches,
)

METRIC = st.sampled_from(sorted(METRICS)) | st.from_regex(r"reward/[a-z_]{1,8}", fullmatch=True)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
STEPS = st.integers(1, LONGEST)
WAY = st.sampled_from(["rises", "falls"])
SIGN = st.sampled_from([">", ">=", "<", "<=", "=="])


PIECES = ["kl/k3", ">", "1", "for", "jumps", "falls", "while", ":", "abs", "in", "or", "="]


def unless() -> st.SearchStrategy[dict]:
    knobs = [k for k in HYPERPARAMETERS.values() if k.kind in ("float", "int", "choice")]
    value = st.sampled_from(knobs).flatmap(
        lambda k: st.tuples(st.just(k.name), st.sampled_from(k.choices) if k.choices else st.just(k.default))
    )
    metric = METRIC.filter(lambda name: name not in HYPERPARAMETERS)
    return st.dictionaries(metric, FINITE | st.just("absent"), max_size=2) | value.map(lambda pair: {pair[0]: pair[1]})


CONDITIONS = st.one_of(
    st.builds(Limit, metric=METRIC, sign=SIGN, level=FINITE, steps=STEPS, absolute=st.booleans()),
    st.builds(
        Jump, metric=METRIC, factor=st.floats(1, 1e300, exclude_min=True), floor=st.just(0.0) | POSITIVE, after=STEPS
    ),
    st.builds(Fall, metric=METRIC, percent=st.floats(0, 100, exclude_min=True, exclude_max=True)),
    st.builds(NonFinite, metric=st.just("") | METRIC),
    st.just(Bound(metric="advantage/abs_max")),
    st.builds(
        Apart, metric=METRIC, way=WAY, other=METRIC, other_way=WAY, steps=STEPS, margin=st.just(0.0) | POSITIVE
    ),
)  # fmt: skip
WATCHES = st.builds(
    Watch,
    name=st.from_regex(r"[a-z][a-z/-]{0,9}( [a-z0-9]{1,9})?", fullmatch=True),
    condition=CONDITIONS,
    action=st.sampled_from(["notify", "pause", "checkpoint"]),
    severity=st.sampled_from(["warn", "error"]),
    unless=unless(),
    precision=st.sampled_from(["", "fp32", "bf16"]),
    own=st.just(True),
)


@given(WATCHES)
def test_every_watch_is_read_back_from_its_line(watch: Watch) -> None:
    line = watch_words(watch)
    assert "\n" not in line
    assert parse_watch(f"{watch.name}: {line}") == (watch, True)
    unnamed, named = parse_watch(line)
    assert not named
    assert msgspec.structs.replace(unnamed, name=watch.name) == watch
    assert parse_watch(f"{unnamed.name}: {line}")[0] == unnamed  # the name that was made up can be written too


@given(WATCHES)
def test_a_watch_comes_back_from_json(watch: Watch) -> None:
    assert msgspec.json.decode(msgspec.json.encode(watch), type=Watch) == watch


@pytest.mark.parametrize("watch", DEFAULT_WATCHES, ids=lambda w: f"{w.name} {w.precision}")
def test_every_default_can_be_written_and_read(watch: Watch) -> None:
    read, _ = parse_watch(f"{watch.name}: {watch_words(watch)}", check=False)
    assert read == msgspec.structs.replace(watch, own=True, remedy="", says="")
    assert watch.remedy


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_defaults_of_one_precision_have_names_of_their_own(precision) -> None:
    names = [w.name for w in default_watches(precision)]
    assert len(names) == len(set(names))
    assert set(names) == {w.name for w in DEFAULT_WATCHES}
    limits = {w.name: watch_words(w) for w in default_watches(precision) if w.precision}
    assert (
        limits
        == {
            "fp32": {
                "ratio error": "ratio/first_error > 0.001 in fp32",
                "sampler gap": "sampler_gap/max > 0.001 in fp32",
            },
            "bf16": {
                "ratio error": "ratio/first_error > 0.05 in bf16",
                "sampler gap": "sampler_gap/mean > 0.05 in bf16",
            },
        }[precision]
    )


@pytest.mark.parametrize(
    ("line", "condition"),
    [
        ("kl/k3 > 0.2 for 3", Limit(metric="kl/k3", sign=">", level=0.2, steps=3)),
        ("kl/k3>0.2", Limit(metric="kl/k3", sign=">", level=0.2)),
        ("kl/k1<=-1e-3 for 2", Limit(metric="kl/k1", sign="<=", level=-0.001, steps=2)),
        ("abs reward/length_correlation > 0.8", Limit(
            metric="reward/length_correlation", sign=">", level=0.8, absolute=True)),
        ("grad/norm == 0", Limit(metric="grad/norm", sign="==", level=0)),
        ("kl/k3 jumps 5x floor 0.02 after 20", Jump(metric="kl/k3", factor=5, floor=0.02, after=20)),
        ("kl/k3 jumps 5", Jump(metric="kl/k3", factor=5, floor=0, after=20)),
        ("entropy falls 50%", Fall(metric="entropy", percent=50)),
        ("entropy is not finite", NonFinite(metric="entropy")),
        ("anything is not finite", NonFinite()),
        ("advantage/abs_max over its bound", Bound(metric="advantage/abs_max")),
        ("reward/mean rises while eval/accuracy falls over 20", Apart(
            metric="reward/mean", way="rises", other="eval/accuracy", other_way="falls", steps=20)),
    ],
)  # fmt: skip
def test_rules_are_read(line: str, condition: object) -> None:
    assert parse_watch(line)[0].condition == condition


def test_what_follows_the_condition() -> None:
    watch, _ = parse_watch("my one: kl/k3 > 1 unless learning_rate=1e-6 or entropy=0 in bf16 error checkpoint")
    assert watch == Watch(
        name="my one", condition=Limit(metric="kl/k3", sign=">", level=1), own=True,
        unless={"learning_rate": 1e-6, "entropy": 0.0}, precision="bf16", severity="error", action="checkpoint",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("", UsageError, "watch needs a rule: watch kl/k3 > 0.2 for 3 pause"),
        ("a:", UsageError, "watch needs a rule"),
        ("kl/k4 > 1", UnknownName, "unknown metric 'kl/k4'; did you mean kl/k3?"),
        ("kl/k3 rises while rewrd/mean falls over 3", UnknownName, "did you mean reward/mean?"),
        ("kl/k3 > 1 unless entrpy=1", UnknownName, "did you mean entropy?"),
        ("kl/k3 > 1 unless learning_rte=high", UnknownName, "did you mean learning_rate?"),
        ("kl/k3 > 1 unless learning_rate=9", InvalidValue, "learning_rate: 9 is out of bounds"),
        ("kl/k3 > 1 unless learning_rate", UsageError, "after `unless` comes NAME=VALUE"),
        ("kl/k3", UsageError, "after the metric comes > >= < <= ==, jumps, falls, rises"),
        ("kl/k3 = 2", UsageError, "or over its bound, not '='"),
        ("kl/k3 >", UsageError, "the level is missing at its end"),
        ("kl/k3 > nan", UsageError, "the level should be a number, not 'nan'"),
        ("kl/k3 > inf", UsageError, "the level should be a number"),
        ("kl/k3 > 1 for 0", UsageError, "what follows `for` should be 1 to 200 steps, not '0'"),
        ("kl/k3 > 1 for 201", UsageError, "1 to 200 steps"),
        ("kl/k3 > 1 for two", UsageError, "1 to 200 steps"),
        ("kl/k3 > 1 pause now", UsageError, "'now' has no place there"),
        ("kl/k3 > 1 in fp8", UsageError, "'fp8' is neither fp32 nor bf16"),
        ("kl/k3 jumps 1x", UsageError, "the factor should be a number above 1, not '1x'"),
        ("kl/k3 jumps 5x floor -1", UsageError, "the floor should be a number above 0"),
        ("kl/k3 falls 100%", UsageError, "nothing falls by 100%"),
        ("kl/k3 falls 0%", UsageError, "the fall in percent should be a number above 0"),
        ("kl/k3 rises", UsageError, "`rises` goes with `while METRIC falls over STEPS`"),
        ("kl/k3 rises while entropy > 2", UsageError, "after entropy comes `rises over STEPS`"),
        ("abs kl/k3 jumps 5x", UsageError, "abs goes with > >= < <= and =="),
        ("kl/k3 over its bound", UsageError, "only advantage/abs_max has a bound"),
        (f"{'n' * 81}: kl/k3 > 1", InvalidValue, "at most 80 characters"),
        (": kl/k3 > 1", InvalidValue, "no name for a watch"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(line: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        parse_watch(line)
    assert "\n" not in str(caught.value)


def test_a_reward_component_is_checked_where_the_task_is_known() -> None:
    assert parse_watch("reward/exact > 1", ["exact"])[0].name == "reward/exact high"
    with pytest.raises(UnknownName, match="did you mean reward/exact"):
        parse_watch("reward/exct > 1", ["exact"])


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["kl/k3", ">", "1", "for", "jumps", "falls", "while", ":", "abs", "in", "or", "="]))
)
def test_any_line_is_read_or_refused(line: str | list[str]) -> None:
    try:
        watch, _ = parse_watch(line if isinstance(line, str) else " ".join(line))
    except UsageError:
        return
    assert parse_watch(f"{watch.name}: {watch_words(watch)}")[0] == watch


# ------------------------------------------------------------------------------------------------ the book


DEFAULTS = [
    Watch(name="kl", condition=Limit(metric="kl/k3", sign=">", level=1), remedy="calm down", says="much"),
    Watch(name="cut", condition=Limit(metric="response/length", sign=">", level=5, steps=2)),
    Watch(name="all cut", condition=Limit(metric="response/length", sign=">=", level=9)),
]


def own(line: str) -> tuple[Watch, bool]:
    return parse_watch(line)


def add(book: WatchBook, line: str) -> tuple[WatchBook, Watch, Watch | None]:
    watch, named = parse_watch(line)
    return book.added(watch, DEFAULTS, named=named)


def names(book: WatchBook) -> list[str]:
    return [w.name for w in book.active(DEFAULTS)]


def test_a_new_watch_comes_after_the_defaults() -> None:
    book, watch, replaced = add(WatchBook(), "entropy < 1")
    assert (watch.name, replaced) == ("entropy low", None)
    assert names(book) == ["kl", "cut", "all cut", "entropy low"]


def test_a_watch_of_the_same_metric_and_condition_takes_the_place_and_name_of_the_other() -> None:
    book, watch, replaced = add(WatchBook(), "kl/k3 > 2 pause")
    assert replaced == DEFAULTS[0]
    assert (watch.name, watch.remedy, watch.says, watch.action) == ("kl", "calm down", "much", "pause")
    book, watch, replaced = add(book, "kl/k3 > 3")
    assert watch_words(replaced) == "kl/k3 > 2 pause"
    assert watch_words(book.active(DEFAULTS)[0]) == "kl/k3 > 3"
    assert len(book.active(DEFAULTS)) == 3
    assert add(book, "kl/k3 < 3")[2] is None
    assert add(book, "abs kl/k3 > 3")[2] is None
    assert add(book, "response/length >= 3")[2] == DEFAULTS[2]


def test_a_name_of_its_own_keeps_both() -> None:
    book, _, replaced = add(WatchBook(), "stop: kl/k3 > 9 pause")
    assert replaced is None
    assert names(book) == ["kl", "cut", "all cut", "stop"]
    book, watch, replaced = add(book, "cut: kl/k3 > 5")
    assert replaced == DEFAULTS[1]
    assert watch.remedy == ""
    assert names(book) == ["kl", "cut", "all cut", "stop"]


def test_a_default_is_switched_off_and_on_and_an_own_one_is_gone() -> None:
    book = WatchBook().removed(DEFAULTS[1])
    assert names(book) == ["kl", "all cut"]
    assert names(book.removed(DEFAULTS[1])) == ["kl", "all cut"]
    assert [w.name for w in book.every(DEFAULTS)] == ["kl", "cut", "all cut"]
    assert names(book.restored(DEFAULTS[1])) == ["kl", "cut", "all cut"]
    book, watch, _ = add(book, "response/length > 7")
    assert names(book) == ["kl", "cut", "all cut"]
    book = book.removed(watch)
    assert book.active(DEFAULTS) == DEFAULTS
    book, watch, _ = add(book, "entropy < 1")
    assert names(book.removed(watch)) == ["kl", "cut", "all cut"]


def test_the_book_comes_back_from_json() -> None:
    book = add(WatchBook(off=["cut"]), "x y: reward/mean rises while eval/accuracy falls over 20 by 0.02 pause")[0]
    assert msgspec.json.decode(msgspec.json.encode(book), type=WatchBook) == book


def test_a_watch_is_found_by_its_name_or_by_a_metric_that_only_it_watches() -> None:
    assert find_watch("all cut", DEFAULTS) == DEFAULTS[2]
    assert find_watch("kl/k3", DEFAULTS) == DEFAULTS[0]
    with pytest.raises(UnknownName, match=r"known: all cut, cut$"):
        find_watch("response/length", DEFAULTS)
    with pytest.raises(UnknownName, match="did you mean all cut"):
        find_watch("al cut", DEFAULTS)


def test_the_list_for_people() -> None:
    states = [
        WatchState(name="kl", rule="kl/k3 > 1", on=True, state="holds", standing=True, fired=12),
        WatchState(name="mine", rule="entropy < 1 pause", on=True, state="cools down", own=True),
        WatchState(name="old", rule="entropy < 0", on=False, state="off", standing=True),
    ]
    assert state_lines(states) == [
        "watch  state              rule",
        "kl     holds, alarm @12   kl/k3 > 1",
        "mine   cools down, own    entropy < 1 pause",
        "old    off, alarm stands  entropy < 0",
    ]


def test_numbers_in_a_line_are_short() -> None:
    watch = Watch(name="x", condition=Limit(metric="kl/k3", sign="<", level=1e-05), unless={"group_size": 8})
    assert watch_words(watch) == "kl/k3 < 1e-5 unless group_size=8"
    assert math.isclose(parse_watch(watch_words(watch))[0].condition.level, 1e-5)
