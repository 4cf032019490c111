"""Files of prompts and completions: what is read, and how what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessions.errors import InputFileError
from sessions.examples import Example, read_examples

SAID = [{"role": "user", "content": "1+1="}]
ANSWERED = [{"role": "assistant", "content": "2"}]


def test_texts_and_conversations_are_read_in_order_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    rows = [
        {"prompt": "37+48=", "completion": " 85 ", "source": "made up"},
        {"prompt": SAID, "completion": [{**ANSWERED[0], "name": "x"}]},
    ]
    path.write_text("\n" + "\n\n".join(json.dumps(row) for row in rows) + "\n")
    assert read_examples(path) == [Example(2, "37+48=", " 85 "), Example(4, SAID, ANSWERED)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ('{"prompt": "\udcff"}', "not a JSON object"),
        ('{"completion": "2"}', "there is no 'prompt'; give {"),
        ('{"prompt": "1+1=", "answer": "2"}', "there is no 'completion'"),
        ('{"prompt": "1+1=", "completion": 2}', "its completion is neither text nor a list of messages"),
        ('{"prompt": "1+1=", "completion": null}', "its completion is neither text nor a list of messages"),
        ('{"prompt": " ", "completion": "2"}', "its prompt is empty; remove the line, or fill it"),
        ('{"prompt": "1+1=", "completion": ""}', "its completion is empty"),
        ('{"prompt": [], "completion": "2"}', "its prompt is neither text nor a list of messages"),
        ('{"prompt": [{"role": "human", "content": "x"}], "completion": "2"}', "one of the roles system, user"),
        ('{"prompt": [{"role": "user", "content": 3}], "completion": "2"}', "its prompt is neither text nor"),
        (json.dumps({"prompt": "1+1=", "completion": ANSWERED}), "one is text and one a conversation"),
        (json.dumps({"prompt": SAID, "completion": SAID}), "its completion is not one message of the assistant"),
        (json.dumps({"prompt": SAID, "completion": [*ANSWERED, *ANSWERED]}), "belongs in the prompt"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'{"prompt": "1+1=", "completion": "2"}\n\n' + line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(InputFileError) as raised:
        read_examples(path)
    text = str(raised.value)
    assert text.startswith(f"warm-up {path}, line 3: ")
    assert message in text
    assert "\n" not in text


def test_a_file_that_holds_nothing_or_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(InputFileError, match="the file is empty; give"):
        read_examples(tmp_path / "empty.jsonl")
    with pytest.raises(InputFileError, match="cannot be read \\(No such file or directory\\)"):
        read_examples(tmp_path / "missing.jsonl")
    with pytest.raises(InputFileError, match="cannot be read \\(Is a directory\\)"):
        read_examples(tmp_path)
