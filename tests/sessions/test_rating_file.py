"""A plain file that is rated: answered as an engine answers, on disk before it is told, read back at the next start."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions import commands as c
from sessions import rating_log
from sessions.errors import InputFileError, SessionError, UsageError, WorkbenchError
from sessions.export_rated import export_rated
from sessions.folders import new_session
from sessions.importing import ImportFile, pages, receive
from sessions.rating_file import HEADS, RatingFile, ratings_path, read_rated
from sessions.records import Group, GroupHead, Rating, ResponseName, SessionSettings
from sessions.store import Store
from sessions.wire import GroupDetail, GroupPicked, GroupsChanged, RatingRetracted, RatingSaved, Skipped
from tests.sessions.samples import group

ROWS = [
    {"prompt": "2+2?", "responses": ["4", "5", "four"], "rewards": [1, 0, None], "id": "q1"},
    {"prompt": "capital of France?", "response": "Paris", "reward": 1},
    {"prompt": "capital of France?", "response": "Lyon", "reward": 0},
    {"prompt": [{"role": "user", "content": "hi"}], "chosen": [{"role": "assistant", "content": "hello"}],
     "rejected": [{"role": "assistant", "content": "go away"}]},
]  # fmt: skip


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "answers.jsonl", *ROWS)


@pytest.fixture
def file(path: Path) -> Iterator[RatingFile]:
    opened = RatingFile(path, "ann")
    yield opened
    opened.close()


def rate(values: dict[str, float], group: str = "0.1", mode: str = "likert", **more: Any) -> c.Rate:
    return c.Rate(group=group, mode=mode, values=values, **{"who": "ann", **more})


def do(file: RatingFile, command: c.Command) -> list[Any]:
    answer, events = file.command(command)
    assert answer.status == "applied", answer.text
    assert answer.id == command.id
    return events


def refused(file: RatingFile, command: c.Command) -> str:
    size = file.output.stat().st_size
    answer, events = file.command(command)
    assert (answer.status, events) == ("rejected", [])
    assert file.output.stat().st_size == size
    return answer.text


def query(file: RatingFile, command: c.Command, kind: Any) -> Any:
    answer, events = file.command(command)
    assert (answer.status, events) == ("data", [])
    return msgspec.json.decode(answer.data, type=kind)


def reopened(file: RatingFile, who: str = "ann") -> RatingFile:
    file.close()
    return RatingFile(file.path, who, file.output)


# ----------------------------------------------------------------------------------------- what it shows


def test_the_snapshot_has_the_groups_and_says_where_ratings_go(file: RatingFile) -> None:
    snapshot = file.snapshot()
    assert [(h.name, h.prompt, h.rewards, h.flags, h.ratings) for h in snapshot.heads] == [
        ("0.1", "2+2?", [1.0, 0.0, None], [], {}),
        ("0.2", "capital of France?", [1.0, 0.0], [], {}),
        ("0.3", "hi", snapshot.heads[2].rewards, [], {}),
    ]
    assert sorted(snapshot.heads[2].rewards) == [0.0, 1.0]
    assert (snapshot.status.session, snapshot.status.done, snapshot.status.total) == ("answers.jsonl", 0, 3)
    assert snapshot.status.note == f"ratings go to {file.output}"
    assert file.output.name == "answers.jsonl.ratings.jsonl"
    assert snapshot.values["rating_rule"] == "newest"


def test_queries_are_answered(file: RatingFile) -> None:
    do(file, rate({"A": 4.0}, "0.2", id="r1"))
    do(file, rate({"B": 1.0}, "0.2", id="r2"))
    detail = query(file, c.QueryGroup(group="0.2"), GroupDetail)
    assert isinstance(detail.group, Group)
    assert [(r.letter, r.text, r.reward) for r in detail.group.responses] == [("A", "Paris", 1.0), ("B", "Lyon", 0.0)]
    assert [r.id for r in detail.ratings] == ["r1", "r2"]
    assert detail.head.ratings == {"A": "4", "B": "1"}
    assert query(file, c.QueryResponse(response="0.1C"), dict)["text"] == "four"
    assert [h.name for h in query(file, c.QueryGroups(), list[GroupHead])] == ["0.1", "0.2", "0.3"]
    assert [h.name for h in query(file, c.QueryGroups(unrated=True, limit=1), list[GroupHead])] == ["0.1"]
    assert [r.id for r in query(file, c.QueryRatings(), list[Rating])] == ["r1", "r2"]
    assert [r.id for r in query(file, c.QueryRatings(before="r2"), list[Rating])] == ["r1"]
    assert [r.id for r in query(file, c.QueryRatings(limit=1), list[Rating])] == ["r2"]
    assert query(file, c.QueryStatus(), dict)["done"] == 1
    assert [e["event"] for e in query(file, c.QueryEvents(), list[dict[str, Any]])] == ["rating", "rating"]
    for command, text in (
        (c.QueryGroup(group="0.9"), "no group 0.9 in answers.jsonl"),
        (c.QueryGroup(group="other/0.1"), "no group 0.1"),
        (c.QueryResponse(response="0.1D"), "group 0.1 has no response 'D'"),
        (c.QueryGroup(group="x"), "'x' is not a response"),
    ):
        assert text in refused(file, command)


@pytest.mark.parametrize("command", [c.Pause(), c.Set(values={"learning_rate": 1}), c.QueryPlan(), c.Stop(), c.Step()])
def test_what_needs_training_is_refused_in_one_line(file: RatingFile, command: c.Command) -> None:
    assert refused(file, command).startswith("a file is rated here, without a session")


def test_a_long_file_is_shown_in_windows(tmp_path: Path) -> None:
    count = 2 * HEADS
    path = write(tmp_path / "long.jsonl", *({"prompt": f"p{i}", "response": "a"} for i in range(1, count + 1)))
    file = RatingFile(path, "ann")
    assert [h.number for h in file.snapshot().heads] == list(range(1, HEADS + 1))
    for number in range(1, 11):
        do(file, rate({"A": 3.0}, f"0.{number}"))
    heads = file.snapshot().heads
    assert [h.number for h in heads] == list(range(1, HEADS + 11))
    assert [bool(h.ratings) for h in heads] == [True] * 10 + [False] * HEADS
    assert file.waiting() == count - 10
    file.close()


# ------------------------------------------------------------------------------- as an engine answers


def test_a_rating_is_saved_with_what_it_is_about(file: RatingFile) -> None:
    saved, changed = do(file, rate({"A": 5.0}, order=["C", "A", "B"], blind=True, seconds=2.5, rule="spread", id="r1"))
    assert isinstance(saved, RatingSaved)
    assert isinstance(changed, GroupsChanged)
    assert changed.heads[0].ratings == {"A": "5"}
    line = json.loads(file.output.read_text().splitlines()[-1])
    assert line == {
        "kind": "rating", "id": "r1", "time": saved.rating.time, "who": "ann", "group": "0.1", "mode": "likert",
        "values": {"A": 5.0}, "order": ["C", "A", "B"], "blind": True, "seconds": 2.5, "rule": "spread",
        "prompt": "2+2?", "texts": {"A": "4"}, "ids": {"A": "q1"}, "of": line["of"],
    }  # fmt: skip


def test_answers_replace_as_in_a_session(file: RatingFile) -> None:
    """The same commands to the store, by the engine's rules, give the same standing ratings."""
    store = Store(new_session("s", SessionSettings(name="s")).database)
    made = group(1, 1, [1.0, 0.0, 0.0])
    store.add_groups([made])
    from sessions.giving import rating_of

    commands = [
        rate({"A": 5.0}), rate({"A": 1.0}), rate({"A": 2.0}, who="bo"), rate({"A": 1.0, "B": 0.0}, mode="pair"),
        rate({"B": 2.0, "A": 0.0}, mode="pair"), rate({"A": 1.0, "C": 0.0}, mode="pair"),
        rate({"A": 1.0, "B": 2.0}, mode="rank"), rate({"B": 1.0, "C": 2.0}, mode="rank"),
        rate({"A": -1.0}, mode="thumbs"),
        rate({"C": 1.0}, mode="edit", text="x"), rate({"C": 1.0}, mode="edit", text="y"),
        rate({"C": 1.0}, mode="critique", flags=["wrong"]),
    ]  # fmt: skip
    for command in commands:
        do(file, command)
        there = msgspec.structs.replace(command, group="1.1")
        name = ResponseName(1, 1)
        store.add_rating(rating_of(there, made, store.standing_ratings(name, "main"), 1.0))
    from sessions.judging import standing

    ours = [(r.id, r.supersedes) for r in standing(file.rated.given(("main", 0, 1)))]
    assert ours == [(r.id, r.supersedes) for r in store.standing_ratings(ResponseName(1, 1), "main")]
    assert len(ours) == 7
    store.close()


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (rate({"A": 9.0}), "likert: 9 is not an answer; allowed: 1, 2, 3, 4, 5"),
        (rate({"Z": 4.0}), "group 0.1 has no response Z"),
        (rate({}), "a rating names a group, such as 812.3, and at least one of its responses"),
        (rate({"A": 4.0}, "0.1A"), "a rating names a group"),
        (rate({"A": 4.0}, "3.1"), "no group 3.1 in answers.jsonl"),
        (rate({"A": 4.0}, mode="stars"), "unknown rating mode 'stars'"),
        (rate({"A": 4.0}, repeats="nothing"), "rating nothing is not one of ann's that answers the same question"),
        (rate({"A": 1.0}, mode="edit"), "edit: the better text is missing"),
        (rate({"A": 4.0}, comment="x" * 4001), "comment: 4,001 characters; at most 4,000 are taken"),
        (rate({"A": 4.0}, who="\n"), "is not a name"),
        (c.Retract(rating="x", who="ann"), "no rating with the id 'x'"),
        (c.Skip(response="0.1Z", who="ann"), "group 0.1 has no response Z"),
        (c.Picked(group="7.7", rule="random", who="ann"), "no group 7.7"),
    ],
)
def test_what_an_engine_refuses_is_refused_and_nothing_is_written(file: RatingFile, command, text: str) -> None:
    assert text in refused(file, command)


def test_a_rating_sent_again_is_one_rating(file: RatingFile) -> None:
    command = rate({"A": 4.0})
    assert len(do(file, command)) == 2
    assert do(file, command) == []
    assert len(file.rated.ratings) == 1


def test_a_silent_repeat_takes_the_place_of_nothing(file: RatingFile) -> None:
    do(file, rate({"A": 4.0}, id="r1"))
    saved, changed = do(file, rate({"A": 2.0}, id="r2", repeats="r1"))
    assert (saved.rating.repeats, saved.rating.supersedes) == ("r1", "")
    assert changed.heads[0].ratings == {"A": "4"}


def test_groups_without_rewards_or_with_equal_ones_are_not_dead(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "responses": ["a", "b"]}, {"prompt": "q", "responses": ["a", "b"], "rewards": [1, 1]}]
    file = RatingFile(write(tmp_path / "x.jsonl", *rows), "ann")
    assert [head.flags for head in file.snapshot().heads] == [[], []]
    file.close()


def test_retracting_skipping_and_picking(file: RatingFile) -> None:
    do(file, rate({"A": 4.0}, id="r1"))
    back, changed = do(file, c.Retract(rating="r1", who="bo"))
    assert isinstance(back, RatingRetracted)
    assert (back.who, back.of, changed.heads[0].ratings) == ("bo", "ann", {})
    assert "was taken back before" in refused(file, c.Retract(rating="r1", who="ann"))
    [skipped] = do(file, c.Skip(response="0.2B", reason="unclear", rule="random", who="ann", id="s1"))
    assert isinstance(skipped, Skipped)
    assert (skipped.skip.letter, skipped.skip.reason, skipped.skip.retracted) == ("B", "unclear", 0.0)
    [again] = do(file, c.Retract(rating="s1", who="ann"))
    assert again.skip.retracted > 0
    [picked] = do(file, c.Picked(group="0.3", rule="random", who="ann"))
    assert isinstance(picked, GroupPicked)
    numbers = [e.seq for e in (back, skipped, again, picked)]
    assert numbers == sorted(set(numbers))


def test_later_is_later_whatever_the_clock_does(path: Path) -> None:
    times = iter([100.0, 90.0, 80.0, 70.0, 60.0, 50.0])
    file = RatingFile(path, "ann", clock=lambda: next(times))
    for group_name in ("0.1", "0.2", "0.3"):
        do(file, rate({"A": 4.0}, group_name))
    given = [r.time for r in file.rated.ratings.values()]
    assert given == sorted(set(given))
    file.close()


# ----------------------------------------------------------------------------------------- on disk


def test_everything_is_there_at_the_next_start(file: RatingFile) -> None:
    do(file, rate({"A": 4.0}, id="r1"))
    do(file, rate({"A": 5.0}, id="r2", redoes="r0"))
    do(file, rate({"A": 1.0}, "0.2", id="r3", who="bo"))
    do(file, c.Retract(rating="r3", who="ann"))
    do(file, c.Skip(response="0.3", reason="no", who="ann", id="s1"))
    before = file.snapshot()
    again = reopened(file)
    after = again.snapshot()
    assert after.ratings == before.ratings
    assert [r.id for r in after.ratings if r.retracted] == ["r3"]
    assert after.heads == before.heads
    assert [type(e).__name__ for e in after.events] == [type(e).__name__ for e in before.events]
    assert again.told == []
    assert "was taken back before" in refused(again, c.Retract(rating="r3", who="ann"))
    do(again, c.Retract(rating="r2", who="ann"))  # undo goes on behind the start
    do(again, c.Retract(rating="r1", who="ann"))
    assert again.snapshot().heads[0].ratings == {}
    again.close()


def test_a_rating_is_on_disk_before_it_is_acknowledged(file: RatingFile, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    do(file, rate({"A": 4.0}))
    assert synced == [file.output.stat().st_size]


def test_a_full_disk_loses_nothing_and_leaves_no_half_line(file: RatingFile, monkeypatch: pytest.MonkeyPatch) -> None:
    do(file, rate({"A": 4.0}, id="r1"))
    whole = file.output.read_bytes()
    real = os.write
    room = [10]

    def full(fd: int, data: Any) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[: room.pop()])

    monkeypatch.setattr(os, "write", full)
    assert "cannot be written (No space left on device); nothing was kept" in refused(file, rate({"B": 4.0}))
    assert file.output.read_bytes() == whole
    assert file.snapshot().heads[0].ratings == {"A": "4"}
    monkeypatch.undo()
    do(file, rate({"B": 2.0}))
    again = reopened(file)
    assert again.snapshot().heads[0].ratings == {"A": "4", "B": "2"}
    again.close()


@pytest.mark.parametrize("cut", [1, 2, 40, 200])
def test_a_torn_last_line_is_cut_and_told(file: RatingFile, cut: int) -> None:
    do(file, rate({"A": 4.0}, id="r1"))
    whole = file.output.stat().st_size
    do(file, rate({"B": 4.0}, id="r2"))
    file.close()
    size = file.output.stat().st_size - cut
    os.truncate(file.output, size)
    again = RatingFile(file.path, "ann")
    assert [r.id for r in again.snapshot().ratings] == ["r1"]
    assert again.told == [f"a last line of {size - whole:,} bytes had no end (a crash, a power cut) and was cut off"]
    do(again, rate({"B": 2.0}, id="r3"))
    third = reopened(again)
    assert (third.told, [r.id for r in third.snapshot().ratings]) == ([], ["r1", "r3"])
    third.close()


def test_every_cut_of_the_file_is_read(path: Path) -> None:
    file = RatingFile(path, "ann")
    do(file, rate({"A": 4.0}, id="r1"))
    do(file, c.Retract(rating="r1", who="ann"))
    file.close()
    whole = file.output.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for size in range(0, len(whole), 7):
        file.output.write_bytes(whole[:size])
        opened = RatingFile(path, "ann")
        assert len(opened.rated.ratings) == (size >= ends[1])
        assert opened.told == [] or "was cut off" in opened.told[0]
        opened.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("my notes\n", "is not a file of ratings; give --output another name"),
        ("my notes", "is not a file of ratings"),
        ('{"kind":"opened","x"', None),
        ("\n", "is not a file of ratings"),
    ],
)
def test_a_file_that_is_something_else_is_left_alone(path: Path, tmp_path: Path, content: str, message: str) -> None:
    output = tmp_path / "notes.txt"
    output.write_text(content)
    if message is None:  # the beginning of a first line: a power cut
        RatingFile(path, "ann", output).close()
        return
    with pytest.raises(InputFileError, match=message):
        RatingFile(path, "ann", output)
    assert output.read_text() == content
    with pytest.raises(UsageError, match="that is the file to rate; give another"):
        RatingFile(path, "ann", path)
    assert json.loads(path.read_text().splitlines()[1])["response"] == "Paris"


def test_a_damaged_line_is_named_and_nothing_is_lost(file: RatingFile) -> None:
    do(file, rate({"A": 4.0}))
    file.close()
    before = file.output.read_bytes()
    for line in (
        b"{}\n",
        b'{"kind":"rating"}\n',
        b"\xff\n",
        b"\n",
        before.splitlines()[1].replace(b"likert", b"stars") + b"\n",
    ):
        damaged = before + line + before.splitlines(keepends=True)[1]
        file.output.write_bytes(damaged)
        with pytest.raises(InputFileError, match=r"answers.jsonl.ratings.jsonl, line 3: is no line of ratings"):
            RatingFile(file.path, "ann")
        assert file.output.read_bytes() == damaged


def test_one_rater_at_a_time(file: RatingFile) -> None:
    with pytest.raises(
        SessionError, match=r"ann \(since \d\d:\d\d\) rates into it; give --output another name, or wait"
    ):
        RatingFile(file.path, "bo")
    other = RatingFile(file.path, "bo", file.path.with_name("bo.jsonl"))
    do(other, rate({"A": 1.0}, who="bo"))
    assert file.snapshot().ratings == []
    other.close()
    file.close()
    RatingFile(file.path, "bo").close()


def test_the_lock_ends_with_its_process(path: Path) -> None:
    code = (
        "import sys, pathlib, sessions.rating_file as f; "
        "f.RatingFile(pathlib.Path(sys.argv[1]), 'bo'); print(1, flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    with pytest.raises(SessionError, match="bo"):
        RatingFile(path, "ann")
    process.kill()
    process.communicate()
    RatingFile(path, "ann").close()


def test_a_file_of_ratings_that_is_taken_away_is_told(file: RatingFile) -> None:
    moved = file.output.rename(file.output.with_name("moved"))
    answer, _ = file.command(rate({"A": 4.0}))
    assert (answer.status, "was removed or replaced while it was written" in answer.text) == ("rejected", True)
    file.output.write_bytes(moved.read_bytes())
    answer, _ = file.command(rate({"A": 4.0}))
    assert answer.status == "rejected"
    os.replace(moved, file.output)
    with file.output.open("ab") as other:
        other.write(b"{}\n")
    assert "another program has changed it" in refused(file, rate({"A": 4.0}))


def test_a_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("")
    ratings_path(path).symlink_to(secret)
    with pytest.raises(SessionError, match="is a link"):
        RatingFile(path, "ann")
    assert secret.read_text() == ""


# -------------------------------------------------------------------------------- the file has changed


def test_ratings_stay_with_their_group_where_the_file_has_changed(file: RatingFile) -> None:
    do(file, rate({"A": 4.0}, "0.1", id="r1"))
    do(file, rate({"B": 2.0}, "0.2", id="r2"))
    do(file, c.Skip(response="0.3A", who="ann", id="s1"))
    file.close()
    write(file.path, {"prompt": "new", "response": "x"}, ROWS[3], *ROWS[1:3])
    again = RatingFile(file.path, "ann")
    assert [(r.id, r.group) for r in again.snapshot().ratings] == [("r2", 3)]
    assert [(s.group, s.letter) for s in again.rated.skips.values()] == [(2, "A")]
    assert again.told == [
        "answers.jsonl has changed since it was rated: 3 groups then, 3 now",
        "1 rating or skip of groups that are not in it any more: kept, and not shown",
    ]
    write(file.path, *ROWS)
    third = reopened(again)
    assert [(r.id, r.group) for r in third.snapshot().ratings] == [("r1", 1), ("r2", 2)]
    third.close()


def test_equal_groups_keep_their_ratings_apart(tmp_path: Path) -> None:
    row = {"prompt": "p", "responses": ["a", "b"]}
    file = RatingFile(write(tmp_path / "x.jsonl", row, row), "ann")
    do(file, rate({"A": 4.0}, "0.2"))
    again = reopened(file)
    assert [head.ratings for head in again.snapshot().heads] == [{}, {"A": "4"}]
    again.close()


# ---------------------------------------------------------------------------------------- out and in


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def said_all(file: RatingFile) -> None:
    do(file, rate({"A": 5.0}))
    do(file, rate({"B": 1.0}))
    do(file, rate({"A": 2.0, "B": 0.0}, "0.2", mode="pair"))
    do(file, rate({"B": 1.0}, "0.3", mode="edit", text="good day"))
    do(file, rate({"A": 1.0}, "0.3", mode="critique", flags=["unsafe"]))
    do(file, rate({"C": 1.0}, id="gone"))
    do(file, c.Retract(rating="gone", who="ann"))
    do(file, c.Skip(response="0.1C", reason="what?", who="ann"))


def test_a_rated_file_is_exported_as_a_session_is(file: RatingFile, tmp_path: Path) -> None:
    said_all(file)
    done = export_rated(file.path, None, "preferences", tmp_path / "out")  # also while it is rated
    assert [(f.file, f.rows) for f in done.files] == [
        ("preferences.jsonl", 3),
        ("unpaired.jsonl", 2),
        ("demonstrations.jsonl", 1),
    ]
    worse = {r.letter: r.text for r in query(file, c.QueryGroup(group="0.3"), GroupDetail).group.responses}["B"]
    pairs = [(row["prompt"], row["chosen"], row["rejected"]) for row in lines(tmp_path / "out" / "preferences.jsonl")]
    chat = [{"role": "user", "content": "hi"}]
    assert pairs == [
        ("2+2?", "4", "5"),
        ("capital of France?", "Paris", "Lyon"),
        (chat, [{"role": "assistant", "content": "good day"}], [{"role": "assistant", "content": worse}]),
    ]
    [shown] = lines(tmp_path / "out" / "demonstrations.jsonl")
    assert (shown["prompt"], shown["completion"]) == (chat, [{"role": "assistant", "content": "good day"}])
    export_rated(file.path, file.output, "jsonl", tmp_path / "tables")
    rows = lines(tmp_path / "tables" / "ratings.jsonl")
    assert [(row["group"], row["mode"], row["standing"]) for row in rows] == [
        ("0.1", "likert", True), ("0.1", "likert", True), ("0.1", "likert", False), ("0.2", "pair", True),
        ("0.3", "edit", True), ("0.3", "critique", True),
    ]  # fmt: skip
    [skipped] = lines(tmp_path / "tables" / "skips.jsonl")
    assert (skipped["response"], skipped["reason"]) == ("0.1C", "what?")
    export_rated(file.path, None, "preferences", tmp_path / "chat", conversational=True)
    assert lines(tmp_path / "chat" / "preferences.jsonl")[0]["rejected"] == [{"role": "assistant", "content": "5"}]
    with pytest.raises(UsageError, match="model is for sessions"):
        export_rated(file.path, None, "model", tmp_path / "model")
    with pytest.raises(InputFileError, match="has no ratings yet"):
        read_rated(file.path, tmp_path / "none")


def brought(source: Path, database: Path) -> list[Any]:
    store = Store(database)
    taken = ImportFile(source, store)
    for page in pages(taken.each(), source.name, "bo"):
        receive(store, page, 1.0)
    assert taken.unusable.unusable == 0, taken.unusable.why
    found = [(o.prompt, o.tiers, o.margin) for _, o in store.orderings()]
    store.close()
    return found


def test_what_was_rated_in_a_file_teaches_a_session_the_same_by_every_way(file: RatingFile, tmp_path: Path) -> None:
    said_all(file)
    export_rated(file.path, None, "jsonl", tmp_path / "t")
    export_rated(file.path, None, "preferences", tmp_path / "p")
    log = brought(file.output, tmp_path / "a.db")
    assert log == brought(tmp_path / "t" / "ratings.jsonl", tmp_path / "b.db")
    assert [o[:2] for o in log] == [o[:2] for o in brought(tmp_path / "p" / "preferences.jsonl", tmp_path / "c.db")]
    assert [margin for *_, margin in log] == [0.0, 1.0, 0.0]


def test_ratings_of_an_exported_file_come_back_to_its_session(tmp_path: Path) -> None:
    from sessions.export import export

    folder = new_session("s", SessionSettings(name="s"))
    store = Store(folder.database)
    store.add_groups([group(4, 2), group(4, 3)])
    export(folder, "jsonl", tmp_path / "out")
    file = RatingFile(tmp_path / "out" / "responses.jsonl", "ann")
    [saved, _] = do(file, rate({"B": 2.0}, "4.3", order=["B", "A", "C", "D"]))
    taken = ImportFile(file.output, store)
    for page in pages(taken.each(), "x", "bo"):
        receive(store, page, 1.0)
    assert store.ratings_of(ResponseName(4, 3), "main") == [saved.rating]
    assert store.orderings() == []
    file.close()
    store.close()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_in_the_place_of_ratings_are_read_or_told(tmp_path_factory: pytest.TempPathFactory, rows) -> None:
    base = tmp_path_factory.getbasetemp()
    path = write(base / "fuzz.jsonl", *ROWS)
    log = base / "fuzz.log"
    first = b'{"kind":"opened","file":"x","who":"ann","time":1.0,"digest":"d","groups":3}\n'
    log.write_bytes(first + b"\n".join(rows))
    before = log.read_bytes()
    try:
        RatingFile(path, "ann", log).close()
    except WorkbenchError as error:
        wrong = str(error)
        unchanged = log.read_bytes() == before
    else:
        wrong, unchanged = "", log.read_bytes().startswith(first)
    assert unchanged
    assert "\n" not in wrong
    log.unlink()


def test_a_line_is_bounded(file: RatingFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rating_log, "LINE_LIMIT", 500)
    assert "is too long to be kept" in refused(file, rate({"A": 1.0}, mode="edit", text="x" * 500))
