"""The database: what goes in comes out, and what a person said survives a kill."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessions import wire
from sessions.errors import InvalidValue, SessionError
from sessions.records import WARM_UP, ResponseName, StepRecord, parse_response_name
from sessions.store import Store
from tests.sessions.samples import (
    alarm,
    change,
    checkpoint,
    group,
    rating,
    skip,
    step_record,
    use,
)

FIRST = ResponseName(3, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path)
    yield store
    store.close()


def test_a_group_comes_back_whole(store: Store) -> None:
    made = group()
    made.responses[1].text = "ünï\x00\x1b[31m\u202e"
    made.responses[1].failed = "accuracy: ValueError"
    made.responses[2].ended = False
    store.add_groups([made])
    assert store.group(FIRST, "main") == made
    with pytest.raises(InvalidValue, match=r"no group 3\.2 on branch main"):
        store.group(ResponseName(3, 2), "main")


def test_heads_come_newest_first(store: Store) -> None:
    store.add_groups([group(step, number) for step in (1, 2, 3) for number in (1, 2)])
    names = [head.name for head in store.heads("main")]
    assert names == ["3.2", "3.1", "2.2", "2.1", "1.2", "1.1"]
    assert [head.name for head in store.heads("main", before=3, limit=3)] == ["2.2", "2.1", "1.2"]
    assert store.heads("other") == []


def test_a_group_sampled_again_replaces_the_old_one(store: Store) -> None:
    store.add_groups([group(rewards=[1.0, 0.0, 1.0, 1.0])])
    smaller = group(rewards=[0.0, 0.0])
    store.add_groups([smaller])
    assert store.group(FIRST, "main") == smaller


def test_a_step_updates_its_groups(store: Store) -> None:
    made = group()
    store.add_groups([made])
    made.status = "updated"
    for i, response in enumerate(made.responses):
        response.advantage, response.automatic_advantage, response.rated_reward = i / 2, i / 4, 0.5
        response.kl = 0.01
        response.reference_logprobs = [-0.25] * 3
        response.entropies = []  # not measured again: the old ones stay
    event = store.add_step(step_record(3), [made], keep_token_steps=500)
    assert (event.seq, event.step) == (1, 3)
    kept = store.group(FIRST, "main")
    assert kept.status == "updated"
    assert [r.advantage for r in kept.responses] == [0.0, 0.5, 1.0, 1.5]
    assert kept.responses[0].reference_logprobs == [-0.25] * 3
    assert kept.responses[0].entropies == [0.25] * 3
    assert store.steps("main") == [step_record(3)]
    assert store.last_step("main") == step_record(3)
    assert store.last_step("other") is None


def test_old_tokens_are_dropped_but_kept_for_rated(store: Store) -> None:
    for step in (1, 2, 3):
        store.add_groups([group(step, 1), group(step, 2)])
        if step == 1:
            store.add_rating(rating(step=1, number=2))
        store.add_step(step_record(step), [], keep_token_steps=2)
    assert store.group(ResponseName(1, 1), "main").responses[0].tokens == []
    assert store.group(ResponseName(1, 1), "main").responses[0].text == "12\n"
    assert store.group(ResponseName(1, 2), "main").responses[0].tokens == [0, 1, 2]
    assert store.group(ResponseName(2, 1), "main").responses[0].tokens == [0, 1, 2]


def test_group_status(store: Store) -> None:
    done = group(number=2)
    done.status = "updated"
    store.add_groups([group(), done])
    store.set_group_status("main", 3, "discarded")
    assert [head.status for head in store.heads("main")] == ["updated", "discarded"]


def test_series(store: Store) -> None:
    for step in range(1, 6):
        store.add_step(step_record(step, **{"kl/k3": 0.1 if step % 2 else None}), [], 500)
    series = store.series("main")
    assert series["reward/mean"].steps == [1, 2, 3, 4, 5]
    assert series["kl/k3"].values == [0.1, None, 0.1, None, 0.1]
    assert {data.name for data in store.series_data("main")} == set(series)


def test_step_0_is_told_by_the_accuracy_that_it_is_there_for(store: Store) -> None:
    before = StepRecord(branch="main", step=0, time=4.0, metrics={"eval/accuracy": 0.582})
    assert wire.describe(store.add_step(before, [], 500)) == ("step", "step 0 done: held-out 58.2%")


def test_the_warm_up_is_among_the_series_of_every_branch_and_not_among_its_steps(store: Store) -> None:
    for step in (1, 2, 3):
        record = StepRecord(branch=WARM_UP, step=step, time=float(step), metrics={"warmup/loss": 1.0 / step})
        event = store.add_step(record, [], 500)
    assert wire.describe(event) == ("warm-up", "warm-up step 3 done: loss 0.333")
    store.add_step(step_record(1), [], 500)
    for branch in ("main", "main~1"):
        assert store.series(branch)["warmup/loss"].steps == [1, 2, 3]
    assert store.series("main")["reward/mean"].steps == [1]
    assert [record.step for record in store.steps("main")] == [1]
    last = store.last_step("main")
    assert last is not None
    assert last.step == 1
    kept = [event for event in store.events() if isinstance(event, wire.StepDone)]
    assert [(event.record.branch, event.step) for event in kept] == [
        ("main", 1), (WARM_UP, 3), (WARM_UP, 2), (WARM_UP, 1)
    ]  # fmt: skip


def test_a_step_with_numbers_that_are_not_finite_can_be_read_again(store: Store) -> None:
    record = step_record(1, **{"kl/k3": math.nan, "loss/policy": math.inf})
    record.advantages = [1.0, math.nan, -math.inf]
    event = store.add_step(record, [], 500)
    kept = store.last_step("main")
    assert kept is not None
    assert kept.advantages == [1.0]
    assert kept.metrics["kl/k3"] is kept.metrics["loss/policy"] is None
    assert store.series("main")["kl/k3"].values == [None]
    assert isinstance(wire.decode_event(wire.encode_event(event)), wire.StepDone)


def test_ratings_supersede_and_retract(store: Store) -> None:
    store.add_groups([group()])
    first = rating(values={"A": 4.0, "B": 2.0})
    second = rating(values={"A": 1.0}, supersedes=first.id, time=101.0)
    other = rating(values={"C": -1.0}, mode="thumbs", who="bob", time=102.0)
    for made in (first, second, other):
        event = store.add_rating(made)
        assert isinstance(event, wire.RatingSaved)
        assert event.rating == made
    assert store.ratings_of(FIRST, "main") == [first, second, other]
    assert store.standing_ratings(FIRST, "main") == [second, other]
    assert store.head(FIRST, "main").ratings == {"A": "1", "C": "-1"}
    assert "rated" in store.head(FIRST, "main").flags

    event = store.retract(second.id, "ann", 103.0)
    assert isinstance(event, wire.RatingRetracted)
    assert event.used_in == 0
    assert store.head(FIRST, "main").ratings == {"A": "4", "B": "2", "C": "-1"}
    kept = store.rating(second.id)
    assert kept is not None
    assert kept.retracted == 103.0
    with pytest.raises(InvalidValue, match="was taken back before"):
        store.retract(second.id, "ann", 104.0)
    with pytest.raises(InvalidValue, match="no rating with the id 'nope'"):
        store.retract("nope", "ann", 104.0)
    assert store.rating("nope") is None
    assert [r.id for r in store.recent_ratings(2)] == [second.id, other.id]


def test_unrated_groups(store: Store) -> None:
    store.add_groups([group(number=1), group(number=2)])
    made = rating(number=2)
    store.add_rating(made)
    assert [head.name for head in store.heads("main", unrated=True)] == ["3.1"]
    store.retract(made.id, "ann", 101.0)
    assert [head.name for head in store.heads("main", unrated=True)] == ["3.2", "3.1"]


def test_uses_settle_ratings(store: Store) -> None:
    made, late = rating(), rating(time=101.0)
    store.add_rating(made)
    store.add_rating(late)
    assert store.unsettled_ratings("main") == [made, late]
    events = store.add_rating_uses([use(made.id, step=4)], 4)
    assert [event.seq for event in events] == [3]
    assert store.rating_use(made.id) == use(made.id, step=4)
    assert store.rating_use(late.id) is None
    assert store.uses_of([made, late]) == [use(made.id, step=4)]
    assert store.unsettled_ratings("main") == [late]
    retracted = store.retract(made.id, "ann", 102.0)
    assert isinstance(retracted, wire.RatingRetracted)
    assert retracted.used_in == 4


def test_changes_alarms_checkpoints_skips_and_answers(store: Store) -> None:
    store.put_change(change())
    store.put_change(change(status="applied", applied_step=4))
    store.put_change(change("c2", time=101.0))
    assert [(c.id, c.status) for c in store.changes()] == [("c1", "applied"), ("c2", "pending")]
    store.put_alarm(alarm())
    store.put_alarm(alarm(acknowledged=5.0))
    assert [a.acknowledged for a in store.alarms()] == [5.0]
    store.put_checkpoint(checkpoint(3))
    store.put_checkpoint(checkpoint(6))
    assert [c.step for c in store.checkpoints("main")] == [3, 6]
    event = store.add_skip(skip())
    assert isinstance(event, wire.Skipped)
    answer = wire.Answer(id="c", status="applied", step=3, text="done")
    store.put_answer(answer)
    assert store.answer("c") == answer
    assert store.answer("d") is None


def test_events_are_numbered_for_ever(store: Store, path: Path) -> None:
    store.add_step(step_record(1), [], 500)
    noted = store.add_event(wire.Noted(time=1.0, step=1, kind="paused", text="ann paused", who="ann"))
    store.put_alarm(alarm())
    assert noted.seq == 2
    assert store.last_seq() == 3
    newest = store.events()
    assert [event.seq for event in newest] == [3, 2, 1]
    assert newest[1] == noted
    assert newest[2] == wire.StepDone(time=101.0, step=1, seq=1, record=step_record(1))
    assert [event.seq for event in store.events(before=3, limit=1)] == [2]
    store.close()
    again = Store(path)
    assert again.last_seq() == 3
    assert again.add_event(wire.Noted(time=2.0, step=1, kind="resumed", text="")).seq == 4
    again.close()


def test_steps_computed_again_keep_one_row_and_two_events(store: Store) -> None:
    store.add_step(step_record(1), [], 500)
    again = step_record(1)
    again.time = 500.0
    store.add_step(again, [], 500)
    assert store.steps("main") == [again]
    assert [event.seq for event in store.events()] == [2, 1]
    assert all(isinstance(event, wire.StepDone) for event in store.events())


def test_setting_aside_moves_records_and_ratings(store: Store) -> None:
    for step in (1, 2, 3):
        store.add_groups([group(step)])
        store.add_step(step_record(step), [], 500)
        store.put_checkpoint(checkpoint(step))
    made = rating(step=3)
    store.add_rating(made)
    assert store.set_aside("main", 1, "rewound") == ("main~1", 2)
    assert [s.step for s in store.steps("main")] == [1]
    assert [(s.step, s.branch) for s in store.steps("main~1")] == [(1, "main"), (2, "main~1"), (3, "main~1")]
    assert list(store.branches()) == ["main", "main~1"]
    moved = store.ratings_of(parse_response_name("main~1/3.1"), "main")
    assert [(r.id, r.branch) for r in moved] == [(made.id, "main~1")]
    assert store.group(parse_response_name("main~1/3.1"), "main").branch == "main~1"
    assert store.unsettled_ratings("main") == []
    assert [c.step for c in store.checkpoints("main")] == [1]


def test_an_error_inside_a_step_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(store, "_drop_old_tokens", fail)
    with pytest.raises(RuntimeError):
        store.add_step(step_record(1), [], 500)
    monkeypatch.undo()
    assert store.steps("main") == []
    assert store.last_seq() == 0
    store.add_step(step_record(1), [], 500)
    assert len(store.steps("main")) == 1


def test_two_connections_see_each_other_at_once(store: Store) -> None:
    store.add_groups([group()])
    made = rating()
    store.add_rating(made)  # through the strict connection
    store.add_step(step_record(3), [], 500)  # through the other
    store.retract(made.id, "ann", 101.0)
    assert [e.seq for e in store.events()] == [3, 2, 1]
    assert (store._db.execute("PRAGMA synchronous").fetchone()[0]) == 1
    assert (store._strict.execute("PRAGMA synchronous").fetchone()[0]) == 2
    assert store._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_read_only_beside_a_writer(store: Store, path: Path) -> None:
    reader = Store(path, read_only=True)
    store.add_step(step_record(1), [], 500)
    last = reader.last_step("main")
    assert last is not None
    assert last.step == 1
    assert reader.database_id == store.database_id
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.add_event(wire.Noted(time=1.0, step=1, kind="x", text=""))
    reader.close()


def test_odd_folder_names(tmp_path: Path) -> None:
    folder = tmp_path / "50% off? #1 ünï"
    folder.mkdir()
    Store(folder / "session.db").close()
    reader = Store(folder / "session.db", read_only=True)
    assert reader.database_id
    reader.close()


def test_wrong_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("not a database, but long enough to be taken for one " * 20)
    foreign = tmp_path / "foreign.db"
    db = sqlite3.connect(foreign)
    db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()
    for path in (text, foreign):
        before = path.read_bytes()
        for read_only in (False, True):
            with pytest.raises(SessionError, match="not a session's database"):
                Store(path, read_only=read_only)
        assert path.read_bytes() == before
    with pytest.raises(SessionError, match="not a session's database"):
        Store(tmp_path / "missing.db", read_only=True)
    assert not (tmp_path / "missing.db").exists()


def test_a_newer_schema_is_refused(store: Store, path: Path) -> None:
    store.set_meta("schema", "99")
    for read_only in (False, True):
        with pytest.raises(SessionError, match=r"newer workbench \(schema 99\); upgrade rl-workbench"):
            Store(path, read_only=read_only)


KILLED = """
import sys
from pathlib import Path
from sessions.store import Store
from tests.sessions.samples import group, rating
store = Store(Path(sys.argv[1]))
store.add_groups([group()])
print(store.database_id, flush=True)
while True:
    made = rating()
    store.add_rating(made)
    print(made.id, flush=True)
"""


def test_an_acknowledged_rating_survives_kill_9(path: Path) -> None:
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], cwd=root, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = [child.stdout.readline().strip() for _ in range(21)]
    os.kill(child.pid, signal.SIGKILL)
    acknowledged += child.stdout.read().split("\n")[:-1]  # a last line cut by the kill was not acknowledged
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    store = Store(path)
    assert store.database_id == acknowledged[0]
    assert {r.id for r in store.ratings_of(FIRST, "main")} >= set(acknowledged[1:])
    assert store.last_seq() >= len(acknowledged) - 1
    assert store._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    store.close()


def test_a_full_disk_leaves_no_transaction_open(store: Store) -> None:
    store.add_groups([group()])

    def limit(pages: int) -> None:
        for db in (store._db, store._strict):
            db.execute(f"PRAGMA max_page_count={pages}")

    limit(1)  # SQLite takes the present size where it is larger
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.add_rating(rating(comment="x" * 100_000))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.add_groups([group(number=n) for n in range(2, 200)])
    limit(2**30)
    store.add_rating(rating(comment="x" * 100_000))
    store.add_groups([group(number=2)])
    assert [h.number for h in store.heads("main")] == [2, 1]
    assert len(store.ratings_of(ResponseName(3, 1), "main")) == 1


# ------------------------------------------------------------------------------- repeats, skips taken back, paging


def test_a_silent_repeat_counts_for_nothing_and_replaces_nothing(store: Store) -> None:
    store.add_groups([group(3, 1)])
    first = rating(3, 1, {"A": 4.0})
    store.add_rating(first)
    store.add_rating(rating(3, 1, {"A": 1.0}, repeats=first.id))
    name = ResponseName(3, 1)
    assert [r.id for r in store.standing_ratings(name, "main")] == [first.id]
    assert store.head(name, "main").ratings == {"A": "4"}
    assert len(store.ratings_of(name, "main")) == 2


def test_a_skip_can_be_taken_back_once(store: Store) -> None:
    store.add_groups([group(3, 1)])
    made = skip(3)
    store.add_skip(made)
    assert store.judged("main", 3) == {"3.1": {made.letter}}
    event = store.retract(made.id, "ann", 200.0)
    assert isinstance(event, wire.Skipped)
    assert event.skip.retracted == 200.0
    assert store.judged("main", 3) == {}
    with pytest.raises(InvalidValue, match="taken back before"):
        store.retract(made.id, "ann", 201.0)


def test_edits_and_critiques_do_not_count_at_the_gate(store: Store) -> None:
    store.add_groups([group(3, 1)])
    store.add_rating(rating(3, 1, {"A": 1.0}, mode="critique", flags=["wrong"]))
    store.add_rating(rating(3, 1, {"B": 1.0}, mode="edit", text="better"))
    assert store.judged("main", 3) == {}
    store.add_rating(rating(3, 1, {"B": 1.0, "A": 0.0}, mode="pair"))
    assert store.judged("main", 3) == {"3.1": {"A", "B"}}


def test_older_ratings_are_found_before_a_known_one(store: Store) -> None:
    store.add_groups([group(3, 1)])
    given = [rating(3, 1, {"A": float(1 + i % 5)}) for i in range(7)]
    for one in given:
        store.add_rating(one)
    newest = store.recent_ratings(3)
    assert [r.id for r in newest] == [r.id for r in given[-3:]]
    assert [r.id for r in store.recent_ratings(3, newest[0].id)] == [r.id for r in given[1:4]]
    assert store.recent_ratings(3, given[0].id) == []
