"""Files of rows: walked through once, read again one at a time."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tasks import rows as rows_module
from engine.tasks import telling
from engine.tasks.folders import open_split, split_of, splits
from engine.tasks.rows import ManyRows, Rows, open_rows
from sessions.errors import InputFileError

VALUES = st.one_of(st.text(max_size=12), st.integers(-(2**40), 2**40), st.booleans(), st.none())
CELLS = st.text(st.characters(exclude_characters="\0\r", exclude_categories=("Cs",)), max_size=9)
TABLES = st.lists(st.fixed_dictionaries({"a": VALUES, "b\n": VALUES}), min_size=1, max_size=8)


def read_all(found: Rows) -> list[dict[str, Any]]:
    """Every row by walking, after seeing that reading them again in the opposite order gives the same."""
    walked = [(number, dict(row)) for _, number, row in found.scan()]
    assert len(found) == len(walked)
    for i in reversed(range(len(walked))):
        assert (found.number(i), dict(found[i])) == walked[i]
    return [row for _, row in walked]


@settings(max_examples=30, deadline=None)
@given(TABLES, st.sampled_from(["\n", "\r\n", "\n\n  \n"]), st.booleans(), st.booleans())
def test_json_lines(
    tmp_path_factory: pytest.TempPathFactory, table: list[Any], end: str, last: bool, mark: bool
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    text = end.join(json.dumps(row, ensure_ascii=False) for row in table) + end * last
    path.write_bytes(b"\xef\xbb\xbf" * mark + text.encode())
    assert read_all(open_rows(path)) == table


@settings(max_examples=30, deadline=None)
@given(TABLES, st.sampled_from([None, 2]), st.booleans(), st.integers(1, 40))
def test_json_arrays(
    tmp_path_factory: pytest.TempPathFactory, table: list[Any], indent: int | None, mark: bool, chunk: int
) -> None:
    """However small the pieces are in which the file is read."""
    path = tmp_path_factory.mktemp("rows") / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" * mark + json.dumps(table, indent=indent, ensure_ascii=False).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "CHUNK", max(chunk, 4))
        assert read_all(open_rows(path)) == table


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1))
def test_csv(tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *table])
    path.write_bytes(text.getvalue().encode())
    assert read_all(open_rows(path)) == [{"a": a, "b": b} for a, b in table]


@pytest.mark.parametrize("group", [1, 3, 100])
def test_parquet(tmp_path: Path, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = [{"a": f"q{i}", "b": [{"role": "user", "content": str(i)}], "c": None if i % 2 else i} for i in range(10)]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "a.parquet", row_group_size=group)
    monkeypatch.setattr("engine.tasks.parquet.BATCH", 4)
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    assert read_all(open_rows(tmp_path / "a.parquet")) == table
    assert list((tmp_path / "rows").iterdir()) == [], "what was kept has no name any more"


def test_parquet_with_categories(tmp_path: Path) -> None:
    column = pa.array(["x", "y", "x"]).dictionary_encode()
    pq.write_table(pa.table({"a": column}), tmp_path / "a.parquet", row_group_size=1)
    assert read_all(open_rows(tmp_path / "a.parquet")) == [{"a": "x"}, {"a": "y"}, {"a": "x"}]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b'{"a": 1}\n\n{"a": \n', "line 3: not a JSON object"),
        ("a.jsonl", b'{"a": 1}\n"text"\n', "line 2: not a JSON object"),
        ("a.jsonl", b'{"a": "\xff"}\n', r"line 1: is not UTF-8 \(byte 8\)"),
        ("a.jsonl", b"[" * 100_000, "line 1: not a JSON object"),
        ("a.json", b'[{"a": 1}, {"a" 2}]', "row 2: not JSON"),
        ("a.json", b'[{"a": "\\ud83d\\ude00"}, {"b": [{"a": "\\ud83d"}]}]', r"row 2: \\ud83d is half of a character"),
        ("a.json", b'[{"a": 1}, 3]', "row 2: not a JSON object"),
        ("a.json", b'[{"a": 1} {"a": 2}]', "row 2: a comma or ] is expected"),
        ("a.json", b'[{"a": 1}', "row 2: a comma or ] is expected"),
        ("a.json", b'[{"a": 1}] x', "something follows"),
        ("a.json", b'[{"a": "\xff"}]', "is not UTF-8"),
        ("a.json", b'["' + b"[" * 100_000, "row 1: not JSON"),
        ("a.csv", b"a,b\n1,2\n3\n", "line 3: 1 values for the 2 columns"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2: 3 values for the 2 columns"),
        ("a.csv", b"a,a\n1,2\n", "the name 'a' of a column is empty or there twice"),
        ("a.csv", b"a,\n1,2\n", "the name '' of a column"),
        ("a.csv", b'a,b\n"1,2\n', "line 2: unexpected end of data"),
        ("a.csv", b"a\n\xff\n", r"line 2: is not UTF-8 \(byte 1\)"),
        ("a.parquet", b"PAR1 or not", "cannot be read as Parquet"),
        ("a.parquet", b"", "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputFileError, match=words) as refused:
        list(open_rows(path).scan())
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "before"), [("a.jsonl", b'{"a": "'), ("a.json", b'[{"a": "'), ("a.csv", b'a\n"')])
def test_a_row_longer_than_allowed(tmp_path: Path, name: str, before: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "ROW_BYTES", 1000)
    monkeypatch.setattr(rows_module, "CHUNK", 100)
    (tmp_path / name).write_bytes(before + b"x" * 5000)
    with pytest.raises(InputFileError, match=r"longer than 0 MiB|field larger than field limit"):
        list(open_rows(tmp_path / name).scan())


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "a.jsonl", tmp_path):
        with pytest.raises(InputFileError, match="cannot be read"):
            list(open_rows(path).scan())


def test_a_file_that_changes_while_it_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    found = open_rows(path)
    assert len(list(found.scan())) == 2
    path.write_text("{")
    with pytest.raises(InputFileError, match="has changed while it was in use"):
        found[1]


def test_a_file_that_is_replaced_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    found = open_rows(path)
    assert len(list(found.scan())) == 2
    path.unlink()
    path.write_text("other")
    assert found[1] == {"a": 2}


def test_the_fingerprint_is_of_what_is_in_the_file(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl")]
    for path, text in zip(paths, ('{"a": 1}', '{"a": 1}', '{"a": 2}'), strict=True):
        path.write_text(text)
    a, b, c = (open_rows(path).fingerprint() for path in paths)
    assert a == b
    assert a != c
    assert ManyRows([open_rows(paths[0])]).fingerprint() != ManyRows([open_rows(paths[2])]).fingerprint()


def test_a_large_file_is_not_held(tmp_path: Path) -> None:
    """8 MB of rows leave eight bytes and a number each behind, and walking takes one row at a time."""
    path = tmp_path / "a.jsonl"
    row = json.dumps({"a": "x" * 2000}) + "\n"
    path.write_text(row * 4000)
    found = open_rows(path)
    tracemalloc.start()
    try:
        assert sum(1 for _ in found.scan()) == 4000
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now < 4000 * 40
    assert peak < 1_000_000
    assert found[3999] == {"a": "x" * 2000}


def test_what_takes_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n" * 8192)
    lines: list[str] = []
    before = telling.TELL.set(lines.append)
    monkeypatch.setattr(telling, "SECONDS", -1.0)
    try:
        list(open_rows(tmp_path / "a.jsonl").scan())
    finally:
        telling.TELL.reset(before)
    assert lines == ["a.jsonl: 4,096 rows read, 50%", "a.jsonl: 8,192 rows read, 100%"]


# ------------------------------------------------------------------------------------------------ folders


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train", "train"),
        ("train-00000-of-00002", "train"),
        ("data/train-00000-of-00001", "train"),
        ("test/part1", "test"),
        ("my_validation", "validation"),
        ("dev", "validation"),
        ("squad.eval", "test"),
        ("constrained", ""),
        ("rows", ""),
        ("test/training-1", "train"),
    ],
)
def test_splits_in_names(path: str, split: str) -> None:
    assert split_of(path.split("/")) == split


def lay(folder: Path, **files: int) -> None:
    """Files of that many rows; ``__`` in a name is a slash and ``_`` at its end a suffix of its own."""
    for name, count in files.items():
        path = folder / (name.replace("__", "/").replace("0", "-0") + ".jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"from": path.stem, "i": i}) + "\n" for i in range(count)))


def test_the_files_of_a_split_follow_each_other(tmp_path: Path) -> None:
    lay(tmp_path, data__train01=2, data__train02=3, data__test01=1)
    (tmp_path / "dataset_infos.json").write_text("{}")
    (tmp_path / "README.md").write_text("")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "train.jsonl").write_text("{}")
    rows = read_all(open_split(tmp_path, "train"))
    assert [(row["from"], row["i"]) for row in rows] == [
        ("train-01", 0), ("train-01", 1), ("train-02", 0), ("train-02", 1), ("train-02", 2),
    ]  # fmt: skip
    assert len(read_all(open_split(tmp_path, "test"))) == 1
    assert len(read_all(open_split(tmp_path, "eval"))) == 1, "another word for test"
    with pytest.raises(InputFileError, match="no split 'validation' in it; there are: test, train"):
        open_split(tmp_path, "validation")


def test_without_names_of_splits_all_of_it_is_train(tmp_path: Path) -> None:
    lay(tmp_path, a=1, b=2)
    assert len(read_all(open_split(tmp_path, "train"))) == 3
    with pytest.raises(InputFileError, match="there are: train"):
        open_split(tmp_path, "test")


def test_beside_names_of_splits_other_files_are_of_none(tmp_path: Path) -> None:
    lay(tmp_path, train=1, notes=5)
    assert [row["from"] for row in read_all(open_split(tmp_path, "train"))] == ["train"]


def test_configurations_are_folders(tmp_path: Path) -> None:
    lay(tmp_path, main__train=1, other__train=2)
    assert len(read_all(open_split(tmp_path, "train", "other"))) == 2
    for config in ("none", "..", "../other"):
        with pytest.raises(InputFileError, match=r"no folder .*; there are: main, other"):
            open_split(tmp_path, "train", config)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no files of rows"):
        open_split(tmp_path, "train")
    lay(tmp_path, train=1)
    (tmp_path / "train.csv").write_text("a\n1\n")
    with pytest.raises(InputFileError, match=r"several kinds \(.csv, .jsonl\)"):
        open_split(tmp_path, "train")
    assert [path.name for path in splits(tmp_path)["train"]] == ["train.csv", "train.jsonl"]
