"""The rows of a session's branches: what they are, what moves from one to another, what goes with one.

Every function here takes a connection; those that change several tables expect a transaction around them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

import msgspec

from sessions.branches import Branch, BranchInfo, Dropped, Probe, Segment, aside_name, line_of
from sessions.evaluations import HeldOut, pack, unpack
from sessions.records import MAIN, WARM_UP, Checkpoint, StepRecord
from sessions.schema import branch_row

_json = msgspec.json
OWNED = ("steps", "groups", "ratings", "skips", "checkpoints", "rating_uses", "probes", "held_out", "changes", "alarms")
"""Tables whose rows name the branch that they belong to, and the step."""


def read_branches(db: sqlite3.Connection) -> dict[str, Branch]:
    """Every branch by name, the oldest first."""
    found = [_json.decode(body, type=Branch) for (body,) in db.execute("SELECT body FROM branches ORDER BY rowid")]
    return {branch.name: branch for branch in found}


def put_branch(db: sqlite3.Connection, branch: Branch) -> None:
    """Keep a branch, new or as it is now."""
    name, parent, step, body = branch_row(branch)
    db.execute(
        "INSERT INTO branches VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET parent=excluded.parent, step=excluded.step, body=excluded.body",
        (name, parent, step, body),
    )


def move_steps(db: sqlite3.Connection, branch: str, after: int, to: Branch) -> int:
    """Give the steps of a branch after ``after``, with all that belongs to them, to a new branch.

    Branches that began at one of them begin there still. What an update among them used of a rating is theirs, so a
    rating of an earlier step waits for an update of ``branch`` again.

    :returns: how many steps moved.
    """
    put_branch(db, to)
    moved = db.execute("UPDATE steps SET branch=? WHERE branch=? AND step>?", (to.name, branch, after)).rowcount
    for table in OWNED:
        if table != "steps":
            db.execute(f"UPDATE {table} SET branch=? WHERE branch=? AND step>?", (to.name, branch, after))
    dropped = read_dropped(db, branch)
    put_dropped(db, branch, None)
    if dropped is not None and dropped.step > after:
        put_dropped(db, to.name, dropped)
    for child in read_branches(db).values():
        if child.parent == branch and child.step > after and child.name != to.name:
            put_branch(db, msgspec.structs.replace(child, parent=to.name))
    return moved


def rewind(db: sqlite3.Connection, name: str, step: int, why: str) -> tuple[str, int]:
    """Let a branch end at a step of its line; what it had after that moves to a branch of its own.

    :returns: that branch's name, empty where there was nothing, and how many steps moved.
    """
    branches = read_branches(db)
    branch = branches[name]
    own = [
        db.execute(f"SELECT count(*) FROM {table} WHERE branch=? AND step>?", (name, step)).fetchone()[0]
        for table in ("steps", "groups", "checkpoints")
    ]
    to = Branch(name="", parent=name, step=step, time=time.time(), why=why, seed=branch.seed, abandoned=True)
    if branch.parent and step < branch.step:  # back over where it began: it begins earlier, and they where it did
        to = msgspec.structs.replace(to, parent=branch.parent, step=branch.step)
        put_branch(db, msgspec.structs.replace(branch, step=step))
        own.append(db.execute("SELECT count(*) FROM changes WHERE branch=? AND step>?", (name, step)).fetchone()[0])
    if not any(own):
        put_dropped(db, name, None)
        return "", 0
    to = msgspec.structs.replace(to, name=aside_name(name, branches))
    return to.name, move_steps(db, name, step, to)


def read_dropped(db: sqlite3.Connection, branch: str) -> Dropped | None:
    """What dropped tries at the newest step of a branch that had any have used up."""
    row = db.execute("SELECT value FROM meta WHERE key=?", (f"dropped:{branch}",)).fetchone()
    return _json.decode(row[0], type=Dropped) if row else None


def put_dropped(db: sqlite3.Connection, branch: str, dropped: Dropped | None) -> None:
    """Keep that, or forget it."""
    if dropped is None:
        db.execute("DELETE FROM meta WHERE key=?", (f"dropped:{branch}",))
    else:
        value = _json.encode(dropped).decode()
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"dropped:{branch}", value))


def rename(db: sqlite3.Connection, old: str, new: str) -> None:
    """Give a branch another name."""
    branches = read_branches(db)
    db.execute("UPDATE branches SET name=? WHERE name=?", (new, old))
    put_branch(db, msgspec.structs.replace(branches[old], name=new))
    for child in branches.values():
        if child.parent == old:
            put_branch(db, msgspec.structs.replace(child, parent=new))
    for table in OWNED:
        db.execute(f"UPDATE {table} SET branch=? WHERE branch=?", (new, old))
    put_dropped(db, new, read_dropped(db, old))
    put_dropped(db, old, None)


def forget(db: sqlite3.Connection, name: str) -> None:
    """Delete what a branch learned; what a person rated on it stays, with its groups."""
    branch = read_branches(db)[name]
    put_branch(db, msgspec.structs.replace(branch, deleted=time.time()))
    db.execute(
        "DELETE FROM groups WHERE branch=? AND NOT EXISTS (SELECT 1 FROM ratings r "
        "WHERE r.branch=groups.branch AND r.step=groups.step AND r.number=groups.number)",
        (name,),
    )
    for table in ("steps", "checkpoints", "probes", "held_out"):
        db.execute(f"DELETE FROM {table} WHERE branch=?", (name,))


def on_line(segments: Sequence[Segment], step: str = "step", branch: str = "branch") -> tuple[str, list[str | int]]:
    """An SQL condition for the rows of a line, and its parameters.

    :param step: the column, or the expression, of a row's step.
    :param branch: the column of its branch.
    """
    clause = " OR ".join(f"({branch}=? AND {step}>? AND {step}<=?)" for _ in segments)
    return f"({clause})", [part for segment in segments for part in segment]


def branch_infos(db: sqlite3.Connection, active: str) -> list[BranchInfo]:
    """Every branch that is not deleted, with what became of it."""
    branches = read_branches(db)
    infos = []
    for branch in branches.values():
        if branch.deleted:
            continue
        if branch.name == WARM_UP or branch.name.startswith(f"{WARM_UP}~"):
            continue
        rows = db.execute("SELECT body FROM steps WHERE branch=? ORDER BY step DESC LIMIT 1", (branch.name,)).fetchone()
        last = _json.decode(rows[0], type=StepRecord) if rows else None
        count = db.execute("SELECT count(*) FROM steps WHERE branch=? AND step>0", (branch.name,)).fetchone()[0]
        begun = _step_at(db, line_of(branches, branch.name), branch.step) if branch.parent else None
        shown = last or begun
        judged = _evaluations(db, branch.name)
        saved = db.execute("SELECT body FROM checkpoints WHERE branch=? ORDER BY step", (branch.name,))
        infos.append(
            BranchInfo(
                branch=branch,
                active=branch.name == active,
                tip=last.step if last else branch.step,
                steps=count,
                time=last.time if last else branch.time,
                metrics=shown.metrics if shown else {},
                evaluated=judged[-1] if judged else None,
                best=max(judged, key=lambda point: (point[1], point[0])) if judged else None,
                values=shown.values if shown else {},
                begun_with=begun.values if begun else {},
                checkpoints=[
                    msgspec.structs.replace(_json.decode(body, type=Checkpoint), branch=branch.name)
                    for (body,) in saved
                ],
            )
        )
    return infos


def _step_at(db: sqlite3.Connection, segments: list[Segment], step: int) -> StepRecord | None:
    """The newest step of a line that is not after ``step``."""
    for segment in reversed(segments):
        row = db.execute(
            "SELECT body FROM steps WHERE branch=? AND step>? AND step<=? ORDER BY step DESC LIMIT 1",
            (segment.branch, segment.after, min(step, segment.last)),
        ).fetchone()
        if row:
            return _json.decode(row[0], type=StepRecord)
    return None


def _evaluations(db: sqlite3.Connection, branch: str) -> list[tuple[int, float]]:
    """Step and held-out accuracy of a branch's own evaluations."""
    return db.execute(
        "SELECT step, accuracy FROM steps WHERE branch=? AND accuracy NOT NULL ORDER BY step", (branch,)
    ).fetchall()


def saved_accuracies(db: sqlite3.Connection) -> dict[tuple[str, int], float]:
    """(branch, step) -> held-out accuracy, of every step that was evaluated and has a checkpoint."""
    rows = db.execute(
        "SELECT c.branch, c.step, s.accuracy FROM checkpoints c JOIN steps s ON s.branch=c.branch AND s.step=c.step "
        "WHERE s.accuracy NOT NULL"
    )
    return {(branch, step): accuracy for branch, step, accuracy in rows}


def put_probes(db: sqlite3.Connection, probes: list[Probe]) -> None:
    """Keep what a branch answered to the probe prompts."""
    db.executemany(
        "INSERT OR REPLACE INTO probes VALUES (?, ?, ?, ?)",
        [(p.branch, p.step, p.place, _json.encode(p)) for p in probes],
    )


def newest_probes(db: sqlite3.Connection, line: Sequence[Segment]) -> list[Probe]:
    """A line's newest answers to the probe prompts, in the order of these."""
    for segment in reversed(line):
        row = db.execute(
            "SELECT max(step) FROM probes WHERE branch=? AND step>? AND step<=?", tuple(segment)
        ).fetchone()  # fmt: skip
        if row[0] is not None:
            rows = db.execute(
                "SELECT body FROM probes WHERE branch=? AND step=? ORDER BY place", (segment.branch, row[0])
            )
            return [msgspec.structs.replace(_json.decode(body, type=Probe), branch=segment.branch) for (body,) in rows]
    return []


def put_held_out(db: sqlite3.Connection, evaluation: HeldOut) -> None:
    """Keep an evaluation; one step has one, the newest."""
    row = (evaluation.branch, evaluation.step, evaluation.time, pack(evaluation))
    db.execute("INSERT OR REPLACE INTO held_out VALUES (?, ?, ?, ?)", row)


def held_out_steps(db: sqlite3.Connection, line: Sequence[Segment]) -> list[int]:
    """Steps of a line that were evaluated, in order."""
    clause, parameters = on_line(line)
    return [step for (step,) in db.execute(f"SELECT step FROM held_out WHERE {clause} ORDER BY step", parameters)]


def held_out(db: sqlite3.Connection, line: Sequence[Segment], step: int) -> HeldOut | None:
    """The evaluation of a step of a line; None: there was none."""
    clause, parameters = on_line(line)
    row = db.execute(f"SELECT branch, body FROM held_out WHERE step=? AND {clause}", [step, *parameters]).fetchone()
    return unpack(row[1], row[0]) if row else None


def active_branch(db: sqlite3.Connection) -> str:
    """The branch that a session trains."""
    row = db.execute("SELECT value FROM meta WHERE key='branch'").fetchone()
    return row[0] if row else MAIN
