"""Names of people and of the scripts that work for them."""

from __future__ import annotations

import getpass

import pytest

from sessions.errors import InvalidValue
from sessions.people import check_person, client_title, clients_words, whoami


@pytest.mark.parametrize("name", ["a", "ann", "Jürgen", "李", "tuner-2", "dr. no", "x_y", "7", "a" * 32])
def test_names(name: str) -> None:
    assert check_person(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " ann", "ann ", "-set", "--set", ".x", "_x", "a" * 33, "a\nb", "a\tb", "\x1b[31mann", "ann\x07", "a,b", "a/b",
     "(x)", "ann\u202e", "ann\u200b", "a\xa0b", "\ud800"],
)  # fmt: skip
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InvalidValue, match="is not a name: at most 32 letters, digits") as caught:
        check_person(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("ann", "ann"),
        ("LAB\\ann", "LAB-ann"),
        ("-x-", "x-"),
        ("a" * 40, "a" * 32),
        ("\x1b[m", "m"),
        ("///", "somebody"),
    ],
)
def test_a_user_is_a_name_as_far_as_can_be(monkeypatch: pytest.MonkeyPatch, user: str, name: str) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: user)
    assert whoami() == name
    check_person(whoami())


def test_a_process_without_a_user_is_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("no entry for this uid")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert whoami() == "somebody"


def test_titles() -> None:
    assert client_title("screen", "ann", "pts/3", read_only=False) == "ann (pts/3)"
    assert client_title("screen", "ann", "", read_only=True) == "ann read-only"
    assert client_title("send", "tuner", "", read_only=False) == "tuner send"
    assert client_title("status", "", "pts/3", read_only=True) == "status (pts/3) read-only"


def test_ones_own_title_is_you_and_comes_first() -> None:
    titles = ["tuner send", "ann (pts/1)", "ann (pts/3) read-only", "ann"]
    assert clients_words(titles, "ann (pts/1)", "ann") == [
        "you (pts/1)", "tuner send", "ann (pts/3) read-only", "ann",
    ]  # fmt: skip
    assert clients_words(["ann", "ann"], "ann", "ann") == ["you", "ann"]
    assert clients_words(titles, "bob", "bob") == titles
    assert clients_words(["", "x"], "", "") == ["", "x"]
