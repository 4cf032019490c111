"""Ratios, tables and results of the benchmarks, and processes of their own."""

from __future__ import annotations

import json
import math
import statistics
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import measure
from benchmarks.measure import Ratio, RunFailed, alternate, facts, markdown, ratio, run_json, table, warm, write

SECONDS = st.floats(min_value=1e-3, max_value=1e3)


def test_a_ratio_is_how_many_times_ours_the_other_side_takes() -> None:
    assert ratio([1.0, 2.0, 4.0], [3.0, 2.0, 8.0]) == Ratio(2.0, 1.0, 3.0, 3)


def test_a_ratio_is_taken_inside_each_pair_and_not_of_the_medians() -> None:
    """A machine that slows down between pairs slows both sides of a pair."""
    ours, theirs = [1.0, 10.0, 100.0], [3.0, 30.0, 2.0]
    assert ratio(ours, theirs) == Ratio(3.0, 0.02, 3.0, 3)
    assert statistics.median(theirs) / statistics.median(ours) == 0.3


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=7))
def test_a_ratio_lies_in_its_spread_and_turns_over_with_its_sides(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = ratio(ours, theirs), ratio(theirs, ours)
    assert there.low <= there.median <= there.high
    assert there.low == pytest.approx(1 / back.high)
    assert there.high == pytest.approx(1 / back.low)
    if len(pairs) % 2:
        assert there.median == pytest.approx(1 / back.median)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0, -1.0], [1.0, 1.0])])
def test_what_makes_no_pairs_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError):
        ratio(ours, theirs)


def test_a_ratio_shows_its_spread_only_if_it_has_one() -> None:
    assert str(ratio([1.0, 1.0], [2.0, 3.0])) == "2.50 (2.00 to 3.00)"
    assert str(ratio([1.0], [2.0])) == "2.00"


@given(st.lists(SECONDS, min_size=1, max_size=9), st.integers(0, 12))
def test_the_first_steps_are_left_out_and_at_least_one_stays(values: list[float], dropped: int) -> None:
    kept = warm(values, dropped)
    assert kept
    assert values[len(values) - len(kept) :] == kept
    assert len(kept) == max(1, len(values) - dropped)


def test_no_steps_stay_none() -> None:
    assert warm([], 2) == []


def test_sides_run_in_turn() -> None:
    order: list[tuple[str, int]] = []

    def side(name: str, number: int) -> int:
        order.append((name, number))
        return 10 * number

    found = alternate(3, {name: lambda i, name=name: side(name, i) for name in "ab"})
    assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert found == {"a": [0, 10, 20], "b": [0, 10, 20]}


def test_a_measured_process_has_one_thread_and_the_repository() -> None:
    code = (
        "import json, os, benchmarks.measure\n"
        "print('said before')\n"
        "print(json.dumps([os.environ['OMP_NUM_THREADS'], os.environ['MORE'], benchmarks.measure.__name__]))"
    )
    assert run_json([sys.executable, "-c", code], {"MORE": "x"}) == ["1", "x", "benchmarks.measure"]


@pytest.mark.parametrize("code", ["import sys; print('{}'); sys.exit('broke here')", "print('no json')", "pass"])
def test_a_process_that_fails_or_says_nothing_is_an_error(code: str) -> None:
    with pytest.raises(RunFailed) as failed:
        run_json([sys.executable, "-c", code])
    if "broke" in code:
        assert "broke here" in str(failed.value)


ROWS: list[dict[str, object]] = [
    {"case": "short", "times": 2.34567, "steps": 60},
    {"case": "a longer one", "times": 12345.6, "note": "a|b"},
]


def test_a_table_aligns_numbers_to_the_right_and_leaves_missing_cells_empty() -> None:
    assert table(ROWS, ["case", "times", "steps", "note"]).splitlines() == [
        "case          times  steps  note",
        "------------  -----  -----  ----",
        "short          2.35     60",
        "a longer one  12346         a|b",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert table([], ["a", "bc"]).splitlines()[0].split() == ["a", "bc"]


def test_markdown_keeps_a_bar_inside_its_cell() -> None:
    lines = markdown(ROWS, ["case", "note"]).splitlines()
    assert lines == ["| case | note |", "| --- | --- |", "| short |  |", r"| a longer one | a\|b |"]


def test_results_are_kept_as_json_and_markdown(tmp_path: Path) -> None:
    write("some", {"a": [1.0, math.nan, (math.inf, {"b": "c"})]}, "# Some\n\n", tmp_path / "results")
    assert json.loads((tmp_path / "results" / "some.json").read_text()) == {"a": [1.0, None, [None, {"b": "c"}]]}
    assert (tmp_path / "results" / "some.md").read_text() == "# Some\n"


def test_facts_name_the_machine_and_the_checkout_and_no_place() -> None:
    known = facts()
    assert known["cores"] >= 1
    assert known["versions"]["torch"]
    assert json.loads(json.dumps(known)) == known
    assert str(measure.ROOT) not in json.dumps(known)


def test_the_median_of_an_even_number_of_pairs_is_between_the_two_in_the_middle() -> None:
    found = ratio([1.0] * 4, [1.0, 2.0, 4.0, 9.0])
    assert found.median == statistics.median([1.0, 2.0, 4.0, 9.0]) == 3.0
