"""Preferences: what is read from files, how what is wrong is named, how they are split and counted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions.errors import InputFileError
from sessions.orderings import (
    LINE_LIMIT,
    Census,
    Ordering,
    better_worse,
    held_out,
    read_kept,
    read_orderings,
    write_kept,
)

ASKED = [{"role": "user", "content": "1+1="}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def read(folder: Path, *rows: dict[str, Any]) -> list[Ordering]:
    path = folder / "f.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_orderings(path))


@pytest.mark.parametrize(
    ("row", "prompt", "tiers"),
    [
        ({"prompt": "1+1=", "chosen": "2", "rejected": "", "who": "a"}, "1+1=", [["2"], [""]]),
        ({"prompt": ASKED, "chosen": said("2"), "rejected": said("3")}, ASKED, [[said("2")], [said("3")]]),
        ({"chosen": "is it so? yes", "rejected": "is it so? no"}, "is it so?", [[" yes"], [" no"]]),
        ({"chosen": "the sky is blue", "rejected": "the sky is black"}, "the sky is", [[" blue"], [" black"]]),
        ({"chosen": "12=3", "rejected": "12=4"}, "12=", [["3"], ["4"]]),
        (
            {"chosen": "\n\nHuman: hi\n\nAssistant: I do", "rejected": "\n\nHuman: hi\n\nAssistant: I am"},
            "\n\nHuman: hi\n\nAssistant:",
            [[" I do"], [" I am"]],
        ),
        ({"chosen": [*ASKED, *said("2")], "rejected": [*ASKED, *said("3")]}, ASKED, [[said("2")], [said("3")]]),
        (
            {"chosen": [*ASKED, *said("2"), *ASKED, *said("4")], "rejected": [*ASKED, *said("2")]},
            ASKED,
            [[[*said("2"), *ASKED, *said("4")]], [said("2")]],
        ),
        (
            {"prompt": "1+1=", "chosen": [*ASKED, *said("2")], "rejected": [*ASKED, *said("3")]},
            ASKED,
            [[said("2")], [said("3")]],
        ),
        ({"prompt": "1+1=", "chosen": said("2"), "rejected": said("3")}, ASKED, [[said("2")], [said("3")]]),
        (
            {"prompt": "p", "completions": ["a", "b", "c", "d"], "ranks": [2, 1, 2, 3]},
            "p",
            [["b"], ["a", "c"], ["d"]],
        ),
        (
            {"prompt": ASKED, "completions": [said("a"), said("b")], "ranks": [9, 0.5]},
            ASKED,
            [[said("b")], [said("a")]],
        ),
        ({"prompt": "p", "completions": ["a", "b"], "ranks": [1, 1]}, "p", [["a", "b"]]),
    ],
)
def test_every_form_is_read(tmp_path: Path, row: dict[str, Any], prompt: object, tiers: object) -> None:
    [found] = read(tmp_path, row)
    assert found == Ordering(prompt=prompt, tiers=tiers, source="f.jsonl:1")


def test_lines_are_counted_margins_kept_and_blank_lines_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b", "margin": m} for m in (1.5, None, 0)]
    path.write_text("\n" + "\n\n".join(json.dumps(row) for row in rows))
    found = list(read_orderings(path))
    assert [(o.source, o.margin) for o in found] == [("f.jsonl:2", 1.5), ("f.jsonl:4", 0.0), ("f.jsonl:6", 0.0)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ('{"prompt": "\udcff"}', "not a JSON object"),
        ('{"prompt": "p", "chosen": "a"}', "there is no 'rejected'; give {"),
        ('{"prompt": "p"}', "there is no 'chosen'"),
        ('{"prompt": " ", "chosen": "a", "rejected": "b"}', "its prompt is empty; remove the line, or fill it"),
        ('{"prompt": 3, "chosen": "a", "rejected": "b"}', "its prompt is neither text nor a list of messages"),
        ('{"prompt": "p", "chosen": {}, "rejected": "b"}', "its chosen is neither text nor a list of messages"),
        ('{"prompt": "p", "chosen": [], "rejected": "b"}', "its chosen is neither text nor a list of messages"),
        ('{"prompt": "p", "chosen": "a", "rejected": [{"role": "human", "content": "b"}]}', "one of the roles system"),
        (json.dumps({"prompt": "p", "chosen": "a", "rejected": said("b")}), "of chosen and rejected, one is text"),
        (json.dumps({"prompt": ASKED, "chosen": "a", "rejected": "b"}), "some are text and some conversations"),
        ('{"chosen": "same", "rejected": "same"}', "chosen and rejected are the same"),
        ('{"chosen": "a", "rejected": "b"}', "do not begin alike; add the prompt"),
        (json.dumps({"chosen": said("a"), "rejected": said("b")}), "do not begin alike; add the prompt"),
        ('{"prompt": "p", "chosen": "a", "rejected": "b", "margin": "much"}', "its margin is not a number from 0 to"),
        ('{"prompt": "p", "chosen": "a", "rejected": "b", "margin": -1}', "its margin is not a number from 0 to"),
        ('{"prompt": "p", "chosen": "a", "rejected": "b", "margin": true}', "its margin is not a number from 0 to"),
        ('{"prompt": "p", "chosen": "a", "rejected": "b", "margin": 1e999}', "line 3: "),
        ('{"completions": ["a", "b"], "ranks": [1, 2]}', "there is no 'prompt'; give {"),
        ('{"prompt": "p", "completions": ["a"], "ranks": [1]}', "its completions are not a list of 2 to 64"),
        (json.dumps({"prompt": "p", "completions": ["a"] * 65, "ranks": [1] * 65}), "not a list of 2 to 64"),
        ('{"prompt": "p", "completions": ["a", 2], "ranks": [1, 2]}', "its completion 2 is neither text nor"),
        ('{"prompt": "p", "completions": ["a", "b"]}', "its ranks are not a list of numbers"),
        ('{"prompt": "p", "completions": ["a", "b"], "ranks": [1, "2"]}', "its ranks are not a list of numbers"),
        ('{"prompt": "p", "completions": ["a", "b"], "ranks": [1, true]}', "its ranks are not a list of numbers"),
        ('{"prompt": "p", "completions": ["a", "b"], "ranks": [1, 2, 3]}', "3 ranks for 2 completions"),
        ('{"prompt": "p", "completions": ["a", "b", "c"], "ranks": [1, 2, 3], "margin": 1}', "a margin in a ranking"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "f.jsonl"
    good = b'{"prompt": "1+1=", "chosen": "2", "rejected": "3"}\n\n'
    path.write_bytes(good + line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(InputFileError) as raised:
        list(read_orderings(path))
    text = str(raised.value)
    assert text.startswith(f"preferences {path}, line 3: ")
    assert message in text
    assert "\n" not in text


def test_a_file_that_holds_nothing_or_is_none_or_never_ends_its_line(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(InputFileError, match="the file is empty; give"):
        list(read_orderings(tmp_path / "empty.jsonl"))
    with pytest.raises(InputFileError, match="cannot be read \\(No such file or directory\\)"):
        list(read_orderings(tmp_path / "missing.jsonl"))
    (tmp_path / "long.jsonl").write_bytes(b" " * (LINE_LIMIT + 1))
    with pytest.raises(InputFileError, match="line 1: longer than"):
        list(read_orderings(tmp_path / "long.jsonl"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "user"]), inner, max_size=2)
    ),
    max_leaves=6,
)
texts = st.text(max_size=4) | st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=3)}), max_size=3
)
columns = ("prompt", "chosen", "rejected", "completions", "ranks", "margin")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(columns), json_values | texts | st.lists(texts, max_size=3), max_size=6))
def test_any_object_is_an_ordering_or_one_line_that_says_why_not(tmp_path_factory, row: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text(json.dumps(row))
    message = ""
    try:
        [found] = read_orderings(path)
    except InputFileError as error:
        message = str(error)
    if message:
        assert message.startswith(f"preferences {path}, line 1: ")
        return
    assert sum(found.sizes) >= 2
    assert min(found.sizes) >= 1
    assert len({type(text) for text in (found.prompt, *found.responses)}) == 1
    Census().add(found)
    held_out(found.prompt)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_in_one_line(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    path.write_bytes(data)
    with pytest.raises(InputFileError):
        list(read_orderings(path))


# --------------------------------------------------------------------------------------- the split


def test_the_split_is_the_digest_of_the_prompt_for_ever() -> None:
    prompts = [f"{a}+{b}=" for a in range(50) for b in range(50)]
    expected = [p for p in prompts if int(hashlib.sha256(p.encode()).hexdigest()[:16], 16) % 5 == 0]
    assert [p for p in prompts if held_out(p)] == expected
    assert 0.18 < len(expected) / len(prompts) < 0.22


def test_the_split_is_the_same_however_a_prompt_is_written() -> None:
    for number in range(60):
        prompt = f"question {number}"
        as_message = [{"role": "user", "content": prompt}]
        assert held_out(prompt) == held_out(as_message) == held_out(f" {prompt}\n")
    talks = [[{"role": "system", "content": "be short"}, {"role": "user", "content": f"{n}"}] for n in range(60)]
    assert len({held_out(talk) for talk in talks}) == 2
    assert held_out("\ud800") in {True, False}


# -------------------------------------------------------------------------------------- counting


def test_pairs_of_an_ordering_are_those_of_different_tiers() -> None:
    assert better_worse([1, 1]) == [(0, 1)]
    assert better_worse([1, 2, 1]) == [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]
    assert better_worse([3]) == []


def test_duplicates_and_contradictions_are_counted_and_told() -> None:
    def pair(prompt: object, chosen: object, rejected: object) -> Ordering:
        return Ordering(prompt=prompt, tiers=[[chosen], [rejected]])

    census = Census()
    for ordering in (
        pair("p", "a", "b"),
        pair("q", "b", "a"),  # of another prompt: neither
        pair([{"role": "user", "content": "p"}], said("a"), said("b")),  # the first again
        pair("p", "b", "a"),  # its opposite
        Ordering(prompt="p", tiers=[["c"], ["a", "b"]]),  # news
        Ordering(prompt="p", tiers=[["c", "d"], ["a"]]),  # c over a again; d over a
        pair("r", "same", "same"),
    ):
        census.add(ordering)
    assert (census.pairs, census.rankings, census.ties, census.orderings) == (5, 2, 2, 7)
    assert (census.duplicates, census.contradictions) == (2, 2)
    assert census.held_out == 5 * held_out("p") + held_out("q") + held_out("r")
    assert census.describe() == (
        f"5 pairs, 2 rankings (2 with ties), {census.held_out} of them held out; 2 preferences stated more than once; "
        "2 preferences of which the opposite is stated too"
    )
    apart = Census()
    for ordering in (pair("p", "ab", "c"), pair("p", "a", "bc"), pair("pa", "b", "c"), pair("p", "c", "abc")):
        apart.add(ordering)
    assert (apart.duplicates, apart.contradictions) == (0, 0)
    assert Census().describe() == "0 pairs, 0 of them held out"


# ------------------------------------------------------------------------------------------------ kept


def test_kept_orderings_come_back_as_they_were(tmp_path: Path) -> None:
    kept = [
        Ordering(prompt="p", tiers=[["a"], ["b", "c"]], source="x:1"),
        Ordering(prompt=[{"role": "user", "content": "p"}], tiers=[["a"], ["b"]], margin=1.5),
    ]
    write_kept(tmp_path / "o.jsonl", kept)
    assert list(read_kept(tmp_path / "o.jsonl")) == kept


@pytest.mark.parametrize(
    "line",
    [b"nonsense\n", b"[]\n", b'{"prompt": "p", "tiers": [["a"]]}\n', b'{"prompt": "p", "tiers": [["a"], []]}\n',
     b'{"prompt": "p", "tiers": [["a"], ["b"]], "margin": 1e9}\n', b"[" * 100_000 + b"\n", b'{"prompt": "\xff"}\n'],
)  # fmt: skip
def test_a_bad_line_of_kept_orderings_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "o.jsonl"
    path.write_bytes(b'{"prompt": "p", "tiers": [["a"], ["b"]]}\n' + line)
    with pytest.raises(InputFileError, match="line 2: not an ordering"):
        list(read_kept(path))


def test_kept_orderings_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be read"):
        list(read_kept(tmp_path / "o.jsonl"))
