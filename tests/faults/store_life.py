"""``python -m tests.faults.store_life FOLDER EVERY``: a store that dies at every EVERY-th point of its life.

Each life is a fork that makes a database and writes what an engine and its people do in three steps. What it was
killed in is then looked at with plain SQL, and lived to its end by another process.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from sessions import wire
from sessions.records import RatingUse
from sessions.store import Store
from tests.faults.nursery import Points, die_at_a_statement
from tests.sessions.samples import alarm, change, checkpoint, group, rating, skip, step_record

STEPS = 3
TELL = Callable[[str], object]


def live(path: Path, tell: TELL) -> None:
    """What an engine has its store do; it goes on from the last step that the database has."""
    store = Store(path)
    store.set_meta("start_values", "{}")
    store.add_event(wire.Noted(time=1.0, step=0, kind="started", text="on cpu"))
    last = store.last_step("main")
    begun = last.step + 1 if last else 1
    store.set_group_status("main", begun, "discarded")
    if begun == 1:
        store.put_checkpoint(checkpoint(0))
    for step in range(begun, STEPS + 1):
        fresh = [group(step, number) for number in (1, 2)]
        store.add_groups(fresh)
        said = [rating(step, 1, id=f"{step}-{k}", comment="why " * 400) for k in range(2)]
        for one in said:
            if store.rating(one.id) is None:
                store.add_rating(one)
            tell(f"rated {one.id}")
        standing = store.rating(said[0].id)
        if standing is not None and not standing.retracted:
            store.retract(said[0].id, "ann", 5.0)
        tell(f"retracted {said[0].id}")
        store.put_answer(wire.Answer(id=said[0].id, status="applied"))
        store.put_change(change(f"c{step}", status="pending"))
        store.put_change(change(f"c{step}", status="applied", applied_step=step))
        uses = [RatingUse(rating=said[1].id, group=f"{step}.1", fate="on_time", step=step)]
        store.add_rating_uses(uses, step)
        for one in fresh:
            one.status = "updated"
        store.add_step(step_record(step), fresh, keep_token_steps=1)
        tell(f"learned {step}")
        store.put_alarm(alarm(f"a{step}"))
        store.add_skip(skip(step))
        store.put_checkpoint(checkpoint(step))
    store.close()


def dies(path: Path, point: int, counted: str = "") -> tuple[int, list[str]]:
    """A life in a process of its own that dies at a point.

    :returns: its wait status and what it told.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        die_at_a_statement(Points(point, counted))
        live(path, lambda text: os.write(write, f"{text}\n".encode()))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        told = file.read().splitlines()
    return os.waitpid(child, 0)[1], told


def wrong_with(path: Path, told: list[str], *, whole: bool) -> tuple[list[str], int]:
    """What does not hold of a database.

    :param told: what was acknowledged in its life.
    :param whole: whether it was lived to its end.
    :returns: that in words, and how many acknowledged ratings are not as they were given.
    """
    db = sqlite3.connect(path)
    wrong = []
    if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
        wrong.append("its check fails")
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name='events'").fetchall():
        db.close()
        return [*wrong, *(["nothing is there"] if whole or told else [])], 0
    lost = 0
    for line in told:
        word, name = line.split()
        if word == "learned":
            if not db.execute("SELECT 1 FROM steps WHERE branch='main' AND step=?", (int(name),)).fetchall():
                wrong.append(f"step {name} is missing")
            continue
        found = db.execute("SELECT body, retracted FROM ratings WHERE id=?", (name,)).fetchall()
        kept = len(found) == 1 and json.loads(found[0][0])["comment"] == "why " * 400
        if not kept or (word == "retracted" and not found[0][1]):
            lost += 1
            wrong.append(f"{line} is not there")
    kinds = {"steps": "step", "alarms": "alarm", "checkpoints": "checkpoint"}
    for table, kind in kinds.items():
        there = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        (said,) = db.execute("SELECT count(*) FROM events WHERE kind=?", (kind,)).fetchone()
        if said < there or (not whole and said != there and kind == "step"):
            wrong.append(f"{there} {table} and {said} events of them")
    events = [json.loads(body) for (body,) in db.execute("SELECT body FROM events WHERE kind='rating'")]
    for table, event, of in (
        ("ratings", "rating", lambda e: e["rating"]["id"]),
        ("rating_uses", "rating_used", lambda e: e["use"]["rating"]),
        ("skips", "skipped", lambda e: e["skip"]["id"]),
    ):
        ids = {name for (name,) in db.execute(f"SELECT {'rating' if table == 'rating_uses' else 'id'} FROM {table}")}
        if ids != {of(e) for e in events if e["event"] == event}:
            wrong.append(f"{table} and their events differ")
    back = {name for (name,) in db.execute("SELECT id FROM ratings WHERE retracted<>0")}
    if back != {e["rating"] for e in events if e["event"] == "retracted"}:
        wrong.append("ratings taken back and their events differ")
    learned = {step for (step,) in db.execute("SELECT step FROM steps")}
    updated = {step for (step,) in db.execute("SELECT step FROM groups WHERE status='updated'")}
    if learned != updated:
        wrong.append(f"steps {sorted(learned)} were learned and groups of {sorted(updated)} updated")
    if whole and learned != set(range(1, STEPS + 1)):
        wrong.append(f"it ended after steps {sorted(learned)}")
    db.close()
    return wrong, lost


def main(folder: Path, every: int) -> None:
    counted = folder / "counted"
    status, told = dies(folder / "whole.db", 0, str(counted))
    assert status == 0
    assert wrong_with(folder / "whole.db", told, whole=True) == ([], 0)
    points = int(counted.read_text())
    broken: list[str] = []
    killed = acknowledged = lost = 0
    for point in range(1, points + 1, every):
        path = folder / f"{point}.db"
        status, told = dies(path, point)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            killed += 1
        acknowledged += sum(line.startswith("rated") for line in told)
        for whole in (False, True):
            if whole:
                status, more = dies(path, 0)
                told += more
                if status != 0:
                    broken.append(f"point {point}: it cannot be lived on with")
                    continue
            wrong, missing = wrong_with(path, told, whole=whole)
            lost += missing
            broken += [f"point {point}, {'lived on' if whole else 'killed'}: {what}" for what in wrong]
        for file in folder.glob(f"{point}.db*"):
            file.unlink()
    print(json.dumps({
        "points": points, "killed": killed, "acknowledged": acknowledged, "lost": lost, "broken": broken,
    }))  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
