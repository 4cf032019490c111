"""Plain files of responses: what they may look like, what makes a group, and that any bytes are one clear line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions import response_files
from sessions.errors import InputFileError
from sessions.records import Group
from sessions.response_files import ResponseFile, show_text


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def groups(path: Path, *rows: Any) -> list[Group]:
    file = ResponseFile(write(path, *rows))
    return [file.group(group) for group in file.groups]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def shown(group: Group) -> tuple[str, str, list[tuple[str, str, float | None]]]:
    return group.name, group.prompt, [(r.letter, r.text, r.reward) for r in group.responses]


@pytest.mark.parametrize("name", ["response", "completion", "text"])
def test_lines_with_the_same_prompt_make_a_group_in_their_order_wherever_they_stand(path: Path, name: str) -> None:
    made = groups(
        path,
        {"prompt": "p", name: "one", "reward": 0.5},
        {"prompt": "q", name: "other"},
        "",
        {"prompt": "p", name: "two", "score": 2, "columns": {"more": [1]}},
        {"prompt": "p", name: ""},
    )
    assert [shown(g) for g in made] == [
        ("0.1", "p", [("A", "one", 0.5), ("B", "two", 2.0), ("C", "", None)]),
        ("0.2", "q", [("A", "other", None)]),
    ]


@pytest.mark.parametrize("name", ["responses", "completions"])
def test_a_list_is_a_group_of_its_own(path: Path, name: str) -> None:
    made = groups(
        path,
        {"prompt": "p", name: ["a", "b"], "rewards": [1, None], "id": 7, "answer": "42"},
        {"prompt": "p", name: ["c"], "score": 3},
        {"prompt": "p", name: [assistant("d"), "e"]},
    )
    assert [shown(g) for g in made] == [
        ("0.1", "p", [("A", "a", 1.0), ("B", "b", None)]),
        ("0.2", "p", [("A", "c", 3.0)]),
        ("0.3", "p", [("A", "d", None), ("B", "e", None)]),
    ]
    assert (made[0].prompt_id, made[0].answer) == ("7", "42")


def test_a_group_has_as_many_responses_as_there_are_letters_and_then_another_begins(path: Path) -> None:
    made = groups(
        path,
        *({"prompt": "p", "response": str(i)} for i in range(60)),
        {"prompt": "q", "responses": [str(i) for i in range(53)]},
    )
    assert [len(g.responses) for g in made] == [26, 26, 8, 26, 26, 1]
    assert [r.text for g in made[:3] for r in g.responses] == [str(i) for i in range(60)]
    assert [r.text for g in made[3:] for r in g.responses] == [str(i) for i in range(53)]
    assert made[0].responses[-1].letter == "Z"
    assert len({g.name for g in made}) == 6


def test_preferences_are_groups_of_two_whose_letters_do_not_tell_which_was_chosen(path: Path) -> None:
    rows = [{"prompt": f"p{i % 3}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(60)]
    made = groups(path, *rows)
    assert len(made) == 60
    first = 0
    for group, row in zip(made, rows, strict=True):
        assert {r.text: r.reward for r in group.responses} == {row["chosen"]: 1.0, row["rejected"]: 0.0}
        first += group.responses[0].text == row["chosen"]
    assert 15 < first < 45
    swapped = write(path.with_name("s.jsonl"), {"prompt": "p0", "chosen": "bad 0", "rejected": "good 0"})
    [turned] = [ResponseFile(swapped).group(g) for g in ResponseFile(swapped).groups]
    assert [r.text for r in turned.responses] == [r.text for r in made[0].responses]


def test_conversations_are_shown_as_text_and_kept_as_they_are(path: Path) -> None:
    long = [{"role": "system", "content": "be kind"}, *user("hi")]
    file = ResponseFile(
        write(
            path,
            {"prompt": long, "response": assistant("hello")},
            {"prompt": user("hi"), "response": "plain"},
            {"chosen": [*user("q"), *assistant("a")], "rejected": [*user("q"), *assistant("b")]},
        )
    )
    first, second, third = (file.group(g) for g in file.groups)
    assert first.prompt == "[system]\nbe kind\n\n[user]\nhi"
    assert (first.responses[0].text, second.prompt, third.prompt) == ("hello", "hi", "q")
    assert file.texts(file.groups[0]).prompt == long
    assert file.texts(file.groups[0]).responses == {"A": assistant("hello")}
    assert show_text(assistant("x") + user("y")) == "[assistant]\nx\n\n[user]\ny"


def test_a_text_and_a_conversation_that_look_alike_are_two_prompts(path: Path) -> None:
    made = groups(path, {"prompt": "p", "response": "a"}, {"prompt": user("p"), "response": "a"})
    assert [g.name for g in made] == ["0.1", "0.2"]


def exported(letter: str, step: int = 4, group: int = 2, **more: Any) -> dict[str, Any]:
    row = {"name": f"{step}.{group}{letter}", "branch": "main", "step": step, "group": group, "letter": letter}
    return {**row, "prompt": "5+7=", "completion": f"{step}.{group}{letter}", "reward": 0.25, "answer": "12", **more}


def test_the_groups_of_an_export_keep_their_names(path: Path) -> None:
    made = groups(
        path,
        exported("B", 9),
        {"prompt": "5+7=", "response": "mine"},
        exported("B"),
        exported("A"),
        exported("A", 9, reward=1),
        exported("C", 3),
        exported("A", 5, branch="main~1"),
    )
    assert [(g.branch, *shown(g)) for g in made] == [
        ("main", "0.1", "5+7=", [("A", "mine", None)]),
        ("main", "0.2", "5+7=", [("A", "3.2C", 0.25)]),  # the group is not whole
        ("main", "4.2", "5+7=", [("A", "4.2A", 0.25), ("B", "4.2B", 0.25)]),
        ("main~1", "5.2", "5+7=", [("A", "5.2A", 0.25)]),
        ("main", "9.2", "5+7=", [("A", "9.2A", 1.0), ("B", "9.2B", 0.25)]),
    ]


def test_no_two_groups_have_one_name(path: Path) -> None:
    rows = [exported(chr(65 + i)) for i in range(26)]
    made = groups(path, *rows, *rows, exported("A", step=0), exported("A", step=-1), exported("A", branch="a/b"))
    assert len({(g.branch, g.step, g.number) for g in made}) == len(made) >= 3
    assert [g.name for g in made if g.step] == ["4.2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "line 2: not a JSON object"),
        ('["a"]', "line 2: not a JSON object"),
        ('{"prompt": "p"}', "line 2: there is none of 'response', 'completion', 'text', 'responses', 'completions'"),
        ('{"response": "a"}', "line 2: there is no 'prompt'"),
        ('{"prompt": " ", "response": "a"}', "line 2: its prompt is empty"),
        ('{"prompt": 1, "response": "a"}', "line 2: its prompt is neither text nor a list of messages"),
        ('{"prompt": "p", "response": [{"role": "x", "content": "a"}]}', "with one of the roles system, user"),
        ('{"prompt": "p", "responses": []}', "its responses are not a list of at least one"),
        ('{"prompt": "p", "responses": ["a", 3]}', "its response 2 is neither text"),
        ('{"prompt": "p", "responses": ["a"], "rewards": [1, 2]}', "2 rewards for 1 responses"),
        ('{"prompt": "p", "response": "a", "reward": "high"}', "its reward is not a number"),
        ('{"prompt": "p", "response": "a", "score": true}', "its score is not a number"),
        ('{"prompt": "p", "response": "a", "reward": [1, 2]}', "several rewards for one response"),
        ('{"prompt": "p", "response": "a", "reward": 1' + "0" * 400 + "}", "line 2: "),
        ('{"prompt": "p", "response": "a", "id": {}}', "its id is neither a number nor a text"),
        ('{"prompt": "p", "chosen": "a"}', "line 2: there is no 'rejected'"),
        ("[" * 100_000, "line 2: not a JSON object"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_number(path: Path, line: str, message: str) -> None:
    write(path, {"prompt": "p", "response": "a"}, line)
    with pytest.raises(InputFileError) as caught:
        ResponseFile(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_file_that_is_not_there_or_empty_or_a_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content, message in (("\n \n", "the file is empty; give"), (None, "cannot be read")):
        if content is not None:
            path.write_text(content)
        with pytest.raises(InputFileError, match=message):
            ResponseFile(path if content is not None else path.with_name("none"))
    with pytest.raises(InputFileError, match="cannot be read"):
        ResponseFile(path.parent)
    monkeypatch.setattr(response_files, "LINE_LIMIT", 50)
    with pytest.raises(InputFileError, match="line 1: longer than 50 bytes"):
        ResponseFile(write(path, {"prompt": "p", "response": "x" * 50}))


def test_a_file_that_changes_while_it_is_rated_is_told(path: Path) -> None:
    file = ResponseFile(write(path, {"prompt": "p", "response": "one"}, {"prompt": "q", "response": "two"}))
    write(path, {"prompt": "p", "response": "ONE"}, {"prompt": "q", "response": "two"})
    with pytest.raises(InputFileError, match="has changed while it is rated; leave and start again"):
        file.group(file.groups[0])
    assert file.group(file.groups[1]).responses[0].text == "two"
    path.write_text("{}")
    with pytest.raises(InputFileError, match="has changed"):
        file.group(file.groups[1])


def test_the_digest_is_of_the_groups(path: Path) -> None:
    rows = [{"prompt": "p", "response": "one"}, {"prompt": "q", "response": "two"}]
    before = ResponseFile(write(path, *rows))
    assert ResponseFile(write(path, *rows, "")).digest == before.digest
    after = ResponseFile(write(path, rows[1], rows[0]))
    assert after.digest != before.digest
    assert {g.digest for g in after.groups} == {g.digest for g in before.groups}


TEXTS = st.text(max_size=8) | st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]), "content": st.text(max_size=4)}),
    max_size=3,
)
VALUES = TEXTS | st.floats() | st.integers() | st.none() | st.booleans() | st.lists(TEXTS, max_size=3)
NAMES = ("prompt", "response", "completion", "text", "responses", "completions", "chosen", "rejected", "reward")
ROWS = st.dictionaries(st.sampled_from((*NAMES, "score", "rewards", "id", *exported("A"))), VALUES, max_size=6)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=40) | ROWS.map(lambda row: json.dumps(row).encode()), max_size=4))
def test_any_bytes_are_groups_or_one_line(tmp_path_factory: pytest.TempPathFactory, rows: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(b"\n".join(rows))
    try:
        file = ResponseFile(path)
    except InputFileError as error:
        wrong = str(error)
    else:
        wrong = ""
        for group in file.groups:
            assert len(file.group(group).responses) == len(group.rewards)
    assert "\n" not in wrong
