"""``workbench import`` on a session without an engine, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessions.folders import SessionFolder, new_session
from sessions.records import ResponseName, SessionSettings
from sessions.store import Store
from tests.sessions.samples import group, rating
from workbench.cli import main

PAIRS = [{"prompt": "p", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(3)]


@pytest.fixture
def recorded() -> SessionFolder:
    folder = new_session("s", SessionSettings(name="s"))
    store = Store(folder.database)
    store.add_groups([group(1, 1)])
    store.close()
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS) + "{}\n")
    return path


def kept(folder: SessionFolder) -> int:
    store = Store(folder.database, read_only=True)
    count = len(store.orderings())
    store.close()
    return count


def test_preferences_are_taken_once_and_the_rest_is_told(recorded, pairs: Path, capsys) -> None:
    assert main(["import", "s", str(pairs), "--dry-run"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "workbench: preferences for a reward model: 3 new",
        "workbench: not usable: 1 (line 4: neither a preference nor a rating; give TRL's prompt/chosen/rejected or "
        "prompt/completion/label, or lines of an exported ratings.jsonl)",
        "workbench: nothing was imported: --dry-run",
    ]
    assert kept(recorded) == 0
    assert main(["import", "s", str(pairs), "--as", "ann"]) == 0
    assert kept(recorded) == 3
    capsys.readouterr()
    assert main(["import", "s", str(pairs), "--json"]) == 0
    said = capsys.readouterr()
    [line] = said.out.splitlines()
    assert json.loads(line) == {
        "session": "s", "file": str(pairs), "lines": 4, "dry_run": False, "ratings": {"new": 0, "known": 0},
        "preferences": {"new": 0, "known": 3}, "unusable": 1, "why": json.loads(line)["why"],
    }  # fmt: skip
    assert "3 known before" in said.err


def test_the_engine_s_lock_is_taken_meanwhile_and_let_go(recorded, pairs: Path, monkeypatch, capsys) -> None:
    held = []
    real = Store.add_orderings
    monkeypatch.setattr(Store, "add_orderings", lambda *a, **k: (held.append(recorded.running()), real(*a, **k))[1])
    assert main(["import", "s", str(pairs)]) == 0
    assert held == [True]
    assert not recorded.running()
    capsys.readouterr()


def test_ratings_go_from_one_session_to_its_copy(recorded, tmp_path: Path, capsys) -> None:
    store = Store(recorded.database)
    store.add_rating(rating(1, 1, {"A": 5.0}, id="r1"))
    store.close()
    assert main(["export", "s", "--to", "jsonl", str(tmp_path / "out")]) == 0
    copy = new_session("copy", SessionSettings(name="copy"))
    store = Store(copy.database)
    store.add_groups([group(1, 1)])
    store.close()
    capsys.readouterr()
    assert main(["import", "copy", str(tmp_path / "out" / "ratings.jsonl"), "--as", "bo"]) == 0
    assert capsys.readouterr().err == "workbench: ratings of this session's groups: 1 new\n"
    store = Store(copy.database, read_only=True)
    assert [(r.id, r.who, r.time) for r in store.ratings_of(ResponseName(1, 1), "main")] == [("r1", "ann", 100.0)]
    store.close()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nobody", "x.jsonl"], 2, "no session named 'nobody'"),
        (["s", "none.jsonl"], 2, "none.jsonl: cannot be read (No such file or directory)"),
        (["s", "empty.jsonl"], 2, "empty.jsonl: there is nothing in it to import"),
        (["s", "bad.jsonl"], 2, "bad.jsonl: nothing in it can be used: line 1: not a JSON object ("),
        (["fresh", "bad.jsonl"], 1, "session 'fresh' has no records yet"),
        (["s", "bad.jsonl", "--as", "a/b"], 2, "--as: 'a/b' is not a name"),
        (["s"], 2, "the following arguments are required: FILE"),
    ],
)
def test_a_wrong_request_is_one_line(recorded, tmp_path: Path, monkeypatch, capsys, words, code, message) -> None:
    new_session("fresh", SessionSettings(name="fresh"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "bad.jsonl").write_text("no\n")
    assert main(["import", *words]) == code
    said = capsys.readouterr()
    assert said.out == ""
    [line] = said.err.splitlines()
    assert message in line
    assert kept(recorded) == 0
