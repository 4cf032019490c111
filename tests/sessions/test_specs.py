"""Names with options: what is written reads back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.errors import InvalidValue, UnknownName, UsageError
from sessions.specs import Kind, Option, Spec, joined, names, parse_spec, short_name, shown

VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30)
KEYS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)


@given(st.from_regex(r"[a-z][a-z/:.-]{0,12}", fullmatch=True), st.dictionaries(KEYS, VALUES, max_size=4))
def test_what_is_written_reads_back_as_the_same(use: str, options: dict[str, str]) -> None:
    if Path(use).exists():
        return
    assert parse_spec(str(Spec(use, options)), "task") == Spec(use, options)


@given(st.lists(VALUES.filter(lambda text: "=" not in text and bool(text)), min_size=1, max_size=4))
def test_words_joined_are_words_again(words: list[str]) -> None:
    pairs = [f"k{i}={word}" for i, word in enumerate(words)]
    assert list(parse_spec(joined(["name", *pairs]), "task").options.values()) == words


def test_quotes_hold_blanks_together_and_a_backslash_is_itself() -> None:
    read = parse_spec(r"regex pattern='\d+ apples' name=n" + " system=\"say 'hi'\"", "reward")
    assert read == Spec("regex", {"pattern": r"\d+ apples", "name": "n", "system": "say 'hi'"})


def test_a_path_with_blanks_that_exists_is_that_path(tmp_path: Path) -> None:
    path = tmp_path / "my rows=1.jsonl"
    path.touch()
    assert parse_spec(str(path), "task") == Spec(str(path))
    assert parse_spec(str(Spec(str(path))), "task") == Spec(str(path))


def test_the_path_of_what_is_gone_reads_back_too() -> None:
    for path in ("/gone/a b.jsonl", "/gone/a\tb.jsonl", "/gone/it's.jsonl"):
        assert parse_spec(str(Spec(path)), "task") == Spec(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a name is expected"),
        ("  ", "a name is expected"),
        ("a\0b", "a name is expected"),
        ("task 'open", "no closing quotation"),
        ("task word", "'word' should read key=value"),
        ("task =1", "'=1' should read key=value"),
        ("task a=1 a=2", "a is given twice"),
    ],
)
def test_words_that_cannot_be_read(text: str, words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        parse_spec(text, "task")


KIND = Kind(
    "k",
    "",
    (
        Option("n", "whole", 3, "a number", low=1, high=9),
        Option("x", "number", 0.5, "", low=0),
        Option("on", "switch", False, ""),
        Option("way", "text", "up", "", choices=("up", "down")),
        Option("file", "path", None, "what to read"),
    ),
)


def test_values_have_their_types_and_defaults() -> None:
    assert KIND.read(Spec("k", {"file": "/a/../b", "n": "9", "on": "Yes"}), "task") == {
        "n": 9, "x": 0.5, "on": True, "way": "up", "file": "/b",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "task k: file is missing \\(what to read\\); add file="),
        ({"n": "0"}, "n '0' is out of bounds; allowed: whole numbers from 1 to 9"),
        ({"n": "1.5"}, "whole numbers"),
        ({"x": "nan"}, "numbers from 0"),
        ({"x": "inf"}, "x 'inf' is out of bounds; allowed: numbers from 0"),
        ({"x": "1e999"}, "numbers from 0"),
        ({"on": "maybe"}, "neither true nor false"),
        ({"way": "left"}, "not one of up, down"),
        ({"nn": "1"}, "did you mean n"),
    ],
)
def test_values_that_are_refused(options: dict[str, str], words: str) -> None:
    given = options if not options or "file" in options else {"file": "f", **options}
    with pytest.raises(UsageError, match=words):
        KIND.read(Spec("k", given), "task")


def test_a_path_of_links_that_go_round_is_a_path_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert Path(str(KIND.read(Spec("k", {"file": str(tmp_path / "a")}), "task")["file"])).parent == tmp_path


def test_the_canonical_form_keeps_what_was_given_in_the_order_of_the_definition() -> None:
    spec = KIND.canonical(Spec("k", {"file": "/f", "on": "ON", "n": "2"}), "task")
    assert list(spec.options.items()) == [("n", "2"), ("on", "true"), ("file", "/f")]


def test_options_for_others_are_kept_as_they_are() -> None:
    kind = Kind("k", "", KIND.options[:1], others="are for others")
    assert kind.read(Spec("k", {"z": "1", "n": "2"}), "task") == {"n": 2, "z": "1"}
    assert kind.canonical(Spec("k", {"z": "1", "n": "2"}), "task").options == {"n": "2", "z": "1"}
    with pytest.raises(UnknownName):
        Kind("k", "", KIND.options[:1]).read(Spec("k", {"z": "1"}), "task")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("arithmetic", "arithmetic"),
        ("/data/train.jsonl held_out=3", "train"),
        ("my/task.py:make n=3", "make"),
        ("openai/gsm8k config=main", "gsm8k"),
        ("'", "'"),
    ],
)
def test_short_names(text: str, name: str) -> None:
    assert short_name(text) == name


def test_lists_and_switches_as_they_are_written() -> None:
    assert names("a, b,,c ") == ("a", "b", "c")
    assert (shown(True), shown(False), shown(1.5), shown("a")) == ("true", "false", "1.5", "a")
